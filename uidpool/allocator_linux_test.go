package uidpool_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/idpool/idpool/cluster/clustertest"
	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/uidpool"
)

// site is one node's allocator on a real etcd, with the real /proc.
func site(t *testing.T, ranges string, policy func(*leases.Policy)) *uidpool.Allocator {
	t.Helper()
	etcd := clustertest.Start(t)
	client := etcd.Open(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	if _, _, err := client.EnsureMeta(ctx); err != nil {
		t.Fatal(err)
	}
	boot, err := uidpool.BootID()
	if err != nil {
		t.Fatal(err)
	}
	ns, err := uidpool.PIDNamespace()
	if err != nil {
		t.Fatal(err)
	}
	home, err := leases.OpenHome(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	reader, err := uidpool.NewReader(uidpool.ReaderOptions{AcceptPIDNamespace: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := reader.View(); err != nil {
		t.Skipf("this node cannot prove anything: %v", err)
	}
	prover := uidpool.NewProver(reader)
	engine := leases.New(leases.Options{
		Client: client, Home: home, Prover: prover, Log: zap.NewNop(), ScanEvery: 200 * time.Millisecond,
		Identity: leases.Identity{Node: "n1", Role: leases.RoleNode, Machine: "m1", Boot: boot, PIDNS: ns, PID: os.Getpid()},
	})
	run, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- engine.Run(run) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("engine: %v", err)
		}
	})
	select {
	case <-engine.Ready():
	case <-ctx.Done():
		t.Fatal("the engine is not ready")
	}
	set, err := idset.Parse(ranges)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = engine.SetPool(ctx, "jobs", false, func(p *leases.Pool, _ bool) error {
		p.Ranges = set
		if policy != nil {
			policy(&p.Policy)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return uidpool.NewAllocator(engine, prover)
}

func becomes(t *testing.T, a *uidpool.Allocator, uid uidpool.UID, want leases.State) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	last := leases.Free
	err := a.Engine().WaitFor(ctx, leases.Ref{Space: "uid", ID: uint32(uid)}, func(c *leases.Claim) bool {
		last = leases.Free
		if c != nil {
			last = c.State
		}
		return last == want
	})
	if err != nil {
		t.Fatalf("uid %v is %v, want %v", uid, last, want)
	}
}

// under starts a process under the uid.
func under(t *testing.T, uid uidpool.UID) *exec.Cmd {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can start a process under another uid")
	}
	cmd := exec.Command("sleep", "600")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL, Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(cmd) })
	return cmd
}

