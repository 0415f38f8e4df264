package leases

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/problem"
)

func once(f func()) func() { var o sync.Once; return func() { o.Do(f) } }

func u32p(n uint32) *uint32 { return &n }
func i64p(n int64) *int64   { return &n }

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

func TestVLANRegressionTiePanic(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pair("100-110", "100-110")
	defer func() {
		if r := recover(); r != nil {
			t.Errorf("panic: %v", r)
		}
	}()
	ws := northSouth()
	ws[1].Offset = i64p(0)
	ws = append(ws, Want{Pool: VLANPool("nowhere"), Count: 1})
	_, _, err := a.serve("edge", nil, ws)
	t.Log(err)
}

func TestVLANRegressionTieExactSibling(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pair("100-110", "100-110")
	ws := northSouth()
	ws[1].Offset = i64p(0)
	ws = append(ws, Want{Pool: VLANPool("fa"), Count: 1, Exact: u32p(100)})
	g, _, err := a.serve("edge", nil, ws)
	if err != nil {
		t.Errorf("101/101/100 would do: %v (code %s)", err, problem.CodeOf(err))
	}
	t.Log(g)
}

func TestVLANRegressionWrongExhausted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pair("100-101", "100-101")
	within := idset.New(100)
	_, err := a.ask(Requester{}, withKey("k"), wants(Want{Pool: VLANPool("fa"), Count: 1}, Want{Pool: VLANPool("fa"), Count: 1, Within: &within}))
	if err != nil {
		t.Errorf("101 + 100 would do: %v", err)
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

// Two nodes hold a mixed group; one gives its part back; the VLAN goes, the other's uid stays.
func TestVLANRegressionPartialRelease(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.pool("p", "1000-1009")
	a.pair("100", "200", noCooldown)
	b.sync()
	mix := wants(Want{Pool: "p", Count: 1}, Want{Pool: VLANPool("fa"), Count: 1, Label: "north"})
	g := a.get(a.m.born("r1"), withKey("k"), mix)
	if _, err := a.ConfirmGroup(w.ctx(), g.refs(), g.Token, "r1"); err != nil {
		t.Fatal(err)
	}
	b.sync()
	g2 := b.get(b.m.born("r2"), withKey("k"), mix)
	if _, err := b.ConfirmGroup(w.ctx(), g2.refs(), g2.Token, "r2"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.Release(w.ctx(), Release{Refs: g2.refs(), Token: g2.Token, By: "tenant"}); err != nil {
		t.Fatal(err)
	}
	uidState, vlanState := w.state(g.refs()[0]), w.state(vid("fa", 100))
	if uidState == Used && vlanState != Used {
		t.Errorf("n1 keeps uid (%s), its VLAN is %q", uidState, vlanState)
		b.sync()
		other, err := b.ask(Requester{}, func(r *GrantRequest) { r.Caller, r.Key = "other", "o" }, wants(Want{Pool: VLANPool("fa")}))
		t.Log(other, err)
	}
}

func TestVLANRegressionUnseenVLANs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pair("100", "200", noCooldown)
	g := a.get(a.m.born("r"), withKey("k"), wants(northSouth()...))
	if _, err := a.ConfirmGroup(w.ctx(), g.refs(), g.Token, "r"); err != nil {
		t.Fatal(err)
	}
	w.mustBe(vid("fa", 100), Used)
	a.m.set(func() { a.m.err = errors.New("no /proc") })
	_, err := a.ask(a.m.born("r"), withKey("k"), wants(northSouth()...))
	t.Log(err)
	a.m.set(func() { a.m.err = nil })
	rounds(a)
	if s := w.state(vid("fa", 100)); s != Used {
		t.Errorf("a confirmed VLAN was given back by a repeated request: %q", s)
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

func TestVLANRegressionStandingLocked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pair("100", "200", noCooldown)
	a.get(a.m.born("r"), withKey("k"), wants(northSouth()...))
	g, err := a.ask(Requester{}, withKey("k"), wants(northSouth()...))
	t.Log(g, err)
	a.m.die("r")
	rounds(a)
	if err == nil && w.state(vid("fa", 100)) != Used {
		t.Errorf("told as granted, then given back with another's hold: %q", w.state(vid("fa", 100)))
	}
}

func TestVLANRegressionDryWrites(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000")
	a.sync()
	a.get(a.m.born("r"), withKey("k"))
	before := w.claim(uid(1000)).Write
	_, err := a.ask(a.m.born("r2"), withKey("k"), func(r *GrantRequest) { r.Dry = true })
	if w.claim(uid(1000)).Write != before {
		t.Errorf("a dry run bound a requester: %v", err)
	}
}

func TestVLANRegressionConfirmGroupLapsed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000")
	a.pair("100", "200", noCooldown)
	g := a.get(a.m.born("r"), wants(Want{Pool: "p", Count: 1}, northSouth()[0]))
	a.m.die("r")
	_, err := a.ConfirmGroup(w.ctx(), g.refs(), g.Token, "r")
	if err == nil {
		t.Errorf("kept although its hold is over")
	}
}

func TestVLANRegressionTooManyOps(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	var ws []Want
	for i := range 60 {
		name := fmt.Sprintf("i%d", i)
		a.pool(VLANPool(name), "100-109")
		ws = append(ws, Want{Pool: VLANPool(name), Count: 1, Label: name})
	}
	a.sync()
	g, doc, err := a.serve("edge", nil, ws)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{32, 60} {
		_, doc2, err := a.serve("edge", doc, ws[:n], func(r *GrantRequest) { r.Drop = tokens(g)[:n] })
		if n == 60 {
			mustErr(t, err, problem.ErrInvalid, "fit one etcd transaction")
			continue
		}
		if err != nil {
			t.Fatalf("%d wants and drops: %v", n, err)
		}
		doc = doc2
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

// A repeated allocation whose agent dies before it keeps it again: locked for ever.
func TestVLANRegressionLockedForEver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000-1009")
	a.pair("100", "200", noCooldown)
	mix := wants(Want{Pool: "p", Count: 1}, northSouth()[0])
	g := a.get(a.m.born("r"), withKey("k"), mix)
	if _, err := a.ConfirmGroup(w.ctx(), g.refs(), g.Token, "r"); err != nil {
		t.Fatal(err)
	}
	r := a.m.born("r")
	r.PID = 200 // another process asks again, under the requester's name
	a.get(r, withKey("k"), mix)
	a.m.die("r")
	a.expire()
	rounds(a)
	if s := w.state(g.refs()[0]); s == Locked {
		c := w.claim(g.refs()[0])
		t.Errorf("stays %s: %+v", s, c.Nodes)
	}
}

// The requester died, its process runs: the uid stays, the VLAN goes.
func TestVLANRegressionGroupSplitByInquiry(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000-1009")
	a.pair("100", "200", noCooldown)
	g := a.get(a.m.born("r"), withKey("k"), wants(Want{Pool: "p", Count: 1}, northSouth()[0]))
	a.m.start(g.ref().ID)
	a.m.die("r")
	rounds(a)
	if x, y := w.state(g.refs()[0]), w.state(g.refs()[1]); x == Used && y != Used {
		t.Errorf("uid %q, VLAN %q", x, y)
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

// Wants that share a pool are counted once each, whoever has the least choice.
func TestVLANRegressionCountedTwice(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pair("100-104", "200")
	for i, one := range []uint32{104, 100} {
		within := idset.New(one)
		g := a.get(Requester{}, withKey(fmt.Sprint(i)), wants(Want{Pool: VLANPool("fa"), Count: 3}, Want{Pool: VLANPool("fa"), Count: 1, Within: &within}))
		if len(g.Held) != 4 || g.Held[3].ID != one {
			t.Errorf("got %v", g.refs())
		}
		a.release(g, "")
		a.pool(VLANPool("fa"), "100-104", noCooldown)
		rounds(a)
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

// A release whose claim cannot be read any more.
func TestVLANRegressionMessages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pair("100-104", "200", noCooldown)
	show := func(err error) {
		var p *problem.Error
		errors.As(err, &p)
		t.Logf("%v | notes %q fix %+v", err, p.Notes, p)
	}
	g := a.get(Requester{}, withKey("k"), wants(northSouth()...))
	_, err := a.ask(Requester{}, withKey("k"), wants(northSouth()[:1]...))
	show(err)
	_, err = a.ConfirmGroup(w.ctx(), g.refs()[:1], "x", "")
	show(err)
	_, err = a.ConfirmGroup(w.ctx(), []Ref{vid("fa", 103)}, "x", "")
	show(err)
	_, err = a.ask(Requester{}, wants(Want{Pool: VLANPool("fa"), Count: 2, Exact: u32p(100)}))
	show(err)
	_, err = a.ask(Requester{}, wants(Want{Pool: VLANPool("fa"), Count: 61}))
	show(err)
	a.release(&Grant{Token: g.Token, Held: g.Held[:1]}, "")
	_, err = a.ask(Requester{}, withKey("k"), wants(northSouth()...))
	show(err)
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

// A VLAN that cools down and an unrelated process whose uid is the same number: the node cannot leave.
func TestVLANRegressionLeaveByNumber(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pair("1000", "200", func(p *Pool) { p.Cooldown = time.Hour })
	a.get(a.m.born("r"), wants(northSouth()[0]))
	a.m.die("r")
	a.m.start(1000) // a login of uid 1000: no pool of uids has it
	rounds(a)
	w.mustBe(vid("fa", 1000), Quarantined)
	if err := a.Leave(w.ctx()); err != nil {
		t.Errorf("%v", err)
	}
}

// With the agent's own hold, a TTL: asked again, not kept again.
func TestVLANRegressionLockedForEverTTL(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000-1009")
	a.pair("100", "200", noCooldown)
	mix := []func(*GrantRequest){withKey("k"), wants(Want{Pool: "p", Count: 1}, northSouth()[0]), func(r *GrantRequest) { r.TTL = 300 * time.Millisecond }}
	r := Requester{ID: "allocation", Hold: HoldTTL}
	g := a.get(r, mix...)
	if _, err := a.ConfirmGroup(w.ctx(), g.refs(), g.Token, "allocation"); err != nil {
		t.Fatal(err)
	}
	a.get(r, mix...)
	until(t, "the hold is over", func() bool { return !a.LiveRequester(w.claim(g.ref()).Nodes[0].Requesters[0]) })
	a.expire()
	rounds(a)
	rounds(a)
	if s := w.state(g.ref()); s == Locked {
		t.Errorf("stays %s with locks %v: %+v", s, w.stored(w.keys.LocksPrefix()), w.claim(g.ref()).Nodes)
	}
}

// Fencing lists, as freed, VLANs that wait for nobody.
func TestVLANRegressionConcern(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pair("1000", "200", func(p *Pool) { p.Cooldown = time.Hour })
	a.get(a.m.born("r"), wants(northSouth()[0]))
	a.m.die("r")
	rounds(a)
	a.mirror.read(func(v *view) {
		if refs := v.concern("n1"); len(refs) > 0 {
			t.Errorf("a fence would free %v", refs)
		}
	})
}

// A VLAN that nobody could find again if the answer were lost is not granted.
func TestVLANRegressionKeyless(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pair("100", "200", noCooldown)
	_, err := a.ask(Requester{}, wants(northSouth()...))
	mustErr(t, err, problem.ErrInvalid, "neither an allocation key nor a hold")
	g := a.get(a.m.born("r"), wants(northSouth()...))
	a.crash()
	a.m.die("r")
	a = a.again()
	rounds(a)
	for _, ref := range g.refs() {
		w.mustBe(ref, Free)
	}
}
