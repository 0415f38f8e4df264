package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/uidpool"
)

// maxShimReport bounds what the shim says when it fails.
const maxShimReport = 4 << 10

// canExec refuses where no process can be started under another uid.
func canExec() error {
	if euid := os.Geteuid(); euid != 0 {
		return problem.New(problem.CodeForbidden, "uid exec needs root: only root can start a process under another uid (you are uid %d)", euid).
			Advise("as root", "sudo poolctl uid exec -- COMMAND …").
			Advise("without", "poolctl uid request, and let your service manager start the process")
	}
	return nil
}

// child is the running command: the first process of a session of its own.
type child struct {
	pid     int
	uid     uint32
	tty     *pty    // nil where we have none
	cgroup  *cgroup // nil unless asked for
	signals chan os.Signal
}

// forwarded are the signals that are the command's rather than ours.
var forwarded = []os.Signal{
	unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGCONT, unix.SIGTSTP, unix.SIGWINCH,
}

// start runs the command through the shim and returns once it executes. The
// exit code goes with an error alone.
func start(cmd command) (*child, int, error) {
	// Orphans of the command become our children, so that wait sees them end.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, exitRefused, fmt.Errorf("become the reaper of what the command starts: %w", err)
	}
	c := &child{uid: cmd.uid, signals: make(chan os.Signal, 16)}
	var err error
	if c.tty, err = openPTY(cmd.uid); err != nil {
		return nil, exitRefused, err
	}
	if cmd.ownCgroup {
		if c.cgroup, err = newCgroup(cmd.uid); err != nil {
			c.tty.close()
			return nil, exitRefused, err
		}
	}
	for _, s := range forwarded {
		if !signal.Ignored(s) { // nohup
			signal.Notify(c.signals, s)
		}
	}
	c.tty.enter()
	if code, err := c.launch(cmd); err != nil {
		signal.Stop(c.signals)
		c.tty.restore()
		if c.pid != 0 {
			c.wait(true)
		}
		c.finish()
		return nil, code, err
	}
	return c, 0, nil
}

// launch starts the shim, tells it what to become, and waits until it is that.
func (c *child) launch(cmd command) (int, error) {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return exitRefused, fmt.Errorf("start %s: %w", cmd.argv[0], err)
	}
	socket := os.NewFile(uintptr(ends[0]), "shim")
	defer func() { _ = socket.Close() }()
	c.pid, err = fork(cmd, c.tty, c.cgroup, ends[1])
	_ = unix.Close(ends[1])
	if err != nil {
		return exitRefused, fmt.Errorf("start %s: %w", cmd.argv[0], err)
	}
	for _, fd := range cmd.keepFDs {
		_ = unix.Close(fd) // the command's alone: its end is the file's
	}
	err = json.NewEncoder(socket).Encode(shimSpec{
		UID: cmd.uid, Groups: cmd.groups, Argv: cmd.argv, Env: cmd.env, Dir: cmd.dir, KeepFDs: cmd.keepFDs,
		PrivateTmp: cmd.privateTmp, HostIPC: cmd.hostIPC, NewPrivs: cmd.newPrivs, TTY: c.tty.first(),
	})
	if err == nil {
		err = unix.Shutdown(ends[0], unix.SHUT_WR)
	}
	// Nothing to read: the socket was closed by the exec that succeeded. A shim
	// that refused before it had read all says why, too.
	report, readErr := io.ReadAll(io.LimitReader(socket, maxShimReport))
	switch {
	case len(report) > 0:
		return shimReport(report)
	case err != nil:
		return exitRefused, fmt.Errorf("start %s: tell the shim: %w", cmd.argv[0], err)
	case readErr != nil:
		return exitRefused, fmt.Errorf("start %s: %w", cmd.argv[0], readErr)
	}
	return 0, nil
}

// fork starts the shim with the files that the command gets, and its socket.
func fork(cmd command, tty *pty, group *cgroup, socket int) (int, error) {
	files := []uintptr{tty.file(0), tty.file(1), tty.file(2)}
	for _, fd := range cmd.keepFDs {
		for len(files) <= fd {
			files = append(files, noFile)
		}
		files[fd] = uintptr(fd)
	}
	at := slices.Index(files, noFile)
	if at < 0 {
		at = len(files)
		files = append(files, noFile)
	}
	files[at] = uintptr(socket)
	attr := &syscall.ProcAttr{Dir: "/", Env: []string{}, Files: files}
	if group != nil {
		attr.Sys = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: group.fd}
	}
	return syscall.ForkExec("/proc/self/exe", []string{os.Args[0], shimCommand, strconv.Itoa(at)}, attr)
}

// noFile is a number that is not open in the new process.
const noFile = ^uintptr(0)

