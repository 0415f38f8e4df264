package uidpool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// helpContainer plays a node that is a container: process 1 of a pid namespace
// with its own procfs. There, pids can be chosen without disturbing anybody.
func helpContainer(task helperTask) {
	err := errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount("proc", "/proc", "proc", 0, ""))
	if err == nil {
		var r *Reader
		if r, err = NewReader(ReaderOptions{AcceptPIDNamespace: task.Accept}); err == nil {
			err = errors.Join(r.View(), olderNumber(r), coveredLoadavg(r))
		}
	}
	if err != nil {
		helperFails(err)
	}
	fmt.Println("ok")
	awaitEOF()
}

// olderNumber: pids wrapped before the scan, so that a process has a higher pid
// than its child. During the scan it forks behind the walk and exits.
func olderNumber(r *Reader) error {
	const u, old = 3_900_006_000, 9000
	var word, up [2]int
	if err := errors.Join(unix.Pipe(word[:]), unix.Pipe(up[:]), setLastPID(old-1)); err != nil {
		return err
	}
	pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	if pid == 0 {
		rawParent(&[4]uint32{0, u, 0, u}, word[0], up[1], new([1]byte))
	}
	if err := setLastPID(600); err != nil {
		return err
	}
	met := false
	s := &Snapshot{}
	err := r.exact(context.Background(), func(s *scanner, n int) (bool, error) {
		if n == int(pid) && !met {
			// Let it fork, and read it when it is gone: the walk has passed its child.
			met = true
			var b [1]byte
			unix.Write(word[1], b[:])
			unix.Read(up[0], b[:])
			unix.Wait4(int(pid), nil, 0, nil)
		}
		return s.readStatus(n)
	}, func(scan *scanner) { s.Used, s.Who = scan.tally.used(), scan.tally.who })
	if err != nil {
		return err
	}
	if !met || !s.Used.Contains(u) {
		return fmt.Errorf("process %d (met: %v) forked behind the scan, which missed its child", pid, met)
	}
	if child := s.Who[u][0]; child.PID >= int(pid) || child.PID <= 600 {
		return fmt.Errorf("the child is %v: pids did not wrap, the test proves nothing", child)
	}
	return nil
}

// coveredLoadavg: containers put a file of their own over loadavg.
func coveredLoadavg(r *Reader) error {
	cover, err := os.CreateTemp("", "loadavg")
	if err != nil {
		return err
	}
	defer os.Remove(cover.Name())
	defer cover.Close()
	if err := unix.Mount(cover.Name(), "/proc/loadavg", "", unix.MS_BIND, ""); err != nil {
		return err
	}
	s, err := r.Scan(context.Background())
	if err == nil && (s.Tasks < 1 || !s.Used.Contains(0)) {
		err = fmt.Errorf("scan without loadavg: %d tasks", s.Tasks)
	}
	return errors.Join(err, unix.Unmount("/proc/loadavg", 0))
}

// setLastPID makes the next pid of this namespace the one after n.
func setLastPID(n int) error {
	return os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(n)), 0)
}

// rawParent waits for a word, forks a child that stays, and exits.
//
//go:norace
//go:nosplit
func rawParent(uids *[4]uint32, wait, up int, b *[1]byte) {
	become(uids)
	syscall.RawSyscall(syscall.SYS_READ, uintptr(wait), addr(b), 1)
	pid, _, _ := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	for pid == 0 {
		rawWrite(up, b)
		// The container's end is the child's.
		syscall.RawSyscall6(syscall.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
	}
	syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
}
