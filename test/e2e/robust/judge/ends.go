package judge

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/test/e2e/robust/record"
)

// keys builds the keys of the history, which are relative to the root.
var keys, _ = cluster.NewKeys(cluster.DefaultRoot)

// serviceKey is a service's name as it stands in its key.
func serviceKey(name string) string {
	return strings.TrimPrefix(keys.Service(name), keys.ServicesPrefix())
}

// recordKey is where the grant record of a claim stands.
func recordKey(a *claim) string {
	name := "token:" + a.Token
	if a.Key != "" {
		name = "key:" + a.Key
	}
	return strings.TrimPrefix(keys.Grant(a.Caller, name), keys.Root())
}

// Proof policies.
const (
	proofNone    = "none"
	proofCluster = "cluster"
)

// checkEnds judges every deletion of a claim: that everything was proven which had
// to be, computed anew from the history alone.
func (c *court) checkEnds(t *txn) {
	for _, e := range t.claims {
		if e.before == nil || e.after != nil {
			continue
		}
		switch b := e.before; {
		case b.State == reserved:
			c.broke(P2, t.rev, "%s was freed although it was reserved", e.key)
		case b.State == quarantined:
			c.mustHaveCooled(t, e.key, b)
			if why := c.unproven(e.key, b); why != "" && !vlan(e.key) {
				c.broke(P2, t.rev, "%s of grant %s was freed, and %s", e.key, b.Token, why)
			}
		case vlan(e.key):
			if p := c.w.pools[b.Pool]; p == nil || p.Cooldown > 0 {
				c.broke(P2, t.rev, "%s of grant %s was freed at its release, and its inventory has a cooldown, or is gone", e.key, b.Token)
			}
		default:
			if why := c.shortcut(e.key, b); why != "" {
				c.broke(P2, t.rev, "%s of grant %s was freed at its release, %s, and %s", e.key, b.Token, b.State, why)
			}
		}
	}
}

// unproven says what a quarantined uid lacked to be freed now; "" if nothing. The
// engine decides on its mirror, which may lag as far back as the claim's own write
// and the last change of the members, since it compares both: so may its reports
// and its pool.
func (c *court) unproven(id record.ID, b *claim) string {
	since := max(b.rev, c.w.members)
	policies := c.w.poolSince(b.Pool, since)
	why := ""
	for _, p := range policies {
		if why = c.unprovenUnder(id, b, p, since); why == "" {
			return ""
		}
	}
	return why
}

// poolSince lists the definitions that a pool had from a revision on, the present
// one first; a nil one is a pool that is gone.
func (w *world) poolSince(name string, rev int64) []*pool {
	past := w.poolsPast[name]
	var all []*pool
	for i := len(past) - 1; i >= 0; i-- {
		all = append(all, past[i].pool)
		if past[i].rev <= rev {
			return all
		}
	}
	return append(all, nil)
}

func (c *court) unprovenUnder(id record.ID, b *claim, p *pool, since int64) string {
	policy := proofCluster // the strictest, where nobody can tell
	if p != nil {
		policy = p.Proof
	}
	if policy == proofNone {
		return ""
	}
	for _, n := range b.Nodes {
		if c.w.nodes[n.Node] == nil {
			return fmt.Sprintf("its node %s is not registered", n.Node)
		}
	}
	for name := range c.w.nodes {
		switch {
		case c.w.contradicted(id, b, name, since):
			return "node " + name + " had reported that it was in use"
		case c.w.due(id, b, name, policy) && !c.w.proven(id, b, name, since):
			return fmt.Sprintf("node %s, whose proof was due, had not reported it unused since revision %d (%s)", name, b.rev, c.w.lastWord(name))
		}
	}
	for name := range c.w.alive {
		if c.w.nodes[name] == nil && c.w.due(id, b, name, policy) {
			return fmt.Sprintf("node %s is present and not registered: it cannot have reported", name)
		}
	}
	return ""
}

// due tells whether the word of a node is needed: of the nodes named, and of every
// other that is up, or registered at all where the policy says so.
func (w *world) due(id record.ID, b *claim, name, policy string) bool {
	n, up := w.nodes[name], w.alive[name] != nil
	named := b.names(name)
	if own, ok := scoped(id); ok {
		if named = named || own == name; !named {
			return false
		}
	}
	switch {
	case n == nil:
		return named || up
	case n.State != "active": // left or fenced
		return false
	case n.Role == "gateway" && !named:
		return false
	}
	return named || up || policy == proofCluster
}

