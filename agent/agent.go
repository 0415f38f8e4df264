package agent

import (
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/idpool/idpool/agent/metrics"
	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/uidpool"
	"github.com/idpool/idpool/vlan"
)

// leaveTimeout bounds the try to leave the cluster at a clean stop.
const leaveTimeout = 3 * time.Second

// Agent is the daemon of one node. Make it with [New], run it with [Agent.Run].
type Agent struct {
	cfg Config
	log *zap.Logger
	now atomic.Pointer[running]
	// reloading: one change of now at a time.
	reloading sync.Mutex
	metrics   *metrics.Metrics
	// events outlive the engines that tell them.
	events *history
	pid    int
	began  time.Time
	// patience is changed by tests alone, before Run.
	patience patience
	open     chan struct{} // closed once the socket answers
	ready    chan struct{}
	once     sync.Once // closes ready
	// leaving: the session's end is this agent's own doing. left is closed once the
	// node has left: there is nothing to do for its agent then.
	leaving  atomic.Bool
	left     chan struct{}
	onceLeft sync.Once // closes left

	mu sync.Mutex // guards the fields below
	// core is nil while there is no engine; why is what ended the one before, or
	// kept the first away, until one serves.
	core      *core
	why       error
	failed    bool // why is a failure
	endpoints []string
	// listens is the TCP address in use, "" if there is none.
	listens string
	// creds are those of the TCP port, nil without one.
	creds *credentials
}

// core is what an agent has once it reached etcd.
type core struct {
	client *cluster.Client
	engine *leases.Allocator
	uids   *uidpool.Allocator
	prover *uidpool.Prover
	vlans  *vlan.Allocator
}

// New prepares an agent: it checks the configuration and finds the groups;
// nothing is opened yet. The error is a [problem.CodeInvalid]. A nil log logs
// nothing.
func New(cfg Config, log *zap.Logger) (*Agent, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	groups, err := findGroups(cfg)
	if err != nil {
		return nil, err
	}
	if log == nil {
		log = zap.NewNop()
	}
	a := &Agent{
		cfg: cfg, log: log, pid: os.Getpid(), open: make(chan struct{}), ready: make(chan struct{}), left: make(chan struct{}),
		why: problem.New(problem.CodeUnavailable, "the agent of node %s is starting; nothing was done", cfg.Node).
			Advise("look, and try again when it is ready", "poolctl status"),
		endpoints: slices.Clone(cfg.Endpoints), began: time.Now(), events: newHistory(), patience: defaultPatience,
	}
	a.now.Store(newRunning(cfg, groups))
	a.metrics = metrics.New(cfg.Version, a.metricState)
	return a, nil
}

// Answering is closed once the socket answers; whether the node serves then is
// for its status to say.
func (a *Agent) Answering() <-chan struct{} { return a.open }

// Ready is closed once the node is registered and the socket answers.
func (a *Agent) Ready() <-chan struct{} { return a.ready }

// Endpoints are where etcd is: as configured, or those of the embedded server,
// its socket first. Empty until that runs.
func (a *Agent) Endpoints() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.endpoints)
}

// Run works until ctx ends, then stops cleanly: it lets requests go, leaves the
// cluster if nothing here keeps the node, and returns nil. It returns an error
// that a person must act on, see the package's doc; an etcd that is unreachable,
// or was restored, is none: the agent says so in its status and tries again.
func (a *Agent) Run(ctx context.Context) error {
	data, err := openData(a.cfg.Data, a.cfg.Seam)
	if err != nil {
		return err
	}
	defer data.release()
	door, err := openDoor(ctx, a.cfg.Socket, a.cfg.Listener, a.now.Load().gate.groups, a.cfg.Seam)
	if err != nil {
		return err
	}
	defer door.lock.release()

	port, creds, err := a.openPort()
	if err != nil {
		return errors.Join(err, door.Close())
	}

	base := context.WithoutCancel(ctx)
	server := a.newServer(base, creds)
	work, endWork := context.WithCancel(base)
	defer endWork()
	done := make(chan struct{})
	g, broken := errgroup.WithContext(base)
	g.Go(func() error { return server.serve(door) })
	if port != nil {
		g.Go(func() error { return server.serve(port) })
	}
	close(a.open) // connections wait from here on
	g.Go(func() error {
		defer close(done)
		return a.work(work)
	})
	g.Go(func() error { return a.names(work) })
	g.Go(func() error {
		select {
		case <-ctx.Done():
		case <-done:
		case <-a.left:
		case <-broken.Done():
		}
		server.shutdown()
		a.leaveQuietly(base)
		endWork()
		return nil
	})
	err = g.Wait()
	return errors.Join(err, door.Close())
}

