//go:build !idpool_fault

package main

import "github.com/idpool/idpool/seam"

// faults is nil in the agent that is shipped.
func faults() seam.Seam { return nil }
