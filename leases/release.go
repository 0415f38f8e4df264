package leases

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/idpool/idpool/problem"
)

// Release says who gives back what.
type Release struct {
	Refs  []Ref
	Token string
	// Requester, if not "", gives back for that requester alone.
	Requester string
	// Match, if not nil, chooses the requesters of this node that it speaks for;
	// nil and no Requester: all of this node.
	Match func(Requester) bool
	// Whole ends the grant on every node: an operator's word, or the caller's from
	// a node that the grant does not name (rule 5).
	Whole bool
	// Everywhere, if not "", gives back for the requesters of that name on every
	// node: one that stands for the caller, wherever it asked, and for no process.
	Everywhere string
	// By is who asked, for the claim's reason.
	By string
}

// Release ends a grant, or one requester's or this node's part in it. It is the
// holder's promise to start nothing more. What is over already is done and
// nothing is written (P5). It tells what it changed and how the ids stand.
//
// One round trip and one commit. Where this node's proof is the only one due the
// id is free at once (the shortcut), else the proof frees it later. While etcd has no
// space only the shortcut can be taken, with two round trips and a look more; else
// nothing is done, and it is ErrUnavailable.
func (a *Allocator) Release(ctx context.Context, r Release) ([]Held, bool, error) {
	ctx, cancel := a.budget(ctx)
	defer cancel()
	changed := false
	full := false // etcd has no space
	decide := func(s *snap) (*plan, error) {
		p := &plan{}
		now := time.Now().UTC()
		changed = false
		part := slices.ContainsFunc(r.Refs, func(ref Ref) bool {
			c := s.claims[ref].Val
			return c != nil && c.Token == r.Token && c.On(a.id.Node) != nil
		})
		for _, ref := range r.Refs {
			c := s.claims[ref].Val
			if c == nil || c.Token != r.Token {
				continue // over; whoever has it now is not touched
			}
			if !r.Whole && r.Everywhere == "" && part && c.On(a.id.Node) == nil {
				continue // others' part of a group that this node joined in part
			}
			c = c.clone()
			if !a.releaseOne(c, r, now) {
				continue
			}
			changed = true
			lock := lockKeep
			if c.State != Locked {
				lock = lockDrop
			}
			p.edits = append(p.edits, edit{ref: ref, after: c, lock: lock})
		}
		if (part || r.Everywhere != "") && !r.Whole && r.Requester == "" {
			changed = a.releaseVLANs(s, p, r, now) || changed
		}
		a.shortcut(ctx, s, p, r)
		if full {
			return p.spare()
		}
		return p, nil
	}
	claims, err := a.updateSure(ctx, "release", r.Refs, decide)
	if errors.Is(err, errNoSpace) && !errors.Is(err, problem.ErrOutcomeUnknown) {
		full = true
		claims, err = a.updateSure(ctx, "release", r.Refs, decide)
	}
	if err != nil {
		return nil, false, err
	}
	a.wake()
	return heldOf(r.Refs, claims), changed, nil
}

// releaseVLANs ends the VLANs of a group with uids, which no node holds, once the
// last of its uids is given back. They rest on those uids: each is edited too, or
// over.
func (a *Allocator) releaseVLANs(s *snap, p *plan, r Release, now time.Time) bool {
	after := map[Ref]*Claim{}
	for _, e := range p.edits {
		after[e.ref] = e.after
	}
	for _, ref := range r.Refs {
		c, edited := after[ref]
		if !edited {
			c = s.claims[ref].Val
		}
		if !ref.vlan() && c != nil && c.Token == r.Token && c.State.held() {
			return false
		}
	}
	changed := false
	for _, ref := range r.Refs {
		c := s.claims[ref].Val
		if _, edited := after[ref]; edited || !ref.vlan() || c == nil || c.Token != r.Token || !c.State.held() || len(c.Nodes) > 0 {
			continue
		}
		c = c.clone()
		c.quarantine(ReasonReleased, "released by "+r.By, now)
		p.edits = append(p.edits, edit{ref: ref, after: c, lock: lockDrop})
		changed = true
	}
	return changed
}

// releaseOne edits one claim; false means that nothing is left to do.
func (a *Allocator) releaseOne(c *Claim, r Release, now time.Time) bool {
	reason := "released by " + r.By
	p := c.On(a.id.Node)
	switch {
	case r.Everywhere != "":
		return c.releaseEverywhere(r.Everywhere, reason, now)
	case r.Requester != "":
		if p == nil || p.Requester(r.Requester) == nil {
			return false // its part is over
		}
		return c.release(a.id.Node, func(x Requester) bool { return x.ID == r.Requester }, reason, now)
	case !r.Whole && p != nil:
		return c.release(a.id.Node, r.Match, reason, now)
	case !c.State.held():
		return false
	}
	code := ReasonOperator
	if len(c.Nodes) == 0 { // a VLAN is held by no node
		code = ReasonReleased
	}
	c.quarantine(code, reason, now)
	return true
}

// shortcut frees what the plan would quarantine and nothing is due for: VLANs
// without cooldown, and uids if the only proof due is this node's and a look that
// begins now finds nothing (rule 5: the holder's own release only). The plan then
// compares the node list.
func (a *Allocator) shortcut(ctx context.Context, s *snap, p *plan, r Release) {
	sole := !r.Whole
	members, uids := int64(0), 0
	for i := range p.edits {
		a.skipCooldown(&p.edits[i])
	}
	a.mirror.read(func(v *view) {
		members = v.members.ModRev
		for _, e := range p.edits {
			if !e.ref.vlan() {
				uids++
				sole = sole && a.soleProof(v, e)
			}
		}
	})
	if !sole || members == 0 || uids == 0 {
		return
	}
	used, err := a.prover.InUse(ctx, 0)
	if err != nil {
		return
	}
	runs := a.runsBy(used)
	for _, e := range p.edits {
		if !e.ref.vlan() && runs(e.ref, e.after.Count) {
			return
		}
	}
	if a.leavesSomething(p) {
		return
	}
	for i := range p.edits {
		if !p.edits[i].ref.vlan() {
			p.edits[i].after = nil
		}
	}
	p.members = &members
}

// soleProof tells whether a claim that ended waits for this node's proof alone.
func (a *Allocator) soleProof(v *view, e edit) bool {
	pool, ok := v.pools[e.after.Pool]
	if !ok || pool.Val.Cooldown != 0 || e.after.State != Quarantined || e.after.On(a.id.Node) == nil || len(e.after.Nodes) != 1 || len(e.after.Nodes[0].Requesters) != 0 {
		return false
	}
	w := v.weigh(e.ref, Stored[Claim]{Val: e.after})
	for _, n := range v.witnesses() {
		if n.name != a.id.Node && w.due(n) {
			return false
		}
	}
	return true
}
