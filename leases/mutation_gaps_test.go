package leases

import (
	"errors"
	"fmt"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/problem"
)

// The tests of this file hold guards of the protocol that no trace reaches; each is
// named after its rule.

// meanwhile runs f once, right before the agent's next transaction is sent.
func (a *agent) meanwhile(f func()) {
	a.net.set(func() {
		a.net.before = func() {
			a.net.set(func() { a.net.before = nil })
			f()
		}
	})
}

// put writes a record by hand.
func (w *world) put(key string, v any, o ...clientv3.OpOption) {
	w.t.Helper()
	if _, err := w.client.Txn().Put(w.ctx(), key, string(mustJSON(v)), o...); err != nil {
		w.t.Fatal(err)
	}
}

// TestPromise1GrantedAtOnce: of two that are granted one id at once, one is refused.
func TestPromise1GrantedAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.pool("p", "1000")
	b.sync()
	a.meanwhile(func() { b.get(b.m.born("r")) })
	_, err := a.ask(a.m.born("r"), exact(1000))
	mustErr(t, err, problem.ErrHeld)
}

// TestPromise4EndedElsewhere: a repeated request for VLANs is not answered with what
// another node has ended a moment ago.
func TestPromise4EndedElsewhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.pair("100-150", "200")
	b.sync()
	for i := range 20 {
		req := GrantRequest{Caller: "t", Key: fmt.Sprint("k", i), Wants: []Want{{Pool: VLANPool("fa"), Count: 1}}}
		g, err := a.Grant(w.ctx(), req)
		if err != nil {
			t.Fatal(err)
		}
		b.sync()
		if _, _, err := a.Release(w.ctx(), Release{Refs: g.refs(), Token: g.Token, Whole: true, By: "op"}); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Grant(w.ctx(), req); !errors.Is(err, problem.ErrKeyEnded) {
			t.Fatalf("round %d: %v", i, err)
		}
	}
}

// TestPromise4KeyUsedAtOnce: of two nodes that use one key at once, one answers with
// the other's grant.
func TestPromise4KeyUsedAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.pool("p", "1000-1099")
	b.sync()
	var first *Grant
	a.meanwhile(func() { first = b.get(b.m.born("r"), withKey("K")) })
	if g := a.get(a.m.born("r"), withKey("K")); !g.Same || g.Token != first.Token || g.ref() != first.ref() {
		t.Errorf("%+v and %+v", first, g)
	}
}

// TestPromise1UnreadableClaimTakesItsID: an id whose claim cannot be read is not free.
func TestPromise1UnreadableClaimTakesItsID(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000")
	w.put(w.keys.Claim(uid(1000).Space, 1000), "of a later version")
	a.sync()
	if taken := a.Taken(cluster.SpaceUID); !taken.Contains(1000) {
		t.Error("an id is free whose claim cannot be read")
	}
}

// TestPromise8BrokenWatchGivesNoHints: with etcd's watch broken nothing is picked.
func TestPromise8BrokenWatchGivesNoHints(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000")
	a.sync()
	a.mirror.Stale(errors.New("cut"))
	_, err := a.pick([]Want{{Pool: "p", Count: 1}})
	mustErr(t, err, problem.ErrUnavailable, "watch broke")
}

// TestRule05OperatorsReleaseIsNoShortcut: an operator's word goes through quarantine,
// even where nobody is bound any more.
func TestRule05OperatorsReleaseIsNoShortcut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000")
	c := onNodes(Used, "n1")
	c.Pool, c.Nodes[0].Boot, c.Nodes[0].Requesters = "p", a.id.Boot, nil
	w.put(w.keys.Claim(uid(1000).Space, 1000), c)
	a.sync()
	if _, _, err := a.Release(w.ctx(), Release{Refs: []Ref{uid(1000)}, Token: c.Token, Whole: true, By: "op"}); err != nil {
		t.Fatal(err)
	}
	w.mustBe(uid(1000), Quarantined)
}

