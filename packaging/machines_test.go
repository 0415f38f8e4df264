package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// machine is a set of namespaces with this host's system as its own: it may write
// and install, and nobody else sees it.
type machine struct {
	t    *testing.T
	name string
	pid  int // of its init
}

// boot is what a machine begins with; $1 is its directory, $2 its name.
const boot = `set -e
mount --make-rprivate /
mount -t tmpfs machine "$1"
mkdir "$1/upper" "$1/work" "$1/top"
mount -t overlay machine -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/top"
mount -t proc proc "$1/top/proc"
mount --rbind /dev "$1/top/dev"
mount -t tmpfs run "$1/top/run"
mkdir -p "$1/top/run/lock" "$1/top/tmp"
hostname "$2"
ip link set lo up
exec chroot "$1/top" sh -c 'echo up; exec sleep infinity'
`

// needMachines skips where there can be none.
func needMachines(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("machines in namespaces need root")
	}
	for _, tool := range []string{"ip", "unshare", "nsenter", "apt", "dpkg-deb", "curl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("no %s here", tool)
		}
	}
	if out, err := exec.Command("unshare", "--mount", "--net", "--pid", "--fork", "sh", "-c", `mount -t tmpfs x /mnt && mkdir /mnt/u /mnt/w /mnt/r &&
		mount -t overlay x -o lowerdir=/,upperdir=/mnt/u,workdir=/mnt/w /mnt/r`).CombinedOutput(); err != nil {
		t.Skipf("no namespaces or no overlay here: %v: %s", err, out)
	}
}

func newMachine(t *testing.T, name string) *machine {
	t.Helper()
	cmd := exec.Command("unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "sh", "-c", boot, "boot", t.TempDir(), name)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "up\n" {
		t.Fatalf("machine %s did not start: %q, %v", name, line, err)
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", cmd.Process.Pid, cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, name: name}
	if m.pid, err = strconv.Atoi(strings.TrimSpace(string(children))); err != nil {
		t.Fatal(err)
	}
	return m
}

// sh runs a shell command in the machine as its administrator would, in /srv.
func (m *machine) sh(command string) (string, error) {
	cmd := exec.Command("nsenter", "-t", strconv.Itoa(m.pid), "-n", "-m", "-u", "-i", "-p", "-r", "-w", "sh", "-c", "cd /srv && "+command)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (m *machine) must(command string) string {
	m.t.Helper()
	out, err := m.sh(command)
	if err != nil {
		m.t.Fatalf("%s: %s: %v\n%s", m.name, command, err, out)
	}
	return out
}

// put copies a file of the host's into the machine.
func (m *machine) put(from, to string, mode os.FileMode) {
	m.t.Helper()
	text, err := os.ReadFile(from)
	if err != nil {
		m.t.Fatal(err)
	}
	at := filepath.Join(fmt.Sprintf("/proc/%d/root", m.pid), to)
	if err := os.WriteFile(at, text, mode); err != nil {
		m.t.Fatal(err)
	}
}

// connect gives the machines 10.79.0.1, 10.79.0.2, … on a network of their own; the
// first one has the bridge.
func connect(t *testing.T, machines ...*machine) {
	t.Helper()
	hub := machines[0]
	hub.must("ip link add br0 type bridge && ip link set br0 up && ip addr add 10.79.0.1/24 dev br0")
	for i, m := range machines[1:] {
		cmd := exec.Command("nsenter", "-t", strconv.Itoa(hub.pid), "-n", "ip", "link", "add", m.name, "type", "veth", "peer", "name", "eth0", "netns", strconv.Itoa(m.pid))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		hub.must("ip link set " + m.name + " master br0 up")
		m.must(fmt.Sprintf("ip addr add 10.79.0.%d/24 dev eth0 && ip link set eth0 up", i+2))
	}
}
