package main

import (
	"errors"
	"fmt"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// separate gives the command what it does not share with others of the machine.
func separate(s shimSpec) error {
	flags := 0
	if !s.HostIPC {
		flags |= unix.CLONE_NEWIPC
	}
	if s.PrivateTmp {
		flags |= unix.CLONE_NEWNS
	}
	if flags == 0 {
		return nil
	}
	if err := unix.Unshare(flags); err != nil {
		return fmt.Errorf("make namespaces of its own (without them: --ipc host, no --private-tmp): %w", err)
	}
	if !s.PrivateTmp {
		return nil
	}
	// What the machine mounts later is seen; what is mounted here is not.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("keep our mounts to ourselves: %w", err)
	}
	for _, dir := range []string{"/tmp", "/var/tmp", "/dev/shm"} {
		err := unix.Mount("idpool", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777")
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("mount a private %s: %w", dir, err)
		}
	}
	return nil
}

// become gives up root for good and looks whether it is gone.
func become(s shimSpec) error {
	if err := shedCapabilities(s.NewPrivs); err != nil {
		return err
	}
	uid, gids := int(s.UID), []int{}
	for _, g := range s.Groups {
		gids = append(gids, int(g))
	}
	if err := setGroups(s.Groups); err != nil {
		return fmt.Errorf("set groups: %w", err)
	}
	if err := setIDs(unix.SYS_SETRESGID, uid); err != nil {
		return fmt.Errorf("set gid: %w", err)
	}
	if err := setIDs(unix.SYS_SETRESUID, uid); err != nil {
		return fmt.Errorf("set uid: %w", err)
	}
	if err := noCapabilities(); err != nil {
		return fmt.Errorf("give up capabilities: %w", err)
	}
	if !s.NewPrivs {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("give up new privileges: %w", err)
		}
	}
	return verify(uid, gids)
}

// setIDs sets all three ids of this thread, the one that executes. Package syscall
// would set those of all threads, and abort where they differ in what they may.
func setIDs(trap uintptr, id int) error {
	if _, _, errno := unix.RawSyscall(trap, uintptr(id), uintptr(id), uintptr(id)); errno != 0 {
		return errno
	}
	return nil
}

// setGroups sets this thread's, like [setIDs].
func setGroups(gids []uint32) error {
	var list unsafe.Pointer
	if len(gids) > 0 {
		list = unsafe.Pointer(&gids[0])
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(gids)), uintptr(list), 0); errno != 0 {
		return errno
	}
	return nil
}

// shedCapabilities ends what could carry a capability over the change of uid:
// securebits that say so, the ambient and, where no program is to raise any, the
// bounding set.
func shedCapabilities(newPrivs bool) error {
	bits, err := unix.PrctlRetInt(unix.PR_GET_SECUREBITS, 0, 0, 0, 0)
	if err != nil {
		return fmt.Errorf("read securebits: %w", err)
	}
	if bits != 0 {
		if err := unix.Prctl(unix.PR_SET_SECUREBITS, 0, 0, 0, 0); err != nil {
			return fmt.Errorf("clear securebits %#x: %w", bits, err)
		}
	}
	err = unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
	if err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("clear ambient capabilities: %w", err)
	}
	if newPrivs {
		return nil
	}
	for c := uintptr(0); ; c++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		switch {
		case errors.Is(err, unix.EINVAL): // past the last one there is
			return nil
		case errors.Is(err, unix.EPERM): // then no_new_privs alone does it
			return nil
		case err != nil:
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
}

// noCapabilities empties all three sets of this thread.
func noCapabilities() error {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	return unix.Capset(&head, &sets[0])
}

// verify does not trust that what was asked for was done: a number of 16 bits,
// a security module or a capability that was kept would show here.
func verify(uid int, gids []int) error {
	r, e, s := unix.Getresuid()
	rg, eg, sg := unix.Getresgid()
	for _, id := range []int{r, e, s, rg, eg, sg} {
		if uint32(id) != uint32(uid) { // the kernel's word is signed here: above 2^31 it is negative
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
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&head, &sets[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	if sets != [2]unix.CapUserData{} {
		return fmt.Errorf("capabilities are left: %+v", sets)
	}
	if err := setIDs(unix.SYS_SETRESUID, 0); err == nil {
		return errors.New("the way back to root is open")
	}
	return nil
}
