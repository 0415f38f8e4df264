package leases

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/idpool/idpool/problem"
)

// Find returns the refs of a live grant by its caller's allocation key, and its
// token: one round trip. ErrNotFound if the caller has no such key, ErrKeyEnded if
// it is over.
func (a *Allocator) Find(ctx context.Context, caller, key string) ([]Ref, string, error) {
	if err := a.linearize(ctx); err != nil {
		return nil, "", err
	}
	var rec, other *Record
	var unreadable error
	at := a.keys.Grant(caller, recordName(key, ""))
	a.mirror.read(func(v *view) {
		rec, unreadable = v.records[at].Val, v.unreadable[at]
		for _, k := range v.byKey[key] {
			if r := v.records[k].Val; r != nil && r.Caller != caller {
				other = r
			}
		}
	})
	switch {
	case rec == nil && unreadable != nil:
		return nil, "", unreadableRecord(at, unreadable)
	case rec == nil && other != nil:
		return nil, "", problem.New(problem.CodeHeld, "key %s is another caller's (%s)", key, other.Caller).By(problem.Holder{Caller: other.Caller, Key: key})
	case rec == nil:
		return nil, "", problem.New(problem.CodeNotFound, "caller %s has no allocation key %s", caller, key).
			Note("a key is forgotten a day after its grant ended")
	case rec.Ended:
		return rec.IDs, rec.Token, problem.New(problem.CodeKeyEnded, "the grant of key %s has ended at %s", key, problem.Clock(rec.Since))
	}
	return rec.IDs, rec.Token, nil
}

// Group returns all refs of the grant that ref belongs to: itself alone, or what
// its grant record lists.
func (a *Allocator) Group(ref Ref) []Ref {
	refs := []Ref{ref}
	a.mirror.read(func(v *view) {
		c := v.claims[ref].Val
		if c == nil || !c.Grouped {
			return
		}
		if r := v.records[a.recordKey(c)].Val; r != nil && r.Token == c.Token && !r.Ended {
			refs = slices.Clone(r.IDs)
		}
	})
	return refs
}

// mustOwn refuses a claim that does not carry the token, or no longer as a live
// grant: what P5 compares.
func mustOwn(ref Ref, c *Claim, token, verb string) error {
	switch {
	case c == nil:
		e := problem.New(problem.CodeLockLost, "%s not %s: its grant is over and it is free again", label(ref), verb)
		if ref.vlan() {
			return e
		}
		return e.Advise("ask again", "poolctl uid request …")
	case c.Token != token:
		e := heldBy(ref, c)
		e.Code, e.Detail = problem.CodeNotHeld, label(ref)+" not "+verb+": it is held by "+e.Holder.String()+", not by the grant you named"
		return e
	case !c.State.held():
		e := problem.New(problem.CodeLockLost, "%s not %s: the grant ended at %s (%s)", label(ref), verb, problem.Clock(c.Since), c.why())
		if ref.vlan() {
			return e
		}
		return e.Advise("ask again and hold longer", "poolctl uid request --hold ttl=30m …")
	}
	return nil
}

// Confirm ends the hand-over of an id on this node (Ganeti's Unlock); it stays
// taken. With keep it succeeds although nothing runs, and nothing but its own
// release or an operator ends it on this node; requester, if not "", says who keeps
// it. running is what the caller found under the id after the call began.
//
// One round trip and one commit; one round trip alone if it is confirmed already. Errors:
// ErrLockLost, ErrNotHeld, ErrNotRunning, ErrUnavailable, ErrOutcomeUnknown.
func (a *Allocator) Confirm(ctx context.Context, ref Ref, token, requester string, keep, running bool) (Held, error) {
	ctx, cancel := a.budget(ctx)
	defer cancel()
	claims, err := a.updateSure(ctx, "confirm", []Ref{ref}, func(s *snap) (*plan, error) {
		c := s.claims[ref].Val
		if err := mustOwn(ref, c, token, "confirmed"); err != nil {
			return nil, err
		}
		p := c.On(a.id.Node)
		if p != nil && p.Boot == a.id.Boot && p.Confirmed && c.State != Locked && (!keep || p.keeps(requester)) {
			return nil, nil
		}
		switch {
		case p != nil && keep && requester != "" && p.Requester(requester) == nil:
			return nil, problem.New(problem.CodeLockLost, "%s not confirmed: the requester's part in it is over", label(ref))
		case p != nil && p.Boot != a.id.Boot:
			return nil, problem.New(problem.CodeLockLost, "%s not confirmed: it was granted before node %s was rebooted", label(ref), a.id.Node)
		case running:
		case p != nil && c.State == Locked && a.lapsed(ref, p):
			return nil, problem.New(problem.CodeLockLost, "%s not confirmed: its hold ran out and no process runs under it", label(ref)).
				Advise("ask again and hold longer", "poolctl uid request --hold ttl=30m …")
		case !keep:
			return nil, problem.New(problem.CodeNotRunning, "%s not confirmed: no process runs under it on node %s", label(ref), a.id.Node).
				Advise("start it first, or let us", "poolctl uid exec -- COMMAND").
				Advise("keep it all the same", "poolctl uid confirm %d --keep", ref.ID)
		}
		c = c.clone()
		if err := c.confirm(a.id.Node, requester, keep, time.Now().UTC()); err != nil {
			return nil, err
		}
		return &plan{edits: []edit{{ref: ref, after: c, lock: lockDrop}}}, nil
	})
	return one(ref, claims), err
}

