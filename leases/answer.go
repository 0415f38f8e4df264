package leases

import (
	"context"
	"errors"
	"time"

	"github.com/idpool/idpool/problem"
)

// answer looks whether the allocation key has a grant already. It is nil where
// it has none. The same request again is a write (rule 4): it binds the
// requester, on this node, so that the first one's release does not end what the
// second was just told. One round trip and one commit.
func (a *Allocator) answer(ctx context.Context, req GrantRequest) (*Grant, error) {
	key := a.keys.Grant(req.Caller, recordName(req.Key, ""))
	var rec *Record
	var other *Record
	var unreadable error
	a.mirror.read(func(v *view) {
		rec, unreadable = v.records[key].Val, v.unreadable[key]
		for _, k := range v.byKey[req.Key] {
			if r := v.records[k].Val; r != nil && r.Caller != req.Caller && !r.Ended {
				other = r
			}
		}
	})
	switch {
	case unreadable != nil:
		return nil, unreadableRecord(key, unreadable)
	case rec == nil && other != nil:
		return nil, problem.New(problem.CodeKeyConflict, "key %s is another caller's (%s, %s)", req.Key, other.Caller, other.Request).
			Note("use another key")
	case rec == nil:
		return nil, nil
	}
	_, digest := req.describe()
	switch {
	case rec.Ended:
		return nil, problem.New(problem.CodeKeyEnded, "the grant of key %s has ended at %s (%s)", req.Key, problem.Clock(rec.Since), rec.Request).
			Note("a key names one request; use another key (this one is forgotten a day after its grant ended)")
	case rec.Digest != digest:
		want, _ := req.describe()
		return nil, problem.New(problem.CodeKeyConflict, "key %s already stands for %s (%s); this request asks for %s", req.Key, rec.Request, refList(rec.IDs), want).
			Advise("another key, or end the first", "poolctl %s", req.endOf())
	}
	if len(rec.IDs) < req.count() {
		return nil, problem.New(problem.CodeKeyEnded, "a part of the grant of key %s has ended: %d of its %d ids are left (%s)", req.Key, len(rec.IDs), req.count(), refList(rec.IDs)).
			Advise("use another key, or end the rest", "poolctl %s", req.endOf())
	}
	if o, ok := a.orphaned(rec.Token); ok { // granted, but never looked at: not to be handed out
		if err := a.giveBack(ctx, o, nil); err != nil {
			return nil, err
		}
		a.dropOrphan(o.token)
		a.caught(ctx)
		return nil, nil
	}
	if !req.handedOver() {
		return a.standing(ctx, req, rec)
	}
	held, err := a.bindAll(ctx, rec.IDs, rec.Token, req.Requester)
	if errors.Is(err, problem.ErrKeyEnded) && a.forgotten(ctx, key) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if again, err := a.unseen(ctx, req.Requester.ID, rec.Token, held); again || err != nil {
		return nil, err
	}
	return &Grant{Token: rec.Token, Key: req.Key, Requester: req.Requester.ID, Same: true, Held: held}, nil
}

// standing answers a repeated request for VLANs alone: nobody is bound to them, so
// there is nothing to write. One round trip.
func (a *Allocator) standing(ctx context.Context, req GrantRequest, rec *Record) (*Grant, error) {
	if err := a.linearize(ctx); err != nil {
		return nil, err
	}
	s, err := a.load(ctx, rec.IDs)
	if err != nil {
		return nil, err
	}
	for _, ref := range rec.IDs {
		if c := s.claims[ref].Val; c == nil || c.Token != rec.Token || !c.State.held() {
			return nil, ended(ref, c)
		} else if c.State == Locked {
			return nil, problem.New(problem.CodeKeyConflict, "key %s stands for a request with a hold, whose hand-over is under way (%s)", req.Key, label(ref)).
				Note("confirm that one, or wait until its hold is over")
		}
	}
	return &Grant{Token: rec.Token, Key: req.Key, Requester: req.Requester.ID, Same: true, Held: heldOf(rec.IDs, s.claims)}, nil
}

// unseen looks at what runs under a grant that is answered again and that nobody
// else is bound to: its first answer may have been lost before the look. In use
// already, it is given back as at a first answer: true, and the request begins anew.
func (a *Allocator) unseen(ctx context.Context, requester, token string, held []Held) (bool, error) {
	o := orphan{token: token, requester: requester}
	uids := false
	for _, h := range held {
		if h.vlan() {
			if h.Claim.State == Used {
				return false, nil // kept, so it was handed out
			}
			o.refs = append(o.refs, h.Ref)
			continue
		}
		uids = true
		if len(h.Claim.Nodes) != 1 || len(h.Claim.Nodes[0].Requesters) != 1 || h.Claim.Nodes[0].Confirmed || h.Claim.Kept() {
			return false, nil
		}
		o.refs = append(o.refs, h.Ref)
	}
	if !uids {
		return false, nil
	}
	used, err := a.prover.InUse(ctx, 0)
	if err != nil {
		a.addOrphan(o)
		return false, problem.Wrap(problem.CodeNoProof, err, "no uid handed out: node %s cannot tell what is in use", a.id.Node)
	}
	var bad []Ref
	runs := a.runsBy(used)
	for _, h := range held {
		if !h.vlan() && runs(h.Ref, h.Claim.Count) {
			bad = append(bad, h.Ref)
		}
	}
	if len(bad) == 0 {
		return false, nil
	}
	return true, a.refuseRunning(ctx, o, bad)
}

