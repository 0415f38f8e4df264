package judge

import (
	"slices"
)

// becomes says which state of a node's registration may follow which; "" is none.
// Active again is another boot, or a new session's registration.
var becomes = map[string][]string{
	"":       {"active"},
	"active": {"active", "left", "fenced"},
	"left":   {"left", "active", "fenced", ""},
	"fenced": {"fenced", "left", ""},
}

// out is a time, by revisions, in which what runs on a node counts no more: an
// operator fenced or removed it. to 0: to the end.
type out struct{ from, to int64 }

// checkEpoch: an epoch is never unsaid, and its number only grows.
func (c *court) checkEpoch(t *txn) {
	if t.meta == nil {
		return
	}
	switch a, b := t.meta.after, t.meta.before; {
	case a == nil:
		c.broke(P8, t.rev, "the cluster's epoch was deleted")
	case c.recovery != nil && a.State == "normal" && a.Number <= c.recovery.number:
		c.broke(P8, t.rev, "granting resumed in epoch number %d after etcd was restored, and number %d was there before", a.Number, c.recovery.number)
	case a.Number < c.w.numberSeen:
		c.broke(P8, t.rev, "the epoch went from number %d down to %d", c.w.numberSeen, a.Number)
	case b != nil && (a.Number == b.Number) != (a.Epoch == b.Epoch):
		c.broke(P8, t.rev, "epoch %s (number %d) became %s (number %d): both change, or neither", b.Epoch, b.Number, a.Epoch, a.Number)
	}
}

// checkNodes judges registrations: what may follow what, and that whoever weighs a
// claim notices, by the members.
func (c *court) checkNodes(t *txn) {
	for _, e := range t.nodes {
		from, to := "", ""
		if e.before != nil {
			from = e.before.State
		}
		if e.after != nil {
			to = e.after.State
		}
		switch {
		case !t.members:
			c.broke(P2, t.rev, "node %s went from %q to %q, and the members do not tell", e.key, from, to)
		case !slices.Contains(becomes[from], to):
			c.broke(P2, t.rev, "node %s went from %q to %q, which no node may", e.key, from, to)
		}
		switch {
		case to == "fenced" && from != "fenced":
			if c.w.alive[e.key] != nil && !slices.ContainsFunc(t.alive, func(x edit[string, alive]) bool { return x.key == e.key && x.after == nil }) {
				c.broke(P2, t.rev, "node %s was fenced while its agent was present", e.key)
			}
		case to == "":
			c.checkRemoval(t, e.key)
		case to == "active" && e.before != nil && e.before.FencedBoot != "" && e.before.FencedBoot == e.after.Boot:
			c.broke(P2, t.rev, "node %s came back in boot %s, in which it was fenced", e.key, e.after.Boot)
		}
	}
	c.noteNodes(t)
	for _, e := range t.alive {
		if e.after != nil && (e.before == nil || e.before.Nonce != e.after.Nonce) && !t.members {
			c.broke(P2, t.rev, "an agent of node %s came, and the members do not tell", e.key)
		}
	}
}

// noteNodes keeps when nodes were out, and when they came in another boot.
func (c *court) noteNodes(t *txn) {
	for _, e := range t.nodes {
		from, to := "", ""
		if e.before != nil {
			from = e.before.State
		}
		if e.after != nil {
			to = e.after.State
		}
		switch {
		case to == "fenced" && from != "fenced", to == "" && from != "fenced":
			c.outs[e.key] = append(c.outs[e.key], out{from: t.rev})
		case to == "active":
			if n := len(c.outs[e.key]); n > 0 && c.outs[e.key][n-1].to == 0 {
				c.outs[e.key][n-1].to = t.rev
			}
			if e.before != nil && e.before.Boot != e.after.Boot {
				c.boots[e.key] = append(c.boots[e.key], t.rev)
			}
		}
	}
}

