package leases

import (
	"context"
	"testing"

	"github.com/idpool/idpool/seam/fault"
)

// broken starts a node whose steps the injector breaks.
func (w *world) broken(name string, i *fault.Injector) *agent {
	w.t.Helper()
	a, err := w.try(context.Background(), name, w.t.TempDir(), newMachine(name), false, i.Seam)
	if err != nil {
		w.t.Fatal(err)
	}
	<-a.Ready()
	return a
}

// TestCounterThatWasNotSaved: the disk refuses the counter once; tried again, it is
// saved before etcd has it, so that the node knows its presence after a crash.
func TestCounterThatWasNotSaved(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	i := &fault.Injector{}
	a := w.broken("n1", i)
	i.Arm(fault.Case{Mode: fault.Before, Point: "file:home:write", N: 1})
	if err := a.session.tellNoProof(w.ctx(), "procfs is gone"); err == nil {
		t.Fatal("the counter was raised although the disk refused it")
	}
	if err := a.session.tellNoProof(w.ctx(), "procfs is gone"); err != nil {
		t.Fatal(err)
	}
	a.crash()
	b := a.again() // refused as a stranger, if its disk is behind etcd
	b.pool("p", "1000")
}

// TestWaitingRequestReclaims: what could not be reclaimed at first, or became idle
// later, goes to the request that waits.
func TestWaitingRequestReclaims(t *testing.T) {
	t.Parallel()
	for _, late := range []bool{false, true} {
		w := newWorld(t)
		i := &fault.Injector{}
		a := w.broken("n1", i)
		a.pool("p", "1000")
		g := a.get(a.m.born("client"))
		a.m.start(1000)
		a.confirm(g, false, true)
		a.m.die("client")
		idle := func() {
			a.m.end(1000)
			a.janitorRound()
		}
		if !late {
			idle()
			w.mustBe(g.ref(), Idle)
			i.Arm(fault.Case{Mode: fault.Before, Point: "reclaim", N: 1})
		}
		if late {
			i.Record()
		}
		asked := make(chan error, 1)
		go func() {
			_, err := a.ask(a.m.born("next"), wait(limit))
			asked <- err
		}()
		if late {
			until(t, "the request has looked", func() bool { return len(i.Cases()) > 0 })
			idle()
		}
		until(t, "the request is answered", func() bool {
			rounds(a)
			select {
			case err := <-asked:
				if err != nil {
					t.Fatalf("became idle late: %v: %v", late, err)
				}
				return true
			default:
				return false
			}
		})
		if c := w.claim(g.ref()); c == nil || c.Token == g.Token {
			t.Fatalf("not handed on: %+v", c)
		}
	}
}
