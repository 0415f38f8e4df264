package cluster

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc/metadata"

	"github.com/idpool/idpool/problem"
)

// followPage is how many keys one request of a list asks for.
const followPage = 2000

// quietTicks is how many attempts' time a watch may be silent before its
// revision is compared with a linearizable read; twice that ends it.
const quietTicks = 3

// KV is a key and its value, at the revisions that etcd gave it.
type KV struct {
	Key               string
	Value             []byte
	CreateRev, ModRev int64
	Lease             int64
}

// Event is one change of a key. A deletion has the key and, as ModRev, its
// revision, and nothing else.
type Event struct {
	KV
	Deleted bool
}

// Follower takes what [Client.Follow] delivers, from one goroutine, one call at
// a time. A call must not block: what it does not take is buffered without
// bound by etcd's client.
type Follower interface {
	// Reset replaces everything: all keys at revision rev, in key order. It is
	// called at first and after every resync; rev may be lower than before.
	Reset(rev int64, kvs []KV)
	// Apply delivers the events of one or several whole revisions, in order. All
	// revisions up to rev have then been delivered.
	Apply(rev int64, events []Event)
	// Progress says that nothing else happened up to rev.
	Progress(rev int64)
	// Stale says that the watch broke, or that no list could be had: what is
	// known must not be trusted until the next Reset.
	Stale(err error)
}

// errWatchEnded stands in where a watch ends without saying why.
var errWatchEnded = errors.New("watch ended without an error")

// Follow lists everything below prefix at one revision and then delivers every
// later change, until ctx ends; it returns the cause. Whatever breaks the watch
// leads to Stale, a jittered wait, a new list and Reset: its end with or
// without an error, a stream that was reconnected, compaction, a revision or
// cluster id that does not fit, and silence while etcd has gone on.
//
// Progress is asked for while nothing happens, about once in Config.Attempt,
// so that a healthy follower's revision is never much older than that, whatever
// etcd's own notify interval.
func (c *Client) Follow(ctx context.Context, prefix string, f Follower) error {
	if prefix == "" {
		panic("bug: Follow of the empty prefix")
	}
	stream := c.newFollowStream()
	wait := Backoff{Min: 200 * time.Millisecond}
	for {
		one := follow{c: c, stream: stream, prefix: prefix, f: f, broken: stream.breaks.next()}
		err := one.run(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		f.Stale(err)
		c.log.Warn("watch broke, listing again", zap.String("prefix", prefix), zap.Error(err))
		if one.settled {
			wait.Reset()
		}
		if err := wait.Wait(ctx); err != nil {
			return err
		}
	}
}

// RequestProgress asks etcd to tell all followers of this client the revision
// they are at; the answer comes by Progress, or by nothing while a follower
// lags. It returns once the requests are queued and does nothing while nobody
// follows.
func (c *Client) RequestProgress(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Attempt)
	defer cancel()
	// Held to the end: a request on a stream that has ended would open it again.
	c.mu.RLock()
	defer c.mu.RUnlock()
	for s := range c.follows {
		if err := c.watch.RequestProgress(s.context(ctx)); err != nil {
			return fmt.Errorf("request progress: %w", cause(ctx, err))
		}
	}
	return nil
}

// followStream is one Follow's own gRPC stream. A progress notice answers for
// all watches that its stream had when it was made, and could overtake the first
// events of one opened since; so no two followers share one.
type followStream struct {
	name   string
	breaks *breaks
}

func (c *Client) newFollowStream() *followStream {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.streams++
	return &followStream{name: strconv.FormatUint(c.streams, 10), breaks: newBreaks()}
}

// context names the stream: etcd's client keeps one a set of metadata.
func (s *followStream) context(ctx context.Context) context.Context {
	md := metadata.Pairs("idpool-follow", s.name)
	return leaderContext(metadata.NewOutgoingContext(context.WithValue(ctx, breaksKey{}, s.breaks), md))
}

func (c *Client) register(s *followStream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.follows[s] = struct{}{}
}

func (c *Client) unregister(s *followStream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.follows, s)
}

// follow is one list and the watch after it.
type follow struct {
	c      *Client
	stream *followStream
	prefix string
	f      Follower
	// broken closes when a stream broke since before the list.
	broken <-chan struct{}

	clusterID uint64
	// listed is the revision of the list, at what has been delivered up to.
	listed, at int64
	// settled: the watch has delivered something, so the next wait is short.
	settled bool
}

// run returns why the watch ended, never nil.
func (w *follow) run(ctx context.Context) error {
	kvs, err := w.list(ctx)
	if err != nil {
		return fmt.Errorf("list %s: %w", w.prefix, err)
	}
	w.at = w.listed
	w.f.Reset(w.listed, kvs)

	watchCtx, cancel := context.WithCancel(w.stream.context(ctx))
	defer cancel()
	// Watch itself waits for a connection for ever.
	bound := time.AfterFunc(w.c.cfg.Attempt, cancel)
	// From the listed revision itself, whose events are dropped: etcd answers no
	// progress request while a watch starts in the future.
	events := w.c.watch.Watch(watchCtx, w.prefix, clientv3.WithPrefix(), clientv3.WithRev(w.listed),
		clientv3.WithFragment(), clientv3.WithProgressNotify())
	if !bound.Stop() {
		return fmt.Errorf("watch could not be opened within %v", w.c.cfg.Attempt)
	}
	w.c.register(w.stream)
	defer w.c.unregister(w.stream)
	return w.loop(ctx, events)
}

