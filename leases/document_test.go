package leases

import (
	"errors"
	"testing"
)

func TestDocumentDecides(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.pair("100-109", "200-209", noCooldown)
	b.sync()
	g, doc, err := a.serve("edge", nil, northSouth())
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the other node knows the pools", func() bool { _, err := b.Pool(VLANPool("fb")); return err == nil })
	if _, _, err := b.serve("edge", nil, northSouth()); !errors.Is(err, ErrChanged) {
		t.Fatalf("a second life of the record: %v", err)
	}
	b.sync()
	if got := len(w.stored(w.keys.ClaimsPrefix())); got != 2 {
		t.Fatalf("%d claims, want 2", got)
	}
	// A patch grants and drops in one step; on old bytes it does nothing.
	one := northSouth()[:1]
	drop := func(r *GrantRequest) { r.Drop, r.DropReason = tokens(g)[1:], "re-homed" }
	if _, _, err := b.serve("edge", []byte("{}"), one, drop); !errors.Is(err, ErrChanged) {
		t.Fatalf("on other bytes: %v", err)
	}
	w.mustBe(vid("fb", 200), Used)
	g2, doc2, err := b.serve("edge", doc, one, drop)
	if err != nil {
		t.Fatal(err)
	}
	w.mustBe(vid("fb", 200), Free)
	w.mustBe(g2.Held[0].Ref, Used)
	// The first agent deletes on what it wrote itself: refused, nothing released.
	if _, err := a.ChangeDocument(w.ctx(), "doc", DocumentChange{Name: "edge", Before: doc, Release: tokens(g)}); !errors.Is(err, ErrChanged) {
		t.Fatalf("on old bytes: %v", err)
	}
	w.mustBe(vid("fa", 100), Used)
	all := append(tokens(g), tokens(g2)...)
	if _, err := a.ChangeDocument(w.ctx(), "doc", DocumentChange{Name: "edge", Before: doc2, Release: all, Reason: "deleted"}); err != nil {
		t.Fatal(err)
	}
	if left := w.stored(w.keys.ClaimsPrefix()); len(left) != 0 {
		t.Fatalf("left: %v", left)
	}
}

// TestReleaseByOldTokenTouchesNothing: numbers alone alias; tokens do not (ABA).
func TestReleaseByOldTokenTouchesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pair("100", "200", noCooldown)
	g, doc, err := a.serve("edge", nil, northSouth())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.ChangeDocument(w.ctx(), "doc", DocumentChange{Name: "edge", Before: doc, Release: tokens(g)}); err != nil {
		t.Fatal(err)
	}
	g2, doc2, err := a.serve("edge", nil, northSouth())
	if err != nil || g2.Held[0].ID != 100 {
		t.Fatalf("%+v %v", g2, err)
	}
	d, err := a.ChangeDocument(w.ctx(), "doc", DocumentChange{Name: "edge", Before: doc2, After: []byte(`{"w":"x"}`), Release: tokens(g)})
	if err != nil {
		t.Fatal(err)
	}
	w.mustBe(vid("fa", 100), Used)
	w.mustBe(vid("fb", 200), Used)
	if now, ok := a.Document(w.ctx(), "edge"); !ok || now.ModRev != d.ModRev || string(now.Raw) != `{"w":"x"}` {
		t.Fatalf("%+v", now)
	}
}

// TestReleaseIsDecidedByEtcd: a mirror that does not show a claim yet must not
// make its release a no-op.
func TestReleaseIsDecidedByEtcd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pair("100", "200", noCooldown)
	g, doc, err := a.serve("edge", nil, northSouth())
	if err != nil {
		t.Fatal(err)
	}
	a.sync()
	a.mirror.mu.Lock()
	for _, h := range g.Held {
		delete(a.mirror.claims, h.Ref)
	}
	a.mirror.mu.Unlock()
	if _, err := a.ChangeDocument(w.ctx(), "doc", DocumentChange{Name: "edge", Before: doc, Release: tokens(g)}); err != nil {
		t.Fatal(err)
	}
	if left := w.stored(w.keys.ClaimsPrefix()); len(left) != 0 {
		t.Fatalf("leaked: %v", left)
	}
}

func TestDocumentLock(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	change := func(x *agent, before, after string, do LockDo, value string) error {
		c := DocumentChange{Name: "edge", Lock: LockChange{do, value}}
		if before != "" {
			c.Before = []byte(before)
		}
		if after != "" {
			c.After = []byte(after)
		}
		_, err := x.ChangeDocument(w.ctx(), "doc", c)
		return err
	}
	if err := change(a, "", "1", LockTake, "mine"); err != nil {
		t.Fatal(err)
	}
	if err := change(b, "1", "2", LockTake, "yours"); !errors.Is(err, ErrChanged) {
		t.Fatalf("taken from its holder: %v", err)
	}
	if err := change(b, "1", "2", LockHold, "yours"); !errors.Is(err, ErrChanged) {
		t.Fatalf("held without having it: %v", err)
	}
	if err := change(a, "1", "2", LockHold, "mine"); err != nil {
		t.Fatal(err)
	}
	b.sync()
	if d, _ := b.Document(w.ctx(), "edge"); d.Lock != "mine" {
		t.Fatalf("lock %q", d.Lock)
	}
	a.expire()
	until(t, "the lock dies with the session", func() bool { b.sync(); d, _ := b.Document(w.ctx(), "edge"); return d.Lock == "" })
	if err := change(a, "2", "3", LockHold, "mine"); !errors.Is(err, ErrChanged) {
		t.Fatalf("written under a lost lock: %v", err)
	}
	if err := change(b, "2", "3", LockTake, "yours"); err != nil {
		t.Fatal(err)
	}
	if err := change(b, "3", "", LockDrop, "yours"); err != nil {
		t.Fatal(err)
	}
	if _, ok := b.Document(w.ctx(), "edge"); ok || len(w.stored(w.keys.LocksPrefix()+"service/")) != 0 {
		t.Fatal("record or lock stays")
	}
}
