package vlan_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/vlan"
)

// TestBadRequests are refused before anything is written.
func TestBadRequests(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.inventory("fabric", "100-110")
	long := strings.Repeat("x", 300)
	for name, r := range map[string]vlan.Request{
		"no name":               northSouth("", "fabric", "fabric"),
		"a path as name":        northSouth("../edge", "fabric", "fabric"),
		"a name too long":       northSouth(long, "fabric", "fabric"),
		"an inventory's path":   northSouth("edge-7", "a/b", "fabric"),
		"nothing asked":         {Name: "edge-7", By: tenant},
		"no caller":             northSouth("edge-7", "fabric", "fabric", func(r *vlan.Request) { r.By = vlan.By{} }),
		"an attribute twice":    northSouth("edge-7", "fabric", "fabric", func(r *vlan.Request) { r.Attributes[1].Name = "north_vlan_id" }),
		"an attribute unnamed":  northSouth("edge-7", "fabric", "fabric", func(r *vlan.Request) { r.Attributes[1].Name = "" }),
		"a key too long":        northSouth("edge-7", "fabric", "fabric", func(r *vlan.Request) { r.Attributes[1].Key = long }),
		"a holder too long":     northSouth("edge-7", "fabric", "fabric", func(r *vlan.Request) { r.Holder = long }),
		"another policy":        northSouth("edge-7", "fabric", "fabric", func(r *vlan.Request) { r.OnPartial = "hope" }),
		"a hold too short":      northSouth("edge-7", "fabric", "fabric", func(r *vlan.Request) { r.ConfirmWithin = time.Millisecond }),
		"a hold too long":       northSouth("edge-7", "fabric", "fabric", func(r *vlan.Request) { r.ConfirmWithin = 367 * 24 * time.Hour }),
		"another hold":          northSouth("edge-7", "fabric", "fabric", func(r *vlan.Request) { r.Hold = &leases.Requester{Hold: leases.HoldTTL} }),
		"the same of one":       northSouth("edge-7", "fabric", "fabric", func(r *vlan.Request) { r.Same = true }),
		"too many attributes":   {Name: "edge-7", By: tenant, Attributes: make([]vlan.Want, 33)},
		"VLAN 0 of etcd":        northSouth("edge-7", "fabric", "fabric", func(r *vlan.Request) { r.VID = vid(0) }),
		"a VLAN out of the tag": northSouth("edge-7", "fabric", "fabric", func(r *vlan.Request) { r.VID = vid(5000) }),
	} {
		if s, changed, err := a.Allocate(w.ctx(), r); s != nil || changed || !errors.Is(err, problem.ErrInvalid) {
			t.Errorf("%s: %+v, %v, %v", name, s, changed, err)
		}
	}
	_, _, err := a.Allocate(w.ctx(), northSouth("edge-7", "fabric", "fabrik"))
	mustErr(t, err, problem.ErrNotFound, "fabrik", "fabric")
	_, _, err = a.Allocate(w.ctx(), northSouth("edge-7", "fabric", "fabric", func(r *vlan.Request) { r.VID = vid(200) }))
	mustErr(t, err, problem.ErrOutsidePool)
	if all := a.List(w.ctx()); len(all) != 0 {
		t.Errorf("%+v", all)
	}
	for name, f := range map[string]func(vlan.Change) (*vlan.Service, bool, error){
		"begin":   func(c vlan.Change) (*vlan.Service, bool, error) { return a.Begin(w.ctx(), c) },
		"retry":   func(c vlan.Change) (*vlan.Service, bool, error) { return a.Retry(w.ctx(), c) },
		"patch":   func(c vlan.Change) (*vlan.Service, bool, error) { return a.Patch(w.ctx(), c, vlan.Patch{}) },
		"fail":    func(c vlan.Change) (*vlan.Service, bool, error) { return a.Fail(w.ctx(), c, "") },
		"settled": func(c vlan.Change) (*vlan.Service, bool, error) { c.By = root; return a.Settled(w.ctx(), c, "x") },
	} {
		if _, _, err := f(vlan.Change{Name: "no-such", Token: "t", By: tenant}); !errors.Is(err, problem.ErrNotFound) {
			t.Errorf("%s of what does not exist: %v", name, err)
		}
		if _, _, err := f(vlan.Change{Name: "a/b", Token: "t", By: tenant}); !errors.Is(err, problem.ErrInvalid) {
			t.Errorf("%s of a bad name: %v", name, err)
		}
	}
}

