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
	// Anonymous, which is no name rather than an empty one.
	if _, err := unix.KeyctlInt(unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, "new session keyring:", err)
		return 1
	}
	rings, err := userKeyrings()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for _, ring := range rings {
		for _, what := range []int{unix.KEYCTL_CLEAR, unix.KEYCTL_INVALIDATE} {
			if _, err := unix.KeyctlInt(what, ring, 0, 0, 0); err != nil {
				fmt.Fprintf(os.Stderr, "keyctl %d of keyring %d: %v\n", what, ring, err)
				return 1
			}
		}
	}
	return 0
}

// keyctlGetPersistent is KEYCTL_GET_PERSISTENT, which package unix does not name.
const keyctlGetPersistent = 22

// userKeyrings are the keyrings that the kernel keeps by the number of this user.
// All by their serials, before any is taken away: to name one by what it is for
// makes those that are gone.
func userKeyrings() ([]int, error) {
	var rings []int
	for _, which := range []int{unix.KEY_SPEC_USER_KEYRING, unix.KEY_SPEC_USER_SESSION_KEYRING} {
		ring, err := unix.KeyctlGetKeyringID(which, false)
		if err != nil {
			return nil, fmt.Errorf("find user keyring %d: %w", which, err)
		}
		rings = append(rings, ring)
	}
	// Kerberos has its tickets there; by the session keyring it is at hand.
	ring, err := unix.KeyctlInt(keyctlGetPersistent, os.Getuid(), unix.KEY_SPEC_SESSION_KEYRING, 0, 0)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return rings, nil // a kernel without
	}
	if err != nil {
		return nil, fmt.Errorf("find the persistent keyring: %w", err)
	}
	return append(rings, ring), nil
}
