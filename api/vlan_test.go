package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/problem"
)

// TestVLANRequestsOnTheWire holds the contract's paths: one row a method.
func TestVLANRequestsOnTheWire(t *testing.T) {
	ctx := t.Context()
	vid, offset, none := uint32(0), int64(-5), ""
	quoted := `"` + token + `"`
	service := api.ServiceRequest{
		Name: "s", Attributes: []api.ServiceWant{{Name: "n", Inventory: "a"}, {Name: "m", Inventory: "b", Key: "k"}},
		ServiceChoice: api.ServiceChoice{VID: &vid, Offset: &offset, Parity: "odd", Exclude: "1-5"}, ConfirmWithin: "2h", OnPartial: "keep",
		Hold: &api.Hold{Kind: api.HoldPID, PID: 7}, Holder: "me",
	}
	err := func(_ any, err error) error { return err }
	for _, row := range []struct {
		name string
		call func(c *api.Client) error
		want sent
	}{
		{"inventory get", func(c *api.Client) error { return err(c.Inventories().Get(ctx, "a/b c")) }, sent{"GET", "/v1/vlan-inventories/a%2Fb%20c", "", ""}},
		{"inventory put", func(c *api.Client) error {
			return err(c.Inventories().Put(ctx, api.Inventory{Name: "a", File: "/x", On: "n1", Settle: "1s"}, api.WriteOptions{DryRun: true}))
		}, sent{"PUT", "/v1/vlan-inventories/a?dry_run=true", "", `{"file":"/x","on":"n1","settle":"1s"}`}},
		{"inventory patch", func(c *api.Client) error {
			return err(c.Inventories().Patch(ctx, "a", api.InventoryPatch{Add: "5", Ranges: &none}, api.WriteOptions{}))
		}, sent{"PATCH", "/v1/vlan-inventories/a", "", `{"add":"5","ranges":""}`}},
		{"inventory delete", func(c *api.Client) error { return c.Inventories().Delete(ctx, "a") }, sent{"DELETE", "/v1/vlan-inventories/a", "", ""}},
		{"import", func(c *api.Client) error {
			return err(c.Inventories().Import(ctx, "a", []byte(`{"used":[1]}`), api.ImportOptions{DryRun: true, ToRanges: true}))
		}, sent{"POST", "/v1/vlan-inventories/a/import?dry_run=true&to_ranges=true", "", `{"used":[1]}`}},
		{"export", func(c *api.Client) error { return err(c.Inventories().Export(ctx, "a", true)) }, sent{"GET", "/v1/vlan-inventories/a/export?keyed=true", "", ""}},
		{"vlan get", func(c *api.Client) error { return err(c.VLANs().Get(ctx, "a", 100)) }, sent{"GET", "/v1/vlan-inventories/a/vlans/100", "", ""}},
		{"vlan allocate", func(c *api.Client) error {
			_, _, e := c.VLANs().Allocate(ctx, api.VLANRequest{Inventory: "a", VID: &vid, From: "1-9", Exclude: "5", Parity: "odd", Key: "k", Holder: "me", Wait: time.Minute})
			return e
		}, sent{"POST", "/v1/vlan-inventories/a/vlans", "", `{"vid":0,"from":"1-9","exclude":"5","parity":"odd","key":"k","holder":"me","wait":"1m0s"}`}},
		{"vlan release", func(c *api.Client) error { return err(c.VLANs().Release(ctx, "a", 100, token)) }, sent{"DELETE", "/v1/vlan-inventories/a/vlans/100", quoted, ""}},
		{"vlan release key", func(c *api.Client) error { return err(c.VLANs().ReleaseKey(ctx, "a", "k 1")) }, sent{"DELETE", "/v1/vlan-inventories/a/vlans?key=k+1", "", ""}},
		{"service get", func(c *api.Client) error { return err(c.Services().Get(ctx, "s")) }, sent{"GET", "/v1/vlan-services/s", "", ""}},
		{"service create", func(c *api.Client) error { return err(c.Services().Create(ctx, service, api.WriteOptions{})) },
			sent{"PUT", "/v1/vlan-services/s", "", `{"attributes":[{"name":"n","inventory":"a"},{"name":"m","inventory":"b","key":"k"}],"vid":0,"offset":-5,"parity":"odd","exclude":"1-5","confirm_within":"2h","on_partial":"keep","hold":{"kind":"pid","pid":7},"holder":"me"}`}},
		{"service patch", func(c *api.Client) error {
			return err(c.Services().Patch(ctx, "s", token, api.ServicePatch{Drop: []string{"n"}}))
		}, sent{"PATCH", "/v1/vlan-services/s", quoted, `{"drop":["n"]}`}},
		{"begin", func(c *api.Client) error { return err(c.Services().Begin(ctx, "s", token)) }, sent{"POST", "/v1/vlan-services/s/begin", quoted, ""}},
		{"confirm", func(c *api.Client) error { return err(c.Services().Confirm(ctx, "s", "*")) }, sent{"POST", "/v1/vlan-services/s/confirm", "*", ""}},
		{"fail", func(c *api.Client) error { return err(c.Services().Fail(ctx, "s", token, "why")) }, sent{"POST", "/v1/vlan-services/s/fail", quoted, `{"reason":"why"}`}},
		{"retry", func(c *api.Client) error { return err(c.Services().Retry(ctx, "s", token)) }, sent{"POST", "/v1/vlan-services/s/retry", quoted, ""}},
		{"extend", func(c *api.Client) error { return err(c.Services().Extend(ctx, "s", token, time.Hour)) }, sent{"POST", "/v1/vlan-services/s/extend", quoted, `{"confirm_within":"1h0m0s"}`}},
		{"removed", func(c *api.Client) error { return err(c.Services().Removed(ctx, "s", token, "n")) }, sent{"POST", "/v1/vlan-services/s/removed", quoted, `{"attribute":"n"}`}},
		{"service delete", func(c *api.Client) error { return err(c.Services().Delete(ctx, "s", "", true)) }, sent{"DELETE", "/v1/vlan-services/s?hold=true", "", ""}},
		{"allocation get", func(c *api.Client) error { return err(c.Allocations().Get(ctx, "a/b")) }, sent{"GET", "/v1/allocations/a%2Fb", "", ""}},
		{"allocation create", func(c *api.Client) error {
			return err(c.Allocations().Create(ctx, api.AllocationRequest{Key: "k", Items: []api.AllocationWant{{UIDPool: "p", Count: 2}, {VLANInventory: "a", Name: "n"}}}))
		}, sent{"PUT", "/v1/allocations/k", "", `{"items":[{"uid_pool":"p","count":2},{"vlan_inventory":"a","name":"n"}]}`}},
		{"allocation delete", func(c *api.Client) error { return err(c.Allocations().Delete(ctx, "k")) }, sent{"DELETE", "/v1/allocations/k", "", ""}},
		{"check", func(c *api.Client) error { return err(c.Check(ctx)) }, sent{"GET", "/v1/check", "", ""}},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := newWire(t, func(w http.ResponseWriter, _ *http.Request) {
				answer(w, http.StatusOK, map[string]any{"name": "s", "state": "up", "token": token, "inventory": vlanOrImport(row.name), "items": []any{map[string]any{}}})
			})
			if err := row.call(w.client(t)); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]sent{row.want}, w.seen()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// vlanOrImport is what "inventory" is in an answer: a name, or all of it.
func vlanOrImport(row string) any {
	if row == "import" {
		return api.Inventory{Name: "a"}
	}
	return "a"
}

func TestVLANCallsThatAreNotSent(t *testing.T) {
	w := newWire(t, func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, struct{}{}) })
	c, ctx := w.client(t), t.Context()
	calls := map[string]func() error{
		"no inventory": func() error { _, _, err := c.VLANs().Allocate(ctx, api.VLANRequest{}); return err },
		"wait below 0": func() error {
			_, _, err := c.VLANs().Allocate(ctx, api.VLANRequest{Inventory: "a", Wait: -1})
			return err
		},
		"no JSON":          func() error { _, err := c.Inventories().Import(ctx, "a", []byte("x"), api.ImportOptions{}); return err },
		"no service":       func() error { _, err := c.Services().Get(ctx, ""); return err },
		"dots":             func() error { _, err := c.Services().Delete(ctx, "..", "", false); return err },
		"header in token":  func() error { _, err := c.Services().Begin(ctx, "s", "a\r\nX: 1"); return err },
		"no key":           func() error { _, err := c.Allocations().Create(ctx, api.AllocationRequest{}); return err },
		"no items":         func() error { _, err := c.Allocations().Create(ctx, api.AllocationRequest{Key: "k"}); return err },
		"Exec with a hold": func() error { return c.Services().Exec(ctx, api.ServiceRequest{Name: "s", Hold: &api.Hold{}}, nil) },
	}
	for name, call := range calls {
		if err := call(); problem.CodeOf(err) != problem.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if sent := w.seen(); len(sent) != 0 {
		t.Errorf("sent %v", sent)
	}
}

