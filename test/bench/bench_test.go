package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/idpool/idpool/agent"
	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/cluster/embed"
)

// start runs an agent on an embedded etcd that syncs its disk.
func start(b *testing.B) (*api.Client, *cluster.Client) {
	b.Helper()
	dir, err := os.MkdirTemp("", "idb")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	ctx, stop := context.WithCancel(context.Background())
	etcd, err := embed.Start(ctx, embed.Config{Dir: dir}, zap.NewNop())
	if err != nil {
		b.Fatal(err)
	}
	c := agent.Default()
	c.Node, c.Endpoints, c.Data, c.Socket, c.AcceptPIDNamespace = "n1", etcd.Endpoints(), filepath.Join(dir, "n1"), filepath.Join(dir, "s"), true
	a, err := agent.New(c, zap.NewNop())
	if err != nil {
		b.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := a.Run(ctx); err != nil {
			b.Error(err)
		}
	}()
	cfg := cluster.DefaultConfig()
	cfg.Endpoints = etcd.Endpoints()
	db, err := cluster.Open(ctx, cfg, zap.NewNop())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		db.Close()
		stop()
		<-ended
		etcd.Close()
	})
	select {
	case <-a.Ready():
	case <-time.After(30 * time.Second):
		b.Fatal("the agent is not ready")
	}
	return api.New(api.Options{Agent: "unix://" + c.Socket}), db
}

// setPool makes a pool whose hand-outs may rest on a scan a second old, so that
// the benchmark is of the protocol, not of /proc.
func setPool(b *testing.B, client *api.Client, name, ranges string) {
	b.Helper()
	if _, err := client.Pools().Put(b.Context(), api.Pool{Name: name, Ranges: ranges, PoolPolicy: api.PoolPolicy{ScanAge: "1s"}}, api.WriteOptions{}); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkPoolSize asks two agents in turn: one with a pool of 1,000 uids, one
// with all 4,294,967,291. all/1000 is the ratio of the times of their requests.
func BenchmarkPoolSize(b *testing.B) {
	small, _ := start(b)
	large, _ := start(b)
	setPool(b, small, "jobs", "1500000000-1500000999")
	setPool(b, large, "jobs", "1-65533,65536-4294967294")
	var spent [2]time.Duration
	for b.Loop() {
		for i, client := range []*api.Client{small, large} {
			began := time.Now()
			u, err := client.RequestUID(b.Context(), api.UIDRequest{Pool: "jobs", Wait: time.Minute})
			spent[i] += time.Since(began)
			if err != nil {
				b.Fatal(err)
			}
			if err := u.Release(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(spent[1])/float64(spent[0]), "all/1000")
}

// BenchmarkAgainstPut compares grants through the agent with plain etcd puts, as
// many clients each, in turn. put/grant above 1 means that grants are faster.
func BenchmarkAgainstPut(b *testing.B) {
	for _, clients := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			client, db := start(b)
			setPool(b, client, "jobs", "1500000000-1599999999")
			var seq atomic.Int64
			var grants, puts time.Duration
			const each = 20
			for b.Loop() {
				grants += together(clients, func() {
					for range each {
						if _, err := client.RequestUID(b.Context(), api.UIDRequest{Pool: "jobs"}); err != nil {
							b.Error(err)
							return
						}
					}
				})
				puts += together(clients, func() {
					for range each {
						if _, err := db.Txn().Put(b.Context(), fmt.Sprintf("/bench/%d", seq.Add(1)), "a value about as long as a claim is, more or less"); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			b.ReportMetric(float64(puts)/float64(grants), "put/grant")
			b.ReportMetric(float64(b.N*clients*each)/grants.Seconds(), "grants/s")
		})
	}
}

// together runs f on n goroutines and returns how long the last took.
func together(n int, f func()) time.Duration {
	began := time.Now()
	var wg sync.WaitGroup
	for range n {
		wg.Go(f)
	}
	wg.Wait()
	return time.Since(began)
}
