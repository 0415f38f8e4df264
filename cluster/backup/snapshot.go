package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/problem"
)

// Options change how a file is written.
type Options struct {
	// Force replaces a file that is there.
	Force bool
	// Progress, if set, is told from time to time how many bytes are written, of about
	// how many; from one goroutine.
	Progress func(done, total int64)
}

// member is what one endpoint said of itself.
type member struct {
	endpoint string
	cluster  uint64
	size     int64
	applied  uint64
	leader   bool
	learner  bool
}

// Save writes etcd's snapshot to a file. It is taken from one member, a follower where
// there is one. It ends when no byte came for the configuration's Budget, and with ctx.
//
// With etcd's authentication on, only a user with etcd's role "root" may do this.
func Save(ctx context.Context, cfg cluster.Config, file string, opts Options) (Snapshot, error) {
	if err := placeable(file, opts.Force); err != nil {
		return Snapshot{}, err
	}
	from, acknowledged, err := source(ctx, cfg)
	if err != nil {
		return Snapshot{}, err
	}
	d, err := newDraft(file, opts.Force, cfg.Seam)
	if err != nil {
		return Snapshot{}, err
	}
	defer d.end()
	if err := receive(ctx, cfg, from, d, opts.Progress); err != nil {
		return Snapshot{}, err
	}
	s, err := Check(d.Name())
	if err != nil {
		return Snapshot{}, &problem.Error{Code: problem.CodeUnavailable, Detail: fmt.Sprintf("%s not written: what %s sent is damaged (%v); nothing was kept", file, from.endpoint, err), Cause: err}
	}
	if s.Revision < acknowledged {
		return Snapshot{}, problem.New(problem.CodeUnavailable, "%s not written: %s lags behind, at revision %d of %d; nothing was kept", file, from.endpoint, s.Revision, acknowledged).
			Advise("name another member", "--endpoints …")
	}
	s.File, s.Member, s.Cluster = file, from.endpoint, fmt.Sprintf("%x", from.cluster)
	return s, d.publish()
}

// source picks the member to ask, and returns the revision that its snapshot must have.
func source(ctx context.Context, cfg cluster.Config) (member, int64, error) {
	c, err := cluster.Open(ctx, cfg, nil)
	if err != nil {
		return member{}, 0, err
	}
	defer func() { _ = c.Close() }()
	resp, err := c.Read(ctx, clientv3.OpGet(c.Keys().Meta(), clientv3.WithCountOnly()))
	if err != nil {
		return member{}, 0, err
	}
	var members []member
	var errs error
	for _, e := range cfg.Endpoints {
		ctx, cancel := context.WithTimeout(ctx, cfg.Attempt)
		st, err := c.Txn().Status(ctx, e)
		cancel()
		if err != nil {
			errs = errors.Join(errs, err)
			continue
		}
		members = append(members, member{
			endpoint: e, cluster: st.Header.ClusterId, size: st.DbSize, applied: st.RaftAppliedIndex,
			leader: st.Leader == st.Header.MemberId, learner: st.IsLearner,
		})
	}
	m, ok := choose(members)
	if !ok {
		return member{}, 0, problem.New(problem.CodeUnavailable, "no member of etcd at %v can be asked for a snapshot: %v", cfg.Endpoints, errs)
	}
	return m, resp.Header.Revision, nil
}

// lagging is how many raft entries a follower may be behind and still be asked.
const lagging = 1000

// choose prefers followers, whose time nobody waits for, then the one furthest on.
func choose(members []member) (member, bool) {
	members = slices.DeleteFunc(slices.Clone(members), func(m member) bool { return m.learner })
	if len(members) == 0 {
		return member{}, false
	}
	var newest uint64
	for _, m := range members {
		newest = max(newest, m.applied)
	}
	rank := func(m member) int {
		switch {
		case m.applied+lagging < newest:
			return 2
		case m.leader:
			return 1
		}
		return 0
	}
	return slices.MinFunc(members, func(a, b member) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(b.applied, a.applied))
	}), true
}

var errSilent = errors.New("etcd sent nothing any more")

// receive writes what one member sends into the draft.
func receive(ctx context.Context, cfg cluster.Config, from member, d *draft, progress func(done, total int64)) error {
	cfg.Endpoints = []string{from.endpoint}
	c, err := cluster.Open(ctx, cfg, nil)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(cfg.Budget, func() { cancel(fmt.Errorf("%w for %v", errSilent, cfg.Budget)) })
	defer silence.Stop()

	resp, err := c.Txn().SnapshotWithVersion(ctx)
	if err != nil {
		return unsent(ctx, from, d, err)
	}
	defer func() { _ = resp.Snapshot.Close() }()
	buf := make([]byte, 256<<10)
	for done := int64(0); ; {
		n, err := resp.Snapshot.Read(buf)
		silence.Reset(cfg.Budget)
		if n > 0 {
			if err := cfg.Seam.Do("file:backup:write", func() error { _, err := d.Write(buf[:n]); return err }); err != nil {
				return d.unwritten(err)
			}
			if done += int64(n); progress != nil {
				progress(done, max(done, from.size))
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return unsent(ctx, from, d, err)
		}
	}
}

// unsent is the refusal of a snapshot that etcd did not send to its end.
func unsent(ctx context.Context, from member, d *draft, err error) error {
	if cluster.IsPermissionDenied(err) {
		return (&problem.Error{Code: problem.CodeForbidden, Detail: fmt.Sprintf("%s not written: etcd denies a snapshot to this certificate (%v)", d.path, err), Cause: err}).
			Note("etcd gives snapshots to its role root alone").
			Advise("use the administrator's certificate", "--etcd-cert root.crt --etcd-key root.key")
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return &problem.Error{Code: problem.CodeUnavailable, Detail: fmt.Sprintf("%s not written: %s did not send its snapshot to the end: %v; nothing was kept", d.path, from.endpoint, err), Cause: err}
}
