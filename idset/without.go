package idset

import "math/rand/v2"

// maxHops is how many covered ranges NextWithout steps over one by one before
// it subtracts whole shards instead.
const maxHops = 64

// CountWithout returns how many ids of s are not in taken, without building
// that set and without allocation.
//
// The cost is that of looking up the ranges of s in taken, shard by shard: two
// microseconds for all ids against a million scattered ones. Where s has more
// than 256 ranges within 2^24 ids, it is that of intersecting the containers of
// both there.
func (s Set) CountWithout(taken Set) uint64 {
	var n uint64
	for a, b := range pairs(s, taken) {
		if a != nil {
			n += uint64(a.n) - countBoth(a, b)
		}
	}
	return n
}

// NthWithout returns the id of s that is not in taken and has n smaller such
// ids; n counts from 0, the last is CountWithout(taken)-1, and anything above
// is false. A shard in which s has more than 256 ranges is subtracted first, if
// the answer lies in it.
func (s Set) NthWithout(taken Set, n uint64) (uint32, bool) {
	for a, b := range pairs(s, taken) {
		if a == nil {
			continue
		}
		free := uint64(a.n) - countBoth(a, b)
		if n < free {
			return nthWithout(a, b, n)
		}
		n -= free
	}
	return 0, false
}

// RandomWithout returns an id of s that is not in taken, each with the same
// chance; false if there is none. r is as in [Set.Random].
func (s Set) RandomWithout(taken Set, r *rand.Rand) (uint32, bool) {
	all := s.Count()
	if all == 0 {
		return 0, false
	}
	// A pick that is refused when taken is uniform over the rest, and quick
	// while the pool is not nearly exhausted.
	const tries = 8
	for range tries {
		if id, ok := s.Nth(below(r, all)); ok && !taken.Contains(id) {
			return id, true
		}
	}
	free := s.CountWithout(taken)
	if free == 0 {
		return 0, false
	}
	return s.NthWithout(taken, below(r, free))
}

// NextWithout returns the smallest id >= from of s that is not in taken; false
// if there is none.
func (s Set) NextWithout(taken Set, from uint32) (uint32, bool) {
	for range maxHops {
		id, ok := s.from(from)
		if !ok {
			return 0, false
		}
		if !taken.Contains(id) {
			return id, true
		}
		end := taken.runEnd(id)
		if end == 1<<32-1 {
			return 0, false
		}
		from = end + 1
	}
	for a, b := range pairs(s, taken) {
		if a == nil || a.last() < from {
			continue
		}
		if rest := subtractShards(a, b); rest != nil {
			if id, ok := rest.from(max(from, a.base())); ok {
				return id, true
			}
		}
	}
	return 0, false
}

// runEnd returns the last id up to which every id from a member on is a member.
func (s Set) runEnd(id uint32) uint32 {
	i, _ := s.find(shardKey(id))
	for {
		end := s.shards[i].runEnd(id)
		i++
		if end != s.shards[i-1].last() || i == len(s.shards) || !s.shards[i].contains(end+1) {
			return end
		}
		id = end + 1
	}
}
