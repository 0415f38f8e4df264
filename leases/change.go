package leases

import (
	"slices"
	"strings"
	"time"

	"github.com/idpool/idpool/problem"
)

// The functions below are the decisions on one claim: each edits a private
// copy, does no I/O and reads no clock. They return false or an error where the
// claim cannot take the change, which then must not be written.

// touch moves the claim to a state and stamps the moment.
func (c *Claim) touch(s State, now time.Time) {
	if c.State != s {
		c.State, c.Since = s, now
	}
}

// quarantine ends the grant: from here only a proof frees the id. Requesters
// stay listed, because a proof must count one that was not told yet.
func (c *Claim) quarantine(code, reason string, now time.Time) {
	c.touch(Quarantined, now)
	c.ReasonCode, c.Reason = code, clip(reason)
	for i := range c.Nodes {
		c.Nodes[i].Idle = false
	}
}

// bind adds a requester on a node (rules 4 and 36): always a change, and the
// node's idle mark goes.
func (c *Claim) bind(node, boot string, r Requester) error {
	if !c.State.held() {
		return problem.New(problem.CodeKeyEnded, "the grant has ended (%s)", c.State)
	}
	p := c.On(node)
	if p == nil {
		if len(c.Nodes) >= maxNodes {
			return problem.New(problem.CodeInvalid, "the grant names %d nodes already", len(c.Nodes))
		}
		c.Nodes = append(c.Nodes, Presence{Node: node})
		p = &c.Nodes[len(c.Nodes)-1]
	}
	if p.Boot != boot {
		p.Requesters = nil
	}
	p.Boot, p.Idle, p.Confirmed = boot, false, false
	if len(p.Requesters) >= maxRequesters {
		return problem.New(problem.CodeInvalid, "%d requesters are bound to the grant on node %s already; release or confirm first", len(p.Requesters), node)
	}
	p.Requesters = append(p.Requesters, r)
	if c.State == Idle {
		c.State = Used
	}
	return nil
}

// relock puts a used claim back into the hand-over: its holder is about to start
// processes again (rule 41).
func (c *Claim) relock(now time.Time) {
	if c.State.held() {
		c.touch(Locked, now)
	}
}

// bound tells whether somebody on the node still counts as a holder.
func (p *Presence) bound() bool {
	return p.kept() || (len(p.Requesters) > 0 && !p.Idle)
}

// starters are the requesters that the hand-over is not over for.
func (p *Presence) starters() bool {
	return slices.ContainsFunc(p.Requesters, func(r Requester) bool { return !r.Keep })
}

// settle brings the state in line with the bindings: the last one gone ends a
// claim that is locked or was released; where only what confirmed is left the hand-over
// is over; idle on every node is idle.
func (c *Claim) settle(code, reason string, now time.Time) {
	if !c.State.held() {
		return
	}
	if !slices.ContainsFunc(c.Nodes, func(p Presence) bool { return p.bound() }) && (c.State == Locked || c.Released) {
		c.quarantine(code, reason, now)
		return
	}
	if c.State == Locked && slices.ContainsFunc(c.Nodes, func(p Presence) bool { return !p.Confirmed && p.starters() }) {
		return
	}
	if slices.ContainsFunc(c.Nodes, func(p Presence) bool { return !p.Idle || p.kept() }) {
		c.touch(Used, now)
	} else {
		c.touch(Idle, now)
	}
}

// confirm ends the hand-over on a node (Ganeti's Unlock). keep is marked on the
// requester named; without a name it is a binding of its own.
func (c *Claim) confirm(node, requester string, keep bool, now time.Time) error {
	p := c.On(node)
	if p == nil {
		return problem.New(problem.CodeNotHeld, "the grant is not held on node %s", node)
	}
	if step(c.State, evConfirm).v == vRefuse || !c.State.held() {
		return problem.New(problem.CodeLockLost, "the grant ended before it was confirmed (%s)", c.why())
	}
	if c.State == Locked {
		c.touch(Used, now)
	}
	if keep {
		p.keep(requester)
	}
	p.Idle, p.Confirmed = false, true
	c.settle(ReasonReleased, "", now)
	return nil
}

// keep marks the requester named; without a name it is a binding of its own.
func (p *Presence) keep(requester string) {
	if r := p.Requester(requester); r != nil {
		r.Keep = true
	} else if !p.keeps(requester) {
		p.Requesters = append(p.Requesters, Requester{ID: NewToken(), Hold: HoldNone, Keep: true})
	}
}

// keeps tells whether the requester named, or without a name nobody in
// particular, keeps the grant.
func (p *Presence) keeps(requester string) bool {
	return slices.ContainsFunc(p.Requesters, func(r Requester) bool {
		return r.Keep && (r.ID == requester || (requester == "" && r.Hold == HoldNone))
	})
}

