package idset

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/idpool/idpool/problem"
)

// maxQuote is how many bytes of a faulty element an error repeats.
const maxQuote = 40

// String returns the fewest ranges, ascending, as "1-100,200"; "" for the
// empty set. It is what [Parse] reads.
func (s Set) String() string { return string(s.appendTo(nil)) }

func (s Set) appendTo(b []byte) []byte {
	for r := range s.Ranges() {
		if len(b) > 0 {
			b = append(b, ',')
		}
		b = r.appendTo(b)
	}
	return b
}

// MarshalText returns the form of [Set.String]; in JSON that is a string.
func (s Set) MarshalText() ([]byte, error) { return s.appendTo([]byte{}), nil }

// UnmarshalText sets s to what [Parse] reads; on error s is unchanged.
func (s *Set) UnmarshalText(text []byte) error {
	parsed, err := Parse(string(text))
	if err != nil {
		return err
	}
	*s = parsed
	return nil
}

// Parse reads the machine form that [Set.String] prints: ids "n" and ranges
// "n-m" in plain decimal, separated by single commas; "" is the empty set.
// Order and overlap do not matter. Blanks, signs, leading zeros, empty elements,
// bounds above 4294967295 and ranges whose lower bound is above the higher are
// errors; they match problem.ErrInvalid and quote at most 40 bytes of the
// element.
func Parse(text string) (Set, error) {
	if text == "" {
		return Set{}, nil
	}
	ranges := make([]Range, 0, strings.Count(text, ",")+1)
	for element := range strings.SplitSeq(text, ",") {
		r, why := parseRange(element)
		if why != "" {
			return Set{}, problem.New(problem.CodeInvalid, "id set not read: element %d, %s, %s",
				len(ranges)+1, quote(element), why)
		}
		ranges = append(ranges, r)
	}
	return Of(ranges...), nil
}

// parseRange returns why the element is no range, or "".
func parseRange(element string) (Range, string) {
	low, high, two := strings.Cut(element, "-")
	lower, why := parseID(low)
	if why != "" {
		return Range{}, why
	}
	if !two {
		return Range{lower, lower}, ""
	}
	higher, why := parseID(high)
	if why != "" {
		return Range{}, why
	}
	if lower > higher {
		return Range{}, fmt.Sprintf("has its lower bound above the higher; %d-%d would do", higher, lower)
	}
	return Range{lower, higher}, ""
}

func parseID(digits string) (uint32, string) {
	const form = `is not a decimal id "n" or a range "n-m"`
	if digits == "" {
		return 0, form
	}
	for i := range len(digits) {
		if digits[i] < '0' || digits[i] > '9' {
			return 0, form
		}
	}
	if len(digits) > 1 && digits[0] == '0' {
		return 0, "has a leading zero"
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	if err != nil {
		return 0, "is above the highest id, 4294967295"
	}
	return uint32(n), ""
}

func quote(element string) string {
	if len(element) <= maxQuote {
		return strconv.Quote(element)
	}
	return fmt.Sprintf("%q… (%d bytes)", element[:maxQuote], len(element))
}
