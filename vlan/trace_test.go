package vlan_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/vlan"
)

// TestTrace21RetryRacesCompensation: while south is being given back nothing is
// asked for; afterwards the retry gets all anew. No VLAN is freed and kept.
func TestTrace21RetryRacesCompensation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	path := a.file("fabric", "n1", keyed(100, 110))
	s := a.create(northSouth("edge-7", "fabric", "fabric"))
	reached, resume := a.stopAt("outside:release:after")
	if _, _, err := a.Fail(w.ctx(), of(s), "the switch said no"); err != nil {
		t.Fatal(err)
	}
	w.await("the release", reached)
	_, _, err := a.Retry(w.ctx(), of(s))
	mustErr(t, err, problem.ErrPrecondition, "deallocating")
	_, _, err = a.Confirm(w.ctx(), of(s))
	mustErr(t, err, problem.ErrCompensated, "the switch said no")
	resume()
	failed := a.becomes("edge-7", vlan.Failed)
	again, _, err := a.Retry(w.ctx(), of(failed))
	if err != nil || again.State != vlan.Allocated {
		t.Fatalf("%+v, %v", again, err)
	}
	if got := w.inFile(path); len(got) != 2 {
		t.Errorf("the file has %v", got)
	}
	a.goes("edge-7")
}

// TestTrace21DeleteDuringAllocating: north is being allocated; the delete only
// leaves its mark, and whoever works gives back what it got.
func TestTrace21DeleteDuringAllocating(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		point string
		last  bool // the attribute is the last to be got
	}{{"service:intent:after", false}, {"outside:allocate:after", false}, {"service:got:before", false}, {"outside:allocate:after", true}, {"service:got:before", true}} {
		t.Run(fmt.Sprint(c.point, " last ", c.last), func(t *testing.T) {
			t.Parallel()
			point := c.point
			r := northSouth("edge-7", "fabric", "fabric")
			if c.last {
				r.Attributes = r.Attributes[:1]
			}
			w := newWorld(t)
			a, b := w.node("n1"), w.node("n2")
			path := a.file("fabric", "n1", keyed(100, 110))
			reached, resume := a.stopAt(point)
			answer := make(chan error, 1)
			go func() {
				_, _, err := b.Allocate(w.ctx(), r)
				answer <- err
			}()
			w.await(point, reached)
			s, changed, err := b.Delete(w.ctx(), vlan.Change{Name: "edge-7", By: tenant}, false)
			if err != nil || !changed || s == nil || !s.Delete {
				t.Fatalf("delete: %+v, %v, %v", s, changed, err)
			}
			if _, changed, err := b.Delete(w.ctx(), vlan.Change{Name: "edge-7", By: tenant}, false); err != nil || changed {
				t.Fatalf("delete twice: %v, %v", changed, err)
			}
			resume()
			b.becomes("edge-7", vlan.Gone)
			mustErr(t, <-answer, problem.ErrKeyEnded, "deleted")
			if got := w.inFile(path); len(got) != 0 {
				t.Errorf("left %v", got)
			}
		})
	}
}

// TestTrace21DeleteDuringAllocatingWorkerDies: as before, and the worker is killed;
// started again it asks by key and gives back what it finds.
func TestTrace21DeleteDuringAllocatingWorkerDies(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	path := a.file("fabric", "n1", keyed(100, 110))
	reached, _ := a.stopAt("outside:allocate:after")
	go func() { _, _, _ = b.Allocate(w.ctx(), northSouth("edge-7", "fabric", "fabric")) }()
	w.await("the allocation", reached)
	if _, _, err := b.Delete(w.ctx(), vlan.Change{Name: "edge-7", By: tenant}, false); err != nil {
		t.Fatal(err)
	}
	a.kill()
	if got := w.inFile(path); len(got) != 1 {
		t.Fatalf("the file has %v", got)
	}
	a.again()
	b.becomes("edge-7", vlan.Gone)
	if got := w.inFile(path); len(got) != 0 {
		t.Errorf("left %v", got)
	}
}

