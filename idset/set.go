package idset

import (
	"iter"
	"math/rand/v2"
	"slices"
)

// Set is a set of 32-bit ids. The zero value is the empty set.
//
// All functions that return a Set treat their operands as immutable and return
// a set of its own. A plain copy (t := s) is another name for the same set:
// after [Set.Insert] or [Set.Delete] through one of them the content of the
// other is undefined, so take a [Set.Clone], which costs next to nothing.
type Set struct {
	// shards is ascending by key; each holds at least one id. The slice is
	// replaced, never changed, so that plain copies stay well-formed.
	shards []*shard
}

// New returns the set of the given ids, in any order; repeated ones count once.
func New(ids ...uint32) Set {
	ranges := make([]Range, len(ids))
	for i, id := range ids {
		ranges[i] = Range{id, id}
	}
	return Of(ranges...)
}

// Of returns the union of the given ranges, in any order. A range whose Lower
// is above its Higher is empty and contributes nothing; where that should be an
// error the caller checks it first.
func Of(ranges ...Range) Set {
	var b builder
	for _, r := range normalize(ranges) {
		b.add(r)
	}
	return b.done()
}

// builder makes a set of a run list that is given range by range.
type builder struct {
	runs   []Range // of the shard that is being filled
	shards []*shard
}

func (b *builder) add(r Range) {
	for {
		if len(b.runs) > 0 && shardKey(b.runs[0].Lower) != shardKey(r.Lower) {
			b.flush()
		}
		last := r.Lower | (shardSize - 1)
		if r.Higher <= last {
			b.runs = append(b.runs, r)
			return
		}
		b.runs = append(b.runs, Range{r.Lower, last})
		r.Lower = last + 1
	}
}

func (b *builder) flush() {
	if sh := newShard(b.runs); sh != nil {
		b.shards = append(b.shards, sh)
	}
	b.runs = nil
}

func (b *builder) done() Set {
	b.flush()
	return Set{b.shards}
}

// find returns where the shard of a key is, or would be.
func (s Set) find(key uint8) (int, bool) {
	return slices.BinarySearchFunc(s.shards, key, func(sh *shard, key uint8) int {
		return int(sh.key) - int(key)
	})
}

func (s Set) shard(key uint8) *shard {
	if i, ok := s.find(key); ok {
		return s.shards[i]
	}
	return nil
}

// pairs yields the shards of both sets by key; a missing one is nil.
func pairs(s, o Set) iter.Seq2[*shard, *shard] {
	return func(yield func(*shard, *shard) bool) {
		a, b := s.shards, o.shards
		for len(a) > 0 || len(b) > 0 {
			var x, y *shard
			if len(b) == 0 || len(a) > 0 && a[0].key <= b[0].key {
				x = a[0]
			}
			if len(a) == 0 || len(b) > 0 && b[0].key <= a[0].key {
				y = b[0]
			}
			if x != nil {
				a = a[1:]
			}
			if y != nil {
				b = b[1:]
			}
			if !yield(x, y) {
				return
			}
		}
	}
}

func combine(s, o Set, op func(a, b *shard) *shard) Set {
	var out []*shard
	for a, b := range pairs(s, o) {
		if sh := op(a, b); sh != nil {
			out = append(out, sh)
		}
	}
	return Set{out}
}

// Add returns the union: the ids that are in s or in o.
func (s Set) Add(o Set) Set { return combine(s, o, uniteShards) }

// Remove returns the difference: the ids that are in s and not in o.
func (s Set) Remove(o Set) Set { return combine(s, o, subtractShards) }

// Intersect returns the ids that are in s and in o.
func (s Set) Intersect(o Set) Set { return combine(s, o, intersectShards) }

// Clone returns an independent set with the same ids. It copies no ids: the
// first change of a shard, on either side, does.
func (s Set) Clone() Set {
	out := make([]*shard, len(s.shards))
	for i, sh := range s.shards {
		out[i] = sh.share()
	}
	return Set{out}
}

