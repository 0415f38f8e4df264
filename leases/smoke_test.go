package leases

import "testing"

func TestSmoke(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.running("n1"), w.running("n2")
	a.pool("p", "1000-1009")
	b.sync()
	g := b.get(b.m.born("r"), withKey("k"))
	w.mustBe(g.ref(), Locked)
	b.m.start(g.ref().ID)
	b.confirm(g, false, true)
	w.mustBe(g.ref(), Used)
	b.m.end(g.ref().ID)
	b.m.die("r")
	b.release(g, "r")
	until(t, "the id is free", func() bool { return w.state(g.ref()) == Free })
	if left := w.stored(w.keys.ClaimsPrefix()); len(left) != 0 {
		t.Errorf("claims left: %v", left)
	}
	locks := w.stored(w.keys.LocksPrefix())
	delete(locks, w.keys.ReaperLock())
	if len(locks) != 0 {
		t.Errorf("locks left: %v", locks)
	}
}
