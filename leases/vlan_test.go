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

func noCooldown(p *Pool) { p.Cooldown = 0 }

func vid(inventory string, id uint32) Ref { return Ref{cluster.VLANSpace(inventory), id} }

// pair makes two inventories and a request for a VLAN of each, for a service.
func (a *agent) pair(north, south string, change ...func(*Pool)) {
	a.pool(VLANPool("fa"), north, change...)
	a.pool(VLANPool("fb"), south, change...)
	a.sync()
}

func northSouth() []Want {
	return []Want{{Pool: VLANPool("fa"), Count: 1, Label: "north"}, {Pool: VLANPool("fb"), Count: 1, Label: "south"}}
}

// serve asks for VLANs with a document; before is what it rests on.
func (a *agent) serve(name string, before []byte, ws []Want, change ...func(*GrantRequest)) (*Grant, []byte, error) {
	var doc []byte
	req := GrantRequest{Caller: "net", Wants: ws, Service: name, Document: &DocumentGrant{Name: name, Before: before, After: func(g *Grant) []byte {
		doc = fmt.Appendf(nil, `{"token":%q,"w":%q}`, g.Token, NewToken())
		return doc
	}}}
	for _, f := range change {
		f(&req)
	}
	g, err := a.Grant(a.w.ctx(), req)
	return g, doc, err
}

func tokens(g *Grant) []TokenRef {
	var all []TokenRef
	for _, h := range g.Held {
		all = append(all, TokenRef{h.Ref, g.Token})
	}
	return all
}

func TestVLANPairIsOneTransaction(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pair("100-101", "200")
	g, _, err := a.serve("edge", nil, northSouth())
	if err != nil {
		t.Fatal(err)
	}
	if g.Held[0].Ref != vid("fa", 100) || g.Held[1].Ref != vid("fb", 200) || g.Held[1].Label != "south" {
		t.Fatalf("got %+v", g.Held)
	}
	n, s := w.claim(g.Held[0].Ref), w.claim(g.Held[1].Ref)
	if n.State != Used || n.Token != s.Token || len(n.Nodes) != 0 || n.Service != "edge" || n.Grouped {
		t.Fatalf("claim %+v", n)
	}
	kvs, err := w.client.Txn().Get(w.ctx(), w.keys.Root(), clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	rev := map[string]int64{}
	for _, kv := range kvs.Kvs {
		rev[string(kv.Key)] = kv.ModRevision
	}
	if r := rev[w.keys.Service("edge")]; r == 0 || r != rev[w.keys.Claim("vlan/fa", 100)] || r != rev[w.keys.Claim("vlan/fb", 200)] {
		t.Fatalf("not one revision: %v", rev)
	}
	if len(w.stored(w.keys.LocksIn("vlan/fa"))) != 0 || len(w.stored(w.keys.GrantsPrefix())) != 0 {
		t.Fatal("a service's VLANs have a lock or a grant record")
	}
	// The south is exhausted now: nothing of the next pair is granted.
	_, _, err = a.serve("next", nil, northSouth())
	mustErr(t, err, problem.ErrExhausted, "inventory fb is exhausted: 0 of 1 VLANs free")
	var p *problem.Error
	if !errors.As(err, &p) || p.Attribute != "south" {
		t.Fatalf("attribute %+v", p)
	}
	w.mustBe(vid("fa", 101), Free)
	if _, there := w.stored(w.keys.Service("next"))[w.keys.Service("next")]; there {
		t.Fatal("a record without its VLANs")
	}
}

func TestVLANTies(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pair("100-110", "100-110,300-310")
	at := func(n int64) *int64 { return &n }
	id := func(n uint32) *uint32 { return &n }
	odd := idset.New(101, 103, 105, 107, 109)
	get := func(service string, ws []Want) (uint32, uint32, error) {
		g, _, err := a.serve(service, nil, ws)
		if err != nil {
			return 0, 0, err
		}
		return g.Held[0].ID, g.Held[1].ID, nil
	}
	tie := func(off int64, change func(ws []Want)) []Want {
		ws := northSouth()
		ws[1].Offset = at(off)
		if change != nil {
			change(ws)
		}
		return ws
	}
	expect := func(name string, ws []Want, north, south uint32) {
		t.Helper()
		n, s, err := get(name, ws)
		if err != nil || n != north || s != south {
			t.Fatalf("%s: got %d and %d (%v), want %d and %d", name, n, s, err, north, south)
		}
	}
	south100 := []Want{{Pool: VLANPool("fb"), Count: 1, Exact: id(100)}}
	if _, _, err := a.serve("block", nil, south100); err != nil {
		t.Fatal(err)
	}
	expect("same", tie(0, nil), 101, 101) // 100 is taken in the south
	expect("offset", tie(200, nil), 100, 300)
	expect("odd", tie(0, func(ws []Want) { ws[0].Within = &odd; ws[1].Within = &odd }), 103, 103)
	expect("number", tie(0, func(ws []Want) { ws[0].Exact = id(108) }), 108, 108)
	_, _, err := get("taken", tie(0, func(ws []Want) { ws[0].Exact = id(103) }))
	mustErr(t, err, problem.ErrHeld, "VLAN 103 of fa")
	_, _, err = get("outside", tie(500, func(ws []Want) { ws[0].Exact = id(104) }))
	mustErr(t, err, problem.ErrOutsidePool, "VLAN 604 is not in inventory fb")
	_, _, err = get("never", tie(2000, nil))
	mustErr(t, err, problem.ErrExhausted, "no VLAN is free on all sides", "fb:")
	twice := northSouth()
	twice[1].Pool, twice[1].Offset = VLANPool("fa"), at(0)
	_, _, err = get("twice", twice)
	mustErr(t, err, problem.ErrInvalid, "fa cannot give one VLAN to two attributes")
	negative := tie(-1, nil)
	expect("below", negative, 105, 104)
	// One inventory for both sides gives two VLANs.
	both := northSouth()
	both[1].Pool = VLANPool("fa")
	expect("both", both, 102, 104)
}

func TestVLANDryRunWritesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pair("100", "200")
	before := w.stored(w.keys.Root())
	g, _, err := a.serve("edge", nil, northSouth(), func(r *GrantRequest) { r.Dry = true })
	if err != nil || g.Token != "" || g.Held[1].ID != 200 {
		t.Fatalf("%+v, %v", g, err)
	}
	if after := w.stored(w.keys.Root()); len(after) != len(before) {
		t.Fatalf("a dry run wrote: %d keys, then %d", len(before), len(after))
	}
	if _, _, err := a.serve("edge", nil, northSouth()); err != nil {
		t.Fatalf("after the dry run: %v", err)
	}
}

