package leases

import (
	"testing"

	"github.com/idpool/idpool/problem"
)

// The tests named after a trace play it as PROTOCOL has it and hold that the
// promise stands.

// lives is asserted throughout: an id whose requester may still start, or that
// runs, is granted to nobody else.
func (a *agent) mustNotGet(ref Ref) {
	a.w.t.Helper()
	if g, err := a.ask(a.m.born("thief"), exact(ref.ID)); err == nil {
		a.w.t.Fatalf("%s was granted again (token %s)", ref, g.Token)
	}
}

func TestTrace01AgentCrashBeforeTheRequesterStarts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.pool("p", "1000")
	g := a.get(a.m.born("r"))
	lease := a.guardNow().lease
	a.crash()
	if _, err := w.client.Renew().Revoke(w.ctx(), lease); err != nil {
		t.Fatal(err)
	}
	rounds(b)
	w.mustBe(g.ref(), Locked)
	a = a.again()
	rounds(a, b)
	w.mustBe(g.ref(), Locked)
	if len(w.stored(w.keys.Lock(g.ref().Space, g.ref().ID))) != 1 {
		t.Error("the lock was not put back")
	}
	b.mustNotGet(g.ref())
	a.m.start(g.ref().ID)
	a.m.die("r")
	rounds(a, b)
	w.mustBe(g.ref(), Used)
	b.mustNotGet(g.ref())
}

func TestTrace02RequesterDiesAfterFork(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000")
	g := a.get(a.m.born("r")) // the hold lives while a child does: MayStart stays true
	rounds(a)
	w.mustBe(g.ref(), Locked)
	a.m.start(g.ref().ID) // the child does setuid, then the hold ends
	a.m.die("r")
	rounds(a)
	w.mustBe(g.ref(), Used)
}

func TestTrace03TwoRequestersUnderOneKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.pool("p", "1000")
	g0 := a.get(a.m.born("r0"), withKey("K"))
	g1 := a.get(a.m.born("r1"), withKey("K"))
	if !g1.Same || g1.ref() != g0.ref() || g1.Token != g0.Token {
		t.Fatalf("%+v and %+v", g0, g1)
	}
	a.release(g0, "r0")
	a.m.die("r0")
	rounds(a, b)
	w.mustBe(g0.ref(), Locked)
	b.mustNotGet(g0.ref())
	a.m.start(g0.ref().ID)
	a.confirm(g1, false, true)
	a.m.end(g0.ref().ID)
	a.release(g1, "r1")
	rounds(a, b)
	w.mustBe(g0.ref(), Free)
}

func TestTrace04AnswerDuringAnInquiry(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000")
	g := a.get(a.m.born("r0"), withKey("K"))
	a.m.die("r0")
	a.sync()
	c := a.chores() // r0 is dead: an inquiry begins
	if len(c.inquire) != 1 {
		t.Fatalf("chores %+v", c)
	}
	again := a.get(a.m.born("r1"), withKey("K"))
	if again.Token != g.Token {
		t.Fatal("another grant under the key")
	}
	a.inspect(w.ctx(), c, true)
	rounds(a)
	w.mustBe(g.ref(), Locked)
}

func TestTrace05TheRecordDoesNotOutliveTheClaim(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000-1009")
	g := a.get(a.m.born("r0"), withKey("K"))
	a.m.die("r0")
	a.janitorRound()
	w.mustBe(g.ref(), Quarantined)
	_, _, err := a.Find(w.ctx(), "tenant", "K")
	mustErr(t, err, problem.ErrKeyEnded)
	_, err = a.ask(a.m.born("r1"), withKey("K"))
	mustErr(t, err, problem.ErrKeyEnded)
	rounds(a)
	_, err = a.ask(a.m.born("r1"), withKey("K"))
	mustErr(t, err, problem.ErrKeyEnded)
}

func TestTrace06GhostGrant(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000")
	a.net.set(func() { a.net.keep = 1 })
	g := a.get(a.m.born("r"), withKey("K")) // attempt 1 is on its way; the repeat is applied
	a.release(g, "r")
	a.m.die("r")
	rounds(a)
	w.mustBe(g.ref(), Free)
	if n := a.net.deliver(w); n != 0 {
		t.Errorf("%d ghosts applied", n)
	}
	w.mustBe(g.ref(), Free)
}

func TestTrace06GhostOfAnAttemptThatWasNotRepeated(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000-1001")
	a.net.set(func() { a.net.keep = 1 })
	a.m.born("r")
	g := a.get(a.m.born("r"))
	a.expire() // and once more over a new session
	a.session.lost(a.guardNow(), problem.ErrUnavailable)
	until(t, "a new session", func() bool { return a.guardNow() != nil })
	if n := a.net.deliver(w); n != 0 {
		t.Errorf("%d ghosts applied", n)
	}
	a.sync()
	if n := a.Overview().Counts["locked"]; n != 1 {
		t.Errorf("%d claims locked, want that of %s alone", n, g.ref())
	}
}

func TestTrace07UnknownOutcomeCountsAsAlive(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000")
	inquired := false
	a.net.set(func() {
		a.net.lose = 1
		a.net.before = func() { // between the attempts
			if a.net.lost() && !inquired {
				inquired = true
				a.sync()
				a.inspect(w.ctx(), a.chores(), true)
			}
		}
	})
	g := a.get(a.m.born("r"))
	if !inquired {
		t.Fatal("no inquiry ran between the attempts")
	}
	rounds(a)
	w.mustBe(g.ref(), Locked)
	if c := w.claim(g.ref()); c.Token != g.Token {
		t.Errorf("the claim is %+v, the grant %+v", c, g)
	}
}

