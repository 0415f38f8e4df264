package vlan_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/seam/fault"
	"github.com/idpool/idpool/vlan"
)

// walks are lives of a service, until it is gone; each can be repeated.
var walks = map[string]func(a *agent) error{
	"life": walkLife, "etcd alone": walkEtcd, "refusal": walkRefusal, "rejected": walkRejected, "failure": walkFailure, "hold": walkHold,
	"held ids": walkHeld, "exec": walkExec, "exec that fails": walkExecFails,
}

// walked counts the cases, missed those that did not come to their point.
var walked, missed atomic.Int64

// TestWalk takes the node that does the work through each of the points that it
// passes: a step is refused, its answer is lost, or the node dies before or after it.
// Started again where it died, and asked the same again, it finishes; the judge finds
// no leak. By default the node dies around each step of a service and of an outside
// inventory; all modes of all points take minutes, see make walk.
func TestWalk(t *testing.T) {
	t.Parallel()
	t.Run("of a service", func(t *testing.T) {
		for name, walk := range walks {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				cases := broken(t, nil, walk)
				for _, c := range chosen(cases) {
					t.Run(c.String(), func(t *testing.T) {
						t.Parallel()
						broken(t, &c, walk)
						walked.Add(1)
					})
				}
			})
		}
	})
	t.Logf("walked %d cases of %d lives; %d did not come to their point again", walked.Load(), len(walks), missed.Load())
	if n := walked.Load(); n < 100 || missed.Load() > n/4 {
		t.Errorf("%d cases walked, %d missed: vacuous", n, missed.Load())
	}
}

// chosen are the cases of a default run.
func chosen(all []fault.Case) []fault.Case {
	if fault.Everything() {
		return all
	}
	return slices.DeleteFunc(all, func(c fault.Case) bool {
		kind, _, _ := strings.Cut(c.Point, ":")
		return !c.Mode.Crash() || c.N > 1 || (kind != "service" && kind != "outside")
	})
}

// broken takes a walk through a case, nil for none, in a world of its own; it returns
// the cases of what was passed.
func broken(t *testing.T, c *fault.Case, walk func(*agent) error) []fault.Case {
	w := newWorld(t)
	inj := &fault.Injector{}
	w.inj = inj
	a := w.node("n1")
	a.inventory("fabric", "100-101")
	a.inventory("empty", "")
	path := a.file("outside", "n1", keyed(0, 2))
	tight := a.file("tight", "n1", keyed(0, 1))
	inj.Crash = a.cancel
	inj.Record()
	if c != nil {
		inj.Arm(*c)
	}
	var passed []fault.Case
	err := errors.New("not asked")
	for try := 0; err != nil; try++ {
		if try == 10 {
			t.Fatalf("the walk does not succeed: %v", err)
		}
		err = walk(a)
		if try == 0 {
			passed = inj.Cases()
		}
		dies := try == 0 && c != nil && c.Mode.Crash() && inj.Fired() // perhaps after the caller saw the end
		if !dies && a.life.Err() == nil && a.engine.Session().Err() == nil {
			continue
		}
		<-a.done // dead, or ended by itself
		w.inj = nil
		a.expire()
		a = a.again()
	}
	if c != nil && !inj.Fired() {
		missed.Add(1)
	}
	if got, more := w.inFile(path), w.inFile(tight); len(got) != 0 || len(more) != 0 {
		t.Errorf("left %v %v", got, more)
	}
	if w.claim("fabric", 100) != nil || w.claim("fabric", 101) != nil {
		t.Error("a claim is left")
	}
	if found, err := a.Findings(w.ctx()); err != nil || len(found) != 0 {
		t.Errorf("findings: %+v, %v", found, err)
	}
	return passed
}

func walkExec(a *agent) error {
	err := a.Exec(a.ctx(), northSouth("edge-7", "fabric", "outside"), func(context.Context, *vlan.Service) error { return nil })
	return errors.Join(mayHave(err, gone...), a.deleted("edge-7", false))
}

