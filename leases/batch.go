package leases

import (
	"context"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/problem"
)

const (
	// maxChildren bounds a batch; etcd allows 127 (ETCD.md).
	maxChildren = 64
	// maxBytes keeps a batch below etcd's request limit of 1.5 MiB.
	maxBytes = 1 << 20
	// inFlight is how many batches are under way at a time. More give little.
	inFlight = 4
)

// batcher shares transactions between concurrent operations. While a batch is
// under way the next one gathers, so waiting costs at most the previous commit.
type batcher struct {
	client  *cluster.Client
	session *Session
	queue   chan *child
	onWrite func(rev int64)
	hooks   *Hooks
	journal *Journal // may be nil
	// send is client.Commit; tests put a network between that loses and delays.
	send func(ctx context.Context, cmps []clientv3.Cmp, then, els []clientv3.Op) (*clientv3.TxnResponse, error)

	mu     sync.Mutex    // guards the fields below
	paused bool          // no further attempt is made
	active int           // attempts under way
	idle   chan struct{} // closed when active falls to 0 while paused
}

// errPaused is what operations meet while the node leaves.
var errPaused = problem.New(problem.CodeUnavailable, "the node is leaving the cluster and writes nothing any more")

// pause lets no further attempt begin and waits for those under way: then, once
// the session's counter is raised, nothing of ours can be applied any more
// (rule 37).
func (b *batcher) pause(ctx context.Context) error {
	b.mu.Lock()
	b.paused = true
	idle := make(chan struct{})
	b.idle = idle
	if b.active == 0 {
		close(idle)
		b.idle = nil
	}
	b.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return problem.Wrap(problem.CodeUnavailable, context.Cause(ctx), "writes to etcd are still under way")
	}
}

func (b *batcher) resume() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.paused = false
}

// begin counts an attempt; false while paused.
func (b *batcher) begin() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.paused {
		b.active++
	}
	return !b.paused
}

func (b *batcher) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.active--; b.active == 0 && b.idle != nil {
		close(b.idle)
		b.idle = nil
	}
}

func newBatcher(client *cluster.Client, session *Session, onWrite func(int64)) *batcher {
	return &batcher{client: client, session: session, queue: make(chan *child, 4096), onWrite: onWrite, send: client.Commit}
}

// submit hands a child over and waits for a certain result until ctx ends. Then
// the outcome is unknown to the caller; the batcher goes on until it is known
// and tells the child's orphan function.
func (b *batcher) submit(ctx context.Context, c *child) childResult {
	if n := c.cost(); n > maxOps {
		return childResult{err: problem.New(problem.CodeInvalid, "the operation needs %d compares or writes: at most %d fit one etcd transaction", n, maxOps)}
	}
	c.done, c.gen = make(chan childResult, 1), b.session.gen.Load()
	for _, p := range c.puts {
		c.size += len(p.key) + len(p.value)
	}
	select {
	case b.queue <- c:
	case <-ctx.Done():
		return childResult{err: problem.Wrap(problem.CodeUnavailable, context.Cause(ctx), "too many operations wait for etcd; nothing was done")}
	}
	select {
	case r := <-c.done:
		return r
	case <-ctx.Done():
	}
	switch c.stage.Swap(stageLeft) {
	case stageQueued:
		return childResult{err: problem.Wrap(problem.CodeUnavailable, b.session.inTheWay(ctx), "etcd cannot be written to; nothing was done")}
	case stageDone:
		return <-c.done
	}
	return childResult{err: problem.Wrap(problem.CodeOutcomeUnknown, context.Cause(ctx), "etcd did not answer in time")}
}

// submit is the batcher's, as a step of the operation that point names.
func (a *Allocator) submit(ctx context.Context, point string, c *child) (r childResult) {
	r.err = a.seam.Do(point, func() error {
		r = a.commit(ctx, c)
		return r.err
	})
	return r
}

// Run commits until ctx ends. inFlight workers take what has gathered.
func (b *batcher) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for range inFlight {
		g.Go(func() error {
			for {
				batch := b.gather(ctx)
				if batch == nil {
					return nil
				}
				b.commit(ctx, batch)
			}
		})
	}
	return g.Wait()
}

