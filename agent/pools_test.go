package agent_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/problem"
)

func text(s string) *string { return &s }

func TestPoolRefusals(t *testing.T) {
	t.Parallel()
	n := single(t, "3900040000-3900040009")
	for _, c := range []struct {
		name string
		pool api.Pool
		want []string
	}{
		{"not a number", api.Pool{Ranges: "1-x"}, []string{"pool q not stored", `"x"`}},
		{"backwards", api.Pool{Ranges: "9-5"}, []string{"lower bound, 9"}},
		{"nobody", api.Pool{Ranges: "65530-65540"}, []string{"65534 (nobody)", "instead of element 1"}},
		{"root", api.Pool{Ranges: "0-10"}, []string{"0 (root)"}},
		{"exclude", api.Pool{Ranges: "70000", Exclude: "y"}, []string{"exclude", `"y"`}},
		{"several", api.Pool{Ranges: "9-5", Exclude: "y", PoolPolicy: api.PoolPolicy{Cooldown: "soon", Reclaim: "always", LowWater: "120%", Block: 3}},
			[]string{"exclude", "also: uid pool", "also: cooldown", "also: reclaim", "also: low-water", "also: block"}},
		{"cooldown below 0", api.Pool{Ranges: "70000", PoolPolicy: api.PoolPolicy{Cooldown: "-1s"}}, []string{"cooldown"}},
		{"scan age", api.Pool{Ranges: "70000", PoolPolicy: api.PoolPolicy{ScanAge: "1h"}}, []string{"scan-age"}},
		{"after nothing", api.Pool{Ranges: "70000", PoolPolicy: api.PoolPolicy{Reclaim: "after="}}, []string{"after="}},
		{"scope", api.Pool{Ranges: "70000", PoolPolicy: api.PoolPolicy{Scope: "galaxy"}}, []string{"body.scope"}},
		{"overlap of scopes", api.Pool{Ranges: "3900040005", PoolPolicy: api.PoolPolicy{Scope: "node"}}, []string{"only cluster-scoped pools may overlap"}},
		{"overlap of blocks", api.Pool{Ranges: "3900040000-3900040031", PoolPolicy: api.PoolPolicy{Block: 2}}, []string{"must agree on block"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.pool.Name = "q"
			_, err := n.Pools().Put(t.Context(), c.pool, api.WriteOptions{})
			wants(t, err, problem.CodeInvalid, c.want...)
		})
	}
	for _, c := range []struct {
		name  string
		patch api.PoolPatch
		want  []string
	}{
		{"remove what is not there", api.PoolPatch{Remove: "3900040009-3900040010"}, []string{"pool p not stored", "remove", "3900040010"}},
		{"add root", api.PoolPatch{Add: "0"}, []string{"add", "root"}},
		{"both", api.PoolPatch{Add: "0", Remove: "5"}, []string{"add", "also: remove"}},
		{"an exclusion ends that was needed", api.PoolPatch{Ranges: text("65534"), Exclude: text("")}, []string{"nobody"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := n.Pools().Patch(t.Context(), "p", c.patch, api.WriteOptions{})
			wants(t, err, problem.CodeInvalid, c.want...)
		})
	}
	_, err := n.Pools().Patch(t.Context(), "q", api.PoolPatch{Add: "5"}, api.WriteOptions{})
	wants(t, err, problem.CodeNotFound, "there is no pool q", "pools: p")
	_, err = n.Pools().Get(t.Context(), "q")
	wants(t, err, problem.CodeNotFound, "pools: p")
	pools, err := n.Pools().List(t.Context())
	if err != nil || len(pools) != 1 || pools[0].Ranges != "3900040000-3900040009" {
		t.Errorf("after all that: %+v, %v", pools, err)
	}
}

func TestPools(t *testing.T) {
	t.Parallel()
	n := single(t, "3900041000-3900041009")
	ctx := t.Context()
	p, err := n.Pools().Get(ctx, "p")
	if err != nil {
		t.Fatal(err)
	}
	want := api.Pool{
		Name: "p", Ranges: "3900041000-3900041009", Size: 10,
		PoolPolicy: api.PoolPolicy{Scope: "cluster", Order: "random", Proof: "holders", Cooldown: "0s", Reclaim: "when-needed", ScanAge: "0s", Block: 1, LowWater: "10%"},
		Counts:     map[string]uint64{"free": 10, "locked": 0, "used": 0, "idle": 0, "quarantined": 0, "reserved": 0},
		Revision:   p.Revision,
	}
	if diff := cmp.Diff(want, p); diff != "" {
		t.Errorf("stored (-want +got):\n%s", diff)
	}
	for _, dry := range []bool{true, false} {
		p, err = n.Pools().Patch(ctx, "p", api.PoolPatch{Add: "3900041010-3900041019,3900041030", Remove: "3900041000-3900041004,3900041015", PoolPolicy: api.PoolPolicy{Cooldown: "1m", Reclaim: "after=1h"}}, api.WriteOptions{DryRun: dry})
		if err != nil || p.Ranges != "3900041005-3900041014,3900041016-3900041019,3900041030" || p.Cooldown != "1m0s" || p.Reclaim != "after=1h0m0s" || p.Order != "random" {
			t.Errorf("patched, dry %v: %+v, %v", dry, p, err)
		}
		now, err := n.Pools().Get(ctx, "p")
		if changed := now.Size == 15; err != nil || changed == dry {
			t.Errorf("dry %v: %+v, %v", dry, now, err)
		}
	}
	// Add, then remove, then replace: what replaces wins.
	p, err = n.Pools().Patch(ctx, "p", api.PoolPatch{Add: "3900041040", Remove: "3900041040", Ranges: text("3900041000-3900041009"), Exclude: text("3900041009")}, api.WriteOptions{})
	if err != nil || p.Ranges != "3900041000-3900041009" || p.Size != 9 || p.Exclude != "3900041009" || p.Cooldown != "1m0s" {
		t.Errorf("replaced: %+v, %v", p, err)
	}
	// A whole definition takes defaults where it says nothing.
	p, err = n.Pools().Put(ctx, api.Pool{Name: "p", Ranges: "65510-65540", Exclude: "65534-65535"}, api.WriteOptions{})
	if err != nil || p.Cooldown != "0s" || p.Size != 29 || !strings.Contains(strings.Join(p.Warnings, ";"), "overlaps") {
		t.Errorf("put: %+v, %v", p, err)
	}
	g := n.request(t, api.UIDRequest{})
	err = n.Pools().Delete(ctx, "p")
	wants(t, err, problem.CodeHeld, "1 of its uids are held")
	// Shrunk to nothing, it keeps what is held, visible as outside.
	p, err = n.Pools().Patch(ctx, "p", api.PoolPatch{Ranges: text("")}, api.WriteOptions{})
	if err != nil || p.Size != 0 || p.Counts["outside"] != 1 {
		t.Errorf("turned off: %+v, %v", p, err)
	}
	if u := n.show(t, g.Items[0].UID); u.InPool || u.State != api.StateLocked || u.Token != g.Token {
		t.Errorf("held outside of its pool: %+v", u)
	}
	if r, err := n.UIDs().Release(ctx, g.Items[0].UID, g.Token, ""); err != nil || !r.Changed {
		t.Fatalf("released: %+v, %v", r, err)
	}
	eventually(t, "pool deleted", func() (bool, any) {
		err := n.Pools().Delete(ctx, "p")
		return err == nil, err
	})
	_, err = n.Pools().Get(ctx, "p")
	wants(t, err, problem.CodeNotFound, "no other")
}
