package agent_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/idpool/idpool/api"
)

// TestReadsKeepTheContract: every operation of the served document that reads
// succeeds, and its answer, and the refusal of what is not there, fit the schemas.
func TestReadsKeepTheContract(t *testing.T) {
	t.Parallel()
	n := single(t, "3900064000-3900064009")
	if _, err := n.Inventories().Put(t.Context(), api.Inventory{Name: "a", Ranges: "100-109"}, api.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	uid := n.request(t, api.UIDRequest{}).Items[0].UID
	for path, body := range map[string]string{"/v1/allocations/k": `{"items":[{"uid_pool":"p"},{"vlan_inventory":"a"}]}`, "/v1/vlan-services/s": `{"attributes":[{"name":"north_vlan_id","inventory":"a"}]}`} {
		if code, _, raw := n.raw(t, "PUT", path, body); code != 201 {
			t.Fatalf("PUT %s: %d %s", path, code, raw)
		}
	}
	_, _, raw := n.raw(t, "GET", "/openapi.json", "")
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	schemas := jsonschema.NewCompiler()
	if err := schemas.AddResource("file:///openapi.json", doc); err != nil {
		t.Fatal(err)
	}
	there := strings.NewReplacer("{key}", "k", "{node}", "n1", "{pool}", "p", "{uid}", fmt.Sprint(uid), "{inventory}", "a", "{vid}", "100", "{service}", "s")
	escape := strings.NewReplacer("/", "~1", "{", "%7B", "}", "%7D", "~", "~0")
	fits := func(op operation, status, kind string, raw []byte) {
		at := fmt.Sprintf("file:///openapi.json#/paths/%s/get/responses/%s/content/%s/schema", escape.Replace(op.Path), status, escape.Replace(kind))
		schema, err := schemas.Compile(at)
		if err != nil {
			t.Errorf("%s: %v", op.Path, err)
			return
		}
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
		if err == nil {
			err = schema.Validate(value)
		}
		if err != nil {
			t.Errorf("GET %s: %s does not fit: %v", op.Path, raw, err)
		}
	}
	seen := 0
	for _, op := range n.operations(t) {
		if op.Method != "GET" || op.ID == "stream-events" {
			continue
		}
		seen++
		code, header, raw := n.raw(t, "GET", there.Replace(op.Path), "")
		if code != 200 {
			t.Errorf("GET %s: %d %s", op.Path, code, raw)
			continue
		}
		if kind := strings.Split(header.Get("Content-Type"), ";")[0]; op.Responses["200"].Content[kind].Schema != nil && kind == "application/json" {
			fits(op, "200", kind, raw)
		}
		code, _, raw = n.raw(t, "GET", op.nowhere()+"?no_such=1", "")
		if code < 400 {
			t.Errorf("GET %s?no_such=1: %d %s", op.nowhere(), code, raw)
			continue
		}
		fits(op, "default", "application/problem+json", raw)
	}
	if seen < 20 {
		t.Errorf("%d operations read", seen)
	}
}
