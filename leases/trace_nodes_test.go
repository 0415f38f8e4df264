package leases

import (
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/problem"
)

func (a *agent) fence(name string) {
	a.w.t.Helper()
	if _, err := a.Fence(a.w.ctx(), name, "off", "op", false, false); err != nil {
		a.w.t.Fatal(err)
	}
}

// down crashes the agent and ends its lease: the node is absent.
func (a *agent) down() {
	a.w.t.Helper()
	lease := a.guardNow().lease
	a.crash()
	if _, err := a.w.client.Renew().Revoke(a.w.ctx(), lease); err != nil {
		a.w.t.Fatal(err)
	}
}

// refusedStart starts an agent that must be refused.
func (w *world) refusedStart(name, home string, m *machine, want error, parts ...string) {
	w.t.Helper()
	a := w.launch(name, home, m, false)
	select {
	case <-a.done:
	case <-a.Ready():
		w.t.Fatalf("agent %s was let in", name)
	case <-time.After(limit):
		w.t.Fatalf("agent %s was neither let in nor refused", name)
	}
	mustErr(w.t, a.err, want, parts...)
}

func TestTrace08NodeJoinsBetweenProofAndFree(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n0")
	a.pool("p", "1000", func(p *Pool) { p.Cooldown = 1 })
	g := a.get(a.m.born("r"))
	a.release(g, "r")
	a.m.die("r")
	a.janitorRound() // n0's proof
	a.sync()
	d := a.duties()
	if len(d.free) != 1 {
		t.Fatalf("duties %+v", d)
	}
	m := newMachine("n1")
	m.start(1000)
	n1 := w.spawn("n1", t.TempDir(), m, false) // registers with the process running
	if err := a.freeOne(w.ctx(), g.ref(), d.weighed[g.ref()], d.members); err != nil {
		t.Fatal(err)
	}
	w.mustBe(g.ref(), Quarantined)
	rounds(a, n1)
	w.mustBe(g.ref(), Quarantined)
	m.end(1000)
	rounds(a, n1)
	w.mustBe(g.ref(), Free)
}

func TestTrace09FencedThoughNotOff(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n0, n1 := w.node("n0"), w.node("n1")
	n0.pool("p", "1000")
	g := n0.get(n0.m.born("r"))
	n0.m.start(1000)
	n0.confirm(g, false, true)
	n0.down()
	n1.sync()
	n1.fence("n0")
	rounds(n1)
	w.mustBe(g.ref(), Free)
	w.refusedStart("n0", n0.home, n0.m, problem.ErrFenced, "is fenced")
	if err := n1.Unfence(w.ctx(), "n0", "op"); err != nil {
		t.Fatal(err)
	}
	w.refusedStart("n0", n0.home, n0.m, problem.ErrFenced, "fenced in this boot")
	n0.m.reboot()
	rounds(n0.again(), n1)
}

func TestTrace10RemovedAndRegisteredAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n0, n1 := w.node("n0"), w.node("n1")
	n0.pool("p", "1000")
	g := n0.get(n0.m.born("r"))
	n0.m.start(1000)
	n0.confirm(g, false, true)
	n0.down()
	n1.sync()
	mustErr(t, n1.Remove(w.ctx(), "n0"), problem.ErrPrecondition, "absent")
	rounds(n1)
	w.mustBe(g.ref(), Used)
	n0 = n0.again()
	rounds(n0, n1)
	w.mustBe(g.ref(), Used)
	n1.mustNotGet(g.ref())
}

func TestTrace11SameNameOtherMachine(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n0, n1 := w.node("n0"), w.node("n1")
	n0.pool("p", "1000")
	g := n0.get(n0.m.born("r"))
	n0.m.start(1000)
	n0.confirm(g, false, true)
	n0.down() // partitioned
	w.refusedStart("n0", t.TempDir(), newMachine("other"), problem.ErrFenced, "another machine")
	rounds(n1)
	w.mustBe(g.ref(), Used)
}

func TestTrace12PoolShrunkAndGrown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.pool("p", "1000-1001")
	g := a.get(a.m.born("r"), exact(1000))
	a.m.start(1000)
	a.release(g, "r")
	a.m.die("r")
	a.pool("p", "1001")
	rounds(a, b) // the proof lists it though it is in no pool
	w.mustBe(g.ref(), Quarantined)
	a.pool("p", "1000-1001")
	rounds(a, b)
	w.mustBe(g.ref(), Quarantined)
	b.mustNotGet(g.ref())
	a.m.end(1000)
	rounds(a, b)
	w.mustBe(g.ref(), Free)
}

