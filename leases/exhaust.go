package leases

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/problem"
)

// reclaimWait is how long a request waits for the proof of an id that it had to
// reclaim, beyond its own wait.
const reclaimWait = 5 * time.Second

// noneFree is where a request goes that found nothing in the mirror. nil means:
// look again. ErrExhausted is said of one etcd revision only (P7): the mirror has
// reached a revision read after the request came, no id of the pools is under
// way, and none is free. Then idle ids are reclaimed, and the request waits.
func (a *Allocator) noneFree(ctx context.Context, req GrantRequest, until time.Time) error {
	spaces := a.spacesOf(req.Wants)
	rev, _ := a.mirror.Revision()
	if busy, landed := a.airborne(spaces, rev); busy {
		changes := a.mirror.Changes()
		select {
		case <-landed:
		case <-changes:
		case <-time.After(a.client.Config().Attempt):
		case <-ctx.Done():
			return problem.Wrap(problem.CodeUnavailable, context.Cause(ctx), "other requests for the last ids have no answer from etcd yet")
		}
		return nil
	}
	err := a.linearize(ctx)
	if err != nil {
		return err
	}
	judged, _ := a.mirror.Revision()
	refusal := a.refusal(req.Wants)
	if refusal == nil {
		if refusal, err = a.overlapping(req.Wants); refusal == nil {
			return err
		}
	}
	if req.Dry {
		return refusal
	}
	reclaimed, err := a.reclaimFor(ctx, req.Wants)
	if err != nil {
		return err
	}
	limit := time.Until(until)
	if reclaimed {
		limit = max(limit, reclaimWait)
	}
	if limit <= 0 || refusal.Code == problem.CodeHeld {
		return refusal
	}
	short, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := a.mirror.wait(short, func(v *view) bool { return v.rev > judged && (a.free(v, req.Wants) || a.idle(v, req.Wants)) }); err != nil {
		if ctx.Err() != nil {
			return problem.Wrap(problem.CodeUnavailable, context.Cause(ctx), "the caller stopped waiting for a free id; nothing was done")
		}
		if again := a.refusal(req.Wants); again != nil {
			return again
		}
	}
	return nil
}

// overlapping refuses wants that can each be met but not together, because they
// compete for the ids that their pools share; nil if they can now.
func (a *Allocator) overlapping(wants []Want) (*problem.Error, error) {
	picks, err := a.pick(wants)
	if err != nil || picks != nil {
		a.land(picks, 0)
		return nil, err
	}
	rev, _ := a.mirror.Revision()
	if busy, _ := a.airborne(a.spacesOf(wants), rev); busy {
		return nil, nil
	}
	if tied(wants) {
		var refused *problem.Error
		a.mirror.read(func(v *view) { refused = a.untied(v, wants) })
		return refused, nil
	}
	e := problem.New(problem.CodeExhausted, "the pools have too few free ids for the whole group at revision %d: they share ids", rev)
	e.Revision = rev
	return e, nil
}

// linearize waits until the mirror has everything that was in etcd when it was
// called: one round trip, no commit.
func (a *Allocator) linearize(ctx context.Context) error {
	if err := a.session.refusal(); errors.Is(err, problem.ErrFrozen) && !isUnreadable(err) {
		return err // what the mirror shows is of before, and does not come closer
	}
	resp, err := a.client.Read(ctx, clientv3.OpGet(a.keys.Meta(), clientv3.WithKeysOnly()))
	if err != nil {
		return err
	}
	rev := resp.Header.Revision
	if a.reach(ctx, rev, 20*time.Millisecond) {
		return nil
	}
	for {
		_ = a.client.RequestProgress(ctx)
		if a.reach(ctx, rev, 500*time.Millisecond) {
			return nil
		}
		if err := a.session.refusal(); errors.Is(err, problem.ErrFrozen) && !isUnreadable(err) {
			return err
		}
		if ctx.Err() != nil {
			return problem.Wrap(problem.CodeUnavailable, context.Cause(ctx), "etcd's watch does not catch up (revision %d); nothing was done", rev)
		}
	}
}

