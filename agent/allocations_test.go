package agent_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/cluster/clustertest"
	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/problem"
)

// mixed is an agent with a pool p of uids and the inventories a and b.
func mixed(t *testing.T, ranges string) *node {
	t.Helper()
	n := fabrics(t)
	n.pool(t, api.Pool{Name: "p", Ranges: ranges})
	return n
}

func mix(key string, items ...api.AllocationWant) api.AllocationRequest {
	return api.AllocationRequest{Key: key, Items: items}
}

func TestAllocation(t *testing.T) {
	t.Parallel()
	n := mixed(t, "3900050000-3900050003")
	ctx := t.Context()
	r := mix("job/1", api.AllocationWant{UIDPool: "p", Count: 2}, api.AllocationWant{VLANInventory: "a", Name: "north"}, api.AllocationWant{VLANInventory: "b"})
	r.Holder = "me"
	v, err := n.Allocations().Create(ctx, r)
	if err != nil || v.State != api.StateUsed || !v.Changed || v.Token == "" || v.Holder != "me" || len(v.Items) != 4 {
		t.Fatalf("%+v, %v", v, err)
	}
	for _, item := range v.Items[:2] {
		if item.UID == nil || item.Pool != "p" || item.State != api.StateUsed {
			t.Errorf("%+v", item)
		}
		if u := n.show(t, *item.UID); u.State != api.StateUsed || !u.Keep || u.Key != "job/1" || u.Token != v.Token {
			t.Errorf("kept: %+v", u)
		}
	}
	if i := v.Items[2]; i.VID == nil || *i.VID != 100 || i.Inventory != "a" || i.Name != "north" {
		t.Errorf("%+v", i)
	}
	again, err := n.Allocations().Create(ctx, r)
	if err != nil || again.Changed {
		t.Fatalf("%+v, %v", again, err)
	}
	again.Changed = true
	if diff := cmp.Diff(v, again); diff != "" {
		t.Errorf("the same request again:\n%s", diff)
	}
	_, err = n.Allocations().Create(ctx, mix("job/1", api.AllocationWant{UIDPool: "p"}))
	wants(t, err, problem.CodeKeyConflict, "poolctl allocation delete job/1")
	got, err := n.Allocations().Get(ctx, "job/1")
	if err != nil || len(got.Items) != 4 || got.Token != v.Token {
		t.Errorf("%+v, %v", got, err)
	}
	// Commands about one kind of id do not tear it apart by its key.
	_, err = n.UIDs().ReleaseKey(ctx, "job/1")
	wants(t, err, problem.CodeInvalid, "stands for other ids as well", "poolctl allocation delete job/1")
	_, err = n.VLANs().ReleaseKey(ctx, "b", "job/1")
	wants(t, err, problem.CodeInvalid, "poolctl allocation delete job/1")
	over, err := n.Allocations().Delete(ctx, "job/1")
	if err != nil || !over.Changed || len(over.Items) != 4 {
		t.Fatalf("deleted: %+v, %v", over, err)
	}
	for _, item := range v.Items[:2] {
		n.until(t, *item.UID, api.StateFree)
	}
	if v, err := n.VLANs().Get(ctx, "b", 200); err != nil || v.State != api.StateFree {
		t.Errorf("%+v, %v", v, err)
	}
	if code, _, body := n.raw(t, "DELETE", "/v1/allocations/job%2F1", ""); code != 204 {
		t.Errorf("deleted again: %d %s", code, body)
	}
	_, err = n.Allocations().Get(ctx, "job/1")
	wants(t, err, problem.CodeKeyEnded)
	_, err = n.Allocations().Create(ctx, r)
	wants(t, err, problem.CodeKeyEnded)
}

