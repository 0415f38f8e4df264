package leases

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/idpool/idpool/cluster"
)

func scanFails(n *agent, f func()) {
	n.m.set(func() { n.m.err = errors.New("proc cannot be read") })
	f()
	n.m.set(func() { n.m.err = nil })
}

// TestAnOrphanIsNotAnsweredWhileItIsGivenBack: janitor gives an orphan back while its key is answered, same requester.
func TestAnOrphanIsNotAnsweredWhileItIsGivenBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n1 := w.node("n1")
	n1.pool("p", "100-100")
	r := n1.m.born("r1")
	scanFails(n1, func() { _, err := n1.ask(r, withKey("k")); t.Log("first:", err) })
	var g *Grant
	var err error
	once := false
	n1.points.Store("giveback:before", func() {
		if once {
			return
		}
		once = true
		g, err = n1.ask(r, withKey("k"))
	})
	n1.settleOrphans(w.ctx())
	t.Log("second:", g != nil, err)
	if err != nil {
		return
	}
	t.Log("state after", w.state(uid(100)), "same", g.Same)
	rounds(n1)
	g2, err2 := n1.ask(n1.m.born("r2"))
	if err2 == nil && g2.ref() == g.ref() {
		t.Errorf("P1: %s granted to live r1 (key k) and to r2", g.ref())
	}
}

// TestAnOrphanIsNotAnsweredToAnotherEither: other requester: never looked at.
func TestAnOrphanIsNotAnsweredToAnotherEither(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n1 := w.node("n1")
	n1.pool("p", "100-100")
	n1.m.start(100)
	scanFails(n1, func() { _, err := n1.ask(n1.m.born("r1"), withKey("k")); t.Log("first:", err) })
	var g *Grant
	var err error
	once := false
	n1.points.Store("giveback:before", func() {
		if once {
			return
		}
		once = true
		g, err = n1.ask(n1.m.born("r2"), withKey("k"))
	})
	n1.settleOrphans(w.ctx())
	if err == nil {
		t.Errorf("handed out %s though it runs here; state %s", g.ref(), w.state(uid(100)))
	} else {
		t.Log(err)
	}
}

// TestAFailedGiveBackIsNotAnswered: giveBack of a foreign id fails; the key is repeated.
func TestAFailedGiveBackIsNotAnswered(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *cluster.Config) { c.Attempt = 300 * time.Millisecond; c.Budget = time.Second })
	n1 := w.node("n1")
	n1.pool("p", "100-100")
	n1.m.start(100)
	ctx, cancel := context.WithCancel(w.ctx())
	n1.points.Store("grant:scan:after", func() { cancel() })
	_, err := n1.Grant(ctx, GrantRequest{Caller: "tenant", Key: "k", Requester: n1.m.born("r1"), Wants: []Want{{Pool: "p", Count: 1}}})
	t.Log("first:", err)
	n1.points.Delete("grant:scan:after")
	g, err := n1.ask(n1.m.born("r1"), withKey("k"))
	if err == nil {
		t.Errorf("handed out %s same=%v though the look found it running", g.ref(), g.Same)
	} else {
		t.Log(err)
	}
}

// TestAFailedGiveBackIsRepeated: no key: nobody gives it back.
func TestAFailedGiveBackIsRepeated(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n1 := w.node("n1")
	n1.pool("p", "100-100")
	n1.m.start(100)
	ctx, cancel := context.WithCancel(w.ctx())
	n1.points.Store("grant:scan:after", func() { cancel() })
	_, err := n1.Grant(ctx, GrantRequest{Caller: "tenant", Requester: n1.m.born("r1"), Wants: []Want{{Pool: "p", Count: 1}}})
	t.Log("first:", err)
	n1.points.Delete("grant:scan:after")
	n1.m.end(100)
	rounds(n1)
	if s := w.state(uid(100)); s == Locked {
		t.Errorf("P6: refused, and stays locked as long as the asking process lives: %s", s)
	}
}

