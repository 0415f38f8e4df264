package rig

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

func (n *Node) filler() string { return n.fromOutside(filepath.Join(n.disk(), "filler")) }

// DiskFull fills the file system of the agent's data to the last byte.
func (n *Node) DiskFull() error {
	n.r.say("%s: disk full", n.name)
	f, err := os.Create(n.filler())
	if err != nil {
		return err
	}
	defer f.Close()
	for size := 64 << 10; size > 0; {
		// The last bytes of a page are had only by shorter writes.
		if _, err = f.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else if err != nil {
			return err
		}
	}
	return nil
}

// DiskReadOnly makes the agent's data read-only: what it opens from now on.
func (n *Node) DiskReadOnly() error {
	system, err := n.running()
	if err != nil {
		return err
	}
	n.r.say("%s: disk read-only", n.name)
	if err := system.run(n.r.resident(), "readonly", n.data()); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.shut = true
	return nil
}

// DiskHeal ends DiskFull and DiskReadOnly.
func (n *Node) DiskHeal() error {
	n.r.say("%s: disk healed", n.name)
	if err := os.Remove(n.filler()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	n.mu.Lock()
	shut, system := n.shut, n.system
	n.shut = false
	n.mu.Unlock()
	if !shut || system == nil {
		return nil // a reboot makes the mounts anew
	}
	return system.run(n.r.resident(), "writable", n.data())
}

// LoseData removes the agent's data directory, whose agent must not run.
func (n *Node) LoseData() error {
	if n.AgentAlive() {
		return fmt.Errorf("the agent of %s runs on its data", n.name)
	}
	n.r.say("%s: data lost", n.name)
	return os.RemoveAll(n.fromOutside(n.data()))
}

// CopyData replaces the agent's data directory by a copy of another node's, as it
// stands. No agent may run on the replaced one.
func (n *Node) CopyData(from *Node) error {
	if err := n.LoseData(); err != nil {
		return err
	}
	n.r.say("%s: data copied from %s", n.name, from.name)
	return os.CopyFS(n.fromOutside(n.data()), os.DirFS(from.fromOutside(from.data())))
}

// CopyMachine gives this machine, which must be off, the machine id of another, as
// a copy of a virtual machine has it.
func (n *Node) CopyMachine(from *Node) error {
	id, err := os.ReadFile(from.machineID())
	if err != nil {
		return err
	}
	return os.WriteFile(n.machineID(), id, 0o644)
}

// WallClock moves the wall clock of the agent's process by whole seconds from the
// truth, at once and also after restarts. The monotonic clock goes on as it was.
func (n *Node) WallClock(offset time.Duration) error {
	n.r.say("%s: wall clock of the agent off by %v", n.name, offset)
	return n.clock.set(offset)
}
