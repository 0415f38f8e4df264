package agent_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/idpool/idpool/api"
)

// endpoints is the contract: what poolctl and package api call.
var endpoints = []string{
	"DELETE /v1/allocations/{key}", "DELETE /v1/nodes/{node}", "DELETE /v1/reservations", "DELETE /v1/uid-pools/{pool}", "DELETE /v1/uids",
	"DELETE /v1/uids/{uid}", "DELETE /v1/vlan-inventories/{inventory}", "DELETE /v1/vlan-inventories/{inventory}/vlans",
	"DELETE /v1/vlan-inventories/{inventory}/vlans/{vid}", "DELETE /v1/vlan-services/{service}", "GET /healthz", "GET /metrics", "GET /readyz", "GET /v1/allocations",
	"GET /v1/allocations/{key}", "GET /v1/check", "GET /v1/events", "GET /v1/nodes", "GET /v1/nodes/{node}", "GET /v1/reservations", "GET /v1/status",
	"GET /v1/uid-pools", "GET /v1/uid-pools/{pool}", "GET /v1/uids", "GET /v1/uids/{uid}", "GET /v1/vlan-inventories",
	"GET /v1/vlan-inventories/{inventory}", "GET /v1/vlan-inventories/{inventory}/export", "GET /v1/vlan-inventories/{inventory}/vlans",
	"GET /v1/vlan-inventories/{inventory}/vlans/{vid}", "GET /v1/vlan-services", "GET /v1/vlan-services/{service}", "PATCH /v1/uid-pools/{pool}",
	"PATCH /v1/vlan-inventories/{inventory}", "PATCH /v1/vlan-services/{service}", "POST /v1/nodes/{node}/fence", "POST /v1/nodes/{node}/leave",
	"POST /v1/nodes/{node}/unfence", "POST /v1/repair", "POST /v1/reservations", "POST /v1/uid-pools/{pool}/uids", "POST /v1/uids/{uid}/adopt",
	"POST /v1/uids/{uid}/confirm", "POST /v1/uids/{uid}/nodes", "POST /v1/uids/{uid}/renew", "POST /v1/vlan-inventories/{inventory}/import",
	"POST /v1/vlan-inventories/{inventory}/vlans", "POST /v1/vlan-services/{service}/begin", "POST /v1/vlan-services/{service}/confirm",
	"POST /v1/vlan-services/{service}/extend", "POST /v1/vlan-services/{service}/fail", "POST /v1/vlan-services/{service}/removed",
	"POST /v1/vlan-services/{service}/retry", "PUT /v1/allocations/{key}", "PUT /v1/log-level", "PUT /v1/uid-pools/{pool}", "PUT /v1/vlan-inventories/{inventory}",
	"PUT /v1/vlan-services/{service}",
}

func TestOpenAPI(t *testing.T) {
	t.Parallel()
	n := single(t, "3900050000")
	code, header, raw := n.raw(t, "GET", "/openapi.json", "")
	if code != 200 || !strings.Contains(header.Get("Content-Type"), "json") {
		t.Fatalf("%d %v", code, header)
	}
	var doc struct {
		OpenAPI string `json:"openapi"`
		Paths   map[string]map[string]struct {
			OperationID string `json:"operationId"`
			Responses   map[string]struct {
				Content map[string]any `json:"content"`
			} `json:"responses"`
		} `json:"paths"`
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.1") {
		t.Errorf("openapi %q", doc.OpenAPI)
	}
	var found []string
	ids := map[string]string{}
	for path, methods := range doc.Paths {
		for method, op := range methods {
			name := strings.ToUpper(method) + " " + path
			found = append(found, name)
			if other, twice := ids[op.OperationID]; twice || op.OperationID == "" {
				t.Errorf("%s has the operation id %q, as has %q", name, op.OperationID, other)
			}
			ids[op.OperationID] = name
			if _, ok := op.Responses["default"].Content["application/problem+json"]; !ok {
				t.Errorf("%s documents no problem: %v", name, op.Responses)
			}
		}
	}
	slices.Sort(found)
	if !slices.Equal(found, endpoints) {
		t.Errorf("endpoints:\n%s\nwant:\n%s", strings.Join(found, "\n"), strings.Join(endpoints, "\n"))
	}
}

