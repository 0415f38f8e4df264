package api_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/problem"
)

// life answers as an agent does whose uid 70012 is in a state, which the test changes.
type life struct {
	state atomic.Value // string
	// silent makes it hang up on every look.
	silent atomic.Bool
	looks  atomic.Int64
}

func newLife(t *testing.T) (*life, *wire, *api.Client) {
	t.Helper()
	l := &life{}
	l.state.Store(api.StateLocked)
	w := newWire(t, func(w http.ResponseWriter, r *http.Request) { l.answer(t, w, r) })
	return l, w, w.client(t)
}

func (l *life) answer(t *testing.T, w http.ResponseWriter, r *http.Request) {
	state := l.state.Load().(string)
	over := state != api.StateLocked && state != api.StateUsed && state != api.StateIdle
	switch {
	case strings.HasSuffix(r.URL.Path, "/v1/uid-pools/jobs/uids"):
		answer(w, http.StatusCreated, grant())
	case r.Method == http.MethodDelete:
		l.state.Store(api.StateFree)
		answer(w, http.StatusOK, api.Released{Items: []api.UID{granted(api.StateFree)}, Changed: !over})
	case r.Method == http.MethodPost && over:
		refuse(w, problem.New(problem.CodeLockLost, "uid 70012 not confirmed: its hold ran out"))
	case r.Method == http.MethodPost:
		l.state.Store(api.StateUsed)
		answer(w, http.StatusOK, granted(api.StateUsed))
	case l.silent.Load():
		l.looks.Add(1)
		hangUp(t, w)
	default:
		l.looks.Add(1)
		u := granted(state)
		if over {
			u.Token = ""
		}
		answer(w, http.StatusOK, u)
	}
}

func request(t *testing.T, c *api.Client) *api.LockedUID {
	t.Helper()
	u, err := c.RequestUID(t.Context(), api.UIDRequest{Pool: "jobs"})
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// count is how many requests of a method went to a path that ends so.
func (w *wire) count(method, suffix string) int {
	n := 0
	for _, c := range w.seen() {
		path, _, _ := strings.Cut(c.URI, "?")
		if c.Method == method && strings.HasSuffix(path, suffix) {
			n++
		}
	}
	return n
}

func TestUnlockTwiceIsANoOp(t *testing.T) {
	_, w, c := newLife(t)
	u := request(t, c)
	for _, f := range []func(context.Context) error{u.Confirm, u.Unlock, u.Unlock} {
		if err := f(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := w.count("POST", "/confirm"); n != 1 {
		t.Errorf("confirmed %d times on the wire", n)
	}
	if got := u.Info().State; got != api.StateUsed {
		t.Errorf("state %s after a confirm", got)
	}
	if err := u.Keep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := w.count("POST", "/confirm"); n != 2 {
		t.Error("keep after a confirm was not sent")
	}
}

func TestReleaseTwiceIsANoOp(t *testing.T) {
	_, w, c := newLife(t)
	u := request(t, c)
	for range 2 {
		if err := u.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := w.count("DELETE", "/v1/uids/70012"); n != 1 {
		t.Errorf("released %d times on the wire", n)
	}
	last := w.seen()[1]
	if last.IfMatch != strconv.Quote(token) || last.URI != "/v1/uids/70012?requester=r1" {
		t.Errorf("the release did not name its grant and requester: %+v", last)
	}
	select {
	case <-u.Lost():
		t.Error("a release of one's own counts as a loss")
	default:
	}
}

func TestLost(t *testing.T) {
	for _, state := range []string{api.StateQuarantined, api.StateFree, api.StateReserved} {
		t.Run(state, func(t *testing.T) {
			l, _, c := newLife(t)
			u := request(t, c)
			lost := u.Lost()
			eventually(t, "a look", func() bool { return l.looks.Load() > 1 })
			l.state.Store(state)
			closedSoon(t, "lost", lost)
			if err := u.Watch(t.Context()); !errors.Is(err, api.ErrLockLost) {
				t.Errorf("watching a lost uid: %v", err)
			}
			if err := u.Release(t.Context()); err != nil {
				t.Errorf("releasing a lost uid: %v", err)
			}
		})
	}
}

// TestReleaseUnderWatchIsNoLoss answers a release only after the watch has seen
// what it did.
func TestReleaseUnderWatchIsNoLoss(t *testing.T) {
	var looks atomic.Int64
	var ended atomic.Bool
	w := newWire(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodPost:
			answer(w, http.StatusCreated, grant())
		case http.MethodDelete:
			ended.Store(true)
			before := looks.Load()
			eventually(t, "two looks", func() bool { return looks.Load() > before+2 })
			answer(w, http.StatusOK, api.Released{Changed: true})
		default:
			state := api.StateUsed
			if ended.Load() {
				state = api.StateFree
			}
			looks.Add(1)
			answer(w, http.StatusOK, granted(state))
		}
	})
	u := request(t, w.client(t))
	lost := u.Lost()
	if err := u.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-lost:
		t.Error("our own release was taken for a loss")
	default:
	}
	if err := u.Watch(t.Context()); err != nil {
		t.Errorf("watching a released uid: %v", err)
	}
}

func TestLostAtConfirm(t *testing.T) {
	l, _, c := newLife(t)
	u := request(t, c)
	l.state.Store(api.StateQuarantined)
	if err := u.Confirm(t.Context()); !errors.Is(err, api.ErrLockLost) {
		t.Fatal(err)
	}
	closedSoon(t, "lost", u.Lost())
	if n := l.looks.Load(); n != 0 {
		t.Errorf("%d looks at a uid known to be lost", n)
	}
}

func TestLostToAnother(t *testing.T) {
	var looks atomic.Int64
	w := newWire(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			answer(w, http.StatusCreated, grant())
			return
		}
		u := granted(api.StateUsed)
		if looks.Add(1) > 1 {
			u.Token = "another"
		}
		answer(w, http.StatusOK, u)
	})
	closedSoon(t, "lost", request(t, w.client(t)).Lost())
}

