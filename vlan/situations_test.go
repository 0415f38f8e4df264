package vlan_test

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/seam/fault"
	"github.com/idpool/idpool/vlan"
)

// counted counts what is asked of a pool file.
type counted struct {
	vlan.Inventory
	allocates, releases atomic.Int32
	keys                sync.Map
}

func (c *counted) Allocate(ctx context.Context, key string, ch vlan.Choice) (uint32, error) {
	c.allocates.Add(1)
	c.keys.Store(key, true)
	return c.Inventory.Allocate(ctx, key, ch)
}

func (c *counted) Release(ctx context.Context, vid uint32, key string) error {
	c.releases.Add(1)
	return c.Inventory.Release(ctx, vid, key)
}

// counting makes a node count what it asks of every pool file.
func counting(c *counted) func(*vlan.Options) {
	return opening(func(inv vlan.Inventory) vlan.Inventory {
		c.Inventory = inv
		return c
	})
}

func opening(wrap func(vlan.Inventory) vlan.Inventory) func(*vlan.Options) {
	return func(o *vlan.Options) {
		o.Open = func(name string, def leases.Outside) (vlan.Inventory, error) {
			inv, err := vlan.NewFileInventory(def.File, vlan.FileOptions{Name: name})
			if err != nil {
				return nil, err
			}
			return wrap(inv), nil
		}
	}
}

// TestPartialFailureKeepsNorth: a range of one VLAN; north gets it, south is
// refused, north is kept; the delete makes exactly one deallocation, and the
// inventory is empty again.
func TestPartialFailureKeepsNorth(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var c counted
	a := w.node("n1", counting(&c))
	path := a.file("fabric", "n1", keyed(100, 101)) // "to" is not inside
	s, changed, err := a.Allocate(w.ctx(), northSouth("edge-7", "fabric", "fabric", keep))
	mustErr(t, err, problem.ErrExhausted, "edge-7 rejected", "south_vlan_id")
	if !changed || s == nil || s.State != vlan.Rejected {
		t.Fatalf("%+v, %v", s, changed)
	}
	has(t, s, "north_vlan_id", 100)
	if _, ok := s.VID("south_vlan_id"); ok || c.allocates.Load() != 2 {
		t.Fatalf("%+v after %d allocations", s, c.allocates.Load())
	}
	_, changed, err = a.Allocate(w.ctx(), northSouth("edge-7", "fabric", "fabric", keep))
	mustErr(t, err, problem.ErrExhausted, "edge-7 rejected")
	if changed || c.allocates.Load() != 2 {
		t.Fatal("the same request again is the same refusal, and asks nothing")
	}
	a.goes("edge-7")
	if n := c.releases.Load(); n != 1 || len(w.inFile(path)) != 0 {
		t.Fatalf("%d deallocations; left %v", n, w.inFile(path))
	}
}

// TestPartialFailureReleases: the default gives north back at once.
func TestPartialFailureReleases(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	path := a.file("fabric", "n1", keyed(100, 101))
	s, _, err := a.Allocate(w.ctx(), northSouth("edge-7", "fabric", "fabric"))
	mustErr(t, err, problem.ErrExhausted, "south_vlan_id")
	if s.State != vlan.Rejected || len(w.inFile(path)) != 0 {
		t.Fatalf("%+v; left %v", s, w.inFile(path))
	}
	a.goes("edge-7")
}

// TestRetryAsksOnlySouth, and asks north's VLAN never again: it stays.
func TestRetryAsksOnlySouth(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var c counted
	a := w.node("n1", counting(&c))
	path := a.file("fabric", "n1", keyed(100, 101))
	s, _, err := a.Allocate(w.ctx(), northSouth("edge-7", "fabric", "fabric", keep))
	mustErr(t, err, problem.ErrExhausted)
	_, _, err = a.Retry(w.ctx(), of(s))
	mustErr(t, err, problem.ErrExhausted)
	writeFile(t, path, `{"version": 1, "range": {"from": 100, "to": 102}, "used": [], "allocations": {"edge-7/north_vlan_id": 100}}`)
	north := 0
	c.keys.Range(func(key, _ any) bool {
		if key == "edge-7/north_vlan_id" {
			north++
		}
		c.keys.Delete(key)
		return true
	})
	again, changed, err := a.Retry(w.ctx(), of(s))
	if err != nil || !changed || again.State != vlan.Allocated || again.Token != s.Token {
		t.Fatalf("%+v, %v, %v", again, changed, err)
	}
	has(t, again, "north_vlan_id", 100)
	has(t, again, "south_vlan_id", 101)
	if _, asked := c.keys.Load("edge-7/north_vlan_id"); asked || north != 1 || c.allocates.Load() != 4 {
		t.Errorf("north was asked for again (%d allocations)", c.allocates.Load())
	}
	if _, changed, err := a.Retry(w.ctx(), of(s)); err != nil || changed {
		t.Fatalf("with nothing missing: %v, %v", changed, err)
	}
	a.goes("edge-7")
}

