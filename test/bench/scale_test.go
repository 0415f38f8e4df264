package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/idpool/idpool/agent"
	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/cluster/embed"
)

// The benchmarks of this file make the figures of docs/scale.md.

// store runs an etcd that syncs its disk.
func store(b *testing.B) (*embed.Server, *cluster.Client) {
	b.Helper()
	dir, err := os.MkdirTemp("", "idb")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	etcd, err := embed.Start(b.Context(), embed.Config{Dir: dir}, zap.NewNop())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = etcd.Close() })
	return etcd, connect(b, etcd)
}

func connect(b *testing.B, etcd *embed.Server) *cluster.Client {
	b.Helper()
	cfg := cluster.DefaultConfig()
	cfg.Endpoints = etcd.Endpoints()
	c, err := cluster.Open(b.Context(), cfg, zap.NewNop())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Close() })
	return c
}

// startOn runs an agent until the benchmark ends, or stop, and returns when it serves.
func startOn(b *testing.B, etcd *embed.Server, node string) (client *api.Client, stop func()) {
	b.Helper()
	dir, err := os.MkdirTemp("", "idb")
	if err != nil {
		b.Fatal(err)
	}
	c := agent.Default()
	c.Node, c.Endpoints, c.Data, c.Socket, c.AcceptPIDNamespace = node, etcd.Endpoints(), filepath.Join(dir, node), filepath.Join(dir, "s"), true
	a, err := agent.New(c, zap.NewNop())
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := a.Run(ctx); err != nil {
			b.Error(err)
		}
	}()
	stop = func() {
		cancel()
		<-ended
		_ = os.RemoveAll(dir)
	}
	b.Cleanup(stop)
	select {
	case <-a.Ready():
	case <-time.After(15 * time.Minute):
		b.Fatal("the agent is not ready")
	}
	return api.New(api.Options{Agent: "unix://" + c.Socket}), stop
}

// inUse is how large etcd's data is, in bytes, without what it could give back.
func inUse(b *testing.B, c *cluster.Client) float64 {
	b.Helper()
	st, err := c.Txn().Status(b.Context(), c.Config().Endpoints[0])
	if err != nil {
		b.Fatal(err)
	}
	return float64(st.DbSizeInUse)
}

