package uidpool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/idpool/idpool/problem"
)

// BootID names this boot of the machine. No process survives its change;
// files do. A container has the boot id of its machine.
func BootID() (string, error) {
	const path = "/proc/sys/kernel/random/boot_id"
	text, err := os.ReadFile(path)
	if err != nil {
		return "", problem.Wrap(problem.CodeNoProof, err, "read the boot id")
	}
	id, err := parseBootID(string(text))
	if err != nil {
		return "", problem.Wrap(problem.CodeNoProof, err, "read %s", path)
	}
	return id, nil
}

// MachineID names this installation, from /etc/machine-id. There is no
// substitute: a made-up one would tell two machines' agents apart, or not,
// by accident. The error is [problem.ErrInvalid].
func MachineID() (string, error) {
	const path = "/etc/machine-id"
	text, err := os.ReadFile(path)
	var id string
	if err == nil {
		if id, err = parseMachineID(string(text)); err == nil {
			return id, nil
		}
	}
	refusal := problem.New(problem.CodeInvalid, "this machine has no machine id: read %s: %v", path, err).
		Note("effect: another machine under this node's name cannot be told from this one").
		Advise("make one", "systemd-machine-id-setup").
		Advise("or", "dbus-uuidgen --ensure=/etc/machine-id")
	refusal.Cause = err
	return "", refusal
}

// PIDNamespace is the inode of this process's pid namespace.
func PIDNamespace() (uint64, error) {
	inode, err := namespaceInode("/proc/self/ns/pid", "pid")
	return inode, problem.Wrap(problem.CodeNoProof, err, "read this process's pid namespace")
}

// BootTime is the time since boot, suspended time included (CLOCK_BOOTTIME).
func BootTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// NowTicks is the time since boot in the unit of start times (1/100 s), rounded
// down: a process that starts after the call has a start time of at least this.
func NowTicks() (uint64, error) {
	now := BootTime()
	if now <= 0 {
		return 0, problem.New(problem.CodeNoProof, "the kernel does not tell the time since boot")
	}
	return uint64(now / (time.Second / ticksPerSecond)), nil
}

// Identify names the process that has pid now. Errors: [problem.ErrInvalid]
// for a number that is no process's pid, [problem.ErrNotFound] when it is gone
// or a zombie, else [problem.ErrNoProof].
func Identify(pid int) (ProcessRef, error) {
	if pid <= 0 {
		return ProcessRef{}, problem.New(problem.CodeInvalid, "pid %d is no process", pid)
	}
	inode, err := PIDNamespace()
	if err != nil {
		return ProcessRef{}, err
	}
	fd, err := unix.PidfdOpen(pid, 0)
	switch {
	case errors.Is(err, unix.ESRCH):
		return ProcessRef{}, problem.New(problem.CodeNotFound, "no process has pid %d", pid)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
		return ProcessRef{}, problem.New(problem.CodeInvalid, "%d is a thread, not a process", pid)
	case err != nil:
		return ProcessRef{}, problem.Wrap(problem.CodeNoProof, err, "open process %d", pid)
	}
	defer unix.Close(fd)
	return identify(fd, pid, inode)
}

// IdentifyPeer names the process at the other end of a Unix socket, as it was when
// it connected; fd is the socket, on which the caller's pid namespace's number of
// that process is pid (SO_PEERCRED). Where the kernel is older than 6.5 and hands
// out no pidfd of it, it is [Identify] of the number. Errors as of that.
func IdentifyPeer(fd, pid int) (ProcessRef, error) {
	peer, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	switch {
	case errors.Is(err, unix.ENOPROTOOPT):
		return Identify(pid)
	case errors.Is(err, unix.ESRCH), errors.Is(err, unix.EINVAL):
		return ProcessRef{}, problem.New(problem.CodeNotFound, "the process that connected is gone")
	case err != nil:
		return ProcessRef{}, problem.Wrap(problem.CodeNoProof, err, "ask who connected")
	}
	defer unix.Close(peer)
	if pid <= 0 {
		return ProcessRef{}, problem.New(problem.CodeNoProof, "the process that connected is of another pid namespace")
	}
	inode, err := PIDNamespace()
	if err != nil {
		return ProcessRef{}, err
	}
	return identify(peer, pid, inode)
}