// TestTrace21TwoDeallocators: two nodes delete the service, and deallocate a
// VLAN, again and again; it is given back once.
func TestTrace21TwoDeallocators(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.inventory("fabric", "100-110", func(p *leases.Pool) { p.Cooldown = time.Hour })
	if err := b.engine.Sync(w.ctx()); err != nil {
		t.Fatal(err)
	}
	a.create(northSouth("edge-7", "fabric", "fabric"))
	g, err := a.engine.Grant(w.ctx(), leases.GrantRequest{Caller: tenant.Caller, Key: "job", Wants: []leases.Want{{Pool: leases.VLANPool("fabric"), Count: 1}}})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	deleted, freed := 0, 0
	var wg sync.WaitGroup
	for _, n := range []*agent{a, b, a, b} {
		wg.Go(func() {
			_, changed, err := n.Delete(w.ctx(), vlan.Change{Name: "edge-7", By: tenant}, false)
			did, err2 := n.Deallocate(w.ctx(), vlan.Deallocation{Inventory: "fabric", VID: &g.Held[0].ID, Token: g.Token, By: tenant})
			mu.Lock()
			defer mu.Unlock()
			if err != nil || err2 != nil {
				t.Error(err, err2)
			}
			if changed {
				deleted++
			}
			if did {
				freed++
			}
		})
	}
	wg.Wait()
	if deleted != 1 || freed != 1 {
		t.Errorf("deleted %d times, freed %d times", deleted, freed)
	}
	for _, vid := range []uint32{100, 101, g.Held[0].ID} { // a freed VLAN never skips its cooldown
		if c := w.claim("fabric", vid); c == nil || c.State != leases.Quarantined {
			t.Errorf("VLAN %d: %+v", vid, c)
		}
	}
}

// TestTrace21FailByNameAfterRecreation: the first owner's late failure, and every
// other late change, leaves the next service of that name alone.
func TestTrace21FailByNameAfterRecreation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.inventory("fabric", "100-110")
	old := a.create(northSouth("edge-7", "fabric", "fabric"))
	a.goes("edge-7")
	next := a.create(northSouth("edge-7", "fabric", "fabric"))
	for name, f := range map[string]func() (*vlan.Service, bool, error){
		"fail":    func() (*vlan.Service, bool, error) { return a.Fail(w.ctx(), of(old), "late") },
		"begin":   func() (*vlan.Service, bool, error) { return a.Begin(w.ctx(), of(old)) },
		"confirm": func() (*vlan.Service, bool, error) { return a.Confirm(w.ctx(), of(old)) },
		"retry":   func() (*vlan.Service, bool, error) { return a.Retry(w.ctx(), of(old)) },
		"extend":  func() (*vlan.Service, bool, error) { return a.Extend(w.ctx(), of(old), time.Hour) },
		"removed": func() (*vlan.Service, bool, error) { return a.Removed(w.ctx(), of(old)) },
		"patch": func() (*vlan.Service, bool, error) {
			return a.Patch(w.ctx(), of(old), vlan.Patch{Drop: []string{"north_vlan_id"}})
		},
	} {
		if _, changed, err := f(); changed || !errors.Is(err, problem.ErrNotHeld) {
			t.Errorf("%s: %v, %v", name, changed, err)
		}
	}
	if now := a.becomes("edge-7", vlan.Allocated); now.Write != next.Write {
		t.Error("the next service was written to")
	}
	_, _, err := a.Confirm(w.ctx(), vlan.Change{Name: "edge-7", By: tenant})
	mustErr(t, err, problem.ErrPreconditionRequired)
	_, _, err = a.Confirm(w.ctx(), of(next, other))
	mustErr(t, err, problem.ErrForbidden, "unix:7")
	if s, changed, err := a.Confirm(w.ctx(), of(next, root)); err != nil || !changed || s.State != vlan.Up {
		t.Errorf("an operator: %+v, %v, %v", s, changed, err)
	}
}

