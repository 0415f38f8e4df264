package agent_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/problem"
)

// othersVLANCalls are what a caller may not do to another's VLAN, service and
// allocation, nor to inventories.
func othersVLANCalls(vlan, service string) []refusedCall {
	const inventory, services = "/v1/vlan-inventories/a", "/v1/vlan-services/e"
	return []refusedCall{
		{[]string{"DELETE", inventory + "/vlans/100", vlan}, problem.CodeForbidden},
		{[]string{"DELETE", inventory + "/vlans/100", "*"}, problem.CodeForbidden},
		{[]string{"DELETE", inventory + "/vlans?key=k"}, problem.CodeHeld},
		{[]string{"POST", inventory + "/vlans", "-", `{"key":"k"}`}, problem.CodeKeyConflict},
		{[]string{"POST", inventory + "/vlans", "-", `{"vid":100}`}, problem.CodeHeld},
		{[]string{"PUT", inventory, "-", `{"ranges":"1-9"}`}, problem.CodeForbidden},
		{[]string{"PATCH", inventory, "-", `{"add":"5"}`}, problem.CodeForbidden},
		{[]string{"DELETE", inventory}, problem.CodeForbidden},
		{[]string{"POST", inventory + "/import", "-", `{"used":[103]}`}, problem.CodeForbidden},
		{[]string{"POST", inventory + "/import?to_ranges=true", "-", `{}`}, problem.CodeForbidden},
		{[]string{"PUT", services, "-", `{"attributes":[{"name":"x","inventory":"a"}]}`}, problem.CodeHeld},
		{[]string{"POST", services + "/begin", service}, problem.CodeForbidden},
		{[]string{"POST", services + "/begin", "*"}, problem.CodeForbidden},
		{[]string{"POST", services + "/confirm", service}, problem.CodeForbidden},
		{[]string{"POST", services + "/fail", service, `{"reason":"x"}`}, problem.CodeForbidden},
		{[]string{"POST", services + "/retry", service}, problem.CodeForbidden},
		{[]string{"POST", services + "/extend", service, `{"confirm_within":"1s"}`}, problem.CodeForbidden},
		{[]string{"POST", services + "/removed", service, `{}`}, problem.CodeForbidden},
		{[]string{"POST", services + "/removed", service, `{"attribute":"x"}`}, problem.CodeForbidden},
		{[]string{"PATCH", services, service, `{"drop":["x"]}`}, problem.CodeForbidden},
		{[]string{"DELETE", services}, problem.CodeForbidden},
		{[]string{"DELETE", services, "*"}, problem.CodeForbidden},
		{[]string{"GET", "/v1/allocations/k"}, problem.CodeHeld},
		{[]string{"DELETE", "/v1/allocations/k"}, problem.CodeHeld},
		{[]string{"PUT", "/v1/allocations/k", "-", `{"items":[{"vlan_inventory":"a"}]}`}, problem.CodeKeyConflict},
	}
}

// TestVLANCallers: a caller sees and ends what it holds, and nothing else.
func TestVLANCallers(t *testing.T) {
	t.Parallel()
	n := guarded(t)
	n.inventory(t, api.Inventory{Name: "a", Ranges: "100-109"})
	me := spawn(t, "call", member, group, nil, n.cfg.Socket)
	other := spawn(t, "call", second, group, nil, n.cfg.Socket)
	var vlan api.VLAN
	if code := me.call(t, &vlan, "POST", "/v1/vlan-inventories/a/vlans", "-", `{"key":"k","holder":"me"}`); code != 201 || vlan.VID != 100 || vlan.Token == "" {
		t.Fatalf("%d %+v", code, vlan)
	}
	var service api.Service
	if code := me.call(t, &service, "PUT", "/v1/vlan-services/e", "-", `{"attributes":[{"name":"x","inventory":"a"}]}`); code != 201 || service.Token == "" {
		t.Fatalf("%d %+v", code, service)
	}
	if want := fmt.Sprintf("unix:%d", member); vlan.Caller != want || service.Caller != want {
		t.Errorf("callers %s, %s", vlan.Caller, service.Caller)
	}
	// Others see it, without tokens.
	for _, path := range []string{"/v1/vlan-inventories/a/vlans/100", "/v1/vlan-inventories/a/vlans", "/v1/vlan-services/e", "/v1/vlan-services", "/v1/allocations", "/v1/check", "/v1/vlan-inventories"} {
		fmt.Fprintln(other.in, "GET "+path)
		if line := other.line(t); !strings.HasPrefix(line, "200 ") || strings.Contains(line, vlan.Token) || strings.Contains(line, service.Token) || strings.Contains(line, service.Attributes["x"].Token) {
			t.Errorf("another sees at %s: %s", path, line)
		}
	}
	for _, c := range othersVLANCalls(`"`+vlan.Token+`"`, `"`+service.Token+`"`) {
		var b body
		if code := other.call(t, &b, c.line...); b.Code != c.code || code != c.code.HTTPStatus() {
			t.Errorf("another's %v: %d %+v; want %s", c.line, code, b, c.code)
		}
	}
	ctx := t.Context()
	if v, err := n.VLANs().Get(ctx, "a", 100); err != nil || v.State != api.StateUsed || v.Token != vlan.Token {
		t.Errorf("the VLAN after all that: %+v, %v", v, err)
	}
	if v, err := n.Services().Get(ctx, "e"); err != nil || v.State != api.ServiceAllocated || v.Token != service.Token {
		t.Errorf("the service after all that: %+v, %v", v, err)
	}
	// A caller may look what an import would do, its own it ends, and root anybody's.
	if code := other.call(t, nil, "POST", "/v1/vlan-inventories/a/import?dry_run=true", "-", `{"used":[103]}`); code != 200 {
		t.Errorf("a dry run: %d", code)
	}
	var released api.VLANsReleased
	if code := me.call(t, &released, "DELETE", "/v1/vlan-inventories/a/vlans/100", vlan.Token); code != 200 || !released.Changed {
		t.Errorf("its own: %d %+v", code, released)
	}
	if code := me.call(t, &service, "POST", "/v1/vlan-services/e/confirm", service.Token); code != 200 || service.State != api.ServiceUp {
		t.Errorf("its own: %d %+v", code, service)
	}
	if v, err := n.Services().Delete(ctx, "e", "*", false); err != nil || !v.Changed || v.State != api.ServiceGone {
		t.Errorf("root's: %+v, %v", v, err)
	}
}

// TestStrangersSeeNoVLANs: every endpoint is behind the gate.
func TestStrangersSeeNoVLANs(t *testing.T) {
	t.Parallel()
	n := guarded(t)
	out := spawn(t, "call", stranger, stranger, nil, n.cfg.Socket)
	for _, line := range []string{
		"GET /v1/vlan-inventories", "PUT /v1/vlan-inventories/a - {}", "POST /v1/vlan-inventories/a/vlans - {}", "GET /v1/vlan-inventories/a/vlans",
		"POST /v1/vlan-inventories/a/import - {}", "GET /v1/vlan-inventories/a/export", "GET /v1/vlan-services", "PUT /v1/vlan-services/e - {}",
		"POST /v1/vlan-services/e/confirm t", "DELETE /v1/vlan-services/e", "GET /v1/allocations", "PUT /v1/allocations/k - {}", "DELETE /v1/allocations/k", "GET /v1/check",
	} {
		var b body
		if code := out.call(t, &b, line); code != 403 || b.Code != problem.CodeForbidden {
			t.Errorf("%s as a stranger: %d %+v", line, code, b)
		}
	}
}
