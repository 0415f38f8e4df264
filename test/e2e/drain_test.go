package e2e

import (
	"strings"
	"sync"
	"testing"
	"time"
)

// TestDrain: three agents, 64 concurrent requesters each, a pool of 1,000: every
// uid is granted exactly once, every other request exits 4 and counts the states,
// and after the release nothing is left.
func TestDrain(t *testing.T) {
	w := newWorld(t)
	nodes := w.up(3)
	nodes[0].must("uid", "pool", "set", "jobs", ownRange(1000))

	var mu sync.Mutex
	holders := map[string][]*node{}
	var refusals []ctl
	var wg sync.WaitGroup
	for _, n := range nodes {
		for range 64 {
			wg.Go(func() {
				for {
					r := n.poolctl("uid", "request", "--pool", "jobs", "--hold", "ttl=10m", "-q")
					mu.Lock()
					if r.code == 0 {
						uid := strings.TrimSpace(r.stdout)
						holders[uid] = append(holders[uid], n)
						mu.Unlock()
						continue
					}
					refusals = append(refusals, r)
					mu.Unlock()
					return
				}
			})
		}
	}
	wg.Wait()

	if len(holders) != 1000 {
		t.Errorf("%d distinct uids were granted, want 1000", len(holders))
	}
	for uid, by := range holders {
		if len(by) != 1 {
			t.Errorf("uid %s was granted %d times", uid, len(by))
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

	for _, n := range nodes {
		var mine []string
		for uid, by := range holders {
			if by[0] == n {
				mine = append(mine, uid)
			}
		}
		var wg sync.WaitGroup
		lanes := make(chan struct{}, 32)
		for _, uid := range mine {
			lanes <- struct{}{}
			wg.Go(func() {
				defer func() { <-lanes }()
				if r := n.poolctl("uid", "release", uid); r.code != 0 {
					t.Errorf("release %s: exit %d: %s", uid, r.code, r.stderr)
				}
			})
		}
		wg.Wait()
	}
	w.quiet(time.Minute)
	if out := nodes[0].must("uid", "pool", "show", "jobs", "-o", "json"); !strings.Contains(strings.ReplaceAll(out, " ", ""), `"free":1000`) {
		t.Errorf("after the release the pool shows\n%s", out)
	}
}
