package uidpool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/idpool/idpool/problem"
)

const (
	// maxPasses bounds how often a scan starts anew because pids wrapped.
	maxPasses = 10
	// maxRewinds bounds how often one pass goes back for vanished tasks.
	maxRewinds = 20_000
	// lookEvery is how many entries are read between two looks at the last pid,
	// and maxStall how long that may take: in it, the pids must not be able to
	// go all the way round unseen.
	lookEvery = 64
	maxStall  = 200 * time.Millisecond
	// inFlight is how many pids below the last one may still belong to forks
	// that have a number and cannot be seen yet.
	inFlight = 256
)

// scanner makes one scan. Its walk reads each task the moment the directory
// names it, and where the task is gone it goes back to the place before it: a
// process that lives on by forking always has its next pid ahead of the walk.
// That holds while pids rise, so a pass in which the last pid went down is
// repeated; and tasks that were born behind the walk, by a parent whose number
// is from an earlier round, are met by the second walk over the newest pids.
type scanner struct {
	rootFD int
	dir    dirEntries
	last   lastPID
	file   fileReader
	// readTask reads one process; it says whether the process was gone.
	readTask func(pid int) (gone bool, err error)

	tally    tally
	began    load // at the start of the pass
	now      load // at the last look
	lookedAt time.Time
	steps    int
	rewinds  int
	// newest is the position from which the second walk starts.
	newest            int64
	sawSelf, sawFirst bool
	own               int

	threads threadLists
}

// Scan reads the four uids of every task of the node. An error means that
// nothing is proven: [problem.ErrNoProof] (a view that hides tasks, a line that
// cannot be parsed, pids that wrap faster than a scan ends, …) or the cause of
// ctx. A scan takes some 7 to 20 µs a task.
func (r *Reader) Scan(ctx context.Context) (*Snapshot, error) {
	if err := r.View(); err != nil {
		return nil, err
	}
	boot, err := BootID()
	if err != nil {
		return nil, err
	}
	snapshot := &Snapshot{Boot: boot, Began: time.Now()}
	err = r.exact(ctx, (*scanner).readStatus, func(s *scanner) {
		snapshot.Tasks, snapshot.Who, snapshot.Used = s.tally.tasks, s.tally.who, s.tally.used()
	})
	if err != nil {
		return nil, err
	}
	snapshot.Ended = time.Now()
	return snapshot, nil
}

// exact makes passes with read until one is sound, then calls done.
func (r *Reader) exact(ctx context.Context, read func(*scanner, int) (bool, error), done func(*scanner)) error {
	s, _ := r.scratch.Get().(*scanner)
	if s == nil {
		s = &scanner{dir: dirEntries{buf: make([]byte, oneEntry)}}
	}
	defer r.scratch.Put(s)
	err := s.open(r.root())
	if err != nil {
		return problem.Wrap(problem.CodeNoProof, err, "scan %s", r.root())
	}
	defer s.close()
	s.readTask = func(pid int) (bool, error) { return read(s, pid) }
	for range maxPasses {
		err = s.pass(ctx)
		var again unsteady
		if !errors.As(err, &again) {
			break
		}
	}
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return fmt.Errorf("scan %s: %w", r.root(), cause)
	}
	if err != nil {
		return problem.Wrap(problem.CodeNoProof, err, "scan %s", r.root())
	}
	done(s)
	s.tally = tally{}
	return nil
}

func (s *scanner) open(root string) (err error) {
	if s.rootFD, err = unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return &os.PathError{Op: "open", Path: root, Err: err}
	}
	if s.last, err = openLastPID(root); err != nil {
		unix.Close(s.rootFD)
		return err
	}
	// Only the machine's own namespace sees all the tasks that loadavg counts.
	inode, err := namespaceInode("/proc/self/ns/pid", "pid")
	if err != nil || inode != initialPIDNS {
		s.last.partial = true
	}
	s.dir.fd, s.own = s.rootFD, os.Getpid()
	return nil
}

func (s *scanner) close() {
	unix.Close(s.rootFD)
	s.last.close()
}

// pass is one attempt at the whole scan.
func (s *scanner) pass(ctx context.Context) error {
	s.tally.reset()
	s.steps, s.rewinds, s.newest = 0, 0, 0
	s.sawSelf, s.sawFirst = false, false
	s.lookedAt = time.Now()
	var err error
	if s.began, err = s.last.read(); err != nil {
		return err
	}
	s.now = s.began
	if err := s.walk(ctx, false); err != nil {
		return err
	}
	if err := s.look(); err != nil {
		return err
	}
	if err := s.complete(); err != nil {
		return err
	}
	met := s.tally.tasks
	if err := s.walk(ctx, true); err != nil {
		return err
	}
	s.tally.tasks = met // the second walk meets many a task again
	return s.look()
}

