package leases

import (
	"fmt"
	"slices"
)

// judge tells which promise a step has broken, "" if none.
func (x *explorer) judge(before, s *scene) string {
	if why := x.oneHolder(s); why != "" {
		return why
	}
	if before.store == s.store {
		return ""
	}
	if why := x.wholeGroups(s); why != "" {
		return why
	}
	if before.left.restore != s.left.restore {
		return ""
	}
	return x.changes(before, s)
}

// counts tells whether what runs on a host counts: a fenced or removed node is off
// by an operator's word.
func counts(s *scene, n int) bool {
	node := s.node(n)
	return node != nil && node.State != nodeFenced && node.FencedBoot != bootName(n, s.hosts[n].boot)
}

// holders are the tokens whose process runs under an id, or whose requester may
// still start one.
func (x *explorer) holders(s *scene, id uint32) []string {
	var tokens []string
	add := func(t string) {
		if !slices.Contains(tokens, t) {
			tokens = append(tokens, t)
		}
	}
	for n := range s.hosts {
		if !counts(s, n) {
			continue
		}
		for _, p := range slices.Concat(s.hosts[n].procs, s.hosts[n].shadow) {
			if p.id == id {
				add(p.token)
			}
		}
		for i := range s.party {
			p := &s.party[i]
			if x.sc.parties[i].host == n && slices.Contains(p.refs, uidRef(id)) && x.mightStart(s, i) {
				add(p.token)
			}
		}
	}
	return tokens
}

func (x *explorer) mightStart(s *scene, i int) bool {
	p := &s.party[i]
	return p.fork || (p.stage == heldParty && !p.dead && x.mayBegin(s, i))
}

// oneHolder is P1.
func (x *explorer) oneHolder(s *scene) string {
	claims := s.store.claims()
	for id := range uint32(x.sc.uids) {
		id += 1000
		tokens := x.holders(s, id)
		if len(tokens) > 1 {
			return fmt.Sprintf("P1: two grants hold uid %d", id)
		}
		c := claims[uidRef(id)].Val
		if len(tokens) == 1 && c != nil && c.State.held() && c.Token != tokens[0] && x.sc.left.restore == 0 {
			return fmt.Sprintf("P1: uid %d is granted while another grant's process runs or may still start", id)
		}
	}
	return ""
}

// wholeGroups is P3, and P4's part that etcd shows.
func (x *explorer) wholeGroups(s *scene) string {
	v := s.store.viewOf(0)
	byKey := map[string]string{}
	for ref, c := range v.claims {
		if !c.Val.State.held() || c.Val.Key == "" {
			continue
		}
		if t := byKey[c.Val.Key]; t != "" && t != c.Val.Token {
			return fmt.Sprintf("P4: two grants under the key %s", c.Val.Key)
		}
		byKey[c.Val.Key] = c.Val.Token
		r := v.records[exploreKeys.Grant(c.Val.Caller, recordName(c.Val.Key, c.Val.Token))].Val
		if c.Val.Grouped && (r == nil || r.Token != c.Val.Token || r.Ended || !slices.Contains(r.IDs, ref)) {
			return fmt.Sprintf("P3: %s is %s, and its grant record does not list it", ref, c.Val.State)
		}
	}
	for _, r := range v.records {
		for _, ref := range r.Val.IDs {
			if c := v.claims[ref].Val; !r.Val.Ended && (c == nil || c.Token != r.Val.Token || !c.State.held()) {
				return fmt.Sprintf("P3: a grant record lists %s, which its grant holds no more", ref)
			}
		}
	}
	return ""
}