// TestRule06NotRelockedAfterTheHandOver: a lock that went before a confirm is not put
// back after it.
func TestRule06NotRelockedAfterTheHandOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000")
	g := a.get(a.m.born("r"))
	a.confirm(g, true, false)
	if err := a.relock(w.ctx(), g.ref()); err != nil {
		t.Fatal(err)
	}
	if locks := w.stored(w.keys.Lock(g.ref().Space, g.ref().ID)); len(locks) != 0 {
		t.Errorf("locked again: %v", locks)
	}
}

// TestRule02KeepAfterTheHold: a TTL is the caller's word to start nothing after it,
// so keep does not bring it back.
func TestRule02KeepAfterTheHold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000")
	g := a.get(a.m.born("r"))
	a.m.die("r")
	_, err := a.Confirm(w.ctx(), g.ref(), g.Token, "", true, false)
	mustErr(t, err, problem.ErrLockLost)
}

// TestRule14CooldownOnTheReapersClock: a cooldown is counted from when the reaper saw
// the claim, whatever another node's clock said.
func TestRule14CooldownOnTheReapersClock(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000", func(p *Pool) { p.Cooldown, p.Proof = time.Hour, ProofNone })
	c := onNodes(Quarantined, "n1")
	c.Pool, c.Since = "p", time.Now().Add(-24*time.Hour)
	w.put(w.keys.Claim(uid(1000).Space, 1000), c)
	rounds(a)
	w.mustBe(uid(1000), Quarantined)
}

// TestRule17GrantFromAChangedPool: an id that left its pool between look and write is
// not granted.
func TestRule17GrantFromAChangedPool(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.pool("p", "1000")
	b.sync()
	a.meanwhile(func() { b.pool("p", "2000") })
	if g := a.get(a.m.born("r")); g.ref() != uid(2000) {
		t.Errorf("granted %s, which had left the pool", g.ref())
	}
}

// TestRule19AbsenceIsCompared: what was granted between look and write is not
// reserved.
func TestRule19AbsenceIsCompared(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.pool("p", "1000")
	b.sync()
	a.meanwhile(func() { b.get(b.m.born("r")) })
	_, err := a.Reserve(w.ctx(), idset.New(1000), "op", "mine")
	mustErr(t, err, problem.ErrHeld)
	w.mustBe(uid(1000), Locked)
}

// TestRule19ClaimIsCompared: what ended between look and write is not confirmed.
func TestRule19ClaimIsCompared(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.pool("p", "1000")
	g := a.get(a.m.born("r"))
	b.sync()
	a.meanwhile(func() {
		if _, _, err := b.Release(w.ctx(), Release{Refs: g.refs(), Token: g.Token, Whole: true, By: "op"}); err != nil {
			t.Error(err)
		}
	})
	_, err := a.Confirm(w.ctx(), g.ref(), g.Token, "", true, false)
	mustErr(t, err, problem.ErrLockLost)
	w.mustBe(g.ref(), Quarantined)
}

// TestRule20RecordIsCompared: two ids of a group that end at once end its record.
func TestRule20RecordIsCompared(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.pool("p", "1000-1009", func(p *Pool) { p.Cooldown = time.Hour })
	g := a.get(a.m.born("r"), wants(Want{Pool: "p", Count: 2}), withKey("K"))
	b.sync()
	one := func(i int) Release {
		return Release{Refs: g.refs()[i : i+1], Token: g.Token, Whole: true, By: "op"}
	}
	a.meanwhile(func() {
		if _, _, err := b.Release(w.ctx(), one(1)); err != nil {
			t.Error(err)
		}
	})
	if _, _, err := a.Release(w.ctx(), one(0)); err != nil {
		t.Fatal(err)
	}
	_, _, err := a.Find(w.ctx(), "tenant", "K")
	mustErr(t, err, problem.ErrKeyEnded)
}

// TestRule34RequesterBoundPastTheIdleMark: while a requester is listed, its node's
// proof decides, not the shortcut.
func TestRule34RequesterBoundPastTheIdleMark(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000")
	c := onNodes(Idle, "n1")
	c.Pool, c.Nodes[0].Boot, c.Nodes[0].Idle = "p", a.id.Boot, true
	c.Nodes[0].Requesters = []Requester{a.m.born("r"), a.m.born("other")}
	w.put(w.keys.Claim(uid(1000).Space, 1000), c)
	a.sync()
	a.release(&Grant{Token: c.Token, Held: []Held{{Ref: uid(1000)}}}, "r")
	w.mustBe(uid(1000), Quarantined)
}