// identify reads what pid is, which a pidfd vouches for.
func identify(fd, pid int, inode uint64) (ProcessRef, error) {
	st, statErr := readStat(pid)
	// The pidfd keeps no pid from being given again. But if its process has not
	// exited by now, it had the pid while stat was read.
	gone, err := exited(fd)
	if err != nil {
		return ProcessRef{}, problem.Wrap(problem.CodeNoProof, err, "watch process %d", pid)
	}
	if gone {
		return ProcessRef{}, problem.New(problem.CodeNotFound, "process %d has exited", pid)
	}
	if statErr != nil {
		return ProcessRef{}, problem.Wrap(problem.CodeNoProof, statErr, "identify process %d", pid)
	}
	return ProcessRef{PID: pid, Start: st.start, PIDNS: inode, Session: st.session}, nil
}

// Alive reports whether p runs: false when it was reaped, is a zombie without
// living threads, or its pid is another process's. In doubt it is true and the
// error ([problem.ErrNoProof]) says why. It presumes the boot that p is of.
func (p ProcessRef) Alive() (bool, error) {
	fd, alive, err := p.open()
	if fd >= 0 {
		unix.Close(fd)
	}
	return alive, problem.Wrap(problem.CodeNoProof, err, "cannot tell whether %s still runs", p)
}

// open returns a pidfd of p if it is alive, else -1.
func (p ProcessRef) open() (fd int, alive bool, err error) {
	inode, err := PIDNamespace()
	if err != nil {
		return -1, true, err
	}
	if inode != p.PIDNS {
		return -1, true, fmt.Errorf("it is of pid namespace %d, this process of %d", p.PIDNS, inode)
	}
	fd, err = unix.PidfdOpen(p.PID, 0)
	switch {
	case errors.Is(err, unix.ESRCH):
		return -1, false, nil
	case errors.Is(err, unix.EINVAL) && p.PID > 0, errors.Is(err, unix.ENOENT):
		// The number is a thread's by now.
		return -1, false, nil
	case err != nil:
		return -1, true, fmt.Errorf("open the process: %w", err)
	}
	st, statErr := readStat(p.PID)
	gone, err := exited(fd)
	switch {
	case err != nil:
	case gone:
		// Whoever had the pid when the pidfd was opened is dead: p, or one that
		// came after it.
	case statErr != nil:
		err = statErr
	case st.start != p.Start:
	default:
		return fd, true, nil
	}
	unix.Close(fd)
	return -1, err != nil, err
}

// exited says whether every thread of a pidfd's process is dead.
func exited(fd int) (bool, error) {
	for {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return false, fmt.Errorf("poll a pidfd: %w", err)
		default:
			return n > 0 && fds[0].Revents&(unix.POLLIN|unix.POLLHUP) != 0, nil
		}
	}
}

func readStat(pid int) (taskStat, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return taskStat{}, err
	}
	st, err := parseStat(text)
	if err == nil && st.pid != pid {
		err = fmt.Errorf("stat of process %d says it is %d", pid, st.pid)
	}
	return st, err
}

// WaitExit returns nil once p has exited, as a zombie too, and at once if it
// had before; within a millisecond, and without holding a thread. Errors: the
// cause of ctx, [problem.ErrNoProof] if p cannot be watched. That p exited
// does not mean that its children did.
func WaitExit(ctx context.Context, p ProcessRef) error {
	fd, alive, err := p.open()
	if err != nil {
		return problem.Wrap(problem.CodeNoProof, err, "watch %s", p)
	}
	if !alive {
		return nil
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return problem.Wrap(problem.CodeNoProof, err, "watch %s", p)
	}
	// Non-blocking makes it a file that the runtime's poller waits for.
	file := os.NewFile(uintptr(fd), "pidfd")
	defer file.Close()
	// A deadline in the past wakes the wait below.
	stop := context.AfterFunc(ctx, func() { _ = file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	conn, err := file.SyscallConn()
	if err != nil {
		return problem.Wrap(problem.CodeNoProof, err, "watch %s", p)
	}
	var pollErr error
	err = conn.Read(func(fd uintptr) bool {
		var gone bool
		gone, pollErr = exited(int(fd))
		return gone || pollErr != nil
	})
	if err == nil {
		return problem.Wrap(problem.CodeNoProof, pollErr, "watch %s", p)
	}
	if cause := context.Cause(ctx); cause != nil {
		return fmt.Errorf("wait for %s: %w", p, cause)
	}
	return problem.Wrap(problem.CodeNoProof, err, "watch %s", p)
}
