package vlan_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/vlan"
)

func one(name, inv string, change ...func(*vlan.Request)) vlan.Request {
	r := vlan.Request{Name: name, By: tenant, Attributes: []vlan.Want{{Name: "x", Inventory: inv}}}
	for _, f := range change {
		f(&r)
	}
	return r
}

// a reason cut inside a rune makes the record unreadable for ever.
func TestRegressionClip(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.inventory("fabric", "100-110")
	a.file("outside", "n2", keyed(100, 110)) // n2 is not up: stays deallocating
	s := a.create(one("edge-7", "fabric"))
	_, _, err := a.Fail(w.ctx(), of(s), strings.Repeat("a", 1023)+"é")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Get(w.ctx(), "edge-7"); err != nil {
		t.Errorf("Get: %v", err)
	}
	if _, _, err := a.Delete(w.ctx(), vlan.Change{Name: "edge-7", By: root}, false); err != nil {
		t.Errorf("Delete: %v", err)
	}
}

// the same, with a VLAN still held in a file by the unreadable record.
func TestRegressionClipLeaks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	path := a.file("outside", "n1", keyed(100, 110))
	s := a.create(one("edge-7", "outside"))
	_, _, _ = a.Fail(w.ctx(), of(s), strings.Repeat("a", 1023)+"é")
	a.inventory("fabric", "100-110")
	a.create(one("edge-8", "fabric", short))
	a.becomes("edge-8", vlan.Failed) // more than a second later
	if got := w.inFile(path); len(got) != 0 {
		t.Errorf("still in the file: %v", got)
	}
}

// Allocate returns nil for a rejected service, and Exec calls its function.
func TestRegressionExecOfRejected(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.file("north", "n2", keyed(100, 110))
	a.file("south", "n1", keyed(0, 0)) // exhausted
	if err := b.engine.Sync(w.ctx()); err != nil {
		t.Fatal(err)
	}
	reached, resume := a.stopAt("service:refused:before")
	called := false
	done := make(chan error, 1)
	go func() {
		r := northSouth("edge-7", "north", "south")
		r.Wait = 3 * time.Second
		done <- a.Exec(w.ctx(), r, func(ctx context.Context, s *vlan.Service) error {
			called = true
			t.Logf("called with state %s then %s values %v", s.State, s.Then, s.Values())
			return nil
		})
	}()
	w.await("refused", reached)
	b.kill()
	resume()
	err := <-done
	t.Logf("Exec: %v", err)
	if called {
		t.Error("the function was called for a service that was rejected")
	}
	s, changed, err := a.Allocate(w.ctx(), northSouth("edge-7", "north", "south", func(r *vlan.Request) { r.Wait = 50 * time.Millisecond }))
	t.Logf("%+v %v %v", s, changed, err)
	if err == nil {
		t.Error("Allocate of a refused service: nil error")
	}
}

// settle is skipped where the next step of another attribute, or the end of the
// service, takes the lock first.
func TestRegressionSettleSkipped(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	path := a.file("outside", "n1", keyed(100, 110))
	a.define("outside", func(p *leases.Pool) { o := *p.Outside; o.Settle = time.Hour; p.Outside = &o })
	_ = path
	var n atomic.Int32
	reached := make(chan struct{})
	a.points.Store("service:intent:after", func() {
		if n.Add(1) == 2 { // the second attribute's intent
			close(reached)
			<-w.over
		}
	})
	go func() { _, _, _ = a.Allocate(w.ctx(), northSouth("edge-7", "outside", "outside")) }()
	w.await("intent", reached)
	a.kill()
	b := a.again()
	if _, _, err := b.Delete(w.ctx(), vlan.Change{Name: "edge-7", By: tenant}, false); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if _, err := b.Wait(ctx, "edge-7", func(s *vlan.Service) bool { return s == nil }); err == nil {
		t.Errorf("gone %s after the lock was lost, settle is 1h", time.Since(began))
	}
}

