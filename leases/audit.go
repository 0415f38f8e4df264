package leases

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/problem"
)

// sighting is what a look at etcd says to what a node remembers.
type sighting int

const (
	// inStep: it is the etcd, and at least as far as it was.
	inStep sighting = iota
	// adopted: a restored etcd, and an operator has begun an epoch over it.
	adopted
	// travelled: it has gone back in time.
	travelled
	// stranger: it is another cluster, or has lost the record that says which.
	stranger
)

// leadSlack is how far the revision may be ahead of the raft index beyond what
// meta says: a status read in the middle of an entry. Measured: never more than 1.
const leadSlack = 2

// weighSight holds one sight against a node's memory (rule 31): pure. The reason says
// what was seen, for travelled and stranger.
func weighSight(mem memory, s cluster.Sight) (sighting, string) {
	m, err := cluster.DecodeMeta(s.Meta)
	ahead := s.Revision-int64(s.Index) > m.Lead+leadSlack
	lead := fmt.Sprintf("its raft index %d is far behind its revision %d, as after a restore", s.Index, s.Revision)
	switch {
	case s.Meta == nil && mem.Epoch == "":
		return inStep, ""
	case s.Meta == nil:
		return stranger, "holds no idpool data below its root, and this node has been part of a cluster (epoch " + mem.Epoch + ")"
	case mem.Epoch == "":
		if err == nil && ahead {
			return travelled, lead
		}
		return inStep, ""
	case err == nil && m.Epoch != mem.Epoch && mem.past(m.Epoch):
		return travelled, fmt.Sprintf("its epoch %d is one that is over", m.Number)
	case err == nil && m.Epoch != mem.Epoch && !mem.follows(m):
		return stranger, fmt.Sprintf("is another cluster (epoch %s, this node belongs to %s)", m.Epoch, mem.Epoch)
	case err == nil && m.Epoch != mem.Epoch:
		if ahead {
			return travelled, lead
		}
		return adopted, ""
	case mem.Cluster != 0 && s.ClusterID != mem.Cluster:
		return travelled, fmt.Sprintf("its data are in another cluster (%x, this node belongs to %x)", s.ClusterID, mem.Cluster)
	case s.Index < mem.Index || s.Revision < mem.Revision:
		return travelled, fmt.Sprintf("last seen revision %d and raft index %d, now %d and %d", mem.Revision, mem.Index, s.Revision, s.Index)
	case err == nil && ahead:
		return travelled, lead
	}
	return inStep, ""
}

// follows tells whether a meta record continues what this node was part of: its
// epoch, or one before it, is among the record's previous ones.
func (m memory) follows(meta cluster.Meta) bool {
	if meta.Follows(m.Epoch) {
		return true
	}
	for _, e := range meta.Previous {
		if m.past(e.Epoch) {
			return true
		}
	}
	return false
}

// audit notices that etcd went back in time (rule 31): by raft index, revision,
// cluster, epoch, and by what the journal of this node says must be there.
type audit struct {
	client  *cluster.Client
	home    *Home
	journal *Journal
	node    string
	log     *zap.Logger
	// away makes every check fail as if etcd did not answer: a seam for tests.
	away atomic.Bool
	// quiet: a frozen node tells nobody; for tests of one node alone.
	quiet bool
	// alarmed: a member says that it has no space, or that it may not be asked.
	alarmed atomic.Bool

	mu   sync.Mutex // guards the field below
	last time.Duration
}

// Auditor is what [cluster.Config.Audit] takes: it refuses a connection to an etcd
// that is behind what this node has seen of it. It tells nobody; the session's own
// audit does.
func Auditor(home *Home, journal *Journal) func() func(cluster.Sight) error {
	a := &audit{home: home, journal: journal}
	return func() func(cluster.Sight) error {
		mem := a.memory()
		return func(s cluster.Sight) error {
			switch v, why := weighSight(mem, s); v {
			case travelled:
				return goneBack(why)
			case stranger:
				return errors.New("etcd " + why)
			}
			return nil
		}
	}
}

// Audit looks at etcd once before anything is written, and freezes the cluster if
// it has gone back in time. The error is a [problem.CodeFrozen] for that and for
// another cluster's etcd, else as [cluster.Client.Read].
func Audit(ctx context.Context, client *cluster.Client, home *Home, journal *Journal, node string, log *zap.Logger) error {
	return (&audit{client: client, home: home, journal: journal, node: node, log: log}).check(ctx)
}

// memory is what the disk says: the journal may be ahead of the last note.
func (a *audit) memory() memory {
	mem := a.home.get()
	if a.journal != nil {
		mem.Revision = max(mem.Revision, a.journal.furthest(mem.Epoch))
	}
	return mem
}

// noteEvery bounds how often the furthest point is written to the disk.
const noteEvery = 5 * time.Second

// note records how far etcd is, in the epoch of a session. It costs a status call
// and an fsync, at most every noteEvery.
func (a *audit) note(ctx context.Context, h *pb.ResponseHeader, epoch string) {
	a.mu.Lock()
	due := a.last == 0 || BootTime()-a.last > noteEvery
	if due {
		a.last = BootTime()
	}
	a.mu.Unlock()
	if !due {
		return
	}
	index, revision, err := a.furthest(ctx, a.client.Config().Attempt)
	if err != nil {
		return
	}
	_ = a.home.change(func(m *memory) {
		if m.Epoch != epoch { // nothing of this epoch is ours before we have asserted
			return
		}
		if m.Cluster == 0 {
			m.Cluster = h.GetClusterId()
		}
		m.Index, m.Revision = max(m.Index, index), max(m.Revision, revision)
	})
}

