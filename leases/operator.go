package leases

import (
	"context"
	"errors"
	"time"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/problem"
)

// foreign writes down that an id is in use on this node although nobody was
// granted it: it stays out of the pool until it is proven unused.
func (a *Allocator) foreign(ctx context.Context, ref Ref, pool string, block uint32) error {
	found := false
	_, err := a.update(ctx, "foreign", []Ref{ref}, func(s *snap) (*plan, error) {
		found = s.claims[ref].Val == nil
		if s.claims[ref].Val != nil {
			return nil, nil
		}
		c := a.ownClaim(step(Free, evSeenRunning).next, pool, block)
		c.ReasonCode, c.Reason = ReasonForeign, "in use on "+a.id.Node+" although nobody was granted it"
		return &plan{edits: []edit{{ref: ref, after: c, lock: lockKeep}}}, nil
	})
	if err == nil && found {
		a.hooks.foreign(false)
	}
	return err
}

// ownClaim is a claim that this node makes without a request.
func (a *Allocator) ownClaim(state State, pool string, block uint32) *Claim {
	now := time.Now().UTC()
	epoch := ""
	a.mirror.read(func(v *view) {
		if v.meta.Val != nil {
			epoch = v.meta.Val.Epoch
		}
	})
	return &Claim{State: state, Pool: pool, Count: block, Token: NewToken(), Epoch: epoch, GrantedAt: now, Since: now, Nodes: []Presence{{Node: a.id.Node, Boot: a.id.Boot}}}
}

// Adopt turns a foreign use that this node sees into a grant of a caller: used,
// ended by its release. One round trip and one commit. ErrHeld if a grant has
// it, ErrNotFound if nothing is known of it.
func (a *Allocator) Adopt(ctx context.Context, ref Ref, caller, holder string, r Requester) (Held, error) {
	ctx, cancel := a.budget(ctx)
	defer cancel()
	claims, err := a.updateSure(ctx, "adopt", []Ref{ref}, func(s *snap) (*plan, error) {
		c := s.claims[ref].Val
		switch {
		case c == nil:
			return nil, problem.New(problem.CodeNotFound, "%s is free: there is nothing to adopt", label(ref)).
				Advise("to get it", "poolctl uid request --uid %d", ref.ID)
		case step(c.State, evAdopt).v != vForeign || c.ReasonCode != ReasonForeign:
			return nil, heldBy(ref, c)
		}
		now := time.Now().UTC()
		c = c.clone()
		if c.On(a.id.Node) == nil {
			return nil, problem.New(problem.CodeNotHeld, "%s is in use on %s: adopt it at that node's agent", label(ref), join(c.NodeNames()))
		}
		c.touch(step(Quarantined, evAdopt).next, now)
		c.Key, c.Grouped = "", false
		c.Token, c.Caller, c.Holder, c.GrantedAt, c.ReasonCode, c.Reason = NewToken(), caller, holder, now, "", ""
		p := c.On(a.id.Node)
		p.Boot, p.Requesters = a.id.Boot, []Requester{r}
		return &plan{edits: []edit{{ref: ref, after: c, lock: lockKeep}}}, nil
	})
	return one(ref, claims), err
}

