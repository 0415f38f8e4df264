package e2e

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/idpool/idpool/api"
)

// TestDrain: three agents, 64 concurrent requesters each, a pool of 1,000: every
// uid is granted exactly once, then each requester's poolctl exits 4 and counts the
// states, and after the release nothing is left. What is granted is asked for and
// given back through the client that poolctl has: a process each would cost more
// than all that it asks for.
func TestDrain(t *testing.T) {
	w := newWorld(t)
	nodes := w.up(3)
	nodes[0].must("uid", "pool", "set", "jobs", ownRange(1000))

	var mu sync.Mutex
	type held struct {
		by    *node
		token string
	}
	holders := map[uint32][]held{}
	var refusals []ctl
	var wg sync.WaitGroup
	for _, n := range nodes {
		for range 64 {
			wg.Go(func() {
				for {
					g, err := n.client.Grant(t.Context(), api.UIDRequest{Pool: "jobs", Hold: api.Hold{Kind: api.HoldTTL, TTL: "10m"}})
					if err != nil {
						if !errors.Is(err, api.ErrExhausted) {
							t.Errorf("a request on %s: %v", n.name, err)
						}
						break
					}
					mu.Lock()
					holders[g.Items[0].UID] = append(holders[g.Items[0].UID], held{n, g.Token})
					mu.Unlock()
				}
				r := n.poolctl("uid", "request", "--pool", "jobs", "--hold", "ttl=10m", "-q")
				mu.Lock()
				defer mu.Unlock()
				refusals = append(refusals, r)
			})
		}
	}
	wg.Wait()

	if len(holders) != 1000 {
		t.Errorf("%d distinct uids were granted, want 1000", len(holders))
	}
	for uid, by := range holders {
		if len(by) != 1 {
			t.Errorf("uid %d was granted %d times", uid, len(by))
		}
	}
	if len(refusals) != 3*64 {
		t.Errorf("%d requesters were refused at last, want %d", len(refusals), 3*64)
	}
	for _, r := range refusals {
		if r.code != 4 || !strings.Contains(r.stderr, "pool jobs is exhausted: 0 of 1000 uids free at revision ") || !strings.Contains(r.stderr, "1000 locked") {
			t.Fatalf("a request of an exhausted pool exits %d and says:\n%s", r.code, r.stderr)
		}
	}

	lanes := make(chan struct{}, 32)
	for uid, by := range holders {
		lanes <- struct{}{}
		wg.Go(func() {
			defer func() { <-lanes }()
			if r, err := by[0].by.client.UIDs().Release(t.Context(), uid, by[0].token, ""); err != nil || !r.Changed {
				t.Errorf("release %d: %+v, %v", uid, r, err)
			}
		})
	}
	wg.Wait()
	w.quiet(time.Minute)
	if out := nodes[0].must("uid", "pool", "show", "jobs", "-o", "json"); !strings.Contains(strings.ReplaceAll(out, " ", ""), `"free":1000`) {
		t.Errorf("after the release the pool shows\n%s", out)
	}
}