// TestAlreadyFreedElsewhere: what somebody took out of the file is done, and
// nothing is written to it.
func TestAlreadyFreedElsewhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var c counted
	a := w.node("n1", counting(&c))
	path := a.file("fabric", "n1", keyed(100, 110))
	s := a.create(northSouth("edge-7", "fabric", "fabric"))
	freed := `{"version": 9, "range": {"from": 100, "to": 110}, "used": [], "allocations": {}}`
	writeFile(t, path, freed)
	a.goes("edge-7")
	if c.releases.Load() != 0 || fileText(t, path) != freed {
		t.Errorf("%d releases; the file is %s", c.releases.Load(), fileText(t, path))
	}
	if changed, err := a.Deallocate(w.ctx(), vlan.Deallocation{Inventory: "fabric", VID: s.Attributes[0].VID, Key: s.Attributes[0].Key, By: tenant}); err != nil || changed {
		t.Errorf("deallocate what is free: %v, %v", changed, err)
	}
}

// TestFreeingByNumberAfterAnotherReservedIt: in a file the key tells, in etcd the
// token. Neither a service's end nor a late deallocation touches the other's.
func TestFreeingByNumberAfterAnotherReservedIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var c counted
	a := w.node("n1", counting(&c))
	path := a.file("fabric", "n1", keyed(100, 110))
	s := a.create(northSouth("edge-7", "fabric", "fabric"))
	theirs := `{"version": 9, "range": {"from": 100, "to": 110}, "used": [], "allocations": {"somebody": 100}}`
	writeFile(t, path, theirs)
	if changed, err := a.Deallocate(w.ctx(), vlan.Deallocation{Inventory: "fabric", VID: s.Attributes[0].VID, Key: s.Attributes[0].Key, By: tenant}); err != nil || changed {
		t.Errorf("deallocate: %v, %v", changed, err)
	}
	a.goes("edge-7")
	if c.releases.Load() != 0 || fileText(t, path) != theirs {
		t.Errorf("%d releases; the file is %s", c.releases.Load(), fileText(t, path))
	}
}

// TestABAByToken: in etcd a late deallocation, by number or by the token of a
// service that is over, does not free the next owner's VLAN.
func TestABAByToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.inventory("fabric", "100-101")
	old := a.create(northSouth("edge-7", "fabric", "fabric"))
	a.goes("edge-7")
	next := a.create(northSouth("edge-7", "fabric", "fabric"))
	has(t, next, "north_vlan_id", 100)
	d := vlan.Deallocation{Inventory: "fabric", VID: vid(100), Token: old.Attributes[0].Token, By: root}
	if changed, err := a.Deallocate(w.ctx(), d); err != nil || changed {
		t.Fatalf("by the old token: %v, %v", changed, err)
	}
	d.Token = ""
	_, err := a.Deallocate(w.ctx(), d)
	mustErr(t, err, problem.ErrHeld, "edge-7")
	if s, changed, err := a.Delete(w.ctx(), of(old), false); err != nil || changed || s != nil {
		t.Fatalf("delete of a life that is over: %+v, %v, %v", s, changed, err)
	}
	if now := a.becomes("edge-7", vlan.Allocated); now.Token != next.Token || w.claim("fabric", 100) == nil {
		t.Error("the next owner's VLAN is gone")
	}
	a.goes("edge-7")
}

// TestCrashBetweenReservedAndSaved: the file has the VLAN, the record does not,
// and the agent dies; started again it asks by key and goes on.
func TestCrashBetweenReservedAndSaved(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	path := a.file("fabric", "n1", keyed(100, 110))
	died := a.dieAt("outside:allocate:after")
	go func() { _, _, _ = a.Allocate(w.ctx(), northSouth("edge-7", "fabric", "fabric")) }()
	w.await("the death", died)
	if got := w.inFile(path); got["edge-7/north_vlan_id"] != 100 {
		t.Fatalf("the file has %v", got)
	}
	b := a.again()
	s := b.create(northSouth("edge-7", "fabric", "fabric"))
	has(t, s, "north_vlan_id", 100)
	has(t, s, "south_vlan_id", 101)
	if got := w.inFile(path); len(got) != 2 {
		t.Errorf("the file has %v", got)
	}
}

// TestRetryThatAsksNorthAgainLeaksNothing: after a compensation the retry asks
// for all, under the same keys, and there is one VLAN for each.
func TestRetryThatAsksNorthAgainLeaksNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	path := a.file("fabric", "n1", keyed(100, 110))
	s := a.create(northSouth("edge-7", "fabric", "fabric"))
	if _, _, err := a.Fail(w.ctx(), of(s), "the switch said no"); err != nil {
		t.Fatal(err)
	}
	failed := a.becomes("edge-7", vlan.Failed)
	if failed.Reason != "the switch said no" || failed.ReasonCode != vlan.ReasonFailed || len(w.inFile(path)) != 0 {
		t.Fatalf("%+v; the file has %v", failed, w.inFile(path))
	}
	again, _, err := a.Retry(w.ctx(), of(failed))
	if err != nil || again.Token == s.Token {
		t.Fatalf("%+v, %v", again, err)
	}
	if got := w.inFile(path); len(got) != 2 || got["edge-7/north_vlan_id"] != 100 || got["edge-7/south_vlan_id"] != 101 {
		t.Errorf("the file has %v", got)
	}
}

