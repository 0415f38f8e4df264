// Package clustertest gives tests a real etcd in their own process, of one or
// several members, that starts in a fraction of a second and can be taken away
// and brought back. It loses data on a power failure and is for tests alone.
//
// A Cluster belongs to one test and is not safe for concurrent use, except for
// Endpoints and Open.
package clustertest

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	etcd "go.etcd.io/etcd/server/v3/embed"
	"golang.org/x/sync/errgroup"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/cluster/embed"
)

// startLimit bounds the start of all members on a busy machine.
const startLimit = 60 * time.Second

// Cluster is an embedded etcd cluster that ends with its test.
type Cluster struct {
	configs   []embed.Config
	members   []*server
	endpoints []string
	// etcds are what the members run with.
	etcds []etcd.Config
}

type server = embed.Server

// Start runs one etcd server until the test ends.
func Start(t testing.TB) *Cluster {
	t.Helper()
	return StartN(t, 1)
}

// StartN runs a cluster of n members until the test ends.
func StartN(t testing.TB, n int) *Cluster {
	t.Helper()
	// A short path: t.TempDir names the test, and a socket takes 100 bytes.
	dir, err := os.MkdirTemp("", "idpool-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove etcd's data: %v", err)
		}
	})
	c := &Cluster{configs: configs(t, dir, n), members: make([]*server, n)}
	t.Cleanup(func() { c.Stop(t) })
	c.Restart(t)
	for _, m := range c.members {
		c.endpoints = append(c.endpoints, m.Endpoints()[0])
		c.etcds = append(c.etcds, m.Etcd().Config())
	}
	return c
}

func configs(t testing.TB, dir string, n int) []embed.Config {
	if n == 1 {
		return []embed.Config{{Dir: dir, Fast: true}}
	}
	var all []embed.Config
	peers := map[string]string{}
	for i := range n {
		c := embed.Config{
			Dir: filepath.Join(dir, fmt.Sprint(i)), Name: fmt.Sprintf("m%d", i), Token: filepath.Base(dir), Fast: true,
			ListenPeer: "http://" + freeAddress(t), Members: peers,
		}
		peers[c.Name] = c.ListenPeer
		all = append(all, c)
	}
	return all
}

func freeAddress(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// Endpoints are the Unix sockets of all members; they stay the same over a
// restart.
func (c *Cluster) Endpoints() []string { return append([]string(nil), c.endpoints...) }

// Config is a client's configuration for this cluster.
func (c *Cluster) Config() cluster.Config {
	cfg := cluster.DefaultConfig()
	cfg.Endpoints = c.Endpoints()
	return cfg
}

// Open connects a client that is closed at the end of the test.
func (c *Cluster) Open(t testing.TB) *cluster.Client {
	t.Helper()
	return c.OpenWith(t, func(*cluster.Config) {})
}

// OpenWith is Open with a changed configuration.
func (c *Cluster) OpenWith(t testing.TB, change func(*cluster.Config)) *cluster.Client {
	t.Helper()
	cfg := c.Config()
	change(&cfg)
	client, err := cluster.Open(context.Background(), cfg, nil)
	if err != nil {
		t.Fatalf("open a client: %v", err)
	}
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Errorf("close the client: %v", err)
		}
	})
	return client
}

// Member returns a running member, nil while it is stopped.
func (c *Cluster) Member(i int) *server { return c.members[i] }

// Stop ends all members that run, none handing over to another: an outage.
func (c *Cluster) Stop(t testing.TB) {
	t.Helper()
	how := (*server).Close
	if len(c.members) > 1 {
		how = (*server).Kill
	}
	var g errgroup.Group
	for i := range c.members {
		g.Go(func() error { return c.stop(i, how) })
	}
	if err := g.Wait(); err != nil {
		t.Errorf("stop etcd: %v", err)
	}
}

// StopMember ends one member, which hands over leadership first.
func (c *Cluster) StopMember(t testing.TB, i int) {
	t.Helper()
	if err := c.stop(i, (*server).Close); err != nil {
		t.Errorf("stop etcd member %d: %v", i, err)
	}
}

func (c *Cluster) stop(i int, how func(*server) error) error {
	m := c.members[i]
	if m == nil {
		return nil
	}
	c.members[i] = nil
	return how(m)
}

// Wipe ends all members, removes their data, and starts them anew at the same
// endpoints: another cluster, at revision 1.
func (c *Cluster) Wipe(t testing.TB) {
	t.Helper()
	c.Stop(t)
	for _, cfg := range c.configs {
		if err := os.RemoveAll(filepath.Join(cfg.Dir, "etcd")); err != nil {
			t.Fatal(err)
		}
	}
	c.Restart(t)
}

// Restart starts all members that do not run, on the data they have, and
// returns when they serve.
func (c *Cluster) Restart(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	var g errgroup.Group
	for i := range c.members {
		if c.members[i] == nil {
			g.Go(func() (err error) {
				c.members[i], err = embed.Start(ctx, c.configs[i], nil)
				return err
			})
		}
	}
	if err := g.Wait(); err != nil {
		t.Fatalf("start etcd: %v", err)
	}
}
