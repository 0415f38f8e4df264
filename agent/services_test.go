package agent_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/problem"
)

func pair(name string) api.ServiceRequest {
	return api.ServiceRequest{Name: name, Attributes: []api.ServiceWant{{Name: api.NorthVLAN, Inventory: "a"}, {Name: api.SouthVLAN, Inventory: "b"}}}
}

func (n *node) service(t testing.TB, r api.ServiceRequest) api.Service {
	t.Helper()
	v, err := n.Services().Create(t.Context(), r, api.WriteOptions{})
	if err != nil {
		t.Fatalf("create service %s: %v", r.Name, err)
	}
	return v
}

// values are a service's VLANs, north and south.
func values(t testing.TB, v api.Service, north, south uint32) {
	t.Helper()
	n, _ := v.VID(api.NorthVLAN)
	s, _ := v.VID(api.SouthVLAN)
	if n != north || s != south {
		t.Errorf("service %s has %d and %d, want %d and %d", v.Name, n, s, north, south)
	}
}

func TestServiceLife(t *testing.T) {
	t.Parallel()
	n := fabrics(t)
	ctx := t.Context()
	dry, err := n.Services().Create(ctx, pair("edge-7"), api.WriteOptions{DryRun: true})
	if err != nil || dry.Token != "" || dry.CreatedAt != nil {
		t.Errorf("dry run: %+v, %v", dry, err)
	}
	values(t, dry, 100, 200)
	_, err = n.Services().Get(ctx, "edge-7")
	wants(t, err, problem.CodeNotFound, "there is no service edge-7")

	r := pair("edge-7")
	r.Holder = "tenant"
	v := n.service(t, r)
	values(t, v, 100, 200)
	if v.State != api.ServiceAllocated || !v.Changed || v.Token == "" || v.Hold == nil || v.Hold.Kind != api.HoldTTL || v.Hold.Until == nil || v.Holder != "tenant" {
		t.Errorf("created: %+v", v)
	}
	if at := v.Attributes[api.NorthVLAN]; at.Key != "edge-7/north_vlan_id" || at.Token == "" || at.Inventory != "a" {
		t.Errorf("north: %+v", at)
	}
	again := n.service(t, pair("edge-7"))
	if again.Changed || again.Token != v.Token {
		t.Errorf("again: %+v", again)
	}
	other := pair("edge-7")
	other.Attributes = other.Attributes[:1]
	_, err = n.Services().Create(ctx, other, api.WriteOptions{})
	wants(t, err, problem.CodeKeyConflict, "another definition")

	// A VLAN of a service ends with it.
	held, err := n.VLANs().Get(ctx, "a", 100)
	if err != nil || held.Service != "edge-7" || held.Key != "edge-7/north_vlan_id" {
		t.Errorf("its VLAN: %+v, %v", held, err)
	}
	_, err = n.VLANs().Release(ctx, "a", 100, held.Token)
	wants(t, err, problem.CodeHeld, "belongs to service edge-7", "poolctl vlan service delete edge-7")

	for _, step := range []struct {
		do      func() (api.Service, error)
		state   string
		changed bool
	}{
		{func() (api.Service, error) { return n.Services().Extend(ctx, "edge-7", v.Token, 2e12) }, api.ServiceAllocated, true},
		{func() (api.Service, error) { return n.Services().Begin(ctx, "edge-7", v.Token) }, api.ServiceProvisioning, true},
		{func() (api.Service, error) { return n.Services().Confirm(ctx, "edge-7", v.Token) }, api.ServiceUp, true},
		{func() (api.Service, error) { return n.Services().Confirm(ctx, "edge-7", v.Token) }, api.ServiceUp, false},
		{func() (api.Service, error) {
			return n.Services().Patch(ctx, "edge-7", v.Token, api.ServicePatch{Attributes: []api.ServiceWant{{Name: "backup", Inventory: "a"}}, Drop: []string{api.SouthVLAN}})
		}, api.ServiceUp, true},
	} {
		got, err := step.do()
		if err != nil || got.State != step.state || got.Changed != step.changed {
			t.Fatalf("%+v, %v; want %s, changed %v", got, err, step.state, step.changed)
		}
		v = got
	}
	if vid, _ := v.VID("backup"); vid != 101 || len(v.Values) != 2 {
		t.Errorf("patched: %+v", v)
	}
	gone, err := n.Services().Delete(ctx, "edge-7", "", false)
	if err != nil || gone.State != api.ServiceGone || !gone.Changed {
		t.Errorf("deleted: %+v, %v", gone, err)
	}
	if code, _, body := n.raw(t, "DELETE", "/v1/vlan-services/edge-7", ""); code != 204 || len(body) != 0 {
		t.Errorf("deleted again: %d %s", code, body)
	}
	if again, err := n.Services().Delete(ctx, "edge-7", "", false); err != nil || again.Changed {
		t.Errorf("deleted again: %+v, %v", again, err)
	}
}