// TestNameIsTaken: by another caller, by another definition, by a life that is
// over.
func TestNameIsTaken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.inventory("fabric", "100-110")
	r := northSouth("edge-7", "fabric", "fabric")
	s := a.create(r)
	_, _, err := a.Allocate(w.ctx(), northSouth("edge-7", "fabric", "fabric", func(r *vlan.Request) { r.By = other }))
	mustErr(t, err, problem.ErrHeld, "unix:7")
	for _, change := range []func(*vlan.Request){
		keep, short,
		func(r *vlan.Request) { r.Attributes = r.Attributes[:1] },
		func(r *vlan.Request) { r.Parity = "odd" },
		func(r *vlan.Request) { r.Attributes[0].Key = "mine" },
	} {
		_, _, err := a.Allocate(w.ctx(), northSouth("edge-7", "fabric", "fabric", change))
		mustErr(t, err, problem.ErrKeyConflict, "edge-7")
	}
	if _, _, err := a.Fail(w.ctx(), of(s), "no"); err != nil {
		t.Fatal(err)
	}
	_, _, err = a.Allocate(w.ctx(), r)
	mustErr(t, err, problem.ErrKeyEnded, "failed")
	if _, changed, err := a.Delete(w.ctx(), vlan.Change{Name: "edge-7", By: other}, false); changed || !errors.Is(err, problem.ErrForbidden) {
		t.Errorf("another caller's delete: %v, %v", changed, err)
	}
	a.goes("edge-7")
	if next := a.create(r); next.Token == s.Token {
		t.Error("two lives with one token")
	}
}

// TestRejectedOfEtcd: all or nothing; the refusal names attribute, inventory and
// counts, and stays until a retry that works.
func TestRejectedOfEtcd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.inventory("fabric-a", "100-110")
	a.inventory("fabric-b", "300", func(p *leases.Pool) { p.Cooldown = time.Hour })
	first := a.create(northSouth("first", "fabric-a", "fabric-b"))
	r := northSouth("edge-7", "fabric-a", "fabric-b")
	s, changed, err := a.Allocate(w.ctx(), r)
	mustErr(t, err, problem.ErrExhausted, "service edge-7 rejected: south_vlan_id could not be allocated: inventory fabric-b has 0 of 1 VLANs free (1 used)")
	var e *problem.Error
	if !errors.As(err, &e) || e.Attribute != "south_vlan_id" || e.Counts["used"] != 1 || e.Revision == 0 || !changed {
		t.Fatalf("%+v", e)
	}
	if s.State != vlan.Rejected || w.claim("fabric-a", 101) != nil {
		t.Fatalf("%+v", s)
	}
	if _, _, err := a.Delete(w.ctx(), of(first), false); err != nil {
		t.Fatal(err)
	}
	_, changed, err = a.Retry(w.ctx(), of(s))
	mustErr(t, err, problem.ErrExhausted, "1 cooling down until ")
	if !changed {
		t.Error("a retry writes down why it was refused")
	}
	a.inventory("fabric-b", "300-301", func(p *leases.Pool) { p.Cooldown = time.Hour })
	got, _, err := a.Retry(w.ctx(), of(s))
	if err != nil || got.State != vlan.Allocated || got.Refusal() != nil {
		t.Fatalf("%+v, %v", got, err)
	}
	has(t, got, "south_vlan_id", 301)
	has(t, got, "north_vlan_id", 100)
}