func (a *Allocator) spacesOf(wants []Want) []cluster.Space {
	var spaces []cluster.Space
	a.mirror.read(func(v *view) {
		for _, w := range wants {
			if p, ok := v.pools[w.Pool]; ok {
				spaces = append(spaces, p.space(a.id.Node))
			}
		}
	})
	return spaces
}

// free tells whether every want could be met from the mirror. Wants that share a
// pool's ids are checked one by one; the pick finds out about their sum.
func (a *Allocator) free(v *view, wants []Want) bool {
	if tied(wants) {
		if fit, err := a.fitting(v, wants); err == nil && fit.IsEmpty() {
			return false
		}
	}
	need := map[string]uint64{}
	for _, w := range wants {
		p, ok := v.pools[w.Pool]
		if !ok {
			return true // let the pick say so
		}
		taken := v.takenIn(p.space(a.id.Node))
		need[w.Pool] += uint64(w.Count)
		if p.firsts.CountWithout(taken) < need[w.Pool] || (w.Exact != nil && taken.Contains(*w.Exact)) {
			return false
		}
		if w.Within != nil && w.Exact == nil && p.firsts.Intersect(*w.Within).CountWithout(taken) < uint64(w.Count) {
			return false
		}
	}
	return true
}

// refusal says why the wants cannot be met at the mirror's revision, nil if they
// can.
func (a *Allocator) refusal(wants []Want) *problem.Error {
	var out *problem.Error
	a.mirror.read(func(v *view) {
		if a.free(v, wants) {
			return
		}
		for _, w := range wants {
			p, ok := v.pools[w.Pool]
			if !ok {
				continue
			}
			if w.Exact != nil {
				ref := Ref{p.space(a.id.Node), *w.Exact}
				if c, ok := v.claims[ref]; ok {
					out = heldBy(ref, c.Val)
					out.Attribute = w.Label
					return
				}
				if v.takenIn(ref.Space).Contains(ref.ID) {
					out = problem.New(problem.CodeHeld, "%s has a claim that this version cannot read", label(ref)).Advise("look", "poolctl status")
					return
				}
			}
			single := w
			single.Offset = nil
			if !a.free(v, []Want{single}) {
				out = a.exhaustion(v, w, p)
				return
			}
		}
		if tied(wants) {
			out = a.untied(v, wants)
			return
		}
		out = problem.New(problem.CodeExhausted, "the pools have too few free ids for the whole group at revision %d", v.rev)
	})
	return out
}

// exhaustion is the refusal that counts the states and names who is waited for.
func (a *Allocator) exhaustion(v *view, w Want, p poolEntry) *problem.Error {
	s := a.tally(v, p, w)
	t, bare := tradeOf(w.Pool)
	e := problem.New(problem.CodeExhausted, "%s %s is exhausted: %d of %d %s free at revision %d", t.pool, bare, s.counts["free"], s.size, t.ids, v.rev)
	if !p.ofUIDs() && p.Val.Ranges.IsEmpty() {
		e.Detail = fmt.Sprintf("no %s can be allocated from %s: its range is empty", t.id, bare)
	}
	e.Attribute = w.Label
	if w.Count > 1 {
		e.Detail += fmt.Sprintf(", %d asked for", w.Count)
	}
	e.Counts, e.Revision = s.counts, v.rev
	var parts []string
	for _, st := range []State{Locked, Used, Idle, Reserved, Quarantined} {
		if n := s.counts[st.String()]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, st))
		}
	}
	if len(parts) > 0 {
		e.Notes = append(e.Notes, joinDots(parts))
	}
	for _, wn := range s.waits {
		e.WaitsFor = append(e.WaitsFor, problem.WaitsFor{Node: wn.node, LastSeen: wn.lastSeen, Why: wn.why})
		e.Note("%d wait for proof from %s (%s)", wn.count, wn.node, wn.why)
		if wn.why == "absent" {
			e.Advise("if "+wn.node+" is switched off", "poolctl node fence %s --reason …", wn.node)
		}
	}
	if s.cooling > 0 {
		e.Note("%d cool down, the last until %s", s.cooling, problem.Clock(time.Now().Add(s.coolest)))
	}
	if uint64(w.Count) > s.size {
		return e.Note("the %s has room for %d at most: waiting does not help", t.pool, s.size)
	}
	if !p.ofUIDs() {
		return e.Advise("widen it", "poolctl vlan inventory set %s --add RANGES", bare)
	}
	return e.Advise("or wait", "poolctl uid request --pool %s --wait 10m", w.Pool)
}

