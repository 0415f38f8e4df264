package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// shimCommand is the first argument of the process between "uid exec" and its
// command; see shimMain. The second is the number of the socket that it is told
// what to do on, and says on why it could not: not its arguments, which every
// user of the machine can read.
const shimCommand = "__as"

// maxShimSpec bounds what the shim is told: arguments and environment.
const maxShimSpec = 8 << 20

// shimSpec is what the shim becomes.
type shimSpec struct {
	UID        uint32   `json:"uid"`
	Groups     []uint32 `json:"groups"`
	Argv       []string `json:"argv"`
	Env        []string `json:"env"`
	Dir        string   `json:"dir"`
	KeepFDs    []int    `json:"keep_fds"`
	PrivateTmp bool     `json:"private_tmp"`
	HostIPC    bool     `json:"host_ipc"`
	NewPrivs   bool     `json:"new_privs"`
	// TTY is which of the first three files is the terminal of the command's
	// session; -1 for none.
	TTY int `json:"tty"`
}

// shimMain turns its process, still root, into the command: a plain child of
// ours would keep our open files, keyring, directory and umask. It returns
// only when it failed; the reason goes through the socket.
func shimMain(args []string) int {
	// Some of what follows belongs to a thread, and the thread that executes
	// is the one that stays.
	runtime.LockOSThread()
	if len(args) != 1 {
		fmt.Fprintln(os.Stderr, "poolctl: this command is for poolctl itself")
		return exitRefused
	}
	fd, err := strconv.Atoi(args[0])
	if err != nil || fd < 3 {
		return exitRefused
	}
	socket := os.NewFile(uintptr(fd), "report")
	code, err := shim(socket)
	fmt.Fprintf(socket, "%d %v", code, err)
	return code
}

func shim(from io.Reader) (int, error) {
	var s shimSpec
	if err := json.NewDecoder(io.LimitReader(from, maxShimSpec)).Decode(&s); err != nil {
		return exitRefused, fmt.Errorf("be told what to run: %w", err)
	}
	if s.UID == 0 || s.UID == 4294967295 {
		// The kernel takes the latter for "no change".
		return exitRefused, fmt.Errorf("uid %d is never granted", s.UID)
	}
	if err := shed(s.KeepFDs); err != nil {
		return exitRefused, err
	}
	if err := separate(s); err != nil {
		return exitRefused, err
	}
	if err := become(s); err != nil {
		return exitRefused, fmt.Errorf("become uid %d: %w", s.UID, err)
	}
	// Only now: whoever looks for what a dead requester left finds a shim that is
	// not its uid yet in the requester's session.
	if err := newSession(s.TTY); err != nil {
		return exitRefused, err
	}
	if err := unix.Chdir(s.Dir); err != nil {
		return exitRefused, fmt.Errorf("change to %s as uid %d: %w", s.Dir, s.UID, err)
	}
	return execute(s.Argv, s.Env)
}

// shed drops what a child inherits.
func shed(keep []int) error {
	if err := unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close our files: %w", err)
	}
	for _, fd := range keep {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return fmt.Errorf("keep file %d open: %w", fd, err)
		}
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
	return shedLimits()
}

// memlock is what the kernel lets a user lock who is told nothing else.
const memlock = 8 << 20

// shedLimits takes back what root may have been allowed beyond a user: the other
// limits are the caller's, as with env(1).
func shedLimits() error {
	for _, l := range []struct {
		which int
		most  uint64
	}{{unix.RLIMIT_RTPRIO, 0}, {unix.RLIMIT_NICE, 0}, {unix.RLIMIT_MEMLOCK, memlock}} {
		var now unix.Rlimit
		if err := unix.Getrlimit(l.which, &now); err != nil {
			return fmt.Errorf("read a limit: %w", err)
		}
		less := unix.Rlimit{Cur: min(now.Cur, l.most), Max: min(now.Max, l.most)}
		if err := unix.Setrlimit(l.which, &less); err != nil {
			return fmt.Errorf("lower a limit: %w", err)
		}
	}
	const score = "/proc/self/oom_score_adj"
	text, err := os.ReadFile(score)
	if err == nil && len(text) > 0 && text[0] == '-' {
		err = os.WriteFile(score, []byte("0"), 0)
	}
	if err != nil {
		return fmt.Errorf("be no safer from the kernel's out-of-memory killer than others: %w", err)
	}
	return nil
}

// newSession leaves ours: its terminal could be typed into (TIOCSTI), and read.
func newSession(tty int) error {
	if _, err := unix.Setsid(); err != nil {
		return fmt.Errorf("new session: %w", err)
	}
	if tty < 0 {
		return nil
	}
	if err := unix.IoctlSetInt(tty, unix.TIOCSCTTY, 0); err != nil {
		return fmt.Errorf("take the new terminal: %w", err)
	}
	return nil
}

// execute finds the command as its user, in its environment, and becomes it.
func execute(argv, env []string) (int, error) {
	os.Clearenv()
	for _, pair := range env {
		for i := 1; i < len(pair); i++ {
			if pair[i] == '=' {
				_ = os.Setenv(pair[:i], pair[i+1:])
				break
			}
		}
	}
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return failure(argv[0], err)
	}
	// What somebody blocked before us is no business of the command.
	var none unix.Sigset_t
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &none, nil); err != nil {
		return exitRefused, fmt.Errorf("unblock signals: %w", err)
	}
	return failure(argv[0], syscall.Exec(path, argv, env))
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