func TestASilentAgentLosesNothing(t *testing.T) {
	l, _, c := newLife(t)
	u := request(t, c)
	l.silent.Store(true)
	lost := u.Lost()
	eventually(t, "looks", func() bool { return l.looks.Load() > 5 })
	select {
	case <-lost:
		t.Fatal("silence was taken for a loss")
	default:
	}
	l.silent.Store(false)
	l.state.Store(api.StateFree)
	closedSoon(t, "lost", lost)
}

// TestCloseEndsWatching relies on goleak in TestMain to see a goroutine that stays.
func TestCloseEndsWatching(t *testing.T) {
	l, _, c := newLife(t)
	u := request(t, c)
	lost := u.Lost()
	eventually(t, "a look", func() bool { return l.looks.Load() > 0 })
	c.Close()
	c.Close()
	select {
	case <-lost:
		t.Error("closing the client lost the uid")
	default:
	}
}

func TestExecKeepsOnSuccess(t *testing.T) {
	_, w, c := newLife(t)
	err := c.ExecWithUID(t.Context(), api.UIDRequest{Pool: "jobs"}, func(_ context.Context, u *api.LockedUID) error {
		if u.UID() != 70012 {
			t.Errorf("uid %s", u)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	calls := w.seen()
	if want := `{"hold":{"kind":"pid","pid":` + strconv.Itoa(os.Getpid()) + `}}`; calls[0].Body != want {
		t.Errorf("asked with %s, want %s", calls[0].Body, want)
	}
	if last := calls[len(calls)-1]; last.Body != `{"keep":true,"requester":"r1"}` {
		t.Errorf("last call %+v, want a confirm with keep", last)
	}
	if w.count("DELETE", "") != 0 {
		t.Error("released after a success")
	}
}

func TestExecReleasesOnFailure(t *testing.T) {
	want := errors.New("the guest did not boot")
	for name, fn := range map[string]func() error{
		"error": func() error { return want },
		"panic": func() error { panic(want) },
		"exit":  func() error { runtime.Goexit(); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			_, w, c := newLife(t)
			var err error
			var panicked any
			done := make(chan struct{})
			go func() {
				defer close(done)
				defer func() { panicked = recover() }()
				err = c.ExecWithUID(t.Context(), api.UIDRequest{Pool: "jobs"}, func(context.Context, *api.LockedUID) error { return fn() })
			}()
			closedSoon(t, "exec", done)
			if name == "error" && err != want {
				t.Errorf("got %v, want the function's own error", err)
			}
			if name == "panic" && panicked != want {
				t.Errorf("the panic became %v", panicked)
			}
			if w.count("DELETE", "/v1/uids/70012") != 1 || w.count("POST", "/confirm") != 0 {
				t.Errorf("calls: %v", w.seen())
			}
		})
	}
}

func TestExecReleasesAfterCancellation(t *testing.T) {
	_, w, c := newLife(t)
	ctx, cancel := context.WithCancel(t.Context())
	err := c.ExecWithUID(ctx, api.UIDRequest{Pool: "jobs"}, func(ctx context.Context, _ *api.LockedUID) error {
		cancel()
		<-ctx.Done()
		return ctx.Err()
	})
	if !errors.Is(err, context.Canceled) || errors.Is(err, api.ErrLockLost) {
		t.Errorf("got %v", err)
	}
	if w.count("DELETE", "/v1/uids/70012") != 1 {
		t.Error("a cancelled caller kept its uid")
	}
}

func TestExecTellsOfALoss(t *testing.T) {
	l, _, c := newLife(t)
	err := c.ExecWithUID(t.Context(), api.UIDRequest{Pool: "jobs"}, func(ctx context.Context, _ *api.LockedUID) error {
		l.state.Store(api.StateQuarantined)
		closedSoon(t, "the function's context", ctx.Done())
		if cause := context.Cause(ctx); !errors.Is(cause, api.ErrLockLost) {
			t.Errorf("cause %v", cause)
		}
		return ctx.Err()
	})
	if !errors.Is(err, api.ErrLockLost) || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestExecLeavesWhatTheFunctionDid(t *testing.T) {
	for name, fn := range map[string]func(context.Context, *api.LockedUID) error{
		"released":  func(ctx context.Context, u *api.LockedUID) error { return u.Release(ctx) },
		"confirmed": func(ctx context.Context, u *api.LockedUID) error { return u.Confirm(ctx) },
	} {
		t.Run(name, func(t *testing.T) {
			_, w, c := newLife(t)
			if err := c.ExecWithUID(t.Context(), api.UIDRequest{Pool: "jobs"}, fn); err != nil {
				t.Fatal(err)
			}
			for _, call := range w.seen() {
				if strings.Contains(call.Body, "keep") {
					t.Errorf("kept all the same: %+v", call)
				}
			}
		})
	}
}

func TestExecWithoutAGrantCallsNothing(t *testing.T) {
	w := newWire(t, func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, problem.New(problem.CodeExhausted, "pool jobs is exhausted"))
	})
	called := func(context.Context, *api.LockedUID) error { t.Error("called"); return nil }
	if err := w.client(t).ExecWithUID(t.Context(), api.UIDRequest{Pool: "jobs"}, called); !errors.Is(err, api.ErrExhausted) {
		t.Errorf("got %v", err)
	}
	err := w.client(t).ExecWithUID(t.Context(), api.UIDRequest{Pool: "jobs", Hold: api.Hold{Kind: api.HoldTTL, TTL: time.Minute.String()}}, called)
	if !errors.Is(err, api.ErrInvalid) {
		t.Errorf("got %v", err)
	}
}
