package leases

import (
	"context"
	crand "crypto/rand"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// budgetOf is how many states a scenario may visit: its part of IDPOOL_EXPLORE, or
// little enough for every run of the tests.
func budgetOf(t *testing.T) int {
	t.Helper()
	total := 45_000
	if env := os.Getenv("IDPOOL_EXPLORE"); env != "" {
		var err error
		if total, err = strconv.Atoi(env); err != nil || total < 1 {
			t.Fatalf("IDPOOL_EXPLORE=%q: want a number of states", env)
		}
	}
	return max(100, total/len(scenarios))
}

// mine tells whether scenario i is this process's: IDPOOL_EXPLORE_PART is 0/2, 1/2.
func mine(t *testing.T, i int) bool {
	t.Helper()
	env := os.Getenv("IDPOOL_EXPLORE_PART")
	if env == "" {
		return true
	}
	var part, of int
	if n, err := fmt.Sscanf(env, "%d/%d", &part, &of); n != 2 || err != nil || of < 1 {
		t.Fatalf("IDPOOL_EXPLORE_PART=%q: want a part such as 0/2", env)
	}
	return i%of == part
}

// TestExplore drives the engine's real operations through every order of events
// that a small world has, the shortest first, and through random ones of larger
// worlds, up to a budget of states. It ends with the first world in which a promise is
// broken, for the others mostly break it too.
func TestExplore(t *testing.T) {
	limit := budgetOf(t)
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	for i, sc := range scenarios {
		if mine(t, i) && !t.Run(sc.name, func(t *testing.T) { explore(t, sc, limit) }) {
			return
		}
	}
}

func explore(t *testing.T, sc *scenario, limit int) {
	x := newExplorer(t, sc)
	x.own(t)
	var o outcome
	if sc.walk {
		seed := rand.Uint64()
		if env := os.Getenv("IDPOOL_EXPLORE_SEED"); env != "" {
			var err error
			if seed, err = strconv.ParseUint(env, 10, 64); err != nil {
				t.Fatalf("IDPOOL_EXPLORE_SEED=%q: %v", env, err)
			}
		}
		t.Logf("IDPOOL_EXPLORE_SEED=%d", seed)
		o = x.walks(seed, limit)
	} else {
		o = x.breadth(limit)
	}
	if o.why != "" {
		t.Errorf("%s\n%s", o.why, strings.Join(o.trace, "\n"))
	}
	t.Log(o)
}

// TestExploreWaitsForASession: where an operation has no session, the explorer
// abandons it. Contexts that keep their books, and deadlines that pass in goroutines
// of their own, are no such wait.
func TestExploreWaitsForASession(t *testing.T) {
	x := newExplorer(t, scenarios[0])
	x.own(t)
	x.now = x.root()
	a := x.agents[0]
	synctest.Test(t, func(t *testing.T) {
		x.run, x.pos, x.fresh, x.begun = &task{id: 1, node: 0}, 0, nil, time.Now()
		x.hydrate(x.now, 0)
		a.session.guard = nil
		life, end := context.WithCancel(t.Context())
		defer end()
		ctx := sessionContext{life, x, a}
		short, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		<-short.Done()
		synctest.Wait()
		if len(x.now.tasks) != 0 {
			t.Fatal("abandoned because a deadline has passed")
		}
		defer func() {
			if _, ok := recover().(suspended); !ok || len(x.now.tasks) != 1 || !x.now.tasks[0].wait.sess {
				t.Errorf("under way are %v, want one that waits for a session", x.now.tasks)
			}
		}()
		g, err := a.session.current(ctx)
		t.Errorf("current returned %v, %v without a session", g, err)
	})
}

// own makes the program's randomness the explorer's for the time of a test, which
// must not run beside others.
func (x *explorer) own(t *testing.T) {
	was := crand.Reader
	crand.Reader = x
	t.Cleanup(func() { crand.Reader = was })
}
