//go:build !linux

package leases

import "time"

var started = time.Now()

// BootTime stands in for CLOCK_BOOTTIME where there is none.
func BootTime() time.Duration { return time.Since(started) }
