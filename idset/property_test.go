package idset_test

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/idpool/idpool/idset"
	"pgregory.net/rapid"
)

// model is the naive set that the algebra is compared with.
type model map[uint32]bool

// The universe is three windows: the bottom, a seam between two shards and two
// containers, and the top. They are wide enough for more ranges than a shard
// keeps as a list.
const window = 1200

var origins = []uint32{0, 3<<24 - window/2, 1<<32 - window}

func (m model) sorted() []uint32 { return slices.Sorted(maps.Keys(m)) }

func (m model) add(r idset.Range) {
	for id := uint64(r.Lower); id <= uint64(r.Higher); id++ {
		m[uint32(id)] = true
	}
}

func genRange(t *rapid.T) idset.Range {
	origin := rapid.SampledFrom(origins).Draw(t, "origin")
	from := rapid.Uint32Range(0, window-1).Draw(t, "from")
	to := rapid.Uint32Range(from, window-1).Draw(t, "to")
	return idset.Range{Lower: origin + from, Higher: origin + to}
}

// genSet draws a set in one of its representations, and its model.
func genSet(t *rapid.T) (idset.Set, model) {
	m := model{}
	var ranges []idset.Range
	for range rapid.IntRange(0, 4).Draw(t, "pieces") {
		r := genRange(t)
		step := rapid.SampledFrom([]uint32{1, 1, 2, 3}).Draw(t, "step")
		if step == 1 {
			ranges = append(ranges, r)
			m.add(r)
			continue
		}
		for id := uint64(r.Lower); id <= uint64(r.Higher); id += uint64(step) {
			ranges = append(ranges, idset.Range{Lower: uint32(id), Higher: uint32(id)})
			m[uint32(id)] = true
		}
	}
	s := idset.Of(ranges...)
	for range rapid.IntRange(0, 3).Draw(t, "changes") {
		id := genRange(t).Lower
		if rapid.Bool().Draw(t, "insert") {
			s.Insert(id)
			m[id] = true
		} else {
			s.Delete(id)
			delete(m, id)
		}
	}
	return s, m
}

func check(t *rapid.T, what string, s idset.Set, m model) {
	want := m.sorted()
	if got := slices.Collect(s.All()); !slices.Equal(got, want) {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
	if got := s.Count(); got != uint64(len(want)) {
		t.Fatalf("%s: Count %d, want %d", what, got, len(want))
	}
	if !s.Equal(idset.New(want...)) || !idset.New(want...).Equal(s) {
		t.Fatalf("%s: not equal to the same ids: %s", what, s)
	}
	var pieces []idset.Range
	for _, id := range want {
		if n := len(pieces); n > 0 && pieces[n-1].Higher == id-1 {
			pieces[n-1].Higher = id
		} else {
			pieces = append(pieces, idset.Range{Lower: id, Higher: id})
		}
	}
	if got := s.RangeList(); !slices.Equal(got, pieces) {
		t.Fatalf("%s: ranges %v, want %v", what, got, pieces)
	}
}

func TestAlgebra(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, ma := genSet(t)
		b, mb := genSet(t)
		union, rest, both := maps.Clone(ma), maps.Clone(ma), model{}
		for id := range mb {
			union[id] = true
			delete(rest, id)
			if ma[id] {
				both[id] = true
			}
		}
		check(t, "union", a.Add(b), union)
		check(t, "difference", a.Remove(b), rest)
		check(t, "intersection", a.Intersect(b), both)
		check(t, "left operand", a, ma)
		check(t, "right operand", b, mb)
		if got, want := a.Equal(b), maps.Equal(ma, mb); got != want {
			t.Fatalf("Equal: %v, want %v", got, want)
		}
		// The same against sets that fill whole shards.
		check(t, "complement twice", everything.Remove(everything.Remove(a)), ma)
		check(t, "with everything", everything.Intersect(a), ma)
		if !a.Add(everything).Equal(everything) || !a.Remove(everything).IsEmpty() {
			t.Fatalf("everything does not absorb %s", a)
		}
	})
}