// TestVLANAnswers: what says nothing is not taken for a grant, and what is gone is
// told without a body.
func TestVLANAnswers(t *testing.T) {
	status, body := http.StatusOK, any(struct{}{})
	w := newWire(t, func(w http.ResponseWriter, _ *http.Request) {
		if status == http.StatusNoContent {
			w.WriteHeader(status)
			return
		}
		answer(w, status, body)
	})
	c, ctx := w.client(t), t.Context()
	_, _, err := c.VLANs().Allocate(ctx, api.VLANRequest{Inventory: "a"})
	wantCode(t, err, problem.CodeOutcomeUnknown)
	_, err = c.Services().Create(ctx, api.ServiceRequest{Name: "s"}, api.WriteOptions{})
	wantCode(t, err, problem.CodeOutcomeUnknown)
	_, err = c.Allocations().Create(ctx, api.AllocationRequest{Key: "k", Items: []api.AllocationWant{{UIDPool: "p"}}})
	wantCode(t, err, problem.CodeOutcomeUnknown)

	body = api.VLAN{Inventory: "a", VID: 0, Token: token}
	if v, same, err := c.VLANs().Allocate(ctx, api.VLANRequest{Inventory: "a"}); err != nil || !same || v.VID != 0 {
		t.Errorf("%+v %v %v", v, same, err)
	}
	status = http.StatusCreated
	if _, same, err := c.VLANs().Allocate(ctx, api.VLANRequest{Inventory: "a"}); err != nil || same {
		t.Errorf("created: %v %v", same, err)
	}
	status = http.StatusNoContent
	if v, err := c.Services().Delete(ctx, "s", "", false); err != nil || v.State != api.ServiceGone || v.Name != "s" || v.Changed {
		t.Errorf("%+v %v", v, err)
	}
	if r, err := c.VLANs().Release(ctx, "a", 1, token); err != nil || r.Changed || len(r.Items) != 0 {
		t.Errorf("%+v %v", r, err)
	}
}

