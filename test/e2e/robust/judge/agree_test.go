package judge

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/test/e2e/robust/record"
)

// TestReadsWhatIsWritten: the judge's own types read what the engine's write. That
// they are two is on purpose; that they speak of the same bytes is held here.
func TestReadsWhatIsWritten(t *testing.T) {
	ref := leases.Ref{Space: "uid", ID: 7}
	policy := leases.DefaultPolicy()
	policy.Cooldown, policy.Block = time.Second, 4
	changes := map[string]any{
		"claims/uid/0000000007": leases.Claim{V: 1, State: leases.Quarantined, Pool: "p", Count: 4, Caller: "c", Key: "k", Service: "s", Token: "t", Grouped: true, Epoch: "e",
			Reclaimed: true, ReasonCode: "rc", Reason: "r", Nodes: []leases.Presence{{Node: "n", Boot: "b", Requesters: []leases.Requester{{ID: "q"}}}}},
		"nodes/n":        leases.Node{V: 1, State: "active", Role: "gateway", Machine: "m", Boot: "b", FencedBoot: "f"},
		"alive/n":        leases.Alive{V: 1, Nonce: "x", Counter: 3, Machine: "m"},
		"proofs/n":       leases.Proof{V: 1, Epoch: "e", Boot: "b", Machine: "m", Revision: 9, InUse: map[cluster.Space]idset.Set{"uid": idset.New(7)}},
		"pools/uid/p":    leases.Pool{V: 1, Ranges: idset.Of(idset.Range{Lower: 8, Higher: 19}), Exclude: idset.New(17), Policy: policy},
		"grants/c/key:k": leases.Record{V: 1, Digest: "d", Token: "t", IDs: []leases.Ref{ref}, Ended: true},
		"meta":           cluster.Meta{V: 1, Epoch: "e", Number: 2, State: "normal"},
	}
	c := &court{run: &record.Run{}, v: &Verdict{}, w: newWorld()}
	var all []record.Change
	for key, v := range changes {
		all = append(all, record.Change{Revision: 1, Key: key, Value: cluster.Encode(v), Lease: 5})
	}
	c.w.apply(c.read(all))
	if err := c.v.Err(); err != nil {
		t.Fatal(err)
	}
	same := func(what string, got, want any) {
		t.Helper()
		if d := cmp.Diff(want, got, cmp.AllowUnexported(claim{}, alive{}, proof{})); d != "" {
			t.Errorf("%s (-want +got)\n%s", what, d)
		}
	}
	same("claim", *c.w.claims["uid/7"], claim{State: quarantined, Pool: "p", Count: 4, Caller: "c", Key: "k", Service: "s", Token: "t", Grouped: true, Epoch: "e",
		Reclaimed: true, ReasonCode: "rc", Reason: "r", Nodes: []presence{{Node: "n", Boot: "b", Requesters: []requester{{"q"}}}}, rev: 1})
	same("node", *c.w.nodes["n"], node{State: "active", Role: "gateway", Machine: "m", Boot: "b", FencedBoot: "f"})
	same("alive", *c.w.alive["n"], alive{Nonce: "x", Counter: 3, Machine: "m", lease: 5})
	same("grant", *c.w.grants[recordKey(c.w.claims["uid/7"])], grantRecord{Digest: "d", Token: "t", IDs: []idRef{{"uid", 7}}, Ended: true})
	same("meta", *c.w.meta, meta{"e", 2, "normal"})
	if p := c.w.proofs["n"]; !p.lists("uid/4", 4) || p.lists("uid/8", 4) || p.Revision != 9 || p.Epoch+p.Boot+p.Machine != "ebm" {
		t.Errorf("proof: %+v", p)
	}
	if p := c.w.pools["p"]; p.firsts.String() != "8,12" || p.Cooldown != int64(time.Second) || p.Proof != "holders" || p.Scope != "cluster" {
		t.Errorf("pool: %+v, firsts %s", p, p.firsts)
	}
}
