package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
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

// child is the running command: the first process of a group of its own.
type child struct {
	pid int
	uid uint32
	// terminal is ours and lent to the child's group while it runs.
	terminal bool
	signals  chan os.Signal
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
	r, w, err := os.Pipe()
	if err != nil {
		return nil, exitRefused, err
	}
	defer func() { _ = r.Close() }()
	c := &child{uid: cmd.uid, terminal: ownTerminal(), signals: make(chan os.Signal, 16)}
	signal.Notify(c.signals, forwarded...)
	p, err := os.StartProcess("/proc/self/exe", shimArgs(cmd, c.terminal), &os.ProcAttr{
		Dir:   "/",
		Env:   cmd.env,
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr, w},
		Sys:   &syscall.SysProcAttr{Setpgid: true},
	})
	_ = w.Close()
	if err != nil {
		return nil, exitRefused, fmt.Errorf("start %s: %w", cmd.argv[0], err)
	}
	c.pid = p.Pid
	// wait reaps every child, so os must not.
	_ = p.Release()
	// Nothing to read: the pipe was closed by the exec that succeeded.
	report, err := io.ReadAll(io.LimitReader(r, maxShimReport))
	if err != nil || len(report) > 0 {
		signal.Stop(c.signals)
		c.wait(true)
		code, why := shimReport(report, err)
		return nil, code, why
	}
	return c, 0, nil
}

// shimReport reads "CODE MESSAGE".
func shimReport(report []byte, err error) (int, error) {
	if err != nil {
		return exitRefused, fmt.Errorf("start the command: %w", err)
	}
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

// ownTerminal reports whether stdin is a terminal that this process has in the
// foreground.
func ownTerminal() bool {
	group, err := unix.IoctlGetInt(0, unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// lend gives the terminal to a group. Done from the background, it would stop
// us but for the ignored signal.
func (c *child) lend(group int) {
	if !c.terminal {
		return
	}
	signal.Ignore(unix.SIGTTOU)
	_ = unix.IoctlSetPointerInt(0, unix.TIOCSPGRP, group)
	signal.Reset(unix.SIGTTOU)
}

// forward passes signals on until ctx ends.
func (c *child) forward(ctx context.Context) error {
	defer signal.Stop(c.signals)
	for {
		select {
		case <-ctx.Done():
			return nil
		case s := <-c.signals:
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

func (c *child) signalLeft(s syscall.Signal) {
	usage, err := uidpool.Probe(uidpool.UID(c.uid))
	if err != nil {
		return
	}
	for _, p := range usage.By {
		_ = unix.Kill(p.PID, s)
	}
}

// kill ends the command's group and what else runs under the uid.
func (c *child) kill() {
	_ = unix.Kill(-c.pid, unix.SIGKILL)
	c.signalLeft(unix.SIGKILL)
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
			c.lend(unix.Getpgrp())
		}
	}
}

// suspend stops us as the command was stopped, so that a shell sees it, and
// lets the command go on when the shell lets us.
func (c *child) suspend() {
	c.lend(unix.Getpgrp())
	// Sent to this thread, it stops us before the next line; sent to the
	// process, another thread might take it while this one lends the terminal.
	runtime.LockOSThread()
	_ = unix.Tgkill(unix.Getpid(), unix.Gettid(), unix.SIGSTOP)
	runtime.UnlockOSThread()
	c.lend(c.pid)
	_ = unix.Kill(-c.pid, unix.SIGCONT)
}
