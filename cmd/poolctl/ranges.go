package main

import (
	"io"
	"strings"

	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/uidpool"
)

// maxStdin bounds a pool definition that is read from stdin.
const maxStdin = 16 << 20

// normalRanges reads ranges that somebody typed, separated by commas, and
// returns them as they are sent: merged, in order, no blanks. Whether such ids
// can be granted is not asked.
func normalRanges(flag, value string) (string, error) {
	ranges, err := parseRanges(flag, value, uidpool.ParseSeparator)
	if err != nil {
		return "", err
	}
	return idset.Of(ranges...).String(), nil
}

func parseRanges(flag, value, separator string) ([]idset.Range, error) {
	ranges, err := uidpool.Parse(value, separator)
	if err != nil {
		return nil, inFlag(flag, err)
	}
	for _, r := range ranges {
		if r.Lower > r.Higher {
			return nil, usage("%s: %q has its lower bound above the higher", flag, r.String()).
				Note("ok instead: %d-%d", r.Higher, r.Lower)
		}
	}
	return ranges, nil
}

// inFlag says which flag a refusal is about.
func inFlag(flag string, err error) error {
	p, ok := err.(*problem.Error)
	if !ok {
		return err
	}
	named := *p
	named.Detail = flag + ": " + uidpool.WithoutStep(p.Detail)
	return &named
}

// definition is a pool definition that somebody typed, checked here so that
// its mistakes are told with the text at hand.
type definition struct {
	ranges idset.Set
	// normal is the definition as it is sent.
	normal   string
	warnings []string
}

// define reads and checks a definition; what exclude takes out of it may be
// ids that can never be granted.
func define(value, separator string, exclude []idset.Range) (definition, error) {
	ranges, err := uidpool.Parse(value, separator)
	if err != nil {
		return definition{}, err
	}
	if err := checkWithout(ranges, exclude); err != nil {
		return definition{}, err
	}
	set := idset.Of(ranges...)
	kept := set.Remove(idset.Of(exclude...))
	return definition{
		ranges:   set,
		normal:   set.String(),
		warnings: uidpool.Warnings(kept.RangeList(), uidpool.HostFiles{}),
	}, nil
}

// checkWithout is uidpool.Check of what exclude leaves. The refusal is about
// the elements as typed, unless exclude has mended some of them.
func checkWithout(ranges, exclude []idset.Range) error {
	err := uidpool.Check(ranges)
	if err == nil || len(exclude) == 0 {
		return err
	}
	var left []idset.Range
	for _, r := range ranges {
		if r.Lower > r.Higher {
			return err
		}
		left = append(left, idset.Of(r).Remove(idset.Of(exclude...)).RangeList()...)
	}
	return uidpool.Check(left)
}

// readDefinition is the value typed, or stdin for "-". A definition there may
// stand on several lines: the end of a line separates as well.
func readDefinition(value, separator string, in io.Reader) (string, error) {
	if value != "-" {
		return value, nil
	}
	raw, err := io.ReadAll(io.LimitReader(in, maxStdin+1))
	if err != nil {
		return "", problem.Wrap(problem.CodeInternal, err, "read the definition from stdin")
	}
	if len(raw) > maxStdin {
		return "", usage("the definition on stdin is longer than %d MiB", maxStdin>>20)
	}
	text := strings.ReplaceAll(string(raw), "\r\n", "\n")
	if strings.Contains(separator, "\n") || separator == "" {
		return text, nil
	}
	var lines []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, separator), nil
}
