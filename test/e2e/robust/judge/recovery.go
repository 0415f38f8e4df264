package judge

import (
	"maps"
	"slices"

	"github.com/idpool/idpool/test/e2e/robust/record"
)

// recovery is the time from a restore of etcd until an operator has adopted it and
// granting resumes. What stands in etcd meanwhile is as old as the snapshot: who
// holds what is what was so when etcd was stopped, and must be again at the end.
type recovery struct {
	old    *world // as it was when etcd was stopped
	number uint64 // the highest number of an epoch until then
	cut    *record.Cut
	began  int64 // the revision that the snapshot stands for
	keep   int64 // the snapshot's own
	fenced map[string]bool
}

// restored begins an era: the world is that of the snapshot.
func (c *court) restored(e *era, kept *keptState) {
	old := c.w
	if c.recovery != nil { // restored once more before granting resumed
		old = c.recovery.old
	}
	c.recovery = &recovery{old: old, number: c.w.numberSeen, cut: e.cut, began: e.first, keep: kept.w.rev, fenced: map[string]bool{}}
	seen, pools := c.w.numberSeen, c.w.poolsPast
	c.w, c.values = kept.w, kept.values
	c.w.numberSeen, c.w.poolsPast = seen, pools
	for _, l := range c.w.locks {
		c.revived[l] = true
	}
	for _, name := range slices.Sorted(maps.Keys(pools)) {
		if past := pools[name]; len(past) > 0 && past[len(past)-1].pool != c.w.pools[name] {
			pools[name] = append(past, &poolSince{e.first, c.w.pools[name]})
		}
	}
}

// checkRecovery judges a revision of a recovery: the epoch, and that what is written
// was there before, or says only that an id is in use.
func (c *court) checkRecovery(t *txn) {
	c.checkEpoch(t)
	c.checkPresence(t)
	c.noteNodes(t)
	for _, e := range t.nodes {
		c.recovery.fenced[e.key] = e.after != nil && e.after.State == "fenced"
	}
	for _, e := range t.claims {
		a := e.after
		if a == nil || c.known[a.Token] && c.lives[life{a.Token, e.key}] != nil || a.State == quarantined && a.ReasonCode == foreign {
			continue
		}
		c.broke(P8, t.rev, "%s was granted under token %s after etcd was restored and before every node had said what it holds", e.key, a.Token)
	}
	for _, e := range t.grants {
		if e.after != nil && !c.known[e.after.Token] {
			c.broke(P8, t.rev, "record %s of grant %s was made after etcd was restored and before every node had said what it holds", e.key, e.after.Token)
		}
	}
	for _, e := range t.services {
		if e.after != nil && !c.known[e.after.Token] {
			c.broke(P8, t.rev, "service %s (%s) was made after etcd was restored and before every node had said what it holds", e.key, e.after.Token)
		}
	}
}

// resumes tells whether a revision ends the recovery.
func (c *court) resumes(t *txn) bool {
	return t.meta != nil && t.meta.after != nil && t.meta.after.State == "normal"
}

// resume judges what stands when granting resumes against what stood when etcd was
// stopped: every grant that somebody was told of is held again, unless its node is
// fenced, and all is whole.
func (c *court) resume(t *txn) {
	r := c.recovery
	c.recovery = nil
	ids := map[record.ID]bool{}
	for id := range r.old.claims {
		ids[id] = true
	}
	for id := range c.w.claims {
		ids[id] = true
	}
	for _, id := range sortedIDs(ids) {
		c.carry(t, r, id, r.old.claims[id], c.w.claims[id])
	}
	for s, n := range c.w.services {
		c.checkServiceBack(t, r, s, n)
	}
	all := c.everything(t.rev)
	c.checkLocks(all)
	c.checkGroups(all)
	c.checkServices(all)
	c.recount = true
}

// carry takes one id across: from what was to what is.
func (c *court) carry(t *txn, r *recovery, id record.ID, was, is *claim) {
	same := was != nil && is != nil && was.Token == is.Token
	if was.held() {
		s := c.lives[life{was.Token, id}]
		switch told := s != nil && c.told[s.holder] != nil; {
		case same && is.held():
			if s != nil && s.from > r.keep && told {
				c.v.Counts.Carried++
			}
		case c.fencedHolder(r, s, was):
			c.late[life{was.Token, id}] = true
		case told:
			c.broke(P8, t.rev, "%s was held by grant %s when etcd was restored to before it, and granting resumed with it %s", id, was.Token, standsAs(is))
		}
	}
	if was != nil && !same {
		if s := c.lives[life{was.Token, id}]; s != nil {
			s.freed = t.rev
			s.turned(t.rev, false, undone)
		}
	}
	if is == nil {
		return
	}
	s := c.lives[life{is.Token, id}]
	if s == nil {
		c.begin(t, id, is)
		return
	}
	s.freed = 0
	if s.turned(t.rev, is.held(), is.ReasonCode) && is.held() {
		c.back[s] = r
	}
}

