package uidpool

import (
	"strconv"

	"github.com/idpool/idpool/problem"
)

// UID is a POSIX user id. The gid that goes with it is the same number.
type UID uint32

// None stands for no uid at all. It is the number that system calls take for
// "no change", so it is never a uid.
const None UID = 4294967295

// ParseUID reads a uid in plain ASCII decimal, blanks around it allowed. It
// checks the form alone: [UID.Valid] says whether the number can be granted.
// The error is [problem.ErrInvalid].
func ParseUID(text string) (UID, error) {
	n, why := parseBound(text)
	if why != "" {
		return None, problem.New(problem.CodeInvalid, "uid not read: %s %s", quoteElement(text), why)
	}
	return UID(n), nil
}

// String is the number in decimal.
func (u UID) String() string { return strconv.FormatUint(uint64(u), 10) }

// Valid returns nil for a uid that can be granted, and [problem.ErrInvalid]
// with the reason for 0, 65534, 65535 and 4294967295, which never can.
func (u UID) Valid() error {
	if why := whyNever(u); why != "" {
		return problem.New(problem.CodeInvalid, "uid %s can never be granted: it is %s", u, why)
	}
	return nil
}

// never lists, ascending, the uids that no pool may contain.
var never = []UID{0, 65534, 65535, None}

// whyNever says what an uid is that can never be granted; "" for any other.
func whyNever(u UID) string {
	switch u {
	case 0:
		return "root"
	case 65534:
		return "nobody"
	case 65535:
		return "the 16-bit -1"
	case None:
		return `the kernel's "no change"`
	}
	return ""
}
