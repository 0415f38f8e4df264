package agent_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/cluster/clustertest"
	"github.com/idpool/idpool/problem"
)

// fabrics is one agent with inventories a (100-109) and b (200-201), the latter
// without cooldown.
func fabrics(t testing.TB) *node {
	t.Helper()
	n := start(t, config(t, "n1", clustertest.Start(t).Endpoints()...))
	n.inventory(t, api.Inventory{Name: "a", Ranges: "100-109"})
	n.inventory(t, api.Inventory{Name: "b", Ranges: "200-201", InventoryPolicy: api.InventoryPolicy{Cooldown: "0s"}})
	return n
}

func (n *node) inventory(t testing.TB, i api.Inventory) api.Inventory {
	t.Helper()
	stored, err := n.Inventories().Put(t.Context(), i, api.WriteOptions{})
	if err != nil {
		t.Fatalf("put inventory %s: %v", i.Name, err)
	}
	return stored
}

func (n *node) allocate(t testing.TB, r api.VLANRequest) api.VLAN {
	t.Helper()
	if r.Inventory == "" {
		r.Inventory = "a"
	}
	v, _, err := n.VLANs().Allocate(t.Context(), r)
	if err != nil {
		t.Fatalf("allocate: %v", err)
	}
	return v
}

func vid(n uint32) *uint32 { return &n }

func TestInventoryRefusals(t *testing.T) {
	t.Parallel()
	n := fabrics(t)
	ctx := t.Context()
	for _, c := range []struct {
		name string
		i    api.Inventory
		want []string
	}{
		{"VLAN 0", api.Inventory{Ranges: "0-10"}, []string{"inventory q not stored", `"0-10"`, "VLAN 0 cannot be granted", "ok instead: 1-10"}},
		{"VLAN 4095", api.Inventory{Ranges: "4095"}, []string{"VLAN 4095 cannot be granted", "IEEE 802.1Q"}},
		{"beyond", api.Inventory{Ranges: "4000-70000"}, []string{"VLAN 70000 cannot be granted", "ok instead: 4000-4094"}},
		{"backwards", api.Inventory{Ranges: "9-3"}, []string{`"9-3"`, "ok instead: 3-9"}},
		{"no number", api.Inventory{Ranges: "1-x"}, []string{`"x"`, "ok: a VLAN id"}},
		{"exclude", api.Inventory{Ranges: "1-9", Exclude: "y"}, []string{"exclude", `"y"`}},
		{"several", api.Inventory{Ranges: "0", Exclude: "y", InventoryPolicy: api.InventoryPolicy{Cooldown: "soon"}}, []string{"VLAN 0", "also: exclude", "also: cooldown"}},
		{"order", api.Inventory{Ranges: "1", InventoryPolicy: api.InventoryPolicy{Order: "best"}}, []string{"body.order"}},
		{"relative file", api.Inventory{File: "x.json", On: "n1"}, []string{"absolute path"}},
		{"file nowhere", api.Inventory{File: "/x.json"}, []string{"say on which node"}},
		{"node without file", api.Inventory{On: "n1"}, []string{"name the pool file"}},
		{"both", api.Inventory{Ranges: "1-9", File: "/x.json", On: "n1"}, []string{"ranges of its own or a file, not both"}},
		{"cooldown of a file", api.Inventory{File: "/x.json", On: "n1", InventoryPolicy: api.InventoryPolicy{Cooldown: "1m"}}, []string{"are of ranges"}},
		{"settle", api.Inventory{File: "/x.json", On: "n1", Settle: "2h"}, []string{"settle"}},
		{"no node's name", api.Inventory{File: "/x.json", On: "a b"}, []string{`"a b"`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.i.Name = "q"
			_, err := n.Inventories().Put(ctx, c.i, api.WriteOptions{})
			wants(t, err, problem.CodeInvalid, c.want...)
		})
	}
	for name, p := range map[string]api.InventoryPatch{
		"VLAN 0":             {Add: "0"},
		"not there":          {Remove: "300-310"},
		"no file":            {On: "n1"},
		"both":               {Ranges: text("1"), File: "/x", On: "n1"},
		"add and not remove": {Add: "300", Remove: "x"},
	} {
		_, err := n.Inventories().Patch(ctx, "a", p, api.WriteOptions{})
		wants(t, err, problem.CodeInvalid, "inventory a not stored")
		if t.Failed() {
			t.Fatal(name)
		}
	}
	for _, name := range []string{"a b", "a/b", strings.Repeat("x", 64), strings.Repeat("x", 10000)} {
		_, err := n.Inventories().Put(ctx, api.Inventory{Name: name, Ranges: "1"}, api.WriteOptions{})
		wants(t, err, problem.CodeInvalid)
	}
	_, err := n.Inventories().Patch(ctx, "q", api.InventoryPatch{Add: "5"}, api.WriteOptions{})
	wants(t, err, problem.CodeNotFound, "there is no inventory q", "inventories: a, b")
	all, err := n.Inventories().List(ctx)
	if err != nil || len(all) != 2 || all[0].Ranges != "100-109" {
		t.Errorf("after all that: %+v, %v", all, err)
	}
	if pools, err := n.Pools().List(ctx); err != nil || len(pools) != 0 {
		t.Errorf("uid pools: %+v, %v", pools, err)
	}
}