// checkRemoval: a node that is forgotten is named by no claim, and its reports go.
func (c *court) checkRemoval(t *txn, name string) {
	for id, a := range c.w.claims {
		if a.names(name) {
			c.broke(P2, t.rev, "node %s was removed while the claim of %s (%s) named it", name, id, a.State)
		}
	}
	if c.w.proofs[name] != nil && !slices.ContainsFunc(t.proofs, func(x edit[string, proof]) bool { return x.key == name && x.after == nil }) {
		c.broke(P2, t.rev, "node %s was removed, and its report stays", name)
	}
}

// checkSession judges who wrote: a transaction is of one agent, which must be
// present at that moment, in this very session, and registered in its boot.
func (c *court) checkSession(t *txn) {
	c.checkPresence(t)
	for who, why := range c.writers(t) {
		n := c.w.nodes[who.node]
		if slices.ContainsFunc(t.nodes, func(e edit[string, node]) bool { return e.key == who.node }) {
			continue // it registers, and reports with it
		}
		switch {
		case n == nil || n.State != "active":
			c.broke(P1, t.rev, "node %s wrote %s and was not registered as active", who.node, why)
		case c.w.alive[who.node] == nil:
			c.broke(P1, t.rev, "node %s wrote %s while its presence was gone", who.node, why)
		case who.boot != "" && who.boot != n.Boot:
			c.broke(P1, t.rev, "node %s wrote %s from boot %s; it is registered in %s", who.node, why, who.boot, n.Boot)
		case c.w.alive[who.node].Machine != n.Machine:
			c.broke(P1, t.rev, "node %s wrote %s from another machine than it is registered with", who.node, why)
		}
	}
}

// checkPresence: within one session the counter only grows.
func (c *court) checkPresence(t *txn) {
	for _, e := range t.alive {
		if e.before != nil && e.after != nil && e.before.Nonce == e.after.Nonce && e.after.Counter <= e.before.Counter {
			c.broke(P1, t.rev, "the counter of node %s's session went from %d to %d", e.key, e.before.Counter, e.after.Counter)
		}
	}
}

// writer is an agent as a write shows it.
type writer struct{ node, boot string }

// writers tells, as far as the writes show it, which agent made a revision, and by
// what that is known: its own report, a grant made on its node, a requester bound
// there, or a lock under its session's lease.
func (c *court) writers(t *txn) map[writer]string {
	all := map[writer]string{}
	for _, e := range t.proofs {
		if e.after != nil {
			all[writer{e.key, e.after.Boot}] = "its report"
		}
	}
	for _, e := range t.claims {
		if e.after == nil {
			continue
		}
		for _, p := range e.after.Nodes {
			if len(newRequesters(e.before, p)) > 0 || (e.before == nil && e.after.State != reserved) {
				all[writer{p.Node, p.Boot}] = "the claim of " + string(e.key)
			}
		}
	}
	for _, e := range t.locks {
		if e.after == nil {
			continue
		}
		found := false
		for name, a := range c.w.alive {
			if a.lease == e.after.lease {
				all[writer{name, ""}], found = "the lock of "+string(e.key), true
			}
		}
		if !found {
			c.broke(P1, t.rev, "the lock of %s was written under lease %x, which is no present agent's session", e.key, e.after.lease)
		}
	}
	nodes := map[string]bool{}
	for w := range all {
		nodes[w.node] = true
	}
	if len(nodes) > 1 {
		c.broke(P1, t.rev, "one transaction carries the writes of %d nodes (%v)", len(nodes), all)
	}
	return all
}

// newRequesters are those of a node that the claim did not have there before.
func newRequesters(before *claim, p presence) []string {
	var all []string
	for _, r := range p.Requesters {
		if before == nil || !slices.ContainsFunc(before.Nodes, func(o presence) bool { return o.Node == p.Node && o.has(r.ID) }) {
			all = append(all, r.ID)
		}
	}
	return all
}

func (p *presence) has(requester string) bool {
	for _, r := range p.Requesters {
		if r.ID == requester {
			return true
		}
	}
	return false
}
