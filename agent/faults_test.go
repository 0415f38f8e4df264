package agent_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/idpool/idpool/agent"
	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/cluster/clustertest"
	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/seam/fault"
)

// TestClientGone: a client that goes away while it is granted a uid, and named no
// key, leaves nothing behind.
func TestClientGone(t *testing.T) {
	t.Parallel()
	var gone atomic.Pointer[context.CancelFunc]
	c := config(t, "n1", clustertest.Start(t).Endpoints()...)
	c.Seam = fault.At(func(point string) {
		if f := gone.Load(); f != nil && point == "grant:scan:after" {
			(*f)()
		}
	})
	n := start(t, c)
	n.pool(t, api.Pool{Name: "p", Ranges: "3900060000"})
	ctx, cancel := context.WithCancel(t.Context())
	gone.Store(&cancel)
	wants(t, n.agent.RequestAsRoot(ctx, "p"), problem.CodeUnavailable, "given back")
	gone.Store(nil)
	n.until(t, 3900060000, api.StateFree)
	n.request(t, api.UIDRequest{})
}

// TestStopWithoutEtcd: an agent stops in bounded time although etcd is silent.
func TestStopWithoutEtcd(t *testing.T) {
	t.Parallel()
	etcd := clustertest.Start(t)
	n := start(t, config(t, "n1", etcd.Endpoints()...))
	n.pool(t, api.Pool{Name: "p", Ranges: "3900061000"})
	etcd.Stop(t)
	eventually(t, "not ready", func() (bool, any) {
		st, err := n.Status(t.Context())
		return err == nil && !st.Ready && len(st.NotReady) > 0, st
	})
	n.stop()
	if n.err != nil {
		t.Errorf("stopped: %v", n.err)
	}
}

// TestOutage: etcd goes and comes back; the agent serves again and kept its word.
func TestOutage(t *testing.T) {
	t.Parallel()
	etcd := clustertest.Start(t)
	n := start(t, config(t, "n1", etcd.Endpoints()...))
	n.pool(t, api.Pool{Name: "p", Ranges: "3900062000-3900062009"})
	g := n.request(t, api.UIDRequest{Key: "k"})
	etcd.Stop(t)
	eventually(t, "not ready", func() (bool, any) {
		code, _, body := n.raw(t, "GET", "/readyz", "")
		return code == 503, string(body)
	})
	if u := n.show(t, g.Items[0].UID); u.State != api.StateLocked {
		t.Errorf("reading meanwhile: %+v", u)
	}
	etcd.Restart(t)
	eventually(t, "ready again", func() (bool, any) {
		code, _, body := n.raw(t, "GET", "/readyz", "")
		return code == 200, string(body)
	})
	if again := n.request(t, api.UIDRequest{Key: "k"}); !again.Same || again.Token != g.Token {
		t.Errorf("after the outage: %+v", again)
	}
	n.request(t, api.UIDRequest{})
}

// TestGateway: it serves the interface and grants no uid.
func TestGateway(t *testing.T) {
	t.Parallel()
	etcd := clustertest.Start(t)
	c := config(t, "g1", etcd.Endpoints()...)
	c.Role = "gateway"
	n := start(t, c)
	n.pool(t, api.Pool{Name: "p", Ranges: "3900063000"})
	_, err := n.Grant(t.Context(), api.UIDRequest{Pool: "p"})
	wants(t, err, problem.CodeUnavailable, "g1 is a gateway")
	if st, err := n.Status(t.Context()); err != nil || !st.Ready || !strings.Contains(st.Pools[0].Name, "p") {
		t.Errorf("status: %+v, %v", st, err)
	}
}

// TestStopWhileWaiting: a request that waits is answered when the agent stops.
func TestStopWhileWaiting(t *testing.T) {
	t.Parallel()
	c := config(t, "n1", clustertest.Start(t).Endpoints()...)
	n := start(t, c)
	n.pool(t, api.Pool{Name: "p", Ranges: "3900064000"})
	n.request(t, api.UIDRequest{})
	conn, err := net.Dial("unix", c.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// The server asks for the body once it works on the request.
	const request = `{"wait":"1h"}`
	in := bufio.NewReader(conn)
	fmt.Fprintf(conn, "POST /v1/uid-pools/p/uids HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", len(request))
	if line, err := in.ReadString('\n'); err != nil || !strings.Contains(line, "100 Continue") {
		t.Fatalf("server said %q, %v", line, err)
	}
	fmt.Fprint(conn, request)
	n.stop()
	_, _ = in.ReadString('\n') // the end of the first answer's head
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	defer res.Body.Close()
	var b body
	if err := json.NewDecoder(res.Body).Decode(&b); err != nil || b.Code != problem.CodeUnavailable && b.Code != problem.CodeExhausted {
		t.Errorf("answered %d %+v, %v", res.StatusCode, b, err)
	}
}

// TestKeptMachineID: a machine without an id keeps one in the data directory.
func TestKeptMachineID(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, err := agent.KeptMachineID(dir)
	if err != nil || len(first) != 32 {
		t.Fatalf("made %q, %v", first, err)
	}
	if again, err := agent.KeptMachineID(dir); err != nil || again != first {
		t.Errorf("kept %q, %v; want %q", again, err, first)
	}
	if other, err := agent.KeptMachineID(t.TempDir()); err != nil || other == first {
		t.Errorf("another directory's: %q, %v", other, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "machine-id"), []byte("x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = agent.KeptMachineID(dir)
	wants(t, err, problem.CodeInvalid, "holds no machine id")
}
