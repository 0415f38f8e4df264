package leases

import (
	"bytes"
	"context"
	"errors"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/problem"
)

// place is what stands at a node's place in etcd, read at one revision.
type place struct {
	meta              cluster.Meta
	metaRaw           []byte
	node              *Node
	nodeRaw           []byte
	alive             *Alive
	aliveRaw          []byte
	aliveLease        clientv3.LeaseID
	membersRev, proof int64
}

// readPlace reads it: one round trip, no commit.
func (s *Session) readPlace(ctx context.Context) (*place, error) {
	k, n := s.client.Keys(), s.id.Node
	resp, err := s.client.Read(ctx, clientv3.OpGet(k.Meta()), clientv3.OpGet(k.Node(n)), clientv3.OpGet(k.Alive(n)), clientv3.OpGet(k.Members()), clientv3.OpGet(k.Proof(n)))
	if err != nil {
		return nil, err
	}
	p := &place{}
	for i, r := range resp.Responses {
		kvs := r.GetResponseRange().Kvs
		if len(kvs) == 0 {
			continue
		}
		kv, raw := kvs[0], value(r)
		switch i {
		case 0:
			p.metaRaw = raw
			p.meta, err = cluster.DecodeMeta(kv.Value)
		case 1:
			p.nodeRaw = raw
			p.node, err = decodeNode(n, kv.Value)
		case 2:
			p.aliveRaw, p.aliveLease = raw, clientv3.LeaseID(kv.Lease)
			p.alive, err = decodeAlive(n, kv.Value)
		case 3:
			p.membersRev = kv.ModRevision
		case 4:
			p.proof = kv.ModRevision
		}
		if err != nil {
			return nil, Unread(string(kv.Key), err)
		}
	}
	if p.metaRaw == nil {
		return nil, problem.New(problem.CodeUnavailable, "etcd has no idpool cluster under %s", k.Root())
	}
	return p, nil
}

// open enters: a new lease, the presence under it and, where admit says so, the
// registration with members and a first proof. Three round trips and two commits
// (lease, transaction). Another's presence is waited for one TTL, that of an earlier boot
// of this machine two.
func (s *Session) open(ctx context.Context) error {
	if err := s.audited1(ctx); err != nil {
		return err
	}
	began := BootTime()
	var wait cluster.Backoff
	for {
		p, err := s.readPlace(ctx)
		if err != nil {
			return err
		}
		mem, node := returning(s.id, s.home.get(), p.meta, p.node, s.home.SecretHash())
		a := admit(s.id, s.home.SecretHash(), mem, node, p.alive, time.Now().UTC())
		switch {
		case a.wait > 0 && BootTime() < began+time.Duration(a.wait)*s.client.Config().LeaseTTL+2*time.Second:
			if err := wait.Wait(ctx); err != nil {
				return err
			}
			continue
		case a.err != nil:
			return a.err
		}
		done, err := s.enter(ctx, p, a)
		if done || err != nil {
			return err
		}
		if err := wait.Wait(ctx); err != nil { // somebody wrote in between
			return err
		}
	}
}

// enter writes what admit decided. False without an error means that the place
// changed meanwhile.
func (s *Session) enter(ctx context.Context, p *place, a admission) (bool, error) {
	ttl := s.client.Config().LeaseTTL
	attempt, cancel := context.WithTimeout(ctx, s.client.Config().Attempt)
	defer cancel()
	sent := BootTime()
	lease, err := s.client.Renew().Grant(attempt, int64(ttl/time.Second))
	if err != nil {
		return false, problem.Wrap(problem.CodeUnavailable, err, "etcd lease for node %s", s.id.Node)
	}
	s.mu.Lock()
	noProof := s.noProof
	s.mu.Unlock()
	alive := Alive{V: format, Of: s.id.Node, Nonce: NewToken(), Counter: 1, Machine: s.id.Machine, Secret: s.home.SecretHash(), Version: s.id.Version, PID: s.id.PID, Address: s.id.Address, NoProof: noProof}
	if err := s.home.change(func(m *memory) { m.entering(alive, p.alive) }); err != nil {
		return false, problem.Wrap(problem.CodeInvalid, err, "agent of node %s", s.id.Node)
	}
	next := &guard{alive: cluster.Encode(alive), node: p.nodeRaw, lease: lease.ID}
	next.of(p.meta, p.metaRaw)
	cmps, puts := s.entry(ctx, p, a, next)
	ok, err := s.commitEntry(ctx, next, cmps, puts)
	if err != nil || !ok {
		s.revoke(ctx, lease.ID)
		return false, err
	}
	s.mu.Lock()
	s.alive, s.deadline = alive, sent+time.Duration(lease.TTL)*time.Second
	s.mu.Unlock()
	if a.takeOver && p.aliveLease != 0 {
		s.inherit(p.aliveLease)
	}
	_ = s.home.change(func(m *memory) {
		m.Boot, m.Left = s.id.Boot, false
		if m.Epoch == "" && p.meta.State == cluster.StateNormal { // it holds nothing that it could assert
			m.Epoch = p.meta.Epoch
		}
		if m.Epoch == p.meta.Epoch {
			m.Cluster = lease.ResponseHeader.GetClusterId()
		}
	})
	s.set(next)
	s.log.Info("session opened", zap.String("node", s.id.Node), zap.Bool("registered", a.register != nil), zap.Bool("took_over", a.takeOver))
	return true, nil
}

