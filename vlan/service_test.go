package vlan_test

import (
	"errors"
	"testing"

	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/vlan"
)

// TestLife is the whole life of a service of etcd: allocated, begun, up, patched,
// deleted; each step twice.
func TestLife(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.inventory("fabric-a", "100-199")
	a.inventory("fabric-b", "300-399")
	ctx := w.ctx()
	r := northSouth("edge-7", "fabric-a", "fabric-b")
	s, changed, err := a.Allocate(ctx, r)
	if err != nil || !changed || s.State != vlan.Allocated {
		t.Fatalf("%+v, %v, %v", s, changed, err)
	}
	has(t, s, "north_vlan_id", 100)
	has(t, s, "south_vlan_id", 300)
	same, changed, err := a.Allocate(ctx, r)
	if err != nil || changed || same.Token != s.Token || same.Write != s.Write {
		t.Fatalf("the same again: %+v, %v, %v", same, changed, err)
	}
	if c := w.claim("fabric-a", 100); c == nil || c.Service != "edge-7" || c.Key != "edge-7/north_vlan_id" {
		t.Fatalf("claim %+v", c)
	}
	for _, f := range []func() (*vlan.Service, bool, error){
		func() (*vlan.Service, bool, error) { return a.Begin(ctx, of(s)) },
		func() (*vlan.Service, bool, error) { return a.Confirm(ctx, of(s)) },
		func() (*vlan.Service, bool, error) {
			return a.Patch(ctx, of(s), vlan.Patch{Set: []vlan.Want{{Name: "north_vlan_id", Inventory: "fabric-b"}, {Name: "spare", Inventory: "fabric-a"}}, Drop: []string{"south_vlan_id"}})
		},
	} {
		if _, changed, err := f(); err != nil || !changed {
			t.Fatalf("%v, %v", changed, err)
		}
		if _, changed, err := f(); err != nil || changed {
			t.Fatalf("again: %v, %v", changed, err)
		}
	}
	up, err := a.Get(ctx, "edge-7")
	if err != nil || up.State != vlan.Up || len(up.Attributes) != 2 {
		t.Fatalf("%+v, %v", up, err)
	}
	has(t, up, "north_vlan_id", 301)
	has(t, up, "spare", 101)
	if w.claim("fabric-a", 100) != nil || w.claim("fabric-b", 300) != nil {
		t.Error("what was dropped is still claimed")
	}
	gone, changed, err := a.Delete(ctx, of(s), false)
	if err != nil || !changed || gone != nil {
		t.Fatalf("delete: %+v, %v, %v", gone, changed, err)
	}
	if _, changed, err := a.Delete(ctx, of(s), false); err != nil || changed {
		t.Fatalf("delete twice: %v, %v", changed, err)
	}
	if _, err := a.Get(ctx, "edge-7"); !errors.Is(err, problem.ErrNotFound) {
		t.Fatalf("%v", err)
	}
}