func TestInventories(t *testing.T) {
	t.Parallel()
	n := fabrics(t)
	ctx := t.Context()
	got, err := n.Inventories().Get(ctx, "a")
	want := api.Inventory{
		Name: "a", Ranges: "100-109", Size: 10, InventoryPolicy: api.InventoryPolicy{Order: "lowest", Cooldown: "10m0s", LowWater: "10%"},
		Counts: map[string]uint64{"free": 10, "locked": 0, "used": 0, "idle": 0, "quarantined": 0, "reserved": 0}, Revision: got.Revision,
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	v := n.allocate(t, api.VLANRequest{VID: vid(109)})
	// A dry run changes nothing; shrinking touches nothing that is held.
	for _, dry := range []bool{true, false} {
		p, err := n.Inventories().Patch(ctx, "a", api.InventoryPatch{Add: "300-301", Remove: "105-109", Exclude: text("301")}, api.WriteOptions{DryRun: dry})
		if err != nil || p.Ranges != "100-104,300-301" || p.Size != 6 || p.Counts[api.StateOutside] != 1 {
			t.Errorf("dry %v: %+v, %v", dry, p, err)
		}
	}
	if now, err := n.VLANs().Get(ctx, "a", 109); err != nil || now.State != api.StateUsed || now.InInventory || now.Token != v.Token {
		t.Errorf("outside: %+v, %v", now, err)
	}
	wants(t, n.Inventories().Delete(ctx, "a"), problem.CodeHeld, "1 of its VLANs are held", "109")
	_, err = n.Inventories().Patch(ctx, "a", api.InventoryPatch{File: "/x", On: "n1"}, api.WriteOptions{})
	wants(t, err, problem.CodeHeld, "inventory a not stored")
	if err := n.Inventories().Delete(ctx, "b"); err != nil {
		t.Error(err)
	}
	wants(t, n.Inventories().Delete(ctx, "b"), problem.CodeNotFound)
	// Status has them too.
	if st, err := n.Status(ctx); err != nil || len(st.Inventories) != 1 || len(st.Pools) != 0 {
		t.Errorf("status: %+v, %v", st, err)
	}
}

func TestVLANs(t *testing.T) {
	t.Parallel()
	n := fabrics(t)
	ctx := t.Context()
	v := n.allocate(t, api.VLANRequest{Key: "k", Holder: "me"})
	if v.VID != 100 || v.State != api.StateUsed || v.Token == "" || v.Key != "k" || v.Holder != "me" || !v.InInventory {
		t.Errorf("%+v", v)
	}
	if again, same, err := n.VLANs().Allocate(ctx, api.VLANRequest{Inventory: "a", Key: "k"}); err != nil || !same || again.VID != 100 || again.Token != v.Token {
		t.Errorf("the same again: %+v, %v, %v", again, same, err)
	}
	for name, c := range map[string]struct {
		r    api.VLANRequest
		code problem.Code
		want string
	}{
		"another under the key": {api.VLANRequest{Key: "k", VID: vid(105)}, problem.CodeKeyConflict, "poolctl vlan release a --key k"},
		"held":                  {api.VLANRequest{VID: vid(100)}, problem.CodeHeld, "me (unix:0"},
		"0":                     {api.VLANRequest{VID: vid(0)}, problem.CodeInvalid, "VLAN 0 cannot be granted"},
		"4095":                  {api.VLANRequest{VID: vid(4095)}, problem.CodeInvalid, "802.1Q"},
		"70000":                 {api.VLANRequest{VID: vid(70000)}, problem.CodeInvalid, "want 1 to 4094"},
		"not in it":             {api.VLANRequest{VID: vid(300)}, problem.CodeOutsidePool, "(100-109)"},
		"none of it":            {api.VLANRequest{Parity: "odd", Exclude: "100-109"}, problem.CodeOutsidePool, "none of 1,3,5,7,…,4093"},
		"nothing left":          {api.VLANRequest{From: "5", Parity: "even"}, problem.CodeInvalid, "leave none"},
		"contradiction":         {api.VLANRequest{VID: vid(104), Parity: "odd"}, problem.CodeInvalid, "rule it out"},
		"parity":                {api.VLANRequest{Parity: "both"}, problem.CodeInvalid, "body.parity"},
		"from":                  {api.VLANRequest{From: "x"}, problem.CodeInvalid, "from"},
		"exclude":               {api.VLANRequest{Exclude: "9-1"}, problem.CodeInvalid, "exclude"},
		"no inventory":          {api.VLANRequest{Inventory: "q"}, problem.CodeNotFound, "inventories: a, b"},
		"key too long":          {api.VLANRequest{Key: strings.Repeat("k", 257)}, problem.CodeInvalid, "body.key"},
	} {
		if c.r.Inventory == "" {
			c.r.Inventory = "a"
		}
		_, _, err := n.VLANs().Allocate(ctx, c.r)
		wants(t, err, c.code, c.want)
		if t.Failed() {
			t.Fatal(name)
		}
	}
	if v := n.allocate(t, api.VLANRequest{Parity: "odd", From: "103-109", Exclude: "103"}); v.VID != 105 {
		t.Errorf("chosen %d", v.VID)
	}
	// Exhausted, with the counts of a revision.
	n.allocate(t, api.VLANRequest{Inventory: "b"})
	n.allocate(t, api.VLANRequest{Inventory: "b"})
	_, _, err := n.VLANs().Allocate(ctx, api.VLANRequest{Inventory: "b"})
	wants(t, err, problem.CodeExhausted, "inventory b is exhausted: 0 of 2 VLANs free at revision", "2 used")
	if p, ok := err.(*problem.Error); !ok || p.Counts["used"] != 2 || p.Revision == 0 {
		t.Errorf("%+v", err)
	}
	var seen []uint32
	for v, err := range n.VLANs().List(ctx, "a", api.VLANFilter{State: api.StateFree, VIDs: "100-106"}) {
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, v.VID)
	}
	if diff := cmp.Diff([]uint32{101, 102, 103, 104, 106}, seen); diff != "" {
		t.Error(diff)
	}
	_, err = n.VLANs().Get(ctx, "a", 300)
	wants(t, err, problem.CodeNotFound, "VLAN 300 is not in inventory a")
	_, err = n.VLANs().Get(ctx, "q", 100)
	wants(t, err, problem.CodeNotFound, "there is no inventory q")
}

