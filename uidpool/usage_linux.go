package uidpool

import (
	"golang.org/x/sys/unix"

	"github.com/idpool/idpool/problem"
)

// quick is the system call itself: its result, 20 - nice, is an error only
// when errno says so.
func quick(uid UID) (bool, error) {
	if err := userNamespaceOK(); err != nil {
		return true, err
	}
	_, _, errno := unix.Syscall(unix.SYS_GETPRIORITY, unix.PRIO_USER, uintptr(uint32(uid)), 0)
	switch errno {
	case 0:
		return true, nil
	case unix.ESRCH:
		return false, nil
	}
	return true, problem.Wrap(problem.CodeNoProof, errno, "ask the kernel for tasks of uid %d", uint32(uid))
}
