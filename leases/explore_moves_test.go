package leases

import (
	"context"
	"fmt"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// move is one thing that may happen next.
type move struct {
	text string
	task *task // what the text is about
	to   func() *scene
}

func (m move) String() string {
	if m.task != nil {
		return fmt.Sprintf(m.text, m.task)
	}
	return m.text
}

// moves are all that may happen in a scene, in an order that depends on it alone.
func (x *explorer) moves(s *scene) []move {
	x.list = x.list[:0]
	for _, t := range s.tasks {
		x.answers(s, t)
	}
	if len(s.tasks) < x.sc.tasks {
		for n := range s.hosts {
			x.agentMoves(s, n)
		}
	}
	for i := range s.party {
		x.partyMoves(s, i)
	}
	for n := range s.hosts {
		x.faultMoves(s, n)
	}
	x.worldMoves(s)
	return x.list
}

func (x *explorer) add(text string, t *task, to func() *scene) {
	x.list = append(x.list, move{text, t, to})
}

// change is a move that calls no engine.
func (x *explorer) change(s *scene, text string, f func(n *scene)) {
	x.add(text, nil, func() *scene {
		n := s.copy()
		f(n)
		n.follow(n.left.lag > 0)
		return n
	})
}

// start is a move that begins an operation, after prepare has changed the scene.
func (x *explorer) start(s *scene, t task, prepare func(n *scene)) {
	for _, o := range s.tasks {
		if o.node == t.node && o.kind == t.kind && o.party == t.party && o.ref == t.ref {
			return
		}
	}
	x.add("begins — %s", &t, func() *scene {
		n := s.copy()
		if prepare != nil {
			prepare(n)
		}
		n = x.begin(n, t)
		if !slices.Contains(x.sc.slow, t.kind) {
			n = x.hurried(n, n.seq)
		}
		return n
	})
}

// answers are what a task that waits may get.
func (x *explorer) answers(s *scene, t *task) {
	switch {
	case t.wait.look:
		x.add("%s: looks at what runs", t, func() *scene { return x.resume(s, t, entry{saw: s.hosts[t.node].saw()}) })
	case t.wait.sess:
		if m := s.hosts[t.node].mind; m.fatal != nil || (m.guard != nil && !m.doubt) {
			x.add("%s: has a session again", t, func() *scene { return x.resume(s, t, entry{}) })
		}
	case t.wait.severed:
		x.add("%s: the connection broke", t, func() *scene { return x.resume(s, t, entry{err: context.DeadlineExceeded}) })
	default:
		x.deliveries(s, t)
	}
}

func (x *explorer) deliveries(s *scene, t *task) {
	r := t.wait.commit
	x.add("%s: transaction answered", t, func() *scene { return x.delivered(s, t, r, false) })
	lost := entry{err: context.DeadlineExceeded}
	if s.left.lose > 0 {
		x.add("%s: transaction applied, its answer lost", t, func() *scene {
			n := s.copy()
			n.left.lose--
			x.by = t
			n.store, _, _ = n.store.commit(r)
			return x.resume(n, t, lost)
		})
	}
	if s.left.late > 0 && len(s.late) == 0 {
		x.add("%s: no answer; the transaction may arrive later", t, func() *scene {
			n := s.copy()
			n.left.late--
			n.late = []sent{{r, t}}
			return x.resume(n, t, lost)
		})
	}
	if s.left.twice > 0 && len(s.late) == 0 {
		x.add("%s: transaction answered, and sent once more by the network", t, func() *scene { return x.delivered(s, t, r, true) })
	}
}

func (x *explorer) delivered(s *scene, t *task, r *pb.TxnRequest, twice bool) *scene {
	n := s.copy()
	x.by = t
	if twice {
		n.left.twice--
		n.late = []sent{{r, t}}
	}
	store, resp, err := n.store.commit(r)
	n.store = store
	n.follow(n.left.lag > 0 && !refused(resp)) // who is refused waits for the mirror
	return x.resume(n, t, entry{resp: resp, err: err})
}

func refused(r *pb.TxnResponse) bool {
	if r == nil || !r.Succeeded {
		return true
	}
	return slices.ContainsFunc(r.Responses, func(o *pb.ResponseOp) bool {
		t := o.GetResponseTxn()
		return t != nil && !t.Succeeded
	})
}

// agentMoves are what a node's agent does by itself.
func (x *explorer) agentMoves(s *scene, n int) {
	h := &s.hosts[n]
	m := h.mind
	if m == nil || m.fatal != nil || h.cut {
		return
	}
	one := func(k kind, ref Ref, f func(*task)) {
		t := task{node: n, kind: k, ref: ref, party: -1}
		if f != nil {
			f(&t)
		}
		x.start(s, t, nil)
	}
	switch {
	case m.doubt:
		one(kDoubt, Ref{}, nil)
		return
	case m.guard == nil:
		one(kOpen, Ref{}, nil)
		return
	case !slices.Contains(s.store.leases, int64(m.guard.lease)):
		one(kLost, Ref{}, nil)
		return
	case m.leaving:
		return
	}
	x.hydrate(s, n)
	a := x.agents[n]
	if len(m.orphans) > 0 {
		one(kOrphans, Ref{}, nil)
	}
	c := a.chores()
	for _, refs := range [][]Ref{c.sweep, c.relock, c.inquire, c.watch} {
		slices.SortFunc(refs, Ref.compare)
	}
	for _, ref := range c.sweep {
		one(kSweep, ref, nil)
	}
	for _, ref := range c.relock {
		one(kRelock, ref, nil)
	}
	x.janitorMoves(s, n, c)
	d := a.duties()
	if d.elect {
		one(kElect, Ref{}, nil)
	}
	slices.SortFunc(d.free, Ref.compare)
	for _, ref := range d.free {
		one(kFree, ref, func(t *task) { t.rev, t.member = d.weighed[ref], d.members })
	}
	for id := range uint32(x.sc.uids) {
		if other, ok := d.drop[uidRef(1000+id)]; ok {
			one(kDrop, uidRef(1000+id), func(t *task) { t.other, t.member = other, d.members })
		}
	}
}

// janitorMoves are a look where there is a reason for one, and what follows from
// the last.
func (x *explorer) janitorMoves(s *scene, n int, c chores) {
	l := s.hosts[n].mind.looked
	if l == nil {
		if len(c.inquire) > 0 || (c.report && (!c.again || x.repeats(s, n))) || x.watches(s, n, c.watch) {
			x.start(s, task{node: n, kind: kInspect, party: -1}, nil)
		}
		return
	}
	use := func(k kind, ref Ref, f func(l *looked)) {
		x.start(s, task{node: n, kind: k, ref: ref, party: -1, seen: l.seen}, func(s *scene) {
			m := *s.hosts[n].mind
			next := *m.looked
			f(&next)
			m.looked = &next
			if len(next.inquire)+len(next.watch) == 0 && !next.report {
				m.looked = nil
			}
			s.hosts[n].mind = &m
		})
	}
	switch {
	case len(l.inquire) > 0:
		use(kInquire, l.inquire[0], func(l *looked) { l.inquire = l.inquire[1:] })
	case len(l.watch) > 0:
		use(kObserve, l.watch[0], func(l *looked) { l.watch = l.watch[1:] })
	case l.report && !slices.ContainsFunc(s.tasks, func(t *task) bool { return t.node == n && (t.kind == kInquire || t.kind == kObserve) }):
		use(kReport, Ref{}, func(l *looked) { l.report = false })
	}
}

// repeats tells whether a report that says "in use" would say something else now.
func (x *explorer) repeats(s *scene, n int) bool {
	v := s.hosts[n].mirror.viewOf(n)
	used := s.hosts[n].used()
	p := v.proofs[hostName(n)].Val
	live := x.agents[n].starters()
	for id := range uint32(x.sc.uids) {
		ref := uidRef(1000 + id)
		if _, ok := v.quarantined[ref]; ok && p.lists(ref, 1) && !used.Contains(ref.ID) && !live[ref] {
			return true
		}
	}
	return false
}

// watches tells whether a mark could change.
func (x *explorer) watches(s *scene, n int, refs []Ref) bool {
	used := s.hosts[n].used()
	for _, ref := range refs {
		c := s.hosts[n].mirror.viewOf(n).claims[ref].Val
		if p := c.On(hostName(n)); used.Contains(ref.ID) == (p.Idle || c.State == Quarantined) {
			return true
		}
	}
	return false
}

// worldMoves are those of no machine.
func (x *explorer) worldMoves(s *scene) {
	for i, r := range s.late {
		x.change(s, "a transaction of which nobody waits for the answer arrives", func(n *scene) {
			x.by = r.by
			n.late = slices.Delete(slices.Clone(n.late), i, i+1)
			n.store, _, _ = n.store.commit(r.commit)
		})
	}
	if s.left.restore == 0 {
		return
	}
	if s.saved == nil {
		x.change(s, "a snapshot of etcd is taken", func(n *scene) { n.saved = n.store })
		return
	}
	if s.saved == s.store {
		return
	}
	x.change(s, "etcd is restored from the snapshot", func(n *scene) {
		n.left.restore--
		back := *n.saved
		back.index, back.views, back.parent = 3, [2]*view{}, nil
		if x.sc.bump {
			back.rev = n.store.rev + 1
		}
		n.store, n.saved, n.late = &back, nil, nil
		for h := range n.hosts {
			n.hosts[h].cut = true
		}
		n.tasks = slices.Clone(n.tasks)
		for i, t := range n.tasks {
			if t.wait.commit != nil {
				c := *t
				c.wait = &pause{commit: t.wait.commit, severed: true}
				n.tasks[i] = &c
			}
		}
	})
}

// hurried lets one operation come to its end, unless it waits for a session.
func (x *explorer) hurried(s *scene, id int64) *scene {
	for t, parts := s.task(id), 0; t != nil && parts < 20; t, parts = s.task(id), parts+1 {
		switch {
		case t.wait.look:
			s = x.resume(s, t, entry{saw: s.hosts[t.node].saw()})
		case t.wait.commit != nil && !t.wait.severed:
			s = x.delivered(s, t, t.wait.commit, false)
		default:
			return s
		}
	}
	return s
}
