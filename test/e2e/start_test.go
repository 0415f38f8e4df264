package e2e

import (
	"context"
	"errors"
	"fmt"

	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/seam/fault"
)

// TestStartKillAtEveryPoint breaks the start of an agent, of a new node and of one
// that comes back, once at every step that it passes: the step fails, or is done and
// said to have failed, or the process dies before or after it. The next start serves,
// and what was granted is still its holder's.
func TestStartKillAtEveryPoint(t *testing.T) {
	t.Parallel()
	seed, err := fault.Seed()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("IDPOOL_WALK_SEED=%d repeats the choice", seed)
	w := newWorld(t)
	first, next := filepath.Join(w.dir, "first"), filepath.Join(w.dir, "next")
	n := w.node("n1")
	n.start("IDPOOL_FAULT_LOG=" + first)
	n.ready()
	n.must("uid", "pool", "set", "p", apart(12, 100))
	kept, err := n.client.Grant(t.Context(), api.UIDRequest{Pool: "p", Key: "kept", Hold: api.Hold{Kind: api.HoldTTL, TTL: "1h"}})
	if err != nil {
		t.Fatal(err)
	}
	n.kill()
	n.start("IDPOOL_FAULT_LOG=" + next)
	n.ready()
	n.kill()

	held := func() error {
		u, err := n.client.UIDs().Get(t.Context(), kept.Items[0].UID)
		if err == nil && (u.State != api.StateLocked || u.Token != kept.Token) {
			err = fmt.Errorf("uid %d is %s", u.UID, u.State)
		}
		return err
	}
	cases := fault.Sample(fault.Cases(readPoints(t, next)), seed)
	for _, at := range cases {
		n.startBroken(at)
		if err := held(); err != nil {
			t.Errorf("after %s at the start: %v", at, err)
		}
		n.kill()
	}
	fresh := fault.Sample(slices.DeleteFunc(fault.Cases(readPoints(t, first)), func(c fault.Case) bool { return c.N > 1 }), seed)
	for i, at := range fresh {
		other := w.node(fmt.Sprintf("new-%d", i))
		other.startBroken(at)
		other.must("node", "leave", other.name)
		other.kill()
	}
	t.Logf("walked %d starts of a node that comes back, %d of new ones", len(cases), len(fresh))
	if err := judge(w.history()); err != nil {
		t.Error(err)
	}
}

// startBroken starts the agent with a fault, and again without, unless it serves.
func (n *node) startBroken(at fault.Case) {
	n.w.t.Helper()
	n.start("IDPOOL_FAULT=" + at.String())
	n.w.eventually("agent "+n.name+" serves or ends after "+at.String(), time.Minute, func(ctx context.Context) error {
		select {
		case <-n.exited:
			return nil
		default:
		}
		st, err := n.client.Status(ctx)
		if err == nil && !st.Ready {
			err = errors.New(strings.Join(st.NotReady, "; "))
		}
		return err
	})
	n.kill()
	n.start()
	n.ready()
}