// TestRule05ShortcutLooksFirst: what still runs when its holder releases it is not
// free at once, though no other node owes a proof.
func TestRule05ShortcutLooksFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000")
	g := a.get(a.m.born("r"))
	a.m.start(1000)
	a.release(g, "r")
	w.mustBe(g.ref(), Quarantined)
}

// TestRule07ConfirmAfterAReboot: a hold of an earlier boot is over, whatever its
// deadline says on the clock that began anew.
func TestRule07ConfirmAfterAReboot(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000")
	g := a.get(Requester{ID: "r", Hold: HoldTTL, Deadline: int64(BootTime() + time.Hour)})
	a = a.reboot()
	_, err := a.Confirm(w.ctx(), g.ref(), g.Token, "", true, false)
	mustErr(t, err, problem.ErrLockLost, "rebooted")
}

// TestRule08IdleJudgesNoNewerBinding: who was bound after the look is not marked as
// idle by it.
func TestRule08IdleJudgesNoNewerBinding(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000")
	g := a.get(a.m.born("r1"), withKey("K"))
	a.m.start(1000)
	a.confirm(g, false, true)
	a.m.end(1000)
	a.m.die("r1")
	a.prover = &after{a.m, func() {
		a.get(a.m.born("r2"), withKey("K"))
		a.confirm(g, false, true)
	}}
	a.janitorRound()
	w.mustBe(g.ref(), Used)
}

// TestRule08GroupIsReclaimedWhole: an idle id of a group in use stays.
func TestRule08GroupIsReclaimedWhole(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000-1001")
	g := a.get(a.m.born("r"), wants(Want{Pool: "p", Count: 2}), withKey("K"))
	a.m.start(1000)
	a.confirm(g, false, true)
	a.m.die("r")
	a.janitorRound()
	w.mustBe(uid(1000), Used)
	w.mustBe(uid(1001), Idle)
	if err := a.reclaim(w.ctx(), uid(1001)); err != nil {
		t.Fatal(err)
	}
	w.mustBe(uid(1001), Idle)
}

// TestRule36NameOfAnotherProcess: a requester's name that comes with another process
// binds that process.
func TestRule36NameOfAnotherProcess(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000")
	r := a.m.born("job")
	a.get(r, withKey("K"))
	r.PID++
	g := a.get(r, withKey("K"))
	if got := w.claim(g.ref()).On("n1").Requester("job"); got == nil || got.PID != r.PID {
		t.Errorf("bound is %+v, told was %+v", got, r)
	}
}

// TestPromise7FreedElsewhere: what another node has just freed is not exhausted.
func TestPromise7FreedElsewhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.pair("100", "200", noCooldown)
	for i := range 20 {
		req := GrantRequest{Caller: "t", Key: fmt.Sprint("a", i), Wants: []Want{{Pool: VLANPool("fa"), Count: 1}}}
		g, err := a.Grant(w.ctx(), req)
		if err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		b.sync()
		if _, _, err := a.Release(w.ctx(), Release{Refs: g.refs(), Token: g.Token, Whole: true, By: "op"}); err != nil {
			t.Fatal(err)
		}
		req.Key = fmt.Sprint("b", i)
		if g, err = b.Grant(w.ctx(), req); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		if _, _, err := b.Release(w.ctx(), Release{Refs: g.refs(), Token: g.Token, Whole: true, By: "op"}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPromise7UndecidedIsNotTaken: while another request for the last id is undecided
// nobody is told that the pool is exhausted.
func TestPromise7UndecidedIsNotTaken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000")
	picks, err := a.pick([]Want{{Pool: "p", Count: 1}}) // under way
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan error, 1)
	go func() {
		_, err := a.ask(a.m.born("r"))
		told <- err
	}()
	select {
	case err := <-told:
		t.Fatalf("told before it was decided: %v", err)
	case <-closedSoon():
	}
	a.land(picks, 0) // it came to nothing
	if err := <-told; err != nil {
		t.Error(err)
	}
}