// Reserve keeps ids out of every pool until Unreserve: an operator's word. What
// is reserved already is done; if any id is held, quarantined or not in a pool,
// nothing is reserved. A round trip and a commit for each [MaxGroup] ids: of a
// range larger than that an earlier part stands if a later one fails.
func (a *Allocator) Reserve(ctx context.Context, ids idset.Set, caller, reason string) (idset.Set, error) {
	var refused error
	a.mirror.read(func(v *view) {
		for id := range v.takenIn(cluster.SpaceUID).Intersect(ids).All() {
			ref := Ref{cluster.SpaceUID, id}
			if c := v.claims[ref].Val; c != nil && step(c.State, evReserve).v == vRefuse {
				refused = heldBy(ref, c)
				return
			}
		}
	})
	if refused != nil {
		return idset.Set{}, refused
	}
	return a.eachPart(ctx, ids, func(ctx context.Context, refs []Ref) error {
		_, err := a.update(ctx, "reserve", refs, func(s *snap) (*plan, error) {
			p := &plan{}
			for _, ref := range refs {
				c := s.claims[ref].Val
				if c == nil {
					fresh := a.ownClaim(Reserved, a.poolOf(ref), 1)
					fresh.Nodes, fresh.Caller = nil, caller
					fresh.ReasonCode, fresh.Reason = ReasonReserved, clip(reason)
					p.edits = append(p.edits, edit{ref: ref, after: fresh, lock: lockKeep})
				} else if step(c.State, evReserve).v == vRefuse {
					return nil, heldBy(ref, c)
				}
			}
			return p, nil
		})
		return err
	})
}

// Unreserve gives reserved ids back, through quarantine. What is not reserved is
// left alone.
func (a *Allocator) Unreserve(ctx context.Context, ids idset.Set, by string) (idset.Set, error) {
	return a.eachPart(ctx, ids, func(ctx context.Context, refs []Ref) error {
		_, err := a.updateSure(ctx, "unreserve", refs, func(s *snap) (*plan, error) {
			p := &plan{}
			for _, ref := range refs {
				c := s.claims[ref].Val
				if c == nil || step(c.State, evUnreserve).v != vMove {
					continue
				}
				c = c.clone()
				c.quarantine(ReasonUnreserve, "no longer reserved, by "+by, time.Now().UTC())
				p.edits = append(p.edits, edit{ref: ref, after: c, lock: lockKeep})
			}
			return p, nil
		})
		return err
	})
}

// maxReserve bounds what one call reserves: a claim each is written.
const maxReserve = 100_000

// eachPart runs f over cluster-scoped uids in parts of one transaction, after a
// first pass that refuses what is in no pool.
func (a *Allocator) eachPart(ctx context.Context, ids idset.Set, f func(context.Context, []Ref) error) (idset.Set, error) {
	if n := ids.Count(); n == 0 || n > maxReserve {
		return idset.Set{}, problem.New(problem.CodeInvalid, "%d ids: want 1 to %d", n, maxReserve).Advise("larger parts of a pool", "poolctl uid pool set POOL --exclude RANGES")
	}
	outside := ids
	a.mirror.read(func(v *view) {
		for _, p := range v.pools {
			if p.ofUIDs() && p.Val.Scope == ScopeCluster && p.Val.Block == 1 {
				outside = outside.Remove(p.firsts)
			}
		}
	})
	if !outside.IsEmpty() {
		return idset.Set{}, problem.New(problem.CodeOutsidePool, "%s is in no cluster-scoped pool of single ids", clipRanges(outside)).Advise("look", "poolctl uid pool list")
	}
	var done idset.Set
	var part []Ref
	flush := func() error {
		if len(part) == 0 {
			return nil
		}
		short, cancel := a.budget(ctx)
		defer cancel()
		if err := f(short, part); err != nil {
			return err
		}
		for _, ref := range part {
			done.Insert(ref.ID)
		}
		part = nil
		return nil
	}
	var errs error
	for id := range ids.All() {
		part = append(part, Ref{cluster.SpaceUID, id})
		if len(part) == MaxGroup {
			if errs = flush(); errs != nil {
				return done, errs
			}
		}
	}
	return done, errors.Join(errs, flush())
}

// poolOf names a pool that contains the id, "" if none does.
func (a *Allocator) poolOf(ref Ref) string {
	best := ""
	a.mirror.read(func(v *view) {
		for name, p := range v.pools {
			if p.space(a.id.Node) == ref.Space && p.firsts.Contains(ref.ID) && (best == "" || name < best) {
				best = name
			}
		}
	})
	return best
}
