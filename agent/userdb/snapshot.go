package userdb

import (
	"iter"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
)

const (
	// DefaultPrefix begins every name.
	DefaultPrefix = "idp-"
	// maxName is what utmp and many tools take, in bytes.
	maxName = 31
)

var (
	prefixShape = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,15}$`)
	holderShape = regexp.MustCompile(`^[a-z0-9_][a-z0-9_-]*$`)
	digits      = regexp.MustCompile(`^[0-9]+$`)
)

// ValidPrefix tells whether names may begin so: 1 to 16 of a-z 0-9 _ -, the first no
// digit and no dash.
func ValidPrefix(prefix string) bool { return prefixShape.MatchString(prefix) }

// Grant is a claim that gives uids a name.
type Grant struct {
	// UID is the first of Count uids.
	UID, Count uint32
	// Pool is where it was granted from, Holder who it says holds it.
	Pool, Holder string
	// Live: not released. Only then may it have a name of its own.
	Live bool
	// Here: it names this node.
	Here bool
}

// Record is one uid with its name, and the group of the same number and name.
type Record struct {
	Name string
	UID  uint32
	Pool string
}

// entry is a grant and its own name, "" if it has none.
type entry struct {
	Grant
	own string
}

// Snapshot is the names of one moment. It does not change.
type Snapshot struct {
	prefix  string
	entries []entry // by uid, none overlaps another
	own     map[string]uint32
	local   local
}

// newSnapshot gives names to grants. Of those that overlap the first one stands.
func newSnapshot(prefix string, grants []Grant, l local) *Snapshot {
	s := &Snapshot{prefix: prefix, own: map[string]uint32{}, local: l}
	grants = slices.Clone(grants)
	sort.SliceStable(grants, func(i, j int) bool { return grants[i].UID < grants[j].UID })
	holders := map[string]int{}
	var next uint64
	for _, g := range grants {
		if g.Count == 0 || uint64(g.UID) < next {
			continue
		}
		next = uint64(g.UID) + uint64(g.Count)
		s.entries = append(s.entries, entry{Grant: g})
		if g.Live {
			holders[g.Holder]++
		}
	}
	for i := range s.entries {
		e := &s.entries[i]
		name := prefix + e.Holder
		if e.Live && e.Count == 1 && holders[e.Holder] == 1 && holderName(e.Holder) && len(name) <= maxName && !l.names[name] && !s.hidden(e.UID) {
			e.own, s.own[name] = name, e.UID
		}
	}
	return s
}

// holderName tells whether a holder may be part of a user's name, and is no number:
// that would be another uid's name.
func holderName(holder string) bool {
	return holderShape.MatchString(holder) && !digits.MatchString(holder)
}

// hidden are uids that are never answered for: root, nobody, those that mean "none",
// and those that this host has a name for.
func (s *Snapshot) hidden(uid uint32) bool {
	return uid == 0 || uid == 65534 || uid == 65535 || uid == 1<<32-1 || s.local.ids[uid]
}

// ByUID is the record of a uid.
func (s *Snapshot) ByUID(uid uint32) (Record, bool) {
	i := sort.Search(len(s.entries), func(i int) bool { return s.entries[i].UID > uid }) - 1
	if i < 0 || uid-s.entries[i].UID >= s.entries[i].Count {
		return Record{}, false
	}
	return s.record(s.entries[i], uid)
}

func (s *Snapshot) record(e entry, uid uint32) (Record, bool) {
	name := e.own
	if name == "" {
		name = s.prefix + strconv.FormatUint(uint64(uid), 10)
	}
	if s.hidden(uid) || s.local.names[name] {
		return Record{}, false
	}
	return Record{Name: name, UID: uid, Pool: e.Pool}, true
}

// ByName is the record of a name. A uid that has a name of its own has no other.
func (s *Snapshot) ByName(name string) (Record, bool) {
	uid, ok := s.own[name]
	if !ok {
		rest, has := strings.CutPrefix(name, s.prefix)
		n, err := strconv.ParseUint(rest, 10, 32)
		if !has || err != nil {
			return Record{}, false
		}
		uid = uint32(n)
	}
	r, ok := s.ByUID(uid)
	return r, ok && r.Name == name
}

// All are the records in order of uid.
func (s *Snapshot) All() iter.Seq[Record] { return s.those(func(Grant) bool { return true }) }

// here are the records of grants that name this node.
func (s *Snapshot) here() iter.Seq[Record] { return s.those(func(g Grant) bool { return g.Here }) }

func (s *Snapshot) those(keep func(Grant) bool) iter.Seq[Record] {
	return func(yield func(Record) bool) {
		for _, e := range s.entries {
			if !keep(e.Grant) {
				continue
			}
			for i := range e.Count {
				if r, ok := s.record(e, e.UID+i); ok && !yield(r) {
					return
				}
			}
		}
	}
}