// an extended hold is ended early by the elected node.
func TestRegressionExtendEndedEarly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.inventory("fabric", "100-110")
	if err := b.engine.Sync(w.ctx()); err != nil {
		t.Fatal(err)
	}
	s := a.create(one("edge-7", "fabric", short))
	if _, _, err := a.Extend(w.ctx(), of(s), time.Hour); err != nil {
		t.Fatal(err)
	}
	a.kill()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	s, err := b.Wait(ctx, "edge-7", func(s *vlan.Service) bool { return s == nil || s.State != vlan.Allocated })
	if err == nil {
		t.Errorf("extended for 1h, and ended: %s %s", s.State, s.Reason)
	}
}

// services that wait for a locked file take all workers.
func TestRegressionStarved(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	path := a.file("outside", "n1", keyed(100, 200))
	a.inventory("fabric", "100-110")
	a.create(one("first", "outside"))
	f, err := os.OpenFile(path+".lock", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	for i := range 8 {
		s, _, err := a.Allocate(w.ctx(), one(fmt.Sprint("edge-", i), "outside", func(r *vlan.Request) { r.Wait = 100 * time.Millisecond }))
		if err != nil || s.State != vlan.Allocating {
			t.Fatal(s, err)
		}
	}
	a.create(one("other", "fabric", short))
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Second)
	defer cancel()
	if _, err := a.Wait(ctx, "other", func(s *vlan.Service) bool { return s.State == vlan.Failed }); err != nil {
		t.Errorf("the hold of 1s of a service of etcd is not ended after 8s: %v", err)
	}
	_ = f.Close()
	for i := range 8 {
		a.becomes(fmt.Sprint("edge-", i), vlan.Allocated)
	}
}

// Exec's function succeeded, its context was cancelled: neither confirmed nor given back.
func TestRegressionExecCancelled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var m *machine
	a := w.node("n1", func(o *vlan.Options) { o.Self = func() (leases.Requester, error) { return *m.born(7), nil } })
	m = a.m
	a.inventory("fabric", "100-110")
	ctx, cancel := context.WithCancel(context.Background())
	err := a.Exec(ctx, one("edge-7", "fabric"), func(context.Context, *vlan.Service) error {
		cancel()
		return nil
	})
	s, e := a.Get(w.ctx(), "edge-7")
	t.Logf("Exec: %v; service %s %v", err, s.State, e)
	if s.State == vlan.Allocated {
		t.Errorf("Exec is over (%v), and the service is still allocated, for a process that lives", err)
	}
}

// a release is repeated without the service's lock, and without any write.
func TestRegressionRereadWithoutLock(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	path := a.file("outside", "n1", keyed(100, 110))
	s := a.create(one("edge-7", "outside"))
	died := a.dieAt("service:releasing:after")
	_, _, _ = a.Delete(w.ctx(), of(s), false)
	w.await("death", died)
	b := w.spawnStopped(a, "outside:release:after")
	w.await("released", b.reached)
	resp, err := w.client.Txn().Get(w.ctx(), w.keys.ServiceLock("edge-7"))
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.Kvs) == 0 {
		t.Errorf("the file was changed (%v) and nobody has the lock", w.inFile(path))
	}
	b.resume()
	b.a.becomes("edge-7", vlan.Gone)
}

type stopped struct {
	a       *agent
	reached <-chan struct{}
	resume  func()
}

func (w *world) spawnStopped(old *agent, point string) stopped {
	var st stopped
	// options hook runs before Run
	st.a = w.spawn(old.engine.Node(), old.home, old.m, func(o *vlan.Options) {
		o.Open = func(inventory string, def leases.Outside) (vlan.Inventory, error) {
			return vlan.NewFileInventory(def.File, vlan.FileOptions{Name: inventory, Seam: nil})
		}
	})
	st.reached, st.resume = st.a.stopAt(point)
	return st
}

