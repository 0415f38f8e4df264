package uidpool

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/problem"
)

// Check refuses a pool that could never be granted as it stands. It is
// Ganeti's CheckUidPool: the first range whose lower bound is above the higher
// is an error that quotes both. So is the first that contains 0, 65534, 65535
// or 4294967295, see [UID.Valid]; a pool that means to span them is checked
// without them. Ranges may overlap, and no ranges at all are fine: they turn a
// pool off.
//
// The error is [problem.ErrInvalid]. It names the range and its position in
// the pool, counted from 1; its notes say which ranges would do instead.
func Check(pool []idset.Range) error {
	for i, r := range pool {
		var why string
		want := r
		if r.Lower > r.Higher {
			why = fmt.Sprintf("has its lower bound, %d, above the higher, %d", r.Lower, r.Higher)
			want = idset.Range{Lower: r.Higher, Higher: r.Lower}
		} else if why = nevers(r); why != "" {
			why = overlapsOf(r) + "contains " + why
		}
		if why == "" {
			continue
		}
		e := problem.New(problem.CodeInvalid, "uid pool refused: element %d, %q, %s", i+1, r.String(), why)
		good := goodOnes(pool)
		if !good.IsEmpty() {
			e.Note("ok: %s", shortList(good))
		}
		return advise(e, i+1, want, good)
	}
	return nil
}

// overlapsOf names what of systemd's r overlaps, to precede a worse fault.
func overlapsOf(r idset.Range) string {
	var found []string
	for _, c := range systemdClaims {
		if r.Lower <= c.Higher && c.Lower <= r.Higher {
			found = append(found, fmt.Sprintf("%s (%s)", c.Range, c.what))
		}
	}
	if len(found) == 0 {
		return ""
	}
	return "overlaps " + strings.Join(found, ", ") + " and "
}

// nevers names the uids of r that can never be granted; "" if there is none.
func nevers(r idset.Range) string {
	var found []string
	for _, u := range never {
		if r.Contains(uint32(u)) {
			found = append(found, fmt.Sprintf("%s (%s)", u, whyNever(u)))
		}
	}
	switch n := len(found); n {
	case 0:
		return ""
	case 1:
		return found[0]
	default:
		return strings.Join(found[:n-1], ", ") + " and " + found[n-1]
	}
}

// goodOnes is the uids of those elements that Check does not object to.
func goodOnes(pool []idset.Range) idset.Set {
	return idset.Of(slices.DeleteFunc(slices.Clone(pool), func(r idset.Range) bool {
		return r.Lower > r.Higher || nevers(r) != ""
	})...)
}

// advise adds what would do instead of one element: as many uids that nobody
// claims, or what is left of it where that is clean or all there is.
func advise(e *problem.Error, position int, want idset.Range, good idset.Set) error {
	rest := idset.Of(want).Remove(neverSet())
	what, exclude := rest, "what can never be granted can be left out"
	if overlapsOf(want) != "" {
		exclude = "overlap alone is a warning; " + exclude
	}
	if rest.IsEmpty() || overlapsOf(want) != "" {
		if free, err := Suggest(want.Count(), good.RangeList()...); err == nil {
			what = idset.Of(free...)
		}
	}
	if what.IsEmpty() {
		return e
	}
	uids := "uids"
	if what.Count() == 1 {
		uids = "uid"
	}
	e.Note("instead of element %d: %s   (%d %s)", position, shortList(what), what.Count(), uids)
	if lost := idset.Of(want).Intersect(neverSet()); !lost.IsEmpty() && !rest.IsEmpty() {
		e.Note("%s: --exclude %s", exclude, lost)
	}
	return e
}

func neverSet() idset.Set {
	s := idset.Set{}
	for _, u := range never {
		s.Insert(uint32(u))
	}
	return s
}

// Warnings says, a line each, where a pool overlaps uids that others on this
// host hand out or have: the ranges of login.defs, the accounts of passwd, the
// subordinate uids of subuid, and what systemd takes for itself, whether or
// not it runs here. A grant from there works, but somebody else may hand out
// the same uid. A file that is missing is no warning; one that cannot be read
// is. Warnings reads the files anew each time.
func Warnings(pool []idset.Range, host HostFiles) []string {
	ids := idset.Of(pool...)
	var out []string
	claims, problems := host.read()
	shown := map[string]int{}
	for _, c := range slices.Concat(systemdClaims, claims) {
		both := ids.Intersect(idset.Of(c.ranges()...))
		if both.IsEmpty() {
			continue
		}
		if shown[c.file]++; shown[c.file] > maxWarnings {
			continue
		}
		if len(c.names) > 0 {
			out = append(out, "contains "+c.namesIn(both))
			continue
		}
		out = append(out, fmt.Sprintf("overlaps %s (%s) in %s", c.Range, c.what, shortList(both)))
	}
	for _, file := range slices.Sorted(maps.Keys(shown)) {
		if more := shown[file] - maxWarnings; more > 0 {
			out = append(out, fmt.Sprintf("overlaps %d more ranges of %s", more, file))
		}
	}
	return append(out, problems...)
}

// maxWarnings is how many lines [Warnings] gives to one file.
const maxWarnings = 5
