package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// cgroup is a group of processes that none of them can leave.
type cgroup struct {
	dir string
	fd  int
}

// newCgroup makes one below ours, in the unified hierarchy.
func newCgroup(uid uint32) (*cgroup, error) {
	at, err := ownCgroup()
	if err != nil {
		return nil, fmt.Errorf("make a cgroup: %w", err)
	}
	g := &cgroup{dir: filepath.Join(at, fmt.Sprintf("idpool-exec-%d-%d", uid, os.Getpid())), fd: -1}
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		return nil, fmt.Errorf("make a cgroup: %w", err)
	}
	if g.fd, err = unix.Open(g.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		g.remove()
		return nil, fmt.Errorf("open the cgroup: %w", err)
	}
	return g, nil
}

// ownCgroup is the directory of our cgroup.
func ownCgroup() (string, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	return cgroupDir(string(mounts), string(own))
}

// cgroupDir finds it in what mountinfo and cgroup of /proc/self say.
func cgroupDir(mounts, own string) (string, error) {
	path := ""
	for line := range strings.SplitSeq(own, "\n") {
		if rest, ok := strings.CutPrefix(line, "0::"); ok {
			path = rest
		}
	}
	for line := range strings.SplitSeq(mounts, "\n") {
		left, right, ok := strings.Cut(line, " - ")
		fields := strings.Fields(left)
		if !ok || len(fields) < 5 || !strings.HasPrefix(right, "cgroup2 ") || path == "" {
			continue
		}
		below, err := filepath.Rel(fields[3], path)
		if err != nil || strings.HasPrefix(below, "..") {
			continue
		}
		return filepath.Join(fields[4], below), nil
	}
	return "", errors.New("this machine has no cgroup v2 mounted (leave --cgroup away)")
}

// kill ends everything in it, whatever it forks meanwhile.
func (g *cgroup) kill() {
	if g != nil {
		_ = os.WriteFile(filepath.Join(g.dir, "cgroup.kill"), []byte("1"), 0)
	}
}

// remove takes it away if nothing is left in it.
func (g *cgroup) remove() {
	if g == nil {
		return
	}
	if g.fd >= 0 {
		_ = unix.Close(g.fd)
		g.fd = -1
	}
	_ = unix.Rmdir(g.dir)
}