func (w *follow) loop(ctx context.Context, events clientv3.WatchChan) error {
	tick := time.NewTicker(w.c.cfg.Attempt)
	defer tick.Stop()
	quiet := 0
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-w.broken:
			return errors.New("watch stream was disconnected")
		case resp, ok := <-events:
			if !ok {
				return errWatchEnded
			}
			if err := w.take(resp); err != nil {
				return err
			}
			quiet = 0
		case <-tick.C:
			quiet++
			if err := w.onQuiet(ctx, quiet); err != nil {
				return err
			}
		}
	}
}

// onQuiet asks a silent watch for its revision; when that brings nothing it
// asks etcd itself.
func (w *follow) onQuiet(ctx context.Context, quiet int) error {
	if quiet%quietTicks != 0 {
		ctx, cancel := context.WithTimeout(w.stream.context(ctx), w.c.cfg.Attempt)
		defer cancel()
		// An error here shows as silence.
		_ = w.c.watch.RequestProgress(ctx)
		return nil
	}
	rev, id, err := w.revision(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("watch is silent: %w", err)
	case id != w.clusterID || rev < w.at:
		return w.misfit(rev, id)
	case rev == w.at:
		w.f.Progress(rev)
	case quiet >= 2*quietTicks:
		return fmt.Errorf("watch is silent at revision %d while etcd is at %d", w.at, rev)
	}
	return nil
}

func (w *follow) misfit(rev int64, id uint64) error {
	return fmt.Errorf("etcd went back or is another: revision %d of cluster %x after revision %d of cluster %x", rev, id, w.at, w.clusterID)
}

// take delivers one response.
func (w *follow) take(resp clientv3.WatchResponse) error {
	if err := resp.Err(); err != nil {
		return err
	}
	rev, id := resp.Header.GetRevision(), resp.Header.GetClusterId()
	if id != w.clusterID {
		return w.misfit(rev, id)
	}
	if len(resp.Events) == 0 {
		if !resp.IsProgressNotify() {
			return nil
		}
		if rev < w.at {
			return w.misfit(rev, id)
		}
		w.at, w.settled = rev, true
		w.f.Progress(rev)
		return nil
	}
	out := make([]Event, 0, len(resp.Events))
	last := w.at
	for _, ev := range resp.Events {
		switch rev := ev.Kv.ModRevision; {
		case rev <= w.listed:
			continue
		case rev <= w.at || rev < last:
			return fmt.Errorf("etcd repeated revision %d after %d", rev, max(last, w.at))
		default:
			last = rev
		}
		out = append(out, Event{KV: toKV(ev.Kv), Deleted: ev.Type == mvccpb.DELETE})
	}
	if len(out) == 0 {
		return nil
	}
	// The header may be ahead of the last event while etcd catches us up.
	w.at, w.settled = last, true
	w.f.Apply(last, out)
	return nil
}

func toKV(kv *mvccpb.KeyValue) KV {
	return KV{Key: string(kv.Key), Value: kv.Value, CreateRev: kv.CreateRevision, ModRev: kv.ModRevision, Lease: kv.Lease}
}

// list reads everything below the prefix, page by page at the revision of the
// first page.
func (w *follow) list(ctx context.Context) ([]KV, error) {
	var out []KV
	from, end := w.prefix, clientv3.GetPrefixRangeEnd(w.prefix)
	for {
		resp, err := w.listPage(ctx, from, end)
		if err != nil {
			return nil, err
		}
		if w.listed == 0 {
			w.listed, w.clusterID = resp.Header.Revision, resp.Header.ClusterId
		} else if resp.Header.ClusterId != w.clusterID {
			return nil, w.misfit(resp.Header.Revision, resp.Header.ClusterId)
		}
		for _, kv := range resp.Kvs {
			out = append(out, toKV(kv))
		}
		if !resp.More {
			return out, nil
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
}

// List reads everything below a prefix at one revision, in key order, over the
// connection of watches. Errors as [Client.Read].
func (c *Client) List(ctx context.Context, prefix string) ([]KV, int64, error) {
	w := follow{c: c, prefix: prefix}
	kvs, err := w.list(ctx)
	switch {
	case IsPermissionDenied(err):
		return nil, 0, problem.Wrap(problem.CodeForbidden, err, "list %s", prefix)
	case err != nil:
		return nil, 0, problem.Wrap(problem.CodeUnavailable, err, "list %s", prefix)
	}
	return kvs, w.listed, nil
}

func (w *follow) listPage(ctx context.Context, from, end string) (*clientv3.GetResponse, error) {
	ctx, cancel := context.WithTimeout(leaderContext(ctx), w.c.cfg.Budget)
	defer cancel()
	return w.c.watch.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(w.c.page), clientv3.WithRev(w.listed),
		clientv3.WithSort(clientv3.SortByKey, clientv3.SortAscend))
}

// revision reads etcd's current revision, linearizably.
func (w *follow) revision(ctx context.Context) (rev int64, clusterID uint64, err error) {
	ctx, cancel := context.WithTimeout(leaderContext(ctx), w.c.cfg.Attempt)
	defer cancel()
	resp, err := w.c.txn.Get(ctx, w.c.keys.Meta(), clientv3.WithCountOnly())
	if err != nil {
		return 0, 0, err
	}
	return resp.Header.Revision, resp.Header.ClusterId, nil
}
