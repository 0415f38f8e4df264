package rig_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/test/e2e/robust/rig"
)

// childVar makes the test program the one that starts a rig and is killed.
const childVar = "RIG_TEST_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childVar); dir != "" {
		_, err := rig.Start(context.Background(), rig.Options{Dir: dir, Bin: os.Getenv("RIG_TEST_BIN"), Members: 1, Nodes: 1})
		fmt.Println("started", err)
		select {}
	}
	os.Exit(m.Run())
}

// binaries skips where there can be no rig.
func binaries(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("starts real processes; left out with -short")
	}
	if err := rig.Available(); err != nil {
		t.Skip(err)
	}
	bin, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

var built = sync.OnceValues(func() (string, error) { return rig.Binaries(context.Background()) })

func scratch(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "rig")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func start(t *testing.T, o rig.Options) *rig.Rig {
	t.Helper()
	o.Bin = binaries(t)
	o.Dir = scratch(t)
	var log bytes.Buffer
	o.Log = &log
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := rig.Start(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(log.String())
		}
		nothingLeft(t, o.Dir)
	})
	return r
}

// eventually waits until check returns nil.
func eventually(t *testing.T, what string, check func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check(ctx)
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// nothingLeft checks that no process and no mount knows the directory, and that no
// link of a rig is in our own network.
func nothingLeft(t *testing.T, dir string) {
	t.Helper()
	eventually(t, "nothing is left", func(context.Context) error {
		lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, path := range lines {
			if text, err := os.ReadFile(path); err == nil && bytes.Contains(text, []byte(dir)) {
				return fmt.Errorf("%s: %q", path, text)
			}
		}
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil || bytes.Contains(mounts, []byte(dir)) {
			return fmt.Errorf("mounts of %s are left: %v", dir, err)
		}
		links, err := net.Interfaces()
		for _, l := range links {
			if slices.Contains([]string{"br0", "m1", "n1", "spare"}, l.Name) {
				err = errors.Join(err, fmt.Errorf("link %s is left", l.Name))
			}
		}
		return err
	})
}

// uids is a range of n uids that no other run of the tests uses.
func uids(n int) string {
	first := 1_400_000_000 + os.Getpid()%100_000*1000
	return fmt.Sprintf("%d-%d", first, first+n-1)
}

func pool(t *testing.T, r *rig.Rig) {
	t.Helper()
	if _, err := r.Nodes()[0].API().Pools().Put(t.Context(), api.Pool{Name: "jobs", Ranges: uids(50)}, api.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
}

// run gets a uid on the node, bound to the requester, and a process under it.
func run(t *testing.T, n *rig.Node) (q *rig.Requester, uid api.UID, pid int) {
	t.Helper()
	q, err := n.Requester(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(q.Close)
	a := ask(t, q, rig.Ask{Op: rig.AskRequest, Request: &api.UIDRequest{Pool: "jobs", Hold: api.Hold{Kind: api.HoldPID}}})
	uid = a.Grant.Items[0]
	uid.Token, uid.Requester = a.Grant.Token, a.Grant.Requester
	pid = ask(t, q, rig.Ask{Op: rig.AskStart, UID: uid.UID}).PID
	ask(t, q, rig.Ask{Op: rig.AskConfirm, UID: uid.UID, Token: uid.Token, Requester: uid.Requester})
	return q, uid, pid
}

func ask(t *testing.T, q *rig.Requester, a rig.Ask) rig.Answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	answer, err := q.Ask(ctx, a)
	if err != nil {
		t.Fatalf("%s: %v", a.Op, err)
	}
	return answer
}

func state(t *testing.T, n *rig.Node, uid uint32, want string) {
	t.Helper()
	eventually(t, fmt.Sprintf("uid %d is %s", uid, want), func(ctx context.Context) error {
		u, err := n.API().UIDs().Get(ctx, uid)
		if err == nil && u.State != want {
			err = fmt.Errorf("it is %s (%s)", u.State, u.Reason)
		}
		return err
	})
}

// TestCluster: three members and three nodes, whose agents see their own processes
// alone; a requester's life; a reboot; a crash of a requester.
func TestCluster(t *testing.T) {
	r := start(t, rig.Options{})
	pool(t, r)
	n1, n2 := r.Nodes()[0], r.Nodes()[1]

	q, uid, pid := run(t, n1)
	if shown, err := n1.API().UIDs().Get(t.Context(), uid.UID); err != nil || !shown.Running || !slices.Equal(shown.Nodes, []string{"n1"}) {
		t.Errorf("uid %d: %+v, %v", uid.UID, shown, err)
	}
	if shown, err := n2.API().UIDs().Get(t.Context(), uid.UID); err != nil || shown.Running {
		t.Errorf("uid %d runs on n2 too: %+v, %v", uid.UID, shown, err)
	}
	ask(t, q, rig.Ask{Op: rig.AskEnd, PID: pid})
	ask(t, q, rig.Ask{Op: rig.AskRelease, UID: uid.UID, Token: uid.Token, Requester: uid.Requester})
	state(t, n2, uid.UID, api.StateFree)
	if _, err := q.Ask(t.Context(), rig.Ask{Op: rig.AskRelease, Key: "none"}); !errors.Is(err, api.ErrNotFound) && !errors.Is(err, api.ErrNotHeld) {
		t.Errorf("the release of a key that is none: %v", err)
	}

	q, uid, _ = run(t, n2)
	if boot := n2.Boot(); boot != 1 {
		t.Errorf("n2 is in boot %d", boot)
	}
	before, err := n1.API().Nodes().Get(t.Context(), "n2")
	if err != nil {
		t.Fatal(err)
	}
	if err := n2.Reboot(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := q.Wait(t.Context()); err == nil || q.Alive() || len(n2.Procs()) > 0 || n2.Boot() != 2 {
		t.Errorf("after the reboot: %v, alive %v, %d processes, boot %d", err, q.Alive(), len(n2.Procs()), n2.Boot())
	}
	if err := r.Working(t.Context()); err != nil {
		t.Fatal(err)
	}
	after, err := n1.API().Nodes().Get(t.Context(), "n2")
	// An agent in a pid namespace adds its number to the machine's boot id.
	machineBoot := func(n api.Node) string { id, _, _ := strings.Cut(n.BootID, "."); return id }
	if err != nil || machineBoot(after) == machineBoot(before) || after.MachineID != before.MachineID {
		t.Errorf("n2 was %+v and is %+v (%v)", before, after, err)
	}
	state(t, n1, uid.UID, api.StateFree)

	// Its process, an orphan then, ends with it.
	q, uid, _ = run(t, n1)
	if err := q.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := q.Ask(t.Context(), rig.Ask{Op: rig.AskEnd, PID: 1}); !errors.Is(err, api.ErrOutcomeUnknown) {
		t.Errorf("a dead requester was asked: %v", err)
	}
	eventually(t, "nothing runs under the uid", func(ctx context.Context) error {
		u, err := n1.API().UIDs().Get(ctx, uid.UID)
		if err == nil && u.Running {
			err = errors.New("it runs")
		}
		return err
	})
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if err := r.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
	if _, err := n1.Requester(t.Context()); err == nil {
		t.Error("a requester was started on a rig that is closed")
	}
}

// TestRunnerKilled: the end of the process that started a rig ends the rig.
func TestRunnerKilled(t *testing.T) {
	bin, dir := binaries(t), scratch(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childVar+"="+dir, "RIG_TEST_BIN="+bin)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 100)
	n, err := io.ReadAtLeast(out, line, 1)
	if got := strings.TrimSpace(string(line[:n])); err != nil || got != "started <nil>" {
		t.Errorf("it said %q, %v", got, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait()
	nothingLeft(t, dir)
}
