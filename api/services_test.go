package api_test

import (
	"io"
	"net/http"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/problem"
)

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func newRecorder(status int, body string) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}
}

// TestRequestsOnTheWire holds the contract's paths: one row a method of the client.
func TestRequestsOnTheWire(t *testing.T) {
	ctx := t.Context()
	ref := api.Ref{Token: token}
	for _, row := range []struct {
		name string
		call func(c *api.Client) error
		want sent
	}{
		{"pool get", func(c *api.Client) error { _, err := c.Pools().Get(ctx, "a/b c"); return err }, sent{"GET", "/v1/uid-pools/a%2Fb%20c", "", ""}},
		{"pool put", func(c *api.Client) error {
			_, err := c.Pools().Put(ctx, api.Pool{Name: "p", Ranges: "1-2"}, api.WriteOptions{DryRun: true})
			return err
		}, sent{"PUT", "/v1/uid-pools/p?dry_run=true", "", `{"ranges":"1-2"}`}},
		{"pool patch", func(c *api.Client) error {
			none := ""
			_, err := c.Pools().Patch(ctx, "p", api.PoolPatch{Add: "5", Ranges: &none}, api.WriteOptions{})
			return err
		}, sent{"PATCH", "/v1/uid-pools/p", "", `{"add":"5","ranges":""}`}},
		{"pool delete", func(c *api.Client) error { return c.Pools().Delete(ctx, "p") }, sent{"DELETE", "/v1/uid-pools/p", "", ""}},
		{"uid get", func(c *api.Client) error { _, err := c.UIDs().Get(ctx, 70012); return err }, sent{"GET", "/v1/uids/70012", "", ""}},
		{"confirm", func(c *api.Client) error {
			_, err := c.UIDs().Confirm(ctx, 70012, ref, api.ConfirmBody{Keep: true})
			return err
		}, sent{"POST", "/v1/uids/70012/confirm", `"` + token + `"`, `{"keep":true}`}},
		{"confirm by key", func(c *api.Client) error {
			_, err := c.UIDs().Confirm(ctx, 70012, api.Ref{Key: "a b"}, api.ConfirmBody{})
			return err
		}, sent{"POST", "/v1/uids/70012/confirm?key=a+b", "", `{}`}},
		{"renew", func(c *api.Client) error {
			_, err := c.UIDs().Renew(ctx, 70012, ref, api.RenewBody{TTL: "9m"})
			return err
		}, sent{"POST", "/v1/uids/70012/renew", `"` + token + `"`, `{"ttl":"9m"}`}},
		{"join", func(c *api.Client) error {
			_, err := c.JoinUID(ctx, 70012, ref, api.Hold{Kind: api.HoldPID, PID: 7})
			return err
		}, sent{"POST", "/v1/uids/70012/nodes", `"` + token + `"`, `{"hold":{"kind":"pid","pid":7}}`}},
		{"adopt", func(c *api.Client) error {
			_, err := c.UIDs().Adopt(ctx, 70012, api.AdoptBody{Key: "k"})
			return err
		}, sent{"POST", "/v1/uids/70012/adopt", "", `{"key":"k"}`}},
		{"release", func(c *api.Client) error { _, err := c.UIDs().Release(ctx, 70012, "*", "r 1"); return err }, sent{"DELETE", "/v1/uids/70012?requester=r+1", "*", ""}},
		{"release key", func(c *api.Client) error { _, err := c.UIDs().ReleaseKey(ctx, "k"); return err }, sent{"DELETE", "/v1/uids?key=k", "", ""}},
		{"release pid", func(c *api.Client) error { _, err := c.UIDs().ReleasePID(ctx, 7); return err }, sent{"DELETE", "/v1/uids?pid=7", "", ""}},
		{"reserve", func(c *api.Client) error { _, err := c.UIDs().Reserve(ctx, "5-6", "nfs"); return err }, sent{"POST", "/v1/reservations", "", `{"ranges":"5-6","reason":"nfs"}`}},
		{"unreserve", func(c *api.Client) error { _, err := c.UIDs().Unreserve(ctx, "5-6"); return err }, sent{"DELETE", "/v1/reservations?ranges=5-6", "", ""}},
		{"node get", func(c *api.Client) error { _, err := c.Nodes().Get(ctx, "n1"); return err }, sent{"GET", "/v1/nodes/n1", "", ""}},
		{"fence", func(c *api.Client) error {
			_, err := c.Nodes().Fence(ctx, "n1", api.NodeAction{Reason: "off", DryRun: true})
			return err
		}, sent{"POST", "/v1/nodes/n1/fence", "", `{"reason":"off","dry_run":true}`}},
		{"unfence", func(c *api.Client) error { _, err := c.Nodes().Unfence(ctx, "n1", api.NodeAction{}); return err }, sent{"POST", "/v1/nodes/n1/unfence", "", `{}`}},
		{"leave", func(c *api.Client) error { _, err := c.Nodes().Leave(ctx, "n1", api.NodeAction{}); return err }, sent{"POST", "/v1/nodes/n1/leave", "", `{}`}},
		{"node remove", func(c *api.Client) error { _, err := c.Nodes().Remove(ctx, "n1"); return err }, sent{"DELETE", "/v1/nodes/n1", "", ""}},
		{"status", func(c *api.Client) error { _, err := c.Status(ctx); return err }, sent{"GET", "/v1/status", "", ""}},
		{"page", func(c *api.Client) error {
			_, err := c.UIDs().Page(ctx, api.UIDFilter{State: "used", PID: 7, UIDs: "1-5"}, 2, "c")
			return err
		}, sent{"GET", "/v1/uids?cursor=c&limit=2&pid=7&state=used&uids=1-5", "", ""}},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := newWire(t, func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, struct{}{}) })
			if err := row.call(w.client(t)); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]sent{row.want}, w.seen()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestGrantRequest(t *testing.T) {
	w := newWire(t, func(w http.ResponseWriter, _ *http.Request) {
		g := grant()
		g.Key = "k"
		g.Items[0].Token = ""
		g.Items = append(g.Items, api.UID{UID: 70013})
		answer(w, http.StatusCreated, g)
	})
	us, err := w.client(t).RequestUIDs(t.Context(), api.UIDRequest{
		Pool: "jobs", From: "70000-70099", Count: 2, Key: "k", Holder: "me", Wait: 90e9,
		Hold: api.Hold{Kind: api.HoldTTL, TTL: "30m"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, u := range us {
		if u.Token() != token || u.Info().Requester != "r1" || u.Info().Key != "k" {
			t.Errorf("item %d: %+v", i, u.Info())
		}
	}
	if us[0].String() != "70012" || us[1].UID() != 70013 {
		t.Errorf("got %v", us)
	}
	want := []sent{{"POST", "/v1/uid-pools/jobs/uids", "",
		`{"from":"70000-70099","count":2,"key":"k","holder":"me","hold":{"kind":"ttl","ttl":"30m"},"wait":"1m30s"}`}}
	if diff := cmp.Diff(want, w.seen()); diff != "" {
		t.Error(diff)
	}
}

func TestRequestsThatAreNotSent(t *testing.T) {
	w := newWire(t, func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusCreated, grant()) })
	c := w.client(t)
	for _, r := range []api.UIDRequest{{}, {Pool: "p", Count: 2}, {Pool: "p", Count: -1}, {Pool: "p", Count: 61}, {Pool: "p", Wait: -1}} {
		_, err := c.RequestUID(t.Context(), r)
		wantCode(t, err, problem.CodeInvalid)
	}
	if calls := w.seen(); len(calls) != 0 {
		t.Errorf("sent %v", calls)
	}
}

func TestNamesAndTokensStayWhereTheyBelong(t *testing.T) {
	w := newWire(t, func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, struct{}{}) })
	c, ctx := w.client(t), t.Context()
	for _, name := range []string{"", ".", ".."} {
		wantCode(t, c.Pools().Delete(ctx, name), problem.CodeInvalid)
		_, err := c.Nodes().Get(ctx, name)
		wantCode(t, err, problem.CodeInvalid)
	}
	for _, token := range []string{"a b", `a"b`, "a\r\nX-Evil: 1", "\u00e4"} {
		_, err := c.UIDs().Release(ctx, 70012, token, "")
		wantCode(t, err, problem.CodeInvalid)
	}
	if calls := w.seen(); len(calls) != 0 {
		t.Errorf("sent %v", calls)
	}
}

