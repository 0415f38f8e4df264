package uidpool

import (
	"context"
	"math"

	"github.com/idpool/idpool/problem"
)

// Usage says whether a uid is in use on this node, and by whom.
type Usage struct {
	UID   UID  `json:"uid"`
	InUse bool `json:"in_use"`
	// By holds at most [MaxHolders] of the tasks that have the uid. It may be
	// empty while InUse is true: holders come and go, and doubt has none.
	By []Process `json:"by"`
}

// Probe says whether uid is in use on this node, and by whom. See [Reader.Probe].
func Probe(uid UID) (Usage, error) {
	r, err := theReader()
	if err != nil {
		return Usage{UID: uid, InUse: true, By: []Process{}}, err
	}
	return r.Probe(context.Background(), uid)
}

// InUse reports whether uid is in use on this node: true as well whenever that
// cannot be told, and then the error says why. It answers what Ganeti's
// _IsUidUsed asks pgrep for, of all four uids and of all threads.
func InUse(uid UID) (bool, error) {
	usage, err := Probe(uid)
	return usage.InUse, err
}

// Quick asks the kernel alone (getpriority, PRIO_USER; under a microsecond for
// a uid that nobody has, no permission needed). True: a task in this process's
// pid namespace has uid as its real uid, for certain. False says nothing about
// effective, saved and filesystem uids, so it frees nothing. The uids 0 and
// 4294967295 are refused with [problem.ErrInvalid], a shifted user namespace
// with [problem.ErrNoProof]; with an error the answer is true.
func Quick(uid UID) (bool, error) {
	if err := checkAskable(uid); err != nil {
		return true, err
	}
	return quick(uid)
}

// Probe says whether uid is in use on this node, and by whom: getpriority, an
// exact scan, getpriority again. It is never "not in use" on doubt: InUse is
// true with every error. Errors: [problem.ErrInvalid] for 0 and 4294967295,
// the cause of ctx, else [problem.ErrNoProof].
func (r *Reader) Probe(ctx context.Context, uid UID) (Usage, error) {
	usage := Usage{UID: uid, InUse: true, By: []Process{}}
	// A holder may exit between the questions: then ask once more, so that a
	// yes can name somebody.
	const attempts = 3
	for range attempts {
		before, err := Quick(uid)
		if err != nil {
			return usage, err
		}
		snapshot, err := r.Scan(ctx)
		if err != nil {
			return usage, err
		}
		after, err := Quick(uid)
		if err != nil {
			return usage, err
		}
		if by := snapshot.Who[uint32(uid)]; len(by) > 0 {
			usage.By = by
			return usage, nil
		}
		if !before && !after {
			usage.InUse = false
			return usage, nil
		}
	}
	return usage, nil
}

// InUse is [InUse] as this reader sees it.
func (r *Reader) InUse(ctx context.Context, uid UID) (bool, error) {
	usage, err := r.Probe(ctx, uid)
	return usage.InUse, err
}

// checkAskable refuses the two numbers that the kernel takes for something
// else than a user.
func checkAskable(uid UID) error {
	switch uint32(uid) {
	case 0:
		return problem.New(problem.CodeInvalid, "uid 0 is root: it is always in use and never granted")
	case math.MaxUint32:
		return problem.New(problem.CodeInvalid, "uid 4294967295 means \"no change\" to the kernel: it can never be granted")
	}
	return nil
}
