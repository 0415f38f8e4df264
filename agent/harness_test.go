package agent_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/idpool/idpool/agent"
	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/cluster/clustertest"
	"github.com/idpool/idpool/problem"
)

// limit bounds every wait of a test: for what never comes, also on a busy machine.
const limit = 2 * time.Minute

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == agent.HelperCommand {
		os.Exit(agent.HelperMain())
	}
	if kind := os.Getenv("IDPOOL_AGENT_TEST"); kind != "" {
		os.Exit(helperMain(kind))
	}
	code := m.Run()
	_ = os.Remove(copyPath)
	os.Exit(code)
}

// node is an agent under test.
type node struct {
	*api.Client
	cfg   agent.Config
	agent *agent.Agent
	stop  func()
	done  chan struct{}
	err   error
}

// config is an agent's configuration with directories of its own.
func config(t testing.TB, name string, endpoints ...string) agent.Config {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("agents need Linux: SO_PEERCRED and procfs")
	}
	dir, err := os.MkdirTemp("", "idpa")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil { // helpers of other users open the socket
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	c := agent.Default()
	c.Node, c.Endpoints, c.Data, c.Socket = name, endpoints, filepath.Join(dir, "data"), filepath.Join(dir, "s")
	c.LeaseTTL, c.ScanEvery, c.AcceptPIDNamespace = 2*time.Second, 200*time.Millisecond, true
	return c
}

// launch runs an agent until the test ends, or stop is called.
func launch(t testing.TB, c agent.Config) *node { return launchLogged(t, c, nil) }

func launchLogged(t testing.TB, c agent.Config, log *zap.Logger, prepare ...func(*agent.Agent)) *node {
	t.Helper()
	a, err := agent.New(c, log)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range prepare {
		f(a)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n := &node{Client: api.New(api.Options{Agent: c.Socket, Timeout: limit}), cfg: c, agent: a, done: make(chan struct{})}
	go func() {
		defer close(n.done)
		n.err = a.Run(ctx)
	}()
	n.stop = sync.OnceFunc(func() {
		cancel()
		<-n.done
		n.Close()
	})
	t.Cleanup(n.stop)
	return n
}

// start is launch, and wait until it serves.
func start(t testing.TB, c agent.Config) *node {
	t.Helper()
	n := launch(t, c)
	select {
	case <-n.agent.Ready():
	case <-n.done:
		t.Fatalf("agent of %s ended: %v", c.Node, n.err)
	case <-time.After(limit):
		st, err := n.Status(context.Background())
		t.Fatalf("agent of %s not ready: %v %v", c.Node, st.NotReady, err)
	}
	return n
}

// ended waits for the agent's end and returns its error.
func (n *node) ended(t testing.TB) error {
	t.Helper()
	select {
	case <-n.done:
		return n.err
	case <-time.After(limit):
		t.Fatalf("agent of %s does not end", n.cfg.Node)
		return nil
	}
}

// single is one agent with a pool "p" on an etcd of its own.
func single(t testing.TB, ranges string) *node {
	t.Helper()
	n := start(t, config(t, "n1", clustertest.Start(t).Endpoints()...))
	n.pool(t, api.Pool{Name: "p", Ranges: ranges})
	return n
}

func (n *node) pool(t testing.TB, p api.Pool) {
	t.Helper()
	if _, err := n.Pools().Put(t.Context(), p, api.WriteOptions{}); err != nil {
		t.Fatalf("put pool %s: %v", p.Name, err)
	}
}

func (n *node) request(t testing.TB, r api.UIDRequest) api.Grant {
	t.Helper()
	if r.Pool == "" {
		r.Pool = "p"
	}
	g, err := n.Grant(t.Context(), r)
	if err != nil {
		t.Fatalf("request: %v", err)
	}
	return g
}

func (n *node) show(t testing.TB, uid uint32) api.UID {
	t.Helper()
	u, err := n.UIDs().Get(t.Context(), uid)
	if err != nil {
		t.Fatalf("show uid %d: %v", uid, err)
	}
	return u
}

// until waits until a uid is in a state.
func (n *node) until(t testing.TB, uid uint32, state string) api.UID {
	t.Helper()
	var u api.UID
	eventually(t, fmt.Sprintf("uid %d is %s", uid, state), func() (bool, any) {
		var err error
		u, err = n.UIDs().Get(t.Context(), uid) // not found while the agent lags behind another
		return err == nil && u.State == state, u
	})
	return u
}

// eventually waits for a condition; what is shown when it never comes true.
func eventually(t testing.TB, what string, cond func() (bool, any)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, seen := cond()
		if ok {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("never: %s; last %+v", what, seen)
		}
	}
}

// wants checks an error's code, and that its whole text has every part.
func wants(t testing.TB, err error, code problem.Code, parts ...string) {
	t.Helper()
	if problem.CodeOf(err) != code {
		t.Errorf("error %v is %q; want %q", err, problem.CodeOf(err), code)
		return
	}
	text := fmt.Sprint(err)
	var p *problem.Error
	if errors.As(err, &p) {
		text += "\n" + p.Text()
	}
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("error %q lacks %q", text, part)
		}
	}
}

// raw sends one HTTP request and returns status, header and body.
func (n *node) raw(t testing.TB, method, path, body string, header ...string) (int, http.Header, []byte) {
	t.Helper()
	c := &http.Client{Timeout: limit, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", n.cfg.Socket)
		},
	}}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://agent"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, res.Header, text
}

// get reads a path as JSON.
func (n *node) get(t testing.TB, path string, into any) {
	t.Helper()
	code, _, body := n.raw(t, "GET", path, "")
	if code != http.StatusOK {
		t.Fatalf("GET %s: %d %s", path, code, body)
	}
	if err := json.Unmarshal(body, into); err != nil {
		t.Fatal(err)
	}
}
