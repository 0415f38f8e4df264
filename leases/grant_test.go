package leases

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/problem"
)

func TestGroupIsAllOrNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.pool("p", "1000-1009")
	b.sync()
	revOf := func(refs []Ref) map[int64]bool {
		revs := map[int64]bool{}
		for _, ref := range refs {
			a.sync()
			revs[a.Get(w.ctx(), ref).ModRev] = true
		}
		return revs
	}
	g := a.get(a.m.born("r"), wants(Want{Pool: "p", Count: 4}))
	if len(g.Held) != 4 || len(revOf(g.refs())) != 1 {
		t.Fatalf("%d ids at revisions %v", len(g.Held), revOf(g.refs()))
	}
	// n2's mirror lags: it picks a group of which one id is taken meanwhile.
	b.sync()
	picks, err := b.pick([]Want{{Pool: "p", Count: 5}})
	if err != nil || len(picks) != 5 {
		t.Fatalf("%v, %v", picks, err)
	}
	a.get(a.m.born("x"), exact(picks[4].ref.ID))
	c, _ := b.grantChild(GrantRequest{Caller: "t", Requester: b.m.born("y")}, picks, NewToken(), b.guardNow().epoch)
	r := b.batch.submit(w.ctx(), c)
	if r.err != nil || r.applied {
		t.Fatalf("applied %v, %v", r.applied, r.err)
	}
	for _, p := range picks[:4] {
		w.mustBe(p.ref, Free)
	}
	if len(w.stored(w.keys.GrantsOf("t"))) != 0 {
		t.Error("a record of a refused group")
	}
}

func TestSameKeySameGrant(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.pool("p", "1000-1099")
	b.sync()
	var mu sync.Mutex
	tokens := map[string]bool{}
	ids := map[Ref]bool{}
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			on := []*agent{a, b}[i%2]
			g, err := on.ask(on.m.born(fmt.Sprint("r", i)), withKey("K"), func(r *GrantRequest) { r.Holder = fmt.Sprint("words differ ", i) })
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			tokens[g.Token], ids[g.ref()] = true, true
		})
	}
	wg.Wait()
	if len(tokens) != 1 || len(ids) != 1 {
		t.Fatalf("16 requests under one key: tokens %v, ids %v", tokens, ids)
	}
	if n := len(w.stored(w.keys.ClaimsPrefix())); n != 1 {
		t.Errorf("%d claims", n)
	}
	for ref := range ids {
		c := w.claim(ref)
		if n := len(c.On("n1").Requesters) + len(c.On("n2").Requesters); n != 16 {
			t.Errorf("%d requesters are bound, want 16", n)
		}
	}
}

func TestKeysAreRefusedByName(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000-1009")
	g := a.get(a.m.born("r"), withKey("K"))
	_, err := a.ask(a.m.born("r2"), withKey("K"), wants(Want{Pool: "p", Count: 2}))
	mustErr(t, err, problem.ErrKeyConflict, "K", "1 of p", "2 of p", fmt.Sprint(g.ref().ID))
	_, err = a.ask(a.m.born("r2"), withKey("K"), func(r *GrantRequest) { r.Caller = "another" })
	mustErr(t, err, problem.ErrKeyConflict, "tenant")
	if _, _, err := a.Find(w.ctx(), "another", "K"); !errors.Is(err, problem.ErrHeld) {
		t.Errorf("another's key: %v", err)
	}
	if refs, token, err := a.Find(w.ctx(), "tenant", "K"); err != nil || token != g.Token || len(refs) != 1 {
		t.Errorf("find: %v, %v, %v", refs, token, err)
	}
	a.release(g, "r")
	_, err = a.ask(a.m.born("r3"), withKey("K"))
	mustErr(t, err, problem.ErrKeyEnded, "K")
	if _, _, err := a.Find(w.ctx(), "tenant", "K"); !errors.Is(err, problem.ErrKeyEnded) {
		t.Errorf("ended key: %v", err)
	}
	if _, _, err := a.Find(w.ctx(), "tenant", "none"); !errors.Is(err, problem.ErrNotFound) {
		t.Errorf("no key: %v", err)
	}
	if n := len(w.stored(w.keys.ClaimsPrefix())); n != 0 {
		t.Errorf("refusals left %d claims", n)
	}
}

func TestRefusalsOfARequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	_, err := a.ask(a.m.born("r"))
	mustErr(t, err, problem.ErrNotFound, "no pool p, and no other")
	a.pool("p", "1000-1099")
	g := a.get(a.m.born("r"), exact(1005), func(r *GrantRequest) { r.Holder = "slurm:7" })
	within := idset.New(5)
	big := uint32(1000)
	for _, c := range []struct {
		wants []Want
		want  error
		says  string
	}{
		{[]Want{{Pool: "p", Exact: &g.Held[0].ID}}, problem.ErrHeld, "slurm:7"},
		{[]Want{{Pool: "p", Exact: &within.RangeList()[0].Lower}}, problem.ErrOutsidePool, "uid 5 is not in pool p"},
		{[]Want{{Pool: "p", Within: &within}}, problem.ErrOutsidePool, "none of 5"},
		{[]Want{{Pool: "q"}}, problem.ErrNotFound, "pools: p"},
		{[]Want{{Pool: "p", Count: MaxGroup + 1}}, problem.ErrInvalid, "61 ids"},
		{[]Want{{Pool: "p", Count: 40}, {Pool: "p", Count: 21}}, problem.ErrInvalid, "61 ids"},
		{[]Want{{Pool: "p", Count: -1}}, problem.ErrInvalid, "count -1"},
		{[]Want{{Pool: "p", Count: 2, Exact: &big}}, problem.ErrInvalid, "count 2"},
		{[]Want{{Pool: "p", Exact: &big}, {Pool: "p", Exact: &big}}, problem.ErrInvalid, "twice"},
		{nil, problem.ErrInvalid, "nothing"},
	} {
		_, err := a.ask(a.m.born("x"), wants(c.wants...))
		mustErr(t, err, c.want, c.says)
	}
	_, err = a.ask(a.m.born("r"), func(r *GrantRequest) { r.Caller = "" })
	mustErr(t, err, problem.ErrInvalid, "caller")
	_, err = a.ask(a.m.born("r"), withKey(strings.Repeat("k", 257)))
	mustErr(t, err, problem.ErrInvalid, "256")
	if n := len(w.stored(w.keys.ClaimsPrefix())); n != 1 {
		t.Errorf("%d claims after refusals", n)
	}
}

func TestANamedIDIsNotPickedByItsSibling(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000-1001", func(p *Pool) { p.Order = OrderLowest })
	named := uint32(1000)
	g := a.get(a.m.born("r"), wants(Want{Pool: "p", Count: 1}, Want{Pool: "p", Exact: &named}))
	if g.Held[0].ID != 1001 || g.Held[1].ID != 1000 {
		t.Errorf("got %v", g.refs())
	}
}

func TestExhaustionIsHonest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.pool("p", "1000-1002")
	b.sync()
	locked, used, gone := a.get(a.m.born("r1")), a.get(a.m.born("r2")), b.get(b.m.born("r3"))
	a.m.start(used.ref().ID)
	a.confirm(used, false, true)
	b.m.start(gone.ref().ID)
	b.release(gone, "r3")
	b.down()
	a.janitorRound()
	_, err := a.ask(a.m.born("r4"))
	mustErr(t, err, problem.ErrExhausted, "pool p is exhausted: 0 of 3 uids free at revision")
	var e *problem.Error
	if !errors.As(err, &e) {
		t.Fatal("no problem")
	}
	if e.Counts["locked"] != 1 || e.Counts["used"] != 1 || e.Counts["quarantined"] != 1 || e.Counts["free"] != 0 || e.Revision == 0 {
		t.Errorf("counts %v at %d", e.Counts, e.Revision)
	}
	if len(e.WaitsFor) != 1 || e.WaitsFor[0].Node != "n2" || e.WaitsFor[0].Why != "absent" || e.WaitsFor[0].LastSeen == nil {
		t.Errorf("waits for %+v", e.WaitsFor)
	}
	if text := e.Text(); !strings.Contains(text, "poolctl node fence n2") || !strings.Contains(text, "1 locked · 1 used · 1 quarantined") {
		t.Errorf("text:\n%s", text)
	}
	_, err = a.ask(a.m.born("r5"), wants(Want{Pool: "p", Count: 2}))
	mustErr(t, err, problem.ErrExhausted, "2 asked for")
	w.mustBe(locked.ref(), Locked)
}

