package rig

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// clock is a file of eight bytes that processes built with the overlay map: the
// seconds that their wall clock is off by.
type clock struct{ path string }

// clockVar names the file to a process.
const clockVar = "RIG_WALL_CLOCK"

func newClock(path string) (*clock, error) {
	c := &clock{path}
	return c, os.WriteFile(path, make([]byte, 8), 0o600)
}

func (c *clock) env() string { return clockVar + "=" + c.path }

func (c *clock) set(offset time.Duration) error {
	f, err := os.OpenFile(c.path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(offset/time.Second)), 0)
	return err
}

// wallClock is added to package time of the processes under test: no code of
// theirs knows that it is there.
const wallClock = `package time

import (
	"sync/atomic"
	"syscall"
	"unsafe"
)

var rigOffset *int64

func rigSeconds() int64 {
	if rigOffset == nil {
		return 0
	}
	return atomic.LoadInt64(rigOffset)
}

func init() {
	path, ok := syscall.Getenv("` + clockVar + `")
	if !ok {
		return
	}
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		panic("wall clock " + path + ": " + err.Error())
	}
	page, err := syscall.Mmap(fd, 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
	syscall.Close(fd)
	if err != nil {
		panic("wall clock " + path + ": " + err.Error())
	}
	rigOffset = (*int64)(unsafe.Pointer(&page[0]))
}
`

// readsClock is the line of time.Now that reads both clocks, followed by what the
// overlay adds: the wall clock's part alone moves.
const readsClock = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"

// overlay writes a package time with a wall clock that can be moved, and returns
// the file for -overlay of the go command.
func overlay(goroot, dir string) (string, error) {
	of := filepath.Join(goroot, "src", "time", "time.go")
	text, err := os.ReadFile(of)
	if err != nil {
		return "", err
	}
	if strings.Count(string(text), readsClock) != 1 {
		return "", fmt.Errorf("%s is not as it was: the wall clock cannot be moved", of)
	}
	files := map[string]string{
		"time.go":      strings.Replace(string(text), readsClock, readsClock+"\tsec += rigSeconds()\n", 1),
		"rig_clock.go": wallClock,
	}
	replace := map[string]string{}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return "", err
		}
		replace[filepath.Join(goroot, "src", "time", name)] = path
	}
	path := filepath.Join(dir, "overlay.json")
	return path, os.WriteFile(path, encode(map[string]any{"Replace": replace}), 0o600)
}
