package rig

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// maxDir bounds Options.Dir, in bytes: sockets live below it.
const maxDir = 70

// Options say what a rig consists of. Dir and Bin are required.
type Options struct {
	Dir      string        // scratch directory, absolute, made by the caller; at most 70 bytes
	Bin      string        // what Build filled, absolute
	Members  int           // etcd members, 1 to 9; 0 is 3
	Nodes    int           // nodes with an agent, 1 to 9; 0 is 3
	LeaseTTL time.Duration // of the agents, whole seconds from 2 s on; 0 is 4 s
	Log      io.Writer     // what the rig does; nil is nowhere
}

func (o *Options) complete() error {
	if o.Members == 0 {
		o.Members = 3
	}
	if o.Nodes == 0 {
		o.Nodes = 3
	}
	if o.LeaseTTL == 0 {
		o.LeaseTTL = 4 * time.Second
	}
	if o.Log == nil {
		o.Log = io.Discard
	}
	switch {
	case !filepath.IsAbs(o.Dir) || !filepath.IsAbs(o.Bin):
		return fmt.Errorf("directories %q and %q must be absolute", o.Dir, o.Bin)
	case len(o.Dir) > maxDir:
		return fmt.Errorf("directory %s is longer than %d bytes: sockets below it could not be named", o.Dir, maxDir)
	case o.Members < 1 || o.Members > 9 || o.Nodes < 1 || o.Nodes > 9:
		return fmt.Errorf("%d members and %d nodes: 1 to 9 of each can be had", o.Members, o.Nodes)
	}
	return nil
}

// Available is nil where a rig can be started, else why not.
func Available() error { return available() }

var available = sync.OnceValue(func() error {
	if os.Geteuid() != 0 {
		return errors.New("namespaces and other uids need root")
	}
	for _, tool := range []string{"ip", "nft", "tc"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("the network needs the tool %s: %w", tool, err)
		}
	}
	// One try for both: new namespaces, and a bridge's rules in them.
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader("table bridge probe {\nchain c {\ntype filter hook forward priority 0\niifname a numgen random mod 100 < 5 drop\n}\n}\n")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: machineFlags}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("no namespaces, or no bridge rules in them: %w: %s", err, out)
	}
	return nil
})

// machineFlags are the namespaces of a machine.
const machineFlags = syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC
