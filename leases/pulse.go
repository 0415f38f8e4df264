package leases

import (
	"context"
	"sync/atomic"
	"time"
)

// pulse is when a loop last made a step: each is bounded, by a budget or a scan.
type pulse struct{ at atomic.Pointer[time.Time] }

type pulseKey struct{}

// begin starts the pulse; stop ends it. What runs under ctx beats it.
func (p *pulse) begin(ctx context.Context) (inner context.Context, stop func()) {
	inner = context.WithValue(ctx, pulseKey{}, p)
	beat(inner)
	return inner, func() { p.at.Store(nil) }
}

// beat notes a step of the loop that ctx belongs to, if it belongs to one.
func beat(ctx context.Context) {
	if p, ok := ctx.Value(pulseKey{}).(*pulse); ok {
		now := time.Now()
		p.at.Store(&now)
	}
}

// Pulse tells by loop how long ago it last made a step; a loop that has not begun,
// or has ended, is left out. One that does not move for minutes is stuck: an etcd
// that does not answer, however long, keeps none of them.
func (a *Allocator) Pulse() map[string]time.Duration {
	all := map[string]time.Duration{}
	for name, p := range map[string]*pulse{"janitor": &a.janitorPulse, "reaper": &a.reaperPulse} {
		if at := p.at.Load(); at != nil {
			all[name] = time.Since(*at)
		}
	}
	return all
}
