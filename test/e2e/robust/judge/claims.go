package judge

import (
	"slices"

	"github.com/idpool/idpool/test/e2e/robust/record"
)

// life names one grant's hold of one id.
type life struct {
	token string
	id    record.ID
}

// span is a life as etcd's history has it, by revisions; 0: not yet.
type span struct {
	life
	holder  string // what clients know: the token, or that of the VLAN's service
	service string
	caller  string
	key     string
	granted bool // to somebody: neither foreign nor reserved
	from    int64
	turns   []int64  // when it ended, came back by an undone reclaim, ended, and so on
	codes   []string // why, of each turn; see turn
	freed   int64
}

// atOnce is the code of an end that freed the id in the same revision.
const atOnce = "at once"

// held tells whether the grant was live right after a revision.
func (s *span) held(rev int64) bool {
	if !s.granted || rev < s.from {
		return false
	}
	n := 0
	for _, t := range s.turns {
		if t <= rev {
			n++
		}
	}
	return n%2 == 0
}

// heldWithin tells whether the grant was live at some revision of a range; from and
// to are included.
func (s *span) heldWithin(from, to int64) bool {
	if s.held(from) || s.held(to) {
		return true
	}
	if s.granted && from <= s.from && s.from <= to {
		return true
	}
	for i, t := range s.turns {
		if i%2 == 1 && from <= t && t <= to {
			return true
		}
	}
	return false
}

// moves is the life of an id: which states may follow which, within one grant. A
// claim in the same state may be written again from anywhere. Written from the
// design, not from the engine's table.
var moves = map[string][]string{
	locked:      {locked, used, quarantined},
	used:        {used, idle, locked, quarantined}, // locked: asked for again under its key, joined, or re-locked
	idle:        {idle, used, locked, quarantined},
	quarantined: {quarantined, used}, // used: a reclaim undone, or an adoption; see below
	reserved:    {reserved, quarantined},
}

// checkClaims judges the life of every id that a revision writes: how a claim
// begins, and what may follow.
func (c *court) checkClaims(t *txn) {
	for _, e := range t.claims {
		switch {
		case e.after == nil: // checkEnds
		case e.before == nil:
			c.checkBegin(t, e.key, e.after)
		case e.before.Token != e.after.Token:
			if e.before.State != quarantined || e.before.ReasonCode != foreign || e.after.State != used {
				c.broke(P1, t.rev, "%s went from grant %s (%s) to grant %s (%s) without being free between", e.key, e.before.Token, e.before.State, e.after.Token, e.after.State)
			}
		case !slices.Contains(moves[e.before.State], e.after.State):
			promise := P1
			if e.before.State == quarantined || e.before.State == reserved {
				promise = P2
			}
			c.broke(promise, t.rev, "%s of grant %s went from %s to %s, which no id may", e.key, e.after.Token, e.before.State, e.after.State)
		case e.before.State == quarantined && e.after.State == used && !e.before.Reclaimed:
			c.broke(P2, t.rev, "%s of grant %s came back to life out of quarantine (%s), and no reclaim had put it there", e.key, e.after.Token, e.before.ReasonCode)
		case e.before.Caller != e.after.Caller || e.before.Key != e.after.Key || e.before.Pool != e.after.Pool || e.before.Service != e.after.Service ||
			e.before.Count != e.after.Count || e.before.Epoch != e.after.Epoch:
			c.broke(P1, t.rev, "%s of grant %s changed its caller, key, pool, service, count or epoch while it lasted", e.key, e.after.Token)
		}
	}
}

// checkBegin judges the first write of a claim.
func (c *court) checkBegin(t *txn, id record.ID, a *claim) {
	switch {
	case a.Token == "":
		c.broke(P1, t.rev, "%s has a claim without a token", id)
	case a.State == locked && len(a.Nodes) == 1, a.State == used && vlan(id), a.State == quarantined && a.ReasonCode == foreign && !vlan(id), a.State == reserved:
	default:
		c.broke(P1, t.rev, "%s began as %s (%s, %d nodes): want locked on one node; used, of VLANs; foreign; or reserved", id, a.State, a.ReasonCode, len(a.Nodes))
	}
	if old := c.lives[life{a.Token, id}]; old != nil {
		c.broke(P1, t.rev, "%s was granted again under token %s, whose grant of it was over", id, a.Token)
	}
	switch m := c.w.meta; {
	case m == nil:
		c.broke(P8, t.rev, "%s got a claim while the cluster had no epoch", id)
	case m.State != "normal":
		c.broke(P8, t.rev, "%s got a claim while the cluster was %s", id, m.State)
	case a.Epoch != m.Epoch:
		c.broke(P8, t.rev, "%s got a claim of epoch %s in epoch %s", id, a.Epoch, m.Epoch)
	}
}

// live keeps the spans: who held what, from when to when.
func (c *court) live(t *txn) {
	for _, e := range t.claims {
		b, a := e.before, e.after
		if b != nil && a != nil && b.Token != a.Token { // adopted, or stolen
			c.turn(t.rev, e.key, b, nil)
			b = nil
		}
		switch {
		case b == nil && a != nil:
			c.begin(t, e.key, a)
		case b != nil:
			c.turn(t.rev, e.key, b, a)
		}
	}
}

func (c *court) begin(t *txn, id record.ID, a *claim) {
	s := &span{life: life{a.Token, id}, holder: a.Token, caller: a.Caller, key: a.Key, granted: a.held(), from: t.rev}
	if a.Service != "" {
		s.service = serviceKey(a.Service)
		for _, e := range t.services {
			if e.key == s.service && e.after != nil {
				s.holder = e.after.Token
			}
		}
		c.services[s.holder] = append(c.services[s.holder], s)
	}
	c.lives[s.life] = s
	c.spans = append(c.spans, s)
}

func (c *court) turn(rev int64, id record.ID, b, a *claim) {
	s := c.lives[life{b.Token, id}]
	if s == nil {
		return
	}
	if b.held() != a.held() {
		code := atOnce
		if a != nil {
			code = a.ReasonCode
		}
		s.turns, s.codes = append(s.turns, rev), append(s.codes, code)
	}
	if a == nil {
		s.freed = rev
	}
}
