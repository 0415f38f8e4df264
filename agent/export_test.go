package agent

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/idpool/idpool/api"
)

// RequestAsRoot is a request of root whose client is ctx.
func (a *Agent) RequestAsRoot(ctx context.Context, pool string) error {
	s := &server{a: a}
	_, err := s.request(ctx, newCaller(peer{}, "unix:0", operator), &requestIn{Pool: pool})
	return err
}

// KeptMachineID is the id of a machine that has none, for a data directory.
func KeptMachineID(dir string) (string, error) {
	return machineID(func() (string, error) { return "", errors.New("none") }, dir, nil, zap.NewNop())
}

// ShowKey is a key as check shows it.
func ShowKey(key string) string { return showKey(key) }

// RootHandler answers every request as root's, as the socket's server does.
func (a *Agent) RootHandler() http.Handler {
	h := a.newServer(context.Background(), nil).http.Handler
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), peerKey{}, peer{})))
	})
}

// Stuck judges how long ago each loop made a step.
func Stuck(pulse map[string]time.Duration) error { return stuck("n1", pulse) }

// RememberEvents makes the agent remember so many events.
func (a *Agent) RememberEvents(n int) {
	a.events.mu.Lock()
	defer a.events.mu.Unlock()
	a.events.limit = n
}

// TellEvents makes so many events happen at once.
func (a *Agent) TellEvents(n int) {
	for range n {
		a.events.audit("n", &api.Audit{Operation: strings.Repeat("x", 1000)})
	}
}

// Patience sets how long a client may take for the head and the body of a request,
// to read the answer, and an event; before Run.
func (a *Agent) Patience(head, body, answer, event time.Duration) {
	a.patience = patience{head, body, answer, event}
}
