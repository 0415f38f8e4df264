package leases

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/idpool/idpool/cluster"
)

// An explored operation is the engine's own function, run synchronously from its
// beginning. Where it waits for the world (a transaction's answer, a look at the
// machine, a session) it is abandoned; when the world has moved, it is run again
// with the answers it had, and the next one. So an operation under way is data:
// its arguments and its answers. Time is synctest's, randomness the explorer's own:
// the same answers lead to the same place.

var quiet = zap.NewNop()

// entry is one answer that an operation had. env is the world in which it came,
// nil if it came at once.
type entry struct {
	resp   *pb.TxnResponse
	err    error
	env    *scene
	mirror *simStore
	value  int64
	saw    byte // the ids that ran at a look
}

// pause is what a task waits for.
type pause struct {
	commit  *pb.TxnRequest
	look    bool // at what runs
	sess    bool // for a session
	severed bool // what it waits for will not come
}

// task is an operation under way on an agent.
type task struct {
	id     int64
	node   int
	kind   kind
	party  int
	ref    Ref
	other  string
	token  string
	rev    int64
	member int64
	seen   *observation
	keep   bool
	began  *scene
	script []entry
	wait   *pause
	gone   bool // its caller has left: what is done with the answer is the orphan's
	leftAt int  // the answer at which it left
}

type suspended struct{}

type callerLeft struct{}

// explorer drives two agents through scenes, one step at a time.
type explorer struct {
	t      *testing.T
	sc     *scenario
	agents [2]*Allocator
	now    *scene // being made by the running step
	env    *scene // what the running part of the operation sees
	run    *task
	pos    int
	fresh  []entry
	random uint64
	child  *child
	result any
	begun  time.Time
	steps  int
	// by is the task whose transaction was just delivered.
	by    *task
	cut   bool // a lease has ended in this step
	canon canon
	list  []move
}

func newExplorer(t *testing.T, sc *scenario) *explorer {
	x := &explorer{t: t, sc: sc}
	for n := range x.agents {
		cfg := cluster.DefaultConfig()
		cfg.Endpoints, cfg.Root = []string{"http://127.0.0.1:1"}, exploreKeys.Root()
		cfg.Attempt, cfg.Budget, cfg.LeaseTTL = 20*time.Minute, time.Hour, time.Hour
		conn := &clientv3.Client{KV: clientv3.NewKVFromKVClient(simKVClient{txn: x.txn}, nil), Lease: simLease{x: x}, Maintenance: simStatus{x: x}}
		client, err := cluster.Over(cfg, conn, nil)
		if err != nil {
			t.Fatal(err)
		}
		h := &Home{seam: func(string, func() error) error { return nil }}
		a := New(Options{Client: client, Home: h, Prover: simProver{x, n}, Log: quiet, Identity: Identity{Node: hostName(n), Role: RoleNode, PIDNS: 1, Version: "x", PID: 1}})
		a.commit = x.submit
		x.agents[n] = a
	}
	return x
}

// Read makes the operation's random bytes: the same each time it is run again.
func (x *explorer) Read(b []byte) (int, error) {
	for i := range b {
		x.random += 0x9e3779b97f4a7c15
		z := x.random
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		b[i] = byte(z ^ z>>31)
	}
	return len(b), nil
}

// begin starts a task in a scene and returns the scene after its first part.
func (x *explorer) begin(s *scene, t task) *scene {
	n := s.copy()
	n.seq++
	t.id = n.seq
	t.began = s
	return x.play(n, &t)
}

// resume gives a task its next answer.
func (x *explorer) resume(s *scene, t *task, e entry) *scene {
	n := s.copy()
	n.drop(t.id)
	c := *t
	e.env = s
	c.script = append(slices.Clip(t.script), e)
	c.wait = nil
	return x.play(n, &c)
}

// play runs a task from its beginning in the scene n, which it changes.
func (x *explorer) play(n *scene, t *task) *scene {
	x.now, x.run, x.pos, x.fresh, x.random, x.child, x.result = n, t, 0, nil, uint64(t.id)<<20, nil, nil
	x.steps++
	done := false
	synctest.Test(x.t, func(*testing.T) {
		x.begun = time.Now()
		x.hydrate(t.began, t.node)
		if len(t.script) == 0 {
			x.env = n
		}
		defer func() {
			switch r := recover().(type) {
			case nil, suspended:
			default:
				panic(fmt.Sprintf("%v in %s\n%s", r, t, x.t.Name()))
			}
		}()
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		x.result = x.do(ctx, x.agents[t.node], t)
		x.capture()
		done = true
	})
	if done {
		x.now.drop(t.id)
		x.finished(t)
	}
	x.now.follow(x.now.left.lag > 0)
	return x.now
}

// suspend abandons the operation until the world answers.
func (x *explorer) suspend(w pause) {
	x.capture()
	c := *x.run
	c.script = append(slices.Clip(c.script), x.fresh...)
	c.wait = &w
	x.now.keep(&c)
	panic(suspended{})
}

// replayed is the answer that the operation had here before, if it was here.
func (x *explorer) replayed() (entry, bool) {
	if late := time.Since(x.begun) % (10 * time.Second); late != 0 { // waits are random; what follows must not depend on them
		<-time.After(10*time.Second - late)
	}
	if x.pos == len(x.run.script) {
		return entry{}, false
	}
	e := x.run.script[x.pos]
	x.pos++
	if e.env != nil {
		x.hydrate(e.env, x.run.node)
		if x.pos == len(x.run.script) {
			x.env = x.now
		}
	} else if e.mirror != nil {
		x.agents[x.run.node].mirror.view = *e.mirror.viewOf(x.run.node)
	}
	return e, true
}