// compact drops all earlier revisions, as the hourly compaction does.
func compact(b *testing.B, c *cluster.Client) {
	b.Helper()
	resp, err := c.Read(b.Context(), clientv3.OpGet("/none"))
	if err != nil {
		b.Fatal(err)
	}
	if _, err := c.Txn().Compact(b.Context(), resp.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		b.Fatal(err)
	}
	if _, err := c.Txn().Defragment(b.Context(), c.Config().Endpoints[0]); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkBytes grants uids under keys and releases them: bytes of etcd's data for
// each, before and after compaction.
func BenchmarkBytes(b *testing.B) {
	const n, clients = 4000, 64
	for b.Loop() {
		etcd, db := store(b)
		client, _ := startOn(b, etcd, "n1")
		setPool(b, client, "jobs", "1500000000-1599999999")
		empty := inUse(b, db)
		locked := make([]*api.LockedUID, n)
		var next atomic.Int64
		together(clients, func() {
			for i := next.Add(1) - 1; i < n; i = next.Add(1) - 1 {
				u, err := client.RequestUID(b.Context(), api.UIDRequest{Pool: "jobs", Key: fmt.Sprintf("slurm:c1:%d", i), Holder: "job of somebody"})
				if err != nil {
					b.Error(err)
					return
				}
				locked[i] = u
			}
		})
		b.ReportMetric((inUse(b, db)-empty)/n, "B/grant")
		compact(b, db)
		b.ReportMetric((inUse(b, db)-empty)/n, "B/grant-compacted")
		before := inUse(b, db)
		next.Store(0)
		together(clients, func() {
			for i := next.Add(1) - 1; i < n && locked[i] != nil; i = next.Add(1) - 1 {
				if err := locked[i].Release(b.Context()); err != nil {
					b.Error(err)
					return
				}
			}
		})
		b.ReportMetric((inUse(b, db)-before)/n, "B/release")
		compact(b, db)
		b.ReportMetric((inUse(b, db)-empty)/n, "B/ended-compacted")
	}
}

// fillClaims writes used claims of a thousand other nodes, as copies of one real claim.
func fillClaims(b *testing.B, db *cluster.Client, like string, of uint32, n int) {
	b.Helper()
	const batch = 100
	g, ctx := errgroup.WithContext(b.Context())
	g.SetLimit(8)
	for first := 0; first < n; first += batch {
		g.Go(func() error {
			var ops []clientv3.Op
			for i := first; i < min(first+batch, n); i++ {
				id := uint32(1_600_000_000 + i)
				ops = append(ops, clientv3.OpPut(db.Keys().Claim(cluster.SpaceUID, id), strings.NewReplacer(fmt.Sprint(of), fmt.Sprint(id), `"n1"`, fmt.Sprintf(`"n%d"`, 1000+i%1000)).Replace(like)))
			}
			_, err := db.Commit(ctx, nil, ops, nil)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkClaims fills etcd with claims: what they take there and in an agent, how
// long an agent needs to start, and how fast it grants then.
func BenchmarkClaims(b *testing.B) {
	for _, n := range []int{1000, 100_000, 1_000_000} {
		b.Run(fmt.Sprint("claims=", n), func(b *testing.B) {
			for b.Loop() {
				etcd, db := store(b)
				one, stopOne := startOn(b, etcd, "n1")
				setPool(b, one, "jobs", "1500000000-1699999999")
				u, err := one.RequestUID(b.Context(), api.UIDRequest{Pool: "jobs"})
				if err != nil {
					b.Fatal(err)
				}
				if err := u.Keep(b.Context()); err != nil {
					b.Fatal(err)
				}
				resp, err := db.Read(b.Context(), clientv3.OpGet(db.Keys().Claim(cluster.SpaceUID, u.UID())))
				if err != nil {
					b.Fatal(err)
				}
				like := string(resp.Responses[0].GetResponseRange().Kvs[0].Value)
				b.ReportMetric(float64(len(like)), "B/value")
				empty := inUse(b, db)
				stopOne()
				fillClaims(b, db, like, u.UID(), n)
				b.ReportMetric((inUse(b, db)-empty)/float64(n), "B/claim-etcd")
				heap := heapInUse()
				began, cpu := time.Now(), cpuTime()
				two, _ := startOn(b, etcd, "n2")
				b.ReportMetric(time.Since(began).Seconds(), "s/start")
				b.ReportMetric((cpuTime() - cpu).Seconds(), "cpu-s/start")
				b.ReportMetric((heapInUse()-heap)/float64(n), "B/claim-agent")
				const clients, each = 64, 20
				cpu = cpuTime()
				took := together(clients, func() {
					for range each {
						if _, err := two.RequestUID(b.Context(), api.UIDRequest{Pool: "jobs"}); err != nil {
							b.Error(err)
							return
						}
					}
				})
				b.ReportMetric(clients*each/took.Seconds(), "grants/s")
				b.ReportMetric(float64((cpuTime()-cpu).Microseconds())/(clients*each), "cpu-µs/grant")
			}
		})
	}
}

func heapInUse() float64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// counting is a follower that counts.
type counting struct {
	events atomic.Int64
	rev    atomic.Int64
	listed chan struct{}
}

func (c *counting) Reset(rev int64, _ []cluster.KV) { c.rev.Store(rev); close(c.listed) }
func (c *counting) Apply(rev int64, events []cluster.Event) {
	c.events.Add(int64(len(events)))
	c.rev.Store(rev)
}
func (c *counting) Progress(rev int64) { c.rev.Store(rev) }
func (c *counting) Stale(error)        {}

// BenchmarkWatchers writes while many follow the whole root, as every agent does:
// writes and events a second.
func BenchmarkWatchers(b *testing.B) {
	for _, n := range []int{1, 10, 50, 200} {
		b.Run(fmt.Sprint("watchers=", n), func(b *testing.B) {
			etcd, db := store(b)
			ctx, stop := context.WithCancel(b.Context())
			var g errgroup.Group
			all := make([]*counting, n)
			for i := range all {
				all[i] = &counting{listed: make(chan struct{})}
				c := connect(b, etcd)
				g.Go(func() error { _ = c.Follow(ctx, c.Keys().Root(), all[i]); return nil })
				<-all[i].listed
			}
			value := strings.Repeat("x", 400)
			const writers, each = 16, 50
			var seq atomic.Int64
			var writing, delivered time.Duration
			rounds, cpu := 0, cpuTime()
			for b.Loop() {
				rounds++
				began := time.Now()
				writing += together(writers, func() {
					for range each {
						if _, err := db.Txn().Put(b.Context(), fmt.Sprintf("%sbench/%d", db.Keys().Root(), seq.Add(1)), value); err != nil {
							b.Error(err)
							return
						}
					}
				})
				for _, w := range all {
					for w.events.Load() < seq.Load() && !b.Failed() {
						<-time.After(time.Millisecond)
					}
				}
				delivered += time.Since(began)
			}
			total := rounds * writers * each
			b.ReportMetric(float64((cpuTime()-cpu).Microseconds())/float64(n*total), "cpu-µs/event")
			b.ReportMetric(float64(total)/writing.Seconds(), "puts/s")
			b.ReportMetric(float64(n*total)/delivered.Seconds(), "events/s")
			stop()
			_ = g.Wait()
		})
	}
}

// BenchmarkAgents runs many agents on one etcd: what an idle one costs, and what a
// release costs where all of them must prove.
func BenchmarkAgents(b *testing.B) {
	for _, n := range []int{2, 10, 40} {
		b.Run(fmt.Sprint("agents=", n), func(b *testing.B) {
			etcd, db := store(b)
			client, _ := startOn(b, etcd, "n1")
			for i := 2; i <= n; i++ {
				startOn(b, etcd, fmt.Sprint("n", i))
			}
			for _, proof := range []string{"holders", "cluster"} {
				policy := api.PoolPolicy{ScanAge: "1s", Proof: proof}
				ranges := map[string]string{"holders": "1500000000-1500000999", "cluster": "1600000000-1600000999"}[proof]
				if _, err := client.Pools().Put(b.Context(), api.Pool{Name: proof, Ranges: ranges, PoolPolicy: policy}, api.WriteOptions{}); err != nil {
					b.Fatal(err)
				}
			}
			for b.Loop() {
				cpu, began := cpuTime(), time.Now()
				<-time.After(10 * time.Second)
				b.ReportMetric(float64(cpuTime()-cpu)/float64(time.Since(began))/float64(n)*1000, "idle-mCPU/agent")
				for _, proof := range []string{"holders", "cluster"} {
					revs, took := releases(b, client, db, proof)
					b.ReportMetric(revs, "revisions/release-"+proof)
					b.ReportMetric(took.Seconds(), "s/free-"+proof)
				}
			}
		})
	}
}

// releases grants and releases uids one after the other, each until it is free again.
func releases(b *testing.B, client *api.Client, db *cluster.Client, pool string) (revisions float64, each time.Duration) {
	b.Helper()
	const rounds = 10
	first, began := revision(b, db), time.Now()
	for range rounds {
		u, err := client.RequestUID(b.Context(), api.UIDRequest{Pool: pool})
		if err != nil {
			b.Fatal(err)
		}
		if err := u.Keep(b.Context()); err != nil {
			b.Fatal(err)
		}
		if err := u.Release(b.Context()); err != nil {
			b.Fatal(err)
		}
		for {
			p, err := client.Pools().Get(b.Context(), pool)
			if err != nil {
				b.Fatal(err)
			}
			if p.Counts[api.StateFree] == 1000 {
				break
			}
			<-time.After(5 * time.Millisecond)
		}
	}
	return float64(revision(b, db)-first) / rounds, time.Since(began) / rounds
}

func revision(b *testing.B, db *cluster.Client) int64 {
	b.Helper()
	resp, err := db.Read(b.Context(), clientv3.OpGet("/none"))
	if err != nil {
		b.Fatal(err)
	}
	return resp.Header.Revision
}

// cpuTime is what this process has used: agents and etcd together.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
