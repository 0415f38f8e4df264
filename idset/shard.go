package idset

import (
	"slices"
	"sync/atomic"

	"github.com/RoaringBitmap/roaring/v2"
)

const (
	shardBits = 24
	shardSize = 1 << shardBits

	// maxRuns is how many ranges a shard keeps as a list. Above it a bitmap is
	// smaller and faster; below it a list is, and a shard that is one range
	// would need 256 containers as a bitmap.
	maxRuns = 256

	// maxCarve is up to how many ids are cut out of a run list range by range.
	// Roaring's difference of a run and an array container goes through two
	// bitmaps of 8 KiB, which costs more until the cuts are dense.
	maxCarve = 1 << 16
)

// shard is the members of a set that share their upper eight bits: a run list
// when bm is nil, a bitmap of full 32-bit ids otherwise. Run lists are never
// changed, only replaced.
type shard struct {
	key  uint8
	runs []Range
	bm   *roaring.Bitmap
	n    uint32 // members, at most shardSize

	// shared is set once a second set refers to this shard, which freezes it.
	shared atomic.Bool
}

func shardKey(id uint32) uint8 { return uint8(id >> shardBits) }

func (sh *shard) base() uint32 { return uint32(sh.key) << shardBits }
func (sh *shard) last() uint32 { return sh.base() | (shardSize - 1) }
func (sh *shard) full() bool   { return sh.n == shardSize }

// newShard takes ownership of a run list that lies within one shard; nil for
// an empty one.
func newShard(runs []Range) *shard {
	if len(runs) == 0 {
		return nil
	}
	sh := &shard{key: shardKey(runs[0].Lower), n: uint32(countRuns(runs))}
	if len(runs) <= maxRuns {
		sh.runs = slices.Clip(runs)
	} else {
		sh.bm = bitmapOf(runs)
		sh.bm.RunOptimize()
	}
	return sh
}

// shardOf takes ownership of a bitmap that lies within one shard; nil for an
// empty one.
func shardOf(key uint8, bm *roaring.Bitmap) *shard {
	n := bm.GetCardinality()
	if n == 0 {
		return nil
	}
	var runs []Range
	for lower, end := range bm.Ranges() {
		if len(runs) == maxRuns {
			bm.RunOptimize()
			return &shard{key: key, bm: bm, n: uint32(n)}
		}
		runs = append(runs, Range{lower, uint32(end - 1)})
	}
	return &shard{key: key, runs: runs, n: uint32(n)}
}

func bitmapOf(runs []Range) *roaring.Bitmap {
	const short = 8 // adding so few ids one by one beats adding a range
	bm := roaring.New()
	var ids []uint32
	for _, r := range runs {
		if r.Count() > short {
			bm.AddRange(uint64(r.Lower), uint64(r.Higher)+1)
			continue
		}
		for id := uint64(r.Lower); id <= uint64(r.Higher); id++ {
			ids = append(ids, uint32(id))
		}
	}
	bm.AddMany(ids)
	return bm
}

// bitmap returns the members as a bitmap that must not be changed.
func (sh *shard) bitmap() *roaring.Bitmap {
	if sh.bm != nil {
		return sh.bm
	}
	return bitmapOf(sh.runs)
}

// runList returns the members as a run list that must not be changed.
func (sh *shard) runList() []Range {
	if sh.bm == nil {
		return sh.runs
	}
	var runs []Range
	for lower, end := range sh.bm.Ranges() {
		runs = append(runs, Range{lower, uint32(end - 1)})
	}
	return runs
}

// share freezes the shard and returns it for use in another set.
func (sh *shard) share() *shard {
	if !sh.shared.Load() {
		sh.shared.Store(true)
	}
	return sh
}

// thaw returns a bitmap shard with the same members that nobody else has.
func (sh *shard) thaw() *shard {
	own := &shard{key: sh.key, n: sh.n}
	if sh.bm != nil {
		own.bm = sh.bm.Clone()
	} else {
		own.bm = bitmapOf(sh.runs)
	}
	return own
}

func (sh *shard) contains(id uint32) bool {
	if sh.bm != nil {
		return sh.bm.Contains(id)
	}
	i := firstRunFrom(sh.runs, id)
	return i < len(sh.runs) && sh.runs[i].Lower <= id
}

// countIn counts the members from lower to higher, both inside the shard.
func (sh *shard) countIn(lower, higher uint32) uint64 {
	if lower > higher {
		return 0
	}
	if sh.full() {
		return uint64(higher) - uint64(lower) + 1
	}
	if sh.bm != nil {
		return sh.bm.CardinalityInRange(uint64(lower), uint64(higher)+1)
	}
	var n uint64
	for _, r := range sh.runs[firstRunFrom(sh.runs, lower):] {
		if r.Lower > higher {
			break
		}
		n += Range{max(r.Lower, lower), min(r.Higher, higher)}.Count()
	}
	return n
}

// nth returns the member with k smaller ones in the shard.
func (sh *shard) nth(k uint64) (uint32, bool) {
	if k >= uint64(sh.n) {
		return 0, false
	}
	if sh.bm != nil {
		id, err := sh.bm.Select(uint32(k))
		return id, err == nil
	}
	for _, r := range sh.runs {
		if k < r.Count() {
			return r.Lower + uint32(k), true
		}
		k -= r.Count()
	}
	return 0, false
}

// from returns the smallest member >= id, which lies inside the shard.
func (sh *shard) from(id uint32) (uint32, bool) {
	if sh.bm != nil {
		below := uint64(0)
		if id > sh.base() {
			below = sh.countIn(sh.base(), id-1)
		}
		return sh.nth(below)
	}
	i := firstRunFrom(sh.runs, id)
	if i == len(sh.runs) {
		return 0, false
	}
	return max(id, sh.runs[i].Lower), true
}

// runEnd returns the last id up to which every id from a member on is a member.
func (sh *shard) runEnd(id uint32) uint32 {
	if sh.bm == nil {
		return sh.runs[firstRunFrom(sh.runs, id)].Higher
	}
	// The run reaches at least good and, unless bad is past the shard, not bad.
	good, bad, step := uint64(id), uint64(sh.last())+1, uint64(1)
	for good+step < bad {
		if sh.countIn(uint32(good)+1, uint32(good+step)) != step {
			bad = good + step
			break
		}
		good += step
		step *= 2
	}
	for good+1 < bad {
		mid := (good + bad) / 2
		if sh.countIn(uint32(good)+1, uint32(mid)) == mid-good {
			good = mid
		} else {
			bad = mid
		}
	}
	return uint32(good)
}
