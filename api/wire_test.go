package api_test

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/problem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sent is one request as the other end of the socket saw it.
type sent struct {
	Method, URI, IfMatch, Body string
}

// drawn is the requester's name in a request, which the client draws.
var drawn = regexp.MustCompile(`,"requester":"[A-Z2-7]{26}"(})|"requester":"[A-Z2-7]{26}",?`)

// wire is the other end of a socket: it records what comes and answers what the
// test says. It decides nothing, so it stands for no agent.
type wire struct {
	path string

	mu    sync.Mutex // guards the fields below
	calls []sent
}

func newWire(t *testing.T, answer http.HandlerFunc) *wire {
	t.Helper()
	w := &wire{path: socketPath(t)}
	l, err := net.Listen("unix", w.path)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.mu.Lock()
		w.calls = append(w.calls, sent{r.Method, r.URL.RequestURI(), r.Header.Get("If-Match"), drawn.ReplaceAllString(string(body), `$1`)})
		w.mu.Unlock()
		answer(rw, r)
	})}
	served := make(chan struct{})
	go func() { defer close(served); _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close(); <-served })
	return w
}

// socketPath is short: a socket's path has at most 107 bytes.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "api")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

func (w *wire) seen() []sent {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]sent(nil), w.calls...)
}

func (w *wire) client(t *testing.T) *api.Client {
	t.Helper()
	c := api.New(api.Options{Agent: "unix://" + w.path, WatchInterval: time.Millisecond})
	t.Cleanup(c.Close)
	return c
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func refuse(w http.ResponseWriter, err error) {
	body := api.NewProblemBody(err)
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(body.Status)
	_ = json.NewEncoder(w).Encode(body)
}

// hangUp ends the connection instead of answering.
func hangUp(t *testing.T, w http.ResponseWriter) {
	t.Helper()
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	_ = conn.Close()
}

const token = "t-70012"

// granted is a grant of uid 70012 in a state.
func granted(state string) api.UID {
	return api.UID{UID: 70012, GID: 70012, Count: 1, Pool: "jobs", State: state, Token: token}
}

func grant() api.Grant {
	return api.Grant{Token: token, Requester: "r1", Items: []api.UID{granted(api.StateLocked)}}
}

// eventually waits for a condition, a while at most.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("never came: %s", what)
		case <-tick.C:
		}
	}
}

func closedSoon(t *testing.T, what string, ch <-chan struct{}) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(20 * time.Second):
		t.Fatalf("never closed: %s", what)
	}
}

func wantCode(t *testing.T, err error, want problem.Code) *problem.Error {
	t.Helper()
	if got := problem.CodeOf(err); got != want {
		t.Fatalf("code %q of %v, want %q", got, err, want)
	}
	p, ok := err.(*problem.Error)
	if !ok {
		t.Fatalf("%v is a %T, want *problem.Error", err, err)
	}
	return p
}
