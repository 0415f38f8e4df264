package leases

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/seam"
)

// MaxGroup is how many ids one grant takes at most: a claim and a lock each must
// fit one etcd transaction with the record (128 operations).
const MaxGroup = 60

// Prover tells what is in use on this node. A uid's prover reads /proc.
type Prover interface {
	// InUse returns every id in use here, from a look that began at most maxAge
	// before the call; 0: that begins after it. An error means "cannot tell".
	InUse(ctx context.Context, maxAge time.Duration) (idset.Set, error)
	// Suspect is a cheap look at one id: true means certainly in use.
	Suspect(id uint32) bool
	// MayStart tells whether a requester of this boot could still start something
	// under the id: it lives, or what it left behind does and is not the id yet.
	// Doubt is true.
	MayStart(id uint32, r Requester) bool
	// Alive tells whether the process of a pid hold itself lives. Doubt is true.
	Alive(r Requester) bool
}

// Options configure an [Allocator].
type Options struct {
	Client   *cluster.Client
	Identity Identity
	Home     *Home
	// Journal, if set, is what is asserted after a restore of etcd; without one only
	// what runs here, and what this process has seen, is.
	Journal *Journal
	Prover  Prover
	Log     *zap.Logger
	// ScanEvery is how often the node looks for idle, orphaned and foreign ids
	// when nothing tells it to; 0 is 10 s.
	ScanEvery time.Duration
	// Hooks, if set, are told what the engine does.
	Hooks *Hooks
	// Also, if set, is told what the mirror is told, after it.
	Also cluster.Follower
	// Seam, if set, is where tests break what an operation does; see package seam.
	Seam seam.Seam
}

// Allocator grants, confirms, releases and frees ids for one node. Make it with
// [New], run it with [Allocator.Run].
type Allocator struct {
	client *cluster.Client
	keys   cluster.Keys
	id     Identity
	log    *zap.Logger
	prover Prover
	// When the loops last moved.
	janitorPulse, reaperPulse pulse

	scan    atomic.Int64 // nanoseconds between two scans without a reason
	seam    seam.Seam
	hooks   *Hooks
	mirror  *Mirror
	also    cluster.Follower
	session *Session
	gate    *gate
	journal *Journal
	batch   *batcher
	commit  func(context.Context, *child) childResult // batch.submit
	ready   chan struct{}
	nudge   chan struct{} // wakes the janitor

	mu     sync.Mutex    // guards the fields below
	wrote  int64         // highest revision of our own writes
	flying map[Ref]int64 // ids being granted: 0, or the revision the mirror must reach
	// cleared are the claims of which the last report here said that nothing is left.
	cleared map[Ref]int64
	keysNow map[string]*sf // one request per allocation key at a time
	rotated map[string]uint32
	leaving bool
	landed  chan struct{} // closed and replaced when flying shrinks
	stuckBy error         // why this node cannot say what it holds, nil if it can
	late    []Conflict    // found by an assertion after granting had resumed
	orphans []orphan      // granted, and nobody was told
}

// New prepares an allocator; nothing runs and nothing is written yet.
func New(o Options) *Allocator {
	a := &Allocator{
		client: o.Client, keys: o.Client.Keys(), id: o.Identity, log: o.Log, prover: o.Prover, also: o.Also, seam: o.Seam,
		ready: make(chan struct{}), nudge: make(chan struct{}, 1),
		flying: map[Ref]int64{}, keysNow: map[string]*sf{}, rotated: map[string]uint32{}, landed: make(chan struct{}),
	}
	if a.log == nil {
		a.log = zap.NewNop()
	}
	a.SetScanEvery(o.ScanEvery)
	a.mirror = NewMirror(a.keys, o.Identity.Node, a.log)
	a.journal = o.Journal
	a.session = newSession(o.Client, o.Identity, o.Home, o.Journal, a.log, a.firstProof)
	a.gate = newGate(a.mirror, a.session, o.Journal)
	if o.Journal != nil {
		a.session.missing = a.missing
	}
	a.batch = newBatcher(o.Client, a.session, a.noteWrite)
	a.batch.journal = o.Journal
	a.hooks, a.session.hooks, a.batch.hooks = o.Hooks, o.Hooks, o.Hooks
	a.commit = a.batch.submit
	return a
}

// SetScanEvery changes Options.ScanEvery, from the next look on.
func (a *Allocator) SetScanEvery(d time.Duration) {
	if d == 0 {
		d = 10 * time.Second
	}
	a.scan.Store(int64(d))
}

// Mirror is the allocator's copy of what etcd holds.
func (a *Allocator) Mirror() *Mirror { return a.mirror }

// Session is the allocator's session with etcd.
func (a *Allocator) Session() *Session { return a.session }

