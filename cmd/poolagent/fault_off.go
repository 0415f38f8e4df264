//go:build !idpool_fault

package main

// fault is nil in the agent that is shipped.
func fault() func(string) { return nil }
