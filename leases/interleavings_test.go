package leases

import (
	"context"
	"testing"
	"time"

	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/problem"
)

// after runs f once, after a look was taken and before its result is used.
type after struct {
	Prover
	f func()
}

func (p *after) InUse(ctx context.Context, d time.Duration) (idset.Set, error) {
	s, err := p.Prover.InUse(ctx, d)
	if f := p.f; f != nil {
		p.f = nil
		f()
	}
	return s, err
}

// refusesPool asserts that a pool is refused because of a claim in its ranges.
func (a *agent) refusesPool(name, ranges string, block uint32) {
	a.w.t.Helper()
	set, err := idset.Parse(ranges)
	if err != nil {
		a.w.t.Fatal(err)
	}
	_, _, err = a.SetPool(a.w.ctx(), name, false, func(p *Pool, _ bool) error {
		p.Ranges, p.Block = set, block
		return nil
	})
	mustErr(a.w.t, err, problem.ErrHeld, "lies in its ranges")
}

// TestABlockOutsideItsShrunkPool: ids of a held block stay held, whatever pool is
// made over them (P1).
func TestABlockOutsideItsShrunkPool(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n1 := w.node("n1")
	n1.pool("p", "96-127", func(p *Pool) { p.Block = 16; p.Order = OrderLowest })
	n1.get(n1.m.born("r1"))
	n1.pool("p", "112-127", func(p *Pool) { p.Block = 16 })
	n1.refusesPool("q", "96-111", 1)
}

// TestABlockOverAHeldID is the same the other way round.
func TestABlockOverAHeldID(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n1 := w.node("n1")
	n1.pool("p", "97-97", func(p *Pool) { p.Order = OrderLowest })
	n1.get(n1.m.born("r1"))
	n1.pool("p", "500")
	n1.refusesPool("q", "96-111", 16)
}

// TestKeepOutlivesAnotherRequester: rule 40, trace 30 on one node
func TestKeepOutlivesAnotherRequester(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n1 := w.node("n1")
	n1.pool("p", "100-109")
	r0 := n1.m.born("r0")
	g := n1.get(r0, withKey("k"))
	n1.confirm(g, true, false)
	n1.m.die("r0")
	r1 := n1.m.born("r1")
	n1.get(r1, withKey("k"))
	n1.release(g, "r1")
	if s := w.state(g.ref()); s != Used && s != Locked {
		t.Errorf("RULE 40: kept for r0, ended by r1's release: now %s", s)
	}
}

// TestKeepOutlivesARepeatedRelease: rule 40: a repeated release by r1 ends r0's keep
func TestKeepOutlivesARepeatedRelease(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n1 := w.node("n1")
	n1.pool("p", "100-109")
	g := n1.get(n1.m.born("r0"), withKey("k"))
	n1.confirm(g, true, false)
	n1.m.die("r0")
	n1.get(n1.m.born("r1"), withKey("k"))
	n1.m.die("r1")
	n1.janitorRound()
	t.Log("after inquiry", w.claim(g.ref()).State, w.claim(g.ref()).Nodes)
	n1.release(g, "r1")
	if s := w.state(g.ref()); s != Used {
		t.Errorf("RULE 40: a late release of a dead requester ends the keep: %s", s)
	}
}

// TestADeadRequestersProcessKeepsTheGrant: rules 4/35: r1's process runs, r1 is dead; r2 joins by key and releases
func TestADeadRequestersProcessKeepsTheGrant(t *testing.T) {
	t.Parallel()
	for _, confirm := range []bool{true, false} {
		w := newWorld(t)
		n1 := w.node("n1")
		n1.pool("p", "100-109")
		g := n1.get(n1.m.born("r1"), withKey("k"))
		n1.m.start(g.ref().ID)
		if confirm {
			n1.confirm(g, false, true)
		}
		n1.m.die("r1")
		n1.get(n1.m.born("r2"), withKey("k"))
		n1.release(g, "r2")
		if s := w.state(g.ref()); s == Quarantined || s == Free {
			t.Errorf("RULE 4/35 (confirmed %v): r1's process runs, r2's release ended the grant: %s %s", confirm, s, w.claim(g.ref()).why())
		}
	}
}

