package leases

import (
	"time"

	"golang.org/x/sys/unix"
)

// BootTime is CLOCK_BOOTTIME: it goes on while the machine sleeps, which Go's
// monotonic clock does not, and starts anew with every boot.
func BootTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("bug: CLOCK_BOOTTIME: " + err.Error())
	}
	return time.Duration(ts.Nano())
}