// entry builds the transaction's compares and puts; it sets next.node.
func (s *Session) entry(ctx context.Context, p *place, a admission, next *guard) ([]clientv3.Cmp, []clientv3.Op) {
	k, n := s.client.Keys(), s.id.Node
	cmps := []clientv3.Cmp{
		clientv3.Compare(clientv3.Value(k.Meta()), "=", string(p.metaRaw)),
		sameValue(k.Node(n), p.nodeRaw), sameValue(k.Alive(n), p.aliveRaw),
	}
	// Whoever weighs a claim must notice that this node is up (rule 9).
	cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(k.Members()), "=", p.membersRev))
	puts := []clientv3.Op{clientv3.OpPut(k.Alive(n), string(next.alive), clientv3.WithLease(next.lease)), putMembers(k, n, "enter")}
	if a.register == nil {
		return cmps, puts
	}
	a.register.Of, a.register.Epoch, a.register.Write = n, p.meta.Epoch, shortToken()
	next.node = cluster.Encode(a.register)
	puts = append(puts, clientv3.OpPut(k.Node(n), string(next.node)))
	if epoch := s.home.Epoch(); epoch != "" && epoch != p.meta.Epoch {
		return cmps, puts // what the mirror shows is of another history: nothing is proven by it
	}
	if proof := s.proof(ctx); proof != nil {
		proof.Epoch, proof.Boot, proof.Machine = p.meta.Epoch, s.id.Boot, s.id.Machine
		cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(k.Proof(n)), "=", p.proof))
		puts = append(puts, clientv3.OpPut(k.Proof(n), string(cluster.Encode(proof))))
	}
	return cmps, puts
}

func putMembers(k cluster.Keys, by, did string) clientv3.Op {
	return clientv3.OpPut(k.Members(), string(cluster.Encode(Members{V: format, By: by, Did: did, Write: shortToken()})))
}

// sameValue compares a key with bytes read before; nil means that it was absent.
func sameValue(key string, raw []byte) clientv3.Cmp {
	if raw == nil {
		return clientv3.Compare(clientv3.CreateRevision(key), "=", 0)
	}
	return clientv3.Compare(clientv3.Value(key), "=", string(raw))
}

// commitEntry repeats the same bytes until the outcome is known; our own
// presence found in place means that an earlier attempt won.
func (s *Session) commitEntry(ctx context.Context, next *guard, cmps []clientv3.Cmp, puts []clientv3.Op) (bool, error) {
	var wait cluster.Backoff
	for {
		resp, err := s.client.Commit(ctx, cmps, puts, []clientv3.Op{clientv3.OpGet(s.client.Keys().Alive(s.id.Node))})
		if err == nil {
			if resp.Succeeded {
				return true, nil
			}
			kvs := resp.Responses[0].GetResponseRange().Kvs
			return len(kvs) > 0 && bytes.Equal(kvs[0].Value, next.alive), nil
		}
		if errors.Is(err, problem.ErrForbidden) || cluster.IsPermissionDenied(err) {
			return false, problem.Wrap(problem.CodeForbidden, err, "etcd denies node %s its keys under %s", s.id.Node, s.client.Keys().Root())
		}
		if cluster.IsLeaseNotFound(err) {
			return false, nil
		}
		if wait.Wait(ctx) != nil {
			return false, problem.Wrap(problem.CodeUnavailable, err, "register node %s", s.id.Node)
		}
	}
}

// revoke ends a lease that is of no use any more; its own expiry would too.
func (s *Session) revoke(ctx context.Context, lease clientv3.LeaseID) {
	attempt, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.client.Config().Attempt)
	defer cancel()
	if _, err := s.client.Renew().Revoke(attempt, lease); err != nil && !cluster.IsLeaseNotFound(err) {
		s.log.Debug("lease not revoked", zap.Error(err))
	}
}

// close ends the session on a clean stop, and leaves its lease: presence and locks
// are the successor's, which takes them over, or they go at the end of the TTL.
func (s *Session) close() {
	s.mu.Lock()
	g := s.guard
	s.mu.Unlock()
	if g != nil {
		s.lost(g, errClosed)
	}
}

// leave writes left and deletes the presence, under the guard g: one commit. Then
// the session is over for good.
func (s *Session) leave(ctx context.Context, g *guard, node *Node, members int64) error {
	k, n := s.client.Keys(), s.id.Node
	raw := cluster.Encode(node)
	cmps := append(g.compares(k, n), clientv3.Compare(clientv3.ModRevision(k.Members()), "=", members))
	puts := []clientv3.Op{clientv3.OpPut(k.Node(n), string(raw)), clientv3.OpDelete(k.Alive(n)), putMembers(k, n, "leave")}
	var wait cluster.Backoff
	for {
		resp, err := s.client.Commit(ctx, cmps, puts, []clientv3.Op{clientv3.OpGet(k.Node(n))})
		switch {
		case err == nil && (resp.Succeeded || bytes.Equal(value(resp.Responses[0]), raw)):
			s.mu.Lock()
			s.left = true
			s.mu.Unlock()
			_ = s.home.change(func(m *memory) { m.Left = true })
			_ = s.fail(problem.New(problem.CodeFenced, "node %s has left the cluster", n).Advise("to come back", "start its agent"))
			s.revoke(ctx, g.lease)
			return nil
		case err == nil:
			return problem.New(problem.CodeUnavailable, "node %s did not leave: something changed meanwhile; try again", n)
		case wait.Wait(ctx) != nil:
			s.lost(g, errors.New("leave has no answer")) // a new session: then it cannot be applied late
			return problem.Wrap(problem.CodeOutcomeUnknown, err, "etcd did not say whether node %s has left", n)
		}
	}
}
