package leases

import (
	"errors"
	"fmt"
	"testing"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/cluster/clustertest"
	"github.com/idpool/idpool/problem"
)

// TestTrace15RestoreSeenAtReconnect takes etcd away and brings it back: as it was,
// and then behind what the node has seen.
func TestTrace15RestoreSeenAtReconnect(t *testing.T) {
	t.Parallel()
	etcd := clustertest.Start(t)
	w := worldAt(t, etcd.Endpoints())
	a := w.node("n1")
	a.pool("p", "1000-1009")
	g := a.get(a.m.born("r"))
	again := func() int {
		a.session.mu.Lock()
		defer a.session.mu.Unlock()
		return a.session.doubts
	}
	etcd.Stop(t)
	etcd.Restart(t)
	until(t, "the mirror follows again", func() bool { return again() == 1 && !a.staleNow() })
	a.get(a.m.born("r2"))
	w.mustBe(g.ref(), Locked)

	if err := a.session.home.change(func(m *memory) { m.Index += 1 << 40 }); err != nil {
		t.Fatal(err)
	}
	etcd.Stop(t)
	etcd.Restart(t)
	until(t, "the mirror follows again", func() bool { return again() == 2 })
	until(t, "it is frozen", func() bool {
		_, err := a.ask(a.m.born("r3"))
		return errors.Is(err, problem.ErrFrozen)
	})
	if n := len(w.stored(w.keys.ClaimsPrefix())); n != 2 {
		t.Errorf("%d claims", n)
	}
}

// TestLearnKeepsWhatWasNotAsked lets a bind find one id of its group bound by an
// earlier attempt, and another changed meanwhile.
func TestLearnKeepsWhatWasNotAsked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.pool("p", "1000-1001")
	g := a.get(a.m.born("r"), withKey("K"), wants(Want{Pool: "p", Count: 2}))
	r := b.m.born("r2")
	b.sync()
	if _, err := b.Join(w.ctx(), g.refs()[:1], g.Token, r); err != nil {
		t.Fatal(err)
	}
	first := true
	b.net.set(func() {
		b.net.before = func() { // n1 changes the second id before n2's attempt arrives
			if first {
				first = false
				if err := a.relock(w.ctx(), g.Held[1].Ref); err != nil {
					t.Error(err)
				}
			}
		}
	})
	held, err := b.Join(w.ctx(), g.refs(), g.Token, r)
	if err != nil || len(held) != 2 {
		t.Fatalf("%v, %v", held, err)
	}
	for _, ref := range g.refs() {
		if c := w.claim(ref); c.On("n2") == nil || len(c.On("n2").Requesters) != 1 {
			t.Errorf("%s: %+v", ref, c.Nodes)
		}
	}
}

func TestUnreadableNodesAreWaitedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.pool("p", "1000")
	g := a.get(a.m.born("r"))
	for _, key := range []string{w.keys.Alive("n2"), w.keys.Node("n2")} { // a later version's
		raw := w.stored(key)[key]
		if _, err := w.client.Txn().Put(w.ctx(), key, `{"v":99}`); err != nil {
			t.Fatal(err)
		}
		a.sync()
		if _, _, err := a.Release(w.ctx(), Release{Refs: g.refs(), Token: g.Token, By: "x"}); err != nil {
			t.Fatal(err)
		}
		rounds(a)
		w.mustBe(g.ref(), Quarantined)
		if info := a.Get(w.ctx(), g.ref()); len(info.WaitsFor) != 1 || info.WaitsFor[0].Node != "n2" {
			t.Errorf("%s: waits for %+v", key, info.WaitsFor)
		}
		if _, err := w.client.Txn().Put(w.ctx(), key, raw); err != nil {
			t.Fatal(err)
		}
	}
	_ = b
}

func TestReclaimAfterAndForget(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000", func(p *Pool) { p.Reclaim.After = 1 })
	g := a.get(a.m.born("r"), withKey("K"))
	a.m.start(1000)
	a.confirm(g, false, true)
	a.m.end(1000)
	a.m.die("r")
	rounds(a) // idle, reclaimed, proven, freed
	rounds(a)
	w.mustBe(g.ref(), Free)
	key := w.keys.Grant("tenant", "key:K")
	a.sync()
	if d := a.duties(); len(d.forget) != 0 {
		t.Fatalf("forgets %v at once", d.forget)
	}
	a.mirror.mu.Lock()
	a.mirror.over[key] = a.mirror.over[key].Add(-2 * recordsKept)
	a.mirror.mu.Unlock()
	for _, k := range a.duties().forget {
		a.forget(w.ctx(), k)
	}
	if len(w.stored(key)) != 0 {
		t.Error("the record is left")
	}
	a.sync()
	a.get(a.m.born("r2"), withKey("K"))
}

func TestTheReaperWorksForAbsentNodes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b, c := w.node("n1"), w.node("n2"), w.node("n3")
	a.pool("p", "1000-1002")
	g := a.get(a.m.born("r"))
	if _, _, err := b.Release(w.ctx(), Release{Refs: g.refs(), Token: g.Token, Whole: true, By: "op"}); err != nil {
		t.Fatal(err)
	}
	a.release(g, "r") // acknowledged
	rounds(b, c)
	a.janitorRound() // n1's word is in
	a.down()
	rounds(b, c)
	w.mustBe(g.ref(), Free)
	if o := b.Overview(); o.Reaper != "n1" && o.Reaper != "n2" && o.Reaper != "n3" {
		t.Errorf("reaper %q", o.Reaper)
	}
}

func TestListAndViews(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000-1009", func(p *Pool) { p.Order = OrderLowest })
	for i := range 5 {
		a.get(a.m.born(fmt.Sprint("r", i)))
	}
	all := func(Ref, *Claim) bool { return true }
	var seen []uint32
	var after *Ref
	for {
		part := a.List(w.ctx(), after, 2, all)
		if len(part) == 0 {
			break
		}
		for _, c := range part {
			seen = append(seen, c.ID)
		}
		after = &part[len(part)-1].Ref
	}
	if fmt.Sprint(seen) != "[1000 1001 1002 1003 1004]" {
		t.Errorf("listed %v", seen)
	}
	info := a.Get(w.ctx(), uid(1009))
	if info.Claim != nil || !info.InEtcd || fmt.Sprint(info.Pools) != "[p]" {
		t.Errorf("%+v", info)
	}
	pools := a.Pools()
	if len(pools) != 1 || pools[0].Size != 10 || pools[0].Counts["locked"] != 5 || pools[0].Counts["free"] != 5 || pools[0].Low {
		t.Errorf("%+v", pools)
	}
	if n, err := a.NodeNamed("n1"); err != nil || n.Holds["locked"] != 5 {
		t.Errorf("%+v, %v", n, err)
	}
	if s := a.Spaces(); len(s) != 2 || s[1] != cluster.NodeSpace("n1") {
		t.Errorf("%v", s)
	}
}
