package robust

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/test/e2e/robust/record"
)

// silence is how long a watch may say nothing, progress neither, before it is
// given up for another.
const silence = 4 * time.Second

// history is every change below idpool's root from the first revision on.
type history struct {
	db  *cluster.Client
	now func() time.Duration

	mu       sync.Mutex // guards the fields below
	changes  []record.Change
	last     int64            // of the last change; watching goes on behind it
	told     int64            // a watch said that it has delivered everything up to here
	versions map[string]int64 // of each key; absent is deleted
	done     chan struct{}    // closed and made anew with every progress
}

func newHistory(db *cluster.Client, now func() time.Duration) *history {
	return &history{db: db, now: now, versions: map[string]int64{}, done: make(chan struct{})}
}

// seen is the revision of the last change: nothing behind it may be compacted.
func (h *history) seen() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last
}

// Run watches until ctx ends, from member to member, and always goes on behind the
// last revision seen. An error means that a part of the history is lost.
func (h *history) Run(ctx context.Context) error {
	back := cluster.Backoff{Min: 50 * time.Millisecond, Max: 500 * time.Millisecond}
	for ctx.Err() == nil {
		if err := h.watch(ctx); err != nil {
			return err
		}
		if back.Wait(ctx) != nil {
			break
		}
	}
	return nil
}

// watch is one watch, until it breaks.
func (h *history) watch(ctx context.Context) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	stream := h.db.Watch().Watch(ctx, h.db.Keys().Root(), clientv3.WithPrefix(), clientv3.WithRev(h.seen()+1))
	ask := time.NewTicker(silence / 8)
	defer ask.Stop()
	heard := time.Now()
	for {
		select {
		case resp, ok := <-stream:
			switch {
			case !ok:
				return nil
			case resp.CompactRevision != 0:
				return fmt.Errorf("history before revision %d is compacted, and seen only to %d", resp.CompactRevision, h.seen())
			case resp.Err() != nil:
				return nil
			}
			heard = time.Now()
			if err := h.take(resp); err != nil {
				return err
			}
		case <-ask.C:
			if time.Since(heard) > silence {
				return nil
			}
			attempt, done := context.WithTimeout(ctx, silence/8)
			_ = h.db.Watch().RequestProgress(attempt)
			done()
		}
	}
}

// take adds what a watch delivered. A key's versions count its writes, so a change
// that was missed shows.
func (h *history) take(resp clientv3.WatchResponse) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	root := h.db.Keys().Root()
	for _, e := range resp.Events {
		key := strings.TrimPrefix(string(e.Kv.Key), root)
		c := record.Change{Revision: e.Kv.ModRevision, Key: key, Seen: h.now()}
		if c.Revision <= h.last {
			return fmt.Errorf("revision %d came again behind %d", c.Revision, h.last)
		}
		if e.Type == clientv3.EventTypePut {
			c.Value, c.Lease = e.Kv.Value, e.Kv.Lease
			if c.Value == nil {
				c.Value = []byte{}
			}
			if e.Kv.Version != h.versions[key]+1 {
				return fmt.Errorf("%s is at version %d at revision %d, and the history has %d", key, e.Kv.Version, c.Revision, h.versions[key])
			}
			h.versions[key] = e.Kv.Version
		} else {
			if h.versions[key] == 0 {
				return fmt.Errorf("%s was deleted at revision %d, and the history has it not", key, c.Revision)
			}
			delete(h.versions, key)
		}
		h.changes = append(h.changes, c)
	}
	if n := len(resp.Events); n > 0 {
		h.last = resp.Events[n-1].Kv.ModRevision
	} else if resp.IsProgressNotify() {
		h.told = resp.Header.Revision
	}
	close(h.done)
	h.done = make(chan struct{})
	return nil
}

// reach waits until the history has everything up to revision. Nothing may disturb
// the members meanwhile: a stream that is connected anew may promise too much.
func (h *history) reach(ctx context.Context, revision int64) error {
	h.mu.Lock()
	h.told = 0
	h.mu.Unlock()
	for {
		h.mu.Lock()
		last, done := max(h.last, h.told), h.done
		h.mu.Unlock()
		if last >= revision {
			return nil
		}
		select {
		case <-done:
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("the history is complete to revision %d of %d", last, revision), context.Cause(ctx))
		}
	}
}

// left is what stands below claims/ and locks/ now, but the reaper's lock, and the
// revision it was read at.
func (h *history) left(ctx context.Context) (map[string][]byte, int64, error) {
	keys := h.db.Keys()
	resp, err := h.db.Read(ctx, clientv3.OpGet(keys.ClaimsPrefix(), clientv3.WithPrefix()), clientv3.OpGet(keys.LocksPrefix(), clientv3.WithPrefix()))
	if err != nil {
		return nil, 0, err
	}
	left := map[string][]byte{}
	for _, r := range resp.Responses {
		for _, kv := range r.GetResponseRange().Kvs {
			if string(kv.Key) != keys.ReaperLock() {
				left[strings.TrimPrefix(string(kv.Key), keys.Root())] = kv.Value
			}
		}
	}
	return left, resp.Header.Revision, nil
}
