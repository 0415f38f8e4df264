package cluster_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/cluster/clustertest"
	"github.com/idpool/idpool/problem"
)

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func put(t testing.TB, c *cluster.Client, pairs ...string) int64 {
	t.Helper()
	var ops []clientv3.Op
	for i := 0; i < len(pairs); i += 2 {
		ops = append(ops, clientv3.OpPut(pairs[i], pairs[i+1]))
	}
	resp, err := c.Commit(testContext(t), nil, ops, nil)
	if err != nil {
		t.Fatal(err)
	}
	return resp.Header.Revision
}

func TestConfigValidate(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*cluster.Config)
		want   string
	}{
		{"default", func(*cluster.Config) {}, ""},
		{"all kinds of plain endpoints", func(c *cluster.Config) { c.Endpoints = []string{"http://[::1]:2379", "unix:///run/x"} }, ""},
		{"https without files", func(c *cluster.Config) { c.Endpoints = []string{"https://a:1"} }, ""},
		{"https with files", func(c *cluster.Config) {
			c.Endpoints, c.TLS = []string{"https://a:1"}, cluster.TLSConfig{CertFile: "c", KeyFile: "k", CAFile: "a"}
		}, ""},
		{"no endpoints", func(c *cluster.Config) { c.Endpoints = nil }, "endpoints are missing"},
		{"no scheme", func(c *cluster.Config) { c.Endpoints = []string{"a:2379"} }, "use http://HOST:PORT"},
		{"no port", func(c *cluster.Config) { c.Endpoints = []string{"http://a"} }, "lacks a host or port"},
		{"path", func(c *cluster.Config) { c.Endpoints = []string{"http://a:1/x"} }, "has a path"},
		{"password", func(c *cluster.Config) { c.Endpoints = []string{"http://u:p@a:1"} }, "has a user"},
		{"relative socket", func(c *cluster.Config) { c.Endpoints = []string{"unix://x"} }, "no absolute path"},
		{"long socket", func(c *cluster.Config) { c.Endpoints = []string{"unix:///" + strings.Repeat("x", 100)} }, "100 bytes"},
		{"mixed", func(c *cluster.Config) { c.Endpoints = []string{"https://a:1", "http://b:1"} }, "mix"},
		{"files without https", func(c *cluster.Config) { c.TLS.CAFile = "a" }, "no endpoint is https"},
		{"certificate alone", func(c *cluster.Config) {
			c.Endpoints, c.TLS = []string{"https://a:1"}, cluster.TLSConfig{CertFile: "c"}
		}, "go together"},
		{"root", func(c *cluster.Config) { c.Root = "idpool" }, "root"},
		{"no attempt", func(c *cluster.Config) { c.Attempt = 0 }, "attempt"},
		{"budget", func(c *cluster.Config) { c.Budget = c.Attempt }, "budget"},
		{"TTL in parts of seconds", func(c *cluster.Config) { c.LeaseTTL = 2500 * time.Millisecond }, "whole seconds"},
		{"TTL too short", func(c *cluster.Config) { c.LeaseTTL = time.Second }, "from 2s"},
		{"TTL too long", func(c *cluster.Config) { c.LeaseTTL = 2 * time.Hour }, "1h0m0s"},
		{"attempts in a TTL", func(c *cluster.Config) { c.LeaseTTL = 5 * time.Second }, "at least 6s"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := cluster.DefaultConfig()
			c.Endpoints = []string{"http://127.0.0.1:2379"}
			tt.change(&c)
			err := c.Validate()
			if tt.want == "" && err != nil || tt.want != "" && (!errors.Is(err, problem.ErrInvalid) || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	cfg := cluster.DefaultConfig()
	cfg.Endpoints = []string{"https://127.0.0.1:1"}
	cfg.TLS.CAFile = filepath.Join(t.TempDir(), "none")
	if _, err := cluster.Open(testContext(t), cfg, nil); !errors.Is(err, problem.ErrInvalid) {
		t.Errorf("a missing file: %v", err)
	}
	if _, err := cluster.Open(testContext(t), cluster.Config{}, nil); !errors.Is(err, problem.ErrInvalid) {
		t.Errorf("an empty configuration: %v", err)
	}
}

func TestOpenOfASilentOrAbsentServerEnds(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for name, endpoint := range map[string]string{
		"silent": "http://" + silent.Addr().String(),
		"absent": "unix://" + filepath.Join(t.TempDir(), "s"),
	} {
		t.Run(name, func(t *testing.T) {
			defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
			cfg := cluster.DefaultConfig()
			cfg.Endpoints, cfg.Attempt = []string{endpoint}, 100*time.Millisecond
			_, err := cluster.Open(testContext(t), cfg, nil)
			if problem.CodeOf(err) != problem.CodeUnavailable || !strings.Contains(err.Error(), endpoint) {
				t.Errorf("got %v, want unavailable that names %s", err, endpoint)
			}
		})
	}
}

func TestOldServersAreRefused(t *testing.T) {
	for version, ok := range map[string]bool{
		"3.6.14": true, "3.6.15": true, "3.7.0": true, "4.0.0": true, "3.7.3-rc.1": true,
		"3.6.13": false, "3.5.99": false, "2.9.99": false, "": false, "3.6": false, "x.y.z": false, "not_decided": false, "3.-7.1": false,
	} {
		if err := cluster.CheckVersion("http://a:1", version); (err == nil) != ok || err != nil && !errors.Is(err, problem.ErrInvalid) {
			t.Errorf("%q: %v, want ok %v", version, err, ok)
		}
	}
}

func TestEndpointsOfTwoClustersAreRefused(t *testing.T) {
	cfg := clustertest.Start(t).Config()
	cfg.Endpoints = append(cfg.Endpoints, clustertest.Start(t).Endpoints()...)
	if _, err := cluster.Open(testContext(t), cfg, nil); !errors.Is(err, problem.ErrInvalid) || !strings.Contains(err.Error(), "different etcd clusters") {
		t.Errorf("got %v", err)
	}
}

func TestCommitAndRead(t *testing.T) {
	etcd := clustertest.Start(t)
	c := etcd.OpenWith(t, func(cfg *cluster.Config) { cfg.Attempt, cfg.Budget = 200*time.Millisecond, 500*time.Millisecond })
	rev := put(t, c, "/a", "1", "/b", "2")

	guard := []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision("/a"), "=", 0)}
	resp, err := c.Commit(testContext(t), guard, []clientv3.Op{clientv3.OpPut("/a", "x")}, []clientv3.Op{clientv3.OpGet("/a")})
	if err != nil || resp.Succeeded {
		t.Fatalf("a refused commit: %v, %v", resp, err)
	}
	read, err := c.Read(testContext(t), clientv3.OpGet("/a"), clientv3.OpGet("/b"))
	if err != nil || read.Header.Revision != rev || len(read.Responses) != 2 {
		t.Fatalf("read: %v, %v", read, err)
	}
	if _, err := c.Read(testContext(t), clientv3.OpGet("/a", clientv3.WithRev(rev+100))); problem.CodeOf(err) != problem.CodeInternal {
		t.Errorf("a read that no repetition mends: %v", err)
	}

	var outcome *cluster.OutcomeError
	_, err = c.Commit(testContext(t), nil, []clientv3.Op{clientv3.OpPut("/c", "", clientv3.WithLease(7))}, nil)
	if !errors.As(err, &outcome) || outcome.Outcome != cluster.NotDone || !cluster.IsLeaseNotFound(err) {
		t.Errorf("a commit with a dead lease: %v", err)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err = c.Commit(ended, nil, nil, nil); !errors.As(err, &outcome) || outcome.Outcome != cluster.NotDone {
		t.Errorf("a commit that was never sent: %v", err)
	}

	etcd.Stop(t)
	if _, err = c.Commit(testContext(t), nil, []clientv3.Op{clientv3.OpPut("/a", "y")}, nil); !errors.Is(err, problem.ErrOutcomeUnknown) {
		t.Errorf("a commit during an outage: %v", err)
	}
	if _, err = c.Read(testContext(t), clientv3.OpGet("/a")); problem.CodeOf(err) != problem.CodeUnavailable {
		t.Errorf("a read during an outage: %v", err)
	}
	etcd.Restart(t)
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestEnsureMetaMakesOneEpoch(t *testing.T) {
	etcd := clustertest.Start(t)
	const racers = 8
	var (
		wg   sync.WaitGroup
		got  [racers]cluster.Meta
		raw  [racers][]byte
		errs [racers]error
	)
	var clients [racers]*cluster.Client
	for i := range racers {
		clients[i] = etcd.Open(t)
	}
	if _, _, err := clients[0].ReadMeta(testContext(t)); !errors.Is(err, problem.ErrNotFound) {
		t.Errorf("before bootstrap: %v", err)
	}
	for i := range racers {
		wg.Go(func() { got[i], raw[i], errs[i] = clients[i].EnsureMeta(testContext(t)) })
	}
	wg.Wait()
	for i := range racers {
		if errs[i] != nil || !reflect.DeepEqual(got[i], got[0]) || string(raw[i]) != string(raw[0]) {
			t.Errorf("racer %d has %+v (%v), racer 0 has %+v", i, got[i], errs[i], got[0])
		}
	}
	if got[0].Number != 1 || got[0].State != cluster.StateNormal || string(cluster.Encode(got[0])) != string(raw[0]) {
		t.Errorf("first epoch: %+v from %s", got[0], raw[0])
	}
}

func TestMetaOfAnotherFormatIsRefused(t *testing.T) {
	c := clustertest.Start(t).Open(t)
	for value, want := range map[string]string{
		`{"v":7}`: "record of format 7, this version reads 1: upgrade",
		`{"v":1,"epoch":"x","number":1,"state":"normal"}`:                                     "epoch",
		`{"v":1,"epoch":"0b4f2d6e-8a51-4b9e-9d0c-0d7b6e2c5f11","number":1,"state":"resting"}`: "neither",
		`{"v":1,"epoch":"0b4f2d6e-8a51-4b9e-9d0c-0d7b6e2c5f11","state":"normal"}`:             "number",
	} {
		put(t, c, c.Keys().Meta(), value)
		if _, _, err := c.EnsureMeta(testContext(t)); !errors.Is(err, problem.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", value, err, want)
		}
	}
}

func TestEnsureMetaDuringAnOutage(t *testing.T) {
	etcd := clustertest.Start(t)
	c := etcd.OpenWith(t, func(cfg *cluster.Config) { cfg.Attempt, cfg.Budget = 100*time.Millisecond, 300*time.Millisecond })
	etcd.Stop(t)
	if _, _, err := c.EnsureMeta(testContext(t)); !errors.Is(err, problem.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}
