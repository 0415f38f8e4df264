package leases

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/cluster"
)

// Recovery is what a node has said of itself since an adoption began
// (recovery/NODE): it has asserted what its journal holds, and looked at what runs
// here afterwards.
type Recovery struct {
	V     int       `json:"v"`
	Of    string    `json:"of"`
	Epoch string    `json:"epoch"`
	Boot  string    `json:"boot"`
	At    time.Time `json:"at"`
	// Revision is that of etcd before the look: whatever was asserted later asks for
	// another one.
	Revision int64 `json:"revision"`
	// Journal is how many keys it knew, Asserted how many of them it put back or
	// took away, Foreign how many ids were in use here that nobody had asserted.
	Journal  int `json:"journal"`
	Asserted int `json:"asserted"`
	Foreign  int `json:"foreign"`
	// Through is how far this node had seen all of the epoch before: its mirror's
	// revision. 0 if the agent has been started since the restore.
	Through int64 `json:"through,omitempty"`
	// Conflicts are for an operator to decide; at most [maxConflicts] are told.
	Conflicts []Conflict `json:"conflicts,omitempty"`
	Write     string     `json:"w"`
}

// maxConflicts bounds a record; one conflict alone keeps the cluster recovering.
const maxConflicts = 200

// Conflict is a key about which two nodes know different things, and no revision
// says who is right.
type Conflict struct {
	// Key is the etcd key below the root.
	Key string `json:"key"`
	Why string `json:"why"`
	// Ours is what the node that tells it knows, Theirs what stands in etcd.
	Ours   Side `json:"ours"`
	Theirs Side `json:"theirs"`
}

// Side is one side of a conflict.
type Side struct {
	// Node is who asserted it, "" for what the snapshot held.
	Node     string   `json:"node,omitempty"`
	Revision int64    `json:"revision,omitempty"`
	State    string   `json:"state,omitempty"`
	Caller   string   `json:"caller,omitempty"`
	Holder   string   `json:"holder,omitempty"`
	Nodes    []string `json:"nodes,omitempty"`
	// Running: something runs under it, or may start, on Node.
	Running bool `json:"running,omitempty"`
}

// String is one side as messages show it.
func (s Side) String() string {
	who := cmp.Or(s.Node, "the snapshot")
	text := fmt.Sprintf("%s has it %s at revision %d", who, cmp.Or(s.State, "gone"), s.Revision)
	if s.Caller != "" {
		text += " for " + s.Caller
	}
	if s.Holder != "" {
		text += " (" + s.Holder + ")"
	}
	if s.Running {
		text += ", and it is in use there"
	}
	return text
}

// Mark is beside a key that was asserted in a recovery (recovered/KEY): how new what
// was asserted is, so that what is newer still wins.
type Mark struct {
	V int `json:"v"`
	// In is the recovery's epoch: a mark of an earlier one means nothing.
	In string `json:"in"`
	// Number, Epoch and Rev are those of the write that was asserted.
	Number uint64 `json:"number"`
	Epoch  string `json:"epoch,omitempty"`
	Rev    int64  `json:"rev"`
	Node   string `json:"node"`
	// Resolved names the node whose word an operator took.
	Resolved string `json:"resolved,omitempty"`
	Write    string `json:"w"`
}

func decodeRecovery(name string, data []byte) (*Recovery, error) {
	var r Recovery
	if err := cluster.Decode(data, format, &r); err != nil {
		return nil, err
	}
	if err := placed(r.Of, name); err != nil {
		return nil, err
	}
	if r.Epoch == "" || r.Boot == "" || r.At.IsZero() || r.Revision < 1 || r.Through < 0 || r.Journal < 0 || r.Asserted < 0 || r.Foreign < 0 || len(r.Conflicts) > maxConflicts {
		return nil, misfitting("recovery of no epoch, boot, time or revision, or with %d conflicts", len(r.Conflicts))
	}
	for _, c := range r.Conflicts {
		if err := tooLong(c.Key, c.Why, c.Ours.Node, c.Ours.Caller, c.Ours.Holder, c.Theirs.Node, c.Theirs.Caller, c.Theirs.Holder); err != nil {
			return nil, err
		}
	}
	return &r, tooLong(r.Epoch, r.Boot, r.Write)
}

func decodeMark(data []byte) (*Mark, error) {
	var m Mark
	if err := cluster.Decode(data, format, &m); err != nil {
		return nil, err
	}
	if m.In == "" || m.Rev < 0 {
		return nil, misfitting("mark of no epoch, or of revision %d", m.Rev)
	}
	return &m, tooLong(m.In, m.Epoch, m.Node, m.Resolved, m.Write)
}

// standing is what stands at a key in a restored etcd, and its mark.
type standing struct {
	raw             []byte
	modRev, markRev int64
	mark            *Mark // of this recovery, nil if there is none
}

// age orders what is known of one key: by epoch, and in it by revision.
type age struct {
	number uint64
	rev    int64
}

func (a age) compare(b age) int {
	return cmp.Or(cmp.Compare(a.number, b.number), cmp.Compare(a.rev, b.rev))
}

// ruling is what a node does about one key.
type ruling int