// paused in a reread; overtaken by a restarted agent; the name is created again.
func TestRegressionPausedRereadFreesNextLife(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	path := a.file("outside", "n1", keyed(100, 110))
	s := a.create(one("edge-7", "outside"))
	reached, resume := a.stopAt("outside:read:after")
	_, _, _ = a.Delete(w.ctx(), of(s), false)
	w.await("read", reached)
	_ = path
	_ = resume
	a.points.Store("service:releasing:before", func() {})
	// let it write `releasing`, then stop before the file
	r2, go2 := a.stopAt("service:releasing:after")
	resume()
	w.await("releasing", r2)
	_ = a.client.Close() // paused, and its session is over: it cannot open another
	a.expire()
	b := w.spawn("n1", a.home, a.m)
	b.becomes("edge-7", vlan.Gone)
	s2 := b.create(one("edge-7", "outside"))
	t.Logf("next life %v, file %v", *s2.Attributes[0].VID, w.inFile(path))
	gone := make(chan struct{})
	a.points.Store("outside:release:after", func() { close(gone); <-w.over })
	go2()
	select {
	case <-gone:
	case <-time.After(5 * time.Second):
	}
	s3 := b.create(one("edge-8", "outside"))
	t.Logf("edge-7 %d edge-8 %d, file %v", *s2.Attributes[0].VID, *s3.Attributes[0].VID, w.inFile(path))
	if *s2.Attributes[0].VID == *s3.Attributes[0].VID {
		t.Error("two services hold the same VLAN")
	}
}

// keeper moved while n1 keeps the lock after an error: nobody.
func TestRegressionLockKeptAfterMove(t *testing.T) {
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
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
	b.define("outside", func(p *leases.Pool) { o := *p.Outside; o.On = "n2"; p.Outside = &o })
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := b.Wait(ctx, "edge-7", func(s *vlan.Service) bool { return s == nil }); err != nil {
		d, _ := b.engine.Document(w.ctx(), "edge-7")
		t.Errorf("stuck, lock %q", d.Lock)
	}
}

// adopted outside of the choice after a crash.
func TestRegressionAdoptsWrongVLAN(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.file("outside", "n1", `{"version":0,"range":{"from":100,"to":110},"allocations":{"somebody's":107}}`)
	five := uint32(105)
	r := vlan.Request{Name: "edge-7", By: tenant, Attributes: []vlan.Want{{Name: "x", Inventory: "outside", Key: "somebody's"}}}
	r.VID = &five
	died := a.dieAt("service:intent:after")
	go func() { _, _, _ = a.Allocate(w.ctx(), r) }()
	w.await("death", died)
	b := a.again()
	s, _, err := b.Allocate(w.ctx(), r)
	if err == nil {
		vid, _ := s.VID("x")
		t.Errorf("asked for 105, got %d", vid)
	} else if !errors.Is(err, problem.ErrKeyConflict) {
		t.Error(err)
	}
}

// keeper fenced for good.
func TestRegressionKeeperGoneForGood(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node("n1"), w.node("n2")
	a.file("outside", "n2", keyed(100, 110))
	if err := b.engine.Sync(w.ctx()); err != nil {
		t.Fatal(err)
	}
	s := a.create(one("edge-7", "outside"))
	b.kill()
	if _, _, err := a.Delete(w.ctx(), of(s), false); err != nil {
		t.Fatal(err)
	}
	_, _, err := a.Settled(w.ctx(), vlan.Change{Name: "edge-7", By: root}, "x")
	mustErr(t, err, problem.ErrPrecondition, "node n2 will see to it")
	if _, err := a.engine.Fence(w.ctx(), "n2", "burnt", "root", true, false); err != nil {
		t.Fatal(err)
	}
	_, changed, err := a.Settled(w.ctx(), vlan.Change{Name: "edge-7", By: root}, "x")
	if err != nil || !changed {
		t.Fatalf("the operator cannot say that it is settled: %v, %v", changed, err)
	}
	a.becomes("edge-7", vlan.Gone)
}
