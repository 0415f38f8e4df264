package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/idpool/idpool/agent"
)

// agentOn runs an agent below a root of an etcd until stop.
func agentOn(t *testing.T, etcd, root string) (socket string, stop func()) {
	t.Helper()
	dir, err := os.MkdirTemp("", "idpc")
	if err != nil {
		t.Fatal(err)
	}
	c := agent.Default()
	c.Node, c.Root, c.Endpoints, c.Data, c.Socket, c.AcceptPIDNamespace = "n1", root, []string{etcd}, filepath.Join(dir, "n1"), filepath.Join(dir, "s"), true
	a, err := agent.New(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := a.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	stop = func() {
		cancel()
		<-ended
		_ = os.RemoveAll(dir)
	}
	t.Cleanup(stop)
	select {
	case <-a.Ready():
	case <-time.After(time.Minute):
		t.Fatal("the agent is not ready")
	}
	return c.Socket, stop
}

// TestPoolsMoveToANewCluster: what an agent of the one cluster wrote is a pool to an
// agent of the other.
func TestPoolsMoveToANewCluster(t *testing.T) {
	etcd := testEtcd(t)
	socket, stop := agentOn(t, etcd, "/idpool/")
	poolctl(t, 0, "", "--agent", "unix://"+socket, "uid", "pool", "set", "jobs", "1500000000-1500000009", "--cooldown", "5m")
	poolctl(t, 0, "", "--agent", "unix://"+socket, "uid", "request", "--pool", "jobs")
	stop()
	pools, _ := poolctl(t, 0, "", "cluster", "export", "--only", "pools", "--endpoints", etcd)
	poolctl(t, 0, pools, "cluster", "import", "-", "--endpoints", etcd, "--root", "/new/")

	socket, _ = agentOn(t, etcd, "/new/")
	out, _ := poolctl(t, 0, "", "--agent", "unix://"+socket, "uid", "pool", "show", "jobs", "-o", "json")
	for _, want := range []string{`"cooldown": "5m0s"`, `"free": 10`, "1500000000-1500000009"} {
		if !strings.Contains(out, want) {
			t.Errorf("the pool lacks %s: %s", want, out)
		}
	}
	poolctl(t, 0, "", "--agent", "unix://"+socket, "uid", "request", "--pool", "jobs")
	poolctl(t, 0, "", "--agent", "unix://"+socket, "uid", "pool", "set", "jobs", "--add", "1500000010-1500000019")
}
