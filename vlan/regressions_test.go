package vlan_test

import (
	"testing"
	"time"

	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/vlan"
)

// TestRegressionHugeExclude: a record that could not be read back is not written.
func TestRegressionHugeExclude(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.inventory("fabric", "100-110")
	var rs []idset.Range
	for i := uint32(1000001); len(rs) < 14000; i += 2 {
		rs = append(rs, idset.Range{Lower: i, Higher: i})
	}
	r := one("edge-7", "fabric")
	r.Exclude = idset.Of(rs...)
	_, _, err := a.Allocate(w.ctx(), r)
	mustErr(t, err, problem.ErrInvalid, "its exclusions take")
	if c := w.claim("fabric", 100); c != nil {
		t.Errorf("claim %+v", c)
	}
}

// TestRegressionExtendOfAProcess: a hold by a process is not turned into one by time.
func TestRegressionExtendOfAProcess(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.inventory("fabric", "100-110")
	p := a.m.born(7)
	s := a.create(one("edge-7", "fabric", func(r *vlan.Request) { r.Hold = p }))
	_, _, err := a.Extend(w.ctx(), of(s), time.Hour)
	mustErr(t, err, problem.ErrInvalid, "held by process 7")
	a.m.die(7)
	a.becomes("edge-7", vlan.Failed)
}