// inheritedFDs checks --keep-fd: what our caller left open for the command, and
// not by accident a file of ours.
func inheritedFDs(fds []int) ([]int, error) {
	for _, fd := range fds {
		if fd < 3 || fd > maxKeepFD {
			return nil, usage("--keep-fd %d: want 3 to %d; 0, 1 and 2 are kept anyway", fd, maxKeepFD)
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC != 0 {
			return nil, usage("--keep-fd %d: no such file is open", fd).Advise("in a shell", "poolctl uid exec --keep-fd %d -- COMMAND %d<FILE", fd, fd)
		}
		if isTerminal(fd) {
			return nil, usage("--keep-fd %d is a terminal: whoever has it can type as you", fd)
		}
	}
	return slices.Compact(slices.Sorted(slices.Values(fds))), nil
}

// shimReport reads "CODE MESSAGE".
func shimReport(report []byte) (int, error) {
	first, text, _ := strings.Cut(string(report), " ")
	code, err := strconv.Atoi(first)
	if err != nil {
		return exitRefused, fmt.Errorf("start the command: %q", report)
	}
	what := problem.CodeInternal
	switch code {
	case exitNotFound:
		what = problem.CodeNotFound
	case exitNotExecutable:
		what = problem.CodeInvalid
	}
	return code, problem.New(what, "%s", text)
}

// finish lets go of what the command had of ours.
func (c *child) finish() {
	c.tty.restore()
	c.tty.close()
	c.cgroup.remove()
}

// relay keeps the command's terminal going until ctx ends.
func (c *child) relay(ctx context.Context) error {
	if c.tty == nil {
		return nil
	}
	return c.tty.relay(ctx, func() bool { return c.tty.group() == c.pid && c.stop() })
}

// stop suspends the command, unless it has something of its own to do then.
func (c *child) stop() bool {
	return defaultStop(c.pid) && unix.Kill(-c.pid, unix.SIGSTOP) == nil
}

// forward passes signals on until ctx ends.
func (c *child) forward(ctx context.Context) error {
	defer signal.Stop(c.signals)
	for {
		select {
		case <-ctx.Done():
			return nil
		case s := <-c.signals:
			switch s {
			case unix.SIGWINCH:
				if c.tty != nil { // which tells the command
					c.tty.resize()
					continue
				}
			case unix.SIGCONT:
				c.tty.take() // perhaps in the foreground now
			case unix.SIGTSTP:
				if c.stop() {
					continue
				}
			}
			if n, ok := s.(syscall.Signal); ok {
				c.signal(n)
			}
		}
	}
}

// signal reaches the command's group or, once that is empty, whatever the
// command left running under the uid.
func (c *child) signal(s syscall.Signal) {
	if err := unix.Kill(-c.pid, s); !errors.Is(err, unix.ESRCH) {
		return
	}
	c.signalLeft(s)
}

// signalLeft tells whether there was somebody to signal.
func (c *child) signalLeft(s syscall.Signal) bool {
	usage, err := uidpool.Probe(uidpool.UID(c.uid))
	if err != nil {
		return false
	}
	for _, p := range usage.By {
		_ = unix.Kill(p.PID, s)
	}
	return len(usage.By) > 0
}

// killRounds bounds the chase after what forks while it is killed.
const killRounds = 50

// kill ends the command's group and what else runs under the uid.
func (c *child) kill() {
	c.cgroup.kill()
	_ = unix.Kill(-c.pid, unix.SIGKILL)
	for range killRounds {
		if !c.signalLeft(unix.SIGKILL) {
			return
		}
	}
}

// wait reaps children until the command, and with all also every descendant,
// has ended. It returns the command's exit code and whether some are left.
func (c *child) wait(all bool) (code int, left bool) {
	ended := false
	for {
		var ws unix.WaitStatus
		options := unix.WUNTRACED
		if ended && !all {
			options |= unix.WNOHANG
		}
		pid, err := unix.Wait4(-1, &ws, options, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil: // ECHILD: nothing is left
			return code, false
		case pid == 0:
			return code, true
		case pid != c.pid:
			continue
		case ws.Stopped():
			c.suspend()
		case ws.Exited():
			ended, code = true, ws.ExitStatus()
		case ws.Signaled():
			ended, code = true, exitSignal+int(ws.Signal())
		}
		if ended {
			c.tty.keysBack() // for what is waited for
		}
	}
}

// suspend stops us as the command was stopped, so that a shell sees it, and
// lets the command go on when the shell lets us.
func (c *child) suspend() {
	c.tty.restore()
	// Sent to this thread, it stops us before the next line; sent to the
	// process, another thread might take it while this one sets the terminal.
	runtime.LockOSThread()
	_ = unix.Tgkill(unix.Getpid(), unix.Gettid(), unix.SIGSTOP)
	runtime.UnlockOSThread()
	c.tty.enter()
	c.tty.resize()
	_ = unix.Kill(-c.pid, unix.SIGCONT)
}