// TestPagesOfVLANs: each VLAN once, however small the pages are.
func TestPagesOfVLANs(t *testing.T) {
	t.Parallel()
	n := fabrics(t)
	for range 5 {
		n.allocate(t, api.VLANRequest{})
	}
	for state, want := range map[string]string{"": "[100 101 102 103 104]", "free": "[105 106 107 108 109]"} {
		var got []uint32
		path := "/v1/vlan-inventories/a/vlans?limit=2&state=" + state
		if state == "" {
			path = "/v1/vlan-inventories/a/vlans?limit=2"
		}
		for cursor := ""; ; {
			var page api.List[api.VLAN]
			n.get(t, path+cursor, &page)
			for _, v := range page.Items {
				got = append(got, v.VID)
			}
			if page.Next == "" {
				break
			}
			cursor = "&cursor=" + page.Next
		}
		if fmt.Sprint(got) != want {
			t.Errorf("state %q: %v", state, got)
		}
	}
	if code, _, body := n.raw(t, "GET", "/v1/vlan-inventories/a/vlans?cursor=x", ""); code != 422 {
		t.Errorf("a made-up cursor: %d %s", code, body)
	}
}

// TestVLANRelease: exact, repeatable, and never another's.
func TestVLANRelease(t *testing.T) {
	t.Parallel()
	n := fabrics(t)
	ctx := t.Context()
	v := n.allocate(t, api.VLANRequest{Inventory: "b", Key: "k"})
	path := "/v1/vlan-inventories/b/vlans/200"
	for header, want := range map[string]int{"": 428, `"another"`: 204} {
		if code, _, body := n.raw(t, "DELETE", path, "", "If-Match", header); code != want {
			t.Errorf("If-Match %s: %d %s", header, code, body)
		}
	}
	if code, _, body := n.raw(t, "DELETE", "/v1/vlan-inventories/b/vlans", ""); code != 428 {
		t.Errorf("without a key: %d %s", code, body)
	}
	r, err := n.VLANs().Release(ctx, "b", v.VID, v.Token)
	if err != nil || !r.Changed || len(r.Items) != 1 || r.Items[0].State != api.StateFree {
		t.Errorf("%+v, %v", r, err)
	}
	next := n.allocate(t, api.VLANRequest{Inventory: "b", VID: vid(200)})
	for _, release := range []func() (api.VLANsReleased, error){
		func() (api.VLANsReleased, error) { return n.VLANs().Release(ctx, "b", v.VID, v.Token) },
		func() (api.VLANsReleased, error) { return n.VLANs().ReleaseKey(ctx, "b", "k") },
	} {
		if r, err := release(); err != nil || r.Changed {
			t.Errorf("a late release: %+v, %v", r, err)
		}
	}
	if now, err := n.VLANs().Get(ctx, "b", 200); err != nil || now.Token != next.Token || now.State != api.StateUsed {
		t.Errorf("the next owner's: %+v, %v", now, err)
	}
	_, _, err = n.VLANs().Allocate(ctx, api.VLANRequest{Inventory: "b", Key: "k"})
	wants(t, err, problem.CodeKeyEnded)
	_, err = n.VLANs().ReleaseKey(ctx, "b", "never")
	wants(t, err, problem.CodeNotFound)
	_, err = n.VLANs().Release(ctx, "q", 1, "t")
	wants(t, err, problem.CodeNotFound, "there is no inventory q")
	// With a cooldown it says from when on it is granted again.
	v = n.allocate(t, api.VLANRequest{Key: "k2"})
	if r, err := n.VLANs().ReleaseKey(ctx, "a", "k2"); err != nil || !r.Changed || r.Items[0].State != api.StateQuarantined || r.Items[0].NotBefore == nil {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err := n.VLANs().Release(ctx, "a", v.VID, "*"); err != nil || r.Changed {
		t.Errorf("cooling down: %+v, %v", r, err)
	}
}

// TestFileInventory: what the file has is shown; what is wrong with it is said.
func TestFileInventory(t *testing.T) {
	t.Parallel()
	n := fabrics(t)
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "vlans.json")
	if err := os.WriteFile(path, []byte(`{"range":{"from":100,"to":105},"used":[100,300],"allocations":{"x":101}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	i := n.inventory(t, api.Inventory{Name: "f", File: path, On: "n1"})
	if i.Size != 5 || i.Counts["free"] != 3 || i.Counts["used"] != 2 || i.Counts["outside"] != 1 || len(i.Warnings) != 0 {
		t.Errorf("%+v", i)
	}
	_, _, err := n.VLANs().Allocate(ctx, api.VLANRequest{Inventory: "f"})
	wants(t, err, problem.CodeInvalid, path, "poolctl vlan service create NAME --north f")
	for want, f := range map[string]api.VLANFilter{"100 101 300": {}, "102 103 104": {State: api.StateFree}, "101": {Key: "x"}, "100": {VIDs: "1-100"}, "": {Service: "s"}} {
		var got []string
		for v, err := range n.VLANs().List(ctx, "f", f) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, fmt.Sprint(v.VID))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%+v lists %v, want %s", f, got, want)
		}
	}
	if v, err := n.VLANs().Get(ctx, "f", 101); err != nil || v.State != api.StateUsed || v.Key != "x" || !v.InInventory {
		t.Errorf("%+v, %v", v, err)
	}
	_, err = n.VLANs().Get(ctx, "f", 400)
	wants(t, err, problem.CodeNotFound, "VLAN 400 is not in inventory f")
	_, err = n.VLANs().Release(ctx, "f", 101, "*")
	wants(t, err, problem.CodeInvalid, "services get them there")
	raw, err := n.Inventories().Export(ctx, "f", true)
	if err != nil || !strings.Contains(string(raw), `"allocations":{"x":101}`) {
		t.Errorf("%s, %v", raw, err)
	}
	for name, content := range map[string]string{"empty": "", "torn": `{"used":[1`, "null": `{"used":null}`} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		i, err := n.Inventories().Get(ctx, "f")
		if err != nil || len(i.Warnings) != 1 || !strings.Contains(i.Warnings[0], name) || i.Counts != nil {
			t.Errorf("%s: %+v, %v", name, i, err)
		}
		_, err = n.Inventories().Export(ctx, "f", false)
		wants(t, err, problem.CodeInvalid, path)
	}
	far := n.inventory(t, api.Inventory{Name: "far", File: path, On: "n9"})
	if len(far.Warnings) != 1 || !strings.Contains(far.Warnings[0], "no node n9") {
		t.Errorf("%+v", far)
	}
	_, err = n.Inventories().Export(ctx, "far", false)
	wants(t, err, problem.CodeInvalid, "on node n9, and this is n1")
	_, err = n.VLANs().Get(ctx, "far", 100)
	wants(t, err, problem.CodeInvalid, "on node n9, and this is n1")
	i, err = n.Inventories().Patch(ctx, "f", api.InventoryPatch{Ranges: text("1-9")}, api.WriteOptions{})
	if err != nil || i.File != "" || i.Size != 9 {
		t.Errorf("of ranges again: %+v, %v", i, err)
	}
}