func TestTrace16SameBytesIntoARestoredEtcd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000-1009")
	a.net.set(func() {
		a.net.keep, a.net.sent = 1, 0
		a.net.before = func() { // the node has seen an etcd further than this one is now
			_ = a.session.home.change(func(m *memory) { m.Index += 1 << 40 })
		}
	})
	_, err := a.ask(a.m.born("r"))
	mustErr(t, err, problem.ErrOutcomeUnknown, "gone back in time")
	if a.net.sent != 1 {
		t.Errorf("%d attempts: repeated before the audit", a.net.sent)
	}
	_, err = a.ask(a.m.born("r2"))
	mustErr(t, err, problem.ErrFrozen)
	if n := a.net.deliver(w); n > 1 {
		t.Errorf("%d ghosts", n)
	}
}

func TestTrace18TwoMachinesUnderOneName(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.node("n1")
	first.pool("p", "1000")
	g := first.get(first.m.born("r"))
	first.release(g, "r")
	w.client.Txn().Put(w.ctx(), w.keys.Claim(g.ref().Space, g.ref().ID), string(encodeClaim(onNodes(Quarantined, "n1"))))
	first.sync()
	// The machine is cloned and its clone takes over; then the first one wakes.
	clone := first.cloneOf(t)
	clone.m.start(1000)
	first.m.set(func() { first.m.err = nil })
	err := first.publish(w.ctx(), first.report(&observation{rev: 1 << 40, runs: func(Ref, uint32) bool { return false }}))
	mustErr(t, err, problem.ErrFenced)
	rounds(clone)
	w.mustBe(g.ref(), Quarantined)
}

// cloneOf starts a second agent from a copy of the first one's home, which was
// copied when the first one's session was as it is.
func (a *agent) cloneOf(t *testing.T) *agent {
	t.Helper()
	dir := t.TempDir()
	h, err := OpenHome(a.home, nil)
	if err != nil {
		t.Fatal(err)
	}
	h.path = dir + "/agent.json"
	if err := h.save(); err != nil {
		t.Fatal(err)
	}
	m := newMachine("copy")
	m.id, m.boot = a.m.id, a.m.boot
	return a.w.spawn(a.id.Node, dir, m, false)
}

func TestTrace20RolledBackOrCloned(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000-1009")
	clone := a.cloneOf(t)
	clone.get(clone.m.born("r"))
	_, err := a.ask(a.m.born("x")) // the original finds out at its next write
	mustErr(t, err, problem.ErrFenced)
	<-a.done
	w.refusedStart("n1", a.home, a.m, problem.ErrFenced, "cloned or rolled back")
}

func TestTrace25FirstHolderReleasesBeforeTheJoinedRankStarts(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"release", "reboot", "fence"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			n0, n1 := w.node("n0"), w.node("n1")
			n0.pool("p", "1000")
			g := n0.get(n0.m.born("r0"))
			n1.sync()
			if _, err := n1.Join(w.ctx(), g.refs(), g.Token, n1.m.born("r1")); err != nil {
				t.Fatal(err)
			}
			switch how {
			case "release":
				n0.release(g, "r0")
				n0.m.die("r0")
				rounds(n0, n1)
			case "reboot":
				n0 = n0.reboot()
				rounds(n0, n1)
			case "fence":
				n0.down()
				n1.sync()
				n1.fence("n0")
				rounds(n1)
			}
			w.mustBe(g.ref(), Locked)
			n1.mustNotGet(g.ref())
			n1.m.start(1000)
			n1.confirm(g, false, true)
			n1.m.end(1000)
			n1.release(g, "r1")
			n1.m.die("r1")
			rounds(n1)
			if how == "fence" {
				w.mustBe(g.ref(), Free)
			}
		})
	}
}

func TestTrace26JoinIsAWriteAtTheJoiningNode(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n0, n1 := w.node("n0"), w.node("n1")
	n0.pool("p", "1000")
	g := n0.get(n0.m.born("r0"))
	n1.sync()
	before := w.claim(g.ref()).Write
	for _, r := range []string{"r1", "r2"} { // new on the node, then named there already
		if _, err := n1.Join(w.ctx(), g.refs(), g.Token, n1.m.born(r)); err != nil {
			t.Fatal(err)
		}
		if now := w.claim(g.ref()); now.Write == before || now.On("n1").Requester(r) == nil {
			t.Fatalf("joined without a write: %+v", now)
		}
		before = w.claim(g.ref()).Write
	}
	n0.release(g, "r0")
	n1.release(g, "r1")
	n0.m.die("r0")
	n1.m.die("r1")
	rounds(n0, n1)
	w.mustBe(g.ref(), Locked) // r2 may still start
}

