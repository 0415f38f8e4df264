package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// shimCommand is the first argument of the process between "uid exec" and
	// its command; see shimMain.
	shimCommand = "__as"
	// reportFD is where the shim says why it could not execute the command.
	reportFD = 3

	shimTerminal = "terminal"
	shimNone     = "-"
)

// shimArgs is the shim's command line.
func shimArgs(cmd command, terminal bool) []string {
	groups := make([]string, 0, len(cmd.groups))
	for _, g := range cmd.groups {
		groups = append(groups, strconv.FormatUint(uint64(g), 10))
	}
	list, tty := strings.Join(groups, ","), shimNone
	if list == "" {
		list = shimNone
	}
	if terminal {
		tty = shimTerminal
	}
	return append([]string{os.Args[0], shimCommand, uidText(cmd.uid), list, tty}, cmd.argv...)
}

// shimMain turns its process, still root, into the command: a plain child of
// ours would keep our open files, keyring, directory and umask. It returns
// only when it failed; the reason goes through the pipe.
func shimMain(args []string) int {
	// Some of what follows belongs to a thread, and the thread that executes
	// is the one that stays.
	runtime.LockOSThread()
	code, err := shim(args)
	fmt.Fprintf(os.NewFile(reportFD, "report"), "%d %v", code, err)
	return code
}

func shim(args []string) (int, error) {
	if len(args) < 4 {
		return exitRefused, errors.New("this command is for poolctl itself")
	}
	uid, err := parseUID(args[0])
	if err != nil {
		return exitRefused, err
	}
	if uid == 0 || uid == 4294967295 {
		// The kernel takes the latter for "no change".
		return exitRefused, fmt.Errorf("uid %d is never granted", uid)
	}
	var groups []string
	if args[1] != shimNone {
		groups = strings.Split(args[1], ",")
	}
	if err := shed(args[2] == shimTerminal); err != nil {
		return exitRefused, err
	}
	if err := become(int(uid), groups); err != nil {
		return exitRefused, fmt.Errorf("become uid %d: %w", uid, err)
	}
	return execute(args[3:])
}

// shed drops what a child inherits.
func shed(terminal bool) error {
	if err := unix.CloseRange(reportFD, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close our files: %w", err)
	}
	if terminal {
		takeTerminal()
	}
	unix.Umask(0o077)
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("change to /: %w", err)
	}
	// Anonymous: a name would join the keyring of whoever has it. Where
	// keyrings are absent or forbidden the command cannot read ours either.
	_, _, errno := unix.RawSyscall(unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0)
	if errno != 0 && errno != unix.ENOSYS && errno != unix.EPERM {
		return fmt.Errorf("new session keyring: %w", errno)
	}
	return nil
}

// takeTerminal puts our group into the foreground. The kernel would stop a
// background process that asks, unless the signal is blocked.
func takeTerminal() {
	var ttou, old unix.Sigset_t
	const bits = 8 * 8
	n := uint(unix.SIGTTOU) - 1
	if len(ttou.Val) > int(n/bits) {
		ttou.Val[n/bits] |= 1 << (n % bits)
	}
	if unix.PthreadSigmask(unix.SIG_BLOCK, &ttou, &old) != nil {
		return
	}
	_ = unix.IoctlSetPointerInt(0, unix.TIOCSPGRP, unix.Getpid())
	_ = unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)
}

// become gives up root for good and looks whether it is gone.
func become(uid int, groups []string) error {
	gids := []int{}
	for _, g := range groups {
		id, err := strconv.Atoi(g)
		if err != nil {
			return fmt.Errorf("group %q: %w", g, err)
		}
		gids = append(gids, id)
	}
	if err := syscall.Setgroups(gids); err != nil {
		return fmt.Errorf("set groups: %w", err)
	}
	if err := syscall.Setresgid(uid, uid, uid); err != nil {
		return fmt.Errorf("set gid: %w", err)
	}
	if err := syscall.Setresuid(uid, uid, uid); err != nil {
		return fmt.Errorf("set uid: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("give up new privileges: %w", err)
	}
	return verify(uid, gids)
}

// verify does not trust that what was asked for was done: a number of 16 bits,
// a security module or a capability that was kept would show here.
func verify(uid int, gids []int) error {
	r, e, s := unix.Getresuid()
	rg, eg, sg := unix.Getresgid()
	for _, id := range []int{r, e, s, rg, eg, sg} {
		if id != uid {
			return fmt.Errorf("the ids are %d %d %d, %d %d %d", r, e, s, rg, eg, sg)
		}
	}
	have, err := unix.Getgroups()
	if err != nil {
		return fmt.Errorf("read groups: %w", err)
	}
	slices.Sort(have)
	slices.Sort(gids)
	if !slices.Equal(slices.Compact(have), slices.Compact(gids)) {
		return fmt.Errorf("the groups are %v", have)
	}
	if err := syscall.Setresuid(0, 0, 0); err == nil {
		return errors.New("the way back to root is open")
	}
	return nil
}

// execute finds the command as its user, in its environment, and becomes it.
func execute(argv []string) (int, error) {
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return failure(argv[0], err)
	}
	return failure(argv[0], syscall.Exec(path, argv, os.Environ()))
}

// failure tells "not there" from "there, but not to be executed".
func failure(name string, err error) (int, error) {
	var lookup *exec.Error
	if errors.As(err, &lookup) {
		err = lookup.Err
	}
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return exitNotFound, fmt.Errorf("%s: command not found", name)
	}
	return exitNotExecutable, fmt.Errorf("%s cannot be executed: %w", name, err)
}
