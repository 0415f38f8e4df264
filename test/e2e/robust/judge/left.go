package judge

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/idpool/idpool/test/e2e/robust/record"
)

// left checks P6 on what stood when the quiet time was over: nothing but live
// grants, and claims that say why they are kept and wait for something that is
// really missing.
func (c *court) left() {
	if c.run.Left == nil { // nobody looked
		return
	}
	final := c.values
	all := make([]string, 0, len(c.run.Left))
	for key := range c.run.Left {
		all = append(all, key)
	}
	slices.Sort(all)
	for _, key := range all {
		value := c.run.Left[key]
		if len(c.revs) > 0 && !bytes.Equal(final[key], value) {
			c.broke(History, 0, "%s stood at the end, and etcd's recorded history does not have it as it was", key)
		}
		kind, rest, _ := strings.Cut(key, "/")
		id, ok := idOf(rest)
		switch {
		case kind == "claims" && ok:
			c.leftClaim(id, value)
		case kind == "locks" && ok:
			if c.run.Left["claims/"+rest] == nil {
				c.broke(P6, 0, "the lock of %s was left without a claim", id)
			}
		case kind == "locks":
			if name, ok := strings.CutPrefix(rest, "service/"); ok && len(c.revs) > 0 && c.w.services[name] == nil {
				c.broke(P6, 0, "the lock of service %s was left without the service", name)
			}
		default:
			c.broke(P6, 0, "%s was left, and is no claim of an id", key)
		}
	}
	for key, value := range final {
		if value != nil && c.run.Left[key] == nil && strings.HasPrefix(key, "claims/") {
			c.broke(History, 0, "%s stands in etcd's recorded history and did not at the end", key)
		}
	}
}

// leftClaim judges one claim that was left.
func (c *court) leftClaim(id record.ID, value []byte) {
	var a claim
	if err := json.Unmarshal(value, &a); err != nil {
		c.broke(P6, 0, "%s was left and cannot be read: %v", id, err)
		return
	}
	if n := c.w.claims[id]; n != nil && n.Token == a.Token {
		a.rev = n.rev
	}
	switch a.State {
	case reserved:
		if a.Reason == "" {
			c.broke(P6, 0, "%s was left reserved, without a reason", id)
		}
	case quarantined:
		if a.ReasonCode == "" || a.Reason == "" {
			c.broke(P6, 0, "%s of grant %s was left in quarantine, without a reason", id, a.Token)
		} else if !c.waits(id, &a) {
			c.broke(P6, 0, "%s of grant %s was left in quarantine (%s), and waits for nothing", id, a.Token, a.Reason)
		}
	default:
		if why := c.orphaned(id, &a); why != "" {
			c.broke(P6, 0, "%s of grant %s was left %s, and %s", id, a.Token, a.State, why)
		}
	}
}

// waits tells whether something that a quarantined claim needs is missing at the end.
func (c *court) waits(id record.ID, a *claim) bool {
	if a.rev == 0 || !vlan(id) && c.unproven(id, a) != "" {
		return true
	}
	p := c.w.pools[a.Pool]
	return p != nil && p.Cooldown > 0 && c.run.Quiet-c.times[a.rev].earliest < time.Duration(p.Cooldown)
}

// orphaned says why a held claim that was left is nobody's; "" if it is somebody's
// who never gave it back.
func (c *court) orphaned(id record.ID, a *claim) string {
	if a.State == locked {
		for _, p := range a.Nodes {
			if c.w.alive[p.Node] == nil {
				return "" // its node decides, and is not there
			}
		}
		return "nobody is left who may still start something"
	}
	if s := c.lives[life{a.Token, id}]; s != nil && c.done[s] {
		return "all that were bound to it had been told that it is released"
	}
	if a.Service != "" { // its record lists it, or checkServices said so
		return ""
	}
	if a.Key != "" && len(c.byKey[a.Key]) > 0 || c.bound[a.Token] != nil {
		return ""
	}
	return "no client ever knew of it"
}
