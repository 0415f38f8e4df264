package leases

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/problem"
)

func TestFiveHundredGrantsAreDistinct(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.pool("p", "1000-1599")
	b.sync()
	var mu sync.Mutex
	holder := map[Ref]string{}
	var wg sync.WaitGroup
	for i := range 500 {
		wg.Go(func() {
			on := []*agent{a, b}[i%2]
			g, err := on.ask(on.m.born(fmt.Sprint("r", i)))
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if other, taken := holder[g.ref()]; taken {
				t.Errorf("%s is %s's and %s's", g.ref(), other, g.Token)
			}
			holder[g.ref()] = g.Token
		})
	}
	wg.Wait()
	for ref, token := range holder {
		a.sync()
		if c := a.Get(w.ctx(), ref).Claim; c == nil || c.Token != token {
			t.Fatalf("%s: %+v", ref, c)
		}
	}
	if n := len(w.stored(w.keys.ClaimsPrefix())); n != 500 {
		t.Errorf("%d claims for 500 grants", n)
	}
}

func TestAGroupOfSixtyBesideSixtySingles(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000-1199")
	var wg sync.WaitGroup
	wg.Go(func() {
		g, err := a.ask(a.m.born("g"), withKey("K"), wants(Want{Pool: "p", Count: MaxGroup}))
		if err != nil || len(g.Held) != MaxGroup {
			t.Errorf("%v", err)
			return
		}
		revs := map[int64]bool{}
		for _, h := range g.Held {
			revs[h.ModRev] = true
		}
		if len(revs) != 1 {
			t.Errorf("the group was granted at revisions %v", revs)
		}
		if !a.release(g, "g") {
			t.Error("not released")
		}
	})
	for i := range 60 {
		wg.Go(func() {
			if _, err := a.ask(a.m.born(fmt.Sprint("r", i))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	rounds(a)
	if n := len(w.stored(w.keys.ClaimsPrefix())); n != 60 {
		t.Errorf("%d claims, want those of the singles", n)
	}
}

func TestAGroupTakesFromSixtyPools(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	var all []Want
	for i := range MaxGroup {
		name := fmt.Sprint("p", i)
		a.pool(name, fmt.Sprint(1000+i))
		all = append(all, Want{Pool: name, Count: 1})
	}
	g := a.get(a.m.born("r"), withKey("K"), wants(all...))
	a.release(g, "r")
	if n := len(w.stored(w.keys.ClaimsPrefix())); n != 0 {
		t.Errorf("%d claims", n)
	}
}

func TestAPoisonedLeaseDoesNotSpoilABatch(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000-1099")
	once := true
	a.net.set(func() {
		a.net.before = func() {
			a.net.set(func() {
				if once {
					once = false
					_, _ = w.client.Renew().Revoke(context.Background(), a.guardNow().lease)
				}
			})
		}
	})
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if _, err := a.ask(a.m.born(fmt.Sprint("r", i))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := len(w.stored(w.keys.ClaimsPrefix())); n != 20 {
		t.Errorf("%d claims", n)
	}
}

func TestAMalformedChildIsFound(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	good := func(id uint32) *child {
		return &child{puts: []put{{key: w.keys.Claim("uid", id), value: []byte("x")}}}
	}
	bad := &child{puts: []put{{key: "", value: []byte("x")}}}
	batch := []*child{good(1), bad, good(2)}
	for _, c := range batch {
		c.done = make(chan childResult, 1)
	}
	a.batch.commit(w.ctx(), batch)
	for i, c := range batch {
		r := <-c.done
		if r.applied != (c != bad) || (r.err != nil) != (c == bad) {
			t.Errorf("child %d: applied %v, %v", i, r.applied, r.err)
		}
	}
}

func TestDistinct(t *testing.T) {
	writes := func(alone bool, keys ...string) *child {
		c := &child{alone: alone}
		for _, k := range keys {
			c.puts = append(c.puts, put{key: k})
		}
		return c
	}
	big := writes(false)
	for i := range 121 {
		big.puts = append(big.puts, put{key: fmt.Sprint("big", i)})
	}
	for _, c := range []struct {
		name  string
		batch []*child
		want  []int
	}{
		{"different keys", []*child{writes(false, "a"), writes(false, "b"), writes(false, "c")}, []int{3}},
		{"the same key", []*child{writes(false, "a"), writes(false, "a", "b"), writes(false, "c")}, []int{2, 1}},
		{"one alone", []*child{writes(false, "a"), writes(true, "b"), writes(false, "c")}, []int{2, 1}},
		{"the first alone", []*child{writes(true, "a"), writes(false, "b")}, []int{1, 1}},
		{"a large one", []*child{big, writes(false, "1"), writes(false, "2"), writes(false, "3"), writes(false, "4"), writes(false, "5"), writes(false, "6")}, []int{6, 1}},
	} {
		var got []int
		total := 0
		for _, part := range distinct(c.batch) {
			got = append(got, len(part))
			total += len(part)
		}
		if fmt.Sprint(got) != fmt.Sprint(c.want) || total != len(c.batch) {
			t.Errorf("%s: parts %v, want %v", c.name, got, c.want)
		}
	}
}

func TestUnavailableBeforeItIsSentIsNothingDone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *cluster.Config) { c.Attempt, c.Budget = 100*time.Millisecond, 300*time.Millisecond })
	a := w.node("n1")
	a.pool("p", "1000")
	g := a.get(a.m.born("r"))
	a.net.set(func() { a.net.fail = 1 << 30 })
	_, _, err := a.Release(w.ctx(), Release{Refs: g.refs(), Token: g.Token, Whole: true, By: "x"})
	mustErr(t, err, problem.ErrUnavailable, "nothing was done")
	a.net.set(func() { a.net.fail = 0 })
	w.mustBe(g.ref(), Locked)
}

func BenchmarkBatchAgainstSingles(b *testing.B) {
	w := newWorld(b)
	a := w.node("n1")
	a.pool("p", "100000-9999999")
	const n = 60
	var batched, single time.Duration
	for i := 0; b.Loop(); i++ {
		start := BootTime()
		var wg sync.WaitGroup
		for range n {
			wg.Go(func() {
				if _, err := a.ask(Requester{ID: "r", Hold: HoldPID}); err != nil {
					b.Error(err)
				}
			})
		}
		wg.Wait()
		batched += BootTime() - start
		start = BootTime()
		for j := range n {
			key := fmt.Sprintf("%sbench/%d/%d", w.keys.Root(), i, j)
			if _, err := w.client.Commit(context.Background(), nil, []clientv3.Op{clientv3.OpPut(key, "x")}, nil); err != nil {
				b.Fatal(err)
			}
		}
		single += BootTime() - start
	}
	b.ReportMetric(float64(single)/float64(batched), "singles/batch")
}
