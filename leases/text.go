package leases

import (
	"strconv"
	"strings"

	"github.com/idpool/idpool/idset"
)

func u32(n uint32) string { return strconv.FormatUint(uint64(n), 10) }

func join(s []string) string { return strings.Join(s, ", ") }

// clipRanges prints a set for a message: at most 80 bytes.
func clipRanges(s idset.Set) string {
	text := s.String()
	if len(text) > 80 {
		return text[:strings.LastIndexByte(text[:80], ',')+1] + "…"
	}
	if text == "" {
		return "no ids"
	}
	return text
}

func joinDots(s []string) string { return strings.Join(s, " · ") }
