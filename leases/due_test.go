package leases

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/idset"
)

// seen is a registered, present node with a good proof at a revision.
func seen(name string, rev int64, change ...func(*witness)) witness {
	w := witness{
		name: name, up: true, proofRev: rev + 1,
		node:  &Node{V: format, State: nodeActive, Role: RoleNode, Machine: "m-" + name, Boot: "b-" + name},
		proof: &Proof{V: format, Epoch: "e", Boot: "b-" + name, Machine: "m-" + name, Revision: rev, InUse: map[cluster.Space]idset.Set{}},
	}
	for _, f := range change {
		f(&w)
	}
	return w
}

func uses(space cluster.Space, ids ...uint32) func(*witness) {
	return func(w *witness) { w.proof.InUse[space] = idset.New(ids...) }
}

func down(w *witness)  { w.up = false }
func blind(w *witness) { w.proof = nil }

func TestWaits(t *testing.T) {
	const when = 100 // the claim's mod revision
	inUse := "in use there, or a requester there has not given up"
	for _, c := range []struct {
		name   string
		policy ProofPolicy
		ref    Ref
		count  uint32
		nodes  []witness
		want   []Wait
	}{
		{"all proven", ProofHolders, uid(5), 1, []witness{seen("n1", 100), seen("n2", 101)}, nil},
		{"an old proof of the holder", ProofHolders, uid(5), 1, []witness{seen("n1", 99)}, []Wait{{"n1", "has not reported yet"}}},
		{"an old proof of another that is up", ProofHolders, uid(5), 1, []witness{seen("n1", 100), seen("n2", 99)}, []Wait{{"n2", "has not reported yet"}}},
		{"another that is down is not due", ProofHolders, uid(5), 1, []witness{seen("n1", 100), seen("n2", 99, down)}, nil},
		{"cluster: another that is down is due", ProofCluster, uid(5), 1, []witness{seen("n1", 100), seen("n2", 99, down)}, []Wait{{"n2", "absent"}}},
		{"none: nobody is due", ProofNone, uid(5), 1, []witness{seen("n1", 1, blind), seen("n2", 1, uses("uid", 5))}, nil},
		{"the holder is absent", ProofHolders, uid(5), 1, []witness{seen("n1", 99, down)}, []Wait{{"n1", "absent"}}},
		{"the absent holder had reported", ProofHolders, uid(5), 1, []witness{seen("n1", 100, down)}, nil},
		{"the holder never reported", ProofHolders, uid(5), 1, []witness{seen("n1", 0, blind)}, []Wait{{"n1", "has not reported yet"}}},
		{"the holder cannot prove", ProofHolders, uid(5), 1, []witness{seen("n1", 99, func(w *witness) { w.noProof = "hidepid" })}, []Wait{{"n1", "cannot prove: hidepid"}}},
		{"listed by the holder", ProofHolders, uid(5), 1, []witness{seen("n1", 100, uses("uid", 5))}, []Wait{{"n1", inUse}}},
		{"listed by another", ProofHolders, uid(5), 1, []witness{seen("n1", 100), seen("n2", 120, uses("uid", 5))}, []Wait{{"n2", inUse}}},
		{"listed by one that is not due any more", ProofHolders, uid(5), 1, []witness{seen("n1", 100), seen("n2", 120, uses("uid", 5), down)}, []Wait{{"n2", inUse}}},
		{"an older listing does not count", ProofHolders, uid(5), 1, []witness{seen("n1", 100), seen("n2", 99, uses("uid", 5), down)}, nil},
		{"another id listed", ProofHolders, uid(5), 1, []witness{seen("n1", 100, uses("uid", 6))}, nil},
		{"any id of a block", ProofHolders, uid(4), 4, []witness{seen("n1", 100, uses("uid", 7))}, []Wait{{"n1", inUse}}},
		{"the id after a block", ProofHolders, uid(4), 4, []witness{seen("n1", 100, uses("uid", 8))}, nil},
		{"listed in another space", ProofHolders, uid(5), 1, []witness{seen("n1", 100, uses("uid@n1", 5))}, nil},
		{"another boot's proof", ProofHolders, uid(5), 1, []witness{seen("n1", 100, func(w *witness) { w.proof.Boot = "x" })}, []Wait{{"n1", "has not reported yet"}}},
		{"another machine's proof", ProofHolders, uid(5), 1, []witness{seen("n1", 100, func(w *witness) { w.proof.Machine = "x" })}, []Wait{{"n1", "has not reported yet"}}},
		{"another epoch's proof", ProofHolders, uid(5), 1, []witness{seen("n1", 100, func(w *witness) { w.proof.Epoch = "x" })}, []Wait{{"n1", "has not reported yet"}}},
		{"a revision beyond its own mod revision", ProofHolders, uid(5), 1, []witness{seen("n1", 100, func(w *witness) { w.proofRev = 99 })}, []Wait{{"n1", "has not reported yet"}}},
		{"a fenced holder", ProofHolders, uid(5), 1, []witness{seen("n1", 0, down, func(w *witness) { w.node.State = nodeFenced })}, nil},
		{"a holder that left", ProofHolders, uid(5), 1, []witness{seen("n1", 0, down, func(w *witness) { w.node.State = nodeLeft })}, nil},
		{"a gateway", ProofCluster, uid(5), 1, []witness{seen("n1", 100), seen("gw", 0, blind, func(w *witness) { w.node.Role = RoleGateway })}, nil},
		{"a holder that became a gateway", ProofHolders, uid(5), 1, []witness{seen("n1", 0, blind, func(w *witness) { w.node.Role = RoleGateway })}, []Wait{{"n1", "has not reported yet"}}},
		{"an unregistered holder", ProofHolders, uid(5), 1, nil, []Wait{{"n1", "not registered"}}},
		{"an unreadable holder", ProofHolders, uid(5), 1, []witness{{name: "n1", up: true}}, []Wait{{"n1", "has not reported yet"}}},
		{"an unreadable node that is up", ProofHolders, uid(5), 1, []witness{seen("n1", 100), {name: "n2", up: true}}, []Wait{{"n2", "has not reported yet"}}},
		{"node scoped: others say nothing", ProofCluster, Ref{"uid@n1", 5}, 1, []witness{seen("n1", 100), seen("n2", 0, blind)}, nil},
		{"node scoped: its node", ProofHolders, Ref{"uid@n1", 5}, 1, []witness{seen("n1", 0, blind)}, []Wait{{"n1", "has not reported yet"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := weighing{ref: c.ref, modRev: when, policy: c.policy, epoch: "e", claim: &Claim{State: Quarantined, Count: c.count, Nodes: []Presence{{Node: "n1", Boot: "b-n1"}}}}
			if diff := cmp.Diff(c.want, w.waits(c.nodes)); diff != "" {
				t.Errorf("waits (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNodeScopedClaimOfNobodyWaitsForItsNode(t *testing.T) {
	w := weighing{ref: Ref{"uid@n2", 5}, modRev: 100, policy: ProofHolders, epoch: "e", claim: &Claim{State: Quarantined, Count: 1}}
	if got := w.waits([]witness{seen("n1", 100), seen("n2", 99)}); len(got) != 1 || got[0].Node != "n2" {
		t.Errorf("waits for %v", got)
	}
}

func TestPolicyOf(t *testing.T) {
	pool := &Pool{Policy: Policy{Proof: ProofCluster}}
	for _, c := range []struct {
		space cluster.Space
		pool  *Pool
		want  ProofPolicy
	}{{"vlan/x", pool, ProofNone}, {"uid", nil, ProofCluster}, {"uid", pool, ProofCluster}, {"uid@n", pool, ProofCluster}} {
		if got := policyOf(c.space, c.pool); got != c.want {
			t.Errorf("policyOf(%s, %v) = %s, want %s", c.space, c.pool, got, c.want)
		}
	}
}