// TestLostServiceAnswerIsAskedAgain: a service is named, so that the same request
// is the same service.
func TestLostServiceAnswerIsAskedAgain(t *testing.T) {
	var n atomic.Int32
	w := newWire(t, func(w http.ResponseWriter, _ *http.Request) {
		if n.Add(1) == 1 {
			hangUp(t, w)
			return
		}
		answer(w, http.StatusOK, api.Service{Name: "s", State: api.ServiceAllocated, Token: token})
	})
	v, err := w.client(t).Services().Create(t.Context(), api.ServiceRequest{Name: "s"}, api.WriteOptions{})
	if calls := w.seen(); err != nil || v.State != api.ServiceAllocated || len(calls) != 2 || calls[0] != calls[1] {
		t.Errorf("%+v, %v after %v", v, err, calls)
	}
}

func TestServiceValues(t *testing.T) {
	zero := uint32(0)
	v := api.Service{Values: map[string]*uint32{"a": &zero, "b": nil}}
	if vid, ok := v.VID("a"); vid != 0 || !ok {
		t.Error("0 is a value")
	}
	for _, name := range []string{"b", "c"} {
		if _, ok := v.VID(name); ok {
			t.Errorf("%s has no value", name)
		}
	}
}

// life is a service at the other end of the socket: it takes each word and follows
// the state that the test sets.
type serviceLife struct {
	mu    sync.Mutex // guards the fields below
	state string
	words []string
}