// TestSaveFailureIsChecked: the pool file cannot be saved, so that nothing was
// got; and the record cannot be saved, so that what was got is looked up.
func TestSaveFailureIsChecked(t *testing.T) {
	t.Parallel()
	t.Run("of the file", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		dir := filepath.Join(t.TempDir(), "pools")
		path := filepath.Join(dir, "fabric.json")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		writeFile(t, path, keyed(100, 110))
		var saves atomic.Int32
		a := w.node("n1", func(o *vlan.Options) {
			o.Open = func(name string, def leases.Outside) (vlan.Inventory, error) {
				return vlan.NewFileInventory(def.File, vlan.FileOptions{Name: name, Seam: fault.At(func(point string) {
					if point == "file:pool:create:before" && saves.Add(1) == 2 { // of south
						_ = os.Rename(dir, dir+".away")
					}
				})})
			}
		})
		a.define("fabric", func(p *leases.Pool) { p.Outside = &leases.Outside{File: path, On: "n1"} })
		w.files["fabric"] = path
		s, _, err := a.Allocate(w.ctx(), northSouth("edge-7", "fabric", "fabric", keep))
		if err == nil || s == nil || s.State != vlan.Rejected {
			t.Fatalf("%+v, %v", s, err)
		}
		has(t, s, "north_vlan_id", 100)
		if err := os.Rename(dir+".away", dir); err != nil {
			t.Fatal(err)
		}
		again, _, err := a.Retry(w.ctx(), of(s))
		if err != nil {
			t.Fatal(err)
		}
		has(t, again, "south_vlan_id", 101)
		a.goes("edge-7")
	})
	t.Run("of the record", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a := w.node("n1")
		path := a.file("fabric", "n1", keyed(100, 110))
		var once sync.Once
		a.points.Store("service:got:before", func() { once.Do(a.expire) })
		s := a.create(northSouth("edge-7", "fabric", "fabric"))
		has(t, s, "north_vlan_id", 100)
		has(t, s, "south_vlan_id", 101)
		if got := w.inFile(path); len(got) != 2 {
			t.Errorf("the file has %v", got)
		}
	})
}

// TestZeroIsAValue: an inventory that begins at 0 gives 0, which is kept, is
// counted as got, and is given back.
func TestZeroIsAValue(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	path := a.file("fabric", "n1", keyed(0, 1))
	s, _, err := a.Allocate(w.ctx(), northSouth("edge-7", "fabric", "fabric", keep))
	mustErr(t, err, problem.ErrExhausted, "south_vlan_id")
	has(t, s, "north_vlan_id", 0)
	writeFile(t, path, `{"version": 1, "range": {"from": 0, "to": 2}, "used": [], "allocations": {"edge-7/north_vlan_id": 0}}`)
	s, _, err = a.Retry(w.ctx(), of(s))
	if err != nil {
		t.Fatal(err)
	}
	has(t, s, "north_vlan_id", 0)
	has(t, s, "south_vlan_id", 1)
	if v := s.Values()["north_vlan_id"]; v == nil || *v != 0 {
		t.Errorf("the value of north is %v", v)
	}
	a.goes("edge-7")
	if got := w.inFile(path); len(got) != 0 {
		t.Errorf("left %v", got)
	}
}

// TestHalfWrittenFile: a torn file is an error, never "free" and never
// "exhausted"; once it is whole again the service goes on.
func TestHalfWrittenFile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	whole := keyed(100, 110)
	path := a.file("fabric", "n1", whole)
	writeFile(t, path, whole[:len(whole)/2])
	s, _, err := a.Allocate(w.ctx(), northSouth("edge-7", "fabric", "fabric"))
	if err == nil || problem.CodeOf(err) == problem.CodeExhausted || s == nil || s.State != vlan.Rejected {
		t.Fatalf("%+v, %v", s, err)
	}
	writeFile(t, path, whole)
	s, _, err = a.Retry(w.ctx(), of(s))
	if err != nil {
		t.Fatal(err)
	}
	allocated := fileText(t, path)
	writeFile(t, path, allocated[:len(allocated)/2])
	if _, _, err := a.Delete(w.ctx(), of(s), false); err != nil {
		t.Fatal(err)
	}
	stuck, err := a.Wait(w.ctx(), "edge-7", func(s *vlan.Service) bool { return s == nil || s.Attributes[0].Reason != "" })
	if err != nil || stuck == nil || stuck.State != vlan.Deallocating {
		t.Fatalf("%+v, %v", stuck, err)
	}
	has(t, stuck, "north_vlan_id", 100)
	writeFile(t, path, allocated)
	a.becomes("edge-7", vlan.Gone)
	if got := w.inFile(path); len(got) != 0 {
		t.Errorf("left %v", got)
	}
}