// reclaimFor quarantines as many idle ids as the wants lack, longest idle first
// (Ganeti takes a uid whose process is gone when no other is left). It tells
// whether any is on its way.
func (a *Allocator) reclaimFor(ctx context.Context, wants []Want) (bool, error) {
	any := false
	for _, w := range wants {
		var refs []Ref
		var pending bool
		a.mirror.read(func(v *view) { refs, pending = a.reclaimable(v, w) })
		any = any || pending || len(refs) > 0
		for _, ref := range refs {
			if err := a.reclaim(ctx, ref); err != nil && !errors.Is(err, problem.ErrUnavailable) {
				return any, err
			}
		}
	}
	return any, nil
}

// idle tells whether there is something to reclaim for the wants: a request that
// waits takes what became idle, or could not be reclaimed the first time.
func (a *Allocator) idle(v *view, wants []Want) bool {
	return slices.ContainsFunc(wants, func(w Want) bool {
		refs, _ := a.reclaimable(v, w)
		return len(refs) > 0
	})
}

// reclaimable lists the idle claims of a want's pool that reclaim may take, no
// more than are missing, and tells whether earlier ones are still on their way.
func (a *Allocator) reclaimable(v *view, w Want) (refs []Ref, pending bool) {
	p, ok := v.pools[w.Pool]
	if !ok || p.Val.Reclaim.Never {
		return nil, false
	}
	space := p.space(a.id.Node)
	missing := w.Count
	var idle []Ref
	for ref, c := range v.claims {
		if ref.Space != space || !p.firsts.Contains(ref.ID) || (w.Within != nil && !w.Within.Contains(ref.ID)) || (w.Exact != nil && *w.Exact != ref.ID) {
			continue
		}
		if c.Val.State == Quarantined && c.Val.Reclaimed {
			pending = true
			missing--
		}
		if c.Val.reclaimable() && p.Val.Reclaim.After == 0 && groupIdle(v, a.keys, c.Val) {
			idle = append(idle, ref)
		}
	}
	slices.SortFunc(idle, func(x, y Ref) int { return cmp.Compare(v.claims[x].ModRev, v.claims[y].ModRev) })
	return idle[:max(0, min(missing, len(idle)))], pending
}

// groupIdle tells whether every id of a claim's group is idle (rule 8).
func groupIdle(v *view, k cluster.Keys, c *Claim) bool {
	if !c.Grouped {
		return true
	}
	r := v.records[k.Grant(c.Caller, recordName(c.Key, c.Token))].Val
	if r == nil || r.Token != c.Token {
		return true
	}
	for _, ref := range r.IDs {
		if o := v.claims[ref].Val; o != nil && o.Token == c.Token && o.State.held() && o.State != Idle {
			return false
		}
	}
	return true
}

// reclaim quarantines an idle claim, with its whole group: a grant ends whole or
// not at all (rule 20). One round trip, one commit.
func (a *Allocator) reclaim(ctx context.Context, ref Ref) error {
	refs := a.Group(ref)
	_, err := a.update(ctx, "reclaim", refs, func(s *snap) (*plan, error) {
		p := &plan{}
		for _, ref := range refs {
			c := s.claims[ref].Val
			if c == nil {
				return nil, nil
			}
			c = c.clone()
			if !c.reclaim(time.Now().UTC()) {
				return nil, nil
			}
			p.edits = append(p.edits, edit{ref: ref, after: c, lock: lockDrop})
		}
		return p, nil
	})
	return err
}