// undone is the code of an end by a restore that nobody spoke against.
const undone = "restored"

// turned notes that a grant ended, or came back, and tells whether it did.
func (s *span) turned(rev int64, held bool, code string) bool {
	if !s.granted || s.held(rev) == held {
		return false
	}
	s.turns, s.codes = append(s.turns, rev), append(s.codes, code)
	return true
}

func standsAs(a *claim) string {
	if a == nil {
		return "free"
	}
	return a.State + " of grant " + a.Token
}

// fencedHolder tells whether only a node that the operator fenced in the adoption
// need have known of a grant: one that it names or, where it names none, the one
// that answered it.
func (c *court) fencedHolder(r *recovery, s *span, a *claim) bool {
	for _, p := range a.Nodes {
		if r.fenced[p.Node] {
			return true
		}
	}
	if s == nil || c.told[s.holder] == nil {
		return false
	}
	return slices.ContainsFunc(c.told[s.holder].answers, func(op *record.Op) bool { return r.fenced[op.Node] })
}

// checkServiceBack: a service that had ended by a call that was answered does not
// hold VLANs again.
func (c *court) checkServiceBack(t *txn, r *recovery, name string, n *service) {
	was := r.old.services[name]
	if was != nil && was.Token == n.Token || len(n.got()) == 0 {
		return
	}
	for i := range c.run.Ops {
		op := &c.run.Ops[i]
		if ends(op.Kind) && op.Outcome == record.OK && op.Token == n.Token && op.Return <= r.cut.Stopped && !r.fenced[op.Node] {
			c.broke(P5, t.rev, "service %s (%s) was ended by a call that was answered, and is there again after the restore of etcd", name, n.Token)
			return
		}
	}
}

// everything is a revision that changes nothing and touches all: for the checks of
// what must fit together.
func (c *court) everything(rev int64) *txn {
	t := &txn{rev: rev}
	for _, id := range sortedIDs(c.w.claims) {
		t.claims = append(t.claims, edit[record.ID, claim]{id, c.w.claims[id], c.w.claims[id]})
	}
	for _, id := range sortedIDs(c.w.locks) {
		t.locks = append(t.locks, edit[record.ID, lock]{id, c.w.locks[id], c.w.locks[id]})
	}
	for _, key := range slices.Sorted(maps.Keys(c.w.grants)) {
		t.grants = append(t.grants, edit[string, grantRecord]{key, c.w.grants[key], c.w.grants[key]})
	}
	for _, name := range slices.Sorted(maps.Keys(c.w.services)) {
		t.services = append(t.services, edit[string, service]{name, c.w.services[name], c.w.services[name]})
	}
	return t
}

// speaksLate tells whether a revision is a node's that was fenced in an adoption and
// came back: it puts back what granting resumed without, or into quarantine what it
// knows as that.
func (c *court) speaksLate(t *txn) bool {
	back := func(token string) bool {
		for l := range c.late {
			if l.token == token {
				return true
			}
			if s := c.lives[l]; s != nil && s.holder == token {
				return true
			}
		}
		return false
	}
	for _, e := range t.claims {
		if l := (life{}); e.before == nil && e.after != nil {
			l = life{e.after.Token, e.key}
			if c.late[l] || len(c.run.Cuts) > 0 && c.lives[l] != nil && e.after.State == quarantined {
				return true
			}
		}
	}
	for _, e := range t.grants {
		if e.before == nil && e.after != nil && back(e.after.Token) {
			return true
		}
	}
	for _, e := range t.services {
		if e.before == nil && e.after != nil && back(e.after.Token) {
			return true
		}
	}
	return false
}

// putBack keeps the lives of what such a node says.
func (c *court) putBack(t *txn) {
	for _, e := range t.claims {
		l := life{}
		if e.after != nil {
			l = life{e.after.Token, e.key}
		}
		s := c.lives[l]
		switch {
		case e.before != nil || e.after == nil:
			continue
		case s == nil:
			c.broke(P8, t.rev, "%s was granted under token %s by what a node put back that had been fenced in the adoption", e.key, l.token)
			continue
		case e.after.held() && !c.late[l]:
			c.broke(P5, t.rev, "%s of grant %s was over, and a node that spoke after granting had resumed put it back", e.key, l.token)
		}
		delete(c.late, l)
		s.freed = 0
		s.turned(t.rev, e.after.held(), e.after.ReasonCode)
	}
}