func end(cmd *exec.Cmd) {
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

// TestLife is Ganeti's order: request, start, unlock, release; with proof between
// the release and the next grant.
func TestLife(t *testing.T) {
	a := site(t, "1910000000", nil)
	ctx := t.Context()
	locked, _, err := a.Request(ctx, uidpool.Request{Caller: "unix:0", Pool: "jobs"})
	if err != nil {
		t.Fatal(err)
	}
	u := locked[0]
	if u.UID() != 1910000000 || u.String() != "1910000000" {
		t.Fatalf("got %v", u)
	}
	if err := u.Confirm(ctx); !errors.Is(err, problem.ErrNotRunning) {
		t.Fatalf("confirm with nothing running: %v", err)
	}
	p := under(t, u.UID())
	if err := u.Confirm(ctx); err != nil {
		t.Fatal(err)
	}
	if err := u.Confirm(ctx); err != nil { // Unlock twice is a no-op
		t.Fatal(err)
	}
	if err := u.Release(ctx); err != nil {
		t.Fatal(err)
	}
	becomes(t, a, u.UID(), leases.Quarantined)
	if _, _, err := a.Request(ctx, uidpool.Request{Caller: "unix:0", Pool: "jobs"}); !errors.Is(err, problem.ErrExhausted) {
		t.Fatalf("a request while the process runs: %v", err)
	}
	end(p)
	again, _, err := a.Request(ctx, uidpool.Request{Caller: "unix:0", Pool: "jobs", Wait: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if err := u.Release(ctx); err != nil { // late: it must not touch the new grant
		t.Fatal(err)
	}
	becomes(t, a, again[0].UID(), leases.Locked)
}

// TestTakesBackWhatDied: Ganeti hands out a uid whose process is gone when no
// other is left, released or not.
func TestTakesBackWhatDied(t *testing.T) {
	a := site(t, "1910001000-1910001001", nil)
	ctx := t.Context()
	locked, _, err := a.Request(ctx, uidpool.Request{Caller: "unix:0", Pool: "jobs", Count: 2, Hold: uidpool.Hold{TTL: time.Second}})
	if err != nil {
		t.Fatal(err)
	}
	runs, dies := under(t, locked[0].UID()), under(t, locked[1].UID())
	for _, u := range locked {
		if err := u.Confirm(ctx); err != nil {
			t.Fatal(err)
		}
	}
	_ = runs
	end(dies)
	becomes(t, a, locked[1].UID(), leases.Idle)
	if _, _, err := a.Request(ctx, uidpool.Request{Caller: "unix:0", Pool: "jobs"}); !errors.Is(err, problem.ErrExhausted) {
		t.Fatalf("one of the group still runs, so none may be taken back: %v", err)
	}
	end(runs)
	becomes(t, a, locked[0].UID(), leases.Idle)
	got, _, err := a.Request(ctx, uidpool.Request{Caller: "unix:1", Pool: "jobs", Wait: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if got[0].UID() != locked[0].UID() && got[0].UID() != locked[1].UID() {
		t.Errorf("got %v", got[0])
	}
}

func TestExec(t *testing.T) {
	a := site(t, "1910002000-1910002009", nil)
	ctx := t.Context()
	boom := errors.New("boom")
	var uid uidpool.UID
	err := a.Exec(ctx, uidpool.Request{Caller: "unix:0", Pool: "jobs"}, func(_ context.Context, u *uidpool.LockedUID) error {
		uid = u.UID()
		return boom
	})
	if !errors.Is(err, boom) {
		t.Fatalf("the failure is passed on; got %v", err)
	}
	becomes(t, a, uid, leases.Free)

	func() {
		defer func() {
			if recover() != "panic" {
				t.Error("the panic is passed on")
			}
		}()
		_ = a.Exec(ctx, uidpool.Request{Caller: "unix:0", Pool: "jobs"}, func(_ context.Context, u *uidpool.LockedUID) error {
			uid = u.UID()
			panic("panic")
		})
	}()
	becomes(t, a, uid, leases.Free)

	var kept *uidpool.LockedUID
	err = a.Exec(ctx, uidpool.Request{Caller: "unix:0", Pool: "jobs"}, func(_ context.Context, u *uidpool.LockedUID) error {
		kept = u
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	becomes(t, a, kept.UID(), leases.Used)
	if err := kept.Release(ctx); err != nil {
		t.Fatal(err)
	}
	becomes(t, a, kept.UID(), leases.Free)
}

// TestExecLearnsOfItsLoss: an operator's release cancels the function's context.
func TestExecLearnsOfItsLoss(t *testing.T) {
	a := site(t, "1910003000", nil)
	err := a.Exec(t.Context(), uidpool.Request{Caller: "unix:0", Pool: "jobs"}, func(ctx context.Context, u *uidpool.LockedUID) error {
		if _, _, err := a.Engine().Release(ctx, leases.Release{Refs: []leases.Ref{u.Claim().Ref}, Token: u.Token(), Whole: true, By: "an operator"}); err != nil {
			return err
		}
		<-ctx.Done()
		return context.Cause(ctx)
	})
	if !errors.Is(err, problem.ErrLockLost) {
		t.Fatalf("got %v, want ErrLockLost", err)
	}
	becomes(t, a, 1910003000, leases.Free)
}

// TestForeign: what runs without a grant is never handed out, and written down.
func TestForeign(t *testing.T) {
	a := site(t, "1910004000-1910004001", nil)
	p := under(t, 1910004000)
	becomes(t, a, 1910004000, leases.Quarantined)
	locked, _, err := a.Request(t.Context(), uidpool.Request{Caller: "unix:0", Pool: "jobs"})
	if err != nil || locked[0].UID() != 1910004001 {
		t.Fatalf("got %v, %v; want the other uid", locked, err)
	}
	if _, _, err := a.Request(t.Context(), uidpool.Request{Caller: "unix:0", Pool: "jobs"}); !errors.Is(err, problem.ErrExhausted) {
		t.Fatalf("got %v", err)
	}
	end(p)
	becomes(t, a, 1910004000, leases.Free)
}

// TestHoldOfAProcess: the requester dies; what it left running keeps the uid.
func TestHoldOfAProcess(t *testing.T) {
	a := site(t, "1910005000-1910005001", nil)
	ctx := t.Context()
	holder := func() *exec.Cmd {
		cmd := exec.Command("sleep", "600")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { end(cmd) })
		return cmd
	}
	h1, h2 := holder(), holder()
	first, _, err := a.Request(ctx, uidpool.Request{Caller: "unix:0", Pool: "jobs", Hold: uidpool.Hold{PID: h1.Process.Pid}})
	if err != nil {
		t.Fatal(err)
	}
	end(h1)
	becomes(t, a, first[0].UID(), leases.Free)

	second, _, err := a.Request(ctx, uidpool.Request{Caller: "unix:0", Pool: "jobs", Hold: uidpool.Hold{PID: h2.Process.Pid}})
	if err != nil {
		t.Fatal(err)
	}
	p := under(t, second[0].UID())
	end(h2)
	becomes(t, a, second[0].UID(), leases.Used)
	end(p)
	becomes(t, a, second[0].UID(), leases.Idle)
}

// TestConcurrentRequests: as many as the pool has, all different.
func TestConcurrentRequests(t *testing.T) {
	a := site(t, "1910006000-1910006199", nil)
	var mu sync.Mutex
	got := map[uidpool.UID]int{}
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			locked, _, err := a.Request(t.Context(), uidpool.Request{Caller: "unix:0", Pool: "jobs"})
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
				return
			}
			got[locked[0].UID()]++
		})
	}
	wg.Wait()
	if len(got) != 200 {
		t.Errorf("%d distinct uids, want 200", len(got))
	}
}
