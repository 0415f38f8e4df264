package uidpool

import (
	"context"
	"time"

	"github.com/idpool/idpool/idset"
)

// Snapshot is the result of one exact scan. It is shared between callers: read
// only.
type Snapshot struct {
	// Boot is the boot id the scan was made under.
	Boot string
	// Began was taken before the first look at a process, Ended after the
	// last. Both carry the monotonic clock.
	Began, Ended time.Time
	// Tasks counts the threads and processes that were read.
	Tasks int
	// Used holds every uid that some task had as real, effective, saved or
	// filesystem uid at one moment between Began and Ended.
	Used idset.Set
	// Who shows at most [MaxHolders] tasks of each uid in Used.
	Who map[uint32][]Process
}

// Usage says what the scan saw of uid. Where it saw nothing, [Quick] may still:
// only the two together prove a uid unused.
func (s *Snapshot) Usage(uid UID) Usage {
	by := s.Who[uint32(uid)]
	if by == nil {
		by = []Process{}
	}
	return Usage{UID: uid, InUse: s.Used.Contains(uint32(uid)), By: by}
}

// MaxHolders is how many tasks of one uid a [Snapshot] and a [Usage] show.
const MaxHolders = 8

// quickMembers is the size of set up to which [Scan] also asks getpriority for
// every member.
const quickMembers = 4096

// Scan returns the members of set that are in use on this node. See
// [Reader.Members].
func Scan(set idset.Set) (idset.Set, error) {
	r, err := theReader()
	if err != nil {
		return set.Clone(), err
	}
	return r.Members(context.Background(), set)
}

// Members returns the members of set that are in use on this node: one exact
// scan, and for a set of at most 4096 ids also getpriority before and after it.
// With an error nothing is proven, and the whole set comes back.
func (r *Reader) Members(ctx context.Context, set idset.Set) (idset.Set, error) {
	ask := set.Count() <= quickMembers
	var used idset.Set
	if ask {
		if err := addQuick(&used, set); err != nil {
			return set.Clone(), err
		}
	}
	snapshot, err := r.Scan(ctx)
	if err != nil {
		return set.Clone(), err
	}
	if ask {
		if err := addQuick(&used, set); err != nil {
			return set.Clone(), err
		}
	}
	return used.Add(set.Intersect(snapshot.Used)), nil
}

// addQuick inserts into used every member of set that getpriority sees. The
// ids it cannot be asked about (0 and 4294967295) are left to the scan.
func addQuick(used *idset.Set, set idset.Set) error {
	for id := range set.All() {
		if checkAskable(UID(id)) != nil || used.Contains(id) {
			continue
		}
		held, err := Quick(UID(id))
		if err != nil {
			return err
		}
		if held {
			used.Insert(id)
		}
	}
	return nil
}

// tally gathers the uids of the tasks that a scan reads.
type tally struct {
	who   map[uint32][]Process
	tasks int
}

func (t *tally) reset() { *t = tally{who: make(map[uint32][]Process)} }

// add records the uids of one task. tid is 0 for a process as a whole; for a
// thread, leader names the uids that its process stands for already.
func (t *tally) add(pid, tid int, st *taskStatus, leader *[4]uint32) {
	var p Process
	for i, uid := range st.uids {
		if contains(st.uids[:i], uid) || leader != nil && contains(leader[:], uid) {
			continue
		}
		held := t.who[uid]
		if len(held) >= MaxHolders || listed(held, pid, tid) {
			continue
		}
		if p.PID == 0 {
			p = Process{PID: pid, PPID: st.ppid, TID: tid,
				State: string(st.state), Command: string(st.name), UIDs: st.uids}
		}
		t.who[uid] = append(held, p)
	}
}

func contains(uids []uint32, uid uint32) bool {
	for _, u := range uids {
		if u == uid {
			return true
		}
	}
	return false
}

func listed(held []Process, pid, tid int) bool {
	for i := range held {
		if held[i].PID == pid && held[i].TID == tid {
			return true
		}
	}
	return false
}

// used is every uid that was recorded.
func (t *tally) used() idset.Set {
	ids := make([]uint32, 0, len(t.who))
	for uid := range t.who {
		ids = append(ids, uid)
	}
	return idset.New(ids...)
}

// unsteady says that a pass proves nothing but the next one may.
type unsteady string

func (u unsteady) Error() string { return string(u) }
