package leases

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/problem"
)

// An inventory is turned into a file's while another node's grant flies: a claim stays held.
func TestVLANRegressionOutsideRace(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.pool(VLANPool("fa"), "100-109")
	a.sync()
	b.sync()
	a.net.set(func() {
		a.net.before = once(func() { b.get(Requester{}, withKey("k"), wants(Want{Pool: VLANPool("fa")})) })
	})
	_, _, err := a.SetPool(w.ctx(), VLANPool("fa"), false, func(p *Pool, _ bool) error {
		p.Ranges, p.Outside = idset.Set{}, &Outside{File: "/x", On: "n1"}
		return nil
	})
	if err == nil {
		t.Errorf("stored although VLAN 100 is %s", w.state(vid("fa", 100)))
	}
	t.Log(err)
}

// The answer to LockTake is lost, the session dies, and the lock with it: told as taken.
func TestVLANRegressionLockToldButGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	first := true
	a.net.set(func() {
		a.net.lose = 1
		a.net.before = func() {
			if !first { // the repeat: the session was lost in between
				return
			}
			first = false
		}
	})
	exp := once(func() { a.expire() })
	n := 0
	a.net.set(func() {
		a.net.before = func() {
			if n++; n == 2 {
				exp()
			}
		}
	})
	d, err := a.ChangeDocument(w.ctx(), "doc", DocumentChange{Name: "edge", After: []byte(`{"w":"1"}`), Lock: LockChange{LockTake, "mine"}})
	locks := w.stored(w.keys.LocksPrefix() + "service/")
	t.Logf("%+v %v locks %v", d, err, locks)
	if err == nil && d.Lock != "" && len(locks) == 0 {
		t.Errorf("told lock %q, etcd has none", d.Lock)
	}
}

// As above, and another worker has taken the lock meanwhile.
func TestVLANRegressionLockToldButOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	if _, err := a.ChangeDocument(w.ctx(), "doc", DocumentChange{Name: "edge", After: []byte(`1`)}); err != nil {
		t.Fatal(err)
	}
	b.sync()
	n := 0
	a.net.set(func() {
		a.net.keep = 1
		a.net.before = func() {
			if n++; n == 2 {
				if _, err := b.ChangeDocument(w.ctx(), "doc", DocumentChange{Name: "edge", Before: []byte(`1`), After: []byte(`1`), Lock: LockChange{LockTake, "yours"}}); err != nil {
					t.Error(err)
				}
			}
		}
	})
	d, err := a.ChangeDocument(w.ctx(), "doc", DocumentChange{Name: "edge", Before: []byte(`1`), After: []byte(`1`), Lock: LockChange{LockTake, "mine"}})
	t.Logf("%+v %v %v", d, err, w.stored(w.keys.LocksPrefix()+"service/"))
	if err == nil {
		t.Errorf("told lock %q; etcd: %v", d.Lock, w.stored(w.keys.LocksPrefix()+"service/"))
	}
}

func TestVLANRegressionTiedOutsideAndExcluded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pair("100-101", "100-101")
	a.pool(VLANPool("fc"), "", func(p *Pool) { p.Outside = &Outside{File: "/x", On: "n1"} })
	a.sync()
	ws := northSouth()
	ws[1].Offset, ws[1].Pool = i64p(0), VLANPool("fc")
	_, _, err := a.serve("edge", nil, ws)
	if errors.Is(err, problem.ErrExhausted) {
		t.Errorf("tied to a file's inventory: %v", err)
	}
	within := idset.New(101)
	ws = northSouth()
	ws[0].Exact, ws[0].Within, ws[1].Offset = u32p(100), &within, i64p(0)
	_, _, err = a.serve("edge", nil, ws)
	if errors.Is(err, problem.ErrExhausted) {
		t.Errorf("asked for and excluded: %v", err)
	}
}

func TestVLANRegressionDropUnreadable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pair("100-109", "200-209")
	g, doc, err := a.serve("edge", nil, northSouth())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.client.Txn().Put(w.ctx(), w.keys.Claim("vlan/fb", 200), `{"v":2}`); err != nil {
		t.Fatal(err)
	}
	a.sync()
	before := a.net.sent
	ctx, cancel := context.WithTimeout(w.ctx(), 5*time.Second)
	defer cancel()
	_, err = a.Grant(ctx, GrantRequest{Caller: "net", Service: "edge", Wants: northSouth()[:1], Drop: tokens(g)[1:],
		Document: &DocumentGrant{Name: "edge", Before: doc, After: func(*Grant) []byte { return fmt.Appendf(nil, "%q", NewToken()) }}})
	mustErr(t, err, problem.ErrInvalid, "cannot be read")
	if n := a.net.sent - before; n > 5 {
		t.Errorf("%d transactions for a refusal", n)
	}
}

func TestVLANRegressionSameReleaseTwice(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pair("100-109", "200-209")
	g, doc, err := a.serve("edge", nil, northSouth())
	if err != nil {
		t.Fatal(err)
	}
	all := append(tokens(g), tokens(g)[0])
	_, err = a.ChangeDocument(w.ctx(), "doc", DocumentChange{Name: "edge", Before: doc, Release: all})
	if err != nil {
		t.Errorf("a record that lists a VLAN twice can never end: %v (%s)", err, problem.CodeOf(err))
	}
}

