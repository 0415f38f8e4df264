package leases

import (
	"context"
	"errors"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/cluster"
)

// TestACallerThatLeavesLosesNoID: a caller that leaves during an attempt that is certainly not done: flying leaks
func TestACallerThatLeavesLosesNoID(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n1 := w.node("n1")
	n1.pool("p", "100-100")
	ctx, cancel := context.WithCancel(w.ctx())
	left := make(chan struct{})
	first := true
	n1.net.set(func() {
		n1.net.fail = 1
		n1.net.before = func() {
			if first {
				first = false
				cancel()
				<-left
			}
		}
	})
	_, err := n1.Grant(ctx, GrantRequest{Caller: "t", Requester: n1.m.born("r1"), Wants: []Want{{Pool: "p", Count: 1}}})
	t.Log("first:", err)
	close(left)
	short, stop := context.WithTimeout(context.Background(), 4*time.Second)
	defer stop()
	_, err = n1.Grant(short, GrantRequest{Caller: "t", Requester: n1.m.born("r2"), Wants: []Want{{Pool: "p", Count: 1}}})
	n1.mu.Lock()
	t.Log("flying", n1.flying)
	n1.mu.Unlock()
	if err != nil {
		t.Errorf("LEAK: the only id, free in etcd (%s), is never granted again by this process: %v", w.state(uid(100)), err)
	}
}

// TestUnknownGrantIsSettledAfterTheOutage: P6: unknown grant, then the raise cannot be made: no orphan
func TestUnknownGrantIsSettledAfterTheOutage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *cluster.Config) { c.Attempt = 300 * time.Millisecond; c.Budget = time.Second })
	n1 := w.node("n1")
	n1.pool("p", "100-100")
	n1.net.set(func() {
		n1.net.lose = 1
		n1.net.before = func() { n1.session.audit.away.Store(true) }
	})
	_, err := n1.ask(n1.m.born("r1"))
	t.Log("told:", err)
	n1.net.set(func() { n1.net.before = nil })
	n1.session.audit.away.Store(false)
	until(t, "what nobody was told of is given back", func() bool {
		n1.janitorRound()
		n1.reaperRound()
		return w.state(uid(100)) != Locked
	})
}

// TestAKeyIsNotAnsweredWithoutALook: a key whose first look failed is answered without a look
func TestAKeyIsNotAnsweredWithoutALook(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n1 := w.node("n1")
	n1.pool("p", "100-100")
	n1.m.start(100) // nobody was granted it
	n1.m.set(func() { n1.m.err = errors.New("proc cannot be read") })
	_, err := n1.ask(n1.m.born("r1"), withKey("k"))
	t.Log("first:", err)
	n1.m.set(func() { n1.m.err = nil })
	g, err := n1.ask(n1.m.born("r1"), withKey("k"))
	if err == nil {
		t.Errorf("BROKEN: %s handed out (same %v) though it runs here and no look ever succeeded", g.ref(), g.Same)
	} else {
		t.Log(err)
	}
}

// TestAPartOfAGroupIsNotTheSameGrant: group answered in part
func TestAPartOfAGroupIsNotTheSameGrant(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n1 := w.node("n1")
	n1.pool("p", "100-109")
	two := wants(Want{Pool: "p", Count: 2})
	g := n1.get(n1.m.born("r1"), withKey("k"), two)
	if _, _, err := n1.Release(w.ctx(), Release{Refs: g.refs()[:1], Token: g.Token, Requester: "r1", By: "t"}); err != nil {
		t.Fatal(err)
	}
	g2, err := n1.ask(n1.m.born("r2"), withKey("k"), two)
	if err == nil {
		t.Errorf("P3/P4: 2 asked for, answered as the same grant with %d", len(g2.Held))
	} else {
		t.Log(err)
	}
}