// release takes requesters of a node out; a nil match takes them all. The grant
// ends with its last binding (rules 4 and 35). It reports whether anything
// changed.
func (c *Claim) release(node string, match func(Requester) bool, reason string, now time.Time) bool {
	p := c.On(node)
	if p == nil {
		return false
	}
	before := len(p.Requesters)
	if match == nil {
		p.Requesters = nil
	} else {
		p.Requesters = slices.DeleteFunc(p.Requesters, match)
	}
	changed := before != len(p.Requesters)
	if !c.State.held() || (!changed && c.Released) {
		return changed
	}
	c.Released = true
	c.settle(ReasonReleased, reason, now)
	return true
}

// releaseEverywhere takes the requesters of a name out on every node.
func (c *Claim) releaseEverywhere(requester, reason string, now time.Time) bool {
	changed := false
	for _, node := range c.NodeNames() {
		if c.On(node).Requester(requester) != nil {
			changed = c.release(node, func(r Requester) bool { return r.ID == requester }, reason, now) || changed
		}
	}
	return changed
}

// unbind takes one requester out and decides nothing; it tells whether it was there.
func (c *Claim) unbind(node, requester string) bool {
	p := c.On(node)
	if p == nil || p.Requester(requester) == nil {
		return false
	}
	p.Requesters = slices.DeleteFunc(p.Requesters, func(r Requester) bool { return r.ID == requester })
	return true
}

// drop takes a node out: its boot is over, or an operator's word (rule 35). The
// last node stays named, so that the claim says where it was.
func (c *Claim) drop(node, code, reason string, now time.Time) bool {
	p := c.On(node)
	if p == nil {
		return false
	}
	if len(c.Nodes) == 1 {
		p.Requesters = nil
		if c.State.held() {
			c.quarantine(code, reason, now)
		}
		return true
	}
	c.Nodes = slices.DeleteFunc(c.Nodes, func(p Presence) bool { return p.Node == node })
	c.settle(code, reason, now)
	return true
}

// inquiry writes the verdict on a locked claim whose requesters on a node are
// gone: running means used, nothing means that node has no part in it any more.
func (c *Claim) inquiry(node string, running bool, reason string, now time.Time) bool {
	p := c.On(node)
	if p == nil || step(c.State, evHoldLost).v != vInquire {
		return false
	}
	if running {
		p.Confirmed = true
		c.touch(step(c.State, evInquiryRuns).next, now)
		return true
	}
	if !p.starters() {
		if c.State != Locked || !p.kept() {
			return false
		}
		p.Confirmed = true // a kept grant that was locked once more is kept again
		c.settle(ReasonHoldLost, reason, now)
		return c.State != Locked
	}
	p.Requesters = slices.DeleteFunc(p.Requesters, func(r Requester) bool { return !r.Keep })
	c.settle(ReasonHoldLost, reason, now)
	return true
}

// idle marks that nothing runs on the node and nobody bound lives there (rule 40).
func (c *Claim) idle(node string, now time.Time) bool {
	p := c.On(node)
	if p == nil || p.Idle || p.kept() || c.State != Used {
		return false
	}
	p.Idle = true
	c.settle(ReasonReleased, "released, and the last process is gone", now)
	return true
}

// runs takes an idle mark back, and a reclaim with it (rule 8).
func (c *Claim) runs(node string, now time.Time) bool {
	p := c.On(node)
	switch {
	case p == nil:
		return false
	case c.State == Quarantined && c.Reclaimed:
		c.Reclaimed, c.ReasonCode, c.Reason = false, "", ""
		c.touch(Used, now)
	case (c.State == Used || c.State == Idle) && p.Idle:
		p.Idle = false
		c.touch(Used, now)
	default:
		return false
	}
	return true
}

// reclaimable tells whether reclaim may take the claim back: idle on every
// node, kept by none.
func (c *Claim) reclaimable() bool { return c.State == Idle && !c.Kept() }

// reclaim quarantines an idle claim. Found running again before it is freed, it
// goes back to its holder.
func (c *Claim) reclaim(now time.Time) bool {
	if !c.reclaimable() {
		return false
	}
	c.quarantine(ReasonReclaim, "idle, and taken back because the pool needs it", now)
	c.Reclaimed = true
	return true
}

// why is the reason of a claim in words, for messages.
func (c *Claim) why() string {
	if c.Reason != "" {
		return c.State.String() + ": " + c.Reason
	}
	return c.State.String()
}

// clip makes a text what a record may carry: valid UTF-8, and not too long.
func clip(s string) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) <= maxText {
		return s
	}
	return strings.ToValidUTF8(s[:maxText], "")
}
