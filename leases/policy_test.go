package leases

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/problem"
)

func TestWaitForAFreeID(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.running("n1"), w.running("n2")
	a.pool("p", "1000")
	b.sync()
	g := a.get(a.m.born("r"))
	got := make(chan error, 1)
	go func() {
		_, err := b.ask(b.m.born("waiter"), wait(limit))
		got <- err
	}()
	a.release(g, "r")
	a.m.die("r")
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	if c := w.claim(g.ref()); c == nil || c.Token == g.Token || c.On("n2") == nil {
		t.Errorf("%+v", c)
	}
}

func TestReclaimTakesTheLongestIdleAfterProof(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.running("n1"), w.running("n2")
	a.pool("p", "1000-1002")
	b.sync()
	var grants []*Grant
	for i := range 3 {
		r := fmt.Sprint("r", i)
		g := a.get(a.m.born(r))
		a.m.start(g.ref().ID)
		a.confirm(g, false, true)
		grants = append(grants, g)
	}
	for _, i := range []int{1, 0} { // 1 is idle first
		a.m.end(grants[i].ref().ID)
		a.m.die(fmt.Sprint("r", i))
		a.wake()
		until(t, "idle", func() bool { return w.state(grants[i].ref()) == Idle })
	}
	g := b.get(b.m.born("x"))
	if g.ref() != grants[1].ref() {
		t.Errorf("got %s, want the longest idle %s", g.ref(), grants[1].ref())
	}
	w.mustBe(grants[0].ref(), Idle)
	w.mustBe(grants[2].ref(), Used)
}

func TestReclaimNeverAndKeptGroupsStay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000", func(p *Pool) { p.Reclaim.Never = true })
	a.pool("q", "2000-2001")
	idle := func(g *Grant, which int, r string) {
		a.m.end(g.Held[which].ID)
		a.m.die(r)
		rounds(a)
	}
	g := a.get(a.m.born("r"))
	a.m.start(1000)
	a.confirm(g, false, true)
	idle(g, 0, "r")
	w.mustBe(g.ref(), Idle)
	_, err := a.ask(a.m.born("x"))
	mustErr(t, err, problem.ErrExhausted)
	// A group of which one still runs is not idle.
	q := a.get(a.m.born("q"), wants(Want{Pool: "q", Count: 2}))
	for _, h := range q.Held {
		a.m.start(h.ID)
	}
	a.confirm(q, false, true)
	idle(q, 0, "q")
	w.mustBe(q.Held[0].Ref, Idle)
	_, err = a.ask(a.m.born("x"), wants(Want{Pool: "q", Count: 1}))
	mustErr(t, err, problem.ErrExhausted)
}

func TestCooldown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000", func(p *Pool) { p.Cooldown = time.Hour })
	g := a.get(a.m.born("r"))
	a.release(g, "r")
	rounds(a)
	w.mustBe(g.ref(), Quarantined)
	if info := a.Get(w.ctx(), g.ref()); info.NotBefore == nil || len(info.WaitsFor) != 0 {
		t.Errorf("%+v", info)
	}
	_, err := a.ask(a.m.born("x"))
	var e *problem.Error
	if !errors.As(err, &e) || !strings.Contains(e.Text(), "1 cool down") {
		t.Errorf("%v", err)
	}
	// The time passes: the mirror saw the claim long ago.
	a.mirror.mu.Lock()
	a.mirror.quarantined[g.ref()] = time.Now().Add(-2 * time.Hour)
	a.mirror.mu.Unlock()
	a.reaperRound()
	w.mustBe(g.ref(), Free)
}

func TestOrders(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	take := func(order Order, n int) []uint32 {
		a.pool("p", "1000-1004", func(p *Pool) { p.Order = order })
		var ids []uint32
		for range n {
			a.sync() // a mirror that lags suggests the next one
			g := a.get(a.m.born("r"))
			ids = append(ids, g.ref().ID)
			a.release(g, "r")
			w.mustBe(g.ref(), Free)
		}
		return ids
	}
	if got := take(OrderLowest, 3); !slices.Equal(got, []uint32{1000, 1000, 1000}) {
		t.Errorf("lowest: %v", got)
	}
	delete(a.rotated, "p")
	if got := take(OrderRotate, 7); !slices.Equal(got, []uint32{1000, 1001, 1002, 1003, 1004, 1000, 1001}) {
		t.Errorf("rotate: %v", got)
	}
	// Random reaches both ends: all five ids of the pool come out of one group.
	a.pool("p", "0-4", func(p *Pool) { p.Order = OrderRandom })
	g := a.get(a.m.born("r"), wants(Want{Pool: "p", Count: 5}))
	ids := idset.Set{}
	for _, h := range g.Held {
		ids.Insert(h.ID)
	}
	if ids.String() != "0-4" {
		t.Errorf("random: %s", ids)
	}
	a.pool("top", "4294967294-4294967295", func(p *Pool) { p.Order = OrderRotate })
	g = a.get(a.m.born("r"), wants(Want{Pool: "top", Count: 2}))
	if g.Held[1].ID != 4294967295 {
		t.Errorf("the last ids: %v", g.refs())
	}
}

func TestBlocks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000-1040", func(p *Pool) { p.Block, p.Order = 16, OrderLowest })
	g := a.get(a.m.born("r"))
	if g.ref().ID != 1008 || g.Held[0].Claim.Count != 16 {
		t.Fatalf("block %s of %d", g.ref(), g.Held[0].Claim.Count)
	}
	a.m.start(1023) // any id of the block runs
	a.confirm(g, false, true)
	a.release(g, "r")
	rounds(a)
	w.mustBe(g.ref(), Quarantined)
	g2 := a.get(a.m.born("r2"))
	if g2.ref().ID != 1024 {
		t.Errorf("second block %s", g2.ref())
	}
	_, err := a.ask(a.m.born("r3"))
	mustErr(t, err, problem.ErrExhausted, "0 of 2")
	a.m.end(1023)
	rounds(a)
	w.mustBe(g.ref(), Free)
}

func TestNodeScopedPools(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.pool("p", "1000", func(p *Pool) { p.Scope = ScopeNode })
	b.sync()
	ga, gb := a.get(a.m.born("r")), b.get(b.m.born("r"))
	if ga.ref() != (Ref{"uid@n1", 1000}) || gb.ref() != (Ref{"uid@n2", 1000}) {
		t.Fatalf("%s and %s", ga.ref(), gb.ref())
	}
	b.m.start(1000)
	a.release(ga, "r") // what runs on n2 is not its concern
	rounds(a, b)
	w.mustBe(ga.ref(), Free)
	w.mustBe(gb.ref(), Locked)
}
