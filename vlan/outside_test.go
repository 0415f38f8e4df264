package vlan_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/vlan"
)

func setOf(t *testing.T, ids string) idset.Set {
	t.Helper()
	s, err := idset.Parse(ids)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestWaitsForANodeThatIsNotThere: the request is answered as it stands, says
// who is waited for, takes no retry meanwhile, and goes on when the node comes.
func TestWaitsForANodeThatIsNotThere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.inventory("fabric", "100-110")
	path := a.file("outside", "n2", keyed(100, 200))
	brief := func(r *vlan.Request) { r.Wait = 50 * time.Millisecond }
	s, changed, err := a.Allocate(w.ctx(), northSouth("edge-7", "fabric", "outside", brief))
	if err != nil || !changed || s.State != vlan.Allocating {
		t.Fatalf("%+v, %v, %v", s, changed, err)
	}
	if waits := a.WaitsFor(s); len(waits) != 1 || waits[0].Node != "n2" || !strings.Contains(waits[0].Why, "not up") {
		t.Errorf("%+v", waits)
	}
	if found, err := a.Findings(w.ctx()); err != nil || len(found) != 1 || found[0].Kind != vlan.FindWaiting || found[0].Attribute != "south_vlan_id" {
		t.Errorf("%+v, %v", found, err)
	}
	_, _, err = a.Retry(w.ctx(), of(s))
	mustErr(t, err, problem.ErrPrecondition, "allocating")
	_, _, err = a.Confirm(w.ctx(), of(s))
	mustErr(t, err, problem.ErrPrecondition, "allocating")
	if s, changed, err = a.Allocate(w.ctx(), northSouth("edge-7", "fabric", "outside", brief)); err != nil || changed || s.State != vlan.Allocating {
		t.Fatalf("again: %+v, %v, %v", s, changed, err)
	}
	a.create(northSouth("edge-8", "fabric", "fabric"))
	if s, _, err := a.Allocate(w.ctx(), northSouth("edge-9", "fabric", "outside", brief)); err != nil || s.State != vlan.Allocating {
		t.Fatal(err)
	}
	a.goes("edge-9") // nobody has begun: gone at once
	w.node("n2")
	if s = a.becomes("edge-7", vlan.Allocated); s.Hold == nil || s.Hold.Node != "n2" {
		t.Errorf("%+v", s)
	}
	if got := w.inFile(path); len(got) != 1 {
		t.Errorf("the file has %v", got)
	}
}

// TestTwoKeepers: north and south are files of two nodes, each of which does its
// part; one is killed and comes back.
func TestTwoKeepers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b, c := w.node("n1"), w.node("n2"), w.node("n3")
	north, south := c.file("north", "n1", keyed(100, 200)), c.file("south", "n2", keyed(100, 200))
	s := c.create(northSouth("edge-7", "north", "south"))
	has(t, s, "north_vlan_id", 100)
	has(t, s, "south_vlan_id", 100)
	a.kill()
	if _, _, err := c.Delete(w.ctx(), of(s), false); err != nil {
		t.Fatal(err)
	}
	half, err := c.Wait(w.ctx(), "edge-7", func(s *vlan.Service) bool { return s == nil || s.Attributes[1].VID == nil })
	if err != nil || half == nil || half.State != vlan.Deallocating {
		t.Fatalf("%+v, %v", half, err)
	}
	has(t, half, "north_vlan_id", 100)
	if len(w.inFile(north)) != 1 || len(w.inFile(south)) != 0 {
		t.Errorf("the files have %v, %v", w.inFile(north), w.inFile(south))
	}
	if found, err := b.Findings(w.ctx()); err != nil || len(found) != 1 || found[0].Kind != vlan.FindWaiting {
		t.Errorf("%+v, %v", found, err)
	}
	a.again()
	c.becomes("edge-7", vlan.Gone)
	if len(w.inFile(north)) != 0 {
		t.Errorf("left %v", w.inFile(north))
	}
}