// note keeps an answer that came at once.
func (x *explorer) note(e entry) { x.fresh = append(x.fresh, e) }

// txn is the wire: what only reads is answered at once, and the mirror has it
// then; what may write waits until the explorer lets it arrive.
func (x *explorer) txn(r *pb.TxnRequest) (*pb.TxnResponse, error) {
	if e, ok := x.replayed(); ok {
		if x.run.leftAt == x.pos && x.run.leftAt > 0 && x.child != nil {
			if !x.run.gone {
				panic(callerLeft{})
			}
			x.child.stage.Store(stageLeft)
		}
		return e.resp, e.err
	}
	if len(r.Compare) > 0 {
		x.suspend(pause{commit: r})
	}
	if len(x.fresh) > 64 { // it only reads, again and again: it waits for somebody else's presence to go
		x.capture()
		x.now.drop(x.run.id)
		panic(suspended{})
	}
	_, resp, err := x.now.store.commit(r)
	h := &x.now.hosts[x.run.node]
	e := entry{resp: resp, err: err}
	if !h.cut {
		h.mirror = x.now.store
		e.mirror = x.now.store
		x.agents[x.run.node].mirror.view = *h.mirror.viewOf(x.run.node)
	}
	x.note(e)
	return resp, err
}

// submit is the batcher's: the real attempts, without its queue.
func (x *explorer) submit(ctx context.Context, c *child) (r childResult) {
	a := x.agents[x.run.node]
	c.done = make(chan childResult, 1)
	x.child = c
	defer func() {
		x.child = nil
		if p := recover(); p != nil {
			if _, ok := p.(callerLeft); !ok {
				panic(p)
			}
			c.stage.Store(stageLeft)
			r = childResult{err: errUnknown}
		}
	}()
	a.batch.settle(sessionContext{ctx, x, a}, []*child{c})
	if x.run.gone && c.stage.Load() == stageDone && len(c.done) == 0 {
		x.capture()
		x.now.drop(x.run.id)
		panic(suspended{})
	}
	return <-c.done
}

// sessionContext suspends the operation where it would block for a session.
type sessionContext struct {
	context.Context
	x *explorer
	a *Allocator
}

// Done is asked where the operation waits for a session. Contexts made from this
// one ask too, for their own books, and one whose deadline has passed does so from
// another goroutine: that is nobody's wait.
func (c sessionContext) Done() <-chan struct{} {
	if !calledBy("leases.(*Session).current") {
		return c.Context.Done()
	}
	s := c.a.session
	if s.fatal != nil || (s.guard != nil && s.doubts == s.audited) {
		return c.Context.Done()
	}
	changed := s.changed
	if _, ok := c.x.replayed(); !ok {
		c.x.suspend(pause{sess: true})
	}
	close(changed)
	return c.Context.Done()
}

// calledBy tells whether the function that asks was called by this one.
func calledBy(function string) bool {
	var pcs [1]uintptr
	runtime.Callers(3, pcs[:])
	frame, _ := runtime.CallersFrames(pcs[:]).Next()
	return strings.HasSuffix(frame.Function, function)
}

// hydrate makes an agent what it is in a scene.
func (x *explorer) hydrate(s *scene, n int) {
	x.env = s
	a, h := x.agents[n], &s.hosts[n]
	m := h.mind
	if m == nil {
		m = &mind{}
	}
	machine := "machine-" + hostName(n)
	if h.alien {
		machine += "'"
	}
	a.id.Boot, a.id.Machine = bootName(n, h.boot), machine
	a.session.id = a.id
	a.mirror.view, a.mirror.stale, a.mirror.changed = *h.mirror.viewOf(n), nil, make(chan struct{})
	a.session.home.mem = h.home
	se := a.session
	se.guard, se.alive, se.fatal, se.left, se.noProof, se.changed = m.guard, m.alive, m.fatal, m.left, m.noProof, make(chan struct{})
	se.doubts, se.audited, se.deadline = 0, 0, 0
	se.audit.last, se.audit.quiet, se.blocked, se.trouble, se.heir = 0, true, nil, nil, inheritance{}
	if m.doubt {
		se.doubts = 1
	}
	a.batch.paused, a.batch.active, a.batch.idle = m.paused, m.active, nil
	a.wrote, a.flying, a.orphans, a.leaving, a.landed = m.wrote, maps.Clone(m.flying), slices.Clone(m.orphans), m.leaving, make(chan struct{})
	if a.flying == nil {
		a.flying = map[Ref]int64{}
	}
	a.keysNow = map[string]*sf{}
	for _, k := range m.keys {
		a.keysNow[k] = &sf{done: make(chan struct{})}
	}
}

// capture puts what the agent has become into the scene being made.
func (x *explorer) capture() {
	n := x.run.node
	a, h := x.agents[n], &x.now.hosts[n]
	se := a.session
	if se.blocked != nil { // nobody adopts here: it stays so
		se.fatal, se.blocked = se.blocked, nil
	}
	h.home = se.home.mem
	if h.mind == nil {
		return
	}
	a.landLocked(a.mirror.rev)
	h.mind = &mind{
		guard: se.guard, alive: se.alive, fatal: se.fatal, left: se.left, noProof: se.noProof, doubt: se.doubts != se.audited,
		wrote: a.wrote, flying: a.flying, keys: slices.Sorted(maps.Keys(a.keysNow)), orphans: a.orphans,
		leaving: a.leaving, paused: a.batch.paused, active: a.batch.active, looked: h.mind.looked,
	}
}

var errUnknown = &cluster.OutcomeError{Outcome: cluster.Unknown, Op: "commit", Err: errors.New("the caller has left")}
