package clustertest

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/uuid"
	clientv3 "go.etcd.io/etcd/client/v3"
	saving "go.etcd.io/etcd/client/v3/snapshot"
	"go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

// RestoreOptions say how a snapshot comes back: the choices that etcdutl gives an
// operator.
type RestoreOptions struct {
	// NewToken makes another cluster of it, with another cluster id; else the id is
	// the one it had.
	NewToken bool
	// Bump is by how much the revision is raised above the snapshot's.
	Bump uint64
	// MarkCompacted compacts at the raised revision, so that a watch from before is
	// told. etcd takes Bump and MarkCompacted only together.
	MarkCompacted bool
}

// Snapshot has the first running member write its data to a file, which is removed
// with the test.
func (c *Cluster) Snapshot(t testing.TB) string {
	t.Helper()
	i := slices.IndexFunc(c.members, func(m *server) bool { return m != nil })
	if i < 0 {
		t.Fatal("snapshot: no member runs")
	}
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	file := filepath.Join(t.TempDir(), "snapshot.db")
	if _, err := saving.SaveWithVersion(ctx, zap.NewNop(), clientv3.Config{Endpoints: c.endpoints[i : i+1]}, file); err != nil {
		t.Fatalf("snapshot: %v", err)
	}
	return file
}

// Restore ends all members, puts what the snapshot holds in the place of their
// data, and starts them again at the same endpoints. What was written after the
// snapshot is gone; clients stay connected to the addresses and hear nothing of it.
func (c *Cluster) Restore(t testing.TB, file string, opts RestoreOptions) {
	t.Helper()
	if (opts.Bump > 0) != opts.MarkCompacted {
		t.Fatal("restore: etcd takes a bump and mark-compacted only together")
	}
	c.Stop(t)
	token := "idpool-" + uuid.NewString()
	for i, etcd := range c.etcds {
		if !opts.NewToken {
			token = etcd.InitialClusterToken
		}
		if err := restore(etcd, token, file, opts); err != nil {
			t.Fatalf("restore member %d: %v", i, err)
		}
		if c.configs[i].Token != "" {
			c.configs[i].Token = token
		}
	}
	c.Restart(t)
}

// restore makes the data of one member anew.
func restore(etcd embed.Config, token, file string, opts RestoreOptions) error {
	if err := os.RemoveAll(etcd.Dir); err != nil {
		return err
	}
	peers := make([]string, len(etcd.AdvertisePeerUrls))
	for i, u := range etcd.AdvertisePeerUrls {
		peers[i] = u.String()
	}
	err := snapshot.NewV3(zap.NewNop()).Restore(snapshot.RestoreConfig{
		SnapshotPath: file, Name: etcd.Name, OutputDataDir: etcd.Dir, PeerURLs: peers,
		InitialCluster: etcd.InitialCluster, InitialClusterToken: token,
		RevisionBump: opts.Bump, MarkCompacted: opts.MarkCompacted,
	})
	if err != nil {
		return err
	}
	// The token is kept beside the data.
	return os.WriteFile(filepath.Join(filepath.Dir(etcd.Dir), "token"), []byte(token+"\n"), 0o600)
}
