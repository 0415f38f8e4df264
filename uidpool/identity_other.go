//go:build !linux

package uidpool

import (
	"context"
	"time"
)

// BootID refuses: see Linux.
func BootID() (string, error) { return "", needsLinux("the boot id") }

// MachineID refuses: see Linux.
func MachineID() (string, error) { return "", needsLinux("the machine id") }

// PIDNamespace refuses: see Linux.
func PIDNamespace() (uint64, error) { return 0, needsLinux("the pid namespace") }

// BootTime is 0: see Linux.
func BootTime() time.Duration { return 0 }

// NowTicks refuses: see Linux.
func NowTicks() (uint64, error) { return 0, needsLinux("the time since boot") }

// Identify refuses: see Linux.
func Identify(int) (ProcessRef, error) { return ProcessRef{}, needsLinux("identifying a process") }

// Alive is in doubt: see Linux.
func (p ProcessRef) Alive() (bool, error) { return true, needsLinux("watching a process") }

// WaitExit refuses: see Linux.
func WaitExit(context.Context, ProcessRef) error { return needsLinux("watching a process") }

// SessionYounger is in doubt: see Linux.
func (r *Reader) SessionYounger(context.Context, ProcessRef, uint64, UID) (bool, error) {
	return true, supported()
}

func (r *Reader) sessionYounger(context.Context, ProcessRef, uint64, UID) (int, error) {
	return 0, supported()
}
