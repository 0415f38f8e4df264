package judge

import (
	"maps"
	"slices"
)

// lifecycle says which state of a service's record may follow which; "" is none.
// Where every attribute is of etcd, one transaction goes through allocating, or
// deallocating, to the state behind it. Written from the design.
var lifecycle = map[string][]string{
	"":             {"allocating", "allocated", "rejected"},
	"allocating":   {"allocating", "allocated", "rejected", "deallocating", ""},
	"allocated":    {"allocated", "provisioning", "up", "deallocating", "failed", ""},
	"rejected":     {"rejected", "allocating", "allocated", "deallocating", ""},
	"provisioning": {"provisioning", "up", "deallocating", "failed", ""},
	"up":           {"up", "deallocating", ""},
	"deallocating": {"deallocating", "failed", "rejected", ""},
	"failed":       {"failed", "allocating", "allocated", "rejected", ""},
}

// compensation is a service given back at a revision, because its hold ended.
type compensation struct {
	service string
	rev     int64
}

// holdLost is the reason code of a service that nobody confirmed in time.
const holdLost = "hold_lost"

// checkServices: a service's record lists exactly the VLANs that are held for it,
// it has all of them or none, and its states follow the table.
func (c *court) checkServices(t *txn) {
	names := map[string]bool{}
	for _, e := range t.services {
		names[e.key] = true
		c.checkLifecycle(t, e)
		for id, token := range e.before.got() {
			if a := c.w.claims[id]; a.held() && a.Token == token && e.after.got()[id] != token {
				c.broke(P3, t.rev, "service %s no longer lists %s of grant %s, which is still held", e.key, id, token)
			}
		}
	}
	for _, e := range t.claims {
		if a := e.after; a != nil && a.Service != "" {
			names[serviceKey(a.Service)] = true
			if a.held() && c.w.services[serviceKey(a.Service)].got()[e.key] != a.Token {
				c.broke(P3, t.rev, "%s of grant %s is held for service %s, whose record does not list it", e.key, a.Token, a.Service)
			}
		}
		if b := e.before; b != nil && b.Service != "" {
			names[serviceKey(b.Service)] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		s := c.w.services[name]
		for id, token := range s.got() {
			if a := c.w.claims[id]; !a.held() || a.Token != token || serviceKey(a.Service) != name {
				c.broke(P3, t.rev, "service %s lists %s under token %s, and does not hold it", name, id, token)
			}
		}
		c.checkWhole(t, name, s)
	}
}

// checkWhole: all VLANs of etcd's inventories, or none.
func (c *court) checkWhole(t *txn, name string, s *service) {
	if s == nil {
		return
	}
	missing, outside := 0, 0
	for i := range s.Attributes {
		switch a := &s.Attributes[i]; {
		case a.Outside:
			outside++
		case a.VID == nil:
			missing++
		}
	}
	got := len(s.got())
	switch s.State {
	case "allocated", "provisioning", "up":
		if missing > 0 {
			c.broke(P3, t.rev, "service %s is %s and lacks %d of its VLANs", name, s.State, missing)
		}
	case "failed":
		if got > 0 {
			c.broke(P3, t.rev, "service %s is failed and still has %d VLANs", name, got)
		}
	default:
		if outside == 0 && got > 0 && missing > 0 {
			c.broke(P3, t.rev, "service %s is %s with %d VLANs and without %d", name, s.State, got, missing)
		}
	}
}

func (c *court) checkLifecycle(t *txn, e edit[string, service]) {
	from, to := "", ""
	if e.before != nil {
		from = e.before.State
	}
	if e.after != nil {
		to = e.after.State
	}
	if n := len(c.rejected[e.key]); from == "rejected" && to != from && n > 0 {
		c.rejected[e.key][n-1].to = t.rev
	}
	if to == "rejected" && from != to {
		c.rejected[e.key] = append(c.rejected[e.key], out{from: t.rev})
	}
	if !slices.Contains(lifecycle[from], to) {
		c.broke(P3, t.rev, "service %s went from %q to %q, which no service may", e.key, from, to)
	}
	if e.before == nil || e.after == nil {
		return
	}
	if e.before.Token != e.after.Token && from != "failed" {
		c.broke(P5, t.rev, "service %s became another one (%s, then %s) while it was %s", e.key, e.before.Token, e.after.Token, from)
	}
	if e.after.ReasonCode == holdLost && e.before.ReasonCode != holdLost {
		c.compensated[compensation{e.key, t.rev}] = true
		if from == "provisioning" && to != from {
			c.broke(P3, t.rev, "service %s lost its VLANs to the end of its hold while it was being provisioned", e.key)
		}
	}
}