// TestAllocationAskedForAtTwoAgents: the caller's key is one grant wherever it is
// asked for, and its deletion at any agent ends all of it, at once.
func TestAllocationAskedForAtTwoAgents(t *testing.T) {
	t.Parallel()
	etcd := clustertest.Start(t)
	var nodes []*node
	for _, name := range []string{"n1", "n2", "n3"} {
		nodes = append(nodes, start(t, config(t, name, etcd.Endpoints()...)))
	}
	ctx := t.Context()
	nodes[0].inventory(t, api.Inventory{Name: "a", Ranges: "100-109"})
	nodes[0].pool(t, api.Pool{Name: "p", Ranges: "3900054000-3900054001"})
	const first = 3900054000
	for _, c := range []struct {
		name  string
		asked []*node
		at    *node
	}{
		{"asked for at two, deleted at the first", nodes[:2], nodes[0]},
		{"asked for at two, deleted at a third", nodes[:2], nodes[2]},
		{"asked for at one, deleted at another", nodes[:1], nodes[1]},
	} {
		r := mix(strings.ReplaceAll(c.name, " ", "-"), api.AllocationWant{UIDPool: "p", Count: 2}, api.AllocationWant{VLANInventory: "a"})
		for _, n := range c.asked {
			eventually(t, "the agent knows pool and inventory", func() (bool, any) {
				_, err := n.Allocations().Create(ctx, r)
				return err == nil, err
			})
		}
		v, err := c.at.Allocations().Delete(ctx, r.Key)
		if err != nil || !v.Changed || v.State == api.StateUsed {
			t.Fatalf("%s: %+v, %v", c.name, v, err)
		}
		for i := range uint32(2) {
			nodes[0].until(t, first+i, api.StateFree) // long before a hold of a minute ends
		}
	}
}

// TestAllocationRefusals: nothing is got where not all is.
func TestAllocationRefusals(t *testing.T) {
	t.Parallel()
	n := mixed(t, "3900051000-3900051001")
	vlans := api.AllocationWant{VLANInventory: "b", Count: 3}
	for name, c := range map[string]struct {
		r    api.AllocationRequest
		code problem.Code
		want string
	}{
		"not all":         {mix("k", api.AllocationWant{UIDPool: "p"}, vlans), problem.CodeExhausted, ""},
		"no pool":         {mix("k", api.AllocationWant{UIDPool: "q"}), problem.CodeNotFound, "there is no pool q"},
		"no inventory":    {mix("k", api.AllocationWant{UIDPool: "p"}, api.AllocationWant{VLANInventory: "q"}), problem.CodeNotFound, "there is no inventory q"},
		"a pool's kind":   {mix("k", api.AllocationWant{UIDPool: "vlan/a"}), problem.CodeInvalid, "item 1"},
		"both":            {mix("k", api.AllocationWant{UIDPool: "p", VLANInventory: "a"}), problem.CodeInvalid, "one of them"},
		"neither":         {mix("k", api.AllocationWant{}), problem.CodeInvalid, "item 1"},
		"name of several": {mix("k", api.AllocationWant{VLANInventory: "a", Count: 2, Name: "n"}), problem.CodeInvalid, "a name is of one"},
		"one name, twice": {mix("k", api.AllocationWant{VLANInventory: "a", Name: "n"}, api.AllocationWant{VLANInventory: "b", Name: "n"}), problem.CodeInvalid, "two items are called n"},
		"no name":         {mix("k", api.AllocationWant{VLANInventory: "a", Name: "a b"}), problem.CodeInvalid, `"a b"`},
		"61":              {mix("k", api.AllocationWant{VLANInventory: "a", Count: 60}, api.AllocationWant{UIDPool: "p"}), problem.CodeInvalid, "61 ids in one grant"},
		"control":         {mix("a\nb", api.AllocationWant{UIDPool: "p"}), problem.CodeInvalid, "control characters"},
		"key of 10 kB":    {mix(strings.Repeat("k", 10000), api.AllocationWant{UIDPool: "p"}), problem.CodeInvalid, "256"},
	} {
		_, err := n.Allocations().Create(t.Context(), c.r)
		wants(t, err, c.code, c.want)
		if t.Failed() {
			t.Fatal(name)
		}
	}
	for v, err := range n.Allocations().List(t.Context(), api.AllocationFilter{}) {
		t.Errorf("got: %+v, %v", v, err)
	}
	if u := n.show(t, 3900051000); u.State != api.StateFree {
		t.Errorf("%+v", u)
	}
	_, err := n.Allocations().Get(t.Context(), "never")
	wants(t, err, problem.CodeNotFound)
	_, err = n.Allocations().Delete(t.Context(), "never")
	wants(t, err, problem.CodeNotFound)
}