// reports are those that the engine may have seen as a node's last one.
func (w *world) reports(name string, since int64) []*proof {
	past := w.past[name]
	i := len(past)
	for i > 0 && past[i-1].rev > since {
		i--
	}
	return past[max(i-1, 0):]
}

// proven tells whether a node reported an id unused after it was quarantined: by a
// report of this epoch, of the node's own boot and machine, and not of the future.
func (w *world) proven(id record.ID, b *claim, name string, since int64) bool {
	return slices.ContainsFunc(w.reports(name, since), func(p *proof) bool {
		return w.valid(p, name) && p.Revision >= b.rev && !p.lists(id, b.Count)
	})
}

// contradicted tells whether whatever report the engine saw of a node said that the
// id is in use there.
func (w *world) contradicted(id record.ID, b *claim, name string, since int64) bool {
	past := w.reports(name, since)
	return len(past) > 0 && w.nodes[name].State == "active" && !slices.ContainsFunc(past, func(p *proof) bool {
		return !w.valid(p, name) || p.Revision < b.rev || !p.lists(id, b.Count)
	})
}

func (w *world) valid(p *proof, name string) bool {
	n := w.nodes[name]
	return n != nil && w.meta != nil && p.Epoch == w.meta.Epoch && p.Boot == n.Boot && p.Machine == n.Machine && p.Revision <= p.rev
}

func (p *proof) lists(id record.ID, count uint32) bool {
	space, first := split(id)
	set, ok := p.InUse[space]
	for i := uint32(0); ok && i < max(count, 1); i++ {
		if set.Contains(first + i) {
			return true
		}
	}
	return false
}

func (w *world) lastWord(name string) string {
	p := w.proofs[name]
	switch {
	case p == nil:
		return "it never reported"
	case !w.valid(p, name):
		return fmt.Sprintf("its last report, of revision %d, is of another epoch, boot or machine", p.Revision)
	}
	return fmt.Sprintf("its last report is of revision %d", p.Revision)
}

// shortcut says why a uid that was held may not be freed by its release: only its
// one node may, if no other's proof is due and no cooldown is to be kept.
func (c *court) shortcut(id record.ID, b *claim) string {
	p := c.w.pools[b.Pool]
	switch {
	case len(b.Nodes) != 1:
		return fmt.Sprintf("it names %d nodes", len(b.Nodes))
	case p == nil:
		return "its pool is gone"
	case p.Cooldown > 0:
		return "its pool has a cooldown"
	case c.w.alive[b.Nodes[0].Node] == nil:
		return "its node " + b.Nodes[0].Node + " was not there to look"
	}
	for name := range c.w.nodes {
		if name != b.Nodes[0].Node && p.Proof != proofNone && c.w.due(id, b, name, p.Proof) {
			return "the proof of node " + name + " was due"
		}
	}
	return ""
}

// mustHaveCooled notes how long a claim that goes must have waited: by the shortest
// cooldown that its pool had meanwhile.
func (c *court) mustHaveCooled(t *txn, id record.ID, b *claim) {
	least := time.Duration(-1)
	for _, p := range c.w.poolSince(b.Pool, b.rev) {
		d := time.Duration(0)
		if p != nil {
			d = time.Duration(p.Cooldown)
		}
		if least < 0 || d < least {
			least = d
		}
	}
	if least > 0 {
		c.cooldowns = append(c.cooldowns, cooldown{id, b.Token, b.rev, t.rev, least})
	}
}

// cooldown is a claim that was freed and had to wait for so long before.
type cooldown struct {
	id          record.ID
	token       string
	quarantined int64
	freed       int64
	least       time.Duration
}

// checkCooldowns judges them once it is known when revisions were written.
func (c *court) checkCooldowns() {
	for _, d := range c.cooldowns {
		if at := c.times[d.freed].latest - c.times[d.quarantined].earliest; at < d.least {
			c.broke(P2, d.freed, "%s of grant %s was freed %s after it was quarantined: it had to cool down for %s", d.id, d.token, at, d.least)
		}
	}
}
