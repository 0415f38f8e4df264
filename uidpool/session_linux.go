package uidpool

import (
	"context"
	"fmt"

	"github.com/idpool/idpool/problem"
)

// SessionYounger reports whether a live process other than p is in p's session
// and started at sinceTicks (see [NowTicks]) or later: perhaps the child that a
// requester forked before it died, which has not become its uid yet: one with
// all four of its uids except is not counted. It walks
// the processes as exactly as [Reader.Scan] does. In doubt it is true and the
// error ([problem.ErrNoProof], or the cause of ctx) says why. A child that left
// the session (setsid) is not found.
func (r *Reader) SessionYounger(ctx context.Context, p ProcessRef, sinceTicks uint64, except UID) (bool, error) {
	pid, err := r.sessionYounger(ctx, p, sinceTicks, except)
	return pid != 0 || err != nil, err
}

// sessionYounger is SessionYounger with the last such process found, 0 if there is none.
func (r *Reader) sessionYounger(ctx context.Context, p ProcessRef, sinceTicks uint64, except UID) (int, error) {
	if err := r.View(); err != nil {
		return 0, err
	}
	inode, err := PIDNamespace()
	if err != nil {
		return 0, err
	}
	if inode != p.PIDNS || p.Session <= 0 {
		return 0, problem.New(problem.CodeNoProof,
			"cannot tell who is left of session %d of %s: it is of pid namespace %d, this process of %d", p.Session, p, p.PIDNS, inode)
	}
	found := 0
	err = r.exact(ctx, func(s *scanner, pid int) (bool, error) {
		text, err := s.file.read(s.rootFD, pid, "stat", func([]byte) bool { return false })
		if vanished(err) {
			return true, nil
		}
		if err != nil {
			return false, fmt.Errorf("read stat of process %d: %w", pid, err)
		}
		st, err := parseStat(text)
		if err != nil {
			return false, err
		}
		if st.state == 'X' || st.pid == 0 {
			return true, nil
		}
		itself := st.pid == p.PID && st.start == p.Start
		if st.session == p.Session && st.start >= sinceTicks && !st.dead() && !itself {
			now, gone, err := s.taskStatus(s.rootFD, pid, pid)
			if gone || err != nil {
				return gone, err
			}
			if u := uint32(except); now.uids != [4]uint32{u, u, u, u} {
				found = pid
			}
		}
		// Counted last: a process that is gone is met again.
		s.tally.tasks += max(st.threads, 1)
		return false, nil
	}, func(*scanner) {})
	if err != nil {
		return 0, err
	}
	return found, nil
}
