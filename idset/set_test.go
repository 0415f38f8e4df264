package idset_test

import (
	"encoding/json"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/idpool/idpool/idset"
)

const top = 1<<32 - 1

var everything = idset.Of(idset.Range{Lower: 0, Higher: top})

func parse(t testing.TB, text string) idset.Set {
	t.Helper()
	s, err := idset.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRange(t *testing.T) {
	for _, c := range []struct {
		r     idset.Range
		text  string
		count uint64
	}{
		{idset.Range{Lower: 0, Higher: 0}, "0", 1},
		{idset.Range{Lower: 5, Higher: 7}, "5-7", 3},
		{idset.Range{Lower: 0, Higher: top}, "0-4294967295", 1 << 32},
		{idset.Range{Lower: top, Higher: top}, "4294967295", 1},
		{idset.Range{Lower: 9, Higher: 3}, "9-3", 0},
	} {
		if got := c.r.String(); got != c.text {
			t.Errorf("String: got %q, want %q", got, c.text)
		}
		if got := c.r.Count(); got != c.count {
			t.Errorf("%s: Count: got %d, want %d", c.text, got, c.count)
		}
		if got := c.r.Contains(c.r.Lower) && c.r.Contains(c.r.Higher); got != (c.count > 0) {
			t.Errorf("%s contains its ends: %v", c.text, got)
		}
	}
	got, err := json.Marshal(idset.Range{Lower: 1, Higher: 2})
	if err != nil || string(got) != `{"lower":1,"higher":2}` {
		t.Errorf("JSON: %s, %v", got, err)
	}
}

func TestEmpty(t *testing.T) {
	var s idset.Set
	for name, got := range map[string]bool{
		"Min":                   second(s.Min()),
		"Max":                   second(s.Max()),
		"Nth":                   second(s.Nth(0)),
		"Next":                  second(s.Next(0)),
		"Random":                second(s.Random(nil)),
		"NthWithout":            second(s.NthWithout(everything, 0)),
		"RandomWithout, empty":  second(s.RandomWithout(everything, nil)),
		"RandomWithout, taken":  second(everything.RandomWithout(everything, nil)),
		"NextWithout, empty":    second(s.NextWithout(s, 0)),
		"NextWithout, taken":    second(everything.NextWithout(everything, 0)),
		"NthWithout, taken":     second(everything.NthWithout(everything, 0)),
		"Contains":              s.Contains(0),
		"Equal to everything":   s.Equal(everything),
		"Remove leaves some":    !everything.Remove(everything).IsEmpty(),
		"inverted range counts": !idset.Of(idset.Range{Lower: 2, Higher: 1}).IsZero(),
	} {
		if got {
			t.Errorf("%s: got true for an empty set", name)
		}
	}
	if s.String() != "" || s.RangeList() != nil || s.Count() != 0 {
		t.Errorf("zero value prints %q, %v, %d", s, s.RangeList(), s.Count())
	}
	s.Delete(7)
	s.Insert(top)
	if got := s.String(); got != "4294967295" {
		t.Errorf("insert into the zero value: %q", got)
	}
	s.Delete(top)
	if !s.Equal(idset.Set{}) {
		t.Errorf("emptied set is %q", s)
	}
}

func second(_ uint32, ok bool) bool { return ok }

// TestEverything has all ids in one set: what costs memory or time by the id
// shows here.
func TestEverything(t *testing.T) {
	if got := everything.Count(); got != 1<<32 {
		t.Errorf("Count: %d", got)
	}
	if got := everything.String(); got != "0-4294967295" {
		t.Errorf("String: %q", got)
	}
	for _, n := range []uint64{0, 1, 1<<24 - 1, 1 << 24, 1<<31 + 5, top - 1, top} {
		if got, ok := everything.Nth(n); !ok || uint64(got) != n {
			t.Errorf("Nth(%d): %d, %v", n, got, ok)
		}
	}
	if id, ok := everything.Nth(1 << 32); ok {
		t.Errorf("Nth beyond the top: %d", id)
	}
	holed := everything.Remove(idset.New(0, 70000, top))
	if got, want := holed.String(), "1-69999,70001-4294967294"; got != want {
		t.Errorf("holed: %s, want %s", got, want)
	}
	if got := everything.Blocks(1 << 30).String(); got != "0,1073741824,2147483648,3221225472" {
		t.Errorf("Blocks(2^30): %s", got)
	}
	if got := everything.Blocks(65536).Count(); got != 65536 {
		t.Errorf("Blocks(65536): %d", got)
	}
	if got := holed.Blocks(65536).Count(); got != 65533 {
		t.Errorf("Blocks(65536) with three holes: %d", got)
	}
	if got := everything.Blocks(top).String(); got != "0" {
		t.Errorf("Blocks(4294967295): %q", got)
	}
}

// TestRandomReachesBothEnds fails for a pick that never returns the top id.
func TestRandomReachesBothEnds(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, s := range []idset.Set{
		idset.Of(idset.Range{Lower: top - 3, Higher: top}),
		idset.New(0, 1, 2, 3),
		idset.New(0, 77777, 1<<24, top),
	} {
		seen, seenFree := map[uint32]int{}, map[uint32]int{}
		second, _ := s.Nth(1)
		for range 4000 {
			id, ok := s.Random(r)
			if !ok || !s.Contains(id) {
				t.Fatalf("%s: picked %d, %v", s, id, ok)
			}
			seen[id]++
			id, _ = s.RandomWithout(idset.New(second), r)
			seenFree[id]++
		}
		for id := range s.All() {
			if n := seen[id]; n < 800 || n > 1200 {
				t.Errorf("%s: %d picked %d times of 4000", s, id, n)
			}
			if n := seenFree[id]; id != second && (n < 1100 || n > 1560) || id == second && n > 0 {
				t.Errorf("%s without %d: %d picked %d times of 4000", s, second, id, n)
			}
		}
	}
}

// TestRandomWithoutNearlyExhausted goes past the quick tries.
func TestRandomWithoutNearlyExhausted(t *testing.T) {
	pool := parse(t, "1000-9999,4294960000-4294967295")
	taken := pool.Remove(idset.New(1000, 5555, top))
	seen := map[uint32]bool{}
	for range 200 {
		id, ok := pool.RandomWithout(taken, nil)
		if !ok {
			t.Fatal("nothing free")
		}
		seen[id] = true
	}
	want := map[uint32]bool{1000: true, 5555: true, top: true}
	if diff := cmp.Diff(want, seen); diff != "" {
		t.Errorf("picked (-want +got):\n%s", diff)
	}
}

// TestNextWithoutInterleaved has more covered ranges in a row than are stepped
// over one by one.
func TestNextWithoutInterleaved(t *testing.T) {
	var even []uint32
	for id := uint32(0); id < 20000; id += 2 {
		even = append(even, 1<<24-10000+id)
	}
	pool := idset.New(even...)
	if id, ok := pool.NextWithout(pool, 0); ok {
		t.Errorf("found %d in a pool that is all taken", id)
	}
	free := even[len(even)-1]
	taken := pool.Clone()
	taken.Delete(free)
	if id, ok := pool.NextWithout(taken, 0); !ok || id != free {
		t.Errorf("got %d, %v; want %d", id, ok, free)
	}
	if id, ok := pool.NextWithout(taken, free+1); ok {
		t.Errorf("found %d above the last", id)
	}
	taken.Delete(even[0])
	if id, ok := pool.NextWithout(taken, even[1]); !ok || id != free {
		t.Errorf("from %d: got %d, %v; want %d", even[1], id, ok, free)
	}
}

func TestResultsAreIndependent(t *testing.T) {
	pool := parse(t, "10-20,50000000-50000010")
	other := parse(t, "4294967295")
	results := map[string]idset.Set{
		"Clone": pool.Clone(), "Add": pool.Add(other), "Remove": pool.Remove(other),
		"Intersect": pool.Intersect(everything), "Blocks": pool.Blocks(1),
	}
	before := map[string]string{}
	for name, s := range results {
		before[name] = s.String()
	}
	pool.Insert(30)
	pool.Delete(10)
	pool.Delete(50000005)
	for name, s := range results {
		if got := s.String(); got != before[name] {
			t.Errorf("%s changed with its operand: %s, was %s", name, got, before[name])
		}
		s.Insert(5)
		s.Delete(20)
	}
	if got, want := pool.String(), "11-20,30,50000000-50000004,50000006-50000010"; got != want {
		t.Errorf("operand is %s, want %s", got, want)
	}
}

// TestConcurrentReads is for the race detector: functions that return sets
// mark what they share.
func TestConcurrentReads(t *testing.T) {
	pool := parse(t, "0-99999,4294967295")
	taken := pool.Blocks(2)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			mine := taken.Clone()
			mine.Insert(1)
			if got := pool.Remove(mine).Count(); got != 50000 {
				t.Errorf("rest: %d", got)
			}
			if got := pool.CountWithout(taken); got != 50001 {
				t.Errorf("free: %d", got)
			}
		})
	}
	wg.Wait()
}