func TestTrace27HolderToldLate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n0, n1 := w.node("n0"), w.node("n1")
	n0.pool("p", "1000")
	g := n0.get(n0.m.born("r"))
	n1.sync()
	if _, _, err := n1.Release(w.ctx(), Release{Refs: g.refs(), Token: g.Token, Whole: true, By: "an operator"}); err != nil {
		t.Fatal(err)
	}
	rounds(n0, n1)
	w.mustBe(g.ref(), Quarantined)
	n1.mustNotGet(g.ref())
	n0.release(g, "r") // it was told, and says so
	rounds(n0, n1)
	w.mustBe(g.ref(), Free)
}

func TestTrace28LeaveRacesWithAGrant(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.pool("p", "1000")
	// A grant that has passed every check is sent after leave's last look.
	picks, err := a.pick([]Want{{Pool: "p", Count: 1}})
	if err != nil {
		t.Fatal(err)
	}
	c, _ := a.grantChild(GrantRequest{Caller: "t", Requester: a.m.born("r")}, picks, "token", a.guardNow().epoch)
	var granted childResult
	a.points.Store("leave:before", func() { granted = a.batch.submit(w.ctx(), c) })
	if err := a.Leave(w.ctx()); err != nil {
		t.Fatalf("leave: %v (granted %v)", err, granted)
	}
	if granted.applied {
		t.Fatal("left, and granted in the same moment")
	}
	mustErr(t, granted.err, problem.ErrUnavailable, "leaving")
	b.sync()
	if n, _ := b.NodeNamed("n1"); n.State != nodeLeft {
		t.Errorf("n1 is %s", n.State)
	}
	w.mustBe(uid(1000), Free)
}

func TestTrace28LeaveWithoutAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000")
	old := ""
	ctx, cancel := contextWithCancel(w)
	a.points.Store("leave:before", func() { old = string(a.guardNow().alive); cancel() })
	mustErr(t, a.Leave(ctx), problem.ErrOutcomeUnknown)
	a.get(a.m.born("r")) // under a session that a late leave does not name
	if string(a.guardNow().alive) == old {
		t.Error("a late leave could be applied")
	}
}

func TestTrace28LeaveAppliedLate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000")
	// leave is on its way when the agent is killed and started again.
	g := a.guardNow()
	node := Node{V: format, State: nodeLeft, Machine: a.m.id, Boot: a.m.boot, Write: "w"}
	cmps := g.compares(w.keys, "n1")
	a.crash()
	a = a.again()
	grant := a.get(a.m.born("r"))
	resp, err := w.client.Commit(w.ctx(), cmps, []clientv3.Op{clientv3.OpPut(w.keys.Node("n1"), string(mustJSON(node)))}, nil)
	if err != nil || resp.Succeeded {
		t.Fatalf("the late leave was applied: %v, %v", resp, err)
	}
	rounds(a)
	w.mustBe(grant.ref(), Locked)
}

func TestTrace29LeftNodesBindingIsTakenOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n0, n1 := w.node("n0"), w.node("n1")
	n0.pool("p", "1000")
	g := n0.get(n0.m.born("r0"))
	n1.sync()
	if _, err := n1.Join(w.ctx(), g.refs(), g.Token, n1.m.born("r1")); err != nil {
		t.Fatal(err)
	}
	n0.m.start(1000)
	n0.confirm(g, false, true)
	mustErr(t, n1.Leave(w.ctx()), problem.ErrHeld, "requester")
	n1.m.die("r1")
	n1.janitorRound()
	if err := n1.Leave(w.ctx()); err != nil {
		t.Fatal(err)
	}
	n1.crash()
	rounds(n0)
	if c := w.claim(g.ref()); c.State != Used || c.On("n1") != nil {
		t.Errorf("%+v", c)
	}
	n0.m.end(1000)
	n0.release(g, "r0")
	n0.m.die("r0")
	rounds(n0)
	w.mustBe(g.ref(), Free)
}
