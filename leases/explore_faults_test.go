package leases

import (
	"slices"
)

// partyMoves are what a requester and its processes do.
func (x *explorer) partyMoves(s *scene, i int) {
	p, spec := &s.party[i], x.sc.parties[i]
	h := &s.hosts[spec.host]
	up := h.mind != nil && h.mind.guard != nil && !h.mind.doubt && !h.cut && !h.alien && len(s.tasks) < x.sc.tasks
	set := func(text string, f func(p *party)) {
		x.change(s, partyName(i)+" "+text, func(n *scene) { f(&n.party[i]) })
	}
	own := func(k kind, keep bool, f func(n *scene)) {
		x.start(s, task{node: spec.host, kind: k, party: i, keep: keep}, f)
	}
	if !p.dead && (p.stage != idleParty || spec.mortal) {
		set("dies", func(p *party) { p.dead = true })
	}
	switch p.stage {
	case idleParty:
		x.asks(s, i, up)
	case heldParty:
		if p.fork || (!p.dead && !spec.fork && x.mayBegin(s, i)) {
			x.starts(s, i)
		}
		if p.dead {
			return
		}
		if spec.fork && !p.fork && !p.started {
			set("forks a child that will become the uid", func(p *party) { p.fork = true })
		}
		if up && p.started && !p.settled && !spec.noConfirm {
			own(kConfirm, spec.keep, nil)
		}
		if up && spec.early && !p.settled && !p.started {
			own(kConfirm, false, nil)
		}
		busy := slices.ContainsFunc(s.tasks, func(t *task) bool { return t.party == i })
		if up && !p.fork && !busy && !spec.stays {
			own(kRelease, false, func(n *scene) { n.party[i].stage = doneParty })
		}
		if !p.fork && x.over(s, p) {
			set("is told that its grant is over", func(p *party) { p.stage = doneParty })
		}
	case doneParty:
		if up && !p.dead && x.listed(s, i) {
			own(kRelease, false, nil)
		}
	}
}

// asks are the ways to a grant.
func (x *explorer) asks(s *scene, i int, up bool) {
	p, spec := &s.party[i], x.sc.parties[i]
	if spec.blind {
		x.strays(s, i)
		return
	}
	if !up || p.dead || p.asks >= 2 {
		return
	}
	if j := spec.joins - 1; j >= 0 {
		if first := &s.party[j]; first.stage == heldParty {
			x.start(s, task{node: spec.host, kind: kJoin, party: i}, func(n *scene) {
				q := &n.party[i]
				q.stage, q.token, q.refs = askingParty, first.token, first.refs
				q.asks++
			})
		}
		return
	}
	claims := s.store.claims()
	room := spec.key != "" && len(s.store.viewOf(0).byKey[spec.key]) > 0
	for id := range uint32(x.sc.uids) {
		c, ok := claims[uidRef(1000+id)]
		room = room || !ok || c.Val.State == Idle
	}
	if room {
		x.start(s, task{node: spec.host, kind: kAsk, party: i}, func(n *scene) {
			n.party[i].stage = askingParty
			n.party[i].asks++
		})
	}
}

// strays is a job that starts a process of another's grant on a machine that is no
// node yet, and asks nobody.
func (x *explorer) strays(s *scene, i int) {
	spec := x.sc.parties[i]
	first := &s.party[spec.joins-1]
	if s.hosts[spec.host].mind != nil || first.stage != heldParty {
		return
	}
	x.change(s, "a process of "+partyName(spec.joins-1)+"'s grant starts on "+hostName(spec.host), func(n *scene) {
		n.party[i].stage = doneParty
		n.hosts[spec.host].procs = []proc{{first.refs[0].ID, first.token}}
	})
}

