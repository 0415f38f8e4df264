package vlan

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/problem"
)

const (
	// maxPoolFile is how long a pool file may be, in bytes.
	maxPoolFile = 16 << 20
	// maxPoolVersion is the highest version that every JSON reader gets right.
	maxPoolVersion = 1<<53 - 1
)

// PoolFile is a pool file's content: a JSON object, all of whose keys may be
// missing,
//
//	{"version": 0, "range": {"from": 0, "to": 0}, "used": [ids], "allocations": {key: id}}
//
// The range has "from" and does not have "to"; without one it is [0:0[, from
// which nothing can be allocated. Taken is what stands in used or in
// allocations. The file is keyed if it has "allocations": then new ids go there,
// else into used. Ids are 0 to 4294967295, whether a frame can carry them or not,
// and those outside of the range stay taken. (The format of Inmanta's VLAN
// example, SEEDS.md part B.)
//
// A PoolFile is immutable and safe for concurrent use.
type PoolFile struct {
	data        []byte
	top         []member
	version     uint64
	from, to    uint32
	used        []uint32
	allocations map[string]uint32 // nil: un-keyed
	keys        map[uint32]string
	taken       idset.Set
}

// ParsePoolFile reads a pool file. It guesses at nothing: a file that is empty, torn, over 16 MiB, or not in UTF-8; a
// value of another type; an id that is negative, no whole number or above
// 4294967295; a range whose from is above its to; a key twice in one object; an id
// twice, wherever it stands; and an empty allocation key are each an error that
// matches ErrInvalid and names the element. Keys that it does not know are kept
// as they are.
func ParsePoolFile(data []byte) (*PoolFile, error) {
	p, err := readPoolFile(data)
	if err != nil {
		return nil, problem.Wrap(problem.CodeInvalid, err, "pool file not read")
	}
	return p, nil
}

// NewPoolFile makes the content of a new pool file, of version 0, with the range
// from (inside) to (outside). allocations nil makes one without keys. The
// arguments are copied. What [ParsePoolFile] would refuse is refused.
func NewPoolFile(from, to uint32, used []uint32, allocations map[string]uint32) (*PoolFile, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "{\n  \"version\": 0,\n  \"range\": {\"from\": %d, \"to\": %d},\n  \"used\": [", from, to)
	for i, id := range used {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(strconv.FormatUint(uint64(id), 10))
	}
	b.WriteString("]")
	if allocations != nil {
		keys := slices.SortedFunc(maps.Keys(allocations), func(a, b string) int {
			return cmp.Or(cmp.Compare(allocations[a], allocations[b]), cmp.Compare(a, b))
		})
		b.WriteString(",\n  \"allocations\": {")
		for i, key := range keys {
			if i > 0 {
				b.WriteString(",")
			}
			if err := validOutsideKey(key); err != nil {
				return nil, err
			}
			fmt.Fprintf(&b, "\n    %s: %d", jsonText(key), allocations[key])
		}
		if len(keys) > 0 {
			b.WriteString("\n  ")
		}
		b.WriteString("}")
	}
	b.WriteString("\n}\n")
	p, err := readPoolFile(b.Bytes())
	if err != nil {
		return nil, problem.Wrap(problem.CodeInvalid, err, "pool file not made")
	}
	return p, nil
}

// Encode returns the file. A file that was parsed comes back byte for byte.
func (p *PoolFile) Encode() []byte { return bytes.Clone(p.data) }

// Version is the counter that each save increments, 0 if the file has none.
func (p *PoolFile) Version() uint64 { return p.version }

// Range returns the range: from is inside, to is not. Both are 0 if the file has
// none.
func (p *PoolFile) Range() (from, to uint32) { return p.from, p.to }

// Used returns every taken id, with and without a key, outside of the range too.
func (p *PoolFile) Used() idset.Set { return p.taken.Clone() }

// Allocations returns a copy of the keys and their ids; nil if the file is not
// keyed.
func (p *PoolFile) Allocations() map[string]uint32 { return maps.Clone(p.allocations) }

// Keyed reports whether the file keeps allocation keys.
func (p *PoolFile) Keyed() bool { return p.allocations != nil }

// Size is how many ids the range has.
func (p *PoolFile) Size() uint64 { return uint64(p.to - p.from) }

// Free is how many ids of the range are not taken.
func (p *PoolFile) Free() uint64 { return p.pool().CountWithout(p.taken) }

// Entry is what the file says of one id.
func (p *PoolFile) Entry(id uint32) Entry {
	return Entry{VID: id, Allocated: p.taken.Contains(id), Key: p.keys[id], Keyed: p.Keyed()}
}

// pool is the range as a set.
func (p *PoolFile) pool() idset.Set {
	if p.from == p.to {
		return idset.Set{}
	}
	return idset.Of(idset.Range{Lower: p.from, Higher: p.to - 1})
}

// jsonText is a text as a JSON string, with nothing escaped that need not be.
func jsonText(text string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(text); err != nil {
		panic("bug: a string does not encode: " + err.Error())
	}
	return string(bytes.TrimSuffix(b.Bytes(), []byte("\n")))
}