// TestWire: what only a bare HTTP client sees.
func TestWire(t *testing.T) {
	t.Parallel()
	n := single(t, "3900051000-3900051009")
	type answer struct {
		api.ProblemBody
		Token string    `json:"token"`
		Items []api.UID `json:"items"`
	}
	do := func(method, path, body string, header ...string) (int, answer) {
		t.Helper()
		code, h, raw := n.raw(t, method, path, body, header...)
		var a answer
		if len(raw) > 0 {
			if err := json.Unmarshal(raw, &a); err != nil {
				t.Fatalf("%s %s: %d %q: %v", method, path, code, raw, err)
			}
		}
		if want := "application/problem+json"; code >= 400 && (h.Get("Content-Type") != want || a.Status != code || a.Type == "" || a.Detail == "") {
			t.Errorf("%s %s: %d %v %s", method, path, code, h, raw)
		}
		return code, a
	}
	code, first := do("POST", "/v1/uid-pools/p/uids", `{"key":"k"}`)
	if code != 201 || first.Token == "" {
		t.Fatalf("request: %d %+v", code, first)
	}
	if code, again := do("POST", "/v1/uid-pools/p/uids", `{"key":"k"}`); code != 200 || again.Token != first.Token {
		t.Errorf("again: %d %+v", code, again)
	}
	for _, c := range []struct {
		method, path, body string
		header             []string
		status             int
		code, part         string
	}{
		{"GET", "/v2", "", nil, 404, "not_found", "/v2"},
		{"PUT", "/healthz", "", nil, 404, "not_found", "PUT"},
		{"POST", "/v1/uid-pools/p/uids", `{"count":61}`, nil, 422, "invalid", "body.count"},
		{"POST", "/v1/uid-pools/p/uids", `{"county":1}`, nil, 422, "invalid", "county"},
		{"POST", "/v1/uid-pools/p/uids", `{"count":`, nil, 422, "invalid", "body"},
		{"POST", "/v1/uid-pools/p/uids", ``, nil, 422, "invalid", "body"},
		{"POST", "/v1/uid-pools/a%2Fb/uids", `{}`, nil, 422, "invalid", "name"},
		{"POST", "/v1/uid-pools/p/uids", `{"holder":"` + strings.Repeat("x", 1<<20) + `"}`, nil, 422, "invalid", "longer than"},
		{"GET", "/v1/uids/x", "", nil, 422, "invalid", "path.uid"},
		{"GET", "/v1/uids/4294967296", "", nil, 422, "invalid", "path.uid"},
		{"GET", "/v1/uids?stat=used", "", nil, 422, "invalid", "query.stat"},
		{"GET", "/v1/uids?limit=0", "", nil, 422, "invalid", "query.limit"},
		{"DELETE", "/v1/uids", "", nil, 428, "precondition_required", "?key="},
		{"DELETE", "/v1/uids?key=a&pid=1", "", nil, 428, "precondition_required", "?key="},
		{"DELETE", "/v1/uids/3900051000", "", nil, 428, "precondition_required", "If-Match"},
	} {
		code, a := do(c.method, c.path, c.body, c.header...)
		if code != c.status || string(a.Code) != c.code || !strings.Contains(a.Detail+strings.Join(a.Notes, "\n"), c.part) {
			t.Errorf("%s %s: %d %s %q; want %d %s with %q", c.method, c.path, code, a.Code, a.Detail, c.status, c.code, c.part)
		}
	}
	path := fmt.Sprintf("/v1/uids/%d", first.Items[0].UID)
	// A body may be left away; the token may stand bare.
	if code, a := do("POST", path+"/renew", "", "If-Match", first.Token); code != 200 {
		t.Errorf("renew without a body: %d %+v", code, a)
	}
	if code, a := do("DELETE", path, "", "If-Match", `"`+first.Token+`"`); code != 200 {
		t.Errorf("release: %d %+v", code, a)
	}
	if code, a := do("GET", "/v1/uids", ""); code != 200 || a.Items == nil || len(a.Items) > 1 {
		t.Errorf("list: %d %+v", code, a)
	}
}
