package leases

import (
	"strings"
	"testing"
	"time"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/problem"
)

func contains(text, part string) bool { return strings.Contains(text, part) }

// short is a lease that ends soon.
func short(c *cluster.Config) {
	c.LeaseTTL, c.Attempt, c.Budget = 2*time.Second, 600*time.Millisecond, 10*time.Second
}

func TestLockLostAndPutBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000")
	g := a.get(a.m.born("r"))
	lock := w.keys.Lock(g.ref().Space, g.ref().ID)
	if _, err := w.client.Txn().Delete(w.ctx(), lock); err != nil {
		t.Fatal(err)
	}
	rounds(a)
	w.mustBe(g.ref(), Locked)
	if got := w.stored(lock)[lock]; got != g.Token {
		t.Errorf("lock %q", got)
	}
	// Lost means that the claim no longer carries the token: then never again.
	if _, _, err := a.Release(w.ctx(), Release{Refs: g.refs(), Token: g.Token, Whole: true, By: "op"}); err != nil {
		t.Fatal(err)
	}
	rounds(a)
	if len(w.stored(lock)) != 0 {
		t.Error("a lost grant was locked again")
	}
}

func TestLeaseLostClaimsKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t, short)
	a := w.running("n1")
	a.pool("p", "1000-1001")
	g := a.get(a.m.born("r"))
	old := a.guardNow()
	a.expire()
	lock := w.keys.Lock(g.ref().Space, g.ref().ID)
	until(t, "a new session and the lock", func() bool {
		now := a.guardNow()
		return now != nil && now.lease != old.lease && len(w.stored(lock)) == 1
	})
	w.mustBe(g.ref(), Locked)
	a.get(a.m.born("r2"))
	if a.session.Err() != nil {
		t.Error(a.session.Err())
	}
}

func TestTwoAgentsOneName(t *testing.T) {
	t.Parallel()
	w := newWorld(t, short)
	a := w.node("n1")
	a.pool("p", "1000")
	// Another machine: waited for one TTL, then refused.
	w.refusedStart("n1", t.TempDir(), newMachine("other"), problem.ErrFenced, "run by another agent")
	a.get(a.m.born("r"))
}

func TestOwnGhostIsTakenOverAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000")
	g := a.get(a.m.born("r"))
	old := a.guardNow().lease
	a.crash() // its presence stands for a TTL
	a = a.again()
	if got := a.guardNow().lease; got == old {
		t.Error("the same lease")
	}
	rounds(a)
	a.settleInheritance(w.ctx())
	ttl, err := w.client.Renew().TimeToLive(w.ctx(), old)
	if err != nil || ttl.TTL > 0 {
		t.Errorf("the ghost's lease lives: %+v, %v", ttl, err)
	}
	w.mustBe(g.ref(), Locked)
}

func TestCrashBetweenMemoryAndPresence(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000")
	a.crash()
	for range 3 { // each writes its memory, and dies before etcd hears of it
		h, err := OpenHome(a.home, nil)
		if err != nil {
			t.Fatal(err)
		}
		s := newSession(a.client, a.id, h, nil, a.log, a.firstProof)
		p, err := s.readPlace(w.ctx())
		if err != nil {
			t.Fatal(err)
		}
		if err := h.change(func(m *memory) { m.entering(Alive{Nonce: NewToken(), Counter: 1}, p.alive) }); err != nil {
			t.Fatal(err)
		}
	}
	a = a.again()
	a.get(a.m.born("r"))
}

func TestTimeTravelFreezes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000")
	a.crash()
	h, err := OpenHome(a.home, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.change(func(m *memory) { m.Index += 1 << 40 }); err != nil {
		t.Fatal(err)
	}
	w.refusedStart("n1", a.home, a.m, problem.ErrFrozen, "gone back in time")
	if m, _, err := w.client.ReadMeta(w.ctx()); err != nil || m.State != cluster.StateRecovering || m.By != "n1" || m.Adopted || m.Since.IsZero() {
		t.Errorf("the others are not told: %+v, %v", m, err)
	}
	// One that runs finds out when its session has to begin anew.
	b := newWorld(t).node("n2")
	b.pool("q", "2000")
	if err := b.session.home.change(func(m *memory) { m.Index += 1 << 40 }); err != nil {
		t.Fatal(err)
	}
	b.expire()
	b.session.lost(b.guardNow(), problem.ErrUnavailable)
	_, err = b.ask(b.m.born("r"), wants(Want{Pool: "q", Count: 1}))
	mustErr(t, err, problem.ErrFrozen)
}

func TestAnotherClusterFreezes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.crash()
	h, err := OpenHome(a.home, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.change(func(m *memory) { m.Cluster++ }); err != nil {
		t.Fatal(err)
	}
	w.refusedStart("n1", a.home, a.m, problem.ErrFrozen, "another cluster")
}

func TestRecoveringClusterGrantsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000")
	m, raw, err := w.client.ReadMeta(w.ctx())
	if err != nil {
		t.Fatal(err)
	}
	m.State = cluster.StateRecovering
	put := func(v []byte) {
		if _, err := w.client.Txn().Put(w.ctx(), w.keys.Meta(), string(v)); err != nil {
			t.Fatal(err)
		}
	}
	put(cluster.Encode(m))
	_, err = a.ask(a.m.born("r"))
	mustErr(t, err, problem.ErrFrozen, "recovering")
	until(t, "the node knows", func() bool { return !a.guardNow().normal })
	_, err = a.ask(a.m.born("r"))
	mustErr(t, err, problem.ErrFrozen, "recovering")
	put(raw)
	until(t, "it is normal again", func() bool { return a.session.refusal() == nil })
	a.get(a.m.born("r"))
}

// TestRaiseAndRefusalAtOnce lets a batch be refused by the counter that another
// batch of the same agent has just raised.
func TestRaiseAndRefusalAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000-1999")
	done := make(chan error, 64)
	for i := range 64 {
		go func() {
			if i%4 == 0 {
				a.net.set(func() { a.net.lose++ })
			}
			_, err := a.ask(a.m.born("r"))
			done <- err
		}()
	}
	for range 64 {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	a.sync()
	if n := a.Taken(cluster.SpaceUID).Count(); n != 64 {
		t.Errorf("%d ids for 64 grants", n)
	}
}

// TestRefusedDuringARaise lets a refusal show the bytes that a raise has written
// and the guard does not have yet.
func TestRefusedDuringARaise(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	old := a.guardNow()
	next := *old
	alive := a.session.alive
	alive.Counter++
	next.alive = cluster.Encode(alive)
	a.session.raising.Lock() // a raise is under way
	result := make(chan error, 1)
	go func() { result <- a.session.refused(old, old.meta, next.alive, old.node) }()
	select {
	case err := <-result:
		result <- err
	case <-closedSoon():
	}
	a.session.set(&next)
	a.session.raising.Unlock()
	if err := <-result; err != nil {
		t.Fatalf("fenced by its own raise: %v", err)
	}
}

// TestRaiseOfALostSession lets a session be replaced while its raise has no answer.
func TestRaiseOfALostSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	old := a.guardNow()
	next := *old
	alive := a.session.alive
	alive.Counter++
	next.alive = cluster.Encode(alive)
	a.session.lost(old, problem.ErrUnavailable)
	until(t, "a new session", func() bool { return a.guardNow() != nil })
	if err := a.session.swapAlive(w.ctx(), old, &next, alive); err != nil {
		t.Fatalf("the old session's raise: %v", err)
	}
	if err := a.session.Err(); err != nil {
		t.Fatalf("fenced by itself: %v", err)
	}
}
