package rig_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/test/e2e/robust/rig"
)

// small is one member and one node: whatever is cut off is cut off from all.
func small(t *testing.T) (*rig.Rig, *rig.Member, *rig.Node) {
	r := start(t, rig.Options{Members: 1, Nodes: 1, LeaseTTL: 2 * time.Second})
	return r, r.Members()[0], r.Nodes()[0]
}

func unready(t *testing.T, n *rig.Node) {
	t.Helper()
	eventually(t, "the agent is ready no more", func(ctx context.Context) error {
		st, err := n.API().Status(ctx)
		if err == nil && st.Ready {
			err = errors.New("it is")
		}
		return err
	})
}

// TestNetwork: each disturbance ends the agent's session, and its heal brings it
// back, while the rig reaches etcd and agent all the time.
func TestNetwork(t *testing.T) {
	r, m, n := small(t)
	db, err := r.Client(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	net, here, there := r.Net(), []string{n.Name()}, []string{m.Name()}
	for name, disturb := range map[string]func() (func() error, error){
		"isolated":      func() (func() error, error) { return net.Isolate(n.Name()) },
		"one way":       func() (func() error, error) { return net.Cut(here, there) },
		"other way":     func() (func() error, error) { return net.Cut(there, here) },
		"lossy":         func() (func() error, error) { return net.Lossy(n.Name(), 99) },
		"slow":          func() (func() error, error) { return net.Slow(n.Name(), 50, time.Second) },
		"of the member": func() (func() error, error) { return net.Isolate(m.Name()) },
	} {
		t.Run(name, func(t *testing.T) {
			heal, err := disturb()
			if err != nil {
				t.Fatal(err)
			}
			unready(t, n)
			if _, err := db.Txn().Get(t.Context(), "x"); err != nil {
				t.Errorf("the rig itself is cut off: %v", err)
			}
			if err := heal(); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := r.Working(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	if _, err := net.Isolate("n7"); err == nil {
		t.Error("a machine that is none was isolated")
	}
}

// TestDisk: the agent cannot start on a disk that is full, or read-only, and can
// once it is healed.
func TestDisk(t *testing.T) {
	_, _, n := small(t)
	for name, spoil := range map[string]func() error{"no space": n.DiskFull, "read-only": n.DiskReadOnly} {
		t.Run(name, func(t *testing.T) {
			if err := errors.Join(n.AgentKill(), spoil(), n.AgentStart(t.Context())); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			if err := n.AgentWait(ctx); err == nil || n.AgentAlive() {
				t.Errorf("the agent runs, or ended well: %v", err)
			}
			if err := errors.Join(n.DiskHeal(), n.AgentStart(t.Context()), n.Ready(t.Context())); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestWallClock: the agent's clock moves while it runs, and stays moved.
func TestWallClock(t *testing.T) {
	r, _, n := small(t)
	pool(t, r)
	const jump = 1000 * time.Hour
	if err := n.WallClock(jump); err != nil {
		t.Fatal(err)
	}
	look := func() {
		t.Helper()
		q, uid, _ := run(t, n)
		defer q.Close()
		if off := time.Until(*uid.GrantedAt); off < jump-time.Hour || off > jump+time.Hour {
			t.Errorf("granted at %v: the clock is off by %v", uid.GrantedAt, off)
		}
	}
	look()
	if err := errors.Join(n.AgentKill(), n.AgentStart(t.Context()), n.Ready(t.Context())); err != nil {
		t.Fatal(err)
	}
	look()
}

// TestEtcd: a member dies and comes back, is paused and resumed; history goes; space
// runs out; leases end.
func TestEtcd(t *testing.T) {
	r, m, n := small(t)
	ctx := t.Context()
	db, err := r.Client(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if rev, err := r.Compact(ctx); rev != 0 || err != nil {
		t.Errorf("without a limit it compacted to %d, %v", rev, err)
	}
	put, err := db.Txn().Put(ctx, "x", "1")
	if err != nil {
		t.Fatal(err)
	}
	limit := put.Header.Revision
	r.SetCompactLimit(func() int64 { return limit })
	if rev, err := r.Compact(ctx); rev != limit || err != nil {
		t.Errorf("compacted to %d, %v, want %d", rev, err, limit)
	}
	if _, err := db.Txn().Get(ctx, "x", clientv3.WithRev(limit-1)); err == nil || !strings.Contains(err.Error(), "compacted") {
		t.Errorf("history before %d: %v", limit, err)
	}
	if err := r.RaiseNoSpace(ctx, m); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Txn().Put(ctx, "x", "2"); err == nil || !strings.Contains(err.Error(), "space") {
		t.Errorf("a write without space: %v", err)
	}
	if err := r.EndNoSpace(ctx, m); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Txn().Put(ctx, "x", "3"); err != nil {
		t.Error(err)
	}
	if gone, err := r.RevokeLeases(ctx); gone != 1 || err != nil {
		t.Errorf("%d leases revoked, %v", gone, err)
	}
	if err := m.Pause(); err != nil {
		t.Fatal(err)
	}
	unready(t, n)
	if err := errors.Join(m.Resume(), r.Working(ctx), m.Kill()); err != nil || m.Alive() {
		t.Fatalf("resume and kill: %v, alive %v", err, m.Alive())
	}
	unready(t, n)
	if err := errors.Join(m.Start(ctx), r.Working(ctx)); err != nil {
		t.Error(err)
	}
	if l, err := r.Leader(ctx); l != m || err != nil {
		t.Errorf("leader %v, %v", fmt.Sprint(l), err)
	}
}