// TestNumbers: what Selection promises, by the engine and by a file.
func TestNumbers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.inventory("fabric-a", "100-119")
	a.inventory("fabric-b", "110-129")
	a.file("outside", "n1", keyed(100, 200))
	n := int64(5)
	for name, c := range map[string]struct {
		sel          vlan.Selection
		south        string
		first, other uint32
	}{
		"same":            {vlan.Selection{Same: true}, "fabric-b", 110, 110},
		"same-with-vid":   {vlan.Selection{Same: true, VID: vid(117)}, "fabric-b", 117, 117},
		"same-and-file":   {vlan.Selection{Same: true, Exclude: setOf(t, "100-107")}, "outside", 108, 108},
		"offset":          {vlan.Selection{Offset: &n, Exclude: setOf(t, "100-110,116")}, "fabric-b", 112, 117 + 0},
		"offset-and-file": {vlan.Selection{Offset: &n, VID: vid(104)}, "outside", 104, 109},
		"vid-alone":       {vlan.Selection{VID: vid(119)}, "outside", 119, 100},
	} {
		r := northSouth(name, "fabric-a", c.south)
		r.Selection = c.sel
		if name == "offset" {
			c.other = c.first + 5
		}
		s, _, err := a.Allocate(w.ctx(), r)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		north, _ := s.VID("north_vlan_id")
		south, _ := s.VID("south_vlan_id")
		if north != c.first || south != c.other {
			t.Errorf("%s: %d and %d, want %d and %d", name, north, south, c.first, c.other)
		}
		if _, _, err := a.Delete(w.ctx(), of(s), false); err != nil {
			t.Fatal(err)
		}
		a.becomes(name, vlan.Gone)
	}
	taken := a.create(northSouth("taken", "fabric-a", "fabric-b", func(r *vlan.Request) { r.VID = vid(110) }))
	s, _, err := a.Allocate(w.ctx(), northSouth("late", "fabric-a", "fabric-b", func(r *vlan.Request) { r.VID = vid(110) }))
	mustErr(t, err, problem.ErrHeld, "late rejected", "north_vlan_id", "110")
	if s == nil || s.State != vlan.Rejected {
		t.Fatalf("%+v", s)
	}
	a.goes(taken.Name)
	if got, _, err := a.Retry(w.ctx(), of(s)); err != nil || got.State != vlan.Allocated {
		t.Fatalf("%+v, %v", got, err)
	}
}

// TestPatchRefusals leave everything as it was.
func TestPatchRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.inventory("fabric", "100-101")
	a.inventory("other", "300-310")
	a.file("outside", "n1", keyed(100, 200))
	s := a.create(northSouth("edge-7", "fabric", "outside"))
	patch := func(p vlan.Patch) error {
		_, changed, err := a.Patch(w.ctx(), of(s), p)
		if changed {
			t.Errorf("%+v changed something", p)
		}
		return err
	}
	mustErr(t, patch(vlan.Patch{Drop: []string{"north_vlan_id"}}), problem.ErrPrecondition, "allocated")
	up, _, err := a.Confirm(w.ctx(), of(s))
	if err != nil {
		t.Fatal(err)
	}
	set := func(name, inventory string) vlan.Patch {
		return vlan.Patch{Set: []vlan.Want{{Name: name, Inventory: inventory}}}
	}
	mustErr(t, patch(set("north_vlan_id", "outside")), problem.ErrInvalid, "outside")
	mustErr(t, patch(set("south_vlan_id", "fabric")), problem.ErrInvalid, "outside")
	mustErr(t, patch(vlan.Patch{Drop: []string{"south_vlan_id"}}), problem.ErrInvalid, "outside")
	mustErr(t, patch(set("x", "no-such")), problem.ErrNotFound)
	mustErr(t, patch(set("a/b", "fabric")), problem.ErrInvalid)
	mustErr(t, patch(vlan.Patch{Set: []vlan.Want{{Name: "x", Inventory: "fabric"}}, Drop: []string{"x"}}), problem.ErrInvalid)
	two := vlan.Patch{Set: []vlan.Want{{Name: "north_vlan_id", Inventory: "other"}, {Name: "x", Inventory: "fabric"}, {Name: "y", Inventory: "fabric"}}}
	mustErr(t, patch(two), problem.ErrExhausted)
	if err := patch(set("north_vlan_id", "fabric")); err != nil {
		t.Errorf("what is so already: %v", err)
	}
	if now := a.becomes("edge-7", vlan.Up); now.Write != up.Write {
		t.Error("a refusal was written")
	}
	moved, _, err := a.Patch(w.ctx(), of(s), set("north_vlan_id", "other"))
	if err != nil {
		t.Fatal(err)
	}
	has(t, moved, "north_vlan_id", 300)
	if w.claim("fabric", 100) != nil {
		t.Error("the VLAN that it moved from is still claimed")
	}
	only := a.create(vlan.Request{Name: "only", By: tenant, Attributes: []vlan.Want{{Name: "north_vlan_id", Inventory: "fabric"}}})
	if _, _, err := a.Confirm(w.ctx(), of(only)); err != nil {
		t.Fatal(err)
	}
	_, _, err = a.Patch(w.ctx(), of(only), vlan.Patch{Drop: []string{"north_vlan_id"}})
	mustErr(t, err, problem.ErrInvalid, "no VLAN left")
}

