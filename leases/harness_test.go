package leases

import (
	"context"
	"flag"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/cluster/embed"
	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/seam"
	"github.com/idpool/idpool/seam/fault"
)

// limit bounds every wait of a test.
const limit = 30 * time.Second

// shared is one etcd for all tests of the package; each has a root of its own.
var (
	shared *embed.Server
	roots  atomic.Int64
)

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "idpool-leases-")
	if err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		shared, err = embed.Start(ctx, embed.Config{Dir: dir, Fast: true}, nil)
		cancel()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "etcd for the tests:", err)
		os.Exit(1)
	}
	flag.Parse()
	flag.Parse()
	asked := false
	flag.Visit(func(f *flag.Flag) { asked = asked || f.Name == "test.parallel" })
	if !asked {
		_ = flag.Set("test.parallel", "8") // they wait more than they compute
	}
	code := m.Run()
	_ = shared.Kill()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// world is one cluster of idpool under a root of its own.
type world struct {
	t      testing.TB
	config cluster.Config
	client *cluster.Client
	keys   cluster.Keys
}

func newWorld(t testing.TB, change ...func(*cluster.Config)) *world {
	t.Helper()
	return worldAt(t, shared.Endpoints(), change...)
}

func worldAt(t testing.TB, endpoints []string, change ...func(*cluster.Config)) *world {
	t.Helper()
	cfg := cluster.DefaultConfig()
	cfg.Endpoints, cfg.Root = endpoints, fmt.Sprintf("/t%d/", roots.Add(1))
	for _, f := range change {
		f(&cfg)
	}
	w := &world{t: t, config: cfg}
	w.client = w.open()
	w.keys = w.client.Keys()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if _, _, err := w.client.EnsureMeta(ctx); err != nil {
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

// agent is an allocator that a test runs.
type agent struct {
	*Allocator
	w      *world
	m      *machine
	net    *network
	points sync.Map // fault point: func() that runs there
	home   string
	cancel context.CancelFunc
	done   chan struct{}
	err    error // of Run, once done is closed
}

// spawn starts an agent with mirror, session and batcher alone, or with all its
// loops.
func (w *world) spawn(name, home string, m *machine, loops bool) *agent {
	w.t.Helper()
	a := w.launch(name, home, m, loops)
	select {
	case <-a.Ready():
	case <-a.done:
		w.t.Fatalf("agent %s did not start: %v", name, a.err)
	case <-time.After(limit):
		w.t.Fatalf("agent %s did not start in time", name)
	}
	return a
}

func (w *world) launch(name, home string, m *machine, loops bool) *agent {
	w.t.Helper()
	a, err := w.try(context.Background(), name, home, m, loops, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

// try is launch, with a seam at all that the agent does, the opening included.
func (w *world) try(open context.Context, name, home string, m *machine, loops bool, s seam.Seam) (*agent, error) {
	h, err := OpenHome(home, s)
	if err != nil {
		return nil, err
	}
	j, err := OpenJournal(home, s)
	if err != nil {
		return nil, err
	}
	cfg := w.config
	cfg.Seam, cfg.Audit = s, Auditor(h, j)
	client, err := cluster.Open(open, cfg, nil)
	if err != nil {
		return nil, err
	}
	w.t.Cleanup(func() { _ = client.Close() })
	a := &agent{w: w, m: m, home: home, done: make(chan struct{})}
	points := fault.At(func(point string) {
		if f, ok := a.points.Load(point); ok {
			f.(func())()
		}
	})
	a.Allocator = New(Options{
		Client: client, Home: h, Journal: j, Prover: m, ScanEvery: 300 * time.Millisecond,
		Seam: func(point string, do func() error) error {
			return points.Do(point, func() error { return s.Do(point, do) })
		},
		Identity: Identity{Node: name, Role: RoleNode, Machine: m.id, Boot: m.boot, PIDNS: 1, Version: "test", PID: 1},
	})
	a.net = &network{client: a.client}
	a.batch.send = a.net.send
	ctx, cancel := context.WithCancel(context.Background())
	a.cancel = cancel
	go func() {
		defer close(a.done)
		if loops {
			a.err = a.Run(ctx)
		} else {
			a.err = a.run(ctx)
		}
	}()
	w.t.Cleanup(a.crash)
	return a, nil
}

// node starts a node with its own machine and home, its loops run by the test.
func (w *world) node(name string) *agent {
	w.t.Helper()
	return w.spawn(name, w.t.TempDir(), newMachine(name), false)
}

// running is node with all its loops.
func (w *world) running(name string) *agent {
	w.t.Helper()
	return w.spawn(name, w.t.TempDir(), newMachine(name), true)
}

// crash kills the agent: nothing is revoked, nothing written.
func (a *agent) crash() {
	a.cancel()
	<-a.done
}

// reboot is a crash of the whole machine that lasts longer than its session, and the
// agent's next start.
func (a *agent) reboot() *agent {
	a.w.t.Helper()
	a.crash()
	a.expire()
	a.m.reboot()
	return a.again()
}

// again starts a crashed agent on its home and machine, as it is now.
func (a *agent) again() *agent {
	a.w.t.Helper()
	return a.w.spawn(a.id.Node, a.home, a.m, false)
}

// expire ends the lease of the agent's session, as etcd does after its TTL.
func (a *agent) expire() {
	a.w.t.Helper()
	g := a.guardNow()
	if g == nil {
		a.w.t.Fatal("no session to expire")
	}
	if _, err := a.w.client.Renew().Revoke(a.w.ctx(), g.lease); err != nil {
		a.w.t.Fatal(err)
	}
}

func (a *agent) guardNow() *guard {
	a.session.mu.Lock()
	defer a.session.mu.Unlock()
	return a.session.guard
}

func (w *world) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	w.t.Cleanup(cancel)
	return ctx
}

// sync brings the agent's mirror up to what etcd has.
func (a *agent) sync() {
	a.w.t.Helper()
	if err := a.linearize(a.w.ctx()); err != nil {
		a.w.t.Fatal(err)
	}
}

// janitorRound is one round of the janitor's loop.
func (a *agent) janitorRound() {
	a.w.t.Helper()
	ctx := a.w.ctx()
	a.sync()
	a.settleOrphans(ctx)
	c := a.chores()
	a.each(ctx, c.sweep, a.sweepBoot)
	a.each(ctx, c.relock, a.relock)
	a.each(ctx, c.lapse, a.lapse)
	a.inspect(ctx, c, true)
}

// reaperRound is one round of the reaper's loop.
func (a *agent) reaperRound() {
	a.w.t.Helper()
	ctx := a.w.ctx()
	a.sync()
	d := a.duties()
	if d.elect {
		a.elect(ctx)
		a.sync()
		d = a.duties()
	}
	a.each(ctx, d.free, func(ctx context.Context, ref Ref) error { return a.freeOne(ctx, ref, d.weighed[ref], d.members) })
	for ref, node := range d.drop {
		if err := a.dropNode(ctx, ref, node, d.members); err != nil {
			a.w.t.Fatal(err)
		}
	}
	a.each(ctx, d.reclaim, a.reclaim)
}

// rounds lets all agents work three rounds: enough for inquiry, proof and free.
func rounds(agents ...*agent) {
	for range 3 {
		for _, a := range agents {
			a.janitorRound()
		}
		for _, a := range agents {
			a.reaperRound()
		}
	}
	for _, a := range agents {
		a.sync()
	}
}

// pool makes or changes a pool.
func (a *agent) pool(name, ranges string, change ...func(*Pool)) {
	a.w.t.Helper()
	set, err := idset.Parse(ranges)
	if err != nil {
		a.w.t.Fatal(err)
	}
	_, _, err = a.SetPool(a.w.ctx(), name, false, func(p *Pool, _ bool) error {
		p.Ranges = set
		for _, f := range change {
			f(p)
		}
		return nil
	})
	if err != nil {
		a.w.t.Fatal(err)
	}
}

// ask is a request for one id of pool p; change edits it.
func (a *agent) ask(r Requester, change ...func(*GrantRequest)) (*Grant, error) {
	a.w.t.Helper()
	req := GrantRequest{Caller: "tenant", Requester: r, Wants: []Want{{Pool: "p", Count: 1}}}
	for _, f := range change {
		f(&req)
	}
	return a.Grant(a.w.ctx(), req)
}

// get is ask that must succeed.
func (a *agent) get(r Requester, change ...func(*GrantRequest)) *Grant {
	a.w.t.Helper()
	g, err := a.ask(r, change...)
	if err != nil {
		a.w.t.Fatalf("grant on %s: %v (%+v)", a.id.Node, err, err)
	}
	return g
}

func withKey(k string) func(*GrantRequest) { return func(r *GrantRequest) { r.Key = k } }
func wants(w ...Want) func(*GrantRequest)  { return func(r *GrantRequest) { r.Wants = w } }
func wait(d time.Duration) func(*GrantRequest) {
	return func(r *GrantRequest) { r.Wait = d }
}
func exact(id uint32) func(*GrantRequest) {
	return wants(Want{Pool: "p", Count: 1, Exact: &id})
}

// ref is the grant's first id.
func (g *Grant) ref() Ref { return g.Held[0].Ref }

func (g *Grant) refs() []Ref {
	var all []Ref
	for _, h := range g.Held {
		all = append(all, h.Ref)
	}
	return all
}

// release gives a grant back on the agent for one requester.
func (a *agent) release(g *Grant, requester string) bool {
	a.w.t.Helper()
	_, changed, err := a.Release(a.w.ctx(), Release{Refs: g.refs(), Token: g.Token, Requester: requester, By: "the test"})
	if err != nil {
		a.w.t.Fatalf("release: %v", err)
	}
	return changed
}

func (a *agent) confirm(g *Grant, keep, running bool) {
	a.w.t.Helper()
	for _, h := range g.Held {
		if _, err := a.Confirm(a.w.ctx(), h.Ref, g.Token, "", keep, running); err != nil {
			a.w.t.Fatalf("confirm: %v", err)
		}
	}
}

// stored reads what etcd itself has under keys.
func (w *world) stored(prefix string) map[string]string {
	w.t.Helper()
	resp, err := w.client.Txn().Get(w.ctx(), prefix, clientv3.WithPrefix())
	if err != nil {
		w.t.Fatal(err)
	}
	all := map[string]string{}
	for _, kv := range resp.Kvs {
		all[string(kv.Key)] = string(kv.Value)
	}
	return all
}

// claim reads one claim from etcd; nil if the id is free.
func (w *world) claim(ref Ref) *Claim {
	w.t.Helper()
	raw, ok := w.stored(w.keys.Claim(ref.Space, ref.ID))[w.keys.Claim(ref.Space, ref.ID)]
	if !ok {
		return nil
	}
	c, err := decodeClaim(ref, []byte(raw))
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// state is the id's state in etcd.
func (w *world) state(ref Ref) State {
	w.t.Helper()
	if c := w.claim(ref); c != nil {
		return c.State
	}
	return Free
}

func (w *world) mustBe(ref Ref, want State) {
	w.t.Helper()
	if got := w.state(ref); got != want {
		w.t.Fatalf("%s is %s, want %s (%+v)", ref, got, want, w.claim(ref))
	}
}
