package vlan

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/leases"
)

const (
	// glance is how often the worker looks when nothing tells it to.
	glance = 200 * time.Millisecond
	// workers is how many services a node works on at a time.
	workers = 8
	// longestRetry bounds the pause after an outside inventory could not be asked.
	longestRetry = 30 * time.Second
)

// Run does this node's part for all services until ctx ends: what it has to ask
// of the outside inventories that it keeps, holds that ended, deletions, and
// failed services a day later. Run it once a process, beside the engine's Run.
//
// A look reads the mirror; it writes, one round trip and one commit a step, only
// where there is something to do.
func (a *Allocator) Run(ctx context.Context) error {
	select {
	case <-a.engine.Ready():
	case <-ctx.Done():
		return nil
	}
	g, inner := errgroup.WithContext(ctx) // works in etcd alone
	g.SetLimit(workers)
	outside, _ := errgroup.WithContext(ctx) // may wait for outside inventories
	outside.SetLimit(workers)
	c := &crew{a: a, all: map[string]*watched{}, idle: make(chan struct{}, 1)}
	tick := time.NewTicker(glance)
	defer tick.Stop()
	for ctx.Err() == nil {
		changes := a.engine.Mirror().Changes()
		began := time.Now()
		for name, asks := range c.look(inner) {
			lane := g
			if asks {
				lane = outside
			}
			if !lane.TryGo(func() error { c.work(inner, name, asks); return nil }) {
				c.free(name)
			}
		}
		pause := time.NewTimer(10 * time.Since(began)) // a busy mirror must not make this loop spin
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
		pause.Stop()
		select {
		case <-changes:
		case <-tick.C:
		case <-c.idle:
		case <-ctx.Done():
		}
	}
	_ = outside.Wait()
	return g.Wait()
}

// asks tells whether a task waits for an outside inventory.
func (t todo) asks() bool {
	return t.task == taskAllocate || t.task == taskAsk || t.task == taskRelease || t.task == taskReread
}

// crew is the work of a running allocator.
type crew struct {
	a    *Allocator
	idle chan struct{} // a service was left: look again

	mu  sync.Mutex          // guards the fields below
	all map[string]*watched // services, by name
}

// watched is a service as this process knows it.
type watched struct {
	rev      int64
	s        *Service  // nil: its record cannot be read
	unlocked time.Time // since when it has had no lock, zero while it has one
	busy     bool      // somebody of this process works on it
	failures int
	pause    time.Time // not before
}

// look takes in what the mirror shows and returns the services to work on now,
// marked as busy, and whether that asks an outside inventory.
func (c *crew) look(ctx context.Context) map[string]bool {
	docs := c.a.engine.Documents(ctx)
	keepers := c.a.keepers()
	c.mu.Lock()
	defer c.mu.Unlock()
	known := make(map[string]bool, len(docs))
	names := map[string]bool{}
	for _, d := range docs {
		known[d.Name] = true
		w := c.all[d.Name]
		if w == nil {
			w = &watched{}
			c.all[d.Name] = w
		}
		w.take(d, c.a.log)
		if w.s == nil || w.busy || time.Now().Before(w.pause) {
			continue
		}
		if t := next(w.s, c.a.situation(d, w.unlocked, keepers)); t.task != taskNone && t.wait == 0 {
			w.busy = true
			names[d.Name] = t.asks()
		}
	}
	for name, w := range c.all {
		if !known[name] && !w.busy {
			delete(c.all, name)
		}
	}
	return names
}

// take notes what the mirror shows of a service.
func (w *watched) take(d leases.Document, log *zap.Logger) {
	switch {
	case d.Lock != "":
		w.unlocked = time.Time{}
	case w.unlocked.IsZero():
		w.unlocked = time.Now()
	}
	if w.rev == d.ModRev {
		return
	}
	w.rev = d.ModRev
	s, err := decode(d.Name, d.Raw)
	if err != nil {
		log.Warn("service cannot be read", zap.String("service", d.Name), zap.Error(err))
		s = nil
	}
	if w.s != nil && s != nil && (w.s.State != s.State || w.s.Token != s.Token || w.s.Delete != s.Delete) {
		w.pause = time.Time{} // another matter than what was put off
	}
	w.s = s
}

