package robust

import (
	"context"
	"time"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/test/e2e/robust/record"
	"github.com/idpool/idpool/test/e2e/robust/rig"
)

// life is that of one grant, in one of its kinds.
func (j *jobs) life(ctx, traffic context.Context) {
	defer func() { _ = j.w.pause(traffic, j.between(30, 300)) }()
	j.tidy(ctx)
	kind := j.rnd.IntN(100)
	r, err := j.at(ctx, j.node())
	if err != nil {
		_ = j.w.pause(traffic, 300*time.Millisecond)
		return
	}
	switch {
	case kind < 30:
		j.plain(ctx, traffic, r, want{pool: poolJobs, hold: api.HoldTTL, ttl: longHold})
	case kind < 46:
		j.plain(ctx, traffic, r, want{pool: poolJobs, hold: api.HoldPID})
	case kind < 54:
		j.dies(ctx, traffic, r, false)
	case kind < 64:
		j.dies(ctx, traffic, r, true)
	case kind < 76:
		j.repeats(ctx, traffic, r)
	case kind < 86:
		j.joined(ctx, traffic, r)
	case kind < 91:
		j.foreign(ctx, traffic, r)
	case kind < 96:
		j.taken(ctx, traffic, r)
	default:
		j.lapses(ctx, traffic, r)
	}
}

// work is a process that runs for a while, confirmed, and ends.
func (j *jobs) work(ctx, traffic context.Context, g *grant, uid uint32) {
	p := j.start(ctx, g, uid)
	if p != nil && j.confirm(ctx, g, uid) {
		_ = j.w.pause(traffic, j.between(20, 500))
	}
	j.stop(ctx, p)
}

// plain is a request, a process, its end, and the release, which may be late or sent
// twice.
func (j *jobs) plain(ctx, traffic context.Context, r *requester, q want) {
	g, err := j.request(ctx, r, q)
	if err != nil {
		return
	}
	uid := g.uids[0]
	if j.chance(15) { // released while the process runs: the uid must wait for its end
		p := j.start(ctx, g, uid)
		_ = j.release(ctx, g, uid)
		_ = j.w.pause(traffic, j.between(100, 700))
		j.stop(ctx, p)
		return
	}
	j.work(ctx, traffic, g, uid)
	_ = j.release(ctx, g, uid)
	if j.chance(25) {
		_ = j.w.pause(traffic, j.between(10, 400))
		_ = j.release(ctx, g, uid) // over: touches nobody
	}
}

// dies is a requester that ends before it confirmed; its process may go on.
func (j *jobs) dies(ctx, traffic context.Context, r *requester, process bool) {
	g, err := j.request(ctx, r, want{pool: poolJobs, hold: api.HoldPID})
	if err != nil {
		return
	}
	delete(j.idle, r.node)
	var p *proc
	if process {
		p = j.start(ctx, g, g.uids[0])
	}
	at := j.w.now()
	r.leave()
	if p == nil {
		return
	}
	// Nobody is there to ask; it ends by itself, and not before its time.
	_ = j.w.pause(traffic, briefly)
	j.w.journal.ran(p.running, at+briefly-100*time.Millisecond)
}

// repeats is a request under a key that is sent again, here and elsewhere, and
// refused where it is another.
func (j *jobs) repeats(ctx, traffic context.Context, r *requester) {
	q := want{pool: poolJobs, key: j.key(), hold: api.HoldTTL, ttl: longHold}
	gone := j.later(q.key, func(ctx context.Context) error { return j.releaseKey(ctx, q.key) })
	var g *grant
	err := j.settled(ctx, func() (err error) {
		if !r.usable() { // another program goes on with the key
			next, err := j.at(ctx, r.node)
			if err != nil {
				return problem.Wrap(problem.CodeUnavailable, err, "no requester on %s", r.node.Name())
			}
			r = next
		}
		g, err = j.request(ctx, r, q)
		return err
	})
	if err != nil {
		if problem.CodeOf(err) == problem.CodeExhausted {
			gone()
		}
		return
	}
	_, _ = j.request(ctx, r, q)
	if far, err := j.at(ctx, j.other(r.node)); err == nil && j.chance(60) {
		_, _ = j.request(ctx, far, q) // one more party, on another node: it starts nothing
	}
	if j.chance(50) {
		other := q
		other.count = 2
		_, _ = j.request(ctx, r, other)
	}
	j.work(ctx, traffic, g, g.uids[0])
	if j.releaseKey(ctx, q.key) == nil {
		gone()
	}
	if j.chance(50) {
		_, _ = j.request(ctx, r, q) // over: refused
	}
}

