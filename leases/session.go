package leases

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/problem"
)

// Session is one agent's etcd lease, its presence alive/NODE under it, and the
// guard that every mutation compares: the presence's exact bytes, the node's
// registration and the cluster's epoch.
//
// A lost session is replaced by a new one by [Session.Run]; an identity that
// somebody else has ends it with [problem.ErrFenced].
type Session struct {
	client *cluster.Client
	id     Identity
	home   *Home
	audit  *audit
	log    *zap.Logger
	proof  func(context.Context) *Proof
	// missing says what of ours is not where the journal says that it must be, and
	// the meta record that stands there; "" if nothing. nil: no journal.
	missing func() (string, []byte)
	hooks   *Hooks
	// gen counts the epochs that this process has come to: what was decided in one is
	// not written in the next.
	gen atomic.Int64

	raising sync.Mutex // one raise at a time

	mu       sync.Mutex // guards the fields below
	guard    *guard     // nil while there is no live session
	alive    Alive
	deadline time.Duration // of the lease, on BootTime
	fatal    error
	blocked  error // why no session can be opened until a person acts, nil if one stands
	trouble  error // see Trouble
	heir     inheritance
	stood    bool // a session has stood in this process: the journal is in step with what it wrote
	left     bool // fatal, because the node has left: no failure
	noProof  string
	doubts   int           // how often etcd was reached anew
	audited  int           // the doubts that an audit has settled
	listed   int           // the doubts that the new list is there for
	changed  chan struct{} // closed and replaced when guard, fatal, doubts or audited change
}

// newSession prepares a session; proof makes the report that registering writes.
func newSession(client *cluster.Client, id Identity, home *Home, journal *Journal, log *zap.Logger, proof func(context.Context) *Proof) *Session {
	return &Session{
		client: client, id: id, home: home, log: log, proof: proof, changed: make(chan struct{}),
		audit: &audit{client: client, home: home, journal: journal, node: id.Node, log: log},
	}
}

// current returns the guard, waiting for a live session until ctx ends.
func (s *Session) current(ctx context.Context) (*guard, error) {
	for {
		s.mu.Lock()
		g, fatal, blocked, trouble, changed, sure := s.guard, s.fatal, s.blocked, s.trouble, s.changed, s.audited == s.doubts
		s.mu.Unlock()
		switch {
		case fatal != nil:
			return nil, fatal
		case g == nil && needsPerson(trouble): // waiting does not help
			return nil, problem.Wrap(problem.CodeUnavailable, trouble, "node %s has no session with etcd; nothing was done", s.id.Node)
		case blocked != nil:
			return nil, blocked
		case g != nil && sure:
			return g, s.unfit(g)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, problem.Wrap(problem.CodeUnavailable, s.inTheWay(ctx), "node %s has no session with etcd; nothing was done", s.id.Node)
		}
	}
}

// unfit refuses a guard under which this node may not write for anybody: the
// cluster is not normal, or in an epoch in which this node has not asserted yet what
// it holds.
func (s *Session) unfit(g *guard) error {
	if g.normal && g.epoch == s.home.Epoch() {
		return nil
	}
	m, err := cluster.DecodeMeta(g.meta)
	switch {
	case err != nil:
		return Unread(s.client.Keys().Meta(), err)
	case m.State != cluster.StateNormal:
		return frozenBy(m)
	case m.Epoch != s.home.Epoch():
		return problem.New(problem.CodeFrozen, "nothing is granted: etcd was restored, and node %s is about to say what it holds (epoch %d)", s.id.Node, m.Number).
			Note("running processes are not touched").
			Advise("look", "poolctl status")
	}
	return nil
}

// refusal is why this node may not write, as far as is known: fenced, frozen, or not
// there yet in the cluster's epoch; nil if none of it.
func (s *Session) refusal() error {
	s.mu.Lock()
	g, fatal, blocked := s.guard, s.fatal, s.blocked
	s.mu.Unlock()
	switch {
	case fatal != nil:
		return fatal
	case blocked != nil:
		return blocked
	case g != nil:
		return s.unfit(g)
	}
	return nil
}

// frozenBy is the refusal of everything while the cluster is not normal.
func frozenBy(m cluster.Meta) *problem.Error {
	if m.Adopted {
		return problem.New(problem.CodeFrozen, "nothing is granted: the cluster is recovering (epoch %d): the nodes say what they hold", m.Number).
			Note("running processes are not touched").
			Advise("who is waited for", "poolctl cluster adopt-restore --dry-run")
	}
	why := m.Reason
	if why == "" {
		why = "no reason is given"
	}
	return problem.New(problem.CodeFrozen, "nothing is granted: the cluster is recovering (epoch %d): etcd has gone back in time, says %s: %s", m.Number, named(m.By), why).
		Note("running processes are not touched").
		Advise("look", "poolctl status").
		Advise("when the restore was intended", "poolctl cluster adopt-restore --dry-run")
}

func named(by string) string {
	if by == "" {
		return "somebody"
	}
	return by
}

// standing is the guard of a session that stands and is sure of etcd, whatever the
// state of the cluster: for what a node asserts. nil if there is none.
func (s *Session) standing() *guard {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fatal != nil || s.blocked != nil || s.audited != s.doubts {
		return nil
	}
	return s.guard
}

