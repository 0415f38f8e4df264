package vlan_test

import (
	"errors"
	"testing"

	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/vlan"
)

// walks are what the kill tests do, and the fault points on the way.
var walks = map[string]struct {
	points []string
	walk   func(a *agent) error // until the service is gone; repeatable
}{
	"life": {[]string{
		"service:create", "service:intent", "outside:allocate", "service:got", "service:begin", "service:confirm",
		"service:delete", "outside:read", "service:releasing", "outside:release", "service:cleared",
	}, walkLife},
	"etcd alone": {[]string{"service:create", "service:patch", "service:delete"}, walkEtcd},
	"refusal":    {[]string{"service:intent", "service:got", "service:refused", "service:releasing", "outside:release", "service:cleared"}, walkRefusal},
	"rejected":   {[]string{"service:create", "service:rejected", "service:retry", "service:delete"}, walkRejected},
	"failure":    {[]string{"service:fail", "service:cleared", "service:retry", "service:got"}, walkFailure},
	"hold":       {[]string{"service:hold-lost", "service:releasing", "outside:release", "service:cleared"}, walkHold},
	"held ids":   {[]string{"service:delete", "service:removed", "service:cleared"}, walkHeld},
}

// TestKilledAtEveryPoint kills the node that does the work at each of its fault
// points, before and after each write and between an outside call and the next
// write. Started again, and asked the same again, it finishes. The judge finds no
// leak.
func TestKilledAtEveryPoint(t *testing.T) {
	t.Parallel()
	for name, c := range walks {
		for _, point := range c.points {
			for _, at := range []string{point + ":before", point + ":after"} {
				t.Run(name+"/"+at, func(t *testing.T) {
					t.Parallel()
					killedAt(t, at, c.walk)
				})
			}
		}
	}
}

func killedAt(t *testing.T, point string, walk func(*agent) error) {
	w := newWorld(t)
	a := w.node("n1")
	a.inventory("fabric", "100-101")
	a.inventory("empty", "")
	path := a.file("outside", "n1", keyed(0, 2))
	tight := a.file("tight", "n1", keyed(0, 1))
	died := a.dieAt(point)
	ended := make(chan error, 1)
	go func() { ended <- walk(a) }()
	select {
	case <-died:
	case err := <-ended:
		if err != nil {
			t.Fatalf("the walk ended without passing %s: %v", point, err)
		}
		w.await(point, died) // the caller saw the end before it
	case <-w.ctx().Done():
		t.Fatalf("the walk does not come to %s", point)
	}
	b := a.again()
	if err := walk(b); err != nil {
		t.Fatalf("after the death at %s: %v", point, err)
	}
	if got, more := w.inFile(path), w.inFile(tight); len(got) != 0 || len(more) != 0 {
		t.Errorf("left %v %v", got, more)
	}
	if w.claim("fabric", 100) != nil || w.claim("fabric", 101) != nil {
		t.Error("a claim is left")
	}
	if found, err := b.Findings(w.ctx()); err != nil || len(found) != 0 {
		t.Errorf("findings: %+v, %v", found, err)
	}
}

// mayHave is nil for what a repetition may meet, because the first attempt was
// carried out.
func mayHave(err error, are ...error) error {
	for _, e := range are {
		if errors.Is(err, e) {
			return nil
		}
	}
	return err
}

var gone = []error{problem.ErrNotFound, problem.ErrKeyEnded, problem.ErrCompensated, problem.ErrNotHeld}

func (a *agent) finally(name string, want vlan.State) error {
	_, err := a.Wait(a.w.ctx(), name, func(s *vlan.Service) bool {
		return (s == nil && want == vlan.Gone) || (s != nil && s.State == want)
	})
	return err
}

func (a *agent) deleted(name string, hold bool) error {
	if _, _, err := a.Delete(a.w.ctx(), vlan.Change{Name: name, By: tenant}, hold); err != nil {
		return err
	}
	return a.finally(name, vlan.Gone)
}