// TestAKeyRepeatedAfterAnUnknownOutcomeIsLookedAt: unknown grant by key, repeated: no look.
func TestAKeyRepeatedAfterAnUnknownOutcomeIsLookedAt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n1 := w.node("n1")
	n1.pool("p", "100-100")
	n1.m.start(100)
	ctx, cancel := context.WithCancel(w.ctx())
	n1.net.set(func() { n1.net.lose = 1; n1.net.before = func() { cancel() } })
	_, err := n1.Grant(ctx, GrantRequest{Caller: "tenant", Key: "k", Requester: n1.m.born("r1"), Wants: []Want{{Pool: "p", Count: 1}}})
	t.Log("first:", err)
	n1.net.set(func() { n1.net.before = nil })
	before := n1.m.scans
	g, err := n1.ask(n1.m.born("r1"), withKey("k"))
	if err == nil {
		t.Errorf("handed out %s same=%v though it runs here; scans %d", g.ref(), g.Same, n1.m.scans-before)
	} else {
		t.Log(err)
	}
}

// TestARequestersNameUsedAgainIsAWrite: one requester name, another process.
func TestARequestersNameUsedAgainIsAWrite(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n1 := w.node("n1")
	n1.pool("p", "100-100")
	old := Requester{ID: "job42", Hold: HoldTTL, Deadline: int64(BootTime() + 300*time.Millisecond)}
	n1.get(old, withKey("k"))
	again := Requester{ID: "job42", Hold: HoldTTL, Deadline: int64(BootTime() + time.Hour)}
	g := n1.get(again, withKey("k"))
	t.Log("same", g.Same, "deadline in claim ahead by", time.Duration(w.claim(g.ref()).Nodes[0].Requesters[0].Deadline)-BootTime())
	until(t, "old hold over", func() bool { return int64(BootTime()) > old.Deadline })
	rounds(n1)
	g2, err := n1.ask(n1.m.born("r2"))
	if err == nil && g2.ref() == g.ref() {
		t.Errorf("P1: second asker with a hold of 1h told %s, which r2 has now", g.ref())
	}
}

// TestRenewExtendsNobodyElsesHold: renew without a name extends another's hold.
func TestRenewExtendsNobodyElsesHold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n1 := w.node("n1")
	n1.pool("p", "100-100")
	r0 := Requester{ID: "r0", Hold: HoldTTL, Deadline: int64(BootTime() + 10*time.Second)}
	r1 := Requester{ID: "r1", Hold: HoldTTL, Deadline: int64(BootTime() + 500*time.Millisecond)}
	g := n1.get(r0, withKey("k"))
	n1.get(r1, withKey("k"))
	// r1 renews as the agent does: no name
	h, err := n1.Renew(w.ctx(), g.ref(), g.Token, Requester{Deadline: int64(BootTime() + time.Hour)})
	t.Log("renew", err, h.Claim != nil)
	n1.release(g, "r0")
	until(t, "r1's first hold over", func() bool { return int64(BootTime()) > r1.Deadline })
	rounds(n1)
	g2, err := n1.ask(n1.m.born("r2"))
	if err == nil && g2.ref() == g.ref() {
		t.Errorf("P1: r1 renewed for 1h, and %s is r2's", g.ref())
	}
}

