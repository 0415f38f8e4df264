package robust

import (
	"context"
	"time"

	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/test/e2e/robust/record"
	"github.com/idpool/idpool/test/e2e/robust/rig"
)

const (
	// longHold is a hold in which a process may still be started.
	longHold = 30 * time.Second
	// startWithin is how long after its request a holder of longHold may begin to
	// start a process: a pause of the requester must not carry it past the hold.
	startWithin = 6 * time.Second
	// briefly is how long a process outlives its requester.
	briefly = 1200 * time.Millisecond
)

// jobs is a client that runs processes under uids, each in a requester: a process
// of its own on the node.
type jobs struct {
	*client
	idle map[*rig.Node]*requester
}

func newJobs(c *client) *actor {
	j := &jobs{client: c, idle: map[*rig.Node]*requester{}}
	return &actor{client: c, act: j.life, gone: j.gone}
}

// gone lets the requesters end.
func (j *jobs) gone() {
	for _, r := range j.idle {
		r.leave()
	}
	clear(j.idle)
}

// at is a requester on the node; back takes it for later use, if it still answers.
func (j *jobs) at(ctx context.Context, n *rig.Node) (*requester, error) {
	if r := j.idle[n]; r != nil && r.usable() {
		return r, nil
	}
	r, err := newRequester(ctx, n)
	if err != nil {
		return nil, err
	}
	if old := j.idle[n]; old != nil {
		old.leave()
	}
	j.idle[n] = r
	return r, nil
}

// grant is what a requester was given.
type grant struct {
	by        *requester
	key       string
	token     string
	requester string
	uids      []uint32
	until     time.Duration // nothing may be started after it
}

func (g *grant) ids() []record.ID {
	var ids []record.ID
	for _, u := range g.uids {
		ids = append(ids, uidID(u))
	}
	return ids
}

// want is a request for uids.
type want struct {
	pool  string
	count int
	key   string
	hold  string
	ttl   time.Duration
	wait  time.Duration
}

// request asks once. Where there is no answer the grant ends with its hold.
func (j *jobs) request(ctx context.Context, r *requester, q want) (g *grant, err error) {
	op := record.Op{Kind: record.RequestUID, Node: r.node.Name(), Key: q.key, Wants: []record.Want{{Pool: q.pool, Count: max(q.count, 1)}}}
	began := j.w.now()
	err = j.call(ctx, op, func(ctx context.Context, op *record.Op) error {
		a, err := r.request(ctx, q)
		if err != nil {
			return err
		}
		g = &grant{by: r, key: q.key, token: a.Token, requester: a.Requester, until: began + startWithin}
		for _, u := range a.Items {
			g.uids = append(g.uids, u.UID)
		}
		op.Token, op.Requester, op.IDs, op.Same = g.token, g.requester, g.ids(), a.Same
		return nil
	})
	return g, err
}

// about is an op that is about one id of the grant.
func (g *grant) about(kind record.Kind, uid uint32) record.Op {
	return record.Op{Kind: kind, Node: g.by.node.Name(), Key: g.key, Requester: g.requester, Token: g.token, IDs: []record.ID{uidID(uid)}}
}

// join makes the second node's requester another party of the grant.
func (j *jobs) join(ctx context.Context, g *grant, r *requester, hold string) (h *grant, err error) {
	uid := g.uids[0]
	op := record.Op{Kind: record.JoinUID, Node: r.node.Name(), Token: g.token, IDs: []record.ID{uidID(uid)}}
	began := j.w.now()
	err = j.call(ctx, op, func(ctx context.Context, op *record.Op) error {
		a, err := r.join(ctx, uid, g.token, hold, longHold)
		if err == nil {
			h = &grant{by: r, token: g.token, requester: a.Requester, uids: []uint32{uid}, until: began + startWithin}
			op.Requester = a.Requester
		}
		return err
	})
	return h, err
}

// proc is a process under a uid.
type proc struct {
	*running
	by  *requester
	pid int
}

// start starts a process under a uid of the grant; nil where that may not be any
// more, or did not work.
func (j *jobs) start(ctx context.Context, g *grant, uid uint32) *proc {
	if j.w.now() > g.until {
		return nil
	}
	pid, err := g.by.start(ctx, uid, briefly)
	if err != nil {
		return nil
	}
	return &proc{running: j.w.journal.started(record.Process{Node: g.by.node.Name(), ID: uidID(uid), Token: g.token}), by: g.by, pid: pid}
}

// stop ends a process. It ran until then, if it was there to be ended.
func (j *jobs) stop(ctx context.Context, p *proc) {
	if p == nil {
		return
	}
	at := j.w.now()
	if p.by.end(ctx, p.pid) != nil {
		at = p.From // when it ended nobody knows
	}
	j.w.journal.ran(p.running, at)
}

// confirm says that the process runs; false: the grant is not the client's any more.
func (j *jobs) confirm(ctx context.Context, g *grant, uid uint32) bool {
	err := j.settled(ctx, func() error {
		if !g.by.usable() {
			return problem.New(problem.CodeLockLost, "who held uid %d is gone", uid)
		}
		return j.call(ctx, g.about(record.ConfirmUID, uid), func(ctx context.Context, _ *record.Op) error {
			return g.by.confirm(ctx, uid, g.token, g.requester)
		})
	})
	return err == nil
}

func (j *jobs) renew(ctx context.Context, g *grant, uid uint32, ttl time.Duration) error {
	return j.call(ctx, g.about(record.RenewUID, uid), func(ctx context.Context, _ *record.Op) error {
		return g.by.renew(ctx, uid, g.token, g.requester, ttl)
	})
}

// release gives back the requester's part, until that is certain.
func (j *jobs) release(ctx context.Context, g *grant, uid uint32) error {
	return j.settled(ctx, func() error {
		return j.call(ctx, g.about(record.ReleaseUID, uid), func(ctx context.Context, op *record.Op) error {
			r, err := g.by.node.API().UIDs().Release(ctx, uid, g.token, g.requester)
			op.Same = !r.Changed
			return err
		})
	})
}

// operate releases a uid from outside of any node, as an operator does.
func (j *jobs) operate(ctx context.Context, g *grant, uid uint32, token string) error {
	at := j.node()
	op := record.Op{Kind: record.ReleaseByOperator, Node: at.Name(), Token: token, IDs: []record.ID{uidID(uid)}}
	return j.settled(ctx, func() error {
		return j.call(ctx, op, func(ctx context.Context, op *record.Op) error {
			r, err := at.API().UIDs().Release(ctx, uid, token, "")
			op.Same = !r.Changed
			return err
		})
	})
}
