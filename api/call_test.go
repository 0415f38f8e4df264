package api_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/problem"
)

func TestAbsentSocketSaysWhatToDo(t *testing.T) {
	path := socketPath(t)
	c := api.New(api.Options{Agent: path})
	defer c.Close()
	_, err := c.RequestUID(t.Context(), api.UIDRequest{Pool: "jobs", Key: "k"})
	p := wantCode(t, err, problem.CodeUnavailable)
	want := "no agent answers on " + path + ` (the socket does not exist); nothing was done
  start it:   systemctl start idpool-agent
  elsewhere:  poolctl --agent https://HOST:PORT …`
	if diff := cmp.Diff(want, p.Text()); diff != "" {
		t.Error(diff)
	}
	if !errors.Is(err, api.ErrUnavailable) || errors.Is(err, api.ErrOutcomeUnknown) {
		t.Errorf("sentinels of %v", err)
	}
}

func TestDeadSocket(t *testing.T) {
	path := socketPath(t)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	c := api.New(api.Options{Agent: path})
	defer c.Close()
	p := wantCode(t, c.Pools().Delete(t.Context(), "jobs"), problem.CodeUnavailable)
	if want := "no agent answers on " + path + " (nothing listens there); nothing was done"; p.Detail != want {
		t.Errorf("got %q, want %q", p.Detail, want)
	}
}

func TestSocketOfOthers(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may open every socket")
	}
	path := socketPath(t)
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	c := api.New(api.Options{Agent: path})
	defer c.Close()
	_, err = c.Status(t.Context())
	wantCode(t, err, problem.CodeForbidden)
}

func TestAddresses(t *testing.T) {
	t.Setenv(api.EnvAgent, "")
	for agent, want := range map[string]string{
		"":                        api.DefaultSocket,
		"/a/b":                    "/a/b",
		"rel.sock":                "rel.sock",
		"unix:///a/b":             "/a/b",
		"unix:/a/b":               "/a/b",
		"https://n1.example:7443": "https://n1.example:7443",
	} {
		if got := api.New(api.Options{Agent: agent}).Agent(); got != want {
			t.Errorf("%q: got %q, want %q", agent, got, want)
		}
	}
	t.Setenv(api.EnvAgent, "/from/env")
	if got := api.New(api.Options{}).Agent(); got != "/from/env" {
		t.Errorf("%s is not used: %q", api.EnvAgent, got)
	}
	for _, agent := range []string{"http://n1:7443", "unix://rel", "tcp://n1", "https://", "https://u:p@n1", "https://n1/?a=b"} {
		_, err := api.New(api.Options{Agent: agent}).Status(t.Context())
		wantCode(t, err, problem.CodeInvalid)
	}
}

func TestRefusalsKeepTheirIdentity(t *testing.T) {
	since := time.Date(2026, 3, 1, 14, 2, 0, 0, time.UTC)
	want := problem.New(problem.CodeExhausted, "pool jobs is exhausted: 0 of 4096 uids free").
		Note("3684 used").Advise("or wait", "poolctl uid request --wait 10m").
		By(problem.Holder{Caller: "unix:1", Since: &since})
	want.Counts = map[string]uint64{"used": 3684}
	want.Revision = 88231
	want.WaitsFor = []problem.WaitsFor{{Node: "n217", LastSeen: &since}}
	w := newWire(t, func(w http.ResponseWriter, _ *http.Request) { refuse(w, want) })
	_, err := w.client(t).RequestUID(t.Context(), api.UIDRequest{Pool: "jobs"})
	if !errors.Is(err, api.ErrExhausted) {
		t.Fatalf("%v is not ErrExhausted", err)
	}
	if diff := cmp.Diff(want, err); diff != "" {
		t.Error(diff)
	}
	for _, code := range problem.Codes() {
		if got := api.NewProblemBody(problem.New(code, "x")).Err(); got.Code != code {
			t.Errorf("%s became %s", code, got.Code)
		}
	}
}

