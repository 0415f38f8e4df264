package vlan_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/vlan"
)

// TestTwoNodesRaceOnEveryTransition: both ask for the same change at once; it is
// made once, and both are answered.
func TestTwoNodesRaceOnEveryTransition(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.inventory("fabric", "100-110")
	a.file("outside", "n1", keyed(100, 200))
	if err := b.engine.Sync(w.ctx()); err != nil {
		t.Fatal(err)
	}
	now := func() vlan.Change {
		s, err := a.Get(w.ctx(), "edge-7")
		if err != nil {
			t.Fatal(err)
		}
		return of(s)
	}
	settled := func(state vlan.State) func() { return func() { a.becomes("edge-7", state) } }
	var c vlan.Change
	for _, step := range []struct {
		name  string
		f     func(n *agent) (*vlan.Service, bool, error)
		after func()
	}{
		{"create", func(n *agent) (*vlan.Service, bool, error) {
			return n.Allocate(w.ctx(), northSouth("edge-7", "fabric", "outside"))
		}, settled(vlan.Allocated)},
		{"fail", func(n *agent) (*vlan.Service, bool, error) { return n.Fail(w.ctx(), c, "no") }, settled(vlan.Failed)},
		{"delete failed", func(n *agent) (*vlan.Service, bool, error) { return n.Delete(w.ctx(), c, false) }, settled(vlan.Gone)},
		{"create again", func(n *agent) (*vlan.Service, bool, error) {
			return n.Allocate(w.ctx(), northSouth("edge-7", "fabric", "outside"))
		}, settled(vlan.Allocated)},
		{"begin", func(n *agent) (*vlan.Service, bool, error) { return n.Begin(w.ctx(), c) }, settled(vlan.Provisioning)},
		{"confirm", func(n *agent) (*vlan.Service, bool, error) { return n.Confirm(w.ctx(), c) }, settled(vlan.Up)},
		{"patch", func(n *agent) (*vlan.Service, bool, error) {
			return n.Patch(w.ctx(), c, vlan.Patch{Set: []vlan.Want{{Name: "x", Inventory: "fabric"}}})
		}, settled(vlan.Up)},
		{"delete", func(n *agent) (*vlan.Service, bool, error) { return n.Delete(w.ctx(), c, true) }, settled(vlan.Deallocating)},
		{"removed", func(n *agent) (*vlan.Service, bool, error) { return n.Removed(w.ctx(), c) }, settled(vlan.Gone)},
	} {
		var mu sync.Mutex
		changes := 0
		var wg sync.WaitGroup
		for _, n := range []*agent{a, b, a, b} {
			wg.Go(func() {
				_, changed, err := step.f(n)
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					t.Errorf("%s on %s: %v", step.name, n.engine.Node(), err)
				}
				if changed {
					changes++
				}
			})
		}
		wg.Wait()
		if changes != 1 {
			t.Errorf("%s was made %d times", step.name, changes)
		}
		step.after()
		if step.name != "delete failed" && step.name != "removed" {
			c = now()
		}
	}
}

// TestRandomRaces lets two nodes do whatever they like with few services and few
// VLANs; every answer is one that the life of a service allows, and in the end
// nothing is left.
func TestRandomRaces(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.inventory("fabric", "100-104")
	path := a.file("outside", "n1", keyed(100, 104))
	if err := b.engine.Sync(w.ctx()); err != nil {
		t.Fatal(err)
	}
	allowed := []error{
		problem.ErrExhausted, problem.ErrKeyConflict, problem.ErrKeyEnded, problem.ErrNotFound, problem.ErrNotHeld, problem.ErrPrecondition,
		problem.ErrCompensated, problem.ErrInvalid,
	}
	var wg sync.WaitGroup
	for i := range 6 {
		n := []*agent{a, b}[i%2]
		rnd := rand.New(rand.NewPCG(7, uint64(i)))
		wg.Go(func() {
			for range 25 {
				err := n.anything(rnd, fmt.Sprint("edge-", rnd.IntN(3)))
				if err != nil && mayHave(err, allowed...) != nil {
					t.Errorf("on %s: %v", n.engine.Node(), err)
				}
			}
		})
	}
	wg.Wait()
	for i := range 3 {
		name := fmt.Sprint("edge-", i)
		if _, _, err := a.Delete(w.ctx(), vlan.Change{Name: name, By: tenant}, false); mayHave(err, problem.ErrPrecondition) != nil {
			t.Fatal(err)
		}
		if s, err := a.Get(w.ctx(), name); err == nil {
			_, _, _ = a.Removed(w.ctx(), of(s))
		}
		a.becomes(name, vlan.Gone)
	}
	if got := w.inFile(path); len(got) != 0 {
		t.Errorf("left %v", got)
	}
	for id := uint32(100); id < 105; id++ {
		if c := w.claim("fabric", id); c != nil && c.State != leases.Quarantined {
			t.Errorf("VLAN %d: %+v", id, c)
		}
	}
}

// anything does one random thing to a service.
func (a *agent) anything(rnd *rand.Rand, name string) error {
	ctx := a.w.ctx()
	s, err := a.Get(ctx, name)
	if err != nil && !errors.Is(err, problem.ErrNotFound) {
		return err
	}
	c := vlan.Change{Name: name, Token: "none", By: tenant}
	if s != nil {
		c = of(s)
	}
	wait := func(r *vlan.Request) { r.Wait = 100 * time.Millisecond }
	switch rnd.IntN(9) {
	case 0, 1:
		_, _, err = a.Allocate(ctx, northSouth(name, "fabric", "outside", wait))
	case 2:
		_, _, err = a.Begin(ctx, c)
	case 3:
		_, _, err = a.Confirm(ctx, c)
	case 4:
		_, _, err = a.Fail(ctx, c, "no")
	case 5:
		_, _, err = a.Retry(ctx, c)
	case 6:
		_, _, err = a.Patch(ctx, c, vlan.Patch{Set: []vlan.Want{{Name: "x", Inventory: "fabric"}}})
	case 7:
		_, _, err = a.Patch(ctx, c, vlan.Patch{Drop: []string{"x"}})
	default:
		_, _, err = a.Delete(ctx, c, rnd.IntN(2) == 0)
	}
	return err
}

// TestPausedWorker: the worker is paused between the file and the record until
// its session is gone. It comes back in a session of its own, finds its lock gone,
// and there is one VLAN in the end.
func TestPausedWorker(t *testing.T) {
	t.Parallel()
	for _, file := range []string{keyed(100, 110), unkeyed} {
		w := newWorld(t)
		a := w.node("n1")
		path := a.file("outside", "n1", file)
		reached, resume := a.stopAt("outside:allocate:after")
		done := make(chan error, 1)
		go func() {
			_, _, err := a.Allocate(w.ctx(), vlan.Request{Name: "edge-7", By: tenant, Attributes: []vlan.Want{{Name: "x", Inventory: "outside"}}})
			done <- err
		}()
		w.await("the pause", reached)
		a.expire()
		resume()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		has(t, a.becomes("edge-7", vlan.Allocated), "x", 100)
		if got := w.inFile(path); len(got) != 1 {
			t.Errorf("the file has %v", got)
		}
	}
}
