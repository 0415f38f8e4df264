package fault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/test/e2e/robust/rig"
)

// longVar asks for the tests of every fault, which take minutes.
const longVar = "ROBUST_LONG"

func start(t *testing.T) *rig.Rig {
	t.Helper()
	if testing.Short() {
		t.Skip("starts real processes; left out with -short")
	}
	if err := rig.Available(); err != nil {
		t.Skip(err)
	}
	bin, err := rig.Binaries(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "rig")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	var log bytes.Buffer
	r, err := rig.Start(t.Context(), rig.Options{Dir: dir, Bin: bin, LeaseTTL: 3 * time.Second, Log: &log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(log.String())
			for _, n := range r.Nodes() {
				text, _ := os.ReadFile(n.LogPath())
				t.Logf("log of %s: %s", n.Name(), text[max(0, len(text)-3000):])
			}
		}
	})
	first := 1_500_000_000 + os.Getpid()%100_000*1000
	if _, err := r.Nodes()[0].API().Pools().Put(t.Context(), api.Pool{Name: "jobs", Ranges: fmt.Sprintf("%d-%d", first, first+99)}, api.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	return r
}

// life is a uid's life through a requester of the node.
func life(ctx context.Context, n *rig.Node) error {
	q, err := n.Requester(ctx)
	if err != nil {
		return err
	}
	defer q.Close()
	a, err := q.Ask(ctx, rig.Ask{Op: rig.AskRequest, Request: &api.UIDRequest{Pool: "jobs", Hold: api.Hold{Kind: api.HoldPID}}})
	if err != nil {
		return err
	}
	uid, token, part := a.Grant.Items[0].UID, a.Grant.Token, a.Grant.Requester
	p, err := q.Ask(ctx, rig.Ask{Op: rig.AskStart, UID: uid})
	if err != nil {
		return err
	}
	for _, next := range []rig.Ask{
		{Op: rig.AskConfirm, UID: uid, Token: token, Requester: part},
		{Op: rig.AskEnd, PID: p.PID},
		{Op: rig.AskRelease, UID: uid, Token: token, Requester: part},
	} {
		if _, err := q.Ask(ctx, next); err != nil {
			return fmt.Errorf("%s: %w", next.Op, err)
		}
	}
	return nil
}

// lives waits until uids live on every node.
func lives(t *testing.T, r *rig.Rig) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	for _, n := range r.Nodes() {
		g.Go(func() error {
			err := eventually(ctx, func(ctx context.Context) error {
				once, cancel := context.WithTimeout(ctx, 10*time.Second)
				defer cancel()
				return life(once, n)
			})
			if err != nil {
				err = fmt.Errorf("%s: %w", n.Name(), err)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatalf("no uid lives: %v", err)
	}
}

// traffic lets uids come and go until stop is called.
func traffic(ctx context.Context, r *rig.Rig) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var g errgroup.Group
	for _, n := range r.Nodes() {
		g.Go(func() error {
			for ctx.Err() == nil {
				_ = life(ctx, n)
			}
			return nil
		})
	}
	return func() { cancel(); _ = g.Wait() }
}

// TestEachFault injects faults one after the other into one cluster, heals each and
// uses the cluster: the quick ones, or all.
func TestEachFault(t *testing.T) {
	r := start(t)
	db, err := r.Client(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	r.SetCompactLimit(func() int64 {
		now, err := db.Txn().Get(t.Context(), "x")
		if err != nil {
			return 0
		}
		return now.Header.Revision
	})
	faults := Quick()
	if os.Getenv(longVar) != "" {
		faults = All()
	}
	lives(t, r)
	rnd := rand.New(rand.NewPCG(1, 1))
	for _, f := range faults {
		t.Run(f.Name, func(t *testing.T) {
			if err := f.Available(r); err != nil {
				t.Skip(err)
			}
			for _, n := range r.Nodes() {
				if len(n.Procs()) > 0 {
					continue
				}
				if _, err := n.Requester(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			stop := func() {}
			if f.Name == "restore" { // it wants grants to forget
				stop = traffic(ctx, r)
			}
			detail, heal, err := f.Inject(ctx, r, rnd)
			stop()
			if err != nil {
				t.Fatal(err)
			}
			_ = sleep(ctx, time.Duration(rnd.IntN(3))*time.Second)
			if err := heal(ctx); err != nil {
				t.Fatalf("%s: %v", detail, err)
			}
			lives(t, r)
		})
		if t.Failed() {
			t.Fatal("the cluster may be another than it was")
		}
	}
}

// TestReserve: faults of the same node wait for each other.
func TestReserve(t *testing.T) {
	if os.Getenv(longVar) == "" {
		t.Skip("a minute; set " + longVar)
	}
	r := start(t)
	g, ctx := errgroup.WithContext(t.Context())
	for stream := range uint64(3) {
		g.Go(func() error {
			rnd := rand.New(rand.NewPCG(2, stream))
			for _, name := range []string{"agent-kill", "node-cloned", "reboot", "cut-agent", "leader-move"} {
				i := slices.IndexFunc(All(), func(f Fault) bool { return f.Name == name })
				detail, heal, err := All()[i].Inject(ctx, r, rnd)
				if err == nil {
					err = heal(ctx)
				}
				if err != nil {
					return fmt.Errorf("%s (%s): %w", name, detail, err)
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	lives(t, r)
}

// TestNames: the faults' names are unique and stable ones, and each says what it does.
func TestNames(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range All() {
		if f.Name == "" || f.About == "" || f.Available == nil || f.Inject == nil || seen[f.Name] {
			t.Errorf("fault %q is incomplete or not the only one of its name", f.Name)
		}
		seen[f.Name] = true
	}
	if len(Quick()) != 7 || len(seen) < 32 {
		t.Errorf("%d quick faults of %d", len(Quick()), len(seen))
	}
}

// TestInflict: what began badly is ended, and gives its node back.
func TestInflict(t *testing.T) {
	r := start(t)
	ended := false
	_, err := inflict(t.Context(), r, []string{"n1"},
		func(context.Context) error { return errors.New("no") },
		func(context.Context) error { ended = true; return nil })
	if err == nil || !ended {
		t.Errorf("begun in vain: %v, ended %v", err, ended)
	}
	free, err := r.Reserve(t.Context(), "n1", "m1", "n1")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := r.Reserve(ctx, "m2", "n1"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("n1 was reserved twice: %v", err)
	}
	free()
	free, err = r.Reserve(t.Context(), "m2", "n1")
	if err != nil {
		t.Fatal(err)
	}
	free()
}