func TestListWalksPages(t *testing.T) {
	pages := map[string]api.List[api.UID]{
		"":  {Items: []api.UID{{UID: 1}, {UID: 2}}, Next: "b"},
		"b": {Items: nil, Next: "c"},
		"c": {Items: []api.UID{{UID: 3}}},
	}
	w := newWire(t, func(w http.ResponseWriter, r *http.Request) {
		answer(w, http.StatusOK, pages[r.URL.Query().Get("cursor")])
	})
	var got []uint32
	for u, err := range w.client(t).UIDs().List(t.Context(), api.UIDFilter{}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, u.UID)
	}
	if diff := cmp.Diff([]uint32{1, 2, 3}, got); diff != "" {
		t.Error(diff)
	}
	for range w.client(t).UIDs().List(t.Context(), api.UIDFilter{}) {
		break
	}
	if n := len(w.seen()); n != 4 {
		t.Errorf("%d pages were asked for, want 3 and 1", n)
	}
}

func TestListThatNeverEndsIsRefused(t *testing.T) {
	w := newWire(t, func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, api.List[api.Pool]{Items: []api.Pool{{Name: "p"}}, Next: "same"})
	})
	_, err := w.client(t).Pools().List(t.Context())
	wantCode(t, err, problem.CodeInternal)
}

func TestReleaseOfWhatIsOver(t *testing.T) {
	w := newWire(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	r, err := w.client(t).UIDs().Release(t.Context(), 70012, token, "")
	if err != nil || r.Changed || len(r.Items) != 0 {
		t.Errorf("got %+v, %v", r, err)
	}
}

// TestProgramsLinkNoEtcd holds the promise of the package's first sentence.
func TestProgramsLinkNoEtcd(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	if err != nil {
		t.Skipf("go list: %v", err)
	}
	deps := strings.Fields(string(out))
	if len(deps) < 10 {
		t.Fatalf("only %d dependencies: %v", len(deps), deps)
	}
	for _, dep := range deps {
		first, _, _ := strings.Cut(dep, "/")
		own := dep == "github.com/idpool/idpool/api" || dep == "github.com/idpool/idpool/problem"
		if strings.Contains(first, ".") && !own && dep != "golang.org/x/sync/errgroup" {
			t.Errorf("package api links %s", dep)
		}
	}
}
