package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// pty is the command's own terminal, in front of ours. The command never
// has ours: it could type into it, or read what is typed after its end.
type pty struct {
	master, slave int
	// outer is the file of ours that is written to.
	outer int
	// typed: our stdin is the terminal, so what is typed is passed on.
	typed bool
	// whole: all three of our files are; else others of a pipeline use it too, and
	// it keeps its signal keys and its output processing.
	whole bool

	mu    sync.Mutex // guards the fields below
	saved *unix.Termios
	wants bool // what is typed is the command's whenever we are in the foreground
}

// isTerminal reports whether an open file is a terminal.
func isTerminal(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	return err == nil
}

// openPTY makes a terminal for uid like ours, nil if we have none.
func openPTY(uid uint32) (*pty, error) {
	ours := slices.DeleteFunc([]int{1, 2, 0}, func(fd int) bool { return !isTerminal(fd) })
	if len(ours) == 0 {
		return nil, nil
	}
	t := &pty{slave: -1, outer: ours[0], typed: isTerminal(0), whole: len(ours) == 3}
	var err error
	if t.master, err = unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0); err != nil {
		return nil, fmt.Errorf("make a terminal: %w", err)
	}
	if err := t.setUp(uid); err != nil {
		t.close()
		return nil, fmt.Errorf("make a terminal: %w", err)
	}
	return t, nil
}

func (t *pty) setUp(uid uint32) error {
	if err := unix.IoctlSetPointerInt(t.master, unix.TIOCSPTLCK, 0); err != nil {
		return err
	}
	// By the master rather than by a name that may mean another's.
	slave, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(t.master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return errno
	}
	t.slave = int(slave)
	modes, err := unix.IoctlGetTermios(t.outer, unix.TCGETS)
	if err != nil {
		return err
	}
	if !t.whole {
		modes.Oflag &^= unix.OPOST // ours does it
	}
	if err := unix.IoctlSetTermios(t.slave, unix.TCSETS, modes); err != nil {
		return err
	}
	t.resize()
	if err := unix.Fchown(t.slave, int(uid), int(uid)); err != nil {
		return err
	}
	return unix.Fchmod(t.slave, 0o600)
}

// file is what the command gets instead of one of our first three.
func (t *pty) file(fd int) uintptr {
	if t != nil && isTerminal(fd) {
		return uintptr(t.slave)
	}
	return uintptr(fd)
}

// first is which of the first three files is the terminal, -1 if none.
func (t *pty) first() int {
	if t == nil {
		return -1
	}
	return slices.IndexFunc([]int{0, 1, 2}, isTerminal)
}

func (t *pty) close() {
	if t == nil {
		return
	}
	_ = unix.Close(t.master)
	if t.slave >= 0 {
		_ = unix.Close(t.slave)
	}
}

// resize makes the command's terminal as large as ours.
func (t *pty) resize() {
	if t == nil {
		return
	}
	if size, err := unix.IoctlGetWinsize(t.outer, unix.TIOCGWINSZ); err == nil {
		_ = unix.IoctlSetWinsize(t.master, unix.TIOCSWINSZ, size)
	}
}