// gather takes the first child that comes and what has gathered behind it.
func (b *batcher) gather(ctx context.Context) []*child {
	var batch []*child
	select {
	case c := <-b.queue:
		batch = append(batch, c)
	case <-ctx.Done():
		return nil
	}
	for size := batch[0].size; len(batch) < maxChildren && size < maxBytes; {
		select {
		case c := <-b.queue:
			batch, size = append(batch, c), size+c.size
		default:
			return batch
		}
	}
	return batch
}

// commit takes a batch to a certain end: repeats after raising the session's
// counter while the outcome is unknown, splits what one bad child would spoil.
func (b *batcher) commit(ctx context.Context, batch []*child) {
	for _, part := range distinct(batch) {
		b.settle(ctx, part)
	}
}

// distinct splits a batch so that no key is written twice in one transaction.
func distinct(batch []*child) [][]*child {
	var parts [][]*child
	var written []map[string]bool
next:
	for _, c := range batch {
		for i, keys := range written {
			if fits(parts[i], c) && !overlaps(keys, c) {
				for _, p := range c.puts {
					keys[p.key] = true
				}
				parts[i] = append(parts[i], c)
				continue next
			}
		}
		keys := map[string]bool{}
		for _, p := range c.puts {
			keys[p.key] = true
		}
		parts, written = append(parts, []*child{c}), append(written, keys)
	}
	return parts
}

// settle commits children whose keys are distinct.
func (b *batcher) settle(ctx context.Context, batch []*child) {
	var wait cluster.Backoff
	for {
		g, err := b.session.current(ctx)
		if err != nil {
			finish(batch, childResult{err: err})
			return
		}
		if batch = send(batch); len(batch) == 0 {
			return
		}
		if !b.begin() {
			finish(batch, childResult{err: errPaused})
			return
		}
		if batch = b.ofThisEpoch(batch); len(batch) == 0 {
			b.end()
			return
		}
		began := time.Now()
		resp, err := b.attempt(ctx, g, batch)
		b.hooks.committed(len(batch), resp, err, time.Since(began))
		b.end()
		b.session.answered(err, deletesOnly(batch))
		switch {
		case err == nil && resp.Succeeded:
			b.distribute(batch, resp, g)
			return
		case err != nil && (cluster.IsPermissionDenied(err) || cluster.IsMalformed(err)):
			b.split(ctx, batch, err)
			return
		case err != nil && cluster.IsNoSpace(err):
			batch = b.decide(ctx, g, batch)
			continue
		}
		if err := b.again(ctx, g, batch, resp, err); err != nil {
			finish(batch, childResult{err: err})
			return
		}
		if wait.Wait(ctx) != nil {
			err := b.session.Err()
			if err == nil {
				err = problem.New(problem.CodeUnavailable, "the agent stops; nothing was done")
			}
			finish(batch, childResult{err: err})
			return
		}
	}
}

// again prepares the next attempt after one that did not decide the batch: the
// guard is brought up to date, and after an unknown outcome the session's counter
// is raised first. An error ends the batch.
func (b *batcher) again(ctx context.Context, g *guard, batch []*child, resp *clientv3.TxnResponse, err error) error {
	switch {
	case err == nil:
		r := resp.Responses
		if err := b.session.refused(g, value(r[0]), value(r[1]), value(r[2])); err != nil {
			return err
		}
	case cluster.IsLeaseNotFound(err):
		b.session.lost(g, err)
	case cluster.Classify(err) == cluster.Unknown:
		for _, c := range batch {
			c.tried = true
		}
		var wait cluster.Backoff
		for err := b.session.raise(ctx, g); err != nil; err = b.session.raise(ctx, g) {
			if b.session.Err() != nil || wait.Wait(ctx) != nil {
				return err
			}
		}
	}
	for _, c := range batch {
		if !c.tried {
			c.stage.CompareAndSwap(stageSent, stageQueued)
		}
	}
	return nil
}

// split commits each child by itself, so that the one etcd rejects is found.
func (b *batcher) split(ctx context.Context, batch []*child, err error) {
	if len(batch) == 1 {
		finish(batch, childResult{err: deniedWrite(err)})
		return
	}
	for _, c := range batch {
		b.settle(ctx, []*child{c})
	}
}

