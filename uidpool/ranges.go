package uidpool

import (
	"cmp"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/problem"
)

const (
	// ParseSeparator is what stands between the elements of a definition, as
	// in Ganeti.
	ParseSeparator = ","
	// FormatSeparator is what is printed between them, as in Ganeti.
	FormatSeparator = ", "

	asciiBlanks = " \t\n\v\f\r"
	maxQuoted   = 40 // bytes of a faulty element that an error repeats
)

// Parse reads a pool definition: uids "n" and ranges "n-m" with the separator
// between them, which may have several characters but not none. It is Ganeti's
// ParseUidPool: empty elements are skipped; ASCII blanks around numbers, and so
// around hyphens, are allowed; the result is sorted by its bounds; nothing is
// merged, and whether the bounds make sense is for [Check] to say.
//
// Numbers are plain ASCII decimals up to 4294967295: no sign, no underscore,
// no digits of other scripts. An element that is blank but not empty is an
// error. Errors match [problem.ErrInvalid] and quote the element (at most 40
// bytes of it) and its position, counted from 1 with the skipped ones.
func Parse(value, separator string) ([]idset.Range, error) {
	if separator == "" {
		return nil, problem.New(problem.CodeInvalid, "uid pool not read: the separator is empty").
			Note(`ok: "," or ", " or a newline`)
	}
	pool := []idset.Range{}
	position := 0
	for element := range strings.SplitSeq(value, separator) {
		position++
		if element == "" {
			continue
		}
		r, why := parseElement(element)
		if why != "" {
			return nil, problem.New(problem.CodeInvalid, "uid pool not read: element %d, %s, %s",
				position, quoteElement(element), why).
				Note(`ok: a uid such as "70000" or a range such as "70000-70999", with %q between elements`, separator)
		}
		pool = append(pool, r)
	}
	sortPool(pool)
	return pool, nil
}

// WithoutStep is the detail of a refusal by [Parse], [Check] or [Remove] from
// the element on, for callers that begin it with a step of their own.
func WithoutStep(detail string) string {
	for _, step := range []string{"uid pool not read: ", "uid pool refused: ", "nothing removed: "} {
		if rest, ok := strings.CutPrefix(detail, step); ok {
			return rest
		}
	}
	return detail
}

func sortPool(pool []idset.Range) {
	slices.SortFunc(pool, func(a, b idset.Range) int {
		return cmp.Or(cmp.Compare(a.Lower, b.Lower), cmp.Compare(a.Higher, b.Higher))
	})
}

// parseElement returns why the element is no range, or "".
func parseElement(element string) (idset.Range, string) {
	if strings.Trim(element, asciiBlanks) == "" {
		return idset.Range{}, "is blank: it holds no uid"
	}
	low, high, two := strings.Cut(element, "-")
	if !two {
		n, why := parseBound(element)
		return idset.Range{Lower: n, Higher: n}, why
	}
	if strings.Contains(high, "-") {
		return idset.Range{}, "has more than one hyphen"
	}
	lower, why := parseBound(low)
	if why != "" {
		return idset.Range{}, sideOf("lower", low, why)
	}
	higher, why := parseBound(high)
	if why != "" {
		return idset.Range{}, sideOf("higher", high, why)
	}
	return idset.Range{Lower: lower, Higher: higher}, ""
}

func sideOf(side, bound, why string) string {
	if strings.Trim(bound, asciiBlanks) == "" {
		return "has no " + side + " bound"
	}
	return fmt.Sprintf("has a %s bound, %s, that %s", side, quoteElement(bound), why)
}

// parseBound reads one number; why is "" or what is wrong with it, to follow
// the quoted text.
func parseBound(text string) (n uint32, why string) {
	digits := strings.Trim(text, asciiBlanks)
	if digits == "" {
		return 0, "is blank: it holds no uid"
	}
	for _, c := range digits {
		switch {
		case '0' <= c && c <= '9':
		case c == '_':
			return 0, "has an underscore: digits are written without a break"
		case c == '+' || c == '-':
			return 0, "has a sign: uids are written without one"
		case strings.ContainsRune(asciiBlanks, c):
			return 0, "has a blank inside its number"
		case unicode.IsSpace(c):
			return 0, "has a blank that is not ASCII"
		case unicode.IsDigit(c):
			return 0, "has digits of another script: write them as 0 to 9"
		default:
			return 0, "is not a decimal number"
		}
	}
	parsed, err := strconv.ParseUint(digits, 10, 32)
	if err != nil {
		return 0, "is above the highest 32-bit number, 4294967295"
	}
	return uint32(parsed), ""
}