// TestMemory bounds what sets of four billion ids keep, and what the
// difference with many scattered ids keeps.
func TestMemory(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var ids []uint32
	for range 100_000 {
		ids = append(ids, r.Uint32())
	}
	taken := idset.New(ids...)
	for _, c := range []struct {
		name  string
		limit uint64
		make  func() idset.Set
	}{
		{"everything", 64 << 10, func() idset.Set { return parse(t, "0-4294967295") }},
		{"all but the ends", 64 << 10, func() idset.Set { return parse(t, "1-4294967294") }},
		{"all but 100k scattered", 16 << 20, func() idset.Set { return everything.Remove(taken) }},
		{"all deleted from in place", 256 << 10, func() idset.Set {
			s := everything.Clone()
			s.Delete(12345)
			return s
		}},
	} {
		base := heap()
		s := c.make()
		grown := heap() - base
		if grown > c.limit {
			t.Errorf("%s keeps %d bytes, want at most %d", c.name, grown, c.limit)
		}
		t.Logf("%s: %d bytes, %d ids", c.name, grown, s.Count())
		runtime.KeepAlive(s)
	}
	runtime.KeepAlive(taken)
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestCountWithoutAllocatesNothing covers each pair of representations.
func TestCountWithoutAllocatesNothing(t *testing.T) {
	odd := idset.Of(idset.Range{Lower: 0, Higher: 4000}).Blocks(2)
	sets := []idset.Set{everything, parse(t, "5-50000000"), odd, scattered(1000, 0, top)}
	for i, pool := range sets {
		for k, taken := range sets {
			if n := testing.AllocsPerRun(10, func() { pool.CountWithout(taken) }); n > 0 {
				t.Errorf("pool %d without %d: %v allocations", i, k, n)
			}
		}
	}
}

func TestIteratorsStop(t *testing.T) {
	s := parse(t, "1-3,5,16777210-16777220,4294967295")
	for n := range 4 {
		var got []idset.Range
		for r := range s.Ranges() {
			if len(got) == n {
				break
			}
			got = append(got, r)
		}
		if !slices.Equal(got, s.RangeList()[:n]) {
			t.Errorf("first %d ranges: %v", n, got)
		}
	}
	for id := range s.All() {
		if id == 3 {
			break
		}
	}
}