func newServiceLife(t *testing.T, state string) (*serviceLife, *wire) {
	l := &serviceLife{state: state}
	w := newWire(t, func(w http.ResponseWriter, r *http.Request) {
		l.mu.Lock()
		defer l.mu.Unlock()
		switch path := r.URL.Path; {
		case r.Method == http.MethodPost:
			word := path[strings.LastIndexByte(path, '/')+1:]
			l.words = append(l.words, word)
			switch {
			case l.state == api.ServiceGone:
				refuse(w, problem.New(problem.CodeNotFound, "there is no service s"))
				return
			case word == "confirm" && l.state == api.ServiceFailed:
				refuse(w, problem.New(problem.CodeCompensated, "service s not confirmed"))
				return
			}
			l.state = map[string]string{"confirm": api.ServiceUp, "fail": api.ServiceFailed}[word]
		case r.Method == http.MethodDelete:
			l.words = append(l.words, "delete")
			l.state = api.ServiceGone
		case r.Method == http.MethodGet && l.state == api.ServiceGone:
			refuse(w, problem.New(problem.CodeNotFound, "there is no service s"))
			return
		}
		answer(w, http.StatusOK, api.Service{Name: "s", State: l.state, Token: token})
	})
	return l, w
}

func (l *serviceLife) set(state string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state = state
}

func (l *serviceLife) said() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string{}, l.words...)
}

func TestServiceExec(t *testing.T) {
	broken := errors.New("the switch did not answer")
	for _, row := range []struct {
		name  string
		state string
		fn    func() error
		words []string
		err   error
		runs  bool
	}{
		{"success", api.ServiceAllocated, func() error { return nil }, []string{"confirm"}, nil, true},
		{"error", api.ServiceAllocated, func() error { return broken }, []string{"fail"}, broken, true},
		{"up already", api.ServiceUp, func() error { return broken }, []string{}, nil, false},
		{"an earlier run's", api.ServiceProvisioning, func() error { return nil }, []string{"confirm"}, nil, true},
		{"failed", api.ServiceFailed, func() error { return nil }, []string{}, api.ErrNotHeld, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			l, w := newServiceLife(t, row.state)
			ran := false
			err := w.client(t).Services().Exec(t.Context(), api.ServiceRequest{Name: "s"}, func(_ context.Context, v *api.Service) error {
				ran = v.Name == "s"
				return row.fn()
			})
			if !errors.Is(err, row.err) || (err == nil) != (row.err == nil) || ran != row.runs {
				t.Errorf("ran %v: %v", ran, err)
			}
			if diff := cmp.Diff(row.words, l.said()); diff != "" {
				t.Error(diff)
			}
			if body := w.seen()[0].Body; !strings.Contains(body, `"hold":{"kind":"pid","pid":`+strconv.Itoa(os.Getpid())+`}`) {
				t.Errorf("asked with %s", body)
			}
		})
	}
}

