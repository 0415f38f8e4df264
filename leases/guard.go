package leases

import (
	"bytes"
	"context"
	"errors"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/problem"
)

// guard is what one attempt of a transaction compares and writes under.
type guard struct {
	alive, node, meta []byte
	epoch             string
	number            uint64 // of the epoch
	normal            bool   // the cluster's state
	lease             clientv3.LeaseID
}

// of brings the guard to a meta record.
func (g *guard) of(m cluster.Meta, raw []byte) {
	g.meta, g.epoch, g.number, g.normal = raw, m.Epoch, m.Number, m.State == cluster.StateNormal
}

func (g *guard) compares(k cluster.Keys, node string) []clientv3.Cmp {
	return []clientv3.Cmp{
		clientv3.Compare(clientv3.Value(k.Meta()), "=", string(g.meta)),
		clientv3.Compare(clientv3.Value(k.Alive(node)), "=", string(g.alive)),
		clientv3.Compare(clientv3.Value(k.Node(node)), "=", string(g.node)),
	}
}

// raise makes every earlier attempt under g unable to apply any more (rule 11):
// a compare-and-put of the counter. It must succeed before anything whose
// outcome is unknown is repeated or read as final.
func (s *Session) raise(ctx context.Context, g *guard) error {
	s.raising.Lock()
	defer s.raising.Unlock()
	s.mu.Lock()
	now, alive := s.guard, s.alive
	s.mu.Unlock()
	if now == nil || !bytes.Equal(now.alive, g.alive) {
		return nil // raised, or the session has ended: a new one has other bytes
	}
	if err := s.audit.check(ctx); err != nil {
		if errors.Is(err, problem.ErrFrozen) {
			return s.freeze(err)
		}
		return err
	}
	alive.Counter++
	if err := s.home.change(func(m *memory) { m.Counter = alive.Counter }); err != nil {
		return s.fail(problem.Wrap(problem.CodeInternal, err, "raise the session's counter"))
	}
	next := *now
	next.alive = cluster.Encode(alive)
	return s.swapAlive(ctx, now, &next, alive)
}

// swapAlive replaces the presence's bytes, repeating the same bytes until the
// outcome is known.
func (s *Session) swapAlive(ctx context.Context, now, next *guard, alive Alive) error {
	key := s.client.Keys().Alive(s.id.Node)
	var wait cluster.Backoff
	for {
		resp, err := s.client.Commit(ctx,
			[]clientv3.Cmp{clientv3.Compare(clientv3.Value(key), "=", string(now.alive))},
			[]clientv3.Op{clientv3.OpPut(key, string(next.alive), clientv3.WithLease(now.lease))},
			[]clientv3.Op{clientv3.OpGet(key)})
		switch {
		case err == nil:
			kvs := []byte(nil)
			if !resp.Succeeded {
				kvs = value(resp.Responses[0])
			}
			return s.swapped(resp.Succeeded || bytes.Equal(kvs, next.alive), kvs, now, next, alive)
		case cluster.IsLeaseNotFound(err):
			s.lost(now, err)
			return nil
		}
		if err := wait.Wait(ctx); err != nil {
			return err
		}
	}
}

func (s *Session) swapped(ok bool, found []byte, now, next *guard, alive Alive) error {
	s.mu.Lock()
	over := s.guard == nil || !bytes.Equal(s.guard.alive, now.alive)
	s.mu.Unlock()
	switch {
	case over: // lost meanwhile; what stands there may be our next session
		return nil
	case ok:
		s.mu.Lock()
		s.alive = alive
		s.mu.Unlock()
		s.set(next)
		return nil
	case found == nil:
		s.lost(now, errors.New("the presence is gone"))
		return nil
	case s.adopt(now, found):
		return nil
	}
	return s.replaced(now, found)
}

// adopt takes a presence that an earlier attempt of ours wrote without our
// knowing: our nonce, and no counter that we have not written down.
func (s *Session) adopt(now *guard, found []byte) bool {
	a, err := decodeAlive(s.id.Node, found)
	s.mu.Lock()
	ours := err == nil && a.Nonce == s.alive.Nonce && a.Secret == s.alive.Secret && a.Counter > s.alive.Counter
	s.mu.Unlock()
	if !ours || a.Counter > s.home.get().Counter {
		return false
	}
	next := *now
	next.alive = found
	s.mu.Lock()
	s.alive = *a
	s.mu.Unlock()
	s.set(&next)
	return true
}

// replaced ends the session, for good if another agent's presence stands in our
// place. One that cannot be read is nobody's: it is waited for.
func (s *Session) replaced(g *guard, found []byte) error {
	a, err := decodeAlive(s.id.Node, found)
	if err != nil {
		s.lost(g, Unread(s.client.Keys().Alive(s.id.Node), err))
		return nil
	}
	return s.fail(problem.New(problem.CodeFenced, "node %s is run by another agent now (%s); this one grants nothing any more", s.id.Node, address(a)).
		Advise("look", "poolctl node show %s", s.id.Node))
}

// refused reads what an outer refusal showed and brings the guard up to date.
// A nil error means: try again, with the guard that current returns.
func (s *Session) refused(g *guard, meta, alive, node []byte) error {
	s.raising.Lock() // a raise under way has written bytes that the guard has not yet
	defer s.raising.Unlock()
	s.mu.Lock()
	now := s.guard
	s.mu.Unlock()
	if now == nil || !bytes.Equal(now.alive, g.alive) {
		return nil
	}
	switch {
	case alive == nil:
		s.lost(g, errors.New("the presence is gone"))
		return nil
	case !bytes.Equal(alive, g.alive):
		if s.adopt(g, alive) {
			return nil
		}
		return s.replaced(g, alive)
	}
	if !bytes.Equal(node, g.node) {
		return s.nodeChanged(g, node)
	}
	if !bytes.Equal(meta, g.meta) {
		m, err := cluster.DecodeMeta(meta)
		if err != nil {
			return Unread(s.client.Keys().Meta(), err)
		}
		if m.State != cluster.StateNormal {
			return frozenBy(m)
		}
		next := *g
		next.of(m, meta)
		s.set(&next)
	}
	return nil
}

// nodeChanged takes a change of our registration that others made.
func (s *Session) nodeChanged(g *guard, raw []byte) error {
	n, err := decodeNode(s.id.Node, raw)
	switch {
	case raw == nil:
		return s.fail(problem.New(problem.CodeFenced, "node %s was removed from the cluster", s.id.Node).Advise("to register it again", "restart its agent"))
	case err != nil:
		return Unread(s.client.Keys().Node(s.id.Node), err)
	case n.State != nodeActive || n.Boot != s.id.Boot || n.Secret != s.home.SecretHash():
		return s.fail(problem.New(problem.CodeFenced, "node %s is %s since %s (%s): it grants nothing", s.id.Node, n.State, problem.Clock(n.Since), n.Reason).
			Advise("after a reboot", "poolctl node unfence %s", s.id.Node))
	}
	next := *g
	next.node = raw
	s.set(&next)
	return nil
}
