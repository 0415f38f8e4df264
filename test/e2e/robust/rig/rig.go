package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/idpool/idpool/cluster"
)

// Rig is a running cluster. Safe for concurrent use.
type Rig struct {
	o       Options
	began   time.Time
	hub     *machine
	members []*Member
	nodes   []*Node
	spare   *Node
	net     *Net

	logMu sync.Mutex // one line at a time

	mu      sync.Mutex // guards the fields below
	limit   func() int64
	witness Witness
	token   string // of the cluster that etcd is
	done    bool
	// busy has a place for each member and node, taken while it is reserved.
	busy map[string]chan struct{}
}

// firstToken is the cluster token before any restore.
const firstToken = "rig"

// Start starts members and agents and returns when all agents are ready. The
// context bounds Start alone; the rig lives until Close or until this process ends.
func Start(ctx context.Context, o Options) (*Rig, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	if err := Available(); err != nil {
		return nil, err
	}
	r := &Rig{o: o, began: time.Now(), token: firstToken, busy: map[string]chan struct{}{}}
	if err := r.start(ctx); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	r.say("rig started")
	return r, nil
}

func (r *Rig) start(ctx context.Context) error {
	if err := r.machines(); err != nil {
		return err
	}
	g, starting := errgroup.WithContext(ctx)
	for _, m := range r.members {
		g.Go(func() error { return m.Start(starting) })
	}
	for _, n := range r.nodes {
		g.Go(func() error { return errors.Join(n.PowerOn(), n.AgentStart(starting)) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return r.Working(ctx)
}

// machines starts all machines and connects them.
func (r *Rig) machines() error {
	log, err := os.OpenFile(filepath.Join(r.o.Dir, "hub.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	if r.hub, err = startMachine("hub", machineFlags, log, r.resident(), "init", "-proc"); err != nil {
		return err
	}
	var ports []port
	for i := range r.o.Members {
		m, err := r.newMember(fmt.Sprintf("m%d", i+1), memberAddress(i+1), log)
		r.members = append(r.members, m)
		if err != nil {
			return err
		}
		ports = append(ports, port{m.name, m.address, m.m.hostPID()})
	}
	for i := range r.o.Nodes + 1 {
		name := fmt.Sprintf("n%d", i+1)
		if i == r.o.Nodes {
			name = "spare"
		}
		n, err := r.newNode(name, nodeAddress(i+1))
		if name == "spare" {
			r.spare = n
		} else {
			r.nodes = append(r.nodes, n)
		}
		if err != nil {
			return err
		}
		ports = append(ports, port{n.name, n.address, n.m.hostPID()})
	}
	r.net, err = startNet(r.hub, ports)
	return err
}

func (r *Rig) newMember(name, address string, log *os.File) (*Member, error) {
	m := &Member{r: r, name: name, address: address, dir: filepath.Join(r.o.Dir, name)}
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		return m, err
	}
	var err error
	if m.clock, err = newClock(filepath.Join(m.dir, "clock")); err != nil {
		return m, err
	}
	m.m, err = startMachine(name, machineFlags, log, r.resident(), "init", "-proc", "-host", name)
	return m, err
}

// Close ends everything and leaves nothing but files in Options.Dir. Twice is a no-op.
func (r *Rig) Close() error {
	r.mu.Lock()
	done := r.done
	r.done = true
	r.mu.Unlock()
	if done {
		return nil
	}
	var all []error
	for _, n := range append(slices.Clone(r.nodes), r.spare) {
		if n == nil {
			continue
		}
		n.client.Close()
		n.PowerOff()
		if n.m != nil {
			n.m.off()
		}
	}
	for _, m := range r.members {
		m.mu.Lock()
		db := m.db
		m.mu.Unlock()
		if db != nil {
			all = append(all, db.Close())
		}
		if m.m != nil {
			m.m.off()
		}
	}
	if r.hub != nil {
		r.hub.off()
	}
	return errors.Join(all...)
}

// Now is monotonic time since Start was called.
func (r *Rig) Now() time.Duration { return time.Since(r.began) }

// LeaseTTL is that of the agents' sessions.
func (r *Rig) LeaseTTL() time.Duration { return r.o.LeaseTTL }

// Members are the etcd members, m1 to mN.
func (r *Rig) Members() []*Member { return slices.Clone(r.members) }

// Nodes are the nodes, n1 to nN.
func (r *Rig) Nodes() []*Node { return slices.Clone(r.nodes) }

// Spare is one more machine, which is off and has no agent: for what pretends to
// be a node.
func (r *Rig) Spare() *Node { return r.spare }

// Net is the network between members, nodes and the spare machine.
func (r *Rig) Net() *Net { return r.net }

func (r *Rig) resident() string { return filepath.Join(r.o.Bin, "resident") }

// environ is what processes of the machines start from.
func (r *Rig) environ() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=/", "LANG=C.UTF-8"}
}

// endpoints are the members as the nodes reach them.
func (r *Rig) endpoints() string {
	var all []string
	for _, m := range r.members {
		all = append(all, "http://"+m.address+":2379")
	}
	return strings.Join(all, ",")
}

func (r *Rig) say(format string, args ...any) {
	r.logMu.Lock()
	defer r.logMu.Unlock()
	fmt.Fprintf(r.o.Log, "%9.3fs rig: %s\n", r.Now().Seconds(), fmt.Sprintf(format, args...))
}

// Client is a new connection to all members by their sockets, which no fault of
// the network disturbs. The caller closes it.
func (r *Rig) Client(ctx context.Context) (*cluster.Client, error) { return r.open(ctx, r.members...) }

func (r *Rig) open(ctx context.Context, members ...*Member) (*cluster.Client, error) {
	cfg := cluster.DefaultConfig()
	for _, m := range members {
		cfg.Endpoints = append(cfg.Endpoints, m.endpoint())
	}
	return cluster.Open(ctx, cfg, nil)
}

// Reserve keeps members and nodes, by name, for whoever disturbs them, and waits
// for those that are another's. free gives them back.
func (r *Rig) Reserve(ctx context.Context, names ...string) (free func(), err error) {
	names = slices.Compact(slices.Sorted(slices.Values(names))) // one order for all: nobody waits in a circle
	var got []chan struct{}
	free = func() {
		for _, c := range got {
			<-c
		}
	}
	for _, name := range names {
		r.mu.Lock()
		place := r.busy[name]
		if place == nil {
			place = make(chan struct{}, 1)
			r.busy[name] = place
		}
		r.mu.Unlock()
		select {
		case place <- struct{}{}:
			got = append(got, place)
		case <-ctx.Done():
			free()
			return nil, fmt.Errorf("wait for %s: %w", name, context.Cause(ctx))
		}
	}
	return free, nil
}

// Working waits until every member answers and the agent of every node is ready.
func (r *Rig) Working(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, m := range r.members {
		g.Go(func() error { return m.Working(ctx) })
	}
	for _, n := range r.nodes {
		g.Go(func() error { return n.Ready(ctx) })
	}
	return g.Wait()
}

// lookEvery is the pause between two looks at a condition.
const lookEvery = 50 * time.Millisecond

// eventually waits until check returns nil; one look takes 2 s at most.
func eventually(ctx context.Context, what string, check func(context.Context) error) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		look, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := check(look)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s: %w: last: %w", what, context.Cause(ctx), err)
		}
	}
}
