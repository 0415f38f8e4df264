package leases

import (
	"fmt"
	"testing"
	"time"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/problem"
)

func TestJoinOnASecondNode(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.pool("p", "1000")
	g := a.get(a.m.born("r1"))
	b.sync()
	_, err := b.Join(w.ctx(), g.refs(), "wrong", b.m.born("r2"))
	mustErr(t, err, problem.ErrNotHeld)
	if _, err := b.Join(w.ctx(), g.refs(), g.Token, b.m.born("r2")); err != nil {
		t.Fatal(err)
	}
	b.m.start(1000)
	b.confirm(g, false, true)
	a.release(g, "r1")
	a.m.die("r1")
	rounds(a, b)
	w.mustBe(g.ref(), Used)
	b.release(g, "r2") // the last one, while its process still runs
	b.m.die("r2")
	rounds(a, b)
	w.mustBe(g.ref(), Quarantined)
	if info := a.Get(w.ctx(), g.ref()); len(info.WaitsFor) != 1 || info.WaitsFor[0].Node != "n2" {
		t.Errorf("waits for %+v", info.WaitsFor)
	}
	b.m.end(1000)
	rounds(a, b)
	w.mustBe(g.ref(), Free)
	_, err = b.Join(w.ctx(), g.refs(), g.Token, b.m.born("r3"))
	mustErr(t, err, problem.ErrKeyEnded)
}

func TestReleaseIsExact(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000")
	old := a.get(a.m.born("r"))
	a.release(old, "r")
	g := a.get(a.m.born("r2"))
	before := w.claim(g.ref()).Write
	if a.release(old, "r") || a.release(old, "") {
		t.Error("a late release changed something")
	}
	if _, err := a.Confirm(w.ctx(), g.ref(), old.Token, "", false, true); problem.CodeOf(err) != problem.CodeNotHeld {
		t.Errorf("a late confirm: %v", err)
	}
	if got := w.claim(g.ref()); got == nil || got.Write != before {
		t.Errorf("%+v", got)
	}
	a.release(g, "r2")
	_, err := a.Confirm(w.ctx(), g.ref(), g.Token, "", false, true)
	mustErr(t, err, problem.ErrLockLost, "free again")
}

func TestReleaseWaitsForTheAbsentHolder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.pool("p", "1000")
	g := a.get(a.m.born("r"))
	a.down()
	// The caller releases through n2: no shortcut, n1's word is due.
	if _, changed, err := b.Release(w.ctx(), Release{Refs: g.refs(), Token: g.Token, By: "tenant"}); err != nil || !changed {
		t.Fatalf("%v, %v", changed, err)
	}
	rounds(b)
	w.mustBe(g.ref(), Quarantined)
	refs, err := b.Fence(w.ctx(), "n1", "", "op", false, true)
	if err != nil || len(refs) != 1 {
		t.Fatalf("dry run: %v, %v", refs, err)
	}
	w.mustBe(g.ref(), Quarantined)
	b.fence("n1")
	rounds(b)
	w.mustBe(g.ref(), Free)
}

func TestFenceUnfenceRemove(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.pool("p", "1000-1001")
	g := a.get(a.m.born("r"))
	b.sync()
	_, err := b.Fence(w.ctx(), "n1", "", "op", false, false)
	mustErr(t, err, problem.ErrInvalid, "reason")
	_, err = b.Fence(w.ctx(), "n1", "x", "op", false, false)
	mustErr(t, err, problem.ErrHeld, "agent is present")
	_, err = b.Fence(w.ctx(), "n9", "x", "op", false, false)
	mustErr(t, err, problem.ErrNotFound)
	if _, err := b.Fence(w.ctx(), "n1", "x", "op", true, false); err != nil {
		t.Fatal(err)
	}
	_, err = a.ask(a.m.born("x"))
	mustErr(t, err, problem.ErrFenced)
	mustErr(t, b.Unfence(w.ctx(), "n1", "op"), problem.ErrUnavailable, "still being taken out")
	rounds(b)
	w.mustBe(g.ref(), Free)
	if err := b.Unfence(w.ctx(), "n1", "op"); err != nil {
		t.Fatal(err)
	}
	mustErr(t, b.Unfence(w.ctx(), "n2", "op"), problem.ErrPrecondition)
	mustErr(t, b.Remove(w.ctx(), "n2"), problem.ErrPrecondition)
	if err := b.Remove(w.ctx(), "n1"); err != nil {
		t.Fatal(err)
	}
	if left := w.stored(w.keys.Proof("n1")); len(left) != 0 {
		t.Error("the proof is left")
	}
	b.sync()
	if nodes := b.Nodes(); len(nodes) != 1 || nodes[0].Name != "n2" || nodes[0].State != "active" {
		t.Errorf("%+v", nodes)
	}
}