func TestVLANCooldown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pair("100", "200", func(p *Pool) { p.Cooldown = time.Hour })
	g, doc, err := a.serve("edge", nil, northSouth())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.ChangeDocument(w.ctx(), "doc", DocumentChange{Name: "edge", Before: doc, Release: tokens(g), Reason: "service edge deleted"}); err != nil {
		t.Fatal(err)
	}
	rounds(a)
	w.mustBe(vid("fa", 100), Quarantined)
	_, _, err = a.serve("next", nil, northSouth())
	mustErr(t, err, problem.ErrExhausted)
	var p *problem.Error
	if errors.As(err, &p); len(p.Notes) < 2 {
		t.Fatalf("does not say that it cools down: %+v", p)
	}
	a.pool(VLANPool("fa"), "100", noCooldown)
	a.pool(VLANPool("fb"), "200", noCooldown)
	rounds(a)
	w.mustBe(vid("fa", 100), Free)
	if _, _, err = a.serve("next", nil, northSouth()); err != nil {
		t.Fatal(err)
	}
}

// TestVLANsOutliveTheirNode: a used VLAN is on the switches, whatever becomes of
// the agent's machine. One that was being handed over is given back.
func TestVLANsOutliveTheirNode(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pair("100-109", "200", noCooldown)
	g, _, err := a.serve("edge", nil, northSouth())
	if err != nil {
		t.Fatal(err)
	}
	locked := a.get(a.m.born("r"), wants(Want{Pool: VLANPool("fa"), Count: 1}))
	w.mustBe(locked.ref(), Locked)
	a = a.reboot()
	rounds(a)
	w.mustBe(g.Held[0].Ref, Used)
	w.mustBe(g.Held[1].Ref, Used)
	w.mustBe(locked.ref(), Free)
}

// TestMixedGroup: uids and VLANs in one transaction, kept or given back together.
func TestMixedGroup(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000-1009")
	a.pair("100-109", "200", noCooldown)
	mix := wants(Want{Pool: "p", Count: 2}, Want{Pool: VLANPool("fa"), Count: 1, Label: "north"}, Want{Pool: VLANPool("fb"), Count: 1})
	g := a.get(a.m.born("alloc"), withKey("k"), mix)
	if len(g.Held) != 4 || g.Held[2].Label != "north" {
		t.Fatalf("%+v", g.Held)
	}
	// The requester dies before anybody confirmed: all of it comes back.
	a.m.die("alloc")
	rounds(a)
	for _, r := range g.refs() {
		w.mustBe(r, Free)
	}
	g = a.get(a.m.born("alloc2"), withKey("k2"), mix)
	if _, err := a.ConfirmGroup(w.ctx(), g.refs(), g.Token, "alloc2"); err != nil {
		t.Fatal(err)
	}
	a.m.die("alloc2")
	rounds(a)
	for _, r := range g.refs() {
		w.mustBe(r, Used)
	}
	_, err := a.ask(a.m.born("x"), mix) // the south is gone
	mustErr(t, err, problem.ErrExhausted)
	again := a.get(a.m.born("alloc2"), withKey("k2"), mix)
	if !again.Same || again.Token != g.Token || again.Held[2].Label != "north" {
		t.Fatalf("the same request again: %+v", again)
	}
	if _, err := a.ConfirmGroup(w.ctx(), again.refs(), again.Token, "alloc2"); err != nil {
		t.Fatal(err)
	}
	refs, token, err := a.Find(w.ctx(), "tenant", "k2")
	if err != nil {
		t.Fatal(err)
	}
	if _, changed, err := a.Release(w.ctx(), Release{Refs: refs, Token: token, By: "tenant"}); err != nil || !changed {
		t.Fatalf("release: %v %v", changed, err)
	}
	a.m.die("alloc2")
	rounds(a)
	for _, r := range g.refs() {
		w.mustBe(r, Free)
	}
}

