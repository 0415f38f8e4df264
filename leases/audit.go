package leases

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/problem"
)

// audit notices that etcd went back in time (rule 31): its raft index or
// revision is below the furthest ever seen, or the cluster is another one.
type audit struct {
	client *cluster.Client
	home   *Home
	// away makes every check fail as if etcd did not answer: a seam for tests.
	away atomic.Bool

	mu   sync.Mutex // guards the field below
	last time.Duration
}

// noteEvery bounds how often the furthest point is written to the disk.
const noteEvery = 5 * time.Second

// note records how far etcd is. It costs a status call and an fsync, at most
// every noteEvery.
func (a *audit) note(ctx context.Context, h *pb.ResponseHeader) {
	a.mu.Lock()
	due := a.last == 0 || BootTime()-a.last > noteEvery
	if due {
		a.last = BootTime()
	}
	a.mu.Unlock()
	if !due {
		return
	}
	index, revision, err := a.furthest(ctx)
	if err != nil {
		return
	}
	_ = a.home.change(func(m *memory) {
		if m.Cluster == 0 {
			m.Cluster = h.GetClusterId()
		}
		m.Index, m.Revision = max(m.Index, index), max(m.Revision, revision)
	})
}

// furthest asks every member at once, so that a silent one costs the others no time,
// and returns the furthest of those that answer within an attempt.
func (a *audit) furthest(ctx context.Context) (index uint64, revision int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, a.client.Config().Attempt)
	defer cancel()
	endpoints := a.client.Config().Endpoints
	answers, errs := make([]*clientv3.StatusResponse, len(endpoints)), make([]error, len(endpoints))
	var all sync.WaitGroup
	for i, ep := range endpoints {
		all.Go(func() { answers[i], errs[i] = a.client.Txn().Status(ctx, ep) })
	}
	all.Wait()
	answered := false
	for i, st := range answers {
		if errs[i] == nil {
			answered = true
			index, revision = max(index, st.RaftAppliedIndex), max(revision, st.Header.Revision)
		}
	}
	if answered {
		return index, revision, nil
	}
	return 0, 0, errors.Join(errs...)
}

// check refuses with [problem.ErrFrozen] if etcd is behind what was seen. A
// member may lag, so it looks again for one attempt's time.
func (a *audit) check(ctx context.Context) error {
	if a.away.Load() {
		return problem.New(problem.CodeUnavailable, "etcd does not answer")
	}
	mem := a.home.get()
	resp, err := a.client.Read(ctx, clientv3.OpGet(a.client.Keys().Meta(), clientv3.WithCountOnly()))
	if err != nil {
		return err
	}
	if mem.Cluster != 0 && resp.Header.ClusterId != mem.Cluster {
		return problem.New(problem.CodeFrozen, "etcd at %v is another cluster (%x, this node belongs to %x); nothing is granted", a.client.Config().Endpoints, resp.Header.ClusterId, mem.Cluster).
			Advise("the wrong endpoints", "poolagent --endpoints URL,…").
			Advise("a new cluster on purpose", "remove the agent's data directory once nothing of it runs")
	}
	limit, cancel := context.WithTimeout(ctx, a.client.Config().Attempt)
	defer cancel()
	var wait cluster.Backoff
	for {
		index, revision, err := a.furthest(limit)
		if err == nil && index >= mem.Index && revision >= mem.Revision {
			return nil
		}
		if wait.Wait(limit) == nil {
			continue
		}
		if err != nil {
			return problem.Wrap(problem.CodeUnavailable, err, "ask etcd how far it is")
		}
		return problem.New(problem.CodeFrozen, "nothing is granted: etcd has gone back in time (last seen revision %d and raft index %d, now %d and %d)", mem.Revision, mem.Index, revision, index).
			Note("running processes are not touched").
			Advise("look", "poolctl status")
	}
}

// doubt stops every write until an audit has shown that etcd has not gone back in
// time (rule 31): it was reached anew.
func (s *Session) doubt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.doubts++
	close(s.changed)
	s.changed = make(chan struct{})
}

// settleDoubt audits once. An etcd that cannot be asked leaves the doubt.
func (s *Session) settleDoubt(ctx context.Context) {
	s.mu.Lock()
	doubts := s.doubts
	s.mu.Unlock()
	short, cancel := context.WithTimeout(ctx, s.client.Config().LeaseTTL/3)
	defer cancel()
	switch err := s.audit.check(short); {
	case errors.Is(err, problem.ErrFrozen):
		_ = s.fail(err)
	case err == nil:
		s.mu.Lock()
		s.audited = doubts
		close(s.changed)
		s.changed = make(chan struct{})
		s.mu.Unlock()
	}
}