// TestServiceRejected: all or nothing, and the record says why.
func TestServiceRejected(t *testing.T) {
	t.Parallel()
	n := fabrics(t)
	ctx := t.Context()
	n.allocate(t, api.VLANRequest{Inventory: "b"})
	n.allocate(t, api.VLANRequest{Inventory: "b", Key: "k"})
	_, err := n.Services().Create(ctx, pair("e"), api.WriteOptions{})
	wants(t, err, problem.CodeExhausted, "service e rejected: south_vlan_id could not be allocated: inventory b has 0 of 2 VLANs free (2 used)",
		"nothing is held: north and south are granted together or not at all", "poolctl vlan service retry e")
	if p, ok := err.(*problem.Error); !ok || p.Attribute != api.SouthVLAN {
		t.Errorf("%+v", err)
	}
	v, err := n.Services().Get(ctx, "e")
	if err != nil || v.State != api.ServiceRejected || v.ReasonCode != "exhausted" || v.Values[api.NorthVLAN] != nil {
		t.Errorf("%+v, %v", v, err)
	}
	for vlan, err := range n.VLANs().List(ctx, "a", api.VLANFilter{}) {
		t.Errorf("north is held: %+v, %v", vlan, err)
	}
	_, err = n.Services().Retry(ctx, "e", v.Token)
	wants(t, err, problem.CodeExhausted)
	if _, err := n.VLANs().ReleaseKey(ctx, "b", "k"); err != nil {
		t.Fatal(err)
	}
	v, err = n.Services().Retry(ctx, "e", v.Token)
	if err != nil || v.State != api.ServiceAllocated {
		t.Fatalf("retried: %+v, %v", v, err)
	}
	// Compensation: the caller reports failure, or is told of it.
	failed, err := n.Services().Fail(ctx, "e", v.Token, "the switch is on fire")
	if err != nil || failed.State != api.ServiceFailed || failed.Reason != "the switch is on fire" {
		t.Errorf("failed: %+v, %v", failed, err)
	}
	_, err = n.Services().Confirm(ctx, "e", v.Token)
	wants(t, err, problem.CodeCompensated, "undo what was configured")
	if code, _, body := n.raw(t, "POST", "/v1/vlan-services/e/fail", `{"reason":""}`, "If-Match", v.Token); code != 422 {
		t.Errorf("failed without a reason: %d %s", code, body)
	}
	next, err := n.Services().Retry(ctx, "e", failed.Token)
	if err != nil || next.Token == v.Token {
		t.Fatalf("a life of its own: %+v, %v", next, err)
	}
	_, err = n.Services().Confirm(ctx, "e", v.Token)
	wants(t, err, problem.CodeNotHeld, "a later one of that name")
}