// complete cross-checks what the first walk met.
func (s *scanner) complete() error {
	if !s.sawSelf || !s.sawFirst {
		return fmt.Errorf("the list of processes lacks pid 1 or our own %d: something hides processes", s.own)
	}
	born := s.now.last - s.began.last
	if s.now.tasks >= 0 && !s.last.partial && s.tally.tasks < s.now.tasks-born {
		return unsteady(fmt.Sprintf("%d tasks listed but the kernel counts %d: something hides tasks", s.tally.tasks, s.now.tasks))
	}
	return nil
}

// look compares the last pid with that of the look before.
func (s *scanner) look() error {
	now, err := s.last.read()
	if err != nil {
		return err
	}
	at := time.Now()
	before, since := s.now.last, at.Sub(s.lookedAt)
	s.now, s.lookedAt = now, at
	if now.last < before {
		return unsteady("the kernel's pids started anew during each of several passes")
	}
	if since > maxStall {
		return unsteady("the scan was held up, and pids may have started anew meanwhile, in each of several passes")
	}
	return nil
}

// walk reads the processes in the order of their pids; with newborn only those
// from s.newest on, up to the last pid there is.
func (s *scanner) walk(ctx context.Context, newborn bool) error {
	behind := int64(0)
	if newborn {
		behind = s.newest
	}
	if err := s.dir.seek(behind); err != nil {
		return err
	}
	for {
		if err := s.step(ctx); err != nil {
			return err
		}
		name, pos, err := s.dir.next()
		if err == nil {
			err = s.dir.alone(pos)
		}
		if name == nil || err != nil {
			return err
		}
		if !isPID(name) {
			behind = pos
			continue
		}
		pid, ok := parseInt(name)
		if !ok {
			return fmt.Errorf("process %q is no number", name)
		}
		if newborn && pid > s.now.last {
			if err := s.look(); err != nil || pid > s.now.last {
				return err
			}
		}
		gone, err := s.readTask(pid)
		if err != nil {
			return err
		}
		if gone {
			if err := s.rewind(behind); err != nil {
				return err
			}
			continue
		}
		s.met(pid, behind, newborn)
		behind = pos
	}
}

// met notes a process that was read; at is its position.
func (s *scanner) met(pid int, at int64, newborn bool) {
	s.sawSelf = s.sawSelf || pid == s.own
	s.sawFirst = s.sawFirst || pid == 1
	if !newborn && pid <= s.began.last-inFlight {
		s.newest = at
	}
}

// step counts an entry; now and then it looks up.
func (s *scanner) step(ctx context.Context) error {
	if s.steps++; s.steps%lookEvery != 0 {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return s.look()
}

func (s *scanner) rewind(to int64) error {
	if s.rewinds++; s.rewinds > maxRewinds {
		return unsteady(fmt.Sprintf("tasks come and go faster than they can be read (%d were gone)", maxRewinds))
	}
	return s.dir.seek(to)
}

// enoughStatus is when a status file needs no further read.
func enoughStatus(text []byte) bool {
	_, err := parseStatus(text)
	return !errors.Is(err, errCutShort)
}

// taskStatus reads dir/id/status, which must be of process pid.
func (s *scanner) taskStatus(dir, id, pid int) (st taskStatus, gone bool, err error) {
	text, err := s.file.read(dir, id, "status", enoughStatus)
	if vanished(err) {
		return st, true, nil
	}
	if err != nil {
		return st, false, fmt.Errorf("read status of task %d: %w", id, err)
	}
	st, err = parseStatus(text)
	if err != nil {
		return st, false, fmt.Errorf("task %d: %w", id, err)
	}
	// A task that is being reaped has lost its numbers or its thread group.
	if st.pid == 0 || st.tgid == 0 || st.threads == 0 {
		return st, true, nil
	}
	if st.pid != id || st.tgid != pid {
		return st, false, fmt.Errorf("status of task %d of process %d says it is task %d of %d", id, pid, st.pid, st.tgid)
	}
	return st, false, nil
}

// readStatus tallies process pid and, if it has more than one, its threads.
func (s *scanner) readStatus(pid int) (gone bool, err error) {
	st, gone, err := s.taskStatus(s.rootFD, pid, pid)
	if gone || err != nil {
		return gone, err
	}
	if st.threads > 1 {
		return s.readThreads(pid)
	}
	s.tally.add(pid, 0, &st, nil)
	s.tally.tasks++
	return false, nil
}
