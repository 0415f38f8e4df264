package idset

import "iter"

// All yields every id in ascending order. The set must not be changed
// meanwhile.
func (s Set) All() iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		for r := range s.Ranges() {
			for id := uint64(r.Lower); id <= uint64(r.Higher); id++ {
				if !yield(uint32(id)) {
					return
				}
			}
		}
	}
}

// Ranges yields the fewest ranges that make up the set, in ascending order. Its
// cost is that of the ranges, not of the ids in them. The set must not be
// changed meanwhile.
func (s Set) Ranges() iter.Seq[Range] {
	return func(yield func(Range) bool) {
		var pending []Range // at most one: a range may go on in the next shard
		emit := func(r Range) bool {
			if len(pending) == 1 && uint64(pending[0].Higher)+1 != uint64(r.Lower) {
				if !yield(pending[0]) {
					return false
				}
				pending = pending[:0]
			}
			pending = appendRun(pending, r)
			return true
		}
		for _, sh := range s.shards {
			if !sh.each(emit) {
				return
			}
		}
		if len(pending) == 1 {
			yield(pending[0])
		}
	}
}

// each calls f with the shard's ranges until it returns false.
func (sh *shard) each(f func(Range) bool) bool {
	for _, r := range sh.runs {
		if !f(r) {
			return false
		}
	}
	if sh.bm == nil {
		return true
	}
	for lower, end := range sh.bm.Ranges() {
		if !f(Range{lower, uint32(end - 1)}) {
			return false
		}
	}
	return true
}

// RangeList returns what [Set.Ranges] yields; nil for an empty set.
func (s Set) RangeList() []Range {
	var out []Range
	for r := range s.Ranges() {
		out = append(out, r)
	}
	return out
}

// Blocks returns the first id of every aligned block that lies wholly in s:
// the multiples of size m for which m to m+size-1 are all members. A size of 0
// or 1 returns s. The cost is that of the ranges of s and of the blocks found.
func (s Set) Blocks(size uint32) Set {
	if size <= 1 {
		return s.Clone()
	}
	var b builder
	step := uint64(size)
	for r := range s.Ranges() {
		first := (uint64(r.Lower) + step - 1) / step * step
		for ; first+step-1 <= uint64(r.Higher); first += step {
			b.add(Range{uint32(first), uint32(first)})
		}
	}
	return b.done()
}