// Node is the name of the node it grants for.
func (a *Allocator) Node() string { return a.id.Node }

// Ready is closed once the node is registered and the mirror filled.
func (a *Allocator) Ready() <-chan struct{} { return a.ready }

// Run registers the node and works until ctx ends. It returns an error that a
// person must act on: the node is fenced, its name taken, etcd refuses it.
func (a *Allocator) Run(ctx context.Context) error {
	err := a.run(ctx, a.janitor, a.reap)
	a.session.close()
	return err
}

// run is Run with the given loops beside mirror, session and batcher, and leaves
// the session to its lease: what is left of an agent that was killed.
func (a *Allocator) run(ctx context.Context, loops ...func(context.Context) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.follow(ctx) })
	g.Go(func() error {
		if err := a.mirror.wait(ctx, func(v *view) bool { return v.rev > 0 }); err != nil {
			return nil
		}
		if err := a.enter(ctx); err != nil || ctx.Err() != nil {
			return err
		}
		g.Go(func() error { return a.session.Run(ctx) })
		g.Go(func() error { return a.recoverer(ctx) })
		g.Go(func() error { return a.batch.Run(ctx) })
		for _, loop := range loops {
			g.Go(func() error { return loop(ctx) })
		}
		a.seesItself(ctx)
		close(a.ready)
		return nil
	})
	return g.Wait()
}

// seesItself waits, for a moment, until the mirror shows this node's presence, so
// that the first thing asked of a ready node is not about a node nobody knows.
func (a *Allocator) seesItself(ctx context.Context) {
	short, cancel := context.WithTimeout(ctx, a.client.Config().Attempt)
	defer cancel()
	_ = a.mirror.wait(short, func(v *view) bool {
		_, up := v.alive[a.id.Node]
		return up
	})
}

// enter opens the first session, trying again while that can help.
func (a *Allocator) enter(ctx context.Context) error {
	var wait cluster.Backoff
	for {
		err := a.session.open(ctx)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return nil
		case terminal(err), errors.Is(err, problem.ErrFrozen):
			return a.session.fail(err)
		}
		a.log.Warn("node not registered yet", zap.String("node", a.id.Node), zap.Error(err))
		if wait.Wait(ctx) != nil {
			return nil
		}
	}
}

// follow keeps the mirror filled from etcd until ctx ends.
func (a *Allocator) follow(ctx context.Context) error {
	var f cluster.Follower = a.gate
	if a.also != nil {
		f = both{f, a.also}
	}
	if err := a.client.Follow(ctx, a.keys.Root(), f); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// noteWrite remembers how far our own writes are, so that the next operation
// waits until the mirror shows them.
func (a *Allocator) noteWrite(rev int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.wrote = max(a.wrote, rev)
}

// budget bounds one operation: all its attempts.
func (a *Allocator) budget(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, a.client.Config().Budget)
}

// wake tells the janitor to look at once.
func (a *Allocator) wake() {
	select {
	case a.nudge <- struct{}{}:
	default:
	}
}

// caught waits until the mirror shows our own writes, for a moment; a mirror
// that lags longer only costs the operation a refused transaction.
func (a *Allocator) caught(ctx context.Context) {
	a.mu.Lock()
	rev := a.wrote
	a.mu.Unlock()
	a.reach(ctx, rev, 250*time.Millisecond)
}

// reach waits until the mirror is at rev, at most for limit.
func (a *Allocator) reach(ctx context.Context, rev int64, limit time.Duration) bool {
	short, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return a.mirror.wait(short, func(v *view) bool { return v.rev >= rev }) == nil
}

// sf is one request in progress under an allocation key.
type sf struct{ done chan struct{} }

// single waits until no other request of this process works on the key (rule 21).
func (a *Allocator) single(ctx context.Context, key string) (func(), error) {
	for {
		a.mu.Lock()
		other := a.keysNow[key]
		if other == nil {
			mine := &sf{done: make(chan struct{})}
			a.keysNow[key] = mine
			a.mu.Unlock()
			return func() {
				a.mu.Lock()
				delete(a.keysNow, key)
				a.mu.Unlock()
				close(mine.done)
			}, nil
		}
		a.mu.Unlock()
		select {
		case <-other.done:
		case <-ctx.Done():
			return nil, problem.Wrap(problem.CodeUnavailable, context.Cause(ctx), "another request with this key is under way; this one did nothing")
		}
	}
}

// mayStart tells whether any of these requesters may still start something.
func (a *Allocator) mayStart(ref Ref, requesters []Requester) bool {
	return slices.ContainsFunc(requesters, func(r Requester) bool { return a.prover.MayStart(ref.ID, r) })
}
