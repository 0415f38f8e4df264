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
	"github.com/idpool/idpool/test/e2e/robust/rig"
)

// silence is how long a watch may say nothing, progress neither, before it is
// given up for another.
const silence = 4 * time.Second

// history is every change below idpool's root from the first revision on, of every
// history that etcd has: a restore begins another one.
type history struct {
	db  *cluster.Client
	now func() time.Duration

	mu       sync.Mutex // guards the fields below
	changes  []record.Change
	cuts     []record.Cut
	again    context.CancelFunc // ends the present watch
	last     int64              // of the last change; watching goes on behind it
	told     int64              // a watch said that it has delivered everything up to here
	versions map[string]int64   // of each key; absent is deleted
	done     chan struct{}      // closed and made anew with every progress
}

func newHistory(db *cluster.Client, now func() time.Duration) *history {
	return &history{db: db, now: now, versions: map[string]int64{}, again: func() {}, done: make(chan struct{})}
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
	h.mu.Lock()
	h.again = cancel
	era, from := len(h.cuts), h.last+1
	h.mu.Unlock()
	stream := h.db.Watch().Watch(ctx, h.db.Keys().Root(), clientv3.WithPrefix(), clientv3.WithRev(from))
	ask := time.NewTicker(silence / 8)
	defer ask.Stop()
	heard := time.Now()
	for {
		select {
		case resp, ok := <-stream:
			switch {
			case !ok || h.over(era):
				return nil
			case resp.CompactRevision != 0:
				return fmt.Errorf("history before revision %d is compacted, and seen only to %d", resp.CompactRevision, h.seen())
			case resp.Err() != nil:
				return nil
			}
			heard = time.Now()
			if err := h.take(era, resp); err != nil {
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

// over tells whether a restore has ended an era.
func (h *history) over(era int) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.cuts) != era
}

// Cut begins another history: etcd was stopped, and goes on with what the present
// one had at an earlier revision. The versions of its keys are those of then, so what
// etcd does not have as it was shows.
func (h *history) Cut(r rig.Restored) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if r.Snapshot > max(h.last, h.told) {
		return fmt.Errorf("a snapshot of revision %d, and the history has %d", r.Snapshot, h.last)
	}
	versions, err := h.versionsAt(r.Snapshot)
	if err != nil {
		return err
	}
	h.cuts = append(h.cuts, record.Cut{Snapshot: r.Snapshot, Begins: r.Begins, Stopped: r.Stopped})
	h.versions, h.last, h.told = versions, r.Begins, 0
	h.again()
	return nil
}

// versionsAt counts the writes of each key up to a revision of the present era; mu
// is held.
func (h *history) versionsAt(revision int64) (map[string]int64, error) {
	versions, era := map[string]int64{}, len(h.cuts)
	if era > 0 && revision < h.cuts[era-1].Begins {
		return nil, fmt.Errorf("a snapshot of revision %d, and etcd was restored as %d since", revision, h.cuts[era-1].Begins)
	}
	for _, c := range h.changes {
		// Of an era before, what its restore took over.
		if c.Era > era || (c.Era == era && c.Revision > revision) || (c.Era < era && !h.survives(c)) {
			continue
		}
		if c.Value == nil {
			delete(versions, c.Key)
		} else {
			versions[c.Key]++
		}
	}
	return versions, nil
}

// survives tells whether a change of an earlier era was in all snapshots since.
func (h *history) survives(c record.Change) bool {
	return c.Revision <= h.cuts[c.Era].Snapshot
}

// take adds what a watch of an era delivered. A key's versions count its writes, so
// a change that was missed shows.
func (h *history) take(era int, resp clientv3.WatchResponse) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if era != len(h.cuts) {
		return nil
	}
	root := h.db.Keys().Root()
	for _, e := range resp.Events {
		key := strings.TrimPrefix(string(e.Kv.Key), root)
		c := record.Change{Era: era, Revision: e.Kv.ModRevision, Key: key, Seen: h.now()}
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

// Reach waits until the history has everything up to revision. Nothing may disturb
// the members meanwhile: a stream that is connected anew may promise too much.
func (h *history) Reach(ctx context.Context, revision int64) error {
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