// follow brings the guard up to a meta record.
func (s *Session) follow(m cluster.Meta, raw []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.guard == nil || bytes.Equal(s.guard.meta, raw) {
		return
	}
	next := *s.guard
	next.of(m, raw)
	s.guard = &next
	s.tell()
}

// Live tells whether the session stands, and its deadline on [BootTime]: past
// it, etcd may have ended it.
func (s *Session) Live() (time.Duration, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.deadline, s.guard != nil
}

// Err is why the session can never be again, nil while it can.
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fatal
}

func (s *Session) set(g *guard) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.guard, s.blocked, s.trouble, s.stood = g, nil, nil, true
	s.tell()
}

// tell wakes those who wait for a change. It needs the lock.
func (s *Session) tell() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *Session) fail(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.guard = nil
	if s.fatal == nil {
		s.fatal = err
		s.tell()
	}
	return s.fatal
}

// lost ends the session g, if it still is the one.
func (s *Session) lost(g *guard, why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.guard != nil && s.guard.lease == g.lease {
		s.guard = nil
		s.tell()
		s.log.Warn("session lost", zap.String("node", s.id.Node), zap.Error(why))
		s.hooks.lost(why)
	}
}

// Run keeps the session until ctx ends or the identity is somebody else's. After
// the node has left it does nothing until ctx ends. Start
// it after [Session.open] succeeded once. It renews each third of the TTL.
func (s *Session) Run(ctx context.Context) error {
	var wait cluster.Backoff
	for ctx.Err() == nil {
		if _, ok := s.Live(); !ok && s.Err() == nil {
			if err := s.open(ctx); err != nil {
				if terminal(err) {
					return s.fail(err)
				}
				if s.block(err) {
					s.log.Warn("session not opened", zap.String("node", s.id.Node), zap.Error(err))
				}
				s.troubled(err)
				_ = wait.Wait(ctx)
				continue
			}
			wait = cluster.Backoff{}
		}
		s.keep(ctx)
		if err := s.Err(); err != nil {
			if s.hasLeft() {
				<-ctx.Done()
				return nil
			}
			return err
		}
	}
	return nil
}

// block notes why no session can be opened, if that is for a person to mend: a record
// which cannot be read, or an etcd that has gone back in time. It tells whether err
// is news.
func (s *Session) block(err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.blocked
	s.blocked = nil
	if errors.Is(err, problem.ErrFrozen) {
		s.blocked = err
	}
	s.tell()
	return s.blocked == nil || was == nil || was.Error() != err.Error()
}

func (s *Session) hasLeft() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.left
}

// terminal tells whether trying again cannot help. What etcd denies it may allow
// again.
func terminal(err error) bool {
	return errors.Is(err, problem.ErrFenced) || errors.Is(err, problem.ErrInvalid)
}

// keep renews the lease until the session is lost or ctx ends. The deadline
// counts from the sending of the renewal that succeeded (ETCD rule 7).
func (s *Session) keep(ctx context.Context) {
	ttl := s.client.Config().LeaseTTL
	every := time.NewTicker(ttl / 6)
	defer every.Stop()
	for {
		s.mu.Lock()
		g, deadline, changed := s.guard, s.deadline, s.changed
		s.mu.Unlock()
		switch {
		case g == nil:
			return
		case BootTime() > deadline:
			s.lost(g, errors.New("the lease could not be renewed in its time"))
			return
		case BootTime() > deadline-ttl*2/3:
			if err := s.renew(ctx, g); err != nil {
				s.lost(g, err)
				return
			}
		}
		select {
		case <-every.C:
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// renew sends one renewal; only a lease that is certainly gone is an error.
func (s *Session) renew(ctx context.Context, g *guard) error {
	attempt, cancel := context.WithTimeout(ctx, s.client.Config().Attempt)
	defer cancel()
	sent := BootTime()
	resp, err := s.client.Renew().KeepAliveOnce(attempt, g.lease)
	switch {
	case err == nil && resp.TTL > 0:
		s.mu.Lock()
		s.deadline = max(s.deadline, sent+time.Duration(resp.TTL)*time.Second)
		s.mu.Unlock()
		s.audit.note(ctx, resp.ResponseHeader, g.epoch)
		s.probe(ctx)
		return nil
	case err == nil || cluster.IsLeaseNotFound(err):
		return errors.New("the lease is gone")
	}
	s.log.Debug("renewal", zap.Error(err))
	return nil
}

// tellNoProof publishes in the presence why the node cannot prove anything, so
// that others can say what they wait for; "" takes it back. One commit, only when
// it changes.
func (s *Session) tellNoProof(ctx context.Context, why string) error {
	s.mu.Lock()
	same := s.noProof == why
	s.noProof = why
	g, alive := s.guard, s.alive
	s.mu.Unlock()
	if (same && alive.NoProof == why) || g == nil {
		return nil
	}
	s.raising.Lock()
	defer s.raising.Unlock()
	s.mu.Lock()
	g, alive = s.guard, s.alive
	s.mu.Unlock()
	if g == nil || alive.NoProof == why {
		return nil
	}
	alive.Counter++
	alive.NoProof = why
	if err := s.home.change(func(m *memory) { m.Counter = alive.Counter }); err != nil {
		return err
	}
	next := *g
	next.alive = cluster.Encode(alive)
	return s.swapAlive(ctx, g, &next, alive)
}
