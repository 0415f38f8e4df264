package main

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestOwnCgroup: a command with --cgroup, and what it starts, is in a cgroup of its
// own, which goes with it.
func TestOwnCgroup(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make a cgroup and start a process under another uid")
	}
	script := `mount -t cgroup2 cgroup2 /mnt || exit 77
"$0" --cgroup 71030 sh -c 'sh -c "grep ^0:: /proc/self/cgroup"'
echo "left: $(ls /mnt | grep -c idpool-exec)"`
	out, err := exec.Command("unshare", "-m", "sh", "-c", script, programDir(t)+"/runas").CombinedOutput()
	var ended *exec.ExitError
	if errors.Is(err, exec.ErrNotFound) || (errors.As(err, &ended) && ended.ExitCode() == 77) {
		t.Skipf("no cgroup v2 to be had here: %s", out)
	}
	if err != nil || !strings.Contains(string(out), "/idpool-exec-71030-") || !strings.Contains(string(out), "left: 0") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestCgroupDir(t *testing.T) {
	const v1 = "30 25 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
	const v2 = "35 25 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
	for _, c := range []struct{ mounts, own, want string }{
		{v1 + v2, "1:cpu:/x\n0::/user.slice\n", "/sys/fs/cgroup/unified/user.slice"},
		{v1, "1:cpu:/x\n", ""},
		{v2, "", ""},
		{"", "0::/\n", ""},
	} {
		got, err := cgroupDir(c.mounts, c.own)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("cgroupDir(%q, %q) = %q, %v; want %q", c.mounts, c.own, got, err, c.want)
		}
	}
}
