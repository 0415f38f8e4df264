package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/cluster/clustertest"
)

// mirror is a Follower that keeps what it was told and checks its order.
type mirror struct {
	t testing.TB

	mu      sync.Mutex // guards the fields below
	changed chan struct{}
	kvs     map[string]cluster.KV
	rev     int64
	fresh   bool
	resets  int
	batches [][]cluster.Event
	stales  []error
	notices int
}

func newMirror(t testing.TB) *mirror { return &mirror{t: t, changed: make(chan struct{})} }

// locked runs f and wakes those who wait.
func (m *mirror) locked(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
	close(m.changed)
	m.changed = make(chan struct{})
}

func (m *mirror) Reset(rev int64, kvs []cluster.KV) {
	m.locked(func() {
		m.kvs, m.rev, m.fresh = map[string]cluster.KV{}, rev, true
		m.resets++
		last := ""
		for _, kv := range kvs {
			if kv.Key <= last || kv.ModRev > rev {
				m.t.Errorf("list at %d has %q of %d after %q", rev, kv.Key, kv.ModRev, last)
			}
			last = kv.Key
			m.kvs[kv.Key] = kv
		}
	})
}

func (m *mirror) Apply(rev int64, events []cluster.Event) {
	m.locked(func() {
		if !m.fresh || len(events) == 0 || events[0].ModRev <= m.rev || events[len(events)-1].ModRev != rev {
			m.t.Errorf("events %v up to %d, after %d, fresh %v", events, rev, m.rev, m.fresh)
		}
		m.rev = rev
		m.batches = append(m.batches, events)
		for _, e := range events {
			if e.Deleted {
				delete(m.kvs, e.Key)
			} else {
				m.kvs[e.Key] = e.KV
			}
		}
	})
}

func (m *mirror) Progress(rev int64) {
	m.locked(func() {
		if !m.fresh || rev < m.rev {
			m.t.Errorf("progress to %d after %d, fresh %v", rev, m.rev, m.fresh)
		}
		m.rev = rev
		m.notices++
	})
}

func (m *mirror) Stale(err error) {
	m.locked(func() {
		if err == nil {
			m.t.Error("stale without a reason")
		}
		m.fresh = false
		m.stales = append(m.stales, err)
	})
}

// wait returns when cond holds, which is called under the lock.
func (m *mirror) wait(what string, cond func() bool) {
	m.t.Helper()
	ctx := testContext(m.t)
	for {
		m.mu.Lock()
		ok, changed := cond(), m.changed
		m.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			m.mu.Lock()
			defer m.mu.Unlock()
			m.t.Fatalf("waiting for %s: at %d, fresh %v, %d resets, %d keys, stale %v", what, m.rev, m.fresh, m.resets, len(m.kvs), m.stales)
		}
	}
}

func (m *mirror) values() map[string]string {
	out := map[string]string{}
	for k, kv := range m.kvs {
		out[k] = string(kv.Value)
	}
	return out
}

// run follows until the end of the test and checks why Follow returned.
func (m *mirror) run(c *cluster.Client, prefix string) (stop func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	why := errors.New("the test is over")
	done := make(chan error, 1)
	go func() { done <- c.Follow(ctx, prefix, m) }()
	stop = sync.OnceFunc(func() {
		cancel(why)
		if err := <-done; !errors.Is(err, why) {
			m.t.Errorf("Follow returned %v, want the cause", err)
		}
	})
	m.t.Cleanup(stop)
	return stop
}

func TestFollowListsInPagesThenApplies(t *testing.T) {
	etcd := clustertest.Start(t)
	c := etcd.Open(t)
	c.SetPage(7)
	want := map[string]string{}
	for i := range 23 {
		k := fmt.Sprintf("/x/%03d", i)
		put(t, c, k, fmt.Sprint(i))
		want[k] = fmt.Sprint(i)
	}
	// The first page ends between a key and one that begins with it.
	put(t, c, "/x/006a", "y")
	want["/x/006a"] = "y"
	listed := put(t, c, "/other", "no")

	m := newMirror(t)
	stop := m.run(c, "/x/")
	m.wait("the list", func() bool { return m.fresh })
	if diff := cmp.Diff(want, m.values()); diff != "" || m.rev < listed {
		t.Errorf("list at %d:\n%s", m.rev, diff)
	}
	// One transaction is one Apply, in the order etcd gives.
	rev := put(t, c, "/x/a", "1", "/x/b", "2")
	if _, err := c.Commit(testContext(t), nil, []clientv3.Op{clientv3.OpDelete("/x/a"), clientv3.OpPut("/other", "x"), clientv3.OpPut("/x/000", "new")}, nil); err != nil {
		t.Fatal(err)
	}
	m.wait("both transactions", func() bool { return m.rev >= rev+1 && len(m.kvs) == 25 })
	want["/x/b"], want["/x/000"] = "2", "new"
	if diff := cmp.Diff(want, m.values()); diff != "" {
		t.Error(diff)
	}
	if len(m.batches) == 2 && (len(m.batches[0]) != 2 || len(m.batches[1]) != 2) {
		t.Errorf("transactions were split: %v", m.batches)
	}
	if m.resets != 1 || len(m.stales) != 0 {
		t.Errorf("%d resets, stale %v", m.resets, m.stales)
	}
	stop()
}