// releaseKey ends the grant of a key on all nodes.
func (j *jobs) releaseKey(ctx context.Context, key string) error {
	var last error
	for _, at := range j.w.rig.Nodes() {
		err := j.settled(ctx, func() error {
			return j.call(ctx, record.Op{Kind: record.ReleaseUID, Node: at.Name(), Key: key}, func(ctx context.Context, op *record.Op) error {
				r, err := at.API().UIDs().ReleaseKey(ctx, key)
				op.Same = !r.Changed
				return err
			})
		})
		if err != nil && problem.CodeOf(err) != problem.CodeNotFound {
			last = err
		}
	}
	return last
}

// joined is a grant that a second node joins, with a process on each.
func (j *jobs) joined(ctx, traffic context.Context, r *requester) {
	g, err := j.request(ctx, r, want{pool: poolJobs, hold: api.HoldTTL, ttl: longHold})
	if err != nil {
		return
	}
	uid := g.uids[0]
	p := j.start(ctx, g, uid)
	if p != nil && j.confirm(ctx, g, uid) {
		if far, err := j.at(ctx, j.other(r.node)); err == nil {
			hold := []string{api.HoldTTL, api.HoldPID}[j.rnd.IntN(2)]
			if h, err := j.join(ctx, g, far, hold); err == nil {
				j.work(ctx, traffic, h, uid)
				_ = j.release(ctx, h, uid)
			}
		}
	}
	j.stop(ctx, p)
	_ = j.release(ctx, g, uid)
}

// foreign is a release with a token that is not the grant's, which must touch
// nothing, and then the right one.
func (j *jobs) foreign(ctx, traffic context.Context, r *requester) {
	g, err := j.request(ctx, r, want{pool: poolJobs, hold: api.HoldTTL, ttl: longHold})
	if err != nil {
		return
	}
	uid := g.uids[0]
	p := j.start(ctx, g, uid)
	wrong := *g
	wrong.token, wrong.requester = "NOT"+g.token, ""
	_ = j.release(ctx, &wrong, uid)
	_ = j.confirm(ctx, g, uid)
	_ = j.operate(ctx, g, uid, wrong.token)
	_ = j.w.pause(traffic, j.between(20, 200))
	j.stop(ctx, p)
	_ = j.release(ctx, g, uid)
}

// taken is a grant that an operator ends, perhaps while its process runs.
func (j *jobs) taken(ctx, traffic context.Context, r *requester) {
	g, err := j.request(ctx, r, want{pool: poolJobs, hold: api.HoldTTL, ttl: longHold})
	if err != nil {
		return
	}
	uid := g.uids[0]
	p := j.start(ctx, g, uid)
	if p == nil || !j.confirm(ctx, g, uid) {
		j.stop(ctx, p)
		_ = j.release(ctx, g, uid)
		return
	}
	_ = j.operate(ctx, g, uid, g.token)
	_ = j.w.pause(traffic, j.between(50, 600))
	j.stop(ctx, p)
	_ = j.release(ctx, g, uid) // over already
}

// lapses is a short hold that is renewed and then forgotten: nothing is started
// under it.
func (j *jobs) lapses(ctx, traffic context.Context, r *requester) {
	g, err := j.request(ctx, r, want{pool: poolJobs, hold: api.HoldTTL, ttl: 2 * time.Second})
	if err != nil {
		return
	}
	for range 2 {
		_ = j.w.pause(traffic, j.between(300, 900))
		if j.renew(ctx, g, g.uids[0], 2*time.Second) != nil {
			return
		}
	}
}

// newRanks is a client that asks for several uids at once, and runs a process under
// each.
func newRanks(c *client) *actor {
	j := &jobs{client: c, idle: map[*rig.Node]*requester{}}
	return &actor{client: c, gone: j.gone, act: func(ctx, traffic context.Context) {
		defer func() { _ = j.w.pause(traffic, j.between(100, 500)) }()
		r, err := j.at(ctx, j.node())
		if err != nil {
			_ = j.w.pause(traffic, 300*time.Millisecond)
			return
		}
		g, err := j.request(ctx, r, want{pool: poolRanks, count: 2 + j.rnd.IntN(3), hold: api.HoldTTL, ttl: longHold})
		if err != nil {
			return
		}
		for _, uid := range g.uids {
			j.work(ctx, traffic, g, uid)
		}
		for _, uid := range g.uids {
			_ = j.release(ctx, g, uid)
		}
	}}
}
