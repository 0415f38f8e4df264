//go:build idpool_fault

package main

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/idpool/idpool/seam"
	"github.com/idpool/idpool/seam/fault"
)

// faults is the seam of the tests with real processes. IDPOOL_FAULT=MODE:POINT[#N]
// breaks the N-th passing of a point, see package fault; a crash is SIGKILL by the
// agent's own hand. IDPOOL_FAULT_LOG is a file that each passing is appended to.
//
// IDPOOL_GOROUTINES is a file in which the number of goroutines stands, a second old at most.
func faults() seam.Seam {
	if path := os.Getenv("IDPOOL_GOROUTINES"); path != "" {
		go countGoroutines(path)
	}
	i := &fault.Injector{Crash: func() {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}}
	if text := os.Getenv("IDPOOL_FAULT"); text != "" {
		c, err := fault.Parse(text)
		if err != nil {
			fmt.Fprintln(os.Stderr, "IDPOOL_FAULT:", err)
			os.Exit(2)
		}
		i.Arm(c)
	}
	log := os.Getenv("IDPOOL_FAULT_LOG")
	if log == "" {
		return i.Seam
	}
	var mu sync.Mutex
	return func(point string, do func() error) error {
		mu.Lock()
		if f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err == nil {
			fmt.Fprintln(f, point)
			f.Close()
		}
		mu.Unlock()
		return i.Seam(point, do)
	}
}

// countGoroutines ends with the process.
func countGoroutines(path string) {
	for range time.Tick(time.Second) {
		_ = os.WriteFile(path, fmt.Append(nil, runtime.NumGoroutine()), 0o600)
	}
}
