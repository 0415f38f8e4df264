//go:build idpool_fault

package main

import (
	"fmt"
	"os"
	"sync"
	"syscall"
)

// fault is the seam of the tests with real processes. With IDPOOL_FAULT the agent
// kills itself with SIGKILL the first time that it passes the point of that name;
// with IDPOOL_FAULT_LOG it appends the name of every point to a file.
func fault() func(string) {
	at, log := os.Getenv("IDPOOL_FAULT"), os.Getenv("IDPOOL_FAULT_LOG")
	var mu sync.Mutex
	return func(point string) {
		if log != "" {
			mu.Lock()
			defer mu.Unlock()
			if f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err == nil {
				fmt.Fprintln(f, point)
				f.Close()
			}
		}
		if point == at {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
}
