package uidpool

import (
	"context"
	"sync"
	"time"

	"github.com/idpool/idpool/problem"
)

// Shared lets one scan answer for everybody who waits: a scan proves what it
// proves for each uid whose claim was written before it began. It has no
// goroutine of its own; one of the callers scans and the others wait for it.
// All methods are safe for concurrent use.
type Shared struct {
	scan func(context.Context) (*Snapshot, error)

	mu      sync.Mutex // guards the fields below
	last    *Snapshot  // the newest result, nil before the first
	running *sharedScan
}

// sharedScan is a scan under way. The results are set before done is closed.
type sharedScan struct {
	began time.Time
	done  chan struct{}

	snapshot *Snapshot
	err      error
	// abandoned: the caller that scanned gave up, which is no result.
	abandoned bool
}

// NewShared returns a Shared whose scans are r's.
func NewShared(r *Reader) *Shared { return &Shared{scan: r.Scan} }

// After returns a snapshot whose scan began at t or later, from a scan that is
// done or running if one satisfies it, else from a new one. t is a time that
// time.Now gave in this process, usually just now; a t in the future is
// refused with [problem.ErrInvalid]. Other errors are those of [Reader.Scan];
// everybody whom the scan would have satisfied gets them. When the caller that
// scans gives up, another one takes over.
func (s *Shared) After(ctx context.Context, t time.Time) (*Snapshot, error) {
	if now := time.Now(); t.After(now) {
		return nil, problem.New(problem.CodeInvalid, "a scan that begins %v from now cannot be had", t.Sub(now))
	}
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		snapshot, flight, mine := s.join(t)
		if snapshot != nil {
			return snapshot, nil
		}
		if mine {
			s.run(ctx, flight)
			return flight.snapshot, flight.err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-flight.done:
		}
		if !flight.abandoned && !flight.began.Before(t) {
			return flight.snapshot, flight.err
		}
	}
}

// Fresh returns a snapshot whose scan began at most maxAge ago; with 0 or less
// it is [Shared.After] now.
func (s *Shared) Fresh(ctx context.Context, maxAge time.Duration) (*Snapshot, error) {
	return s.After(ctx, time.Now().Add(-max(maxAge, 0)))
}

// join returns a snapshot that is good for t, or the scan to wait for, or a
// new one that the caller must run.
func (s *Shared) join(t time.Time) (done *Snapshot, flight *sharedScan, mine bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last != nil && !s.last.Began.Before(t) {
		return s.last, nil, false
	}
	if s.running != nil {
		return nil, s.running, false
	}
	s.running = &sharedScan{began: time.Now(), done: make(chan struct{})}
	return nil, s.running, true
}

// run scans for flight, and ends it even if the scan panics.
func (s *Shared) run(ctx context.Context, flight *sharedScan) {
	flight.abandoned = true
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if flight.snapshot != nil {
			s.last = flight.snapshot
		}
		s.running = nil
		close(flight.done)
	}()
	flight.snapshot, flight.err = s.scan(ctx)
	flight.abandoned = flight.err != nil && ctx.Err() != nil
}