func TestServiceRefusals(t *testing.T) {
	t.Parallel()
	n := fabrics(t)
	with := func(f func(*api.ServiceRequest)) api.ServiceRequest {
		r := pair("e")
		f(&r)
		return r
	}
	offset := int64(5000)
	for name, c := range map[string]struct {
		r    api.ServiceRequest
		code problem.Code
		want string
	}{
		"no attributes":      {with(func(r *api.ServiceRequest) { r.Attributes = []api.ServiceWant{} }), problem.CodeInvalid, "asks for no VLAN"},
		"too many":           {with(func(r *api.ServiceRequest) { r.Attributes = make([]api.ServiceWant, 33) }), problem.CodeInvalid, "32"},
		"no inventory":       {with(func(r *api.ServiceRequest) { r.Attributes[0].Inventory = "q" }), problem.CodeNotFound, "service e not created: there is no inventory q"},
		"twice":              {with(func(r *api.ServiceRequest) { r.Attributes[1].Name = api.NorthVLAN }), problem.CodeInvalid, "twice"},
		"one VLAN, twice":    {with(func(r *api.ServiceRequest) { r.Attributes[1].Inventory = "a"; r.Same = true }), problem.CodeInvalid, "cannot have the same VLAN"},
		"VLAN 0":             {with(func(r *api.ServiceRequest) { r.VID = vid(0) }), problem.CodeInvalid, "north_vlan_id cannot have VLAN 0"},
		"VLAN 4095":          {with(func(r *api.ServiceRequest) { r.VID = vid(4095) }), problem.CodeInvalid, "4095"},
		"offset":             {with(func(r *api.ServiceRequest) { r.Offset = &offset }), problem.CodeInvalid, "offset 5000"},
		"exclude":            {with(func(r *api.ServiceRequest) { r.Exclude = "9-1" }), problem.CodeInvalid, "exclude"},
		"parity":             {with(func(r *api.ServiceRequest) { r.Parity = "both" }), problem.CodeInvalid, "body.parity"},
		"confirm within":     {with(func(r *api.ServiceRequest) { r.ConfirmWithin = "soon" }), problem.CodeInvalid, `confirm_within "soon"`},
		"confirm within 0":   {with(func(r *api.ServiceRequest) { r.ConfirmWithin = "0s" }), problem.CodeInvalid, "want 1s to"},
		"confirm within 2 y": {with(func(r *api.ServiceRequest) { r.ConfirmWithin = "17600h" }), problem.CodeInvalid, "want 1s to"},
		"on partial":         {with(func(r *api.ServiceRequest) { r.OnPartial = "shrug" }), problem.CodeInvalid, "body.on_partial"},
		"hold by time":       {with(func(r *api.ServiceRequest) { r.Hold = &api.Hold{Kind: api.HoldTTL, TTL: "5m"} }), problem.CodeInvalid, "held by a process"},
		"hold by nobody":     {with(func(r *api.ServiceRequest) { r.Hold = &api.Hold{Kind: api.HoldPID, PID: 1 << 22} }), problem.CodeInvalid, "no process has pid"},
		"name":               {with(func(r *api.ServiceRequest) { r.Name = "a b" }), problem.CodeInvalid, `"a b"`},
		"name with a slash":  {with(func(r *api.ServiceRequest) { r.Name = "a/b" }), problem.CodeInvalid, `"a/b"`},
		"name of 10 kB":      {with(func(r *api.ServiceRequest) { r.Name = strings.Repeat("x", 10000) }), problem.CodeInvalid, "63"},
		"holder":             {with(func(r *api.ServiceRequest) { r.Holder = strings.Repeat("x", 257) }), problem.CodeInvalid, "body.holder"},
	} {
		_, err := n.Services().Create(t.Context(), c.r, api.WriteOptions{})
		wants(t, err, c.code, c.want)
		if t.Failed() {
			t.Fatal(name)
		}
	}
	for v, err := range n.Services().List(t.Context(), api.ServiceFilter{}) {
		t.Errorf("stored: %+v, %v", v, err)
	}
}

