package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/cluster/clustertest"
)

// bin is where TestMain built the binaries.
var bin string

func TestMain(m *testing.M) {
	flag.Parse()
	// Most of their time is waiting, for leases and for agents that start.
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		_ = f.Value.Set("3")
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "idpool-e2e-bin")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		bin = dir
		build := exec.Command("go", "build", "-tags", "idpool_fault", "-o", dir+"/", "github.com/idpool/idpool/cmd/...")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			fmt.Fprintln(os.Stderr, "build the binaries:", err)
			return 1
		}
		return m.Run()
	}())
}

// world is one etcd and the agents on it.
type world struct {
	t    *testing.T
	etcd *clustertest.Cluster
	dir  string
	db   *cluster.Client
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return newWorldOn(t, func() *clustertest.Cluster { return clustertest.Start(t) })
}

// newWorldOn is newWorld on the etcd that start starts.
func newWorldOn(t *testing.T, start func() *clustertest.Cluster) *world {
	t.Helper()
	if testing.Short() {
		t.Skip("starts real processes; left out with -short")
	}
	dir, err := os.MkdirTemp("", "idp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	etcd := start()
	w := &world{t: t, etcd: etcd, dir: dir}
	if etcd != nil {
		w.db = etcd.Open(t)
	}
	return w
}

// node is one agent process and what it needs to start again.
type node struct {
	w      *world
	name   string
	socket string
	cmd    *exec.Cmd
	log    *syncBuffer
	client *api.Client
	exited chan struct{}
	// endpoints, if set, are where it looks for etcd instead of the world's, and flags
	// what it is started with besides.
	endpoints, flags []string
}

// node makes a node; start it with start.
func (w *world) node(name string) *node {
	n := &node{w: w, name: name, socket: filepath.Join(w.dir, name+".sock"), log: &syncBuffer{}}
	n.client = api.New(api.Options{Agent: "unix://" + n.socket})
	w.t.Cleanup(n.kill)
	w.t.Cleanup(func() {
		if w.t.Failed() {
			w.t.Logf("log of %s:\n%s", name, tail(n.log.String(), 4000))
		}
	})
	return n
}

// up starts n agents, n1 to nN, and waits until they are ready.
func (w *world) up(n int) []*node {
	w.t.Helper()
	var nodes []*node
	for i := range n {
		nd := w.node(fmt.Sprintf("n%d", i+1))
		nd.start()
		nodes = append(nodes, nd)
	}
	for _, nd := range nodes {
		nd.ready()
	}
	return nodes
}

// start runs the agent; env sets more of its environment.
func (n *node) start(env ...string) {
	n.w.t.Helper()
	endpoints := n.endpoints
	if endpoints == nil {
		endpoints = n.w.etcd.Endpoints()
	}
	n.cmd = exec.Command(filepath.Join(bin, "poolagent"), append([]string{"--node", n.name, "--endpoints", strings.Join(endpoints, ","),
		"--data", filepath.Join(n.w.dir, n.name), "--socket", n.socket, "--lease-ttl", "10s", "--scan-every", "300ms", "--accept-pid-namespace"}, n.flags...)...)
	n.cmd.Env = append(os.Environ(), env...)
	n.cmd.Stdout, n.cmd.Stderr = n.log, n.log
	if err := n.cmd.Start(); err != nil {
		n.w.t.Fatal(err)
	}
	n.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) { _ = cmd.Wait(); close(exited) }(n.cmd, n.exited)
}

// ready waits until the agent may grant.
func (n *node) ready() {
	n.w.t.Helper()
	n.w.eventually("agent "+n.name+" is ready", 30*time.Second, func(ctx context.Context) error {
		st, err := n.client.Status(ctx)
		if err == nil && !st.Ready {
			err = fmt.Errorf("not ready: %v", st.NotReady)
		}
		return err
	})
}

// ownRange is a range of n uids that no other run of the tests uses: what an
// earlier run left behind would be found in use.
func ownRange(n int) string {
	first := 1_100_000_000 + os.Getpid()%100_000*1000
	return fmt.Sprintf("%d-%d", first, first+n-1)
}

// apart is a range of n uids that no other test uses, so that tests with a number k
// of their own may run side by side.
func apart(k, n int) string {
	first := 1_400_000_000 + os.Getpid()%100_000*1000 + k*50
	return fmt.Sprintf("%d-%d", first, first+n-1)
}

// kill ends the agent with SIGKILL, if it runs, and waits for its end.
func (n *node) kill() {
	if n.cmd == nil {
		return
	}
	_ = n.cmd.Process.Signal(syscall.SIGKILL)
	<-n.exited
	n.cmd = nil
}

// eventually waits until check returns nil.
func (w *world) eventually(what string, limit time.Duration, check func(context.Context) error) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check(ctx)
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			w.t.Fatalf("%s: not within %s: %v", what, limit, err)
		}
	}
}

// ctl is one finished run of poolctl.
type ctl struct {
	code           int
	stdout, stderr string
}

// poolctl runs the command against the node's agent.
func (n *node) poolctl(args ...string) ctl {
	cmd := exec.Command(filepath.Join(bin, "poolctl"), append([]string{"--agent", "unix://" + n.socket}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return ctl{code: -1, stderr: err.Error()}
	}
	return ctl{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// must runs poolctl and fails the test unless it exits 0; it returns stdout.
func (n *node) must(args ...string) string {
	n.w.t.Helper()
	r := n.poolctl(args...)
	if r.code != 0 {
		n.w.t.Fatalf("poolctl %s on %s: exit %d\n%s%s", strings.Join(args, " "), n.name, r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

// keys lists what etcd holds below a part of the root.
func (w *world) keys(part string) map[string]string {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	resp, err := w.db.Read(ctx, clientv3.OpGet(w.db.Keys().Root()+part, clientv3.WithPrefix()))
	if err != nil {
		w.t.Fatal(err)
	}
	found := map[string]string{}
	for _, kv := range resp.Responses[0].GetResponseRange().Kvs {
		found[string(kv.Key)] = string(kv.Value)
	}
	return found
}

// quiet waits until etcd holds no claim, no lock of an id and no live grant (P6).
func (w *world) quiet(limit time.Duration) {
	w.t.Helper()
	w.eventually("nothing is left in etcd", limit, func(context.Context) error {
		left := w.keys("claims/")
		for k, v := range w.keys("locks/") {
			if !strings.HasSuffix(k, "/reaper") {
				left[k] = v
			}
		}
		for k, v := range w.keys("grants/") {
			var r struct{ Ended bool }
			if json.Unmarshal([]byte(v), &r) != nil || !r.Ended {
				left[k] = v
			}
		}
		if len(left) == 0 {
			return nil
		}
		for k, v := range left {
			return fmt.Errorf("%d keys are left, such as %s = %s", len(left), k, v)
		}
		return nil
	})
}

// syncBuffer is a buffer that a process writes and a test reads.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}
