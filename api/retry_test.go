package api_test

import (
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/problem"
)

// TestRetry: what did nothing is asked again while Options.Retry lets it, and what may
// have been done is not, without a key.
func TestRetry(t *testing.T) {
	var calls, refuse atomic.Int64
	cut := false
	path := socketPath(t)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		calls.Add(1)
		w.Header().Set("Content-Type", "application/problem+json")
		switch {
		case cut:
			conn, _, _ := http.NewResponseController(w).Hijack()
			_ = conn.Close()
		case refuse.Add(-1) >= 0:
			w.WriteHeader(503)
			_, _ = w.Write([]byte(`{"status":503,"code":"unavailable","detail":"the agent is stopping; nothing was done"}`))
		default:
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(201)
			_, _ = w.Write([]byte(`{"token":"t","items":[{"uid":1}]}`))
		}
	})}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	ask := func(retry time.Duration, key string) (int64, error) {
		calls.Store(0)
		c := api.New(api.Options{Agent: path, Retry: retry})
		defer c.Close()
		_, err := c.Grant(t.Context(), api.UIDRequest{Pool: "p", Key: key})
		return calls.Load(), err
	}
	refuse.Store(3)
	if n, err := ask(time.Minute, ""); err != nil || n != 4 {
		t.Errorf("refused three times: %d calls, %v", n, err)
	}
	refuse.Store(3)
	n, err := ask(0, "k")
	if wantCode(t, err, problem.CodeUnavailable); n != 1 {
		t.Errorf("without Retry: %d calls", n)
	}
	cut = true
	n, err = ask(time.Minute, "")
	if wantCode(t, err, problem.CodeOutcomeUnknown); n != 1 {
		t.Errorf("cut off without a key: %d calls", n)
	}
	n, err = ask(200*time.Millisecond, "k")
	if wantCode(t, err, problem.CodeOutcomeUnknown); n < 3 {
		t.Errorf("cut off with a key: %d calls", n)
	}
}
