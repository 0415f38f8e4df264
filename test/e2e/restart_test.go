package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/idset"
)

// activated starts the agent as systemd does: its socket is fd 3, ours and open
// across restarts. env sets more of its environment.
func (n *node) activated(l *net.UnixListener, args []string, env ...string) {
	n.w.t.Helper()
	f, err := l.File()
	if err != nil {
		n.w.t.Fatal(err)
	}
	defer f.Close()
	argv := append([]string{"-c", `export LISTEN_PID=$$; exec "$@"`, "sh", filepath.Join(bin, "poolagent"), "--node", n.name,
		"--endpoints", strings.Join(n.w.etcd.Endpoints(), ","), "--data", filepath.Join(n.w.dir, n.name), "--socket", n.socket, "--accept-pid-namespace"}, args...)
	n.cmd = exec.Command("/bin/sh", argv...)
	n.cmd.Env = append(append(os.Environ(), "LISTEN_FDS=1", "LISTEN_FDNAMES=agent"), env...)
	n.cmd.ExtraFiles = []*os.File{f}
	n.cmd.Stdout, n.cmd.Stderr = n.log, n.log
	if err := n.cmd.Start(); err != nil {
		n.w.t.Fatal(err)
	}
	n.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) { _ = cmd.Wait(); close(exited) }(n.cmd, n.exited)
}

// listen opens the node's socket, as the socket unit does.
func (n *node) listen() *net.UnixListener {
	n.w.t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: n.socket})
	if err != nil {
		n.w.t.Fatal(err)
	}
	n.w.t.Cleanup(func() { _ = l.Close() })
	return l
}

// terminate ends the agent with SIGTERM and wants exit code 0.
func (n *node) terminate() {
	n.w.t.Helper()
	_ = n.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-n.exited:
	case <-time.After(time.Minute):
		n.w.t.Fatalf("agent %s does not stop", n.name)
	}
	if code := n.cmd.ProcessState.ExitCode(); code != 0 {
		n.w.t.Fatalf("agent %s stopped with %d", n.name, code)
	}
}

// Requests come at 200 a second: each of the clients asks for a uid and gives it back
// five times a second.
const (
	loadClients = 20
	loadEvery   = 200 * time.Millisecond
)

// load asks for uids and gives them back until ctx ends.
type load struct {
	done    atomic.Int64
	longest atomic.Int64 // of one call, in nanoseconds
	mu      sync.Mutex   // guards failed
	failed  []error
}

func (l *load) run(ctx context.Context, n *node, who int) {
	l.runAt(ctx, n, who, "p", loadEvery)
}

// runAt is run on a pool, at another pace.
func (l *load) runAt(ctx context.Context, n *node, who int, pool string, every time.Duration) {
	client := api.New(api.Options{Agent: "unix://" + n.socket, Retry: 5 * time.Second})
	defer client.Close()
	pace := time.NewTicker(every)
	defer pace.Stop()
	for i := 0; ctx.Err() == nil; i++ {
		select {
		case <-pace.C:
		case <-ctx.Done():
			return
		}
		key := fmt.Sprintf("w%d-%d", who, i)
		began := time.Now()
		_, err := client.Grant(context.Background(), api.UIDRequest{Pool: pool, Key: key, Wait: 5 * time.Second})
		if err == nil {
			_, err = client.UIDs().ReleaseKey(context.Background(), key)
		}
		if took := int64(time.Since(began)); took > l.longest.Load() {
			l.longest.Store(took)
		}
		if err != nil {
			l.mu.Lock()
			l.failed = append(l.failed, fmt.Errorf("%s: %w", key, err))
			l.mu.Unlock()
			return
		}
		l.done.Add(1)
	}
}

// goesOn waits until more uids were granted and released, and none in vain.
func (l *load) goesOn(w *world, more int64) {
	w.t.Helper()
	from := l.done.Load()
	w.eventually("the load goes on", time.Minute, func(context.Context) error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if len(l.failed) == 0 && l.done.Load() < from+more {
			return errors.New("it stands still")
		}
		return errors.Join(l.failed...)
	})
}