func TestLookups(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, m := genSet(t)
		ids := m.sorted()
		for n, want := range ids {
			if got, ok := s.Nth(uint64(n)); !ok || got != want {
				t.Fatalf("Nth(%d): %d, %v; want %d", n, got, ok, want)
			}
		}
		if id, ok := s.Nth(uint64(len(ids))); ok {
			t.Fatalf("Nth beyond the last: %d", id)
		}
		if len(ids) > 0 {
			low, _ := s.Min()
			high, _ := s.Max()
			if low != ids[0] || high != ids[len(ids)-1] {
				t.Fatalf("Min %d, Max %d; want %d, %d", low, high, ids[0], ids[len(ids)-1])
			}
		}
		for range 20 {
			id := genRange(t).Higher
			if got := s.Contains(id); got != m[id] {
				t.Fatalf("Contains(%d): %v", id, got)
			}
			i, _ := slices.BinarySearch(ids, id)
			if i < len(ids) && ids[i] == id {
				i++
			}
			got, ok := s.Next(id)
			if ok != (i < len(ids)) || ok && got != ids[i] {
				t.Fatalf("Next(%d): %d, %v", id, got, ok)
			}
		}
	})
}

func TestWithout(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pool, mp := genSet(t)
		taken, mt := genSet(t)
		for id := range mt {
			delete(mp, id)
		}
		free := mp.sorted()
		if got := pool.CountWithout(taken); got != uint64(len(free)) {
			t.Fatalf("CountWithout: %d, want %d", got, len(free))
		}
		for n, want := range free {
			if got, ok := pool.NthWithout(taken, uint64(n)); !ok || got != want {
				t.Fatalf("NthWithout(%d): %d, %v; want %d", n, got, ok, want)
			}
		}
		if id, ok := pool.NthWithout(taken, uint64(len(free))); ok {
			t.Fatalf("NthWithout beyond the last: %d", id)
		}
		id, ok := pool.RandomWithout(taken, nil)
		if ok != (len(free) > 0) || ok && !mp[id] {
			t.Fatalf("RandomWithout: %d, %v", id, ok)
		}
		for _, from := range append(origins, genRange(t).Lower, genRange(t).Higher, top) {
			i, _ := slices.BinarySearch(free, from)
			got, ok := pool.NextWithout(taken, from)
			if ok != (i < len(free)) || ok && got != free[i] {
				t.Fatalf("NextWithout(%d): %d, %v; free %v", from, got, ok, free)
			}
		}
	})
}

// TestWithoutLarge compares with the materialised difference where a model
// cannot follow: ranges of any length, up to all ids.
func TestWithoutLarge(t *testing.T) {
	genLarge := func(t *rapid.T) idset.Set {
		ranges := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) idset.Range {
			a, b := rapid.Uint32().Draw(t, "a"), rapid.Uint32().Draw(t, "b")
			return idset.Range{Lower: min(a, b), Higher: max(a, b)}
		}), 0, 5).Draw(t, "ranges")
		small, _ := genSet(t)
		s := idset.Of(ranges...)
		if rapid.Bool().Draw(t, "without") {
			return s.Remove(small)
		}
		return s.Add(small)
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b := genLarge(t), genLarge(t)
		rest := a.Remove(b)
		if got, want := rest.Count()+a.Intersect(b).Count(), a.Count(); got != want {
			t.Fatalf("difference and intersection have %d ids, the set %d", got, want)
		}
		if !rest.Add(b).Equal(a.Add(b)) {
			t.Fatal("difference and taken are not the union")
		}
		free := rest.Count()
		if got := a.CountWithout(b); got != free {
			t.Fatalf("CountWithout: %d, want %d", got, free)
		}
		if free == 0 {
			return
		}
		for _, n := range []uint64{0, free - 1, rapid.Uint64Range(0, free-1).Draw(t, "n")} {
			want, _ := rest.Nth(n)
			if got, ok := a.NthWithout(b, n); !ok || got != want {
				t.Fatalf("NthWithout(%d): %d, %v; want %d", n, got, ok, want)
			}
			if got, ok := a.NextWithout(b, want); !ok || got != want {
				t.Fatalf("NextWithout(%d): %d, %v", want, got, ok)
			}
			if want == top {
				continue
			}
			next, some := rest.Next(want)
			if got, ok := a.NextWithout(b, want+1); ok != some || got != next {
				t.Fatalf("NextWithout(%d): %d, %v; want %d, %v", want+1, got, ok, next, some)
			}
		}
	})
}

