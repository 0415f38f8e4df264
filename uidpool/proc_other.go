//go:build !linux

package uidpool

import "github.com/idpool/idpool/problem"

func supported() error { return needsLinux("reading processes") }

// needsLinux is what every question about this node's processes is answered
// with here.
func needsLinux(what string) error {
	return problem.New(problem.CodeNoProof, "%s needs Linux: this system has no procfs, pidfd or pid namespaces", what).
		Note("effect: no uid is proven unused or granted here").
		Note("fix: run the agent on Linux, or as a gateway, which grants no uid")
}
