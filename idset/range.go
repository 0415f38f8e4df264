package idset

import (
	"cmp"
	"slices"
	"sort"
	"strconv"
)

// ID is a member of a [Set]. Trades define named types of their own, such as
// uidpool.UID.
type ID = uint32

// Range is the ids from Lower to Higher, both inside. A range whose Lower is
// above its Higher contains nothing.
type Range struct {
	Lower  uint32 `json:"lower"`
	Higher uint32 `json:"higher"`
}

// String returns "n" for a single id and "n-m" otherwise.
func (r Range) String() string { return string(r.appendTo(nil)) }

func (r Range) appendTo(b []byte) []byte {
	b = strconv.AppendUint(b, uint64(r.Lower), 10)
	if r.Lower != r.Higher {
		b = append(b, '-')
		b = strconv.AppendUint(b, uint64(r.Higher), 10)
	}
	return b
}

// Count returns how many ids the range contains, 0 to 4294967296.
func (r Range) Count() uint64 {
	if r.Lower > r.Higher {
		return 0
	}
	return uint64(r.Higher) - uint64(r.Lower) + 1
}

// Contains reports whether id lies in the range.
func (r Range) Contains(id uint32) bool { return r.Lower <= id && id <= r.Higher }

// A run list is a slice of ranges that is ascending, disjoint, not adjacent
// and free of empty ranges. The functions below take and return run lists and
// never change their arguments.

// normalize makes a run list of any ranges; empty ones contribute nothing.
func normalize(in []Range) []Range {
	sorted := make([]Range, 0, len(in))
	for _, r := range in {
		if r.Lower <= r.Higher {
			sorted = append(sorted, r)
		}
	}
	slices.SortFunc(sorted, func(a, b Range) int { return cmp.Compare(a.Lower, b.Lower) })
	out := sorted[:0]
	for _, r := range sorted {
		out = appendRun(out, r)
	}
	return out
}

// appendRun adds a range that begins no lower than the last one does.
func appendRun(runs []Range, r Range) []Range {
	if n := len(runs); n > 0 && uint64(r.Lower) <= uint64(runs[n-1].Higher)+1 {
		runs[n-1].Higher = max(runs[n-1].Higher, r.Higher)
		return runs
	}
	return append(runs, r)
}

func uniteRuns(a, b []Range) []Range {
	out := make([]Range, 0, len(a)+len(b))
	for len(a) > 0 || len(b) > 0 {
		if len(b) == 0 || len(a) > 0 && a[0].Lower <= b[0].Lower {
			out, a = appendRun(out, a[0]), a[1:]
		} else {
			out, b = appendRun(out, b[0]), b[1:]
		}
	}
	return out
}

// overlaps calls f with every maximal range that lies in both lists, ascending.
func overlaps(a, b []Range, f func(Range)) {
	for len(a) > 0 && len(b) > 0 {
		both := Range{max(a[0].Lower, b[0].Lower), min(a[0].Higher, b[0].Higher)}
		if both.Lower <= both.Higher {
			f(both)
		}
		if a[0].Higher < b[0].Higher {
			a = a[1:]
		} else {
			b = b[1:]
		}
	}
}

func intersectRuns(a, b []Range) []Range {
	var out []Range
	overlaps(a, b, func(r Range) { out = append(out, r) })
	return out
}

func subtractRuns(a, b []Range) []Range {
	var out []Range
	for _, r := range a {
		// What lies below this range cannot meet the ones to come either.
		for len(b) > 0 && b[0].Higher < r.Lower {
			b = b[1:]
		}
		open := true
		for _, hole := range b {
			if hole.Lower > r.Higher {
				break
			}
			if hole.Lower > r.Lower {
				out = append(out, Range{r.Lower, hole.Lower - 1})
			}
			if hole.Higher >= r.Higher {
				open = false
				break
			}
			r.Lower = hole.Higher + 1
		}
		if open {
			out = append(out, r)
		}
	}
	return out
}

func countRuns(runs []Range) uint64 {
	var n uint64
	for _, r := range runs {
		n += r.Count()
	}
	return n
}

// firstRunFrom returns the index of the first run that ends at id or above.
func firstRunFrom(runs []Range, id uint32) int {
	return sort.Search(len(runs), func(i int) bool { return runs[i].Higher >= id })
}
