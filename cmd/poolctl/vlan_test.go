package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/problem"
)

func TestAllocationItems(t *testing.T) {
	for word, want := range map[string]api.AllocationWant{
		"uid:jobs":            {UIDPool: "jobs"},
		"uid:jobs*2":          {UIDPool: "jobs", Count: 2},
		"vlan:fabric-a":       {VLANInventory: "fabric-a"},
		"vlan:fabric-a=north": {VLANInventory: "fabric-a", Name: "north"},
	} {
		if got, err := parseItem(word); err != nil || got != want {
			t.Errorf("%s: %+v, %v", word, got, err)
		}
	}
	for _, word := range []string{"", "uid", "uid:", "uid:jobs*", "uid:jobs*0", "uid:jobs*61", "uid:jobs*-1", "uid:*2", "vlan:", "vlan:=n", "vlan:a=", "gid:jobs", "jobs"} {
		if _, err := parseItem(word); !errors.Is(err, problem.ErrInvalid) {
			t.Errorf("%q: %v", word, err)
		}
	}
}

func TestVIDs(t *testing.T) {
	for text, want := range map[string]uint32{"0": 0, "1": 1, "4094": 4094, "4095": 4095} {
		if got, err := parseVID(text); err != nil || got != want {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "+1", "-1", "4096", "70000", "1.0", "x"} {
		if _, err := parseVID(text); !errors.Is(err, problem.ErrInvalid) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// sampleService has a value of 0, which is one, and an attribute that is not got.
func sampleService() api.Service {
	zero := uint32(0)
	return api.Service{
		Name: "edge-7", State: api.ServiceAllocating, Caller: "unix:0", WaitsFor: []problem.WaitsFor{{Node: "n7", Why: "fabric-b"}},
		Attributes: map[string]api.ServiceAttribute{
			"south_vlan_id": {Inventory: "fabric-b", Key: "edge-7/south_vlan_id", Step: "wanted"},
			"north_vlan_id": {Inventory: "fabric-a", VID: &zero, Key: "edge-7/north_vlan_id"},
		},
		Values: map[string]*uint32{"south_vlan_id": nil, "north_vlan_id": &zero},
	}
}

func TestServiceFormats(t *testing.T) {
	f, out, _ := factory()
	f.quiet = true
	if err := f.printService(sampleService()); err != nil || out.String() != "0\n-\n" {
		t.Errorf("quiet: %q, %v", out, err)
	}
	f, out, _ = factory()
	if err := f.printService(sampleService()); err != nil {
		t.Fatal(err)
	}
	want := `name:       edge-7
state:      allocating
vlans:      north_vlan_id 0
holder:     unix:0
waits for:  n7 (fabric-b)
caller:     unix:0

ATTRIBUTE      INVENTORY  VID  STEP    KEY
north_vlan_id  fabric-a   0    -       edge-7/north_vlan_id
south_vlan_id  fabric-b   -    wanted  edge-7/south_vlan_id
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
	f, out, _ = factory()
	f.format = formatJSON
	if err := f.printService(sampleService()); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{`"vid": 0,`, `"vid": null,`, `"north_vlan_id": 0`, `"south_vlan_id": null`, `"changed": false`, `"reason_code": ""`} {
		if !strings.Contains(out.String(), part) {
			t.Errorf("json lacks %s:\n%s", part, out)
		}
	}
}

// TestUnfinishedServiceFails: a script must not take VLANs for granted that are
// not there yet.
func TestUnfinishedServiceFails(t *testing.T) {
	f, out, _ := factory()
	f.quiet = true
	err := f.serviceNow(sampleService())
	if !errors.Is(err, problem.ErrOutcomeUnknown) || !strings.Contains(err.Error(), "n7") || out.String() != "0\n-\n" {
		t.Errorf("%q, %v", out, err)
	}
}

func TestServiceAttributes(t *testing.T) {
	got, err := readAttributes([]string{"a=x", "b=y"})
	if diff := cmp.Diff([]api.ServiceWant{{Name: "a", Inventory: "x"}, {Name: "b", Inventory: "y"}}, got); err != nil || diff != "" {
		t.Error(err, diff)
	}
	for _, word := range []string{"", "a", "a=", "=x"} {
		if _, err := readAttributes([]string{word}); !errors.Is(err, problem.ErrInvalid) {
			t.Errorf("%q: %v", word, err)
		}
	}
}

func TestChangesOfAWatchedList(t *testing.T) {
	l := listing[api.VLAN]{
		key:  func(v api.VLAN) string { return uidText(v.VID) },
		gone: func(v api.VLAN) api.VLAN { return api.VLAN{VID: v.VID, State: api.StateFree} },
	}
	a, b, c := api.VLAN{VID: 1, State: "used"}, api.VLAN{VID: 2, State: "used"}, api.VLAN{VID: 3, State: "used"}
	b2 := b
	b2.State = "quarantined"
	got := l.changes([]api.VLAN{a, b, c}, []api.VLAN{a, b2, {VID: 4, State: "used"}})
	if diff := cmp.Diff([]api.VLAN{b2, {VID: 4, State: "used"}, {VID: 3, State: "free"}}, got); diff != "" {
		t.Error(diff)
	}
}

// TestInventoryColumns: what a file of another node holds is not known, which is
// not 0.
func TestInventoryColumns(t *testing.T) {
	f, out, _ := factory()
	items := []api.Inventory{
		{Name: "far", File: "/x", On: "n7"},
		{Name: "fabric-a", Ranges: "100-109,200", Size: 11, Counts: map[string]uint64{"free": 1, "used": 10}, Low: true},
	}
	if err := printList(f, inventorySheet, items, nil); err != nil {
		t.Fatal(err)
	}
	want := "NAME      RANGES        SIZE  FREE     USED  QUARANTINED\n" +
		"far       /x on n7      -     -        -     -\n" +
		"fabric-a  100-109, 200  11    1 (low)  10    0\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}
