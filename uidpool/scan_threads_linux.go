package uidpool

import (
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// maxListings bounds how often the threads of one process are listed.
const maxListings = 256

// threadLists are the buffers for the threads of one process.
type threadLists struct {
	dir dirEntries
	// read are the threads whose status was read; before and after are two
	// listings in a row.
	read, before, after map[int]bool
}

// readThreads tallies every thread of process pid.
//
// Unlike /proc, task/ numbers its positions by place in the list: when a
// thread that was passed exits, the others move up and one may be skipped, and
// going back does not help. What does: a listing is complete if each of its
// threads is still there in the next one, since then nobody moved up during
// it; new threads only join at the end. So list until that is so and every
// listed thread has been read. The leader is read anew each time, because
// another thread may take its place and number (exec).
func (s *scanner) readThreads(pid int) (gone bool, err error) {
	t := &s.threads
	if t.read == nil {
		t.read, t.before, t.after = map[int]bool{}, map[int]bool{}, map[int]bool{}
		t.dir.buf = make([]byte, manyEntries)
	}
	path := strconv.AppendInt(s.file.path[:0], int64(pid), 10)
	path = append(path, "/task\x00"...)
	fd, err := openat(s.rootFD, path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC)
	if vanished(err) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("open the threads of process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	t.dir.fd = fd
	clear(t.read)
	if gone, err := t.list(pid, t.before); gone || err != nil {
		return gone, err
	}
	for range maxListings {
		if err := s.readListed(fd, pid); err != nil {
			return false, err
		}
		if gone, err := t.list(pid, t.after); gone || err != nil {
			return gone, err
		}
		if within(t.before, t.after) {
			s.tally.tasks += len(t.before)
			return false, nil
		}
		t.before, t.after = t.after, t.before
	}
	return false, unsteady(fmt.Sprintf("threads of process %d come and go faster than they can be read", pid))
}

// list fills into with the threads there are.
func (t *threadLists) list(pid int, into map[int]bool) (gone bool, err error) {
	clear(into)
	if err := t.dir.seek(0); err != nil {
		return false, err
	}
	for {
		name, _, err := t.dir.next()
		if vanished(err) {
			return true, nil
		}
		if err != nil {
			return false, fmt.Errorf("list the threads of process %d: %w", pid, err)
		}
		if name == nil {
			// A process that is being reaped has no thread.
			return len(into) == 0, nil
		}
		if !isPID(name) {
			continue
		}
		tid, ok := parseInt(name)
		if !ok {
			return false, fmt.Errorf("thread %q of process %d is no number", name, pid)
		}
		into[tid] = true
	}
}

// readListed reads the leader and every thread of t.before not read yet. One
// that is gone will be missing from the next listing.
func (s *scanner) readListed(fd, pid int) error {
	leader, gone, err := s.taskStatus(fd, pid, pid)
	if err != nil {
		return err
	}
	var known *[4]uint32
	if !gone {
		known = &leader.uids
		s.tally.add(pid, 0, &leader, nil)
	}
	for tid := range s.threads.before {
		if tid == pid || s.threads.read[tid] {
			continue
		}
		st, gone, err := s.taskStatus(fd, tid, pid)
		if err != nil {
			return err
		}
		if !gone {
			s.threads.read[tid] = true
			s.tally.add(pid, tid, &st, known)
		}
	}
	return nil
}

// within says that every thread of before is in after.
func within(before, after map[int]bool) bool {
	for tid := range before {
		if !after[tid] {
			return false
		}
	}
	return true
}
