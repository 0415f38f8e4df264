package leases

import (
	"context"
	"errors"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/problem"
)

// Trouble is why etcd, although it may answer, takes no write of this node: it has
// no space left, it denies us, or no session could be opened. Nil if the last one
// was taken. It passes by itself.
func (s *Session) Trouble() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.trouble
}

// inTheWay is why something waited in vain until ctx ended.
func (s *Session) inTheWay(ctx context.Context) error {
	if why := s.Trouble(); why != nil {
		return why
	}
	return context.Cause(ctx)
}

// needsPerson tells whether it is for a person to end a trouble.
func needsPerson(trouble error) bool {
	return cluster.IsPermissionDenied(trouble) || cluster.IsNoSpace(trouble)
}

// troubled notes why nothing can be written; nil takes it back.
func (s *Session) troubled(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trouble = why
}

// answered notes what an answer of etcd tells about writes in general: both space
// and permission are checked before a transaction's compares. One that only deletes
// needs no space.
func (s *Session) answered(err error, deletes bool) {
	switch {
	case cluster.IsNoSpace(err):
		s.troubled(noSpace())
	case cluster.IsPermissionDenied(err):
		s.troubled(deniedWrite(err))
	case err == nil && !deletes:
		s.troubled(nil)
	}
}

// errNoSpace is beneath every refusal for want of space. Etcd's own error, which
// leaves the outcome open, is not: it is known by then.
var errNoSpace = errors.New("etcd has no space left")

// noSpace is the refusal of a write that etcd has no room for.
func noSpace() *problem.Error {
	e := &problem.Error{Code: problem.CodeUnavailable, Detail: "etcd has no space left and takes no new data (alarm NOSPACE); nothing was done", Cause: errNoSpace}
	return e.Note("running processes, and what is granted, are not touched").
		Advise("make room, then end the alarm", "etcdctl compact REVISION; etcdctl defrag --cluster; etcdctl alarm disarm")
}

// deniedWrite is the refusal of a write that etcd does not let this agent make.
func deniedWrite(cause error) error {
	return problem.Wrap(problem.CodeForbidden, cause, "etcd refuses the write")
}

// probe asks etcd whether it still lets us read and, while there is trouble, or
// etcd's own status tells of some, whether it would take a write: a transaction that
// never applies is checked like one that does. One round trip.
func (s *Session) probe(ctx context.Context) {
	s.mu.Lock()
	g, trouble := s.guard, s.trouble
	s.mu.Unlock()
	key := s.client.Keys().Alive(s.id.Node)
	switch {
	case g == nil:
		return
	case trouble == nil && !s.audit.alarmed.Load():
		attempt, cancel := context.WithTimeout(ctx, s.client.Config().Attempt)
		defer cancel()
		if _, err := s.client.Txn().Get(attempt, key, clientv3.WithCountOnly()); cluster.IsPermissionDenied(err) {
			s.answered(err, true)
		}
		return
	}
	_, err := s.client.Commit(ctx, []clientv3.Cmp{clientv3.Compare(clientv3.Version(key), "<", 0)},
		[]clientv3.Op{clientv3.OpPut(key, string(g.alive), clientv3.WithLease(g.lease))}, nil)
	s.answered(err, false)
}

// decide brings a batch to an end that etcd refused for want of space. The answer
// comes once etcd is through with the transaction, so a read tells what became of
// it: nothing of it is applied later. What only deletes is returned, to be sent by
// itself: it needs no space.
func (b *batcher) decide(ctx context.Context, g *guard, batch []*child) (rest []*child) {
	mixed := !deletesOnly(batch)
	for len(batch) > 0 {
		part := batch[:1]
		for keys := len(batch[0].gets); len(part) < len(batch) && keys+len(batch[len(part)].gets) <= maxOps; part = batch[:len(part)+1] {
			keys += len(batch[len(part)].gets)
		}
		found, rev, err := b.look(ctx, part)
		for _, c := range part {
			switch {
			case err != nil:
				c.tried = true
				finish([]*child{c}, childResult{err: err})
			case c.checks() && c.standsIn(found):
				b.onWrite(rev)
				// Before it is told, as in distribute.
				_ = b.journal.note(b.written(nil, c, childResult{revision: rev, found: found}, g))
				finish([]*child{c}, childResult{applied: true, revision: rev})
			case mixed && c.deletes():
				rest = append(rest, c)
			default:
				finish([]*child{c}, childResult{err: noSpace()})
			}
		}
		batch = batch[len(part):]
	}
	return rest
}

// look reads what stands at the keys of some children, trying until ctx ends or the
// session is over for good.
func (b *batcher) look(ctx context.Context, part []*child) (found map[string]cluster.KV, rev int64, err error) {
	var gets []clientv3.Op
	for _, c := range part {
		for _, key := range c.gets {
			gets = append(gets, clientv3.OpGet(key))
		}
	}
	found = map[string]cluster.KV{}
	if len(gets) == 0 {
		return found, 0, nil
	}
	var wait cluster.Backoff
	for {
		resp, err := b.client.Read(ctx, gets...)
		if err == nil {
			for _, r := range resp.Responses {
				for _, kv := range r.GetResponseRange().GetKvs() {
					found[string(kv.Key)] = cluster.KV{Key: string(kv.Key), Value: kv.Value, CreateRev: kv.CreateRevision, ModRev: kv.ModRevision, Lease: kv.Lease}
				}
			}
			return found, resp.Header.Revision, nil
		}
		if fatal := b.session.Err(); fatal != nil || wait.Wait(ctx) != nil {
			return nil, 0, errors.Join(fatal, err)
		}
	}
}

// deletes tells whether the child writes nothing that takes space.
func (c *child) deletes() bool {
	for _, p := range c.puts {
		if p.value != nil {
			return false
		}
	}
	return true
}

func deletesOnly(batch []*child) bool {
	for _, c := range batch {
		if !c.deletes() {
			return false
		}
	}
	return true
}

// checks tells whether standsIn compares anything that the child puts.
func (c *child) checks() bool {
	for _, p := range c.puts {
		if !p.leased || p.sure {
			return true
		}
	}
	return false
}
