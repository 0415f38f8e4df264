package vlan_test

import (
	"context"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/vlan"
)

type slowRelease struct {
	vlan.Inventory
	once  sync.Once
	there chan struct{}
	go_   chan struct{}
}

func (s *slowRelease) Release(ctx context.Context, vid uint32, key string) error {
	s.once.Do(func() { close(s.there); <-s.go_ })
	return s.Inventory.Release(ctx, vid, key)
}

// deallocateOutside looks, and releases later: a service that adopts the key
// meanwhile loses its VLAN.
func TestRegressionDeallocateRace(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var sl *slowRelease
	a := w.node("n1", func(o *vlan.Options) {
		o.Open = func(inventory string, def leases.Outside) (vlan.Inventory, error) {
			f, err := vlan.NewFileInventory(def.File, vlan.FileOptions{Name: inventory})
			sl = &slowRelease{Inventory: f, there: make(chan struct{}), go_: make(chan struct{})}
			return sl, err
		}
	})
	path := a.file("outside", "n1", `{"version":0,"range":{"from":100,"to":110},"allocations":{"edge-7/x":100}}`)
	_, _ = a.Deallocate(w.ctx(), vlan.Deallocation{Inventory: "outside", Key: "nothing", By: root}) // opens
	done := make(chan struct{})
	go func() {
		defer close(done)
		changed, err := a.Deallocate(w.ctx(), vlan.Deallocation{Inventory: "outside", Key: "edge-7/x", By: root})
		t.Logf("deallocate: %v %v", changed, err)
	}()
	w.await("release", sl.there)
	s := a.create(one("edge-7", "outside"))
	close(sl.go_)
	<-done
	s2 := a.create(one("edge-8", "outside"))
	if *s.Attributes[0].VID == *s2.Attributes[0].VID {
		t.Errorf("edge-7 and edge-8 both hold %d: %v", *s.Attributes[0].VID, w.inFile(path))
	}
}

// lock kept by n1 after an error in a step; inventory moved to n2.
func TestRegressionFileLockKeptAfterMove(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	path := a.file("outside", "n1", keyed(100, 110))
	s := a.create(one("edge-7", "outside"))
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	_, _, _ = a.Delete(w.ctx(), of(s), false)
	if _, err := a.Wait(w.ctx(), "edge-7", func(s *vlan.Service) bool { return s != nil && s.Attributes[0].Reason != "" }); err != nil {
		t.Fatal(err)
	}
	b.define("outside", func(p *leases.Pool) { o := *p.Outside; o.On = "n2"; p.Outside = &o })
	if err := a.engine.Sync(w.ctx()); err != nil {
		t.Fatal(err)
	}
	dd, _ := a.engine.Document(w.ctx(), "edge-7")
	pi, _ := a.engine.Pool(leases.VLANPool("outside"))
	t.Logf("lock %q on %s: %s", dd.Lock, pi.Outside.On, dd.Raw)
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 12*time.Second)
	defer cancel()
	if _, err := b.Wait(ctx, "edge-7", func(s *vlan.Service) bool { return s == nil }); err != nil {
		d, _ := b.engine.Document(w.ctx(), "edge-7")
		t.Errorf("stuck, lock %q", d.Lock)
	}
}

// patch: VID speaks of the first of Set, all re-homed, tied, in another order.
func TestRegressionPatchNamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.inventory("f1", "100-110")
	a.inventory("f2", "1-4094")
	off := int64(-1)
	s := a.create(northSouth("edge-7", "f1", "f1"))
	s, _, err := a.Confirm(w.ctx(), of(s))
	if err != nil {
		t.Fatal(err)
	}
	// south is to be 1, so north (offset -1 per place) is 2
	vid := uint32(1)
	p := vlan.Patch{Set: []vlan.Want{{Name: "south_vlan_id", Inventory: "f2"}, {Name: "north_vlan_id", Inventory: "f2"}}}
	p.VID, p.Offset = &vid, &off
	s, _, err = a.Patch(w.ctx(), of(s), p)
	if err != nil {
		t.Errorf("refused: %v", err)
		return
	}
	has(t, s, "south_vlan_id", 1)
	has(t, s, "north_vlan_id", 2)
}
