package vlan_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/cluster/embed"
	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/seam"
	"github.com/idpool/idpool/seam/fault"
	"github.com/idpool/idpool/vlan"
)

// limit bounds every wait of a test.
const limit = 30 * time.Second

// shared is one etcd for all tests of the package; each has a root of its own.
var (
	shared  *embed.Server
	data    string // etcd's
	started sync.Once
	roots   atomic.Int64
)

func TestMain(m *testing.M) {
	flag.Parse()
	_ = flag.Set("test.parallel", "8") // they wait more than they compute
	code := m.Run()
	if shared != nil {
		_ = shared.Kill()
		_ = os.RemoveAll(data)
	}
	os.Exit(code)
}

func etcd(t testing.TB) *embed.Server {
	t.Helper()
	started.Do(func() {
		var err error
		if data, err = os.MkdirTemp("", "idpool-vlan-"); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if shared, err = embed.Start(ctx, embed.Config{Dir: data, Fast: true}, nil); err != nil {
			t.Fatal(err)
		}
	})
	if shared == nil {
		t.Fatal("no etcd")
	}
	return shared
}

// world is one cluster of idpool under a root of its own. At the end of its test
// it is judged.
type world struct {
	t      *testing.T
	config cluster.Config
	client *cluster.Client
	keys   cluster.Keys
	files  map[string]string // pool files by inventory
	over   chan struct{}     // closed at the end: the dead may go
	inj    *fault.Injector   // of the nodes that are started from now on, if not nil
}

func newWorld(t *testing.T) *world {
	t.Helper()
	cfg := cluster.DefaultConfig()
	cfg.Endpoints, cfg.Root = etcd(t).Endpoints(), fmt.Sprintf("/v%d/", roots.Add(1))
	w := &world{t: t, config: cfg, files: map[string]string{}, over: make(chan struct{})}
	w.client = w.open(nil)
	w.keys = w.client.Keys()
	t.Cleanup(w.judge)
	if _, _, err := w.client.EnsureMeta(w.ctx()); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) open(s seam.Seam) *cluster.Client {
	w.t.Helper()
	cfg := w.config
	cfg.Seam = s
	c, err := cluster.Open(context.Background(), cfg, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = c.Close() })
	return c
}

func (w *world) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	w.t.Cleanup(cancel)
	return ctx
}

// machine is a simulated node: its boot, and which processes live.
type machine struct {
	mu   sync.Mutex // guards the fields below
	id   string
	boot string
	live map[int]bool
}

func (m *machine) InUse(context.Context, time.Duration) (idset.Set, error) { return idset.Set{}, nil }
func (m *machine) Suspect(uint32) bool                                     { return false }
func (m *machine) MayStart(_ uint32, r leases.Requester) bool              { return m.Alive(r) }

func (m *machine) Alive(r leases.Requester) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.live[r.PID]
}

// born starts a process; die ends it.
func (m *machine) born(pid int) *leases.Requester {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.live[pid] = true
	return &leases.Requester{ID: fmt.Sprint("r", pid), Hold: leases.HoldPID, PID: pid}
}

func (m *machine) die(pid int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.live, pid)
}

// agent is a node's engine and allocator.
type agent struct {
	*vlan.Allocator
	w      *world
	engine *leases.Allocator
	m      *machine
	home   string
	client *cluster.Client
	points sync.Map // fault point: func() that runs there
	dead   atomic.Bool
	life   context.Context // ends with the agent
	cancel context.CancelFunc
	done   chan struct{}
}

// ctx is a client's, who is told when the agent dies.
func (a *agent) ctx() context.Context {
	ctx, cancel := context.WithTimeout(a.life, limit)
	a.w.t.Cleanup(cancel)
	return ctx
}

// node starts a node with a machine of its own. change edits its options.
func (w *world) node(name string, change ...func(*vlan.Options)) *agent {
	w.t.Helper()
	return w.spawn(name, w.t.TempDir(), &machine{id: "machine-" + name, boot: "boot-" + name + "-1", live: map[int]bool{}}, change...)
}