func TestLeave(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.pool("p", "1000-1001")
	g := a.get(a.m.born("r"))
	mustErr(t, a.Leave(w.ctx()), problem.ErrHeld, "requester here")
	a.m.start(g.ref().ID)
	a.confirm(g, false, true)
	mustErr(t, a.Leave(w.ctx()), problem.ErrHeld, "process runs")
	a.m.end(g.ref().ID)
	a.confirm(g, true, false)
	a.m.die("r")
	mustErr(t, a.Leave(w.ctx()), problem.ErrHeld, "kept")
	g2 := a.get(a.m.born("r2")) // a refused leave goes on granting
	a.release(g2, "r2")
	a.release(g, "") // the keep too: nobody in particular kept it
	if err := a.Leave(w.ctx()); err != nil {
		t.Fatal(err)
	}
	_, err := a.ask(a.m.born("x"))
	if err == nil {
		t.Error("granted after it left")
	}
	b.sync()
	if n, err := b.NodeNamed("n1"); err != nil || n.State != nodeLeft || n.Alive != nil {
		t.Errorf("%+v, %v", n, err)
	}
	a.crash()
	a = a.again()
	rounds(a, b)
	a.get(a.m.born("y"))
}

func TestHoldAndRenew(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000")
	ttl := func(d time.Duration) Requester {
		return Requester{ID: "r", Hold: HoldTTL, Deadline: int64(BootTime() + d)}
	}
	g := a.get(ttl(time.Hour))
	if h, err := a.Renew(w.ctx(), g.ref(), g.Token, ttl(-time.Second)); err != nil || h.Claim.State != Locked {
		t.Fatalf("%+v, %v", h, err)
	}
	_, err := a.Confirm(w.ctx(), g.ref(), g.Token, "", true, false)
	mustErr(t, err, problem.ErrLockLost, "hold ran out")
	_, err = a.Renew(w.ctx(), g.ref(), g.Token, ttl(time.Hour))
	mustErr(t, err, problem.ErrLockLost)
	rounds(a)
	w.mustBe(g.ref(), Free)
	g = a.get(a.m.born("p"))
	_, err = a.Renew(w.ctx(), g.ref(), g.Token, ttl(time.Hour))
	mustErr(t, err, problem.ErrInvalid, "no TTL hold")
}

func TestRebootFreesWhatRan(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.pool("p", "1000-1001")
	used, locked := a.get(a.m.born("r")), a.get(a.m.born("r2"))
	a.m.start(used.ref().ID)
	a.confirm(used, true, true)
	a = a.reboot()
	rounds(a, b)
	w.mustBe(used.ref(), Free)
	w.mustBe(locked.ref(), Free)
	if n := len(w.stored(w.keys.LocksIn(cluster.SpaceUID))); n != 0 {
		t.Errorf("%d locks are left", n)
	}
}

func TestLeavingMarksWhatIsIdle(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.pool("p", "1000-1001")
	used, locked := a.get(a.m.born("r")), a.get(a.m.born("r2"))
	a.m.start(used.ref().ID)
	a.confirm(used, false, true)
	a.m.end(used.ref().ID)
	a.m.die("r")
	a.m.die("r2")
	a.sync()
	if err := a.Leave(w.ctx()); err != nil {
		t.Fatal(err)
	}
	w.mustBe(used.ref(), Idle) // another node may reclaim it
	rounds(b)
	w.mustBe(locked.ref(), Free)
	if _, err := b.reclaimFor(w.ctx(), []Want{{Pool: "p", Count: 1}}); err != nil {
		t.Fatal(err)
	}
	rounds(b)
	w.mustBe(used.ref(), Free)
}

func TestReportsAreDueOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.pool("p", "1000")
	g := a.get(a.m.born("r"))
	b.sync()
	if c := b.chores(); c.report {
		t.Error("a report is due though nothing is in quarantine")
	}
	a.m.start(1000)
	a.release(g, "") // the keep too: nobody in particular kept it
	a.m.die("r")
	a.sync()
	if c := a.chores(); !c.report || c.again {
		t.Errorf("released: %+v", c)
	}
	a.janitorRound()
	a.sync()
	if c := a.chores(); !c.report || !c.again {
		t.Errorf("in use: %+v", c)
	}
	b.janitorRound()
	b.sync()
	if c := b.chores(); c.report {
		t.Errorf("n2 has said all it can: %+v", c)
	}
}

func TestUnreadableRecordRefusesItsKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000")
	if _, err := w.client.Txn().Put(w.ctx(), w.keys.Grant("tenant", "key:K"), `{"v":99}`); err != nil {
		t.Fatal(err)
	}
	a.sync()
	_, err := a.ask(a.m.born("r"), withKey("K"))
	mustErr(t, err, problem.ErrInvalid, "K", "format 99")
}

// TestALaggingMirrorEndsNothing asks a node for what another has just granted: it
// must not take what it has not seen yet for over.
func TestALaggingMirrorEndsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.pool("p", "1000-1099")
	b.sync()
	for i := range 20 {
		key := fmt.Sprint("k", i)
		a.get(a.m.born("r"), withKey(key))
		if refs, _, err := b.Find(w.ctx(), "tenant", key); err != nil || len(refs) != 1 {
			t.Fatalf("round %d: find: %v, %v", i, refs, err)
		}
		g := a.get(a.m.born("r"))
		if _, err := b.Join(w.ctx(), g.refs(), g.Token, b.m.born("r2")); err != nil {
			t.Fatalf("round %d: join: %v", i, err)
		}
		g = a.get(a.m.born("r"))
		if _, changed, err := b.Release(w.ctx(), Release{Refs: g.refs(), Token: g.Token, By: "x"}); err != nil || !changed {
			t.Fatalf("round %d: release: %v, %v", i, changed, err)
		}
	}
}