// TestServiceTokens: a change names one life of the service (rule 26).
func TestServiceTokens(t *testing.T) {
	t.Parallel()
	n := fabrics(t)
	v := n.service(t, pair("e"))
	for _, word := range []string{"begin", "confirm", "fail", "retry", "extend", "removed", ""} {
		path, method, body := "/v1/vlan-services/e/"+word, "POST", "{}"
		switch word {
		case "":
			path, method = "/v1/vlan-services/e", "PATCH"
		case "fail":
			body = `{"reason":"x"}`
		case "extend":
			body = `{"confirm_within":"5m"}`
		case "begin", "confirm", "retry":
			body = ""
		}
		for header, want := range map[string]int{"": 428, `"another"`: 412} {
			if code, _, text := n.raw(t, method, path, body, "If-Match", header); code != want {
				t.Errorf("%s with If-Match %s: %d %s", word, header, code, text)
			}
		}
		if code, _, text := n.raw(t, method, strings.Replace(path, "/e", "/q", 1), body, "If-Match", `"t"`); code != 404 && word != "removed" {
			t.Errorf("%s of no service: %d %s", word, code, text)
		}
	}
	now, err := n.Services().Get(t.Context(), "e")
	if err != nil || now.State != api.ServiceAllocated || now.Token != v.Token {
		t.Errorf("after all that: %+v, %v", now, err)
	}
	// Operators need none; a delete with the token of another life leaves this one.
	if v, err := n.Services().Confirm(t.Context(), "e", "*"); err != nil || v.State != api.ServiceUp {
		t.Errorf("%+v, %v", v, err)
	}
	if v, err := n.Services().Delete(t.Context(), "e", "another", false); err != nil || v.Changed {
		t.Errorf("another life's end: %+v, %v", v, err)
	}
	if v, err := n.Services().Get(t.Context(), "e"); err != nil || v.State != api.ServiceUp {
		t.Errorf("%+v, %v", v, err)
	}
	// With hold the VLANs stay until the devices are clean.
	held, err := n.Services().Delete(t.Context(), "e", "", true)
	if err != nil || held.State != api.ServiceDeallocating || held.Values[api.NorthVLAN] == nil {
		t.Errorf("deleted with hold: %+v, %v", held, err)
	}
	if v, err := n.Services().Removed(t.Context(), "e", held.Token, ""); err != nil || v.State != api.ServiceGone {
		t.Errorf("removed: %+v, %v", v, err)
	}
}

func TestServiceLists(t *testing.T) {
	t.Parallel()
	n := fabrics(t)
	up := n.service(t, api.ServiceRequest{Name: "s1", Attributes: []api.ServiceWant{{Name: "x", Inventory: "a"}}, Holder: "me"})
	if _, err := n.Services().Confirm(t.Context(), "s1", up.Token); err != nil {
		t.Fatal(err)
	}
	n.service(t, api.ServiceRequest{Name: "s2", Attributes: []api.ServiceWant{{Name: "x", Inventory: "b"}}})
	n.service(t, api.ServiceRequest{Name: "s3", Attributes: []api.ServiceWant{{Name: "x", Inventory: "a"}}})
	for want, f := range map[string]api.ServiceFilter{
		"s1 s2 s3": {}, "s1": {State: "up"}, "s1 s3": {Inventory: "a"}, "s3": {Inventory: "a", State: "allocated"}, " ": {Holder: "you"},
	} {
		var got []string
		for v, err := range n.Services().List(t.Context(), f) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, v.Name)
		}
		if strings.Join(got, " ") != strings.TrimSpace(want) {
			t.Errorf("%+v: %v", f, got)
		}
	}
	var page api.List[api.Service]
	n.get(t, "/v1/vlan-services?limit=2", &page)
	if len(page.Items) != 2 || page.Next != "s2" {
		t.Errorf("%+v", page)
	}
	n.get(t, "/v1/vlan-services?limit=2&cursor=s2", &page)
	if st, err := n.Status(t.Context()); err != nil || st.Services["up"] != 1 || st.Services["allocated"] != 2 {
		t.Errorf("status: %+v, %v", st.Services, err)
	}
}