const (
	// yield: what stands is as new, or newer.
	yield ruling = iota
	// assert: put what the journal says there, or delete it.
	assert
	// dispute: only a person can tell.
	dispute
)

// rule decides on one key of a journal, in a recovery whose record is meta: pure.
//
//	stands                    | older than the journal | newer   | as old, same bytes | as old, others
//	asserted (has a mark)     | assert                 | yield   | yield              | dispute
//	in the snapshot           | assert                 | yield   | yield              | dispute
//	absent, up to meta.Base   | assert                 | yield   | –                  | yield
//	resolved by an operator   | assert if the word taken is this node's, else yield
//
// What was written in an epoch of the same number and another name is of a history
// that parted: neither older nor newer.
func rule(e jentry, at standing, meta cluster.Meta, self string) ruling {
	same := (e.Value == nil && at.raw == nil) || (e.Value != nil && bytes.Equal(e.Value, at.raw))
	mine, theirs, epoch := age{e.Number, e.Rev}, age{meta.Restored(), meta.Base}, ""
	if n := len(meta.Previous); n > 0 {
		epoch = meta.Previous[n-1].Epoch
	}
	switch {
	case at.mark != nil && at.mark.Resolved != "":
		if at.mark.Resolved == self && !same {
			return assert
		}
		return yield
	case at.mark != nil:
		theirs, epoch = age{at.mark.Number, at.mark.Rev}, at.mark.Epoch
	case at.raw != nil:
		theirs.rev = meta.Rev(at.modRev)
	}
	parted := mine.number == theirs.number && e.Epoch != epoch
	order := mine.compare(theirs)
	switch {
	case same && (at.raw != nil || order <= 0 || parted): // else the mark must grow
		return yield
	case parted && (at.raw != nil || at.mark != nil):
		return dispute
	case order > 0:
		return assert
	case order < 0 || (at.raw == nil && at.mark == nil):
		return yield
	}
	return dispute
}

// spoken tells whom a recovery waits for, and what an operator must decide: pure.
// Neither means that granting may resume, if nothing has changed since this view.
func (v *view) spoken(meta cluster.Meta) (waits []Wait, conflicts []Conflict) {
	need := func(name, boot string, up bool) {
		r := v.recoveries[name].Val
		switch {
		case r != nil && r.Epoch == meta.Epoch && (boot == "" || r.Boot == boot) && r.Revision >= v.marked:
		case r != nil && r.Epoch == meta.Epoch && up:
			waits = append(waits, Wait{name, "looks once more at what runs there"})
		case up:
			waits = append(waits, Wait{name, "says what it holds"})
		default:
			waits = append(waits, Wait{name, "absent"})
		}
	}
	for name, n := range v.nodes {
		_, up := v.alive[name]
		if n.Val.State == nodeActive || n.Val.Epoch != meta.Epoch {
			need(name, n.Val.Boot, up)
		}
	}
	for name := range v.strange {
		waits = append(waits, Wait{name, "its registration cannot be read"})
	}
	for name := range v.alive {
		_, known := v.nodes[name]
		if _, strange := v.strange[name]; !known && !strange {
			waits = append(waits, Wait{name, "it is present, and not registered"})
		}
	}
	for _, name := range meta.Expect {
		if _, known := v.nodes[name]; !known {
			waits = append(waits, Wait{name, "not registered in this etcd"})
		}
	}
	for _, r := range v.recoveries {
		if r.Val.Epoch == meta.Epoch {
			conflicts = append(conflicts, r.Val.Conflicts...)
		}
	}
	slices.SortFunc(waits, func(a, b Wait) int { return cmp.Compare(a.Node, b.Node) })
	slices.SortFunc(conflicts, func(a, b Conflict) int {
		return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Ours.Node, b.Ours.Node))
	})
	return waits, conflicts
}

// through is how far anybody who has spoken had seen all of the epoch before.
func (v *view) through(meta cluster.Meta) int64 {
	far := int64(0)
	for _, r := range v.recoveries {
		if r.Val.Epoch == meta.Epoch {
			far = max(far, r.Val.Through)
		}
	}
	return far
}

// resuming is the transaction that ends a recovery, decided on a view at rev: it
// rests on the node list, and on nobody having said or asserted anything since.
func resuming(k cluster.Keys, meta cluster.Meta, raw []byte, members, rev, through int64) ([]clientv3.Cmp, clientv3.Op) {
	meta.State, meta.Reason, meta.By, meta.Since, meta.Adopted, meta.Expect = cluster.StateNormal, "", "", time.Time{}, false, nil
	meta.Through = through
	meta.Imported = 0 // from here on etcd's own revisions count
	unchanged := func(prefix string) clientv3.Cmp {
		return clientv3.Compare(clientv3.ModRevision(prefix).WithPrefix(), "<", rev+1)
	}
	return []clientv3.Cmp{
		clientv3.Compare(clientv3.Value(k.Meta()), "=", string(raw)),
		clientv3.Compare(clientv3.ModRevision(k.Members()), "=", members),
		unchanged(k.RecoveryPrefix()), unchanged(k.RecoveredPrefix()), unchanged(k.Nodes()),
	}, clientv3.OpPut(k.Meta(), string(cluster.Encode(meta)))
}
