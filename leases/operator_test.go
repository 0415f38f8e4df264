package leases

import (
	"testing"

	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/problem"
)

func TestOverlappingPoolsShareAnIDOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000-1002")
	a.pool("q", "1002-1004")
	a.get(a.m.born("r"), wants(Want{Pool: "p", Count: 3}))
	g := a.get(a.m.born("r"), wants(Want{Pool: "q", Count: 2}))
	for _, h := range g.Held {
		if h.ID == 1002 {
			t.Error("1002 was granted twice")
		}
	}
	_, err := a.ask(a.m.born("r"), wants(Want{Pool: "q", Count: 1}))
	mustErr(t, err, problem.ErrExhausted, "0 of 3")
	for _, bad := range []func(*Pool){func(p *Pool) { p.Scope = ScopeNode }, func(p *Pool) { p.Block = 2 }} {
		_, _, err := a.SetPool(w.ctx(), "r", false, func(p *Pool, _ bool) error {
			p.Ranges = idset.Of(idset.Range{Lower: 1000, Higher: 1010})
			bad(p)
			return nil
		})
		mustErr(t, err, problem.ErrInvalid)
	}
}

func TestShrinkKeepsWhatIsHeld(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000-1001")
	g := a.get(a.m.born("r"), exact(1000))
	a.pool("p", "1001")
	info, err := a.Pool("p")
	if err != nil || info.Counts["outside"] != 1 || info.Size != 1 {
		t.Errorf("%+v, %v", info, err)
	}
	w.mustBe(g.ref(), Locked)
	a.release(g, "r")
	w.mustBe(g.ref(), Free)
	_, err = a.ask(a.m.born("x"), exact(1000))
	mustErr(t, err, problem.ErrOutsidePool)
}

func TestDeletePoolNeedsItEmpty(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.pool("p", "1000-1001")
	g := a.get(a.m.born("r"), func(r *GrantRequest) { r.Holder = "slurm:7" })
	err := a.DeletePool(w.ctx(), "p")
	mustErr(t, err, problem.ErrHeld, "1 of its uids")
	if text := err.(*problem.Error).Text(); !contains(text, "slurm:7") {
		t.Errorf("no holder in:\n%s", text)
	}
	a.release(g, "r")
	rounds(a, b)
	// n2 grants between n1's look and its transaction.
	b.sync()
	var late *Grant
	a.net.set(func() {
		a.net.before = func() {
			if late == nil {
				late = b.get(b.m.born("late"))
			}
		}
	})
	mustErr(t, a.DeletePool(w.ctx(), "p"), problem.ErrHeld)
	w.mustBe(late.ref(), Locked)
	b.release(late, "late")
	b.m.die("late")
	rounds(a, b)
	if err := a.DeletePool(w.ctx(), "p"); err != nil {
		t.Fatal(err)
	}
	mustErr(t, a.DeletePool(w.ctx(), "p"), problem.ErrNotFound)
}

func TestScopeAndBlockAreFixedWhileHeld(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.pool("p", "1000-1015")
	b.sync()
	set := func() error {
		_, _, err := a.SetPool(w.ctx(), "p", false, func(p *Pool, _ bool) error { p.Block = 4; return nil })
		return err
	}
	var late *Grant // between n1's look and its transaction
	a.net.set(func() {
		a.net.before = func() {
			if late == nil {
				late = b.get(b.m.born("late"))
			}
		}
	})
	mustErr(t, set(), problem.ErrInvalid, "fixed while ids are held")
	b.release(late, "late")
	b.m.die("late")
	rounds(a, b)
	if err := set(); err != nil {
		t.Fatal(err)
	}
}

func TestReserveAndUnreserve(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000-1199")
	many := idset.Of(idset.Range{Lower: 1000, Higher: 1129})
	for range 2 { // again is done
		done, err := a.Reserve(w.ctx(), many, "op", "printer")
		if err != nil || done.Count() != 130 {
			t.Fatalf("%s, %v", done, err)
		}
	}
	_, err := a.ask(a.m.born("r"), exact(1000))
	mustErr(t, err, problem.ErrHeld, "reserved")
	g := a.get(a.m.born("r"), exact(1150))
	_, err = a.Reserve(w.ctx(), idset.New(1149, 1150), "op", "x")
	mustErr(t, err, problem.ErrHeld, "1150")
	w.mustBe(uid(1149), Free)
	_, err = a.Reserve(w.ctx(), idset.New(5), "op", "x")
	mustErr(t, err, problem.ErrOutsidePool, "5")
	if _, err := a.Unreserve(w.ctx(), many.Add(idset.New(1150, 1160)), "op"); err != nil {
		t.Fatal(err)
	}
	w.mustBe(g.ref(), Locked)
	w.mustBe(uid(1000), Quarantined)
	rounds(a)
	if n := len(w.stored(w.keys.ClaimsPrefix())); n != 1 {
		t.Errorf("%d claims are left", n)
	}
}

func TestForeignUse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.pool("p", "1000-1009")
	a.m.start(1003)
	rounds(a, b)
	c := w.claim(uid(1003))
	if c == nil || c.State != Quarantined || c.ReasonCode != ReasonForeign {
		t.Fatalf("%+v", c)
	}
	_, err := b.ask(b.m.born("x"), exact(1003))
	mustErr(t, err, problem.ErrHeld, "quarantined")
	_, err = b.Adopt(w.ctx(), uid(1003), "c", "h", Requester{ID: "r"})
	mustErr(t, err, problem.ErrNotHeld, "n1")
	_, err = b.Adopt(w.ctx(), uid(1004), "c", "h", Requester{ID: "r"})
	mustErr(t, err, problem.ErrNotFound)
	h, err := a.Adopt(w.ctx(), uid(1003), "c", "h", a.m.born("r"))
	if err != nil || h.Claim.State != Used {
		t.Fatalf("%+v, %v", h, err)
	}
	rounds(a, b)
	w.mustBe(uid(1003), Used)
	_, err = a.Adopt(w.ctx(), uid(1003), "c", "h", Requester{ID: "r"})
	mustErr(t, err, problem.ErrHeld)
	a.m.end(1003)
	a.m.die("r")
	if _, changed, err := a.Release(w.ctx(), Release{Refs: []Ref{uid(1003)}, Token: h.Claim.Token, By: "c"}); err != nil || !changed {
		t.Fatalf("%v, %v", changed, err)
	}
	rounds(a, b)
	w.mustBe(uid(1003), Free)
	a.m.start(1004) // and one that goes by itself
	rounds(a, b)
	w.mustBe(uid(1004), Quarantined)
	a.m.end(1004)
	rounds(a, b)
	w.mustBe(uid(1004), Free)
}
