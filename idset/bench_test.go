package idset_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/idpool/idpool/idset"
)

// scattered returns a set of about n random ids from lower to higher, built in
// place like a mirror's.
func scattered(n int, lower, higher uint32) idset.Set {
	r := rand.New(rand.NewPCG(uint64(n), uint64(lower)))
	var s idset.Set
	for range n {
		s.Insert(lower + uint32(r.Uint64N(uint64(higher-lower)+1)))
	}
	return s
}

func BenchmarkWithout(b *testing.B) {
	for _, c := range []struct {
		name        string
		pool, taken idset.Set
	}{
		{"pool=1000/taken=500", parse(b, "1000-1999"), scattered(700, 1000, 1999)},
		{"pool=1000/taken=all", parse(b, "1000-1999"), parse(b, "1000-1999")},
		{"pool=1000/taken=100k-elsewhere", parse(b, "1000-1999"), scattered(100_000, 0, top)},
		{"pool=odd2000/taken=500", idset.Of(idset.Range{Lower: 0, Higher: 3999}).Blocks(2), scattered(700, 0, 3999)},
		{"pool=1M/taken=100k", parse(b, "1000000-1999999"), scattered(100_000, 1000000, 1999999)},
		{"pool=16M/taken=100k", parse(b, "1000000-16777000"), scattered(100_000, 1000000, 16777000)},
		{"pool=1M/taken=most", parse(b, "1000000-1999999"), scattered(3_000_000, 1000000, 1999999)},
		{"pool=4G/taken=100k", everything, scattered(100_000, 0, top)},
		{"pool=4G/taken=1M", everything, scattered(1_000_000, 0, top)},
		{"pool=4G-ends/taken=100k", parse(b, "1-65533,65536-4294967294"), scattered(100_000, 0, top)},
	} {
		rnd := rand.New(rand.NewPCG(1, 1))
		free := c.pool.CountWithout(c.taken)
		b.Run("Count/"+c.name, func(b *testing.B) {
			for b.Loop() {
				c.pool.CountWithout(c.taken)
			}
		})
		b.Run("Random/"+c.name, func(b *testing.B) {
			for b.Loop() {
				c.pool.RandomWithout(c.taken, rnd)
			}
		})
		b.Run("Next/"+c.name, func(b *testing.B) {
			low, _ := c.pool.Min()
			for b.Loop() {
				c.pool.NextWithout(c.taken, low)
			}
		})
		if free == 0 {
			continue
		}
		b.Run("Nth/"+c.name, func(b *testing.B) {
			for b.Loop() {
				c.pool.NthWithout(c.taken, rnd.Uint64N(free))
			}
		})
	}
}

func BenchmarkAlgebra(b *testing.B) {
	for _, n := range []int{100_000, 1_000_000} {
		taken := scattered(n, 0, top)
		b.Run(fmt.Sprintf("Remove/pool=4G/taken=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				everything.Remove(taken)
			}
		})
		b.Run(fmt.Sprintf("CloneInsert/%d", n), func(b *testing.B) {
			for b.Loop() {
				s := taken.Clone()
				s.Insert(77)
				s.Delete(77)
			}
		})
		b.Run(fmt.Sprintf("Build/%d", n), func(b *testing.B) {
			for b.Loop() {
				scattered(n, 0, top)
			}
		})
		text := taken.String()
		b.Run(fmt.Sprintf("Parse/%d", n), func(b *testing.B) {
			for b.Loop() {
				parse(b, text)
			}
		})
	}
	b.Run("Blocks/4G/65536", func(b *testing.B) {
		for b.Loop() {
			everything.Blocks(65536)
		}
	})
}
