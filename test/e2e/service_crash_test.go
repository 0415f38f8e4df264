package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/idpool/idpool/seam/fault"
)

// pair is a service's life on a node, each step repeated until it succeeds: a pair
// from etcd that is provisioned, and one with an outside side that fails, is
// retried and deleted.
func pair(t *testing.T, n *node, name string, again func()) {
	t.Helper()
	step := func(args ...string) string {
		t.Helper()
		for try := 0; ; try++ {
			r := n.poolctl(args...)
			// A repeated retry may meet the first one at work.
			if r.code == 0 || (try > 0 && strings.Contains(r.stderr, "not retried: it is allocating")) {
				return strings.TrimSpace(r.stdout)
			}
			if (r.code != 5 && r.code != 6) || try == 20 {
				t.Fatalf("poolctl %s: exit %d (try %d)\n%s", strings.Join(args, " "), r.code, try, r.stderr)
			}
			again()
		}
	}
	in := func(name string, states ...string) {
		t.Helper()
		n.w.eventually(name+" is "+strings.Join(states, " or "), 30*time.Second, func(context.Context) error {
			again()
			r := n.poolctl("vlan", "service", "show", name, "-o", "json")
			var v struct{ State string }
			_ = json.Unmarshal([]byte(r.stdout), &v)
			if r.code == 1 {
				v.State = "gone"
			}
			if !slices.Contains(states, v.State) {
				return fmt.Errorf("exit %d, state %q: %s", r.code, v.State, r.stderr)
			}
			return nil
		})
	}
	step("vlan", "service", "create", name, "--north", "fabric-a", "--south", "fabric-a")
	step("vlan", "service", "confirm", name)
	step("vlan", "service", "delete", name)
	in(name, "gone")

	mixed := name + "-mixed"
	step("vlan", "service", "create", mixed, "--north", "legacy", "--south", "fabric-a")
	in(mixed, "allocated")
	step("vlan", "service", "begin", mixed)
	step("vlan", "service", "fail", mixed, "--reason", "a device said no")
	in(mixed, "failed")
	step("vlan", "service", "retry", mixed)
	in(mixed, "allocated")
	step("vlan", "service", "confirm", mixed)
	step("vlan", "service", "delete", mixed)
	in(mixed, "gone")
}

// TestServiceKillAtEveryPoint kills the agent with SIGKILL at every step of a
// service's life, also between an outside inventory's file and the record of it:
// the life goes on to its end, and neither etcd nor the file keeps a VLAN.
func TestServiceKillAtEveryPoint(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n, other := w.node("n1"), w.node("n2")
	trail := filepath.Join(w.dir, "points")
	file := filepath.Join(w.dir, "legacy.json")
	const empty = `{"version":0,"range":{"from":100,"to":104},"allocations":{}}`
	if err := os.WriteFile(file, []byte(empty), 0o644); err != nil {
		t.Fatal(err)
	}
	n.start("IDPOOL_FAULT_LOG=" + trail)
	other.start()
	n.ready()
	other.ready()
	n.must("vlan", "inventory", "set", "fabric-a", "100-103", "--cooldown", "0s")
	n.must("vlan", "inventory", "set", "legacy", "--file", file, "--on", "n1", "--settle", "0s")
	pair(t, n, "first", func() {})
	w.quiet(time.Minute)
	n.kill()

	points := readPoints(t, trail)
	cases := slices.DeleteFunc(crashes(points), func(c fault.Case) bool {
		return !fault.Everything() && !strings.HasPrefix(c.Point, "service:") && !strings.HasPrefix(c.Point, "outside:") && c.Point != "grant"
	})
	for point := range points { // the steps of a save of a pool file
		if strings.HasPrefix(point, "file:pool:") && !fault.Everything() {
			cases = append(cases, fault.Case{Mode: fault.CrashAfter, Point: point, N: 1})
		}
	}
	if len(cases) < 24 {
		t.Fatalf("the first life passed few points: %v", points)
	}
	for i, at := range cases {
		n.brokenAt(t, at, func(t *testing.T, again func()) { pair(t, n, fmt.Sprintf("p-%d", i), again) })
		text, err := os.ReadFile(file)
		var left struct{ Allocations map[string]uint32 }
		if err == nil {
			err = json.Unmarshal(text, &left)
		}
		if err != nil || len(left.Allocations) != 0 {
			t.Errorf("after %s the file keeps %v (%v)", at, left.Allocations, err)
		}
	}
	t.Logf("walked %d cases", len(cases))
	w.judgeServices()
	if err := judge(w.history()); err != nil {
		t.Error(err)
	}
}

// TestCoordinatorNeverReturns: a program allocates a pair and dies with the agent of
// its node, which stays away. Another node's agent gives the pair back.
func TestCoordinatorNeverReturns(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	nodes := w.up(2)
	n, other := nodes[0], nodes[1]
	n.must("vlan", "inventory", "set", "fabric-a", "100-103", "--cooldown", "0s")
	program := exec.Command("sleep", "600")
	program.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	n.must("vlan", "service", "create", "edge-7", "--north", "fabric-a", "--south", "fabric-a", "--hold", fmt.Sprintf("pid=%d", program.Process.Pid), "--confirm-within", "1s")
	n.kill()
	_ = program.Process.Kill()
	_ = program.Wait()
	w.eventually("the pair is given back", time.Minute, func(context.Context) error {
		r := other.poolctl("vlan", "service", "show", "edge-7", "-o", "json")
		var v struct{ State string }
		if err := json.Unmarshal([]byte(r.stdout), &v); err != nil || v.State != "failed" {
			return fmt.Errorf("state %q: %s", v.State, r.stderr)
		}
		return nil
	})
	w.quiet(time.Minute)
	w.judgeServices()
}
