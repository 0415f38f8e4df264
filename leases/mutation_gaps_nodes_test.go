package leases

import (
	"context"
	"errors"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/problem"
)

// TestRule09FreedAsItWasWeighed: a claim that was written since its proofs were
// weighed is not freed on them, though it is in quarantine again.
func TestRule09FreedAsItWasWeighed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000", func(p *Pool) { p.Cooldown = 1 })
	g := a.get(a.m.born("r"))
	a.release(g, "r")
	a.janitorRound()
	a.sync()
	d := a.duties()
	if len(d.free) != 1 {
		t.Fatalf("duties %+v", d)
	}
	w.put(w.keys.Claim(g.ref().Space, g.ref().ID), w.claim(g.ref())) // a later quarantine
	a.sync()
	if err := a.freeOne(w.ctx(), g.ref(), d.weighed[g.ref()], d.members); err != nil {
		t.Fatal(err)
	}
	w.mustBe(g.ref(), Quarantined)
}

// TestRule10RevisionBeforeTheScan: what was written during a look is newer than it.
func TestRule10RevisionBeforeTheScan(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000")
	var g *Grant
	a.prover = &after{a.m, func() { g = a.get(a.m.born("r")); a.sync() }}
	seen, err := a.observation(w.ctx())
	if err != nil || seen.rev >= g.Held[0].ModRev {
		t.Errorf("a look at revision %d speaks of a claim of revision %d (%v)", seen.rev, g.Held[0].ModRev, err)
	}
}

// TestRule11RegistrationIsCompared: whatever changed the registration, the agent's
// writes stop with it.
func TestRule11RegistrationIsCompared(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000")
	a.sync()
	n, _ := a.NodeNamed("n1")
	n.Node.State, n.Node.Write = nodeFenced, "by hand"
	w.put(w.keys.Node("n1"), n.Node)
	_, err := a.ask(a.m.born("r"))
	mustErr(t, err, problem.ErrFenced, "is fenced")
}

// TestRule12CounterAheadOfTheHome: a presence with our nonce and a counter that our
// disk does not know is a copy's.
func TestRule12CounterAheadOfTheHome(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000")
	a.session.mu.Lock()
	alive, lease := a.session.alive, a.session.guard.lease
	a.session.mu.Unlock()
	alive.Counter += 5
	w.put(w.keys.Alive("n1"), alive, clientv3.WithLease(lease))
	_, err := a.ask(a.m.born("r"))
	mustErr(t, err, problem.ErrFenced, "another agent")
}

// TestRule12CounterIsWrittenAhead: the disk knows a counter before etcd does.
func TestRule12CounterIsWrittenAhead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000")
	if err := a.session.raise(w.ctx(), a.guardNow()); err != nil {
		t.Fatal(err)
	}
	a.crash()
	a = a.again()
	a.get(a.m.born("r"))
}

// TestRule13NewNodeStallsNobody: a node's first proof comes with its registration.
func TestRule13NewNodeStallsNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000", func(p *Pool) { p.Cooldown = 1 })
	g := a.get(a.m.born("r"))
	a.release(g, "r")
	a.janitorRound()
	w.node("n2") // and does nothing yet
	a.reaperRound()
	w.mustBe(g.ref(), Free)
}

// TestRule13UnfenceBesideRemove: a node that was removed meanwhile does not come back.
func TestRule13UnfenceBesideRemove(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b, c := w.node("n1"), w.node("n2"), w.node("n3")
	c.down()
	a.sync()
	a.fence("n3")
	a.meanwhile(func() {
		if err := b.Remove(w.ctx(), "n3"); err != nil {
			t.Error(err)
		}
	})
	mustErr(t, a.Unfence(w.ctx(), "n3", "op"), problem.ErrNotFound)
	if left := w.stored(w.keys.Node("n3")); len(left) != 0 {
		t.Errorf("registered again: %v", left)
	}
}

// TestRule33DeadlinesOnTheBootClock: a hold lasts by the clock that nobody sets.
func TestRule33DeadlinesOnTheBootClock(t *testing.T) {
	t.Parallel()
	a := &Allocator{}
	over := Requester{Hold: HoldTTL, Deadline: int64(BootTime()) - 1, Until: time.Now().Add(time.Hour)}
	lasts := Requester{Hold: HoldTTL, Deadline: int64(BootTime() + time.Hour), Until: time.Now().Add(-time.Hour)}
	if a.LiveRequester(over) || !a.LiveRequester(lasts) {
		t.Error("a hold is read on the wall clock")
	}
}