// TestTrace22HoldLostThoughProvisioningSucceeded: the agent is away for longer
// than the hold while devices are configured. Begun, the VLANs stay: the service
// says that its outcome is unknown, and is confirmed afterwards.
func TestTrace22HoldLostThoughProvisioningSucceeded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.inventory("fabric", "100-101")
	s := a.create(northSouth("edge-7", "fabric", "fabric", short))
	if _, _, err := a.Begin(w.ctx(), of(s)); err != nil {
		t.Fatal(err)
	}
	a.kill()
	marked, err := b.Wait(w.ctx(), "edge-7", func(s *vlan.Service) bool { return s == nil || s.ReasonCode == vlan.ReasonOutcomeUnknown })
	if err != nil || marked == nil || marked.State != vlan.Provisioning {
		t.Fatalf("%+v, %v", marked, err)
	}
	_, _, err = b.Allocate(w.ctx(), northSouth("edge-8", "fabric", "fabric", func(r *vlan.Request) { r.By = other }))
	mustErr(t, err, problem.ErrExhausted)
	found, err := b.Findings(w.ctx())
	if err != nil || len(found) != 1 || found[0].Kind != vlan.FindOverdue {
		t.Fatalf("%+v, %v", found, err)
	}
	up, _, err := b.Confirm(w.ctx(), of(s))
	if err != nil || up.State != vlan.Up || up.ReasonCode != "" {
		t.Fatalf("%+v, %v", up, err)
	}
	has(t, up, "north_vlan_id", 100)
}

// TestTrace22HoldLostBeforeProvisioning: not begun, the VLANs are given back, once,
// and the late confirm is told so.
func TestTrace22HoldLostBeforeProvisioning(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.inventory("fabric", "100-101", func(p *leases.Pool) { p.Cooldown = time.Hour })
	s := a.create(northSouth("edge-7", "fabric", "fabric", short))
	a.kill()
	failed := b.becomes("edge-7", vlan.Failed)
	if failed.ReasonCode != vlan.ReasonHoldLost {
		t.Fatalf("%+v", failed)
	}
	if c := w.claim("fabric", 100); c == nil || c.State != leases.Quarantined {
		t.Errorf("a VLAN freed by compensation never skips its cooldown: %+v", c)
	}
	_, _, err := b.Confirm(w.ctx(), of(s))
	mustErr(t, err, problem.ErrCompensated)
	_, _, err = b.Begin(w.ctx(), of(s))
	mustErr(t, err, problem.ErrCompensated)
	if _, changed, err := b.Fail(w.ctx(), of(s), "late"); err != nil || changed {
		t.Errorf("a late failure: %v, %v", changed, err)
	}
}

// TestConfirmBeatsTheEndOfTheHold: the node has decided to give the VLANs back
// and has not written it; the confirm that comes first stands.
func TestConfirmBeatsTheEndOfTheHold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.inventory("fabric", "100-101")
	reached, resume := a.stopAt("service:hold-lost:before")
	s := a.create(northSouth("edge-7", "fabric", "fabric", short))
	w.await("the end of the hold", reached)
	if _, changed, err := a.Extend(w.ctx(), of(s), time.Hour); err != nil || !changed {
		t.Fatalf("%v, %v", changed, err)
	}
	resume()
	a.inventory("other", "300-301")
	a.create(northSouth("edge-8", "other", "other", short))
	a.becomes("edge-8", vlan.Failed) // a hold later; what was decided on edge-7 is over
	if up, _, err := a.Confirm(w.ctx(), of(s)); err != nil || up.State != vlan.Up {
		t.Fatalf("%+v, %v", up, err)
	}
}

func short(r *vlan.Request) { r.ConfirmWithin = time.Second }

