package vlan_test

import (
	"errors"
	"sync"
	"testing"

	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/vlan"
)

// TestOneKeyIsOneAttributes: to an outside inventory an allocation key names one
// VLAN, so two services must not share one, however close together they come.
func TestOneKeyIsOneAttributes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.inventory("fabric", "100-110")
	path := a.file("outside", "n1", keyed(100, 200))
	shared := func(r *vlan.Request) { r.Attributes[1].Key = "shared" }
	errs := make([]error, 4)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			_, _, errs[i] = a.Allocate(w.ctx(), northSouth("edge-"+string(rune('a'+i)), "fabric", "outside", shared))
		})
	}
	wg.Wait()
	got := 0
	for _, err := range errs {
		if err == nil {
			got++
		} else if !errors.Is(err, problem.ErrKeyConflict) {
			t.Errorf("%v", err)
		}
	}
	if left := w.inFile(path); got > 1 || len(left) != got {
		t.Fatalf("%d services have the VLAN of one key: %v", got, left)
	}
	// And one after the other.
	a.create(northSouth("first", "fabric", "outside", func(r *vlan.Request) { r.Attributes[1].Key = "other" }))
	_, _, err := a.Allocate(w.ctx(), northSouth("second", "fabric", "outside", func(r *vlan.Request) { r.Attributes[1].Key = "other" }))
	mustErr(t, err, problem.ErrKeyConflict, "allocation key other of inventory outside is that of service first")
	a.goes("second")
	if left := w.inFile(path); left["other"] == 0 {
		t.Errorf("the second's end took the first's VLAN: %v", left)
	}
}