// TestRenewEndsIdle: renew on idle
func TestRenewEndsIdle(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n1 := w.node("n1")
	n1.pool("p", "100-100")
	r := Requester{ID: "r1", Hold: HoldTTL, Deadline: int64(BootTime() + 200*time.Millisecond)}
	g := n1.get(r)
	n1.m.start(100)
	n1.confirm(g, false, true)
	n1.m.end(100)
	until(t, "hold over", func() bool { return int64(BootTime()) > r.Deadline })
	n1.janitorRound()
	w.mustBe(g.ref(), Idle)
	r.Deadline = int64(BootTime() + time.Hour)
	_, err := n1.Renew(w.ctx(), g.ref(), g.Token, r)
	t.Log("renew:", err)
	n1.janitorRound()
	_, _ = n1.ask(n1.m.born("r2"))
	if s := w.state(g.ref()); err == nil && s != Idle && s != Used && s != Locked {
		t.Errorf("RULE 8: reclaimed though its hold was renewed: %s %s", s, w.claim(g.ref()).ReasonCode)
	}
}

// TestRenewTakesTheLatestHold: renew picks another's lapsed hold
func TestRenewTakesTheLatestHold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n1 := w.node("n1")
	n1.pool("p", "100-100")
	r1 := Requester{ID: "r1", Hold: HoldTTL, Deadline: int64(BootTime() + 200*time.Millisecond)}
	g := n1.get(r1, withKey("k"))
	r2 := Requester{ID: "r2", Hold: HoldTTL, Deadline: int64(BootTime() + time.Hour)}
	n1.get(r2, withKey("k"))
	until(t, "hold over", func() bool { return int64(BootTime()) > r1.Deadline })
	if _, err := n1.Renew(w.ctx(), g.ref(), g.Token, Requester{Deadline: int64(BootTime() + 2*time.Hour)}); err != nil {
		t.Errorf("renew refused for r1's hold though r2's lives: %v", err)
	}
}

// TestAnUnreadablePoolFreesNothing: unreadable pool: strictest?
func TestAnUnreadablePoolFreesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n1, n2 := w.node("n1"), w.node("n2")
	n1.pool("p", "100-100", func(p *Pool) { p.Proof = ProofCluster; p.Cooldown = time.Hour })
	g := n1.get(n1.m.born("r1"))
	n2.crash()
	n2w := w.client
	_ = n2w
	if _, err := w.client.Txn().Delete(w.ctx(), w.keys.Alive("n2")); err != nil {
		t.Fatal(err)
	}
	n1.sync()
	n1.release(g, "r1")
	if _, err := w.client.Txn().Put(w.ctx(), w.keys.UIDPool("p"), `{"v":99}`); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		n1.janitorRound()
		n1.reaperRound()
	}
	if s := w.state(g.ref()); s == Free {
		t.Errorf("P2: proof=cluster, cooldown=1h, n2 absent: freed when the pool's record cannot be read")
	}
}

// TestAFreedIDIsNotForeign: strangers: stale scan makes a foreign claim of a freed id
func TestAFreedIDIsNotForeign(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n1 := w.node("n1")
	n1.pool("p", "100-100")
	g := n1.get(n1.m.born("r1"))
	n1.m.start(100)
	n1.confirm(g, false, true)
	n1.prover = &after{n1.m, func() { n1.m.end(100); n1.m.die("r1"); n1.release(g, "r1"); n1.sync() }}
	n1.janitorRound()
	if c := w.claim(g.ref()); c != nil && c.ReasonCode == ReasonForeign {
		t.Errorf("P7: nothing runs, yet it is %s: %s", c.State, c.Reason)
	}
}

// TestForeignUseOutsideEveryBlock: strangers: block whose first id is outside of the pool
func TestForeignUseOutsideEveryBlock(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n1 := w.node("n1")
	n1.pool("p", "105-127", func(p *Pool) { p.Block = 16 })
	n1.pool("q", "96-104")
	n1.m.start(106)
	n1.janitorRound()
	if c := w.claim(uid(96)); c != nil {
		t.Errorf("uid 96 of pool q is %s (%s, pool %s) because 106 runs", c.State, c.ReasonCode, c.Pool)
	}
}