// TestServiceExec: the function's end decides, and so does its process's.
func TestServiceExec(t *testing.T) {
	t.Parallel()
	n := fabrics(t)
	ctx := t.Context()
	broken := errors.New("the switch did not answer")
	err := n.Services().Exec(ctx, pair("e"), func(_ context.Context, v *api.Service) error {
		if v.Hold == nil || v.Hold.Kind != api.HoldPID || v.Hold.PID != os.Getpid() {
			t.Errorf("held by %+v", v.Hold)
		}
		values(t, *v, 100, 200)
		return broken
	})
	v, getErr := n.Services().Get(ctx, "e")
	if !errors.Is(err, broken) || getErr != nil || v.State != api.ServiceFailed || v.Reason != broken.Error() {
		t.Errorf("%v; %+v, %v", err, v, getErr)
	}
	if err := n.Services().Exec(ctx, pair("f"), func(context.Context, *api.Service) error { return nil }); err != nil {
		t.Error(err)
	}
	if v, err := n.Services().Get(ctx, "f"); err != nil || v.State != api.ServiceUp {
		t.Errorf("%+v, %v", v, err)
	}
	// A process that dies takes its service with it.
	needRoot(t)
	h := spawn(t, "block", 0, 0, nil)
	h.line(t)
	r := api.ServiceRequest{Name: "g", Attributes: []api.ServiceWant{{Name: "x", Inventory: "a"}}, Hold: &api.Hold{Kind: api.HoldPID, PID: h.cmd.Process.Pid}}
	n.service(t, r)
	h.kill()
	eventually(t, "service g is compensated", func() (bool, any) {
		v, err := n.Services().Get(ctx, "g")
		return err == nil && v.State == api.ServiceFailed && v.ReasonCode == "hold_lost", v
	})
}

// TestServiceOfAFile: what waits for a node says so; what is done is in the file.
func TestServiceOfAFile(t *testing.T) {
	t.Parallel()
	n := fabrics(t)
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "vlans.json")
	if err := os.WriteFile(path, []byte(`{"range":{"from":0,"to":1},"allocations":{}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	n.inventory(t, api.Inventory{Name: "f", File: path, On: "n1"})
	n.inventory(t, api.Inventory{Name: "far", File: path, On: "n9"})
	one := func(name, inventory string) api.ServiceRequest {
		return api.ServiceRequest{Name: name, Attributes: []api.ServiceWant{{Name: "x", Inventory: inventory}}}
	}
	v := n.service(t, one("s", "f"))
	if vid, ok := v.VID("x"); v.State != api.ServiceAllocated || vid != 0 || !ok {
		t.Fatalf("0 is a value: %+v", v)
	}
	if v, err := n.VLANs().Get(ctx, "f", 0); err != nil || v.Service != "s" || v.State != api.StateUsed || v.Key != "s/x" {
		t.Errorf("its VLAN: %+v, %v", v, err)
	}
	wants(t, n.Inventories().Delete(ctx, "f"), problem.CodeHeld, "inventory f not deleted: 1 service has VLANs of it", "service s (allocated) has it for x")
	_, err := n.Inventories().Patch(ctx, "f", api.InventoryPatch{Ranges: text("1-9")}, api.WriteOptions{})
	wants(t, err, problem.CodeHeld, "inventory f not stored: 1 service")
	if _, err := n.Inventories().Patch(ctx, "f", api.InventoryPatch{Settle: "2s"}, api.WriteOptions{}); err != nil {
		t.Errorf("its settle time: %v", err)
	}
	_, err = n.Services().Create(ctx, one("s2", "f"), api.WriteOptions{})
	wants(t, err, problem.CodeExhausted, "service s2 rejected")
	if gone, err := n.Services().Delete(ctx, "s", "", false); err != nil || gone.State != api.ServiceGone || !gone.Changed {
		t.Errorf("deleted: %+v, %v", gone, err)
	}
	if data, err := os.ReadFile(path); err != nil || !strings.Contains(string(data), `"allocations":{}`) {
		t.Errorf("the file: %s, %v", data, err)
	}
	if err := n.Inventories().Delete(ctx, "f"); err != nil {
		t.Error(err)
	}
	// No agent of n9: it waits, and says for whom.
	code, _, body := n.raw(t, "PUT", "/v1/vlan-services/w", `{"attributes":[{"name":"x","inventory":"far"}]}`)
	if code != 202 || !strings.Contains(string(body), `"waits_for":[{"node":"n9"`) || !strings.Contains(string(body), `"vid":null`) {
		t.Errorf("%d %s", code, body)
	}
	found, err := n.Check(ctx)
	if err != nil || len(found) != 1 || found[0].Kind != "waiting" || !strings.Contains(found[0].Detail, "n9") {
		t.Errorf("check: %+v, %v", found, err)
	}
}