// openPort listens on TCP where that is configured.
func (a *Agent) openPort() (net.Listener, *credentials, error) {
	if a.cfg.Listen == "" {
		return nil, nil, nil
	}
	creds, err := loadCredentials(a.cfg.ListenTLS, a.log)
	if err != nil {
		return nil, nil, err
	}
	l, err := openPort(a.cfg.Listen, creds)
	if err != nil {
		return nil, nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.listens, a.creds = l.Addr().String(), creds
	return l, creds, nil
}

// leaveQuietly leaves the cluster if nothing here keeps the node. A refusal is
// no fault: the node is absent then, and resumes when it comes back.
func (a *Agent) leaveQuietly(ctx context.Context) {
	c, err := a.working()
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	select {
	case <-a.left:
		return
	default:
	}
	if err := a.leave(ctx, c); err != nil {
		a.log.Info("node stays registered", zap.String("node", a.cfg.Node), zap.Error(err))
		return
	}
	a.log.Info("node left the cluster", zap.String("node", a.cfg.Node))
}

// leave takes the node out; its agent ends with it.
func (a *Agent) leave(ctx context.Context, c *core) error {
	a.leaving.Store(true)
	err := c.engine.Leave(ctx)
	if err != nil {
		a.leaving.Store(false)
		return err
	}
	a.onceLeft.Do(func() { close(a.left) })
	return nil
}

// working is the core of a node that is registered, or why there is none.
func (a *Agent) working() (*core, error) {
	a.mu.Lock()
	c, why := a.core, a.why
	a.mu.Unlock()
	if c != nil {
		select {
		case <-c.engine.Ready():
			return c, nil
		default:
		}
	}
	return nil, whyNot(a.cfg.Node, why)
}

// startGrace is how long a request waits for an agent that has just been started,
// so that "start it, then ask" works as two commands of one line.
const startGrace = 5 * time.Second

// serving is working, after a wait for an agent that is still starting.
func (a *Agent) serving(ctx context.Context) (*core, error) {
	ctx, cancel := context.WithTimeout(ctx, startGrace-time.Since(a.began))
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		c, err := a.working()
		a.mu.Lock()
		failed := a.failed
		a.mu.Unlock()
		if err == nil || failed {
			return c, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, err
		}
	}
}

// nothingDone ends the detail of a refusal that tells so.
const nothingDone = "nothing was done"

// unserved makes a refusal that says that etcd did not answer one that a caller
// can act on: nothing was done, and where to look, or the trouble with certificates
// if that is the reason. One that is about a part of the request is about that, not
// about etcd.
func unserved(node string, trouble, err error) error {
	var p *problem.Error
	if !errors.As(err, &p) || p.Code != problem.CodeUnavailable || p.Attribute != "" {
		return err
	}
	e := *p
	if trouble != nil && !strings.Contains(e.Detail, trouble.Error()) {
		e.Detail = trouble.Error() + "; " + e.Detail
	}
	if !strings.Contains(e.Detail, nothingDone) {
		e.Detail = "node " + node + " cannot serve now: " + e.Detail + "; " + nothingDone
		if len(e.Try) == 0 {
			e.Try = []problem.Advice{{When: "look", Command: "poolctl status"}}
		}
	}
	return &e
}

// trouble is what is wrong between etcd's certificates and ours, nil if nothing is or
// there is no connection to tell by.
func (a *Agent) trouble() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.core == nil {
		return nil
	}
	return a.core.client.Trouble()
}

// whyNot makes the reason why there is no engine an answer: nothing was done.
func whyNot(node string, why error) error {
	code := problem.CodeUnavailable
	if c := problem.CodeOf(why); c == problem.CodeFrozen || c == problem.CodeFenced {
		code = c
	}
	var p *problem.Error
	if !errors.As(why, &p) {
		return problem.New(code, "node %s cannot serve: %v; %s", node, why, nothingDone)
	}
	e := *p
	e.Code = code
	return &e
}

// set makes c the core; that it is not registered yet is the reason why it does
// not serve, unless there is one already.
func (a *Agent) set(c *core) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.core = c
	if !a.failed {
		a.why = problem.New(problem.CodeUnavailable, "node %s is not registered with etcd yet; nothing was done", a.cfg.Node).
			Advise("look", "poolctl status")
	}
}

// unset ends the core for a reason, and tells whether it is news.
func (a *Agent) unset(why error) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	news := !a.failed || a.why.Error() != why.Error()
	a.core, a.why, a.failed = nil, why, true
	return news
}

// drop takes a core away that has ended; what ended it is told by unset, if the
// agent goes on.
func (a *Agent) drop(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.core = nil
	if err == nil && !a.failed {
		a.why = problem.New(problem.CodeUnavailable, "the agent of node %s is stopping; nothing was done", a.cfg.Node)
	}
}

// serves forgets the reasons of the past.
func (a *Agent) serves() {
	a.mu.Lock()
	a.failed = false
	a.mu.Unlock()
	a.once.Do(func() { close(a.ready) })
}