// TestAnUnheardRaiseDoesNotFence: a raise that was applied without our knowing makes the agent fence itself
func TestAnUnheardRaiseDoesNotFence(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n1 := w.node("n1")
	n1.pool("p", "100-100")
	g := n1.guardNow()
	al := n1.session.alive
	al.Counter++
	if err := n1.session.home.change(func(m *memory) { m.Counter = al.Counter }); err != nil {
		t.Fatal(err)
	}
	// what swapAlive leaves when its context ends after an attempt that was applied
	if _, err := w.client.Txn().Put(w.ctx(), w.keys.Alive("n1"), string(cluster.Encode(al)), clientv3.WithLease(g.lease)); err != nil {
		t.Fatal(err)
	}
	_, err := n1.ask(n1.m.born("r1"))
	if err != nil {
		t.Errorf("the agent fences itself: %v", err)
	}
}

// TestShortcutNoticesANodeThatComesBack: P2 to the letter: a node that comes back up between the weighing and the free
func TestShortcutNoticesANodeThatComesBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n1, n2 := w.node("n1"), w.node("n2")
	n1.pool("p", "100-100")
	g := n1.get(n1.m.born("r1"))
	n2.expire()
	n2.crash()
	n1.sync()
	n2.m.start(100)
	n1.prover = &after{n1.m, func() { n2 = n2.again() }}
	n1.release(g, "r1")
	if s := w.state(g.ref()); s == Free {
		t.Errorf("P2 (letter): freed by the shortcut though n2 was up and had not reported")
	}
}

// TestNothingIsConfirmedOfAnEarlierBoot: what the sweep is about to end is not
// confirmed or renewed first.
func TestNothingIsConfirmedOfAnEarlierBoot(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n1 := w.node("n1")
	n1.pool("p", "100-101")
	g := n1.get(n1.m.born("r1"))
	g2 := n1.get(Requester{ID: "r2", Hold: HoldTTL, Deadline: int64(BootTime() + time.Hour)})
	n1 = n1.reboot()
	n1.sync()
	_, err := n1.Confirm(w.ctx(), g.ref(), g.Token, "", true, false)
	_, err2 := n1.Renew(w.ctx(), g2.ref(), g2.Token, Requester{Deadline: int64(BootTime() + 2*time.Hour)})
	t.Log(err, err2)
	n1.janitorRound()
	if s := w.state(g.ref()); err == nil && s != Used {
		t.Errorf("confirm --keep succeeded in the new boot, then: %s (%s)", s, w.claim(g.ref()).why())
	}
	if s := w.state(g2.ref()); err2 == nil && s != Locked {
		t.Errorf("renew succeeded in the new boot, then: %s", s)
	}
}

// TestEachNodeConfirmsForItself: another node's confirmation is not ours (rule 7).
func TestEachNodeConfirmsForItself(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n1, n2 := w.node("n1"), w.node("n2")
	n1.pool("p", "100-101")
	g := n1.get(n1.m.born("r1"))
	n2.sync()
	if _, err := n2.Join(w.ctx(), g.refs(), g.Token, n2.m.born("r2")); err != nil {
		t.Fatal(err)
	}
	n2.confirm(g, false, true)
	n1.sync()
	if _, err := n1.Confirm(w.ctx(), g.ref(), g.Token, "", false, false); err == nil {
		t.Errorf("RULE 7: confirmed on n1 where nothing runs, since n2 confirmed")
	}
}

// TestARequestersReleaseWhereItIsNoLongerNamed ends nothing of others (rule 35).
func TestARequestersReleaseWhereItIsNoLongerNamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n1, n2 := w.node("n1"), w.node("n2")
	n1.pool("p", "100-101")
	g := n1.get(n1.m.born("r1"))
	n2.sync()
	if _, err := n2.Join(w.ctx(), g.refs(), g.Token, n2.m.born("r2")); err != nil {
		t.Fatal(err)
	}
	n2.m.start(g.ref().ID)
	n2.confirm(g, false, true)
	n1 = n1.reboot()
	n1.janitorRound()
	t.Log(w.claim(g.ref()).NodeNames())
	n1.release(g, "r1")
	if s := w.state(g.ref()); s == Quarantined {
		t.Errorf("RULE 35: r1's repeated release at n1 (dropped) ended n2's grant: %s", s)
	}
}