// send marks the children as sent and drops those whose callers have gone and
// which were certainly not applied.
func send(batch []*child) []*child {
	kept := make([]*child, 0, len(batch))
	for _, c := range batch {
		if c.tried || c.stage.Load() == stageSent || c.stage.CompareAndSwap(stageQueued, stageSent) {
			kept = append(kept, c)
		} else if c.stage.Swap(stageDone) == stageLeft && c.orphan != nil {
			c.orphan(childResult{})
		}
	}
	return kept
}

// attempt sends one transaction: the guard outside, a child transaction each.
// One round trip, one commit.
func (b *batcher) attempt(ctx context.Context, g *guard, batch []*child) (*clientv3.TxnResponse, error) {
	k, n := b.client.Keys(), b.session.id.Node
	then := make([]clientv3.Op, len(batch))
	for i, c := range batch {
		puts := make([]clientv3.Op, len(c.puts))
		for j, p := range c.puts {
			switch {
			case p.value == nil:
				puts[j] = clientv3.OpDelete(p.key)
			case p.leased:
				puts[j] = clientv3.OpPut(p.key, string(p.value), clientv3.WithLease(g.lease))
			default:
				puts[j] = clientv3.OpPut(p.key, string(p.value))
			}
		}
		gets := make([]clientv3.Op, len(c.gets))
		for j, key := range c.gets {
			gets[j] = clientv3.OpGet(key)
		}
		if c.settles() {
			then[i] = clientv3.OpTxn(nil, gets, nil)
			continue
		}
		then[i] = clientv3.OpTxn(c.cmps, puts, gets)
	}
	return b.send(ctx, g.compares(k, n), then, []clientv3.Op{clientv3.OpGet(k.Meta()), clientv3.OpGet(k.Alive(n)), clientv3.OpGet(k.Node(n))})
}

// value is what a read found: nil where there is no such key, and not nil where it
// stands empty.
func value(r *pb.ResponseOp) []byte {
	if kvs := r.GetResponseRange().GetKvs(); len(kvs) > 0 {
		return append([]byte{}, kvs[0].Value...)
	}
	return nil
}

// distribute tells each child its result. A child that was refused, or only read,
// and whose writes stand in etcd to the byte was applied by an earlier attempt (rule 18).
func (b *batcher) distribute(batch []*child, resp *clientv3.TxnResponse, g *guard) {
	b.onWrite(resp.Header.Revision)
	results := make([]childResult, len(batch))
	var wrote []jentry
	for i, c := range batch {
		sub := resp.Responses[i].GetResponseTxn()
		r := childResult{applied: sub.Succeeded && !c.settles(), revision: resp.Header.Revision}
		if !r.applied {
			r.found = map[string]cluster.KV{}
			for _, got := range sub.Responses {
				for _, kv := range got.GetResponseRange().GetKvs() {
					r.found[string(kv.Key)] = cluster.KV{Key: string(kv.Key), Value: kv.Value, CreateRev: kv.CreateRevision, ModRev: kv.ModRevision, Lease: kv.Lease}
				}
			}
			r.applied = c.tried && c.standsIn(r.found)
		}
		if r.applied {
			wrote = b.written(wrote, c, r, g)
		}
		results[i] = r
	}
	// Before anybody is told: what was handed out must not be forgotten. An error
	// keeps the next grants back.
	_ = b.journal.note(wrote)
	for i, c := range batch {
		finish([]*child{c}, results[i])
	}
}

// ofThisEpoch ends children that were decided in an epoch that is over: what they
// rest on is of another history.
func (b *batcher) ofThisEpoch(batch []*child) []*child {
	gen := b.session.gen.Load()
	kept := batch[:0:len(batch)]
	for _, c := range batch {
		if c.gen == gen {
			kept = append(kept, c)
			continue
		}
		finish([]*child{c}, childResult{err: problem.New(problem.CodeUnavailable, "etcd was restored meanwhile; nothing was done in it").Advise("look, and ask again", "poolctl status")})
	}
	return kept
}
