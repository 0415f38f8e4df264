package agent_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/cluster/clustertest"
	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/problem"
)

// TestRestoreIsToldAndHealed: an agent under which etcd is restored says so to
// whoever asks, ends for nothing, and serves again once the restore is adopted and
// it has said what it holds.
func TestRestoreIsToldAndHealed(t *testing.T) {
	t.Parallel()
	etcd := clustertest.Start(t)
	n := start(t, config(t, "n1", etcd.Endpoints()...))
	n.pool(t, api.Pool{Name: "p", Ranges: "3900070000-3900070003"})
	hold := api.Hold{Kind: api.HoldTTL, TTL: "1h"}
	file := etcd.Snapshot(t)
	g := n.request(t, api.UIDRequest{Count: 3, Key: "k", Hold: hold})
	etcd.Restore(t, file, clustertest.RestoreOptions{NewToken: true, Bump: 1000, MarkCompacted: true})
	eventually(t, "status tells of it", func() (bool, any) {
		st, err := n.Status(t.Context())
		return err == nil && !st.Ready && st.Recovery != nil && st.Recovery.By == "n1" && !st.Recovery.Adopted &&
			strings.Contains(strings.Join(st.NotReady, " "), "gone back in time"), fmt.Sprintf("%+v %v", st.Recovery, st.NotReady)
	})
	_, err := n.Grant(t.Context(), api.UIDRequest{Pool: "p", Hold: hold})
	wants(t, err, problem.CodeFrozen, "gone back in time", "adopt-restore")
	found, err := n.Check(t.Context())
	if err != nil || len(found) != 1 || found[0].Kind != leases.FindFrozen {
		t.Errorf("check says %+v, %v", found, err)
	}
	if err := leases.Adopt(t.Context(), etcd.Open(t), leases.AdoptOptions{By: "op", Reason: "test"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "ready", func() (bool, any) {
		st, err := n.Status(t.Context())
		return err == nil && st.Ready && st.Recovery == nil && st.EpochNumber == 2, fmt.Sprintf("%+v %v", st.Recovery, st.NotReady)
	})
	again := n.request(t, api.UIDRequest{Count: 3, Key: "k", Hold: hold})
	for i := range g.Items {
		if again.Items[i].UID != g.Items[i].UID || again.Items[i].Token != g.Items[i].Token {
			t.Errorf("granted %+v, and after the restore %+v", g.Items[i], again.Items[i])
		}
	}
	if other := n.request(t, api.UIDRequest{Hold: hold}); other.Items[0].UID == g.Items[0].UID {
		t.Errorf("granted again: %+v", other)
	}
	_, err = n.Grant(t.Context(), api.UIDRequest{Pool: "p", Hold: hold})
	wants(t, err, problem.CodeExhausted)
}
