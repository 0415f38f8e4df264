package leases

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/idpool/idpool/cluster"
)

// until waits for cond, looked at often, up to the limit.
func until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	b := cluster.Backoff{Min: 2 * time.Millisecond, Max: 20 * time.Millisecond}
	for !cond() {
		if b.Wait(ctx) != nil {
			t.Fatalf("waited too long: %s", what)
		}
	}
}

func mustErr(t testing.TB, err, want error, parts ...string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Fatalf("error %q does not say %q", err, p)
		}
	}
}

func uid(id uint32) Ref { return Ref{cluster.SpaceUID, id} }

// closedSoon is closed after a short while: long enough for a transaction that
// nothing holds back.
func closedSoon() <-chan struct{} {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	context.AfterFunc(ctx, cancel)
	return ctx.Done()
}

func mustJSON(v any) []byte { return cluster.Encode(v) }

func contextWithCancel(w *world) (context.Context, context.CancelFunc) {
	return context.WithCancel(w.ctx())
}