func TestServiceExecPanics(t *testing.T) {
	l, w := newServiceLife(t, api.ServiceAllocated)
	func() {
		defer func() {
			if v := recover(); v != "boom" {
				t.Errorf("recovered %v", v)
			}
		}()
		_ = w.client(t).Services().Exec(t.Context(), api.ServiceRequest{Name: "s"}, func(context.Context, *api.Service) error { panic("boom") })
	}()
	calls := w.seen()
	if diff := cmp.Diff([]string{"fail"}, l.said()); diff != "" || !strings.Contains(calls[len(calls)-1].Body, "panicked") {
		t.Error(diff, calls)
	}
}

// TestServiceExecTellsOfALoss: the function's context ends with the service.
func TestServiceExecTellsOfALoss(t *testing.T) {
	for _, state := range []string{api.ServiceFailed, api.ServiceGone} {
		l, w := newServiceLife(t, api.ServiceAllocated)
		err := w.client(t).Services().Exec(t.Context(), api.ServiceRequest{Name: "s"}, func(ctx context.Context, _ *api.Service) error {
			l.set(state)
			closedSoon(t, "the function's context", ctx.Done())
			return ctx.Err()
		})
		if !errors.Is(err, api.ErrLockLost) || !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", state, err)
		}
	}
}

func TestServiceExecAfterCompensation(t *testing.T) {
	l, w := newServiceLife(t, api.ServiceAllocated)
	err := w.client(t).Services().Exec(t.Context(), api.ServiceRequest{Name: "s"}, func(context.Context, *api.Service) error {
		l.set(api.ServiceFailed)
		return nil
	})
	if !errors.Is(err, api.ErrCompensated) {
		t.Errorf("%v: devices carry what is given back, and nobody says so", err)
	}
}

// TestServiceExecGivesUp: nobody waits for a service whose VLANs did not come.
func TestServiceExecGivesUp(t *testing.T) {
	l, w := newServiceLife(t, api.ServiceAllocating)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	done := make(chan error, 1)
	go func() {
		done <- w.client(t).Services().Exec(ctx, api.ServiceRequest{Name: "s"}, func(context.Context, *api.Service) error {
			t.Error("called without VLANs")
			return nil
		})
	}()
	eventually(t, "it is looked at", func() bool { return len(w.seen()) > 2 })
	cancel(why)
	if err := <-done; !errors.Is(err, why) {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"delete"}, l.said()); diff != "" {
		t.Error(diff)
	}
}

// FuzzServiceAnswer: whatever an agent answers, the client neither panics nor takes
// it for a service that it does not name.
func FuzzServiceAnswer(f *testing.F) {
	f.Add(200, `{"name":"s","state":"up","values":{"n":0,"m":null},"attributes":{"n":{"vid":0}}}`)
	f.Add(202, `{"name":"s","state":"allocating","waits_for":[{"node":"n7"}]}`)
	f.Add(204, ``)
	f.Add(200, `{"values":{"n":-1}}`)
	f.Add(409, `{"code":"exhausted","detail":"d","attribute":"n"}`)
	f.Fuzz(func(t *testing.T, status int, body string) {
		if status < 200 || status > 599 {
			t.Skip("no answer")
		}
		rt := roundTrip(func(r *http.Request) (*http.Response, error) {
			rec := newRecorder(status, body)
			rec.Request = r
			return rec, nil
		})
		c := api.New(api.Options{Agent: "/x", HTTPClient: &http.Client{Transport: rt, CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		}}})
		v, err := c.Services().Get(t.Context(), "s")
		switch {
		case err != nil && problem.CodeOf(err) == "":
			t.Errorf("%d %q became %#v", status, body, err)
		case err == nil && (v.Name == "" || v.State == ""):
			t.Errorf("%d %q became %+v", status, body, v)
		}
		if err == nil {
			if _, err := json.Marshal(v); err != nil {
				t.Errorf("%q became what cannot be shown: %v", body, err)
			}
		}
		_, _, _ = c.VLANs().Allocate(t.Context(), api.VLANRequest{Inventory: "a"})
		_, _ = c.Allocations().Get(t.Context(), "k")
		_, _ = c.Inventories().Export(t.Context(), "a", false)
	})
}