// foreground reports whether our terminal is ours to read and to set.
func (t *pty) foreground() bool {
	group, err := unix.IoctlGetInt(0, unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// enter makes our terminal pass on what is typed, while we are in its foreground
// and until restore.
func (t *pty) enter() {
	if t == nil {
		return
	}
	t.mu.Lock()
	t.wants = true
	t.mu.Unlock()
	t.take()
}

// take does what enter asked for, once we are in the foreground: a shell tells
// nobody whom it puts there if he runs already.
func (t *pty) take() {
	if t == nil || !t.typed {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.wants || t.saved != nil || !t.foreground() {
		return
	}
	modes, err := unix.IoctlGetTermios(0, unix.TCGETS)
	if err != nil {
		return
	}
	raw := *modes
	raw.Iflag &^= unix.BRKINT | unix.PARMRK | unix.INLCR | unix.IGNCR | unix.ICRNL
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON
	if t.whole {
		raw.Iflag &^= unix.IGNBRK | unix.ISTRIP | unix.IXON
		raw.Lflag &^= unix.ISIG | unix.IEXTEN
		raw.Oflag &^= unix.OPOST
	}
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	unstopped(func() {
		switch err := unix.IoctlSetTermios(0, unix.TCSETS, &raw); {
		case err != nil:
		case t.foreground():
			t.saved = modes
		default: // it was taken from us in between
			_ = unix.IoctlSetTermios(0, unix.TCSETS, modes)
		}
	})
}

// unstopped runs f on a thread that the kernel does not stop for using our terminal
// from the background: a shell may take it from us at any moment.
func unstopped(f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var block, was unix.Sigset_t
	for _, s := range []unix.Signal{unix.SIGTTOU, unix.SIGTTIN} {
		block.Val[(s-1)/64] |= 1 << (uint(s-1) % 64)
	}
	if unix.PthreadSigmask(unix.SIG_BLOCK, &block, &was) == nil {
		defer func() { _ = unix.PthreadSigmask(unix.SIG_SETMASK, &was, nil) }()
	}
	f()
}

// keysBack ends the passing on of what is typed. What the command wrote is still
// shown as it wrote it.
func (t *pty) keysBack() {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.wants = false
	if t.saved == nil || !t.foreground() {
		return
	}
	modes := *t.saved
	if t.whole {
		modes.Oflag &^= unix.OPOST
	}
	_ = unix.IoctlSetTermios(0, unix.TCSETS, &modes)
}

// restore makes our terminal what it was.
func (t *pty) restore() {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.wants = false
	if t.saved == nil {
		return
	}
	// TCSETSW: what was written before is shown as it was meant.
	if t.foreground() {
		_ = unix.IoctlSetTermios(0, unix.TCSETSW, t.saved)
	}
	t.saved = nil
}

func (t *pty) passing() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.wants && t.saved != nil && t.foreground()
}

// relay passes on what is typed and what is shown until ctx ends, and then shows
// what is left.
func (t *pty) relay(ctx context.Context, suspend func() bool) error {
	var wake [2]int
	if err := unix.Pipe2(wake[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return fmt.Errorf("relay the terminal: %w", err)
	}
	defer func() { _ = unix.Close(wake[0]) }()
	stop := context.AfterFunc(ctx, func() { _ = unix.Close(wake[1]) })
	defer func() {
		if stop() {
			_ = unix.Close(wake[1])
		}
	}()
	var pending []byte
	in := true
	buf := make([]byte, 4096)
	for {
		t.take()
		fds := []unix.PollFd{{Fd: int32(t.master), Events: unix.POLLIN}, {Fd: int32(wake[0]), Events: unix.POLLIN}, {Fd: -1, Events: unix.POLLIN}}
		if len(pending) > 0 {
			fds[0].Events |= unix.POLLOUT
		} else if in && t.passing() {
			fds[2].Fd = 0
		}
		// Not for ever: nothing that is read tells that we are in the foreground.
		if _, err := unix.Poll(fds, 100); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("relay the terminal: %w", err)
		} else if err != nil {
			continue
		}
		shown := false
		if fds[0].Revents&unix.POLLIN != 0 {
			shown = t.show(buf)
		}
		if fds[0].Revents&unix.POLLOUT != 0 {
			if n, err := unix.Write(t.master, pending); err == nil {
				pending = pending[n:]
			}
		}
		if fds[2].Revents != 0 {
			var n int
			var err error
			unstopped(func() { n, err = unix.Read(0, buf) })
			in = n > 0 || errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EIO)
			pending = t.withoutSuspend(slices.Clone(buf[:max(n, 0)]), suspend)
		}
		if ctx.Err() != nil && !shown {
			return nil
		}
	}
}

// show passes on some of what the command wrote.
func (t *pty) show(buf []byte) bool {
	n, err := unix.Read(t.master, buf)
	if err != nil || n <= 0 {
		return false
	}
	for rest := buf[:n]; len(rest) > 0; {
		n, err := unix.Write(t.outer, rest)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) {
			continue
		}
		if err != nil {
			break // hung up: what is shown goes nowhere
		}
		rest = rest[n:]
	}
	return true
}

// withoutSuspend takes the suspend key out of what was typed where it means us: the
// kernel stops nobody by it who is alone in its session, as the command is.
func (t *pty) withoutSuspend(typed []byte, suspend func() bool) []byte {
	modes, err := unix.IoctlGetTermios(t.slave, unix.TCGETS)
	if err != nil || modes.Lflag&unix.ISIG == 0 || modes.Cc[unix.VSUSP] == 0 {
		return typed
	}
	at := slices.Index(typed, modes.Cc[unix.VSUSP])
	if at < 0 || !suspend() {
		return typed
	}
	return slices.Delete(typed, at, at+1)
}

// group is the process group in the foreground of the command's terminal.
func (t *pty) group() int {
	group, err := unix.IoctlGetInt(t.master, unix.TIOCGPGRP)
	if err != nil {
		return 0
	}
	return group
}

// defaultStop reports whether a process does with SIGTSTP what processes do.
func defaultStop(pid int) bool {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return false
	}
	for line := range strings.SplitSeq(string(text), "\n") {
		name, value, _ := strings.Cut(line, ":")
		if name != "SigIgn" && name != "SigCgt" {
			continue
		}
		mask, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		if err != nil || mask&(1<<(uint(unix.SIGTSTP)-1)) != 0 {
			return false
		}
	}
	return true
}