func TestPoolsThatShareIDsAreExhaustedTogether(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000-1001")
	a.pool("q", "1001-1002")
	for range 3 {
		a.sync()
		a.get(a.m.born("r"), func(r *GrantRequest) {
			if a.Taken("uid").Intersect(idset.New(1000, 1001)).Count() == 2 {
				r.Wants[0].Pool = "q"
			}
		})
	}
	a.sync()
	if n := a.Taken("uid").Count(); n != 3 {
		t.Errorf("%d ids taken", n)
	}
	w2 := newWorld(t)
	b := w2.node("n1")
	b.pool("p", "1000-1001")
	b.pool("q", "1000-1001")
	_, err := b.ask(b.m.born("r"), wants(Want{Pool: "p", Count: 2}, Want{Pool: "q", Count: 1}))
	mustErr(t, err, problem.ErrExhausted, "share ids")
	g := b.get(b.m.born("r"), wants(Want{Pool: "p", Count: 1}, Want{Pool: "q", Count: 1}))
	if g.Held[0].Ref == g.Held[1].Ref {
		t.Error("one id twice")
	}
}

func TestForeignAtHandOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000-1001", func(p *Pool) { p.Order = OrderLowest })
	a.m.start(1000) // found by the scan after the grant, under a key
	g := a.get(a.m.born("r"), withKey("K"))
	if g.ref().ID != 1001 {
		t.Fatalf("granted %s, in use", g.ref())
	}
	if c := w.claim(uid(1000)); c == nil || c.State != Quarantined || c.ReasonCode != ReasonForeign {
		t.Errorf("%+v", c)
	}
	a.m.set(func() { a.m.suspect = true }) // and by the cheap look before
	a.m.start(1002)
	a.pool("p", "1002-1003", func(p *Pool) { p.Order = OrderLowest })
	if g := a.get(a.m.born("r2")); g.ref().ID != 1003 {
		t.Errorf("granted %s", g.ref())
	}
	if c := w.claim(uid(1002)); c == nil || c.ReasonCode != ReasonForeign {
		t.Errorf("%+v", c)
	}
}

func TestNodeThatCannotTellGrantsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000")
	a.m.set(func() { a.m.err = errors.New("hidepid") })
	_, err := a.ask(a.m.born("r"), withKey("K"))
	mustErr(t, err, problem.ErrNoProof, "hidepid")
	a.janitorRound()
	_, err = a.ask(a.m.born("r"), withKey("K"))
	mustErr(t, err, problem.ErrNoProof, "cannot prove any uid unused")
	a.sync()
	if n, _ := a.NodeNamed("n1"); n.Alive == nil || !strings.Contains(n.Alive.NoProof, "hidepid") {
		t.Errorf("%+v", n.Alive)
	}
	a.m.set(func() { a.m.err = nil })
	a.m.die("r")
	rounds(a)
	g := a.get(a.m.born("r2"), withKey("K")) // the key was never answered
	w.mustBe(g.ref(), Locked)
}

func TestKeyOfAnUnknownGrantIsAnsweredLater(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000-1009")
	for _, key := range []string{"K", ""} {
		t.Run("key "+key, func(t *testing.T) {
			ctx, cancel := contextWithCancel(w)
			left := make(chan struct{})
			a.net.set(func() {
				a.net.lose = 1
				a.net.before = func() {
					if a.net.lost() {
						cancel() // the caller goes while the outcome is unknown
						<-left
					}
				}
			})
			_, err := a.Grant(ctx, GrantRequest{Caller: "t", Key: key, Requester: a.m.born("r"), Wants: []Want{{Pool: "p", Count: 1}}})
			close(left)
			a.net.set(func() { a.net.before = nil })
			mustErr(t, err, problem.ErrOutcomeUnknown)
			if key == "" { // nobody can ask for it: given back
				until(t, "given back", func() bool {
					a.janitorRound()
					a.reaperRound()
					return len(w.stored(w.keys.ClaimsPrefix())) == 1
				})
				return
			}
			until(t, "the outcome is known", func() bool {
				a.sync()
				rev, _ := a.mirror.Revision()
				busy, _ := a.airborne([]cluster.Space{cluster.SpaceUID}, rev)
				return !busy
			})
			rounds(a)
			g, err := a.Grant(w.ctx(), GrantRequest{Caller: "t", Key: key, Requester: a.m.born("r"), Wants: []Want{{Pool: "p", Count: 1}}})
			if err != nil || len(w.stored(w.keys.ClaimsPrefix())) != 1 {
				t.Fatalf("the same request again: %v, %v", g, err)
			}
			if !g.Same {
				t.Error("another grant")
			}
		})
	}
}
