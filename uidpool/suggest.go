package uidpool

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/problem"
)

// systemdClaims are the ranges that systemd documents as its own ("Users,
// Groups, UIDs and GIDs on systemd Systems").
var systemdClaims = []claim{
	{Range: idset.Range{Lower: 60001, Higher: 60513}, what: "systemd-homed"},
	{Range: idset.Range{Lower: 61184, Higher: 65519}, what: "systemd DynamicUser"},
	{Range: idset.Range{Lower: 524288, Higher: 1879048191}, what: "systemd containers"},
}

// areas are where [Suggest] looks, best first: ids that neither systemd nor
// distributions take by default, then what login.defs gives to users
// and to subordinate uids on most hosts, then what does not fit a signed
// number, which some programs and file systems mishandle.
var areas = []idset.Range{
	{Lower: 65536, Higher: 99999},
	{Lower: 1879048192, Higher: 2147352575}, // above are systemd's "foreign" uids
	{Lower: 100000, Higher: 524287},
	{Lower: 60514, Higher: 61183},
	{Lower: 1000, Higher: 60000},
	{Lower: 2147483648, Higher: 4294967294},
}

// Suggest returns count uids, in the fewest ranges, ascending, that nobody is
// known to claim: none that can never be granted (see [UID.Valid]), none of
// systemd's ranges, and none of avoid, which is where [HostFiles.Claimed] and
// the pools that exist belong. They are one range when any place has room
// for it. The error is [problem.ErrInvalid], for a count of 0 or one above what
// is there.
func Suggest(count uint64, avoid ...idset.Range) ([]idset.Range, error) {
	if count == 0 {
		return nil, problem.New(problem.CodeInvalid, "no uids suggested: the count is 0").Note("ok: 1 or more")
	}
	refused := idset.Of(avoid...).Add(neverSet())
	for _, c := range systemdClaims {
		refused = refused.Add(idset.Of(c.Range))
	}
	var room []idset.Range // in the order of areas
	for _, a := range areas {
		room = append(room, idset.Of(a).Remove(refused).RangeList()...)
	}
	for _, r := range room {
		if r.Count() >= count {
			return []idset.Range{firstOf(r, count)}, nil
		}
	}
	var picked []idset.Range
	left := count
	for _, r := range room {
		take := firstOf(r, min(left, r.Count()))
		picked = append(picked, take)
		if left -= take.Count(); left == 0 {
			return idset.Of(picked...).RangeList(), nil
		}
	}
	return nil, problem.New(problem.CodeInvalid, "no uids suggested: %d are wanted and %d are claimed by nobody", count, count-left).
		Note("ok: a count of up to %d, or ranges that others claim, at your own risk", count-left)
}

func firstOf(r idset.Range, count uint64) idset.Range {
	return idset.Range{Lower: r.Lower, Higher: uint32(uint64(r.Lower) + count - 1)}
}

// HostFiles says where this host's own account files are. The files are read
// by each call and by nobody else, so that it is safe for concurrent use.
type HostFiles struct {
	// Root is the folder that holds etc/login.defs, etc/passwd and etc/subuid;
	// "/" if empty.
	Root string
}

// Claimed returns every uid that the host's files hand out or give to an
// account, in the fewest ranges, ascending. Files that are missing or that
// cannot be read claim nothing; [Warnings] tells of the latter.
func (h HostFiles) Claimed() []idset.Range {
	claims, _ := h.read()
	var all []idset.Range
	for _, c := range claims {
		all = append(all, c.ranges()...)
	}
	return rangesOf(idset.Of(all...))
}

// claim is uids that somebody else hands out or has: a range, or named ones.
type claim struct {
	idset.Range
	what  string
	file  string            // where it is stated; "" for what systemd documents
	names map[uint32]string // accounts of passwd
}

func (c claim) ranges() []idset.Range {
	if c.names == nil {
		return []idset.Range{c.Range}
	}
	var out []idset.Range
	for id := range c.names {
		out = append(out, idset.Range{Lower: id, Higher: id})
	}
	return out
}

// namesIn lists the accounts whose uid is in s, the first few when many.
func (c claim) namesIn(s idset.Set) string {
	const most = 5
	var first []string
	for id := range s.All() {
		if len(first) == most {
			break
		}
		first = append(first, fmt.Sprintf("%d (%s)", id, c.names[id]))
	}
	n, accounts := s.Count(), "accounts"
	if n == 1 {
		accounts = "account"
	}
	text := fmt.Sprintf("%d %s of %s: %s", n, accounts, c.file, strings.Join(first, ", "))
	if n > most {
		text += fmt.Sprintf(" and %d more", n-most)
	}
	return text
}

// read returns what the files claim, and a line for each that cannot be read.
func (h HostFiles) read() (claims []claim, problems []string) {
	root := cmp.Or(h.Root, "/")
	for _, file := range []struct {
		path  string
		parse func(text string) []claim
	}{
		{"etc/login.defs", parseLoginDefs},
		{"etc/passwd", parsePasswd},
		{"etc/subuid", parseSubuid},
	} {
		text, err := os.ReadFile(filepath.Join(root, file.path))
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			problems = append(problems, fmt.Sprintf("overlap with /%s not checked: %v", file.path, err))
		default:
			claims = append(claims, file.parse(string(text))...)
		}
	}
	return claims, problems
}

// parseLoginDefs takes only what the file states: defaults differ between
// distributions. Its numbers may be octal or hexadecimal, as for strtol.
func parseLoginDefs(text string) []claim {
	bounds := map[string]uint32{}
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if n, err := strconv.ParseUint(fields[1], 0, 32); err == nil {
			bounds[fields[0]] = uint32(n)
		}
	}
	var out []claim
	for _, prefix := range []string{"SYS_UID", "UID", "SUB_UID"} {
		lower, low := bounds[prefix+"_MIN"]
		higher, high := bounds[prefix+"_MAX"]
		if low && high && lower <= higher {
			what := fmt.Sprintf("%s_MIN to %s_MAX of /etc/login.defs", prefix, prefix)
			out = append(out, claim{Range: idset.Range{Lower: lower, Higher: higher}, what: what, file: "/etc/login.defs"})
		}
	}
	return out
}

// parsePasswd skips lines without a uid, such as those of NIS.
func parsePasswd(text string) []claim {
	names := map[uint32]string{}
	for line := range strings.Lines(text) {
		fields := strings.Split(line, ":")
		if len(fields) < 4 {
			continue
		}
		n, err := strconv.ParseUint(fields[2], 10, 32)
		if err != nil {
			continue
		}
		if _, ok := names[uint32(n)]; !ok {
			names[uint32(n)] = fields[0]
		}
	}
	if len(names) == 0 {
		return nil
	}
	return []claim{{file: "/etc/passwd", names: names}}
}

// parseSubuid reads lines "owner:first:count".
func parseSubuid(text string) []claim {
	var out []claim
	for line := range strings.Lines(text) {
		fields := strings.Split(strings.TrimSpace(line), ":")
		if len(fields) != 3 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		first, err := strconv.ParseUint(fields[1], 10, 32)
		if err != nil {
			continue
		}
		count, err := strconv.ParseUint(fields[2], 10, 32)
		if err != nil || count == 0 {
			continue
		}
		last := min(first+count-1, uint64(None))
		r := idset.Range{Lower: uint32(first), Higher: uint32(last)}
		if !slices.ContainsFunc(out, func(c claim) bool { return c.Range == r }) {
			out = append(out, claim{Range: r, what: "subordinate uids of " + fields[0] + " in /etc/subuid", file: "/etc/subuid"})
		}
	}
	return out
}
