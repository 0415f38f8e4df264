package uidpool

import (
	"context"
	"errors"
	"math"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/idpool/idpool/problem"
)

func TestNames(t *testing.T) {
	boot, err := BootID()
	if err != nil || !bootIDForm.MatchString(boot) {
		t.Errorf("boot id %q, %v", boot, err)
	}
	inode, err := PIDNamespace()
	if err != nil || inode == 0 {
		t.Errorf("pid namespace %d, %v", inode, err)
	}
	machine, err := MachineID()
	if (err == nil) != machineIDForm.MatchString(machine) || err != nil && !errors.Is(err, problem.ErrInvalid) {
		t.Errorf("machine id %q, %v", machine, err)
	}
	for _, text := range []string{"", "uninitialized\n", "00000000000000000000000000000000\n", "3D1219C7C4C5404AAA1F6D2A48ADFDA4", "3d12"} {
		if id, err := parseMachineID(text); err == nil {
			t.Errorf("machine id %q taken as %q", text, id)
		}
		if id, err := parseBootID(text); err == nil {
			t.Errorf("boot id %q taken as %q", text, id)
		}
	}
}

func TestTicks(t *testing.T) {
	before, err := NowTicks()
	if err != nil {
		t.Fatal(err)
	}
	h := startHelper(t, helperTask{Kind: "block"})
	p, err := Identify(h.id(t))
	if err != nil {
		t.Fatal(err)
	}
	after, err := NowTicks()
	if err != nil || p.Start < before || p.Start > after {
		t.Errorf("started at tick %d; want %d to %d, %v", p.Start, before, after, err)
	}
	if at := BootTime(); at <= 0 || uint64(at/(10*time.Millisecond)) < after {
		t.Errorf("boot time %v after tick %d", at, after)
	}
}

