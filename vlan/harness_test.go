package vlan_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
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
}

func newWorld(t *testing.T) *world {
	t.Helper()
	cfg := cluster.DefaultConfig()
	cfg.Endpoints, cfg.Root = etcd(t).Endpoints(), fmt.Sprintf("/v%d/", roots.Add(1))
	w := &world{t: t, config: cfg, files: map[string]string{}, over: make(chan struct{})}
	w.client = w.open()
	w.keys = w.client.Keys()
	t.Cleanup(w.judge)
	if _, _, err := w.client.EnsureMeta(w.ctx()); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) open() *cluster.Client {
	w.t.Helper()
	c, err := cluster.Open(context.Background(), w.config, nil)
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
	cancel context.CancelFunc
	done   chan struct{}
}

// node starts a node with a machine of its own. change edits its options.
func (w *world) node(name string, change ...func(*vlan.Options)) *agent {
	w.t.Helper()
	return w.spawn(name, w.t.TempDir(), &machine{id: "machine-" + name, boot: "boot-" + name + "-1", live: map[int]bool{}}, change...)
}

func (w *world) spawn(name, home string, m *machine, change ...func(*vlan.Options)) *agent {
	w.t.Helper()
	h, err := leases.OpenHome(home)
	if err != nil {
		w.t.Fatal(err)
	}
	a := &agent{w: w, m: m, home: home, client: w.open(), done: make(chan struct{})}
	a.engine = leases.New(leases.Options{
		Client: a.client, Home: h, Prover: m, ScanEvery: time.Second,
		Identity: leases.Identity{Node: name, Role: leases.RoleNode, Machine: m.id, Boot: m.boot, PIDNS: 1, Version: "test", PID: 1},
		Fault:    a.fault,
	})
	o := vlan.Options{Engine: a.engine}
	for _, f := range change {
		f(&o)
	}
	a.Allocator = vlan.NewAllocator(o)
	ctx, cancel := context.WithCancel(context.Background())
	a.cancel = cancel
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
		<-a.done
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

// inventory defines an inventory of etcd, without a cooldown unless change says so.
func (a *agent) inventory(name, ranges string, change ...func(*leases.Pool)) {
	a.w.t.Helper()
	set, err := idset.Parse(ranges)
	if err != nil {
		a.w.t.Fatal(err)
	}
	a.define(name, append([]func(*leases.Pool){func(p *leases.Pool) { p.Ranges, p.Cooldown = set, 0 }}, change...)...)
}

func (a *agent) define(name string, change ...func(*leases.Pool)) {
	a.w.t.Helper()
	_, _, err := a.engine.SetPool(a.w.ctx(), leases.VLANPool(name), false, func(p *leases.Pool, _ bool) error {
		for _, f := range change {
			f(p)
		}
		return nil
	})
	if err != nil {
		a.w.t.Fatal(err)
	}
}

// file defines an inventory in a pool file that node on keeps, and returns its
// path.
func (a *agent) file(name, on, text string) string {
	a.w.t.Helper()
	path := poolAt(a.w.t, text)
	a.w.files[name] = path
	a.define(name, func(p *leases.Pool) { p.Outside = &leases.Outside{File: path, On: on, Settle: 50 * time.Millisecond} })
	return path
}

// keyed is a pool file with allocation keys and this range, its end not inside.
func keyed(from, to int) string {
	return fmt.Sprintf(`{"version": 0, "range": {"from": %d, "to": %d}, "used": [], "allocations": {}}`, from, to)
}

var (
	tenant = vlan.By{Caller: "unix:7"}
	other  = vlan.By{Caller: "unix:8"}
	root   = vlan.By{Caller: "unix:0", Operator: true}
)

// northSouth asks for a north and a south VLAN.
func northSouth(name, north, south string, change ...func(*vlan.Request)) vlan.Request {
	r := vlan.Request{Name: name, By: tenant, Attributes: []vlan.Want{{Name: "north_vlan_id", Inventory: north}, {Name: "south_vlan_id", Inventory: south}}}
	for _, f := range change {
		f(&r)
	}
	return r
}

func keep(r *vlan.Request) { r.OnPartial = vlan.OnPartialKeep }

// create is Allocate that must succeed.
func (a *agent) create(r vlan.Request) *vlan.Service {
	a.w.t.Helper()
	s, _, err := a.Allocate(a.w.ctx(), r)
	if err != nil {
		a.w.t.Fatalf("create %s on %s: %v", r.Name, a.engine.Node(), err)
	}
	return s
}

func of(s *vlan.Service, by ...vlan.By) vlan.Change {
	by = append(by, tenant)
	return vlan.Change{Name: s.Name, Token: s.Token, By: by[0]}
}

// becomes waits until a service is in a state.
func (a *agent) becomes(name string, state vlan.State) *vlan.Service {
	a.w.t.Helper()
	var last *vlan.Service
	s, err := a.Wait(a.w.ctx(), name, func(s *vlan.Service) bool {
		last = s
		if s == nil {
			return state == vlan.Gone
		}
		return s.State == state
	})
	if err != nil {
		a.w.t.Fatalf("service %s is %+v, want %s: %v", name, last, state, err)
	}
	return s
}

// goes deletes a service and waits until it is gone.
func (a *agent) goes(name string) {
	a.w.t.Helper()
	if _, _, err := a.Delete(a.w.ctx(), vlan.Change{Name: name, By: tenant}, false); err != nil {
		a.w.t.Fatalf("delete %s: %v", name, err)
	}
	a.becomes(name, vlan.Gone)
}

func has(t testing.TB, s *vlan.Service, attribute string, want uint32) {
	t.Helper()
	if got, ok := s.VID(attribute); !ok || got != want {
		t.Fatalf("%s of %s is %d, %v; want %d", attribute, s.Name, got, ok, want)
	}
}

func mustErr(t testing.TB, err, want error, parts ...string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Fatalf("error %q does not say %q", err, p)
		}
	}
}

// await fails the test if the channel is not closed in time.
func (w *world) await(what string, c <-chan struct{}) {
	w.t.Helper()
	select {
	case <-c:
	case <-w.ctx().Done():
		w.t.Fatalf("waited too long: %s", what)
	}
}

// inFile is what a pool file says is allocated: VLANs by key.
func (w *world) inFile(path string) map[string]uint32 {
	w.t.Helper()
	p, err := vlan.ParsePoolFile([]byte(fileText(w.t, path)))
	if err != nil {
		w.t.Fatal(err)
	}
	all := p.Allocations()
	if !p.Keyed() {
		all = map[string]uint32{}
		for id := range p.Used().All() {
			all[fmt.Sprint(id)] = id
		}
	}
	return all
}

// claim is the claim of a VLAN in etcd, nil if it is free.
func (w *world) claim(inventory string, vid uint32) *leases.Claim {
	w.t.Helper()
	resp, err := w.client.Txn().Get(w.ctx(), w.keys.Claim(cluster.VLANSpace(inventory), vid))
	if err != nil {
		w.t.Fatal(err)
	}
	if len(resp.Kvs) == 0 {
		return nil
	}
	var c leases.Claim
	if err := json.Unmarshal(resp.Kvs[0].Value, &c); err != nil {
		w.t.Fatal(err)
	}
	return &c
}