func TestProgressReachesTheCurrentRevision(t *testing.T) {
	c := clustertest.Start(t).Open(t)
	rev := put(t, c, "/x/a", "1")
	a, b := newMirror(t), newMirror(t)
	a.run(c, "/x/")
	a.wait("the list", func() bool { return a.fresh })
	b.run(c, "/y/")
	b.wait("the list", func() bool { return b.fresh })
	for range 3 {
		rev = put(t, c, "/elsewhere", "1")
		if err := c.RequestProgress(testContext(t)); err != nil {
			t.Fatal(err)
		}
		a.wait("progress", func() bool { return a.rev >= rev })
		b.wait("progress", func() bool { return b.rev >= rev })
	}
	if a.resets != 1 || b.resets != 1 {
		t.Errorf("%d and %d resets", a.resets, b.resets)
	}
}

func TestProgressOfAnIdleCluster(t *testing.T) {
	// Attempts so long that Follow does not come to look by itself.
	c := clustertest.Start(t).OpenWith(t, func(cfg *cluster.Config) { cfg.Attempt, cfg.LeaseTTL = 10*time.Second, 30*time.Second })
	m := newMirror(t)
	m.run(c, "/x/")
	m.wait("the list", func() bool { return m.fresh })
	if err := c.RequestProgress(testContext(t)); err != nil {
		t.Fatal(err)
	}
	m.wait("a notice though nothing was ever written", func() bool { return m.notices > 0 })
}

func TestRequestProgressWithoutFollowersDoesNothing(t *testing.T) {
	c := clustertest.Start(t).Open(t)
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	if err := c.RequestProgress(testContext(t)); err != nil {
		t.Error(err)
	}
}

func TestCompactionUnderTheListLeadsToAnother(t *testing.T) {
	c := clustertest.Start(t).Open(t)
	c.SetPage(1)
	for i := range 100 {
		put(t, c, fmt.Sprintf("/x/%d", i), "1")
	}
	// Compacting all the time hits a list of a hundred pages between two of them.
	ctx, cancel := context.WithCancel(testContext(t))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			resp, err := c.Commit(ctx, nil, []clientv3.Op{clientv3.OpPut("/x/a", fmt.Sprint(i))}, nil)
			if err == nil {
				_, _ = c.Txn().Compact(ctx, resp.Header.Revision)
			}
		}
	})
	m := newMirror(t)
	m.run(c, "/x/")
	m.wait("a failed list", func() bool { return len(m.stales) > 0 })
	cancel()
	rev := put(t, c, "/x/end", "1")
	m.wait("the end", func() bool { return m.fresh && m.rev >= rev && m.values()["/x/end"] == "1" })
	if !strings.Contains(m.stales[0].Error(), "compacted") {
		t.Errorf("stale because of %v", m.stales[0])
	}
}

func TestRestartLeadsToResync(t *testing.T) {
	etcd := clustertest.Start(t)
	c := etcd.Open(t)
	put(t, c, "/x/a", "1")
	m := newMirror(t)
	m.run(c, "/x/")
	m.wait("the list", func() bool { return m.fresh })
	etcd.Stop(t)
	m.wait("stale", func() bool { return !m.fresh })
	etcd.Restart(t)
	m.wait("another list", func() bool { return m.fresh && m.resets > 1 })
	rev := put(t, c, "/x/b", "2")
	m.wait("the event", func() bool { return m.rev >= rev && m.values()["/x/b"] == "2" })
}

func TestAnotherClusterInPlaceIsNoticed(t *testing.T) {
	etcd := clustertest.Start(t)
	c := etcd.Open(t)
	put(t, c, "/x/a", "1")
	put(t, c, "/x/b", "1")
	m := newMirror(t)
	m.run(c, "/x/")
	m.wait("the list", func() bool { return len(m.kvs) == 2 })
	// As after a restore of an old snapshot: the revision goes back.
	etcd.Wipe(t)
	m.wait("an empty list", func() bool { return m.fresh && len(m.kvs) == 0 && m.rev == 1 })
	rev := put(t, c, "/x/c", "1")
	m.wait("the event", func() bool { return m.rev >= rev && len(m.kvs) == 1 })
}

func TestQuietFollowerStaysCurrent(t *testing.T) {
	c := clustertest.Start(t).OpenWith(t, func(cfg *cluster.Config) { cfg.Attempt = 50 * time.Millisecond })
	m := newMirror(t)
	m.run(c, "/x/")
	m.wait("the list", func() bool { return m.fresh })
	rev := put(t, c, "/elsewhere", "1")
	m.wait("progress nobody asked for", func() bool { return m.rev >= rev })
	if m.resets != 1 {
		t.Errorf("%d resets, stale %v", m.resets, m.stales)
	}
}

func TestFollowEndsDuringAnOutageAndLeavesNothing(t *testing.T) {
	etcd := clustertest.Start(t)
	before := goleak.IgnoreCurrent()
	c, err := cluster.Open(testContext(t), etcd.Config(), nil)
	if err != nil {
		t.Fatal(err)
	}
	m := newMirror(t)
	stop := m.run(c, "/x/")
	m.wait("the list", func() bool { return m.fresh })
	etcd.Stop(t)
	m.wait("stale", func() bool { return !m.fresh })
	stop()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	goleak.VerifyNone(t, before)
}