// changes are the rules about what one transaction may do to a claim.
func (x *explorer) changes(before, s *scene) string {
	was, now := before.store.claims(), s.store.claims()
	if why := x.nodeChanges(before, s); why != "" {
		return why
	}
	for id := range uint32(x.sc.uids) {
		ref := uidRef(1000 + id)
		a, b := was[ref], now[ref]
		switch {
		case a.Val == nil && b.Val == nil, a.ModRev == b.ModRev && a.Val != nil && b.Val != nil:
		case a.Val == nil && slices.Contains(before.over, b.Val.Token):
			return fmt.Sprintf("guard: %s is granted once more by an attempt of a grant that is over", ref)
		case a.Val == nil:
			if p := before.store.viewOf(0).pools["p"]; b.Val.State == Locked && !p.ids.Contains(ref.ID) {
				return fmt.Sprintf("pool: %s is granted though its pool lacks it", ref)
			}
		case b.Val == nil:
			s.over = append(slices.Clip(s.over), a.Val.Token)
			if why := x.freed(before, s, ref, a); why != "" {
				return why
			}
		case a.Val.Token != b.Val.Token:
			return fmt.Sprintf("P5: the claim of %s is overwritten by another grant's", ref)
		case a.Val.State.held() && !b.Val.State.held() && x.names(s) != "" && x.names(s) != a.Val.Token:
			return fmt.Sprintf("P5: %s ends by the release of another grant", ref)
		case a.Val.State.held() && !b.Val.State.held():
			if why := x.stolen(s, ref, a.Val, b.Val); why != "" {
				return why
			}
		}
	}
	return ""
}

// stolen tells whether a grant ends under a requester that lives, was told it and
// has not released it, although no operator ended it.
func (x *explorer) stolen(s *scene, ref Ref, a, b *Claim) string {
	if b.ReasonCode == ReasonOperator {
		return ""
	}
	for i := range s.party {
		p, n := &s.party[i], x.sc.parties[i].host
		on := a.On(hostName(n))
		if p.stage == heldParty && !p.dead && p.token == a.Token && counts(s, n) && !s.hosts[n].alien && on != nil && on.Requester(partyName(i)) != nil {
			return fmt.Sprintf("rule 35: the grant of %s ends under %s, which lives and has not released it", ref, partyName(i))
		}
	}
	return ""
}

// nodeChanges are the rules about registrations (13).
func (x *explorer) nodeChanges(before, s *scene) string {
	was, now := before.store.viewOf(0), s.store.viewOf(0)
	for n := range s.hosts {
		name := hostName(n)
		a, b := was.nodes[name].Val, now.nodes[name].Val
		_, up := was.alive[name]
		switch {
		case a == nil:
		case b == nil && a.State == nodeActive:
			return "rule 13: " + name + " is removed though neither fenced nor left"
		case b != nil && a.State != nodeFenced && b.State == nodeFenced && up && !x.cut:
			return "rule 13: " + name + " is fenced while its agent is present"
		case b != nil && a.State == nodeActive && b.State == nodeLeft:
			for i := range s.party {
				if p := &s.party[i]; x.sc.parties[i].host == n && x.mightStart(s, i) && now.claims[p.refs[0]].Val != nil {
					return "rule 38: " + name + " has left, and " + partyName(i) + " may still start there"
				}
			}
			if len(s.hosts[n].procs) > 0 {
				return "rule 37: " + name + " has left with a process of a grant running"
			}
		}
	}
	return ""
}

// names is the token that the release just delivered gives back.
func (x *explorer) names(s *scene) string {
	switch {
	case x.by == nil:
	case x.by.kind == kRelease:
		return s.party[x.by.party].token
	case x.by.kind == kWhole:
		return x.by.token
	}
	return ""
}

// freed is P2: an id is free only when nobody holds it and every proof due is in.
func (x *explorer) freed(before, s *scene, ref Ref, c Stored[Claim]) string {
	for _, t := range x.holders(s, ref.ID) {
		if t == c.Val.Token {
			return fmt.Sprintf("P2: %s is freed while its process runs or may still start", ref)
		}
	}
	v := before.store.viewOf(0)
	for n := range s.hosts {
		name := hostName(n)
		node, _ := v.nodes[name]
		_, up := v.alive[name]
		named := c.Val.On(name) != nil
		if node.Val == nil || node.Val.State != nodeActive || (!named && !up) {
			continue
		}
		if x.by != nil && x.by.kind == kRelease { // the shortcut: the one who frees is the one who looked
			if !named || len(c.Val.Nodes) > 1 {
				return fmt.Sprintf("P2: %s is freed at once though %s has a say", ref, name)
			}
			continue
		}
		p := v.proofs[name]
		if p.Val == nil || p.Val.Boot != node.Val.Boot || p.Val.Revision < c.ModRev || p.Val.lists(ref, 1) {
			return fmt.Sprintf("P2: %s is freed without the proof of %s", ref, name)
		}
	}
	return ""
}

