package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	saving "go.etcd.io/etcd/client/v3/snapshot"
	"go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

// Snapshot is what etcd held at a revision, in a file.
type Snapshot struct {
	File     string
	Revision int64
}

// RestoreOptions say how a snapshot comes back, as an operator may choose.
type RestoreOptions struct {
	// NewToken makes another cluster id of it; else the id stays the one it was.
	NewToken bool
	// Bump raises the revision by so much, and marks what is below as compacted; 0 does
	// neither.
	Bump int64
}

// Restored tells of a restore: etcd goes on behind revision Begins with what it held
// at revision Snapshot of the history before.
type Restored struct {
	Snapshot, Begins int64
	// Stopped is when no member was running any more.
	Stopped time.Duration
}

// Witness follows etcd's history.
type Witness interface {
	// Reach waits until it knows the history up to a revision.
	Reach(ctx context.Context, revision int64) error
	// Cut is called while no member runs: what follows is another history.
	Cut(Restored) error
}

// SetWitness says who must know the whole history before a restore ends it.
func (r *Rig) SetWitness(w Witness) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.witness = w
}

// Snapshot has a member write its database to a file in Options.Dir.
func (r *Rig) Snapshot(ctx context.Context, m *Member) (*Snapshot, error) {
	s := &Snapshot{File: filepath.Join(r.o.Dir, "snapshot.db")}
	err := eventually(ctx, "snapshot of "+m.name, func(ctx context.Context) error {
		before, err := m.revision(ctx)
		if err != nil {
			return err
		}
		if err := os.Remove(s.File); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if _, err := saving.SaveWithVersion(ctx, zap.NewNop(), clientv3.Config{Endpoints: []string{m.endpoint()}}, s.File); err != nil {
			return err
		}
		st, err := snapshot.NewV3(zap.NewNop()).Status(s.File)
		if err != nil {
			return err
		}
		// The file tells no revision whose last key is compacted away.
		if s.Revision = st.Revision; s.Revision < before {
			return fmt.Errorf("the file tells revision %d, and the member was at %d", s.Revision, before)
		}
		return nil
	})
	if err == nil {
		r.say("%s: snapshot at revision %d", m.name, s.Revision)
	}
	return s, err
}

// revision is etcd's, confirmed by a quorum.
func (m *Member) revision(ctx context.Context) (int64, error) {
	db, err := m.client(ctx)
	if err != nil {
		return 0, err
	}
	got, err := db.Txn().Get(ctx, "rig/health")
	if err != nil {
		return 0, err
	}
	return got.Header.Revision, nil
}

// Restore ends all members, puts what a snapshot holds in the place of their data
// and starts them again at the same addresses; it returns when all answer. The
// nodes are cut off from etcd until the witness knows all of the history that ends:
// what any of them was told is in it. After an error etcd may be down.
func (r *Rig) Restore(ctx context.Context, s *Snapshot, o RestoreOptions) error {
	if err := r.stopForGood(ctx); err != nil {
		return err
	}
	cut := Restored{Snapshot: s.Revision, Begins: s.Revision + o.Bump, Stopped: r.Now()}
	r.mu.Lock()
	witness := r.witness
	if o.NewToken {
		r.token = "rig-" + randomHex(8)
	}
	token := r.token
	r.mu.Unlock()
	if witness != nil {
		if err := witness.Cut(cut); err != nil {
			return err
		}
	}
	r.say("etcd restored from revision %d as %d, new token: %v", s.Revision, cut.Begins, o.NewToken)
	for _, m := range r.members {
		if err := m.restore(s, token, o); err != nil {
			return fmt.Errorf("restore member %s: %w", m.name, err)
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	for _, m := range r.members {
		g.Go(func() error { return m.Start(gctx) })
	}
	return g.Wait()
}

// Operate runs "poolctl cluster" with these arguments on etcd, to its end, and
// returns what it wrote, which is in operator.log of Options.Dir too.
func (r *Rig) Operate(ctx context.Context, args ...string) (string, error) {
	var all []string
	for _, m := range r.members {
		all = append(all, m.endpoint())
	}
	args = append([]string{"cluster"}, args...)
	r.say("poolctl %v", args)
	cmd := exec.CommandContext(ctx, filepath.Join(r.o.Bin, "poolctl"), append(args, "--endpoints", strings.Join(all, ","))...)
	cmd.Env = r.environ()
	out, err := cmd.CombinedOutput()
	log, failed := os.OpenFile(filepath.Join(r.o.Dir, "operator.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if failed == nil {
		_, failed = fmt.Fprintf(log, "%9.3fs poolctl %v: %v\n%s", r.Now().Seconds(), args, err, out)
		failed = errors.Join(failed, log.Close())
	}
	return string(out), errors.Join(err, failed)
}

// restore makes a member's data anew.
func (m *Member) restore(s *Snapshot, token string, o RestoreOptions) error {
	dir := filepath.Join(m.dir, "data")
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return snapshot.NewV3(zap.NewNop()).Restore(snapshot.RestoreConfig{
		SnapshotPath: s.File, Name: m.name, OutputDataDir: dir, PeerURLs: []string{m.peerURL()},
		InitialCluster: m.r.initialCluster(), InitialClusterToken: token,
		RevisionBump: uint64(o.Bump), MarkCompacted: o.Bump > 0,
	})
}

// calm is for how long the revision must not move before etcd counts as still.
const calm = 300 * time.Millisecond

// stopForGood kills all members at a moment when the witness knows everything that
// they ever answered.
func (r *Rig) stopForGood(ctx context.Context) (err error) {
	heal, err := r.cutNodes()
	if err != nil {
		return errors.Join(err, heal())
	}
	defer func() { err = errors.Join(err, heal()) }()
	r.mu.Lock()
	witness := r.witness
	r.mu.Unlock()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for last, since := int64(0), r.Now(); witness != nil && r.Now()-since < calm; <-tick.C {
		var now int64
		err := eventually(ctx, "etcd tells its revision", func(ctx context.Context) (err error) {
			now, err = r.members[0].revision(ctx)
			return err
		})
		if err != nil {
			return err
		}
		if now != last {
			if err := witness.Reach(ctx, now); err != nil {
				return err
			}
			last, since = now, r.Now()
		}
	}
	var g errgroup.Group
	for _, m := range r.members {
		g.Go(m.Kill)
	}
	return g.Wait()
}

// cutNodes drops all between nodes and members.
func (r *Rig) cutNodes() (heal func() error, err error) {
	var nodes, members []string
	for _, n := range r.nodes {
		nodes = append(nodes, n.name)
	}
	for _, m := range r.members {
		members = append(members, m.name)
	}
	var heals []func() error
	heal = func() error {
		var all []error
		for _, h := range heals {
			all = append(all, h())
		}
		return errors.Join(all...)
	}
	for _, way := range [][2][]string{{nodes, members}, {members, nodes}} {
		h, err := r.net.Cut(way[0], way[1])
		if err != nil {
			return heal, err
		}
		heals = append(heals, h)
	}
	return heal, nil
}