// forgotten tells whether a record is gone: its grant was given back before anybody
// was told of it, and the key is unused again.
func (a *Allocator) forgotten(ctx context.Context, key string) bool {
	if a.linearize(ctx) != nil {
		return false
	}
	gone := false
	a.mirror.read(func(v *view) { gone = v.records[key].Val == nil && v.unreadable[key] == nil })
	return gone
}

// bindAll adds a requester of this node to every claim of a grant, in one
// transaction. A claim that nobody alive on any node holds locked any more is
// locked again first (rule 41).
func (a *Allocator) bindAll(ctx context.Context, refs []Ref, token string, r Requester) ([]Held, error) {
	now := time.Now().UTC()
	claims, err := a.updateSure(ctx, "bind", refs, func(s *snap) (*plan, error) {
		p := &plan{}
		for _, ref := range refs {
			c := s.claims[ref].Val
			if c == nil || c.Token != token || !c.State.held() {
				return nil, ended(ref, c)
			}
			if ref.vlan() && c.State == Used {
				continue // handed over for good
			}
			if pr := c.On(a.id.Node); pr != nil && pr.Boot == a.id.Boot && pr.has(r) {
				continue // an earlier attempt of ours stands
			}
			c = c.clone()
			again := r
			if pr := c.On(a.id.Node); pr != nil && pr.Requester(r.ID) != nil {
				again.Keep = pr.Requester(r.ID).Keep
				c.unbind(a.id.Node, r.ID)
			}
			if pr := c.On(a.id.Node); pr != nil && len(pr.Requesters) >= maxRequesters {
				pr.forgetDead(ref, a.prover)
			}
			if err := c.bind(a.id.Node, a.id.Boot, again); err != nil {
				return nil, err
			}
			c.relock(now)
			p.edits = append(p.edits, edit{ref: ref, after: c, lock: lockPut})
		}
		return p, nil
	})
	if err != nil {
		return nil, err
	}
	return heldOf(refs, claims), nil
}

// has tells whether the requester stands there with the same hold, or a longer one.
func (p *Presence) has(r Requester) bool {
	old := p.Requester(r.ID)
	if old == nil {
		return false
	}
	if r.Hold == HoldTTL && old.Hold == HoldTTL {
		return old.Deadline >= r.Deadline
	}
	return old.Hold == r.Hold && old.PID == r.PID && old.Start == r.Start && old.PIDNS == r.PIDNS
}

// forgetDead drops requesters that certainly start nothing any more from a full
// list. Not earlier: what they started may run, and is theirs.
func (p *Presence) forgetDead(ref Ref, prover Prover) {
	var live []Requester
	for _, r := range p.Requesters {
		if r.Keep || prover.MayStart(ref.ID, r) {
			live = append(live, r)
		}
	}
	p.Requesters = live
}

func heldOf(refs []Ref, claims map[Ref]Stored[Claim]) []Held {
	held := make([]Held, 0, len(refs))
	for _, ref := range refs {
		if c := claims[ref]; c.Val != nil {
			held = append(held, Held{Ref: ref, Claim: c.Val, ModRev: c.ModRev, Label: c.Val.Attribute})
		}
	}
	return held
}

// ended is the refusal of a grant that is over: c is what stands there now.
func ended(ref Ref, c *Claim) error {
	if c == nil {
		return problem.New(problem.CodeKeyEnded, "the grant of %s has ended", label(ref))
	}
	return problem.New(problem.CodeKeyEnded, "the grant of %s has ended; it is %s now", label(ref), c.why()).
		Advise("look", "poolctl %s", showOf(ref))
}

func refList(refs []Ref) string {
	var names []string
	for i, r := range refs {
		if i == 5 {
			names = append(names, "…")
			break
		}
		names = append(names, u32(r.ID))
	}
	return join(names)
}

// endOf is the command that ends what stands under the request's key.
func (r *GrantRequest) endOf() string {
	inv, vlans := InventoryOf(r.Wants[0].Pool)
	switch {
	case !vlans && len(r.Wants) == 1:
		return "uid release --key " + r.Key
	case vlans && len(r.Wants) == 1:
		return "vlan release " + inv + " --key " + r.Key
	}
	return "allocation delete " + r.Key
}