func walkLife(a *agent) error {
	s, _, err := a.Allocate(a.w.ctx(), northSouth("edge-7", "fabric", "outside"))
	if err != nil {
		return errors.Join(mayHave(err, gone...), a.deleted("edge-7", false))
	}
	if _, _, err := a.Begin(a.w.ctx(), of(s)); err != nil {
		return err
	}
	if _, _, err := a.Confirm(a.w.ctx(), of(s)); err != nil {
		return err
	}
	return a.deleted("edge-7", false)
}

func walkEtcd(a *agent) error {
	s, _, err := a.Allocate(a.w.ctx(), vlan.Request{Name: "edge-7", By: tenant, Attributes: []vlan.Want{{Name: "north_vlan_id", Inventory: "fabric"}}})
	if mayHave(err, problem.ErrKeyConflict) != nil {
		return err
	}
	if err == nil {
		if _, _, err := a.Confirm(a.w.ctx(), of(s)); err != nil {
			return err
		}
		if _, _, err := a.Patch(a.w.ctx(), of(s), vlan.Patch{Set: []vlan.Want{{Name: "south_vlan_id", Inventory: "fabric"}}, Drop: []string{"north_vlan_id"}}); err != nil {
			return err
		}
	}
	return a.deleted("edge-7", false)
}

func walkRefusal(a *agent) error {
	_, _, err := a.Allocate(a.w.ctx(), northSouth("edge-7", "tight", "tight"))
	if mayHave(err, problem.ErrExhausted) != nil || err == nil {
		return errors.Join(errors.New("want a refusal"), err)
	}
	return a.deleted("edge-7", false)
}

func walkRejected(a *agent) error {
	s, _, err := a.Allocate(a.w.ctx(), northSouth("edge-7", "fabric", "empty"))
	if mayHave(err, problem.ErrExhausted) != nil || err == nil {
		return errors.Join(errors.New("want a refusal"), err)
	}
	if _, _, err := a.Retry(a.w.ctx(), of(s)); mayHave(err, problem.ErrExhausted) != nil || err == nil {
		return errors.Join(errors.New("want a refusal"), err)
	}
	return a.deleted("edge-7", false)
}

func walkFailure(a *agent) error {
	s, _, err := a.Allocate(a.w.ctx(), northSouth("edge-7", "fabric", "outside"))
	if mayHave(err, problem.ErrKeyEnded) != nil {
		return err
	}
	if err == nil {
		if _, _, err := a.Fail(a.w.ctx(), of(s), "no"); err != nil {
			return err
		}
	}
	if err := a.finally("edge-7", vlan.Failed); err != nil {
		return err
	}
	if s, err = a.Get(a.w.ctx(), "edge-7"); err != nil {
		return err
	}
	if _, _, err := a.Retry(a.w.ctx(), of(s)); err != nil {
		return err
	}
	return a.deleted("edge-7", false)
}

func walkHold(a *agent) error {
	_, _, err := a.Allocate(a.w.ctx(), northSouth("edge-7", "fabric", "outside", short))
	if mayHave(err, problem.ErrKeyEnded) != nil {
		return err
	}
	if err := a.finally("edge-7", vlan.Failed); err != nil {
		return err
	}
	return a.deleted("edge-7", false)
}

func walkHeld(a *agent) error {
	s, _, err := a.Allocate(a.w.ctx(), northSouth("edge-7", "fabric", "outside"))
	if mayHave(err, problem.ErrKeyEnded) != nil {
		return err
	}
	if err == nil {
		if _, _, err := a.Delete(a.w.ctx(), of(s), true); err != nil {
			return err
		}
	}
	if s, err = a.Get(a.w.ctx(), "edge-7"); err == nil {
		if _, _, err = a.Removed(a.w.ctx(), of(s)); err != nil {
			return err
		}
	}
	if mayHave(err, problem.ErrNotFound) != nil {
		return err
	}
	return a.finally("edge-7", vlan.Gone)
}
