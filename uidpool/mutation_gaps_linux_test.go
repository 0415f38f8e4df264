package uidpool_test

import (
	"context"
	"errors"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/uidpool"
)

// The tests of this file hold guards of the protocol; each is named after its rule.

// TestRule33DeadlinesOnTheBootClock: a hold lasts by the clock that nobody sets.
func TestRule33DeadlinesOnTheBootClock(t *testing.T) {
	p := &uidpool.Prover{}
	over := leases.Requester{Hold: leases.HoldTTL, Deadline: int64(leases.BootTime()) - 1, Until: time.Now().Add(time.Hour)}
	lasts := leases.Requester{Hold: leases.HoldTTL, Deadline: int64(leases.BootTime() + time.Hour), Until: time.Now().Add(-time.Hour)}
	if p.MayStart(1000, over) || !p.MayStart(1000, lasts) {
		t.Error("a hold is read on the wall clock")
	}
}

// TestRule02ChildOfADeadRequester: a hold lasts while a child lives that is not the
// uid yet.
func TestRule02ChildOfADeadRequester(t *testing.T) {
	reader, err := uidpool.NewReader(uidpool.ReaderOptions{AcceptPIDNamespace: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := reader.View(); err != nil {
		t.Skipf("this node cannot prove anything: %v", err)
	}
	since, err := uidpool.NowTicks()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", "sleep 600 & read line")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	ref, err := uidpool.Identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = in.Write([]byte("end\n"))
	_ = cmd.Wait() // the requester is dead, its child is not
	p := uidpool.NewProver(reader)
	r := leases.Requester{Hold: leases.HoldPID, PID: ref.PID, Start: ref.Start, PIDNS: ref.PIDNS, Session: ref.Session, Since: since}
	if !p.MayStart(1910007000, r) {
		t.Error("the hold ended while a child could still become the uid")
	}
	if pid := p.Lingers(1910007000, r); pid == 0 || pid == ref.PID {
		t.Errorf("it lasts for the sake of process %d", pid)
	}
}

// TestRule06LossIsTold: a holder learns that an operator ended its grant, though the
// uid is not free yet.
func TestRule06LossIsTold(t *testing.T) {
	a := site(t, "1910008000", nil)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err := a.Exec(ctx, uidpool.Request{Caller: "unix:0", Pool: "jobs"}, func(ctx context.Context, u *uidpool.LockedUID) error {
		if _, _, err := a.Engine().Release(ctx, leases.Release{Refs: []leases.Ref{u.Claim().Ref}, Token: u.Token(), Whole: true, By: "an operator"}); err != nil {
			return err
		}
		<-ctx.Done()
		return context.Cause(ctx)
	})
	if !errors.Is(err, problem.ErrLockLost) {
		t.Errorf("got %v, want ErrLockLost", err)
	}
}
