package uidpool

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/idpool/idpool/problem"
)

// mountProc mounts a procfs for the test.
func mountProc(t *testing.T, options string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "proc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("proc", dir, "proc", 0, options); err != nil {
		t.Skipf("this environment mounts no procfs with %q: %v", options, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func as(uid, gid uint32) func(*exec.Cmd) {
	return func(cmd *exec.Cmd) {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	}
}

func flags(clone uintptr) func(*exec.Cmd) {
	return func(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: clone} }
}

func inUserNS(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}}}
}

// TestViewRefuses looks at real procfs mounts from real namespaces.
func TestViewRefuses(t *testing.T) {
	needRoot(t)
	needView(t)
	const u = 3_900_005_000
	plain, hidden, subset := mountProc(t, ""), mountProc(t, "hidepid=2,gid=3900005001"), mountProc(t, "subset=pid")
	noaccess := mountProc(t, "hidepid=1,gid=3900005001")
	rows := []struct {
		name   string
		task   helperTask
		adjust func(*exec.Cmd)
		want   string
	}{
		{"another mount", helperTask{Root: plain}, as(u, u), "ok"},
		{"no procfs", helperTask{Root: "/tmp"}, as(u, u), "is not a procfs"},
		{"hidepid, root", helperTask{Root: hidden}, as(0, 0), "ok"},
		{"hidepid", helperTask{Root: hidden}, as(u, u), "hidepid="},
		{"hidepid 1", helperTask{Root: noaccess}, as(u, u), "hidepid="},
		{"hidepid, group", helperTask{Root: hidden}, as(u, 3_900_005_001), "ok"},
		{"subset", helperTask{Root: subset}, as(0, 0), "subset=pid"},
		{"pid namespace", helperTask{}, flags(syscall.CLONE_NEWPID), "pid namespace of its own"},
		{"pid namespace accepted, its procfs not mounted", helperTask{Accept: true}, flags(syscall.CLONE_NEWPID), "belongs to another pid namespace"},
		{"pid namespace accepted", helperTask{Kind: "container", Accept: true}, flags(syscall.CLONE_NEWPID | syscall.CLONE_NEWNS), "ok"},
		{"user namespace", helperTask{Accept: true}, inUserNS, "user namespace of its own"},
	}
	_, denied := os.Readlink("/proc/1/exe")
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			if row.name == "hidepid, root" && denied != nil {
				t.Skipf("a security module keeps root from process 1: %v", denied)
			}
			if row.task.Kind == "" {
				row.task.Kind = "view"
			}
			h := startHelper(t, row.task, row.adjust)
			if row.want == "ok" != (h.line == "ok") || !strings.Contains(h.line, row.want) {
				t.Errorf("view: %s; want %s", h.line, row.want)
			}
		})
	}
}

// TestRoots scans through procfs mounts that are good and through some that
// show too little.
func TestRoots(t *testing.T) {
	needRoot(t)
	needView(t)
	const u = 3_900_005_100
	startHelper(t, helperTask{Kind: "process", UIDs: effective(u)})
	for root, want := range map[string]bool{mountProc(t, "hidepid=2"): true, mountProc(t, "subset=pid"): false, t.TempDir(): false, "/nowhere": false} {
		r, err := NewReader(ReaderOptions{Root: root})
		if err != nil {
			t.Fatal(err)
		}
		usage, err := r.Probe(t.Context(), u)
		if !usage.InUse || (err == nil) != want || err != nil && !errors.Is(err, problem.ErrNoProof) {
			t.Errorf("%s: %+v, %v", root, usage, err)
		}
		usage, err = r.Probe(t.Context(), u+1)
		if usage.InUse == want || (err == nil) != want {
			t.Errorf("%s, free uid: %+v, %v", root, usage, err)
		}
	}
	if _, err := NewReader(ReaderOptions{Root: "proc"}); !errors.Is(err, problem.ErrInvalid) {
		t.Errorf("relative root: %v", err)
	}
}
