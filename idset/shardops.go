package idset

import (
	"slices"

	"github.com/RoaringBitmap/roaring/v2"
)

// The functions below combine two shards of one key; nil stands for an empty
// shard, in arguments and in results. Results are new or shared.

func uniteShards(a, b *shard) *shard {
	switch {
	case a == nil && b == nil:
		return nil
	case b == nil || a != nil && a.full():
		return a.share()
	case a == nil || b.full():
		return b.share()
	case a.bm == nil && b.bm == nil:
		return newShard(uniteRuns(a.runs, b.runs))
	}
	return shardOf(a.key, roaring.Or(a.bitmap(), b.bitmap()))
}

func intersectShards(a, b *shard) *shard {
	switch {
	case a == nil || b == nil:
		return nil
	case a.full():
		return b.share()
	case b.full():
		return a.share()
	case a.bm == nil && b.bm == nil:
		return newShard(intersectRuns(a.runs, b.runs))
	}
	return shardOf(a.key, roaring.And(a.bitmap(), b.bitmap()))
}

func subtractShards(a, b *shard) *shard {
	switch {
	case a == nil || b != nil && b.full():
		return nil
	case b == nil || b.n == 0:
		return a.share()
	case a.bm == nil && (b.bm == nil || b.n <= maxCarve):
		return newShard(subtractRuns(a.runs, b.runList()))
	}
	return shardOf(a.key, roaring.AndNot(a.bitmap(), b.bitmap()))
}

// countBoth counts the ids that are in both shards, without building them
// where one is a bitmap and the other is not.
func countBoth(a, b *shard) uint64 {
	switch {
	case a == nil || b == nil:
		return 0
	case a.full():
		return uint64(b.n)
	case b.full():
		return uint64(a.n)
	case a.bm != nil && b.bm != nil:
		return a.bm.AndCardinality(b.bm)
	case a.bm != nil:
		a, b = b, a
	}
	var n uint64
	if b.bm == nil {
		overlaps(a.runs, b.runs, func(r Range) { n += r.Count() })
		return n
	}
	for _, r := range a.runs {
		n += b.countIn(r.Lower, r.Higher)
	}
	return n
}

func equalShards(a, b *shard) bool {
	if a.key != b.key || a.n != b.n {
		return false
	}
	if a.bm == nil && b.bm == nil {
		return slices.Equal(a.runs, b.runs)
	}
	return countBoth(a, b) == uint64(a.n)
}

// nthWithout returns the member of a that is not in b and has k smaller such.
func nthWithout(a, b *shard, k uint64) (uint32, bool) {
	if b == nil {
		return a.nth(k)
	}
	if a.bm != nil {
		if rest := subtractShards(a, b); rest != nil {
			return rest.nth(k)
		}
		return 0, false
	}
	for _, r := range a.runs {
		free := r.Count() - b.countIn(r.Lower, r.Higher)
		if k < free {
			return nthAbsent(b, r, k), true
		}
		k -= free
	}
	return 0, false
}

// nthAbsent returns the id of r that is not in b and has k smaller such; there
// must be more than k of them.
func nthAbsent(b *shard, r Range, k uint64) uint32 {
	// Of the ids up to the answer k+1 are free, so it is no lower than k above
	// the bottom; each step counts only the half it decides about.
	low, high := uint64(r.Lower), uint64(r.Higher)
	for low < high {
		mid := max((low+high)/2, min(low+k, high-1))
		free := mid - low + 1 - b.countIn(uint32(low), uint32(mid))
		if free > k {
			high = mid
		} else {
			k -= free
			low = mid + 1
		}
	}
	return uint32(low)
}
