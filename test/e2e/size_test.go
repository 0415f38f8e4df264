package e2e

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"testing"

	"github.com/idpool/idpool/api"
)

// everyUID is every uid that can be granted.
const everyUID = "1-65533,65536-4294967294"

// TestEveryUID: an agent of a pool of all uids needs no more memory than one of a
// pool of a thousand. (How long requests take is a benchmark: test/bench.)
func TestEveryUID(t *testing.T) {
	small := agentMemory(t, ownRange(1000))
	large := agentMemory(t, everyUID)
	t.Logf("resident: %d KiB with 1,000 uids, %d KiB with 4,294,967,291", small, large)
	if float64(large) > 1.2*float64(small) {
		t.Errorf("an agent of all uids has %d KiB resident, one of a thousand %d", large, small)
	}
}

// agentMemory is an agent's resident memory in KiB after some traffic on a pool.
func agentMemory(t *testing.T, ranges string) int {
	t.Helper()
	w := newWorld(t)
	n := w.up(1)[0]
	n.must("uid", "pool", "set", "jobs", ranges)
	for i := range 200 {
		u, err := n.client.RequestUID(t.Context(), api.UIDRequest{Pool: "jobs", Key: fmt.Sprint(i)})
		if err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			if err := u.Release(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(status)
	if m == nil {
		t.Skip("this system does not tell the resident memory of a process")
	}
	kib, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	n.kill()
	return kib
}