// TestTwoKeepsAreTwo: keeps.
func TestTwoKeepsAreTwo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n1 := w.node("n1")
	n1.pool("p", "100-100")
	g := n1.get(n1.m.born("r0"), withKey("k"))
	n1.get(n1.m.born("r1"), withKey("k"))
	n1.m.start(100)
	n1.Confirm(w.ctx(), g.ref(), g.Token, "r0", true, true)
	_, err := n1.Confirm(w.ctx(), g.ref(), g.Token, "r1", true, true)
	t.Log(err)
	n1.m.end(100)
	n1.m.die("r0")
	n1.m.die("r1")
	n1.release(g, "r0")
	rounds(n1)
	if s := w.state(g.ref()); s != Used {
		t.Errorf("rule 40: r1 kept it (told so), r0's release ended it: %s", s)
	}
}
func TestKeepOfAStrangerIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n1 := w.node("n1")
	n1.pool("p", "100-100")
	g := n1.get(n1.m.born("r0"), withKey("k"))
	n1.get(n1.m.born("r1"), withKey("k"))
	n1.m.start(100)
	n1.release(g, "r1")
	_, err := n1.Confirm(w.ctx(), g.ref(), g.Token, "r1", true, true)
	t.Log("keep by one whose part is over:", err)
	n1.m.end(100)
	n1.m.die("r0")
	rounds(n1)
	if s := w.state(g.ref()); s == Used {
		t.Errorf("P6: r0 never kept, is dead, nothing runs: %s for ever %+v", s, w.claim(g.ref()).Nodes)
	}
}

// TestAKeepAloneIsNoInquiry: scans.
func TestAKeepAloneIsNoInquiry(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n1, n2 := w.node("n1"), w.node("n2")
	n1.pool("p", "100-100")
	n2.sync()
	g := n1.get(n1.m.born("r0"))
	n1.confirm(g, true, false)
	n1.m.die("r0")
	n2.sync()
	if _, err := n2.Join(w.ctx(), g.refs(), g.Token, n2.m.born("r1")); err != nil {
		t.Fatal(err)
	}
	n1.janitorRound()
	n1.janitorRound()
	n1.sync()
	if c := n1.chores(); len(c.inquire) > 0 {
		t.Errorf("each glance scans: inquire %v state %s", c.inquire, w.state(g.ref()))
	}
}

// TestAJoinersReleaseByKeyEndsItsPartOnly: joiner's release by key.
func TestAJoinersReleaseByKeyEndsItsPartOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n1, n2 := w.node("n1"), w.node("n2")
	n1.pool("p", "100-101")
	g := n1.get(n1.m.born("r0"), withKey("k"), wants(Want{Pool: "p", Count: 2}))
	n2.sync()
	if _, err := n2.Join(w.ctx(), g.refs()[:1], g.Token, n2.m.born("r1")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := n2.Release(w.ctx(), Release{Refs: g.refs(), Token: g.Token, Match: func(Requester) bool { return true }, By: "tenant"}); err != nil {
		t.Fatal(err)
	}
	t.Log(w.state(g.refs()[0]), w.state(g.refs()[1]), w.claim(g.refs()[1]).ReasonCode)
	if w.state(g.refs()[1]) == Quarantined {
		t.Errorf("rule 35: the joiner of %s ended %s, which it never had, under live r0", g.refs()[0], g.refs()[1])
	}
}

// TestAReclaimUndoneRestoresItsRecord: reclaimed, runs again: record is ended.
func TestAReclaimUndoneRestoresItsRecord(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n1 := w.node("n1")
	n1.pool("p", "100-101")
	g := n1.get(n1.m.born("r0"), withKey("k"), wants(Want{Pool: "p", Count: 2}))
	n1.m.start(100)
	n1.m.start(101)
	n1.confirm(g, false, true)
	n1.m.die("r0")
	n1.m.end(100)
	n1.m.end(101)
	n1.janitorRound()
	w.mustBe(g.ref(), Idle)
	n1.sync()
	if err := n1.reclaim(w.ctx(), g.ref()); err != nil {
		t.Fatal(err)
	}
	n1.m.start(100)
	n1.janitorRound()
	t.Log(w.state(uid(100)), w.state(uid(101)))
	refs, _, err := n1.Find(w.ctx(), "tenant", "k")
	if w.state(uid(100)) == Used && err != nil {
		t.Errorf("100 is used again for its holder, its key says: %v %v", refs, err)
	}
}