// free marks a service as not worked on.
func (c *crew) free(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if w := c.all[name]; w != nil {
		w.busy = false
	}
}

// leave ends the work on a service, for a while after an error.
func (c *crew) leave(name string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if w := c.all[name]; w != nil {
		w.busy = false
		w.failures++
		if err == nil {
			w.failures = 0
		}
		w.pause = time.Now().Add(retryAfter(w.failures))
	}
	select {
	case c.idle <- struct{}{}:
	default:
	}
}

// retryAfter is the pause after so many errors in a row.
func retryAfter(failures int) time.Duration {
	if failures == 0 {
		return 0
	}
	return min(longestRetry, glance<<min(failures, 10))
}

// work does for a service what is this node's to do, until nothing is that belongs
// on this lane.
func (c *crew) work(ctx context.Context, name string, asks bool) {
	var err error
	defer func() { c.leave(name, err) }()
	for overtaken := 0; ctx.Err() == nil; {
		d, ok := c.a.engine.Document(ctx, name)
		var s *Service
		if s, err = read(d, ok); s == nil {
			return
		}
		c.mu.Lock()
		unlocked := time.Now()
		if w := c.all[name]; w != nil && w.rev == d.ModRev && !w.unlocked.IsZero() {
			unlocked = w.unlocked
		}
		c.mu.Unlock()
		t := next(s, c.a.situation(d, unlocked, c.a.keepers()))
		if t.task == taskNone || t.wait > 0 || (t.asks() && !asks) {
			return
		}
		switch err = c.a.do(ctx, s, t); {
		case errors.Is(err, errOvertaken), errors.Is(err, leases.ErrChanged):
			if overtaken++; overtaken > 3 {
				return // later
			}
			err = nil
		case err != nil:
			if ctx.Err() == nil {
				c.a.log.Warn("service not worked on; trying again", zap.String("service", name), zap.Error(err))
			}
			return
		default:
			overtaken = 0
		}
	}
}

// keepers looks up each inventory at most once.
func (a *Allocator) keepers() func(string) (string, time.Duration) {
	type keeper struct {
		node   string
		settle time.Duration
	}
	known := map[string]keeper{}
	return func(inventory string) (string, time.Duration) {
		k, ok := known[inventory]
		if !ok {
			k.node, k.settle = a.keeper(inventory)
			known[inventory] = k
		}
		return k.node, k.settle
	}
}

// situation is what this process sees around a record.
func (a *Allocator) situation(d leases.Document, unlocked time.Time, keeper func(string) (string, time.Duration)) situation {
	x := situation{
		node: a.engine.Node(), boot: a.engine.Boot(), lock: d.Lock, mine: a.mine, seen: time.Since(d.Since), elected: a.engine.Elected(),
		over: func(r leases.Requester) bool { return !a.engine.LiveRequester(r) }, peer: a.peer, keeper: keeper,
	}
	if !unlocked.IsZero() {
		x.unlocked = min(x.seen, time.Since(unlocked))
	}
	return x
}

// peer tells how a node is. One that is not registered any more is off.
func (a *Allocator) peer(name string) peer {
	boot, up, known := a.engine.NodeUp(name)
	if up || !known {
		return peer{up: up, boot: boot, unknown: !known}
	}
	info, err := a.engine.NodeNamed(name)
	return peer{boot: boot, off: err != nil || (info.State != "active" && info.State != leases.NodeAbsent)}
}

// again repeats f while it cannot be told what became of it, or nothing did,
// until ctx ends.
func again(ctx context.Context, f func() error) error {
	var wait cluster.Backoff
	for {
		err := f()
		if err == nil || !passing(err) || wait.Wait(ctx) != nil {
			return err
		}
	}
}