func walkExecFails(a *agent) error {
	no := errors.New("no")
	err := a.Exec(a.ctx(), northSouth("edge-7", "fabric", "outside"), func(context.Context, *vlan.Service) error { return no })
	return errors.Join(mayHave(err, no, problem.ErrKeyEnded, problem.ErrCompensated, problem.ErrUnavailable), a.deleted("edge-7", false))
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

// finally waits until a service is as wanted, or gone: then nothing else comes, and
// the walk is to begin anew.
func (a *agent) finally(name string, want vlan.State) error {
	s, err := a.Wait(a.ctx(), name, func(s *vlan.Service) bool { return s == nil || s.State == want })
	if err == nil && s == nil && want != vlan.Gone {
		return fmt.Errorf("service %s is gone, not %s", name, want)
	}
	return err
}

func (a *agent) deleted(name string, hold bool) error {
	if _, _, err := a.Delete(a.ctx(), vlan.Change{Name: name, By: tenant}, hold); err != nil {
		return err
	}
	return a.finally(name, vlan.Gone)
}

func walkLife(a *agent) error {
	s, _, err := a.Allocate(a.ctx(), northSouth("edge-7", "fabric", "outside"))
	if err != nil {
		return errors.Join(mayHave(err, gone...), a.deleted("edge-7", false))
	}
	if _, _, err := a.Begin(a.ctx(), of(s)); err != nil {
		return err
	}
	if _, _, err := a.Confirm(a.ctx(), of(s)); err != nil {
		return err
	}
	return a.deleted("edge-7", false)
}

func walkEtcd(a *agent) error {
	s, _, err := a.Allocate(a.ctx(), vlan.Request{Name: "edge-7", By: tenant, Attributes: []vlan.Want{{Name: "north_vlan_id", Inventory: "fabric"}}})
	if mayHave(err, problem.ErrKeyConflict) != nil {
		return err
	}
	if err == nil {
		if _, _, err := a.Confirm(a.ctx(), of(s)); err != nil {
			return err
		}
		if _, _, err := a.Patch(a.ctx(), of(s), vlan.Patch{Set: []vlan.Want{{Name: "south_vlan_id", Inventory: "fabric"}}, Drop: []string{"north_vlan_id"}}); err != nil {
			return err
		}
	}
	return a.deleted("edge-7", false)
}

func walkRefusal(a *agent) error {
	_, _, err := a.Allocate(a.ctx(), northSouth("edge-7", "tight", "tight"))
	if mayHave(err, problem.ErrExhausted, problem.ErrUnavailable) != nil || err == nil {
		return errors.Join(errors.New("want a refusal"), err)
	}
	return a.deleted("edge-7", false)
}

func walkRejected(a *agent) error {
	s, _, err := a.Allocate(a.ctx(), northSouth("edge-7", "fabric", "empty"))
	if mayHave(err, problem.ErrExhausted) != nil || err == nil {
		return errors.Join(errors.New("want a refusal"), err)
	}
	if _, _, err := a.Retry(a.ctx(), of(s)); mayHave(err, problem.ErrExhausted) != nil || err == nil {
		return errors.Join(errors.New("want a refusal"), err)
	}
	return a.deleted("edge-7", false)
}

func walkFailure(a *agent) error {
	s, _, err := a.Allocate(a.ctx(), northSouth("edge-7", "fabric", "outside"))
	if mayHave(err, problem.ErrKeyEnded) != nil {
		return err
	}
	if err == nil {
		if _, _, err := a.Fail(a.ctx(), of(s), "no"); err != nil {
			return err
		}
	}
	if err := a.finally("edge-7", vlan.Failed); err != nil {
		return err
	}
	if s, err = a.Get(a.ctx(), "edge-7"); err != nil {
		return err
	}
	if _, _, err := a.Retry(a.ctx(), of(s)); err != nil {
		return err
	}
	return a.deleted("edge-7", false)
}

func walkHold(a *agent) error {
	_, _, err := a.Allocate(a.ctx(), northSouth("edge-7", "fabric", "outside", short))
	if mayHave(err, problem.ErrKeyEnded) != nil {
		return err
	}
	if err := a.finally("edge-7", vlan.Failed); err != nil {
		return err
	}
	return a.deleted("edge-7", false)
}

func walkHeld(a *agent) error {
	s, _, err := a.Allocate(a.ctx(), northSouth("edge-7", "fabric", "outside"))
	if mayHave(err, problem.ErrKeyEnded) != nil {
		return err
	}
	if err == nil {
		if _, _, err := a.Delete(a.ctx(), of(s), true); err != nil {
			return err
		}
	}
	if s, err = a.Get(a.ctx(), "edge-7"); err == nil {
		if _, _, err = a.Removed(a.ctx(), of(s)); err != nil {
			return err
		}
	}
	if mayHave(err, problem.ErrNotFound) != nil {
		return err
	}
	return a.finally("edge-7", vlan.Gone)
}
