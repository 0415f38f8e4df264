package leases

import (
	"context"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/idpool/idpool/problem"
)

// orphan is a grant that was applied although nobody waits for it any more.
type orphan struct {
	refs             []Ref
	token, requester string
}

// refuseRunning gives a grant back of which ids are in use; what cannot be done
// now stays listed.
func (a *Allocator) refuseRunning(ctx context.Context, o orphan, bad []Ref) error {
	err := a.giveBack(ctx, o, bad)
	if err != nil {
		a.addOrphan(o)
	}
	return err
}

// giveBack ends a grant that its requester was never told of, and forgets its
// key, which then may be used again. Ids found in use stay away as foreign. Others
// who were bound under the key meanwhile keep the grant.
func (a *Allocator) giveBack(ctx context.Context, o orphan, foreign []Ref) error {
	now := time.Now().UTC()
	_, err := a.updateSure(ctx, "giveback", o.refs, func(s *snap) (*plan, error) {
		p := &plan{forget: true}
		for _, ref := range o.refs {
			c := s.claims[ref].Val
			if c == nil || c.Token != o.token || !c.State.held() {
				continue
			}
			c = c.clone()
			had := c.unbind(a.id.Node, o.requester)
			if slices.ContainsFunc(c.Nodes, func(p Presence) bool { return p.bound() }) {
				if had {
					c.settle(ReasonNotHanded, "", now)
					p.edits = append(p.edits, edit{ref: ref, after: c, lock: lockFor(c)})
				}
				continue
			}
			code, why := ReasonNotHanded, "granted, but the caller was never told"
			for _, f := range foreign {
				if f == ref {
					code, why = ReasonForeign, "in use on "+a.id.Node+" although nobody was granted it"
				}
			}
			c.quarantine(code, why, now)
			p.edits = append(p.edits, edit{ref: ref, after: c, lock: lockDrop})
		}
		return p, nil
	})
	return err
}

// orphaned returns a grant that is to be given back, if the token names one.
func (a *Allocator) orphaned(token string) (orphan, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	i := slices.IndexFunc(a.orphans, func(o orphan) bool { return o.token == token })
	if i < 0 {
		return orphan{}, false
	}
	return a.orphans[i], true
}

func (a *Allocator) dropOrphan(token string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.orphans = slices.DeleteFunc(a.orphans, func(o orphan) bool { return o.token == token })
}

func (a *Allocator) addOrphan(o orphan) {
	a.mu.Lock()
	a.orphans = append(a.orphans, o)
	a.mu.Unlock()
	a.wake()
}

// settleOrphans gives back grants that were applied when nobody waited any more.
// Each stays listed until that is done, so that its key is not answered meanwhile.
func (a *Allocator) settleOrphans(ctx context.Context) {
	a.mu.Lock()
	orphans := slices.Clone(a.orphans)
	a.mu.Unlock()
	for _, o := range orphans {
		short, cancel := a.budget(ctx)
		err := a.giveBack(short, o, nil)
		cancel()
		switch {
		case err == nil, problem.CodeOf(err) == problem.CodeFenced:
			a.dropOrphan(o.token)
		case ctx.Err() == nil:
			a.log.Warn("grant not settled yet", zap.Error(err))
		}
	}
}