// TestRule37LeaveRaisesFirst: a grant whose outcome is unknown, and which no raise has
// stopped yet, keeps its node from leaving.
func TestRule37LeaveRaisesFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t, short)
	a := w.node("n1")
	a.pool("p", "1000")
	a.net.set(func() { a.net.keep = 1 })
	a.session.audit.away.Store(true) // the raise after it does not get through
	ctx, cancel := contextWithCancel(w)
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		_, _ = a.Grant(ctx, GrantRequest{Caller: "t", Requester: a.m.born("r"), Wants: []Want{{Pool: "p", Count: 1}}})
	}()
	until(t, "the attempt that is kept back", func() bool {
		a.net.mu.Lock()
		defer a.net.mu.Unlock()
		return len(a.net.ghosts) == 1
	})
	applied := 0
	a.points.Store("leave:before", func() { applied = a.net.deliver(w) })
	brief, stop := context.WithTimeout(w.ctx(), 300*time.Millisecond)
	defer stop()
	err := a.Leave(brief)
	cancel()
	<-asked
	if err == nil || applied != 0 {
		t.Errorf("left (%v), and %d late grants came through", err, applied)
	}
}

// TestRule39DropsWhatItSaw: a node that came back and joined again is not taken out
// for having left before.
func TestRule39DropsWhatItSaw(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n0, n1 := w.node("n0"), w.node("n1")
	n0.pool("p", "1000")
	g := n0.get(n0.m.born("r0"))
	join := func(r string) {
		n1.sync()
		if _, err := n1.Join(w.ctx(), g.refs(), g.Token, n1.m.born(r)); err != nil {
			t.Fatal(err)
		}
	}
	join("r1")
	n0.m.start(1000)
	n0.confirm(g, false, true)
	n1.m.die("r1")
	n1.janitorRound()
	if err := n1.Leave(w.ctx()); err != nil {
		t.Fatal(err)
	}
	n1.crash()
	n0.sync()
	n0.elect(w.ctx())
	n0.sync()
	d := n0.duties()
	if d.drop[g.ref()] != "n1" {
		t.Fatalf("duties %+v", d)
	}
	n1 = n1.again()
	join("r2")
	if err := n0.dropNode(w.ctx(), g.ref(), "n1", d.members); err != nil {
		t.Fatal(err)
	}
	if c := w.claim(g.ref()); c.On("n1") == nil || c.On("n1").Requester("r2") == nil {
		t.Errorf("taken out although it joined: %+v", c)
	}
}

// TestRule13RemoveWaitsForTheClaims: a fenced node that claims still name stays.
func TestRule13RemoveWaitsForTheClaims(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.pool("p", "1000")
	b.sync()
	b.get(b.m.born("r"))
	b.down()
	a.sync()
	a.fence("n2")
	mustErr(t, a.Remove(w.ctx(), "n2"), problem.ErrHeld, "names it")
}

// TestRule31RevisionAlone: an etcd whose revision went back is noticed, though its
// raft index did not.
func TestRule31RevisionAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	if err := a.session.home.change(func(m *memory) { m.Revision += 1 << 40 }); err != nil {
		t.Fatal(err)
	}
	mustErr(t, a.audited(), problem.ErrFrozen, "gone back in time")
}

// audited is what an audit finds that etcd answered in time.
func (a *agent) audited() (err error) {
	until(a.w.t, "etcd is asked", func() bool {
		err = a.session.audit.check(a.w.ctx())
		return !errors.Is(err, problem.ErrUnavailable)
	})
	return err
}

// TestRule22PoolDeletedBehindAGrant: an id that is granted after the look keeps its
// pool.
func TestRule22PoolDeletedBehindAGrant(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.pool("p", "1000")
	b.sync()
	a.meanwhile(func() { b.get(b.m.born("r")) })
	mustErr(t, a.DeletePool(w.ctx(), "p"), problem.ErrHeld)
}

// TestRule22PoolsChangedSideBySide: of two pools that clash and are made at once, one
// is refused.
func TestRule22PoolsChangedSideBySide(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.meanwhile(func() { b.pool("p", "1000-1007", func(p *Pool) { p.Block = 4 }) })
	_, _, err := a.SetPool(w.ctx(), "q", false, func(p *Pool, _ bool) error {
		p.Ranges = idset.Of(idset.Range{Lower: 1000, Higher: 1007})
		return nil
	})
	mustErr(t, err, problem.ErrInvalid, "overlap must agree")
}