// TestRollingRestart: three agents are restarted one after the other, as an upgrade
// does, while programs ask all of them; no request fails, and no grant is lost or
// changed.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	short := []string{"--lease-ttl", "20s", "--scan-every", "300ms"}
	var nodes []*node
	var sockets []*net.UnixListener
	for i := range 3 {
		n := w.node(fmt.Sprintf("n%d", i+1))
		sockets = append(sockets, n.listen())
		n.activated(sockets[i], short)
		nodes = append(nodes, n)
	}
	var kept []api.Grant
	for i, n := range nodes {
		n.ready()
		if i == 0 {
			n.must("uid", "pool", "set", "p", apart(6, 40))
			n.must("uid", "pool", "set", "held", apart(7, 10))
		}
		if i == 2 {
			continue // nothing keeps this one: it leaves, and registers again
		}
		g, err := n.client.Grant(t.Context(), api.UIDRequest{Pool: "held", Key: "kept-" + n.name, Count: 2, Hold: api.Hold{Kind: api.HoldTTL, TTL: "1h"}})
		if err != nil {
			t.Fatal(err)
		}
		kept = append(kept, g)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	loads := make([]load, len(nodes))
	var all sync.WaitGroup
	for i, n := range nodes {
		for who := range 2 {
			all.Go(func() { loads[i].runAt(ctx, n, 10*i+who, "p", loadEvery) })
		}
	}
	progress := func() {
		for i := range loads {
			loads[i].goesOn(w, 5)
		}
	}
	progress()
	for i, n := range nodes {
		n.terminate()
		n.activated(sockets[i], short)
		progress()
	}
	stop()
	all.Wait()
	for i := range loads {
		t.Logf("%s: %d uids were granted and released; the longest pair of calls took %v", nodes[i].name, loads[i].done.Load(), time.Duration(loads[i].longest.Load()))
		if len(loads[i].failed) > 0 {
			t.Errorf("requests of %s failed: %v", nodes[i].name, errors.Join(loads[i].failed...))
		}
	}
	for i, g := range kept {
		for _, u := range g.Items {
			now, err := nodes[i].client.UIDs().Get(t.Context(), u.UID)
			if err != nil || now.State != api.StateLocked || now.Token != g.Token || !now.GrantedAt.Equal(*u.GrantedAt) {
				t.Errorf("uid %d after the restarts: %+v, %v", u.UID, now, err)
			}
		}
	}
	if found, err := nodes[0].client.Check(t.Context()); err != nil || len(found) > 0 {
		t.Errorf("check: %+v, %v", found, err)
	}
}

// TestRestartUnderLoad: an agent that is restarted on a socket that stays open loses
// no lock, and fails no request that may wait.
func TestRestartUnderLoad(t *testing.T) {
	w := newWorld(t)
	n := w.node("n1")
	l := n.listen()
	short := []string{"--lease-ttl", "20s", "--scan-every", "300ms"}
	n.activated(l, short)
	n.ready()
	n.must("uid", "pool", "set", "p", ownRange(300))
	kept, err := n.client.Grant(t.Context(), api.UIDRequest{Pool: "p", Key: "kept", Count: 8})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var work load
	var all sync.WaitGroup
	began := time.Now()
	for who := range loadClients {
		all.Go(func() { work.run(ctx, n, who) })
	}
	progress := func() { work.goesOn(w, 200) }
	progress()
	for range 3 {
		n.terminate()
		if left := w.keys("locks/uid/"); len(left) < 8 {
			t.Errorf("%d locks stand while the agent is stopped", len(left))
		}
		if claims := w.keys("claims/uid/"); len(claims) < 8 {
			t.Errorf("%d claims are left while the agent is stopped", len(claims))
		}
		n.activated(l, short)
		progress()
	}
	stop()
	all.Wait()
	t.Logf("%d uids were granted and released in %v, %.0f requests/s; the longest pair of calls took %v", work.done.Load(), time.Since(began).Round(time.Second),
		2*float64(work.done.Load())/time.Since(began).Seconds(), time.Duration(work.longest.Load()))
	if len(work.failed) > 0 {
		t.Errorf("requests failed: %v", errors.Join(work.failed...))
	}
	for _, u := range kept.Items {
		now, err := n.client.UIDs().Get(t.Context(), u.UID)
		if err != nil || now.State != api.StateLocked || now.Token != kept.Token || !now.GrantedAt.Equal(*u.GrantedAt) {
			t.Errorf("uid %d after the restarts: %+v, %v", u.UID, now, err)
		}
	}
	w.eventually("the locks are back", 30*time.Second, func(context.Context) error {
		var have idset.Set
		for key := range w.keys("locks/uid/") {
			var id uint32
			if _, err := fmt.Sscanf(key[strings.LastIndexByte(key, '/')+1:], "%d", &id); err == nil {
				have.Insert(id)
			}
		}
		for _, u := range kept.Items {
			if !have.Contains(u.UID) {
				return fmt.Errorf("uid %d has no lock", u.UID)
			}
		}
		return nil
	})
}