func (w *world) spawn(name, home string, m *machine, change ...func(*vlan.Options)) *agent {
	w.t.Helper()
	var s seam.Seam
	if w.inj != nil {
		s = w.inj.Seam
	}
	h, err := leases.OpenHome(home, s)
	if err != nil {
		w.t.Fatal(err)
	}
	a := &agent{w: w, m: m, home: home, client: w.open(s), done: make(chan struct{})}
	points := fault.At(a.fault)
	a.engine = leases.New(leases.Options{
		Client: a.client, Home: h, Prover: m, ScanEvery: time.Second,
		Identity: leases.Identity{Node: name, Role: leases.RoleNode, Machine: m.id, Boot: m.boot, PIDNS: 1, Version: "test", PID: 1},
		Seam: func(point string, do func() error) error {
			return points.Do(point, func() error { return s.Do(point, do) })
		},
	})
	o := vlan.Options{Engine: a.engine}
	for _, f := range change {
		f(&o)
	}
	a.Allocator = vlan.NewAllocator(o)
	ctx, cancel := context.WithCancel(context.Background())
	a.life, a.cancel = ctx, cancel
	failed := make(chan error, 1)
	go func() {
		defer close(a.done)
		worked := make(chan struct{})
		go func() {
			defer close(worked)
			_ = a.Run(ctx)
		}()
		failed <- a.engine.Run(ctx)
		cancel()
		<-worked
	}()
	w.t.Cleanup(func() {
		a.bury()
		cancel()
		if !a.dead.Load() { // the dead only time out
			<-a.done
		}
	})
	select {
	case <-a.engine.Ready():
	case err := <-failed:
		w.t.Fatalf("agent %s did not start: %v", name, err)
	case <-time.After(limit):
		w.t.Fatalf("agent %s did not start in time", name)
	}
	return a
}

// bury lets go what hangs at a fault point, at the end of the test.
func (a *agent) bury() {
	select {
	case <-a.w.over:
	default:
		close(a.w.over)
	}
}

// fault runs what a test put at a point. A dead agent goes no further.
func (a *agent) fault(point string) {
	if f, ok := a.points.Load(point); ok && !a.dead.Load() {
		f.(func())()
	}
	if a.dead.Load() {
		if strings.HasPrefix(point, "file:pool:") {
			runtime.Goexit() // a dead process keeps no file locked
		}
		if strings.HasPrefix(point, "file:pool-lock:") {
			return // which clears the lock file as well
		}
		<-a.w.over
	}
}

// kill ends the agent as SIGKILL does: nothing more is written, and its lease is
// gone, as etcd sees it after the TTL.
func (a *agent) kill() {
	a.w.t.Helper()
	a.dead.Store(true)
	_ = a.client.Close()
	a.expire()
}

// expire ends the lease of the agent's session, as etcd does after its TTL.
func (a *agent) expire() {
	a.w.t.Helper()
	resp, err := a.w.client.Txn().Get(a.w.ctx(), a.w.keys.Alive(a.engine.Node()))
	if err != nil {
		a.w.t.Fatal(err)
	}
	for _, kv := range resp.Kvs {
		if _, err := a.w.client.Renew().Revoke(a.w.ctx(), clientv3.LeaseID(kv.Lease)); err != nil {
			a.w.t.Fatal(err)
		}
	}
}

// dieAt kills the agent when it comes to the point; the channel is closed then.
func (a *agent) dieAt(point string) <-chan struct{} {
	died := make(chan struct{})
	var once sync.Once
	a.points.Store(point, func() {
		once.Do(func() {
			a.kill()
			close(died)
		})
	})
	return died
}

// stopAt holds the agent at the point, once, until go is called.
func (a *agent) stopAt(point string) (reached <-chan struct{}, resume func()) {
	there, on := make(chan struct{}), make(chan struct{})
	var once sync.Once
	a.points.Store(point, func() {
		once.Do(func() {
			close(there)
			select {
			case <-on:
			case <-a.w.over:
			}
		})
	})
	return there, sync.OnceFunc(func() { close(on) })
}

// again starts a killed agent on its home and machine.
func (a *agent) again() *agent {
	a.w.t.Helper()
	return a.w.spawn(a.engine.Node(), a.home, a.m)
}