func TestAlive(t *testing.T) {
	h := startHelper(t, helperTask{Kind: "block"})
	p, err := Identify(h.id(t))
	if err != nil {
		t.Fatal(err)
	}
	if sid, err := unix.Getsid(p.PID); err != nil || sid != p.Session {
		t.Errorf("session %d; want %d, %v", p.Session, sid, err)
	}
	check := func(what string, p ProcessRef, want bool, doubt bool) {
		t.Helper()
		alive, err := p.Alive()
		if alive != want || doubt != (err != nil) || doubt && !errors.Is(err, problem.ErrNoProof) {
			t.Errorf("%s: alive %v, %v; want %v, doubt: %v", what, alive, err, want, doubt)
		}
	}
	check("running", p, true, false)
	again, other := p, p
	again.Start++
	check("pid given again", again, false, false)
	other.PIDNS++
	check("another pid namespace", other, true, true)
	check("no pid", ProcessRef{PIDNS: p.PIDNS}, true, true)
	// It becomes a zombie, since nobody waits for it yet.
	_ = h.stdin.Close()
	if err := WaitExit(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	check("zombie", p, false, false)
	if _, err := Identify(p.PID); !errors.Is(err, problem.ErrNotFound) {
		t.Errorf("identify a zombie: %v", err)
	}
	_ = h.cmd.Wait()
	check("reaped", p, false, false)
	if err := WaitExit(t.Context(), p); err != nil {
		t.Errorf("wait for what is gone: %v", err)
	}
}

// TestAliveWithoutLeader: the first thread of a process may exit before others.
func TestAliveWithoutLeader(t *testing.T) {
	needRoot(t)
	h := startHelper(t, helperTask{Kind: "leader", UIDs: allFour(3_900_007_000)})
	p, err := Identify(h.id(t))
	if err != nil {
		t.Fatal(err)
	}
	for state := byte('?'); state != 'Z'; {
		st, err := readStat(p.PID)
		if err != nil {
			t.Fatal(err)
		}
		state = st.state
	}
	if alive, err := p.Alive(); !alive || err != nil {
		t.Errorf("alive %v, %v", alive, err)
	}
	h.end()
	if alive, err := p.Alive(); alive || err != nil {
		t.Errorf("after its end: alive %v, %v", alive, err)
	}
}

func TestIdentifyRefuses(t *testing.T) {
	for _, pid := range []int{0, -1, math.MinInt} {
		if _, err := Identify(pid); !errors.Is(err, problem.ErrInvalid) {
			t.Errorf("%d: %v", pid, err)
		}
	}
	if _, err := Identify(1 << 30); !errors.Is(err, problem.ErrNotFound) && !errors.Is(err, problem.ErrInvalid) {
		t.Errorf("no such pid: %v", err)
	}
}

func TestWaitExitCancelled(t *testing.T) {
	h := startHelper(t, helperTask{Kind: "block"})
	p, err := Identify(h.id(t))
	if err != nil {
		t.Fatal(err)
	}
	why := errors.New("nobody asks any more")
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error)
	go func() { done <- WaitExit(ctx, p) }()
	cancel(why)
	if err := <-done; !errors.Is(err, why) {
		t.Errorf("%v; want the cause", err)
	}
	go func() { done <- WaitExit(t.Context(), p) }()
	_ = h.stdin.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestSessionYounger: a requester forks and dies; its child is found by the
// session until it ends.
func TestSessionYounger(t *testing.T) {
	needView(t)
	since, err := NowTicks()
	if err != nil {
		t.Fatal(err)
	}
	childInput, keep, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer keep.Close()
	h := startHelper(t, helperTask{Kind: "orphan"}, func(cmd *exec.Cmd) {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		cmd.ExtraFiles = []*os.File{childInput}
	})
	childInput.Close()
	p, err := Identify(h.cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	child, err := Identify(h.id(t))
	if err != nil || child.Session != p.Session || p.Session != p.PID {
		t.Fatalf("child %+v of %+v, %v", child, p, err)
	}
	check := func(what string, p ProcessRef, since uint64, want bool) {
		t.Helper()
		if got, err := SessionYounger(p, since, None); err != nil || got != want {
			t.Errorf("%s: %v, %v; want %v", what, got, err, want)
		}
	}
	check("both run", p, since, true)
	check("the child began earlier", p, child.Start+1, false)
	check("the child itself does not count", ProcessRef{PID: child.PID, Start: child.Start, PIDNS: p.PIDNS, Session: p.Session}, max(p.Start, child.Start)+1, false)
	h.end()
	check("requester dead", p, since, true)
	if got, err := SessionYounger(ProcessRef{PID: p.PID, PIDNS: p.PIDNS + 1, Session: p.Session}, since, None); !got || !errors.Is(err, problem.ErrNoProof) {
		t.Errorf("another pid namespace: %v, %v", got, err)
	}
	if got, err := SessionYounger(ProcessRef{PID: p.PID, PIDNS: p.PIDNS}, since, None); !got || !errors.Is(err, problem.ErrNoProof) {
		t.Errorf("no session: %v, %v", got, err)
	}
	keep.Close()
	if err := WaitExit(t.Context(), child); err != nil {
		t.Fatal(err)
	}
	check("child dead", p, since, false)
	if text := p.String(); !strings.HasPrefix(text, "pid ") {
		t.Error(text)
	}
}

// TestSessionYoungerExcept: a child that has become the uid wholly is not one
// that may still become it; one that has it in part is.
func TestSessionYoungerExcept(t *testing.T) {
	needRoot(t)
	needView(t)
	const u = 3_900_008_000
	for _, row := range []struct {
		name string
		uids [4]uint32
		want bool
	}{{"wholly", allFour(u), false}, {"in part", effective(u), true}} {
		since, err := NowTicks()
		if err != nil {
			t.Fatal(err)
		}
		h := startHelper(t, helperTask{Kind: "process", UIDs: row.uids}, func(cmd *exec.Cmd) {
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		})
		p, err := Identify(h.cmd.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		for except, want := range map[UID]bool{None: true, u: row.want, u + 1: true} {
			if got, err := SessionYounger(p, since, except); err != nil || got != want {
				t.Errorf("%s, except %d: %v, %v; want %v", row.name, except, got, err, want)
			}
		}
	}
}
