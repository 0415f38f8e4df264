package uidpool

import (
	"context"
	"fmt"
	"regexp"
	"strings"
)

// ProcessRef names one process of one boot: pids are given again, a pid with a
// start time is not. It may be stored beside the boot id and compared later.
type ProcessRef struct {
	PID int `json:"pid"`
	// Start is when it began, in clock ticks (1/100 s) since boot.
	Start uint64 `json:"start"`
	// PIDNS is the inode of the pid namespace that PID is a number of.
	PIDNS uint64 `json:"pidns"`
	// Session is its session id; 0 if its session was made outside of the pid
	// namespace.
	Session int `json:"session"`
}

// String names the process in a message.
func (p ProcessRef) String() string {
	return fmt.Sprintf("pid %d (started at tick %d)", p.PID, p.Start)
}

// ticksPerSecond is the unit of start times: USER_HZ, 100 on every
// architecture that Go has.
const ticksPerSecond = 100

// SessionYounger reports whether a live process other than p is in p's session
// and started at sinceTicks or later and is not except. See [Reader.SessionYounger].
func SessionYounger(p ProcessRef, sinceTicks uint64, except UID) (bool, error) {
	r, err := theReader()
	if err != nil {
		return true, err
	}
	return r.SessionYounger(context.Background(), p, sinceTicks, except)
}

var (
	bootIDForm    = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	machineIDForm = regexp.MustCompile(`^[0-9a-f]{32}$`)
)

// parseBootID checks the text of /proc/sys/kernel/random/boot_id.
func parseBootID(text string) (string, error) {
	id := strings.TrimSpace(text)
	if !bootIDForm.MatchString(id) {
		return "", fmt.Errorf("boot id %.80q is no UUID", id)
	}
	return id, nil
}

// parseMachineID checks the text of /etc/machine-id: 32 hexadecimal digits and
// not all zero. An image that was never booted has it empty or "uninitialized".
func parseMachineID(text string) (string, error) {
	id := strings.TrimSpace(text)
	if !machineIDForm.MatchString(id) || strings.Trim(id, "0") == "" {
		return "", fmt.Errorf("machine id %.80q is not 32 hexadecimal digits", id)
	}
	return id, nil
}
