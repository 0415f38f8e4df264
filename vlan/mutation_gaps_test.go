package vlan_test

import (
	"errors"
	"testing"

	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/vlan"
)

// The tests of this file hold guards of the protocol that no trace reaches; each is
// named after its rule.

// TestRule25TaskOfAnOlderRecord: what was decided on a record is not done to a later
// one: a confirm beats the end of the hold that was seen before it.
func TestRule25TaskOfAnOlderRecord(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.inventory("fabric", "100-110")
	s := a.create(northSouth("edge-7", "fabric", "fabric"))
	up, _, err := a.Confirm(w.ctx(), of(s))
	if err != nil {
		t.Fatal(err)
	}
	if err := a.EndHold(w.ctx(), s); !errors.Is(err, vlan.ErrOvertaken) {
		t.Errorf("%v", err)
	}
	if now, err := a.Get(w.ctx(), "edge-7"); err != nil || now.State != up.State {
		t.Errorf("%+v, %v", now, err)
	}
}

// TestRule27StepUnderAnothersLock: nobody writes a step while somebody else works on
// the service.
func TestRule27StepUnderAnothersLock(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.file("outside", "n1", keyed(100, 110))
	there, resume := a.stopAt("outside:allocate:after")
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _, _ = a.Allocate(w.ctx(), one("edge-7", "outside"))
	}()
	w.await("an allocation that n1 has not written down", there)
	s, err := b.Get(w.ctx(), "edge-7")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.EndHold(w.ctx(), s); !errors.Is(err, vlan.ErrOvertaken) {
		t.Errorf("%v", err)
	}
	resume()
	<-done
	a.becomes("edge-7", vlan.Allocated)
}

// TestRule26VLANOfAnotherGrant: a VLAN is given back only by the grant that the caller
// names.
func TestRule26VLANOfAnotherGrant(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.inventory("fabric", "100-110")
	g, err := a.engine.Grant(w.ctx(), leases.GrantRequest{Caller: tenant.Caller, Key: "job", Wants: []leases.Want{{Pool: leases.VLANPool("fabric"), Count: 1}}})
	if err != nil {
		t.Fatal(err)
	}
	d := vlan.Deallocation{Inventory: "fabric", VID: &g.Held[0].ID, Token: "an earlier grant's", By: tenant}
	if changed, err := a.Deallocate(w.ctx(), d); err != nil || changed {
		t.Errorf("given back: %v, %v", changed, err)
	}
	if c := w.claim("fabric", g.Held[0].ID); c == nil || c.Token != g.Token {
		t.Errorf("%+v", c)
	}
}

// TestPromise5ServiceOfAnotherNode: what another node has just written is there, and
// what it has just ended is gone.
func TestPromise5ServiceOfAnotherNode(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.inventory("fabric", "100-199")
	for range 60 { // a mirror lags, or does not
		s := a.create(northSouth("edge-7", "fabric", "fabric"))
		if _, _, err := b.Confirm(w.ctx(), of(s)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := a.Delete(w.ctx(), of(s), false); err != nil {
			t.Fatal(err)
		}
		if next := b.create(northSouth("edge-7", "fabric", "fabric")); next.Token == s.Token {
			t.Fatal("answered with a service that is gone")
		}
		b.goes("edge-7")
		if err := a.engine.Sync(w.ctx()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRule27PausedRelease: a release that was paused until its lock was gone does not
// touch what its service's next life was given by another keeper.
func TestRule27PausedRelease(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	path := a.file("outside", "n1", keyed(100, 110))
	s := a.create(one("edge-7", "outside"))
	there, resume := a.stopAt("service:releasing:after")
	if _, _, err := a.Delete(w.ctx(), of(s), false); err != nil {
		t.Fatal(err)
	}
	w.await("a release that is written down", there)
	b.define("outside", func(p *leases.Pool) { o := *p.Outside; o.On = "n2"; p.Outside = &o })
	a.expire()
	b.becomes("edge-7", vlan.Gone)
	b.create(one("edge-7", "outside"))
	ended, on := a.stopAt("outside:release:after")
	resume()
	w.await("the end of the release", ended)
	if got := w.inFile(path); len(got) != 1 {
		t.Errorf("the file has %v", got)
	}
	on()
}
