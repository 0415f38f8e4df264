package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/idpool/idpool/seam"
	"github.com/idpool/idpool/uidpool"
)

// HelperCommand is the first argument of this program as the agent starts it for
// what it does not do itself; see [HelperMain].
const HelperCommand = "__clear-keyring"

// helperTimeout bounds the helper.
const helperTimeout = 5 * time.Second

func removeIPC(o uidpool.IPCObject) error {
	var errno syscall.Errno
	switch o.Kind {
	case "shm":
		_, err := unix.SysvShmCtl(o.ID, unix.IPC_RMID, nil)
		return err
	case "sem":
		_, _, errno = unix.Syscall6(unix.SYS_SEMCTL, uintptr(o.ID), 0, unix.IPC_RMID, 0, 0, 0)
	case "msg":
		_, _, errno = unix.Syscall(unix.SYS_MSGCTL, uintptr(o.ID), unix.IPC_RMID, 0)
	default:
		return fmt.Errorf("unknown kind %q", o.Kind)
	}
	if errno != 0 {
		return errno
	}
	return nil
}

// clearKeyring empties a user's keyrings by a process of that user: only it has
// them at hand. No thread of the agent ever becomes somebody else.
func clearKeyring(s seam.Seam, uid uidpool.UID) error {
	if err := uid.Valid(); err != nil {
		return err
	}
	return s.Do("exec:keyring", func() error {
		ctx, cancel := context.WithTimeout(context.Background(), helperTimeout)
		defer cancel()
		cmd := exec.CommandContext(ctx, "/proc/self/exe", HelperCommand)
		cmd.Env, cmd.Dir = []string{}, "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid), Groups: []uint32{}}}
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("clear the keyrings of uid %s: %w: %.200s", uid, err, out)
		}
		return nil
	})
}

// HelperMain is what the helper does, in a process of the user: it empties the
// user's keyrings and takes them away. It returns the exit code.
func HelperMain() int {
	// The agent's session keyring came along; the thread that leaves it is this.
	runtime.LockOSThread()
	if _, err := unix.KeyctlJoinSessionKeyring(""); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for _, ring := range []int{unix.KEY_SPEC_USER_SESSION_KEYRING, unix.KEY_SPEC_USER_KEYRING} {
		for _, what := range []int{unix.KEYCTL_CLEAR, unix.KEYCTL_INVALIDATE} {
			if _, err := unix.KeyctlInt(what, ring, 0, 0, 0); err != nil && !errors.Is(err, unix.ENOKEY) {
				fmt.Fprintln(os.Stderr, what, ring, err)
				return 1
			}
		}
	}
	return 0
}