// TestAllocationLists: every key is listed once, also with small pages, and VLANs
// of services are not.
func TestAllocationLists(t *testing.T) {
	t.Parallel()
	n := mixed(t, "3900052000-3900052009")
	for _, key := range []string{"c", "a", "b"} {
		if _, err := n.Allocations().Create(t.Context(), mix(key, api.AllocationWant{UIDPool: "p", Count: 2}, api.AllocationWant{VLANInventory: "a"})); err != nil {
			t.Fatal(err)
		}
	}
	n.allocate(t, api.VLANRequest{Key: "single"})
	n.request(t, api.UIDRequest{Key: "uid"})
	n.allocate(t, api.VLANRequest{})
	n.service(t, pair("e"))
	var got []string
	for v, err := range n.Allocations().List(t.Context(), api.AllocationFilter{Caller: "unix:0"}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%s:%d:%s", v.Key, len(v.Items), v.State))
	}
	if diff := cmp.Diff([]string{"a:3:used", "b:3:used", "c:3:used", "single:1:used", "uid:1:locked"}, got); diff != "" {
		t.Error(diff)
	}
	var page api.List[api.Allocation]
	n.get(t, "/v1/allocations?limit=4", &page)
	n.get(t, "/v1/allocations?limit=4&cursor="+strings.ReplaceAll(page.Next, "\x00", "%00"), &page)
	if len(page.Items) != 1 || page.Items[0].Key != "uid" {
		t.Errorf("%+v", page)
	}
}

// TestGatewayAllocates: it grants VLANs and no uid.
func TestGatewayAllocates(t *testing.T) {
	t.Parallel()
	c := config(t, "g1", clustertest.Start(t).Endpoints()...)
	c.Role = leases.RoleGateway
	n := start(t, c)
	n.pool(t, api.Pool{Name: "p", Ranges: "3900053000-3900053009"})
	n.inventory(t, api.Inventory{Name: "a", Ranges: "100-109"})
	_, err := n.Allocations().Create(t.Context(), mix("k", api.AllocationWant{UIDPool: "p"}, api.AllocationWant{VLANInventory: "a"}))
	wants(t, err, problem.CodeUnavailable, "g1 is a gateway, which grants no uid")
	if _, err := n.Allocations().Create(t.Context(), mix("k", api.AllocationWant{VLANInventory: "a"})); err != nil {
		t.Error(err)
	}
}