// furthest asks every member at once and returns the furthest of those that answer
// within limit: one that is silent must not keep the others from being heard.
func (a *audit) furthest(ctx context.Context, limit time.Duration) (index uint64, revision int64, err error) {
	answers, err := a.client.Statuses(ctx, limit)
	alarmed := false
	for _, st := range answers {
		index, revision = max(index, st.RaftAppliedIndex), max(revision, st.Header.Revision)
		alarmed = alarmed || slices.ContainsFunc(st.Errors, func(e string) bool { return strings.Contains(e, pb.AlarmType_NOSPACE.String()) })
	}
	if len(answers) > 0 {
		a.alarmed.Store(alarmed)
		err = nil
	}
	return index, revision, err
}

// check refuses with [problem.ErrFrozen] if etcd is behind what was seen, and then
// freezes the whole cluster. A member may lag, so it looks again for one attempt's
// time.
func (a *audit) check(ctx context.Context) error {
	if a.away.Load() {
		return problem.New(problem.CodeUnavailable, "etcd does not answer")
	}
	limit, cancel := context.WithTimeout(ctx, a.client.Config().Attempt)
	defer cancel()
	mem := a.memory() // before the look, which others' writes overtake
	var wait cluster.Backoff
	for {
		sights, err := a.client.Look(ctx)
		if err != nil {
			return err
		}
		found, why, at := best(mem, sights)
		if len(sights) > 0 && (found == inStep || found == adopted) {
			return nil
		}
		if wait.Wait(limit) == nil {
			continue
		}
		switch {
		case ctx.Err() != nil:
			return problem.Wrap(problem.CodeUnavailable, context.Cause(ctx), "ask etcd how far it is")
		case len(sights) == 0:
			return problem.New(problem.CodeUnavailable, "every member of etcd at %v lags", a.client.Config().Endpoints)
		case found == stranger:
			return a.notOurs(why)
		}
		return a.freeze(ctx, at.Meta, why)
	}
}

// best is the kindest verdict over members: one that is as far as it was is enough.
func best(mem memory, sights []cluster.Sight) (best sighting, why string, at cluster.Sight) {
	best = stranger
	for i, s := range sights {
		if v, w := weighSight(mem, s); v < best || i == 0 {
			best, why, at = v, w, s
		}
	}
	return best, why, at
}

func (a *audit) notOurs(why string) error {
	return problem.New(problem.CodeFrozen, "nothing is granted: etcd at %v %s", a.client.Config().Endpoints, why).
		Note("running processes are not touched").
		Advise("the wrong endpoints or root", "poolagent --endpoints URL,… --root PREFIX").
		Advise("a new cluster on purpose", "remove the agent's data directory once nothing of it runs")
}

// goneBack is the refusal of everything after time travel (message 8).
func goneBack(why string) *problem.Error {
	return problem.New(problem.CodeFrozen, "nothing is granted: etcd has gone back in time (%s)", why).
		Note("running processes are not touched").
		Advise("look", "poolctl status").
		Advise("when the restore was intended", "poolctl cluster adopt-restore --dry-run")
}

// freeze stops all nodes: every write of theirs compares meta and needs it normal.
// It is written aside of the connection that the audit guards, by value, so of two
// that notice one is told. The error is the refusal; a freeze that did not come
// through is tried again with the next audit.
func (a *audit) freeze(ctx context.Context, raw []byte, why string) error {
	refusal := goneBack(why)
	m, err := cluster.DecodeMeta(raw)
	if a.quiet || err != nil || m.State != cluster.StateNormal {
		return refusal
	}
	m.State, m.Reason, m.By, m.Since = cluster.StateRecovering, clip(why), a.node, time.Now().UTC()
	key := a.client.Keys().Meta()
	resp, err := a.client.CommitAside(ctx, []clientv3.Cmp{clientv3.Compare(clientv3.Value(key), "=", string(raw))},
		[]clientv3.Op{clientv3.OpPut(key, string(cluster.Encode(m)))}, nil)
	if a.log != nil {
		a.log.Error("cluster frozen: etcd has gone back in time", zap.String("node", a.node), zap.String("seen", why),
			zap.Bool("told", err == nil && resp.Succeeded), zap.Error(err))
	}
	return refusal
}

// doubt stops every write until an audit has shown that etcd has not gone back in
// time (rule 31): it was reached anew.
func (s *Session) doubt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.doubts++
	s.tell()
}

// settleDoubt audits once: how far etcd is, and whether all that this node was
// given is there. An etcd that cannot be asked leaves the doubt.
func (s *Session) settleDoubt(ctx context.Context) {
	s.mu.Lock()
	doubts := s.doubts
	s.mu.Unlock()
	short, cancel := context.WithTimeout(ctx, s.client.Config().Budget)
	defer cancel()
	switch err := s.audited1(short); {
	case errors.Is(err, problem.ErrFrozen):
		_ = s.freeze(err)
	case err == nil:
		s.mu.Lock()
		s.audited = doubts
		s.tell()
		s.mu.Unlock()
	}
}

// audited1 is one whole audit.
func (s *Session) audited1(ctx context.Context) error {
	if err := s.audit.check(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	stood := s.stood
	s.mu.Unlock()
	if s.missing == nil || !stood {
		return nil // what ended just before a crash may not be in the journal
	}
	why, raw := s.missing()
	if why == "" {
		return nil
	}
	return s.audit.freeze(ctx, raw, why)
}

// freeze ends the session until etcd is as it was, or adopted: nothing is fatal, and
// an audit is tried again and again.
func (s *Session) freeze(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.guard, s.blocked = nil, err
	s.tell()
	return err
}
