package leases

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/problem"
)

// Stored is a record as it stands in etcd: its value decoded, and the bytes
// that a transaction compares. Both are shared and must not be changed.
type Stored[T any] struct {
	Val       *T
	Raw       []byte
	ModRev    int64
	CreateRev int64
}

// Mirror is this process's copy of everything under the root, always at one
// etcd revision. It suggests; transactions decide. A stale mirror says so and
// gives no hints.
type Mirror struct {
	keys cluster.Keys
	self string
	log  *zap.Logger

	mu sync.RWMutex // guards the fields below
	view
	stale   error
	changed chan struct{} // closed and replaced at every change
}

// NewMirror returns an empty mirror for a node; feed it with
// [cluster.Client.Follow].
func NewMirror(keys cluster.Keys, self string, log *zap.Logger) *Mirror {
	return &Mirror{keys: keys, self: self, log: log, view: newView(), stale: problem.New(problem.CodeUnavailable, "etcd has not been read yet"), changed: make(chan struct{})}
}

// Reset replaces everything (cluster.Follower).
func (m *Mirror) Reset(rev int64, kvs []cluster.KV) {
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.view
	m.view = newView()
	m.lastSeen = old.lastSeen
	for _, kv := range kvs {
		m.put(kv)
	}
	m.keepClocks(&old)
	m.rev, m.stale = rev, nil
	m.broadcast()
}

// keepClocks carries over since when unchanged things were seen.
func (m *Mirror) keepClocks(old *view) {
	for _, c := range []struct{ now, old map[Ref]time.Time }{{m.quarantined, old.quarantined}, {m.idle, old.idle}} {
		for ref := range c.now {
			if since, ok := c.old[ref]; ok && m.claims[ref].ModRev == old.claims[ref].ModRev {
				c.now[ref] = since
			}
		}
	}
	for name, d := range m.documents {
		if was, ok := old.documents[name]; ok && was.ModRev == d.ModRev {
			d.Since = was.Since
			m.documents[name] = d
		}
	}
	for key := range m.over {
		if since, ok := old.over[key]; ok && m.records[key].ModRev == old.records[key].ModRev {
			m.over[key] = since
		}
	}
}

// Apply takes changes in order (cluster.Follower).
func (m *Mirror) Apply(rev int64, events []cluster.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range events {
		if e.Deleted {
			m.delete(e.Key)
		} else {
			m.put(e.KV)
		}
	}
	m.rev = max(m.rev, rev)
	m.broadcast()
}

// Progress notes that nothing happened up to rev (cluster.Follower).
func (m *Mirror) Progress(rev int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if rev > m.rev {
		m.rev = rev
		m.broadcast()
	}
}

// Stale notes that the watch broke (cluster.Follower).
func (m *Mirror) Stale(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stale = problem.Wrap(problem.CodeUnavailable, err, "etcd's watch broke")
	m.broadcast()
}

func (m *Mirror) broadcast() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// read runs f under the read lock. f must not keep the view.
func (m *Mirror) read(f func(*view)) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	f(&m.view)
}

// wait runs cond under the read lock, now and after every change, until it is
// true or ctx ends.
func (m *Mirror) wait(ctx context.Context, cond func(*view) bool) error {
	for {
		m.mu.RLock()
		ok, changed := cond(&m.view), m.changed
		m.mu.RUnlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Changes returns a channel that is closed at the next change.
func (m *Mirror) Changes() <-chan struct{} {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.changed
}

// Revision is the etcd revision that the mirror has seen, and why it gives no
// hints, nil if it does.
func (m *Mirror) Revision() (int64, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.rev, m.stale
}