// mayBegin tells whether a live requester that was told its ids starts something.
func (x *explorer) mayBegin(s *scene, i int) bool {
	p, spec := &s.party[i], x.sc.parties[i]
	if !p.started {
		return true
	}
	if !spec.restart {
		return false
	}
	h := &s.hosts[spec.host]
	return !slices.ContainsFunc(slices.Concat(h.procs, h.shadow), func(r proc) bool { return r.token == p.token })
}

func (x *explorer) starts(s *scene, i int) {
	spec := x.sc.parties[i]
	x.change(s, "a process of "+partyName(i)+" starts under its uid", func(n *scene) {
		p := &n.party[i]
		p.started, p.fork = true, false
		h := &n.hosts[spec.host]
		ran := &h.procs
		if h.alien {
			ran = &h.shadow
		}
		*ran = slices.Clone(*ran)
		for _, ref := range p.refs[:1] {
			if r := (proc{ref.ID, p.token}); !slices.Contains(*ran, r) {
				*ran = append(*ran, r)
			}
		}
	})
}

// over tells whether the claim says no more that the grant stands.
func (x *explorer) over(s *scene, p *party) bool {
	for _, ref := range p.refs {
		if c := s.store.claims()[ref].Val; c == nil || c.Token != p.token || !c.State.held() {
			return true
		}
	}
	return false
}

// listed tells whether a claim still names a requester that has given up.
func (x *explorer) listed(s *scene, i int) bool {
	for _, ref := range s.party[i].refs {
		c := s.store.claims()[ref].Val
		if c == nil || c.Token != s.party[i].token {
			continue
		}
		if p := c.On(hostName(x.sc.parties[i].host)); p != nil && p.Requester(partyName(i)) != nil {
			return true
		}
	}
	return false
}

// off ends everything on a machine.
func (x *explorer) off(n *scene, h int) {
	n.hosts[h].procs, n.hosts[h].shadow = nil, nil
	for i := range n.party {
		if x.sc.parties[i].host == h {
			n.party[i].dead, n.party[i].fork = true, false
		}
	}
	x.down(n, h)
	n.hosts[h].boot++
}

// down ends an agent. Whom it has not answered may ask again.
func (x *explorer) down(n *scene, h int) {
	n.crash(h)
	for i := range n.party {
		if x.sc.parties[i].host == h && n.party[i].stage == askingParty {
			n.party[i].stage = idleParty
		}
	}
}

func (s *scene) presence(n int) *simKV { return s.store.get(exploreKeys.Alive(hostName(n))) }

// faultMoves are what befalls a machine, its agent and its place in etcd.
func (x *explorer) faultMoves(s *scene, n int) {
	h, l, name := &s.hosts[n], s.left, hostName(n)
	for _, r := range h.procs {
		x.change(s, "the process on "+name+" under "+uidRef(r.id).String()+" ends", func(s *scene) {
			s.hosts[n].procs = slices.DeleteFunc(slices.Clone(h.procs), func(o proc) bool { return o == r })
		})
	}
	if h.mind == nil {
		x.change(s, "the agent of "+name+" starts", func(s *scene) {
			s.hosts[n].mind, s.hosts[n].mirror, s.hosts[n].cut = &mind{}, s.store, false
		})
		if l.alien > 0 && !h.alien {
			x.change(s, "another machine takes the name "+name, func(s *scene) {
				s.left.alien--
				o := &s.hosts[n]
				o.alien, o.shadow, o.procs, o.home = true, o.procs, nil, memory{V: format, Secret: "other"}
				o.boot += 5
			})
		}
	}
	if h.cut && h.mind != nil {
		x.change(s, name+" reaches etcd again", func(s *scene) {
			m := *s.hosts[n].mind
			m.doubt = true
			s.hosts[n].mind, s.hosts[n].mirror, s.hosts[n].cut = &m, s.store, false
		})
	}
	if l.lag > 0 && h.mind != nil && !h.cut && h.mirror != s.store {
		x.change(s, "the mirror of "+name+" catches up", func(s *scene) { s.hosts[n].mirror = s.store })
	}
	if h.mind != nil && (l.crash > 0 || h.mind.fatal != nil) {
		x.change(s, "the agent of "+name+" is killed", func(s *scene) {
			if h.mind.fatal == nil {
				s.left.crash--
			}
			x.down(s, n)
		})
		for _, t := range s.tasks {
			if l.crash > 0 && l.late > 0 && t.node == n && t.wait.commit != nil && len(s.late) == 0 {
				x.add("the agent is killed while this is on its way: %s", t, func() *scene {
					o := s.copy()
					o.left.crash--
					o.left.late--
					o.late = append(slices.Clone(o.late), sent{t.wait.commit, t})
					x.down(o, n)
					return o
				})
			}
		}
	}
	if kv := s.presence(n); kv != nil && l.expire > 0 {
		x.change(s, "the lease of "+name+" expires", func(s *scene) {
			s.left.expire--
			s.store = s.store.expire(kv.lease)
		})
	}
	if l.reboot > 0 {
		x.change(s, name+" is rebooted", func(s *scene) {
			s.left.reboot--
			x.off(s, n)
			if kv := s.presence(n); kv != nil { // waited for
				s.store = s.store.expire(kv.lease)
			}
		})
	}
	x.operatorMoves(s, n)
}