func TestForeignRefusals(t *testing.T) {
	for _, row := range []struct {
		status      int
		contentType string
		body        string
		read, write problem.Code
		note        string
	}{
		{503, "text/plain", "no upstream\nmore", problem.CodeUnavailable, problem.CodeUnavailable, "it sent: no upstream"},
		{504, "text/html", "<html>", problem.CodeUnavailable, problem.CodeOutcomeUnknown, ""},
		{404, "text/plain", "404 page not found", problem.CodeNotFound, problem.CodeNotFound, "it sent: 404 page not found"},
		{500, "application/problem+json", `{"detail":"no code"}`, problem.CodeInternal, problem.CodeInternal, `it sent: {"detail":"no code"}`},
		{302, "", "", problem.CodeInternal, problem.CodeInternal, ""},
		{500, "", strings.Repeat("x", 3<<20), problem.CodeInternal, problem.CodeInternal, "it sent: " + strings.Repeat("x", 200) + "…"},
	} {
		w := newWire(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", row.contentType)
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(row.status)
			fmt.Fprint(w, row.body)
		})
		_, err := w.client(t).Status(t.Context())
		p := wantCode(t, err, row.read)
		if got := strings.Join(p.Notes, "\n"); got != row.note {
			t.Errorf("%d: note %q, want %q", row.status, got, row.note)
		}
		wantCode(t, w.client(t).Pools().Delete(t.Context(), "p"), row.write)
		if n := len(w.seen()); n != 2 {
			t.Errorf("%d: %d requests, want 2: a redirect was followed", row.status, n)
		}
	}
}

func TestLostAnswers(t *testing.T) {
	t.Run("read", func(t *testing.T) {
		w := newWire(t, func(w http.ResponseWriter, _ *http.Request) { hangUp(t, w) })
		_, err := w.client(t).Status(t.Context())
		p := wantCode(t, err, problem.CodeUnavailable)
		if !strings.Contains(p.Detail, "nothing was done") {
			t.Error(p.Detail)
		}
	})
	t.Run("request without a key is sent once", func(t *testing.T) {
		w := newWire(t, func(w http.ResponseWriter, _ *http.Request) { hangUp(t, w) })
		_, err := w.client(t).RequestUID(t.Context(), api.UIDRequest{Pool: "jobs"})
		wantCode(t, err, problem.CodeOutcomeUnknown)
		if n := len(w.seen()); n != 1 {
			t.Errorf("sent %d times", n)
		}
	})
	t.Run("request with a key is sent again", func(t *testing.T) {
		var w *wire
		w = newWire(t, func(rw http.ResponseWriter, _ *http.Request) {
			if len(w.seen()) == 1 {
				hangUp(t, rw)
				return
			}
			answer(rw, http.StatusOK, grant())
		})
		u, err := w.client(t).RequestUID(t.Context(), api.UIDRequest{Pool: "jobs", Key: "job-1"})
		if err != nil {
			t.Fatal(err)
		}
		calls := w.seen()
		if u.UID() != 70012 || len(calls) != 2 || calls[0] != calls[1] {
			t.Errorf("uid %s after %v", u, calls)
		}
	})
	t.Run("with a key lost twice", func(t *testing.T) {
		w := newWire(t, func(w http.ResponseWriter, _ *http.Request) { hangUp(t, w) })
		_, err := w.client(t).RequestUID(t.Context(), api.UIDRequest{Pool: "jobs", Key: "job-1"})
		p := wantCode(t, err, problem.CodeOutcomeUnknown)
		if n := len(w.seen()); n != 2 {
			t.Errorf("sent %d times", n)
		}
		if want := "again with --key job-1: it returns this grant or makes it, never two"; !strings.Contains(p.Text(), want) {
			t.Error(p.Text())
		}
	})
	t.Run("told unknown by the agent", func(t *testing.T) {
		w := newWire(t, func(w http.ResponseWriter, _ *http.Request) {
			refuse(w, problem.New(problem.CodeOutcomeUnknown, "etcd did not say"))
		})
		_, err := w.client(t).RequestUID(t.Context(), api.UIDRequest{Pool: "jobs", Key: "job-1"})
		wantCode(t, err, problem.CodeOutcomeUnknown)
		if n := len(w.seen()); n != 1 {
			t.Errorf("sent %d times; the agent has tried enough", n)
		}
	})
}