func TestVLANRegressionImportBounds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pair("100-300", "200")
	a.pool(VLANPool("fc"), "", func(p *Pool) { p.Outside = &Outside{File: "/x", On: "n1"} })
	a.sync()
	added, err := a.Import(w.ctx(), VLANPool("fa"), map[uint32]string{0: "x", 4095: "x", 70000: "x"}, "op", nil)
	if err == nil {
		t.Errorf("imported what is no VLAN: %v", added)
	}
	added, err = a.Import(w.ctx(), VLANPool("fc"), map[uint32]string{7: "x"}, "op", nil)
	if err == nil {
		t.Errorf("imported into a file's inventory: %v", added)
	}
}

func TestVLANRegressionImportDeleted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.pair("100-300", "200")
	b.sync()
	a.net.set(func() {
		a.net.before = once(func() {
			if err := b.DeletePool(w.ctx(), VLANPool("fa")); err != nil {
				t.Error(err)
			}
		})
	})
	added, err := a.Import(w.ctx(), VLANPool("fa"), map[uint32]string{107: "x"}, "op", nil)
	if err == nil && w.state(vid("fa", 107)) == Used {
		t.Errorf("claims of an inventory that is gone: %v", added)
	}
}

func TestVLANRegressionEmptyDocument(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	if _, err := w.client.Txn().Put(w.ctx(), w.keys.Service("edge"), ""); err != nil {
		t.Fatal(err)
	}
	a.sync()
	d, ok := a.Document(w.ctx(), "edge")
	_, err := a.ChangeDocument(w.ctx(), "doc", DocumentChange{Name: "edge", Before: d.Raw, After: []byte("1")})
	if err != nil {
		t.Errorf("%v %v raw nil %v: %v", d, ok, d.Raw == nil, err)
	}
}

func TestVLANRegressionUnknownDocumentMessage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pair("100", "200")
	a.net.set(func() { a.net.lose = 1 })
	a.session.raising.Lock()
	ctx, cancel := context.WithTimeout(w.ctx(), time.Second)
	defer cancel()
	_, err := a.Grant(ctx, GrantRequest{Caller: "net", Service: "edge", Wants: northSouth(), Document: &DocumentGrant{Name: "edge", After: func(*Grant) []byte { return []byte(NewToken()) }}})
	a.session.raising.Unlock()
	var p *problem.Error
	if errors.As(err, &p) {
		t.Logf("%v %q", err, p.Notes)
	}
	until(t, "landed", func() bool { a.mu.Lock(); defer a.mu.Unlock(); a.landLocked(1 << 60); return len(a.flying) == 0 })
	rounds(a)
	if w.state(vid("fa", 100)) == Used && p != nil && strings.Contains(strings.Join(p.Notes, " "), "releases") {
		t.Errorf("told %q, and the service stands", p.Notes)
	}
}

// The cooldown is raised before the release commits: the VLAN is free at once.
func TestVLANRegressionCooldownSkipped(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.pair("100", "200", noCooldown)
	g, doc, err := a.serve("edge", nil, northSouth())
	if err != nil {
		t.Fatal(err)
	}
	b.sync()
	a.net.set(func() {
		a.net.before = once(func() { b.pool(VLANPool("fa"), "100", func(p *Pool) { p.Cooldown = time.Hour }) })
	})
	if _, err := a.ChangeDocument(w.ctx(), "doc", DocumentChange{Name: "edge", Before: doc, Release: tokens(g)}); err != nil {
		t.Fatal(err)
	}
	if w.state(vid("fa", 100)) == Free {
		t.Errorf("free at once although a cooldown of 1h stood when it was released")
	}
}

func TestVLANRegressionImportUnreadable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pair("100-104", "200")
	if _, err := w.client.Txn().Put(w.ctx(), w.keys.Claim("vlan/fa", 102), `{"v":2}`); err != nil {
		t.Fatal(err)
	}
	a.sync()
	added, err := a.Import(w.ctx(), VLANPool("fa"), map[uint32]string{100: "x", 102: "x"}, "op", nil)
	if err != nil {
		t.Errorf("%v %v", added, err)
	}
	// and a pool with an unreadable claim only is turned into a file, or deleted
	if err := a.DeletePool(w.ctx(), VLANPool("fa")); err == nil {
		t.Errorf("deleted with an unreadable claim")
	}
}

// The grant's lock part: told as taken, gone.
func TestVLANRegressionGrantLockGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pair("100", "200", noCooldown)
	n := 0
	a.net.set(func() {
		a.net.lose = 1
		a.net.before = func() {
			if n++; n == 2 {
				a.expire()
			}
		}
	})
	_, _, err := a.serve("edge", nil, northSouth(), func(r *GrantRequest) { r.Document.Lock = LockChange{LockTake, "mine"} })
	if err == nil && len(w.stored(w.keys.LocksPrefix()+"service/")) == 0 {
		t.Errorf("granted with a lock that is gone")
	}
}
