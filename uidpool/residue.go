package uidpool

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/idpool/idpool/leases"
)

// IPCObject is a System V object that outlives the processes that made it.
type IPCObject struct {
	// Kind is shm, sem or msg.
	Kind string
	ID   int
	// UID owns it, Creator made it: either may use it.
	UID, Creator UID
}

// String names the object as ipcs(1) and ipcrm(1) do.
func (o IPCObject) String() string { return o.Kind + " " + strconv.Itoa(o.ID) }

// Residue is what was found of uids under which nothing may run: what outlives
// processes and was cheap to look for.
type Residue struct {
	// Found says what, by uid, in words.
	Found map[UID][]string
	// IPC, Shared (files of /dev/shm and /dev/mqueue) and Keyrings are those that a
	// [Cleaner] can remove. A keyring is true if it was found to be more than the
	// two that the kernel makes for whoever asks, empty as they were made: those are
	// no residue but to a pool that clears keyrings.
	IPC      []IPCObject
	Shared   map[UID][]string
	Keyrings map[UID]bool
	// Doubt says what could not be looked at: it speaks against every uid.
	Doubt []string
}

// Cleaner removes what a pool's policy says is to be removed, of uids under which
// nothing runs.
type Cleaner interface {
	RemoveIPC(o IPCObject) error
	RemoveShared(path string) error
	ClearKeyring(uid UID) error
}

func newResidue() *Residue {
	return &Residue{Found: map[UID][]string{}, Shared: map[UID][]string{}, Keyrings: map[UID]bool{}}
}

func (r *Residue) add(uid UID, format string, args ...any) {
	r.Found[uid] = append(r.Found[uid], fmt.Sprintf(format, args...))
}

// of says what is left of the ids of a claim, "" if nothing.
func (r *Residue) of(l leases.Leftover) string {
	parts := slices.Clone(r.Doubt)
	if l.ClearsKeyring {
		for _, uid := range idsWithin(r.Keyrings, l) {
			if !r.Keyrings[uid] {
				parts = append(parts, "user keyrings of "+uid.String())
			}
		}
	}
	for _, uid := range idsWithin(r.Found, l) {
		for _, what := range r.Found[uid] {
			if l.Count > 1 {
				what += " of " + uid.String()
			}
			parts = append(parts, what)
		}
	}
	return strings.Join(parts, ", ")
}

// idsWithin are the keys of found that are ids of a claim, in order.
func idsWithin[V any](found map[UID]V, l leases.Leftover) []UID {
	var uids []UID
	for uid := range found {
		if l.Covers(uint32(uid)) {
			uids = append(uids, uid)
		}
	}
	slices.Sort(uids)
	return uids
}

// clean removes what the policy of a claim says; it tells whether it removed
// anything. What cannot be removed stays, and is found again.
func (r *Residue) clean(l leases.Leftover, by Cleaner) bool {
	did := false
	if l.RemoveIPC {
		for _, o := range r.IPC {
			if l.Covers(uint32(o.UID)) || l.Covers(uint32(o.Creator)) {
				did = by.RemoveIPC(o) == nil || did
			}
		}
		for _, uid := range idsWithin(r.Shared, l) {
			for _, path := range r.Shared[uid] {
				did = by.RemoveShared(path) == nil || did
			}
		}
	}
	if l.ClearKeyring {
		for _, uid := range idsWithin(r.Keyrings, l) {
			did = by.ClearKeyring(uid) == nil || did
		}
	}
	return did
}

// readKeyUsers reads /proc/key-users: a line for each uid that has keys.
func (r *Residue) readKeyUsers(text string) {
	for line := range strings.Lines(text) {
		name, rest, ok := strings.Cut(strings.TrimSpace(line), ":")
		uid, err := strconv.ParseUint(name, 10, 32)
		if ok && err == nil && uid != 0 {
			r.Keyrings[UID(uid)] = !emptyKeyrings(UID(uid), rest)
			if r.Keyrings[UID(uid)] {
				r.add(UID(uid), "keys in the kernel (/proc/key-users)")
			}
		}
	}
}

// emptyKeyrings tells from the rest of its line of /proc/key-users whether all that
// a uid has are its user keyring and its user session keyring, with nothing in them.
// The first look of anybody makes them (login, su and sudo by pam_keyinit), and then
// they stay. The kernel counts the bytes of names, and 4 for the one link that the
// second has to the first unless somebody cleared it.
func emptyKeyrings(uid UID, rest string) bool {
	const keys, bytes = 2, 3 // of the fields: usage, instantiated, in the quota, its bytes
	f := strings.Fields(rest)
	if len(f) <= bytes {
		return false
	}
	n, _, _ := strings.Cut(f[keys], "/")
	size, _, _ := strings.Cut(f[bytes], "/")
	names := len("_uid.\x00_uid_ses.\x00") + 2*len(uid.String())
	return f[1] == "2/2" && n == "2" && (size == strconv.Itoa(names) || size == strconv.Itoa(names+4))
}

// readSysV reads one of /proc/sysvipc by its headings: columns differ by kind.
func (r *Residue) readSysV(kind, text string) {
	lines := strings.Split(text, "\n")
	head := strings.Fields(lines[0])
	number := func(fields []string, name string) (uint64, bool) {
		at := slices.Index(head, name)
		if at < 0 || at >= len(fields) {
			return 0, false
		}
		n, err := strconv.ParseUint(fields[at], 10, 32)
		return n, err == nil
	}
	for _, line := range lines[1:] {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		id, ok := number(fields, map[string]string{"shm": "shmid", "sem": "semid", "msg": "msqid"}[kind])
		uid, ok2 := number(fields, "uid")
		creator, ok3 := number(fields, "cuid")
		if !ok || !ok2 || !ok3 {
			r.Doubt = append(r.Doubt, fmt.Sprintf("cannot tell: /proc/sysvipc/%s says %.60q", kind, line))
			continue
		}
		o := IPCObject{kind, int(id), UID(uid), UID(creator)}
		r.IPC = append(r.IPC, o)
		r.add(o.UID, "System V %s", o)
		if o.Creator != o.UID {
			r.add(o.Creator, "System V %s that it created", o)
		}
	}
}

// readNames reads an account file in which field at of a line is a number: passwd
// and group by field 2, subuid and subgid by field 0.
func (r *Residue) readNames(path, text string, at int) {
	for line := range strings.Lines(text) {
		fields := strings.Split(strings.TrimSpace(line), ":")
		if len(fields) <= at {
			continue
		}
		if n, err := strconv.ParseUint(fields[at], 10, 32); err == nil && n != 0 {
			r.add(UID(n), "an entry in %s (%.32q)", path, fields[0])
		}
	}
}

// Residue implements [leases.Residuer].
func (p *Prover) Residue(ids []leases.Leftover) map[leases.Ref]string {
	found := readResidue(p.roots)
	if p.cleaner != nil {
		did := false
		for _, l := range ids {
			did = found.clean(l, p.cleaner) || did
		}
		if did {
			found = readResidue(p.roots)
		}
	}
	left := map[leases.Ref]string{}
	for _, l := range ids {
		what := found.of(l)
		if what == "" {
			what = found.files(p.roots, l)
		}
		if what != "" {
			left[l.Ref] = what
		}
	}
	return left
}