// TestGrantThatEndedIsNotMadeAgain: the grant is applied, its answer is lost, and it is
// released and freed before the repeat. The repeat makes another grant, not the same
// one again: its token has ended.
func TestGrantThatEndedIsNotMadeAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.pool("p", "1000")
	b.sync()
	ended := ""
	between := func() {
		a.net.set(func() { a.net.before = nil })
		b.sync()
		ended = w.claim(uid(1000)).Token
		if _, _, err := b.Release(w.ctx(), Release{Refs: []Ref{uid(1000)}, Token: ended, Whole: true, By: "op"}); err != nil {
			t.Error(err)
		}
		a.m.die("r")
		rounds(a, b)
		rounds(a, b)
		w.mustBe(uid(1000), Free)
		a.m.born("r")
	}
	a.net.set(func() {
		a.net.lose = 1
		a.net.before = func() {
			if a.net.lost() {
				between()
			}
		}
	})
	g := a.get(a.m.born("r"))
	if ended == "" || g.Token == ended {
		t.Errorf("the first attempt's token %q, the grant's %q", ended, g.Token)
	}
	if c := w.claim(g.ref()); c.Token != g.Token || c.State != Locked {
		t.Errorf("the claim is %+v, the grant %+v", c, g)
	}
}

// lost tells whether the answer to lose has been lost.
func (n *network) lost() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.lose == 0 && n.sent > 0
}

func TestTrace13ShortcutScansAfterThePromise(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000")
	g := a.get(a.m.born("r"))
	// An operator's release: the holder has not been told.
	held, changed, err := a.Release(w.ctx(), Release{Refs: g.refs(), Token: g.Token, Whole: true, By: "an operator"})
	if err != nil || !changed || len(held) != 1 {
		t.Fatalf("%v, %v, %v", held, changed, err)
	}
	rounds(a)
	w.mustBe(g.ref(), Quarantined)
	a.m.start(g.ref().ID) // it starts, not knowing
	a.m.die("r")
	rounds(a)
	w.mustBe(g.ref(), Quarantined)
	a.m.end(g.ref().ID)
	rounds(a)
	w.mustBe(g.ref(), Free)
}

func TestTrace14ReclaimAgainstAHolderThatRestarts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.pool("p", "1000")
	g := a.get(a.m.born("r"))
	_, err := a.Confirm(w.ctx(), g.ref(), g.Token, "", false, false)
	mustErr(t, err, problem.ErrNotRunning) // confirms before it starts
	a.m.start(1000)
	a.confirm(g, false, true)
	a.m.end(1000) // gone for a moment, while its requester lives
	rounds(a)
	w.mustBe(g.ref(), Used)
	a.m.die("r")
	rounds(a)
	w.mustBe(g.ref(), Idle)
	b.sync()
	if err := b.reclaim(w.ctx(), g.ref()); err != nil {
		t.Fatal(err)
	}
	w.mustBe(g.ref(), Quarantined)
	a.m.start(1000) // the holder starts again
	rounds(b, a)
	w.mustBe(g.ref(), Used)
	if c := w.claim(g.ref()); c.Token != g.Token {
		t.Error("another token")
	}
}

func TestTrace24BatchRepeatedWithADeadLease(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000-1009")
	a.net.set(func() {
		a.net.lose = 1
		a.net.before = func() {
			if a.net.lost() { // the repeat finds its lease dead
				a.net.set(func() { a.net.before = nil })
				a.expire()
			}
		}
	})
	g := a.get(a.m.born("r"))
	rounds(a)
	w.mustBe(g.ref(), Locked)
	if n := len(w.stored(w.keys.ClaimsPrefix())); n != 1 {
		t.Errorf("%d claims for one grant", n)
	}
	if len(w.stored(w.keys.Lock(g.ref().Space, g.ref().ID))) != 1 {
		t.Error("no lock")
	}
}

func TestTrace30KeptForOneEndedByTheOther(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.pool("p", "1000")
	g := a.get(a.m.born("r0"))
	a.confirm(g, true, false)
	a.m.die("r0")
	b.sync()
	if _, err := b.Join(w.ctx(), g.refs(), g.Token, b.m.born("r1")); err != nil {
		t.Fatal(err)
	}
	b.release(g, "r1")
	b.m.die("r1")
	rounds(a, b)
	w.mustBe(g.ref(), Used)
	if reclaimed, err := b.reclaimFor(w.ctx(), []Want{{Pool: "p", Count: 1}}); err != nil || reclaimed {
		t.Errorf("reclaimed a kept grant: %v, %v", reclaimed, err)
	}
	// Its supervisor locks again before it starts.
	held, err := a.Join(w.ctx(), g.refs(), g.Token, a.m.born("super"))
	if err != nil || held[0].Claim.State != Locked {
		t.Fatalf("%+v, %v", held, err)
	}
	rounds(a, b)
	w.mustBe(g.ref(), Locked)
	a.release(g, "super") // its own part only
	rounds(a, b)
	w.mustBe(g.ref(), Used)
	a.release(g, "") // the caller's word for all of its requesters here, the keep too
	a.m.die("super")
	rounds(a, b)
	w.mustBe(g.ref(), Free)
}
