package uidpool

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/idpool/idpool/problem"
)

// fakeScans counts scans that take a second each.
type fakeScans struct {
	mu    sync.Mutex
	count int
	fails error
}

func (f *fakeScans) scan(ctx context.Context) (*Snapshot, error) {
	began := time.Now()
	f.mu.Lock()
	f.count++
	fails := f.fails
	f.mu.Unlock()
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-time.After(time.Second):
	}
	if fails != nil {
		return nil, fails
	}
	return &Snapshot{Began: began, Ended: time.Now()}, nil
}

// sharedTest runs f in a bubble whose clock is its own.
func sharedTest(t *testing.T, f func(t *testing.T, s *Shared, scans *fakeScans)) {
	synctest.Test(t, func(t *testing.T) {
		scans := &fakeScans{}
		f(t, &Shared{scan: scans.scan}, scans)
	})
}

// TestSharedOneScanForAll: those who come while a scan runs that began too
// early for them share the next one.
func TestSharedOneScanForAll(t *testing.T) {
	sharedTest(t, func(t *testing.T, s *Shared, scans *fakeScans) {
		var wait sync.WaitGroup
		ask := func() {
			wait.Go(func() {
				since := time.Now()
				snapshot, err := s.After(t.Context(), since)
				if err != nil || snapshot.Began.Before(since) {
					t.Errorf("a scan of %v for %v, %v", snapshot, since, err)
				}
			})
		}
		ask()
		synctest.Wait()
		<-time.After(500 * time.Millisecond) // of the bubble's own clock
		for range 20 {
			ask()
		}
		wait.Wait()
		if scans.count != 2 {
			t.Errorf("%d scans; want 2", scans.count)
		}
	})
}

func TestSharedFresh(t *testing.T) {
	sharedTest(t, func(t *testing.T, s *Shared, scans *fakeScans) {
		ctx := t.Context()
		for _, step := range []struct {
			age  time.Duration
			want int
		}{{time.Minute, 1}, {time.Minute, 1}, {time.Second, 1}, {time.Second - 1, 2}, {0, 3}, {-time.Hour, 4}} {
			if _, err := s.Fresh(ctx, step.age); err != nil || scans.count != step.want {
				t.Errorf("at most %v old: %d scans so far, %v; want %d", step.age, scans.count, err, step.want)
			}
		}
		if _, err := s.After(ctx, time.Now().Add(1)); !errors.Is(err, problem.ErrInvalid) {
			t.Errorf("in the future: %v", err)
		}
	})
}

// TestSharedTakeOver: the caller that scans goes away; another scans instead.
func TestSharedTakeOver(t *testing.T) {
	sharedTest(t, func(t *testing.T, s *Shared, scans *fakeScans) {
		why := errors.New("went away")
		ctx, cancel := context.WithCancelCause(t.Context())
		since := time.Now()
		var wait sync.WaitGroup
		wait.Go(func() {
			if _, err := s.After(ctx, since); !errors.Is(err, why) {
				t.Errorf("%v; want the cause", err)
			}
		})
		synctest.Wait()
		for range 3 {
			wait.Go(func() {
				if _, err := s.After(t.Context(), since); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		cancel(why)
		wait.Wait()
		if scans.count != 2 {
			t.Errorf("%d scans; want 2", scans.count)
		}
		if _, err := s.After(ctx, since); !errors.Is(err, why) {
			t.Errorf("cancelled before: %v", err)
		}
	})
}

// TestSharedError: those whom a failed scan would have satisfied are told, and
// the next one tries again.
func TestSharedError(t *testing.T) {
	sharedTest(t, func(t *testing.T, s *Shared, scans *fakeScans) {
		scans.fails = errors.New("no procfs")
		since := time.Now()
		var wait sync.WaitGroup
		for range 3 {
			wait.Go(func() {
				if _, err := s.After(t.Context(), since); !errors.Is(err, scans.fails) {
					t.Errorf("%v; want %v", err, scans.fails)
				}
			})
		}
		wait.Wait()
		if scans.count != 1 {
			t.Errorf("%d scans; want 1", scans.count)
		}
		scans.fails = nil
		if _, err := s.After(t.Context(), since); err != nil || scans.count != 2 {
			t.Errorf("the next: %v, %d scans", err, scans.count)
		}
	})
}