// quoteElement repeats what somebody typed, shortened.
func quoteElement(element string) string {
	if len(element) <= maxQuoted {
		return strconv.Quote(element)
	}
	return fmt.Sprintf("%q… (%d bytes)", element[:maxQuoted], len(element))
}

// Format prints a pool in the given order, "n" or "n-m" an element, with the
// separator between them. It is Ganeti's FormatUidPool, whose separator is
// [FormatSeparator]; [Parse] reads the output back with the same separator, or
// with [ParseSeparator] where that one only adds blanks to it.
func Format(pool []idset.Range, separator string) string {
	var b strings.Builder
	for i, r := range pool {
		if i > 0 {
			b.WriteString(separator)
		}
		b.WriteString(r.String())
	}
	return b.String()
}

// Expand yields every uid of the pool once, ascending, where Ganeti's
// ExpandUidPool makes a list of them: a pool of four billion costs nothing
// until it is walked. Ranges whose lower bound is above the higher have no
// uids.
func Expand(pool []idset.Range) iter.Seq[UID] {
	return func(yield func(UID) bool) {
		for id := range idset.Of(pool...).All() {
			if !yield(UID(id)) {
				return
			}
		}
	}
}

// Count returns how many uids [Expand] yields, 0 to 4294967296, without
// walking them.
func Count(pool []idset.Range) uint64 { return idset.Of(pool...).Count() }

// Add returns the union of both in the fewest ranges, ascending. Unlike
// Ganeti's AddToUidPool it merges ranges that touch or overlap, and leaves its
// arguments alone.
func Add(pool, more []idset.Range) []idset.Range {
	return rangesOf(idset.Of(pool...).Add(idset.Of(more...)))
}

// Remove returns the uids of pool that are not in less, in the fewest ranges,
// ascending. Unlike Ganeti's RemoveFromUidPool it carves parts out of ranges.
// What is in less and not in pool, and a range of less that has no uids, is
// [problem.ErrInvalid], which names it; the arguments are left alone always.
func Remove(pool, less []idset.Range) ([]idset.Range, error) {
	have := idset.Of(pool...)
	for i, r := range less {
		if r.Lower > r.Higher {
			return nil, problem.New(problem.CodeInvalid,
				"nothing removed: element %d, %q, has its lower bound above the higher", i+1, r.String()).
				Note("ok instead: %d-%d", r.Higher, r.Lower)
		}
		missing := idset.Of(r).Remove(have)
		if missing.IsEmpty() {
			continue
		}
		what := "is not in the pool"
		if missing.Count() < r.Count() {
			what = "is not wholly in the pool, which lacks " + shortList(missing)
		}
		e := problem.New(problem.CodeInvalid, "nothing removed: element %d, %q, %s", i+1, r.String(), what)
		if part := idset.Of(r).Intersect(have); !part.IsEmpty() {
			return nil, e.Note("ok instead of element %d: %s", i+1, shortList(part))
		}
		return nil, e.Note("the pool is: %s", shortList(have))
	}
	return rangesOf(have.Remove(idset.Of(less...))), nil
}

// rangesOf is the set's ranges; an empty pool is a list without elements.
func rangesOf(s idset.Set) []idset.Range {
	if list := s.RangeList(); list != nil {
		return list
	}
	return []idset.Range{}
}

// shortList prints a set for a message, its first ranges when it has many.
func shortList(s idset.Set) string {
	const most = 6
	var first []idset.Range
	more := 0
	for r := range s.Ranges() {
		if len(first) < most {
			first = append(first, r)
		} else {
			more++
		}
	}
	switch {
	case len(first) == 0:
		return "empty"
	case more > 0:
		return fmt.Sprintf("%s and %d more ranges", Format(first, FormatSeparator), more)
	}
	return Format(first, FormatSeparator)
}