// TestProofAsksWhoMayStartBeforeItScans: P2: proof: requester starts after the scan and dies before the proof is made
func TestProofAsksWhoMayStartBeforeItScans(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n1, n2 := w.node("n1"), w.node("n2")
	n1.pool("p", "100-100")
	g := n1.get(n1.m.born("r1"))
	n2.sync()
	if _, _, err := n2.Release(w.ctx(), Release{Refs: g.refs(), Token: g.Token, Whole: true, By: "operator"}); err != nil {
		t.Fatal(err)
	}
	w.mustBe(g.ref(), Quarantined)
	n1.prover = &after{n1.m, func() { n1.m.start(100); n1.m.die("r1") }} // not told yet: it starts, and its parent exits
	n1.janitorRound()
	n2.janitorRound()
	for range 2 {
		n1.reaperRound()
		n2.reaperRound()
	}
	if s := w.state(g.ref()); s == Free {
		t.Errorf("P2: freed while its process runs on n1")
		g2, err := n2.ask(n2.m.born("r2"))
		if err == nil {
			t.Errorf("P1 in effect: %s granted to n2 while n1 runs it", g2.ref())
		}
	}
}

// TestLeaveAsksWhoMayStartBeforeItScans: leave: requester starts after the final scan and exits before it is asked
func TestLeaveAsksWhoMayStartBeforeItScans(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n1, n2 := w.node("n1"), w.node("n2")
	n1.pool("p", "100-100")
	g := n1.get(n1.m.born("r1"))
	n1.m.start(100)
	n1.confirm(g, false, true)
	n2.sync()
	if _, err := n2.Join(w.ctx(), g.refs(), g.Token, n2.m.born("r2")); err != nil {
		t.Fatal(err)
	}
	n2.confirm(g, false, true)
	n1.m.end(100) // between two processes: r1 lives and restarts it
	n1.sync()
	p := &after{n1.m, nil}
	n1.prover = p
	p.f = func() { p.f = func() { n1.m.start(100); n1.m.die("r1") } } // at the second look
	err := n1.Leave(w.ctx())
	t.Log("leave:", err)
	if err != nil {
		return
	}
	n2.release(g, "r2")
	rounds(n2)
	if s := w.state(g.ref()); s == Free {
		t.Errorf("P2: n1 left with its process running; freed")
	} else {
		t.Log("state", s, w.claim(g.ref()))
	}
}

// TestInquiryJudgesNoNewerClaim: inquiry with a scan older than the claim version
func TestInquiryJudgesNoNewerClaim(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n1 := w.node("n1")
	n1.pool("p", "100-109")
	g := n1.get(n1.m.born("r1"), withKey("k"))
	n1.m.die("r1")
	n1.prover = &after{n1.m, func() {
		n1.get(n1.m.born("r2"), withKey("k"))
		n1.m.start(g.ref().ID)
		n1.m.die("r2")
	}}
	n1.janitorRound()
	if s := w.state(g.ref()); s == Quarantined {
		t.Errorf("RULE 1/3: quarantined by a scan from before the claim's version while its process runs: %s", w.claim(g.ref()).why())
	}
}

// TestIdleJudgesNoNewerClaim: observe with the same
func TestIdleJudgesNoNewerClaim(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n1 := w.node("n1")
	n1.pool("p", "100-109")
	g := n1.get(n1.m.born("r1"), withKey("k"))
	n1.m.start(g.ref().ID)
	n1.confirm(g, false, true)
	n1.get(n1.m.born("r2"), withKey("k"))
	n1.release(g, "r2") // leaves the mark? r1 lives
	n1.confirm(g, false, true)
	t.Log(w.claim(g.ref()).State, w.claim(g.ref()).Released)
	n1.m.end(g.ref().ID)
	n1.prover = &after{n1.m, func() { n1.m.start(g.ref().ID); n1.m.die("r1") }}
	n1.janitorRound()
	t.Log(w.claim(g.ref()).State, w.claim(g.ref()).why())
	if s := w.state(g.ref()); s == Quarantined || s == Idle {
		t.Errorf("RULE 40: %s while it runs", s)
	}
}

// TestLeaveWaitsForTheIdleMark: P6: left node, used claim never idle
func TestLeaveWaitsForTheIdleMark(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n1, n2 := w.node("n1"), w.node("n2")
	n1.pool("p", "100-100")
	g := n1.get(n1.m.born("r1"))
	n1.m.start(100)
	n1.confirm(g, false, true)
	n1.m.die("r1")
	n1.prover = &after{n1.m, func() { n1.m.end(100) }}
	if err := n1.Leave(w.ctx()); err != nil {
		t.Log("refused:", err)
		return
	}
	rounds(n2)
	rounds(n2)
	_, err := n2.ask(n2.m.born("r2"))
	if s := w.state(g.ref()); s == Used {
		t.Errorf("P6: node left, nothing runs, claim %s for ever (%+v); request: %v", s, w.claim(g.ref()).Nodes, err)
	}
}
