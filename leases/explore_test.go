package leases

import (
	crand "crypto/rand"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
)

// budgetOf is how many states one scenario may visit: IDPOOL_EXPLORE, or little
// enough for every run of the tests.
func budgetOf(t *testing.T) int {
	t.Helper()
	env := os.Getenv("IDPOOL_EXPLORE")
	if env == "" {
		return 3000
	}
	n, err := strconv.Atoi(env)
	if err != nil || n < 1 {
		t.Fatalf("IDPOOL_EXPLORE=%q: want a number of states", env)
	}
	return n
}

// TestExplore drives the engine's real operations through every order of events
// that a small world has, up to a budget of states.
func TestExplore(t *testing.T) {
	limit := budgetOf(t)
	for _, sc := range scenarios {
		t.Run(sc.name, func(t *testing.T) {
			x := newExplorer(t, sc)
			x.own(t)
			var o outcome
			if sc.walk {
				seed := rand.Uint64()
				if env := os.Getenv("IDPOOL_EXPLORE_SEED"); env != "" {
					seed, _ = strconv.ParseUint(env, 10, 64)
				}
				o = x.walks(seed, limit)
				t.Logf("seed %d", seed)
			} else {
				o = x.breadth(limit)
			}
			t.Log(o)
			if o.why != "" {
				t.Fatalf("%s\n%s", o.why, strings.Join(o.trace, "\n"))
			}
		})
	}
}

// own makes the program's randomness the explorer's for the time of a test, which
// must not run beside others.
func (x *explorer) own(t *testing.T) {
	var was io.Reader = crand.Reader
	crand.Reader = x
	t.Cleanup(func() { crand.Reader = was })
}