// TestHoldOfThisNode: the node that allocated ends the hold: by time, and with
// the process.
func TestHoldOfThisNode(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.inventory("fabric", "100-110")
	a.file("outside", "n1", keyed(100, 110))
	a.create(northSouth("by-time", "fabric", "outside", short))
	process := a.m.born(4711)
	a.create(northSouth("by-process", "fabric", "outside", short, func(r *vlan.Request) { r.Hold = process }))
	if s := a.becomes("by-time", vlan.Failed); s.ReasonCode != vlan.ReasonHoldLost {
		t.Fatalf("%+v", s)
	}
	a.becomes("by-process", vlan.Allocated)
	a.m.die(4711)
	if s := a.becomes("by-process", vlan.Failed); s.ReasonCode != vlan.ReasonHoldLost {
		t.Fatalf("%+v", s)
	}
}

// TestExtend lets a hold end later.
func TestExtend(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.inventory("fabric", "100-110")
	s := a.create(northSouth("edge-7", "fabric", "fabric", short))
	longer, changed, err := a.Extend(w.ctx(), of(s), time.Hour)
	if err != nil || !changed || longer.Hold.Requester.Deadline <= s.Hold.Requester.Deadline {
		t.Fatalf("%+v, %v, %v", longer, changed, err)
	}
	a.create(northSouth("edge-8", "fabric", "fabric", short))
	a.becomes("edge-8", vlan.Failed) // later than edge-7 would have
	a.becomes("edge-7", vlan.Allocated)
}

// TestExec: success is up; an error and a panic give everything back and are
// passed on; a service that is taken away cancels the function.
func TestExec(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.inventory("fabric", "100-110")
	boom := errors.New("boom")
	run := func(name string, fn func(context.Context, *vlan.Service) error) error {
		return a.Exec(w.ctx(), northSouth(name, "fabric", "fabric"), fn)
	}
	if err := run("good", func(_ context.Context, s *vlan.Service) error { has(t, s, "north_vlan_id", 100); return nil }); err != nil {
		t.Fatal(err)
	}
	a.becomes("good", vlan.Up)
	if err := run("good", func(context.Context, *vlan.Service) error { return boom }); err != nil {
		t.Fatalf("what is up is not configured again: %v", err)
	}
	mustErr(t, run("bad", func(context.Context, *vlan.Service) error { return boom }), boom)
	if s := a.becomes("bad", vlan.Failed); s.Reason != "boom" {
		t.Errorf("%+v", s)
	}
	func() {
		defer func() {
			if recover() != "panic" {
				t.Error("the panic is passed on")
			}
		}()
		_ = run("worse", func(context.Context, *vlan.Service) error { panic("panic") })
	}()
	a.becomes("worse", vlan.Failed)
	err := run("taken", func(ctx context.Context, s *vlan.Service) error {
		if _, _, err := a.Delete(w.ctx(), of(s), false); err != nil {
			return err
		}
		<-ctx.Done()
		return context.Cause(ctx)
	})
	mustErr(t, err, problem.ErrLockLost)
	a.becomes("taken", vlan.Gone)
}

// TestExecOfAProcess: the process of the hold dies in the middle.
func TestExecOfAProcess(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var m *machine
	a := w.node("n1", func(o *vlan.Options) { o.Self = func() (leases.Requester, error) { return *m.born(7), nil } })
	m = a.m
	a.inventory("fabric", "100-110")
	err := a.Exec(w.ctx(), northSouth("edge-7", "fabric", "fabric"), func(ctx context.Context, _ *vlan.Service) error {
		a.m.die(7)
		<-ctx.Done()
		return context.Cause(ctx)
	})
	mustErr(t, err, problem.ErrLockLost)
	if s := a.becomes("edge-7", vlan.Failed); s.ReasonCode != vlan.ReasonHoldLost {
		t.Errorf("%+v", s)
	}
}