// leak is P6: the world without faults, requesters and processes comes to rest
// with nothing locked and nothing in quarantine.
func (x *explorer) leak(s *scene) string {
	q := s.copy()
	q.left = faults{}
	for i := range q.party {
		q.party[i].dead, q.party[i].fork = true, false
	}
	for _, r := range q.late {
		q.store, _, _ = q.store.commit(r.commit)
	}
	q.late = nil
	for n := range q.hosts {
		h := &q.hosts[n]
		h.procs, h.shadow = nil, nil
		node := q.node(n)
		if h.cut || h.alien || node == nil || node.State == nodeFenced {
			return "" // an operator's turn
		}
		if node.State == nodeLeft {
			if h.mind != nil {
				x.down(q, n)
			}
		} else if h.mind == nil || h.mind.fatal != nil {
			x.down(q, n)
			h.mind, h.mirror = &mind{}, q.store
		}
	}
	for _, lease := range q.store.leases { // whose agent is gone
		held := slices.ContainsFunc(q.hosts[:], func(h host) bool {
			return h.mind != nil && h.mind.guard != nil && int64(h.mind.guard.lease) == lease
		})
		if !held {
			q.store = q.store.expire(lease)
		}
	}
	q.follow(false)
	for same, i := 0, 0; same < 3 && i < 40; i++ { // a round may only use up what the janitor saw before
		old := q.store
		if q = x.rest(q); q.store != old {
			same = 0
		}
		same++
	}
	for n := range q.hosts {
		if m := q.hosts[n].mind; m != nil && m.fatal != nil {
			return ""
		}
	}
	for ref, c := range q.store.claims() {
		if c.Val.State == Locked || c.Val.State == Quarantined {
			return fmt.Sprintf("P6: %s stays %s (%s) though nothing runs and nobody lives", ref, c.Val.State, c.Val.Reason)
		}
	}
	return ""
}

// rest lets every agent do all that it finds to do once.
func (x *explorer) rest(q *scene) *scene {
	type chore struct {
		node int
		kind kind
		ref  Ref
	}
	done := map[chore]bool{}
	for n := 0; n < len(q.hosts); {
		q = x.answered(q)
		x.list = x.list[:0]
		x.agentMoves(q, n)
		i := slices.IndexFunc(x.list, func(m move) bool { return !done[chore{n, m.task.kind, m.task.ref}] })
		if i < 0 {
			n++
			continue
		}
		m := x.list[i]
		done[chore{n, m.task.kind, m.task.ref}] = true
		q = m.to()
	}
	return x.answered(q)
}

// answered lets everything under way come to its end.
func (x *explorer) answered(q *scene) *scene {
	for range 200 {
		if len(q.tasks) == 0 {
			return q
		}
		moved := false
		for _, t := range q.tasks {
			x.list = x.list[:0]
			x.answers(q, t)
			if len(x.list) > 0 {
				q, moved = x.list[0].to(), true
				break
			}
		}
		if !moved { // it waits for a session
			for n := range q.hosts {
				if m := q.hosts[n].mind; m != nil && m.fatal == nil && m.guard == nil {
					q, moved = x.begin(q, task{node: n, kind: kOpen, party: -1}), true
				} else if m != nil && m.fatal == nil && !slices.Contains(q.store.leases, int64(m.guard.lease)) {
					q, moved = x.begin(q, task{node: n, kind: kLost, party: -1}), true
				}
			}
		}
		if !moved {
			return q
		}
	}
	return q
}