// Insert puts id into the set, in place. It must not run concurrently with
// any other use of s or of plain copies of s; clones and sets returned by
// other functions are not affected.
func (s *Set) Insert(id uint32) {
	i, ok := s.find(shardKey(id))
	if !ok {
		sh := newShard([]Range{{id, id}}).thaw()
		s.shards = slices.Insert(slices.Clone(s.shards), i, sh)
		return
	}
	if s.shards[i].contains(id) {
		return
	}
	sh := s.own(i)
	sh.bm.Add(id)
	sh.n++
}

// Delete takes id out of the set, in place, with the caveats of [Set.Insert].
func (s *Set) Delete(id uint32) {
	i, ok := s.find(shardKey(id))
	if !ok || !s.shards[i].contains(id) {
		return
	}
	if s.shards[i].n == 1 {
		s.shards = slices.Delete(slices.Clone(s.shards), i, i+1)
		return
	}
	sh := s.own(i)
	sh.bm.Remove(id)
	sh.n--
}

// own makes the i-th shard a bitmap that this set may change.
func (s *Set) own(i int) *shard {
	sh := s.shards[i]
	if sh.bm != nil && !sh.shared.Load() {
		return sh
	}
	s.shards = slices.Clone(s.shards)
	s.shards[i] = sh.thaw()
	return s.shards[i]
}

// Contains reports whether id is in the set.
func (s Set) Contains(id uint32) bool {
	sh := s.shard(shardKey(id))
	return sh != nil && sh.contains(id)
}

// Count returns how many ids are in the set, 0 to 4294967296.
func (s Set) Count() uint64 {
	var n uint64
	for _, sh := range s.shards {
		n += uint64(sh.n)
	}
	return n
}

// IsEmpty reports whether no id is in the set.
func (s Set) IsEmpty() bool { return s.Count() == 0 }

// IsZero is IsEmpty, for the omitzero option of encoding/json.
func (s Set) IsZero() bool { return s.IsEmpty() }

// Equal reports whether both sets have the same ids.
func (s Set) Equal(o Set) bool { return slices.EqualFunc(s.shards, o.shards, equalShards) }

// Min returns the smallest id; false for an empty set.
func (s Set) Min() (uint32, bool) { return s.Nth(0) }

// Max returns the largest id; false for an empty set.
func (s Set) Max() (uint32, bool) { return s.Nth(s.Count() - 1) }

// Nth returns the id that has n smaller ones in the set: n counts from 0, the
// last is Count()-1, and anything above is false.
func (s Set) Nth(n uint64) (uint32, bool) {
	for _, sh := range s.shards {
		if n < uint64(sh.n) {
			return sh.nth(n)
		}
		n -= uint64(sh.n)
	}
	return 0, false
}

// Next returns the smallest id of the set that is greater than after; false if
// there is none.
func (s Set) Next(after uint32) (uint32, bool) {
	if after == 1<<32-1 {
		return 0, false
	}
	return s.from(after + 1)
}

// from returns the smallest member >= id.
func (s Set) from(id uint32) (uint32, bool) {
	i, ok := s.find(shardKey(id))
	if ok {
		if found, ok := s.shards[i].from(id); ok {
			return found, true
		}
		i++
	}
	if i == len(s.shards) {
		return 0, false
	}
	return s.shards[i].nth(0)
}

// Random returns an id of the set, each with the same chance, the smallest and
// the largest included; false for an empty set. A nil r uses the global source
// of math/rand/v2; another r must not be used concurrently.
func (s Set) Random(r *rand.Rand) (uint32, bool) {
	n := s.Count()
	if n == 0 {
		return 0, false
	}
	return s.Nth(below(r, n))
}

func below(r *rand.Rand, n uint64) uint64 {
	if r == nil {
		return rand.Uint64N(n)
	}
	return r.Uint64N(n)
}