// unkeyed is a pool file without allocation keys.
const unkeyed = `{"version": 0, "range": {"from": 100, "to": 110}, "used": []}`

// TestWithoutKeysNothingIsGuessed: what cannot be told is unknown, is never
// released, is listed, and waits for an operator's word.
func TestWithoutKeysNothingIsGuessed(t *testing.T) {
	t.Parallel()
	for point, left := range map[string]int{"outside:allocate:after": 1, "service:intent:after": 0, "service:releasing:after": 1} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := w.node("n1")
			a.inventory("fabric", "300-310")
			path := a.file("outside", "n1", unkeyed)
			died := a.dieAt(point)
			go func() {
				s, _, err := a.Allocate(w.ctx(), northSouth("edge-7", "fabric", "outside"))
				if err == nil {
					_, _, _ = a.Delete(w.ctx(), of(s), false)
				}
			}()
			w.await("the death", died)
			b := a.again()
			s, err := b.Wait(w.ctx(), "edge-7", func(s *vlan.Service) bool { return s == nil || s.Attributes[1].Step == vlan.StepUnknown })
			if err != nil || s == nil {
				t.Fatalf("%+v, %v", s, err)
			}
			if got := w.inFile(path); len(got) != left {
				t.Errorf("the file has %v", got)
			}
			if _, _, err := b.Retry(w.ctx(), of(s)); err == nil {
				t.Error("a retry while the outcome is unknown")
			}
			found, err := b.Findings(w.ctx())
			if err != nil || len(found) != 1 || found[0].Kind != vlan.FindUnknown || found[0].Attribute != "south_vlan_id" {
				t.Errorf("%+v, %v", found, err)
			}
			if _, _, err := b.Delete(w.ctx(), of(s), false); err != nil {
				t.Fatal(err)
			}
			b.becomes("edge-7", vlan.Deallocating)
			_, _, err = b.Settled(w.ctx(), of(s), "south_vlan_id")
			mustErr(t, err, problem.ErrForbidden)
			_, _, err = b.Settled(w.ctx(), of(s, root), "west")
			mustErr(t, err, problem.ErrNotFound)
			if gone, changed, err := b.Settled(w.ctx(), of(s, root), "south_vlan_id"); err != nil || !changed || gone != nil {
				t.Fatalf("%+v, %v, %v", gone, changed, err)
			}
			if got := w.inFile(path); len(got) != left {
				t.Errorf("the file has %v: an unknown is never released", got)
			}
		})
	}
}

// TestWithoutKeysReadBack: after a crash behind the release, reading back tells.
func TestWithoutKeysReadBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.inventory("fabric", "300-310")
	path := a.file("outside", "n1", unkeyed)
	s := a.create(northSouth("edge-7", "fabric", "outside"))
	has(t, s, "south_vlan_id", 100)
	died := a.dieAt("outside:release:after")
	if _, _, err := a.Delete(w.ctx(), of(s), false); err != nil {
		t.Fatal(err)
	}
	w.await("the death", died)
	a.again().becomes("edge-7", vlan.Gone)
	if got := w.inFile(path); len(got) != 0 {
		t.Errorf("left %v", got)
	}
}