// TestVLANKeyAgain: VLANs alone need no hand-over; the same request under its key
// is answered by a read.
func TestVLANKeyAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pair("100-109", "200")
	g := a.get(Requester{}, withKey("k"), wants(northSouth()...))
	before := w.claim(g.ref()).Write
	again := a.get(Requester{}, withKey("k"), wants(northSouth()...))
	if !again.Same || again.Token != g.Token || again.Held[1].Label != "south" || w.claim(g.ref()).Write != before {
		t.Fatalf("%+v", again)
	}
	if !a.release(g, "") {
		t.Fatal("not released")
	}
	_, err := a.ask(Requester{}, withKey("k"), wants(northSouth()...))
	mustErr(t, err, problem.ErrKeyEnded)
	if a.release(g, "") {
		t.Fatal("released twice")
	}
	_, err = a.ask(Requester{}, wants(Want{Pool: "p"}))
	mustErr(t, err, problem.ErrInvalid, "names no hold")
}

func TestInventoryDefinition(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	set := func(edit func(*Pool)) error {
		_, _, err := a.SetPool(w.ctx(), VLANPool("fa"), false, func(p *Pool, _ bool) error { edit(p); return nil })
		return err
	}
	ranges := func(lo, hi uint32) func(*Pool) {
		return func(p *Pool) { p.Ranges = idset.Of(idset.Range{Lower: lo, Higher: hi}) }
	}
	mustErr(t, set(ranges(0, 10)), problem.ErrInvalid, "0 is no VLAN")
	mustErr(t, set(ranges(4000, 4095)), problem.ErrInvalid, "4095 is no VLAN")
	mustErr(t, set(func(p *Pool) { p.Proof = ProofHolders }), problem.ErrInvalid, "need no proof")
	if err := set(ranges(100, 102)); err != nil {
		t.Fatal(err)
	}
	a.pool("fa", "100-102") // a uid pool of that name is another thing
	a.sync()
	g := a.get(Requester{}, withKey("two"), wants(Want{Pool: VLANPool("fa"), Count: 2}))
	if err := set(ranges(101, 110)); err != nil {
		t.Fatal(err)
	}
	a.sync()
	info, err := a.Pool(VLANPool("fa"))
	if err != nil || info.Counts["outside"] != 1 || info.Counts["used"] != 1 || info.Counts["free"] != 9 {
		t.Fatalf("after the resize: %+v %v", info.Counts, err)
	}
	mustErr(t, set(func(p *Pool) {
		p.Ranges = idset.Set{}
		p.Outside = &Outside{File: "/x", On: "n1"}
	}), problem.ErrHeld, "inventory fa not stored: 2 of its VLANs are held")
	mustErr(t, a.DeletePool(w.ctx(), VLANPool("fa")), problem.ErrHeld, "inventory fa not deleted")
	a.pool(VLANPool("fa"), "101-110", noCooldown)
	a.release(g, "")
	if err := set(func(p *Pool) {
		p.Ranges = idset.Set{}
		p.Outside = &Outside{File: "/x", On: "n1"}
	}); err != nil {
		t.Fatal(err)
	}
	_, err = a.ask(Requester{}, withKey("x"), wants(Want{Pool: VLANPool("fa")}))
	mustErr(t, err, problem.ErrInvalid, "inventory fa is kept in file /x on node n1")
	if err := a.DeletePool(w.ctx(), VLANPool("fa")); err != nil {
		t.Fatal(err)
	}
	if len(a.Inventories()) != 0 || len(a.Pools()) != 1 {
		t.Fatalf("%v %v", a.Inventories(), a.Pools())
	}
}

func TestImport(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pair("100-300", "200")
	g := a.get(Requester{}, withKey("x"), wants(Want{Pool: VLANPool("fa")}))
	holders := map[uint32]string{50: "outside the range"}
	for id := uint32(100); id < 220; id++ {
		holders[id] = "imported"
	}
	steps := 0
	added, err := a.Import(w.ctx(), VLANPool("fa"), holders, "op", func(int) { steps++ })
	if err != nil || added.Count() != 120 || added.Contains(g.ref().ID) || steps != 3 {
		t.Fatalf("%d added in %d steps, %v", added.Count(), steps, err)
	}
	added, err = a.Import(w.ctx(), VLANPool("fa"), holders, "op", nil)
	if err != nil || !added.IsEmpty() {
		t.Fatalf("again: %v %v", added, err)
	}
	if c := w.claim(vid("fa", 219)); c.State != Used || c.Holder != "imported" || c.Caller != "op" || len(c.Nodes) != 0 {
		t.Fatalf("%+v", c)
	}
}