func TestAnswersAreBounded(t *testing.T) {
	w := newWire(t, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"node":"`)
		chunk := strings.Repeat("x", 1<<20)
		for range 40 {
			if _, err := fmt.Fprint(w, chunk); err != nil {
				return
			}
		}
		fmt.Fprint(w, `"}`)
	})
	_, err := w.client(t).Status(t.Context())
	if p := wantCode(t, err, problem.CodeInternal); !strings.Contains(p.Detail, "longer than 32 MiB") {
		t.Error(p.Detail)
	}
	_, err = w.client(t).Pools().Put(t.Context(), api.Pool{Name: "p"}, api.WriteOptions{})
	wantCode(t, err, problem.CodeOutcomeUnknown)
}

func TestUnreadableAnswers(t *testing.T) {
	for _, body := range []string{"", "[]", `{"uid":-1}`, `{"items":[]}`, `{"token":"t","items":[]}`, `{"token":"t","items":[{"uid":1},{"uid":2}]}`} {
		w := newWire(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, body) })
		_, err := w.client(t).RequestUID(t.Context(), api.UIDRequest{Pool: "jobs"})
		wantCode(t, err, problem.CodeOutcomeUnknown)
	}
}

func TestContextEndsACall(t *testing.T) {
	arrived := make(chan struct{}, 8)
	w := newWire(t, func(_ http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	_, err := w.client(t).RequestUID(ctx, api.UIDRequest{Pool: "jobs", Key: "k"})
	wantCode(t, err, problem.CodeOutcomeUnknown)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v does not tell that its context was cancelled", err)
	}
	_, err = w.client(t).RequestUID(ctx, api.UIDRequest{Pool: "jobs"})
	wantCode(t, err, problem.CodeUnavailable)
	if n := len(w.seen()); n != 1 {
		t.Errorf("sent %d times, want 1: not again, and nothing after the cancellation", n)
	}
	c := api.New(api.Options{Agent: w.path, Timeout: 20 * time.Millisecond})
	defer c.Close()
	_, err = c.Status(t.Context())
	wantCode(t, err, problem.CodeUnavailable)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v does not tell that time ran out", err)
	}
}

func FuzzProblemAnswer(f *testing.F) {
	f.Add(409, `{"code":"exhausted","detail":"d","try":[{"when":"w","command":"c"}]}`)
	f.Add(500, `{"code":7}`)
	f.Add(299, ``)
	f.Fuzz(func(t *testing.T, status int, body string) {
		if status < 300 || status > 599 {
			t.Skip("not a refusal")
		}
		rt := roundTrip(func(r *http.Request) (*http.Response, error) {
			rec := newRecorder(status, body)
			rec.Request = r
			return rec, nil
		})
		c := api.New(api.Options{Agent: "/x", HTTPClient: &http.Client{Transport: rt, CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		}}})
		_, err := c.Status(t.Context())
		var p *problem.Error
		if !errors.As(err, &p) || p.Code == "" || p.Detail == "" {
			t.Errorf("%d %q became %#v", status, body, err)
		}
	})
}

// TestARepetitionSettlesNothingByNotBeingServed: the first sending may have been
// done; that the second was not served says nothing of it.
func TestARepetitionSettlesNothingByNotBeingServed(t *testing.T) {
	for _, second := range []problem.Code{problem.CodeUnavailable, problem.CodeFenced, problem.CodeKeyConflict, problem.CodeExhausted} {
		var sent atomic.Int64
		w := newWire(t, func(w http.ResponseWriter, _ *http.Request) {
			if sent.Add(1) == 1 {
				panic(http.ErrAbortHandler)
			}
			refuse(w, problem.New(second, "x"))
		})
		want := problem.CodeOutcomeUnknown
		if second == problem.CodeKeyConflict || second == problem.CodeExhausted {
			want = second
		}
		_, err := w.client(t).Grant(t.Context(), api.UIDRequest{Pool: "jobs", Key: "k"})
		wantCode(t, err, want)
		if n := len(w.seen()); n != 2 {
			t.Errorf("%s: sent %d times", second, n)
		}
	}
}