// TestDeallocate gives single VLANs back, and refuses what is not the caller's.
func TestDeallocate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.inventory("fabric", "100-110")
	path := a.file("outside", "n1", `{"version": 0, "range": {"from": 100, "to": 110}, "used": [], "allocations": {"somebody": 104}}`)
	grant := func(key string) *leases.Grant {
		g, err := a.engine.Grant(w.ctx(), leases.GrantRequest{Caller: tenant.Caller, Key: key, Wants: []leases.Want{{Pool: leases.VLANPool("fabric"), Count: 1}}})
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	one, two := grant("single"), grant("job")
	do := func(n *agent, d vlan.Deallocation) (bool, error) { return n.Deallocate(w.ctx(), d) }
	_, err := do(a, vlan.Deallocation{Inventory: "fabric", VID: vid(100), By: other})
	mustErr(t, err, problem.ErrForbidden, "unix:7")
	_, err = do(a, vlan.Deallocation{Inventory: "fabric", By: tenant})
	mustErr(t, err, problem.ErrInvalid)
	_, err = do(a, vlan.Deallocation{Inventory: "nothing", VID: vid(100), By: tenant})
	mustErr(t, err, problem.ErrNotFound)
	for name, d := range map[string]vlan.Deallocation{
		"by number":         {Inventory: "fabric", VID: &one.Held[0].ID, By: tenant},
		"by key":            {Inventory: "fabric", Key: "job", By: tenant},
		"of a file, by key": {Inventory: "outside", Key: "somebody", By: tenant},
	} {
		if changed, err := do(a, d); err != nil || !changed {
			t.Errorf("%s: %v, %v", name, changed, err)
		}
		if changed, err := do(a, d); err != nil || changed {
			t.Errorf("%s, again: %v, %v", name, changed, err)
		}
	}
	if got := w.inFile(path); len(got) != 0 || w.claim("fabric", two.Held[0].ID) != nil {
		t.Errorf("left %v", got)
	}
	_, err = do(b, vlan.Deallocation{Inventory: "outside", VID: vid(104), Key: "somebody", By: tenant})
	mustErr(t, err, problem.ErrUnavailable, "n1")
	_, err = do(a, vlan.Deallocation{Inventory: "outside", VID: vid(104), By: tenant})
	mustErr(t, err, problem.ErrForbidden)
	s := a.create(northSouth("edge-7", "fabric", "outside"))
	_, err = do(a, vlan.Deallocation{Inventory: "outside", Key: s.Attributes[1].Key, By: tenant})
	mustErr(t, err, problem.ErrHeld, "edge-7")
}

// TestFindings: claims and services that do not fit together, and a record that
// nobody can read, which stops nothing else.
func TestFindings(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.inventory("fabric", "100-110")
	a.create(northSouth("orphaned", "fabric", "fabric"))
	a.create(northSouth("robbed", "fabric", "fabric"))
	raw := w.client.Txn()
	for _, op := range []clientv3.Op{
		clientv3.OpDelete(w.keys.Service("orphaned")),
		clientv3.OpDelete(w.keys.Claim(cluster.VLANSpace("fabric"), 102)),
		clientv3.OpPut(w.keys.Service("torn"), `{"v":1,"name":"torn"`),
		clientv3.OpPut(w.keys.Service("newer"), `{"v":2}`),
	} {
		if _, err := raw.Do(w.ctx(), op); err != nil {
			t.Fatal(err)
		}
	}
	found, err := a.Findings(w.ctx())
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, f := range found {
		kinds = append(kinds, f.Service+" "+f.Kind)
	}
	if want := []string{"newer unreadable", "orphaned orphan", "orphaned orphan", "robbed lost", "torn unreadable"}; !slices.Equal(kinds, want) {
		t.Errorf("%q, want %q", kinds, want)
	}
	_, err = a.Get(w.ctx(), "torn")
	mustErr(t, err, problem.ErrInvalid, "torn")
	_, _, err = a.Delete(w.ctx(), vlan.Change{Name: "torn", By: tenant}, false)
	mustErr(t, err, problem.ErrInvalid, "torn")
	if s := a.create(northSouth("edge-7", "fabric", "fabric")); s.State != vlan.Allocated {
		t.Error("an unreadable record stops others")
	}
	a.goes("robbed") // what is gone already is done
	for _, key := range []string{w.keys.Claim(cluster.VLANSpace("fabric"), 100), w.keys.Claim(cluster.VLANSpace("fabric"), 101)} {
		if _, err := raw.Delete(w.ctx(), key); err != nil {
			t.Fatal(err)
		}
	}
}
