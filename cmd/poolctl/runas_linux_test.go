package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// programs are what scripts and tests run beside the machine's own.
var programs = map[string]func(){"poolctl": main, "runas": runas, "withkey": withKey, "readkey": readKey, "typein": typeIn, "leaveipc": leaveIPC}

// runas is "uid exec" without an agent: runas [FLAG…] UID COMMAND… runs a
// command the way exec does, and tells with which code it ended and whether
// it left something running.
func runas() {
	args := os.Args[1:]
	if len(args) > 0 && args[0] == shimCommand {
		os.Exit(shimMain(args[1:]))
	}
	fail := func(code int, err error) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(code)
	}
	o := &execOptions{}
	flags := o.cobra().Flags()
	if err := flags.Parse(args); err != nil {
		fail(2, err)
	}
	uid, err := parseUID(flags.Arg(0))
	if err != nil {
		fail(2, err)
	}
	if uid != 0 && uid+1 != 0 { // those are for the refusals
		o.groups = append(o.groups, strconv.FormatUint(uint64(uid+1), 10))
	}
	cmd, err := o.command(flags.Args()[1:])
	if err != nil {
		fail(exitRefused, err)
	}
	cmd.uid, cmd.env = uid, cleanEnv(uid, "jobs", cmd.env)
	child, code, err := start(cmd)
	if err != nil {
		fail(code, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error { return child.forward(ctx) })
	g.Go(func() error { return child.relay(ctx) })
	code, left := child.wait(!o.detach)
	cancel()
	_ = g.Wait()
	child.finish()
	fmt.Fprintf(os.Stderr, "code %d, left %v\n", code, left)
	if left {
		child.kill()
		child.wait(true)
	}
	os.Exit(code)
}

const testKey = "idpool-test-secret"

// withKey runs a command with a key in its session keyring.
func withKey() {
	_, _, errno := unix.RawSyscall(unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0)
	if errno == 0 {
		_, err := unix.AddKey("user", testKey, []byte("hunter2"), unix.KEY_SPEC_SESSION_KEYRING)
		if err != nil {
			errno = err.(unix.Errno)
		}
	}
	if errno != 0 {
		fmt.Fprintln(os.Stderr, "no keyring:", errno)
		os.Exit(2)
	}
	path, err := exec.LookPath(os.Args[1])
	if err == nil {
		err = syscall.Exec(path, os.Args[1:], os.Environ())
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(2)
}

// readKey looks for that key as whoever runs it.
func readKey() {
	id, err := unix.KeyctlSearch(unix.KEY_SPEC_SESSION_KEYRING, "user", testKey, 0)
	if err != nil {
		fmt.Println("no key:", err)
		return
	}
	buf := make([]byte, 100)
	n, err := unix.KeyctlBuffer(unix.KEYCTL_READ, id, buf, 0)
	fmt.Printf("key %.*q %v\n", n, buf, err)
}

// typeIn types a line into every terminal that it can find, as an attacker would.
func typeIn() {
	if fd, err := unix.Open("/dev/tty", unix.O_RDWR, 0); err == nil {
		fmt.Println("/dev/tty", typeInto(fd))
	} else {
		fmt.Println("/dev/tty", err)
	}
	for fd := range 10 {
		if isTerminal(fd) {
			fmt.Println(fd, typeInto(fd))
		}
	}
}

func typeInto(fd int) error {
	for _, c := range []byte("injected\n") {
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCSTI, bytePointer(c)); errno != 0 {
			return errno
		}
	}
	return nil
}

// leaveIPC leaves a System V shared memory segment behind.
func leaveIPC() {
	id, err := unix.SysvShmGet(0x1d9001, 100, unix.IPC_CREAT|0o600)
	fmt.Println("segment", id, err)
}

var typed [1]byte

// bytePointer is where a byte is that a system call reads.
func bytePointer(c byte) uintptr {
	typed[0] = c
	return uintptr(unsafe.Pointer(&typed[0]))
}
