package leases

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/problem"
)

func once(f func()) func() { var o sync.Once; return func() { o.Do(f) } }

func u32p(n uint32) *uint32 { return &n }

func i64p(n int64) *int64 { return &n }

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
	mix := []func(*GrantRequest){withKey("k"), wants(Want{Pool: "p", Count: 1}, northSouth()[0]), func(r *GrantRequest) { r.TTL = 3 * time.Second }}
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
