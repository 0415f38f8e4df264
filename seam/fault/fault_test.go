package fault_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/idpool/idpool/seam/fault"
)

// TestSample: a seed chooses the same cases whatever else was passed, another seed
// others; asked for all, all.
func TestSample(t *testing.T) {
	t.Setenv("IDPOOL_WALK", "")
	points := map[string]int{}
	for i := range 50 {
		points[fmt.Sprint("etcd:", i)] = 2
	}
	all := fault.Cases(points)
	one := fault.Sample(all, 1)
	if n := len(one); n < len(all)/12 || n > len(all)/3 {
		t.Errorf("%d of %d cases, want about a sixth", n, len(all))
	}
	if other := fault.Sample(all, 2); slices.Equal(one, other) {
		t.Error("another seed chooses the same cases")
	}
	if again := fault.Sample(all[1:], 1); !slices.Equal(slices.DeleteFunc(one, func(c fault.Case) bool { return c == all[0] }), again) {
		t.Error("what is chosen depends on the other cases")
	}
	t.Setenv("IDPOOL_WALK", "all")
	if n := len(fault.Sample(all, 1)); n != len(all) {
		t.Errorf("%d of %d cases, want all", n, len(all))
	}
}

func TestSeed(t *testing.T) {
	t.Setenv("IDPOOL_WALK_SEED", "")
	one, err := fault.Seed()
	if two, err2 := fault.Seed(); err != nil || err2 != nil || one != two {
		t.Errorf("%d, %v and %d, %v: want the same seed twice", one, err, two, err2)
	}
	t.Setenv("IDPOOL_WALK_SEED", "17")
	if n, err := fault.Seed(); n != 17 || err != nil {
		t.Errorf("%d, %v, want 17", n, err)
	}
	t.Setenv("IDPOOL_WALK_SEED", "x")
	if n, err := fault.Seed(); err == nil {
		t.Errorf("%d for a seed that is no number", n)
	}
}
