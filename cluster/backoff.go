package cluster

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff spaces repetitions: each wait is random between half and all of a
// bound that doubles from Min to Max. The zero value starts at 50 ms and ends
// at 2 s. Not safe for concurrent use.
type Backoff struct {
	Min, Max time.Duration
	bound    time.Duration
}

// Wait waits once and returns the cause if ctx ends first, at once if it has
// ended.
func (b *Backoff) Wait(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	t := time.NewTimer(b.next())
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Reset starts from Min again.
func (b *Backoff) Reset() { b.bound = 0 }

func (b *Backoff) next() time.Duration {
	low, high := b.Min, b.Max
	if low <= 0 {
		low = 50 * time.Millisecond
	}
	if high <= 0 {
		high = 2 * time.Second
	}
	if b.bound == 0 {
		b.bound = low
	} else {
		b.bound *= 2
	}
	b.bound = min(b.bound, max(low, high))
	return b.bound/2 + rand.N(b.bound/2+1)
}