// operatorMoves are an operator's, about node n or on it.
func (x *explorer) operatorMoves(s *scene, n int) {
	l := s.left
	other := &s.hosts[1-n]
	if len(s.tasks) >= x.sc.tasks {
		return
	}
	there := other.mind != nil && other.mind.guard != nil && !other.cut
	about := func(k kind, f func(s *scene)) {
		x.start(s, task{node: 1 - n, kind: k, party: -1, other: hostName(n)}, f)
	}
	node := s.node(n)
	expire := func(s *scene) {
		x.cut = true
		if kv := s.presence(n); kv != nil {
			s.store = s.store.expire(kv.lease)
		}
		s.follow(s.left.lag > 0)
	}
	if there && node != nil {
		if l.fence > 0 && node.State == nodeActive {
			about(kFence, func(s *scene) { s.left.fence--; x.off(s, n); expire(s) })
		}
		if l.lie > 0 && node.State == nodeActive { // the machine is not off
			about(kFence, func(s *scene) { s.left.lie--; x.down(s, n); expire(s) })
			about(kFence, func(s *scene) { s.left.lie-- })
		}
		if node.State == nodeFenced {
			about(kUnfence, nil)
		}
		if l.remove > 0 {
			about(kRemove, func(s *scene) { s.left.remove-- })
		}
	}
	x.localMoves(s, n)
}

// localMoves are an operator's on node n, and reclaim.
func (x *explorer) localMoves(s *scene, n int) {
	h, l := &s.hosts[n], s.left
	if h.mind == nil || h.mind.guard == nil || h.mind.fatal != nil || h.cut {
		return
	}
	claims := s.store.claims()
	for id := range uint32(x.sc.uids) {
		ref := uidRef(1000 + id)
		c := claims[ref].Val
		if c == nil {
			continue
		}
		if l.operator > 0 && c.State.held() {
			x.start(s, task{node: n, kind: kWhole, party: -1, ref: ref, token: c.Token}, func(s *scene) { s.left.operator-- })
		}
		if l.reclaim > 0 && c.State.held() {
			x.start(s, task{node: n, kind: kReclaim, party: -1, ref: ref}, func(s *scene) { s.left.reclaim-- })
		}
	}
	if l.leave > 0 {
		x.start(s, task{node: n, kind: kLeave, party: -1}, func(s *scene) { s.left.leave-- })
	}
	if l.pool > 0 && n == 0 {
		x.start(s, task{node: n, kind: kPool, party: -1, keep: l.pool%2 == 0}, func(s *scene) { s.left.pool-- })
	}
}
