// Command resident lives on the machines of a robustness run: "resident init" is
// their init, which starts, signals and reaps processes as package rig tells it;
// "resident requester" asks the node's agent for ids and runs processes under them,
// as it is told line by line; "resident readonly DIR" and "resident writable DIR"
// change a mount. It is no program for people.
package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "resident:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("say as what: init, requester, sleeper, readonly or writable")
	}
	switch what, args := args[0], args[1:]; {
	case what == "init":
		return initMain(args)
	case what == "requester" && len(args) == 0:
		return requesterMain()
	case what == "sleeper" && len(args) == 1:
		return sleeperMain(args[0])
	case what == "readonly" && len(args) == 1:
		return readOnly(args[0])
	case what == "writable" && len(args) == 1:
		// Files that are open below it must not keep it.
		return unix.Unmount(args[0], unix.MNT_DETACH)
	}
	return fmt.Errorf("%q is nothing that it can be", args)
}

// readOnly lays a read-only mount of a directory over itself: a mount on which
// files are open for writing could not be changed.
func readOnly(dir string) error {
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s over itself: %w", dir, err)
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("make %s read-only: %w", dir, err)
	}
	return nil
}