// TestHeldIDs: deleted with hold, the VLANs stay until the devices are clean.
func TestHeldIDs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.inventory("fabric", "100-101")
	path := a.file("outside", "n1", keyed(100, 200))
	s := a.create(northSouth("edge-7", "fabric", "outside"))
	held, changed, err := a.Delete(w.ctx(), of(s), true)
	if err != nil || !changed || held.State != vlan.Deallocating {
		t.Fatalf("%+v, %v, %v", held, changed, err)
	}
	has(t, held, "north_vlan_id", 100)
	if _, changed, err := a.Delete(w.ctx(), of(s), true); err != nil || changed {
		t.Errorf("delete again: %v, %v", changed, err)
	}
	_, _, err = a.Delete(w.ctx(), of(s), false)
	mustErr(t, err, problem.ErrPrecondition, "held until its devices are clean")
	_, _, err = a.Confirm(w.ctx(), of(s))
	mustErr(t, err, problem.ErrCompensated)
	if c := w.claim("fabric", 100); c == nil || len(w.inFile(path)) != 1 {
		t.Fatalf("claim %+v, file %v", c, w.inFile(path))
	}
	if _, changed, err := a.Removed(w.ctx(), of(s)); err != nil || !changed {
		t.Fatalf("%v, %v", changed, err)
	}
	a.becomes("edge-7", vlan.Gone)
	if _, changed, err := a.Removed(w.ctx(), of(s)); err != nil || changed {
		t.Errorf("removed twice: %v, %v", changed, err)
	}
	if w.claim("fabric", 100) != nil || len(w.inFile(path)) != 0 {
		t.Error("something is left")
	}
}

// TestDryRun answers and writes nothing.
func TestDryRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.inventory("fabric", "100-101")
	a.file("outside", "n1", keyed(100, 200))
	dry := func(r *vlan.Request) { r.DryRun = true }
	s, changed, err := a.Allocate(w.ctx(), northSouth("edge-7", "fabric", "outside", dry))
	if err != nil || changed || s.Token != "" {
		t.Fatalf("%+v, %v, %v", s, changed, err)
	}
	has(t, s, "north_vlan_id", 100)
	if _, ok := s.VID("south_vlan_id"); ok {
		t.Error("an outside inventory was asked")
	}
	_, _, err = a.Allocate(w.ctx(), northSouth("edge-7", "fabric", "fabric", dry, func(r *vlan.Request) {
		r.Attributes = append(r.Attributes, vlan.Want{Name: "third", Inventory: "fabric"})
	}))
	mustErr(t, err, problem.ErrExhausted)
	if len(a.List(w.ctx())) != 0 || w.claim("fabric", 100) != nil {
		t.Error("something was written")
	}
}