func TestBlocks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, m := genSet(t)
		size := rapid.SampledFrom([]uint32{0, 1, 2, 3, 16, 100, 512, 1 << 31, top}).Draw(t, "size")
		want := model{}
		for id := range m {
			whole := size <= 1 || id%size == 0
			for k := uint32(1); whole && k < size; k++ {
				whole = id+k > id && m[id+k]
			}
			if whole {
				want[id] = true
			}
		}
		check(t, "blocks", s.Blocks(size), want)
	})
}

func TestTextRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, _ := genSet(t)
		if got, err := idset.Parse(s.String()); err != nil || !got.Equal(s) {
			t.Fatalf("%q read back as %q, %v", s, got, err)
		}
	})
}

// TestDense churns sets in place until their bitmaps are dense, which the
// windows above are too small for.
func TestDense(t *testing.T) {
	const width = 200_000
	r := rand.New(rand.NewPCG(5, 6))
	churn := func(origin uint32, n int) (idset.Set, []bool) {
		s, m := idset.Of(idset.Range{Lower: origin + 70_000, Higher: origin + 140_000}), make([]bool, width)
		for i := 70_000; i <= 140_000; i++ {
			m[i] = true
		}
		for range n {
			i := r.Uint32N(width)
			if m[i] = r.IntN(3) > 0; m[i] {
				s.Insert(origin + i)
			} else {
				s.Delete(origin + i)
			}
		}
		return s, m
	}
	for _, origin := range []uint32{0, 5<<24 - width/2, 1<<32 - width} {
		a, ma := churn(origin, 100_000)
		b, mb := churn(origin, 300_000)
		m, union, free := model{}, model{}, model{}
		for i := range uint32(width) {
			if ma[i] {
				m[origin+i] = true
			}
			if ma[i] || mb[i] {
				union[origin+i] = true
			}
			if ma[i] && !mb[i] {
				free[origin+i] = true
			}
		}
		for name, c := range map[string]struct {
			got  idset.Set
			want model
		}{"set": {a, m}, "union": {a.Add(b), union}, "difference": {a.Remove(b), free}} {
			if want := c.want.sorted(); !slices.Equal(slices.Collect(c.got.All()), want) || c.got.Count() != uint64(len(want)) {
				t.Errorf("origin %d: %s differs from the model", origin, name)
			}
		}
		ids := free.sorted()
		whole := idset.Of(idset.Range{Lower: origin, Higher: origin + width - 1})
		inWhole := whole.Remove(b)
		for range 300 {
			n := r.Uint64N(uint64(len(ids)))
			if got, _ := a.NthWithout(b, n); got != ids[n] {
				t.Fatalf("origin %d: NthWithout(%d): %d, want %d", origin, n, got, ids[n])
			}
			if got, _ := a.NextWithout(b, ids[n]+1); n+1 < uint64(len(ids)) && got != ids[n+1] {
				t.Fatalf("origin %d: NextWithout(%d): %d, want %d", origin, ids[n]+1, got, ids[n+1])
			}
			k := r.Uint64N(inWhole.Count())
			want, _ := inWhole.Nth(k)
			if got, _ := whole.NthWithout(b, k); got != want {
				t.Fatalf("origin %d: NthWithout(%d) in a range: %d, want %d", origin, k, got, want)
			}
		}
	}
}