// lapsed tells whether no requester of the node may start anything any more.
func (a *Allocator) lapsed(ref Ref, p *Presence) bool {
	return !a.mayStart(ref, p.Requesters)
}

func one(ref Ref, claims map[Ref]Stored[Claim]) Held {
	c := claims[ref]
	return Held{Ref: ref, Claim: c.Val, ModRev: c.ModRev}
}

// Renew lets a requester's TTL hold end at a later time; where r names none, those
// of all requesters here that still last. One round trip and one
// commit. Errors as Confirm's; ErrInvalid if the grant has no TTL hold here.
func (a *Allocator) Renew(ctx context.Context, ref Ref, token string, r Requester) (Held, error) {
	ctx, cancel := a.budget(ctx)
	defer cancel()
	claims, err := a.updateSure(ctx, "renew", []Ref{ref}, func(s *snap) (*plan, error) {
		c := s.claims[ref].Val
		if err := mustOwn(ref, c, token, "renewed"); err != nil {
			return nil, err
		}
		p := c.On(a.id.Node)
		switch {
		case p == nil:
			return nil, problem.New(problem.CodeNotHeld, "%s not renewed: it is not held on node %s", label(ref), a.id.Node)
		case p.Boot != a.id.Boot:
			return nil, problem.New(problem.CodeLockLost, "%s not renewed: it was granted before node %s was rebooted", label(ref), a.id.Node)
		}
		c = c.clone()
		p = c.On(a.id.Node)
		mine, live := p.ttlHolds(r.ID), false
		for _, i := range mine {
			live = live || a.prover.MayStart(ref.ID, p.Requesters[i])
		}
		switch {
		case len(mine) == 0:
			return nil, problem.New(problem.CodeInvalid, "%s not renewed: it has no TTL hold on node %s", label(ref), a.id.Node)
		case c.State == Locked && !live:
			return nil, problem.New(problem.CodeLockLost, "%s not renewed: its hold ran out at %s", label(ref), problem.Clock(p.Requesters[mine[0]].Until))
		}
		for _, i := range mine {
			if x := &p.Requesters[i]; c.State != Locked || a.prover.MayStart(ref.ID, *x) {
				x.Deadline, x.Until = r.Deadline, r.Until
			}
		}
		p.Idle = false
		c.settle(ReasonReleased, "", time.Now().UTC())
		return &plan{edits: []edit{{ref: ref, after: c, lock: lockKeep}}}, nil
	})
	return one(ref, claims), err
}

// ttlHolds are the indexes of requesters with a TTL hold: the one named, or all.
func (p *Presence) ttlHolds(id string) []int {
	var found []int
	for i, r := range p.Requesters {
		if r.Hold == HoldTTL && (id == "" || r.ID == id) {
			found = append(found, i)
		}
	}
	return found
}

// Join adds a requester on this node to a live grant (one uid on several nodes).
// It must be asked by the process that will start, before it does (rule 36).
// One round trip and one commit. ErrKeyEnded if the grant is over, ErrNotHeld if
// the token is not its.
func (a *Allocator) Join(ctx context.Context, refs []Ref, token string, r Requester) ([]Held, error) {
	if err := a.granting(true); err != nil {
		return nil, err
	}
	if r.ID == "" {
		r.ID = NewToken()
	}
	ctx, cancel := a.budget(ctx)
	defer cancel()
	held, err := a.bindAll(ctx, refs, token, r)
	if errors.Is(err, problem.ErrKeyEnded) { // say so if another has it now
		s, unread := a.load(ctx, refs)
		if unread != nil {
			return nil, unread
		}
		for ref, c := range s.claims {
			if c.Val != nil && c.Val.Token != token {
				return nil, mustOwn(ref, c.Val, token, "joined")
			}
		}
	}
	return held, err
}

// ConfirmGroup keeps a whole grant: its hand-over is over, and only a release, or
// an operator, ends it. VLANs are held by no node from here. One round trip and one
// commit; none if it is kept already. Errors as Confirm's.
func (a *Allocator) ConfirmGroup(ctx context.Context, refs []Ref, token, requester string) ([]Held, error) {
	ctx, cancel := a.budget(ctx)
	defer cancel()
	claims, err := a.updateSure(ctx, "keep", refs, func(s *snap) (*plan, error) {
		p := &plan{}
		now := time.Now().UTC()
		for _, ref := range refs {
			c := s.claims[ref].Val
			if err := mustOwn(ref, c, token, "confirmed"); err != nil {
				return nil, err
			}
			if on := c.On(a.id.Node); c.State != Locked && (on == nil || on.keeps(requester)) {
				continue
			}
			c = c.clone()
			switch on := c.On(a.id.Node); {
			case on == nil || on.Boot != a.id.Boot:
				return nil, problem.New(problem.CodeNotHeld, "%s not confirmed: it is not being handed over on node %s", label(ref), a.id.Node)
			case c.State == Locked && a.lapsed(ref, on):
				return nil, problem.New(problem.CodeLockLost, "%s not confirmed: its hold ran out", label(ref)).
					Advise("ask again", "the same request")
			case ref.vlan():
				c.touch(step(c.State, evConfirm).next, now)
				c.Nodes = nil
			default:
				if err := c.confirm(a.id.Node, requester, true, now); err != nil {
					return nil, err
				}
			}
			p.edits = append(p.edits, edit{ref: ref, after: c, lock: lockDrop})
		}
		return p, nil
	})
	if err != nil {
		return nil, err
	}
	return heldOf(refs, claims), nil
}
