// Package idpooltest gives the tests of other programs a real agent on a real etcd,
// both in the test's own process and gone with it. Nothing is mocked: what a test
// sees is what the program will see. It needs Linux, and root only where processes
// are to run under the uids granted; elsewhere the test is skipped.
//
// It links the agent and etcd, so only tests should import it.
package idpooltest

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/idpool/idpool/agent"
	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/cluster/clustertest"
)

// startLimit bounds the start on a busy machine.
const startLimit = time.Minute

// Agent is a running agent, of which the test is the operator.
type Agent struct {
	*api.Client
	// Socket is where it answers: what IDPOOL_AGENT takes.
	Socket string
}

// Start runs an agent, node "test", without pools, until the test ends.
func Start(t testing.TB) *Agent {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("idpool's agent needs Linux")
	}
	dir, err := os.MkdirTemp("", "idpt") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	c := agent.Default()
	c.Node, c.Endpoints, c.Data, c.Socket = "test", clustertest.Start(t).Endpoints(), filepath.Join(dir, "data"), filepath.Join(dir, "s")
	c.ScanEvery, c.AcceptPIDNamespace = 200*time.Millisecond, true
	a, err := agent.New(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	out := &Agent{Client: api.New(api.Options{Agent: c.Socket}), Socket: c.Socket}
	t.Cleanup(func() {
		out.Close()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("idpool's agent ended: %v", err)
		}
	})
	select {
	case <-a.Ready():
	case err := <-done:
		done <- nil
		t.Fatalf("idpool's agent did not start: %v", err)
	case <-time.After(startLimit):
		t.Fatal("idpool's agent did not start in time")
	}
	return out
}