func poolFile(t testing.TB, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

type file struct {
	Range       map[string]int `json:"range,omitempty"`
	Used        []int          `json:"used,omitempty"`
	Allocations map[string]int `json:"allocations,omitempty"`
}

// TestImport: what a file has in use is never granted, and importing again changes
// nothing.
func TestImport(t *testing.T) {
	t.Parallel()
	n := fabrics(t)
	ctx := t.Context()
	content := poolFile(t, file{Range: map[string]int{"from": 0, "to": 4096}, Used: []int{0, 5, 4095, 9000}, Allocations: map[string]int{"edge/north": 1, "x": 2}})
	dry, err := n.Inventories().Import(ctx, "new", content, api.ImportOptions{DryRun: true})
	if err != nil || dry.Count != 3 || dry.Imported != "1-2,5" || !dry.Created || dry.Changed || dry.Inventory.Ranges != "1-4094" {
		t.Errorf("dry run: %+v, %v", dry, err)
	}
	_, err = n.Inventories().Get(ctx, "new")
	wants(t, err, problem.CodeNotFound)
	r, err := n.Inventories().Import(ctx, "new", content, api.ImportOptions{})
	if err != nil || r.Count != 3 || !r.Created || !r.Changed || r.Inventory.Counts["used"] != 3 || len(r.Warnings) != 2 {
		t.Fatalf("%+v, %v", r, err)
	}
	if v, err := n.VLANs().Get(ctx, "new", 1); err != nil || v.State != api.StateUsed || v.Holder != "imported: edge/north" {
		t.Errorf("%+v, %v", v, err)
	}
	if v := n.allocate(t, api.VLANRequest{Inventory: "new"}); v.VID != 3 {
		t.Errorf("granted %d", v.VID)
	}
	again, err := n.Inventories().Import(ctx, "new", content, api.ImportOptions{})
	if err != nil || again.Changed || again.Count != 0 || again.Present != "1-2,5" || again.Created {
		t.Errorf("again: %+v, %v", again, err)
	}
	raw, err := n.Inventories().Export(ctx, "new", true)
	var out file
	if err != nil || json.Unmarshal(raw, &out) != nil {
		t.Fatalf("%s, %v", raw, err)
	}
	want := file{Range: map[string]int{"from": 1, "to": 4095}, Used: []int{3, 5}, Allocations: map[string]int{"edge/north": 1, "x": 2}}
	if diff := cmp.Diff(want, out); diff != "" {
		t.Errorf("exported:\n%s", diff)
	}
	// One that has ranges keeps them; what is held stays its holder's.
	held := n.allocate(t, api.VLANRequest{VID: vid(105), Holder: "me"})
	r, err = n.Inventories().Import(ctx, "a", poolFile(t, file{Range: map[string]int{"from": 100, "to": 200}, Used: []int{105, 106, 150}}), api.ImportOptions{})
	if err != nil || r.Imported != "106,150" || r.Present != "105" || r.Inventory.Ranges != "100-109" || r.Inventory.Counts["outside"] != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	if len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "110-199") {
		t.Errorf("%v", r.Warnings)
	}
	if v, err := n.VLANs().Get(ctx, "a", 105); err != nil || v.Token != held.Token {
		t.Errorf("%+v, %v", v, err)
	}
}

func TestImportRefusals(t *testing.T) {
	t.Parallel()
	n := fabrics(t)
	n.inventory(t, api.Inventory{Name: "f", File: "/no/such.json", On: "n1"})
	for name, c := range map[string]struct{ inventory, content, want string }{
		"null":          {"q", `{"used":null}`, "used: is null"},
		"strings":       {"q", `{"used":["1"]}`, "is a string"},
		"from above to": {"q", `{"range":{"from":9,"to":3}}`, "from 9 is above to 3"},
		"too far":       {"q", `{"range":{"from":100,"to":5000}}`, "ok instead: from 100 to 4095"},
		"no object":     {"q", `[]`, "nothing imported into inventory q"},
		"name":          {"a b", `{}`, `"a b"`},
		"of a file":     {"f", `{}`, "--to-ranges"},
	} {
		_, err := n.Inventories().Import(t.Context(), c.inventory, []byte(c.content), api.ImportOptions{})
		wants(t, err, problem.CodeInvalid, c.want)
		if t.Failed() {
			t.Fatal(name)
		}
	}
	for content, want := range map[string]string{"x": "nothing imported into inventory q", `{"used":[1`: "torn", "": "body"} {
		if code, _, body := n.raw(t, "POST", "/v1/vlan-inventories/q/import", content); code != 422 || !strings.Contains(string(body), want) {
			t.Errorf("%q: %d %s", content, code, body)
		}
	}
	r, err := n.Inventories().Import(t.Context(), "f", []byte(`{"range":{"from":10,"to":12},"used":[10]}`), api.ImportOptions{ToRanges: true})
	if err != nil || r.Inventory.File != "" || r.Inventory.Ranges != "10-11" || r.Count != 1 {
		t.Errorf("of ranges: %+v, %v", r, err)
	}
	all, err := n.Inventories().List(t.Context())
	if err != nil || len(all) != 3 {
		t.Errorf("%+v, %v", all, err)
	}
}
