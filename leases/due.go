package leases

import (
	"slices"
	"strings"

	"github.com/idpool/idpool/cluster"
)

// witness is what is known of a node when a quarantined claim is weighed.
type witness struct {
	name     string
	node     *Node
	up       bool // alive/NODE exists
	noProof  string
	proof    *Proof
	proofRev int64 // mod revision of the proof's key
}

// weighing is one quarantined claim and what speaks for and against freeing it.
type weighing struct {
	ref    Ref
	claim  *Claim
	modRev int64
	policy ProofPolicy
	epoch  string
}

// Wait is a node whose word a quarantined claim still waits for, and why.
type Wait struct {
	Node string
	Why  string
}

// due tells whether the node's report is needed: of the nodes named, always; of
// others while they are up, or with proof=cluster while they are registered.
// Pure. A gateway runs nothing and owes nothing, but for what it was granted when
// it was no gateway yet.
func (w weighing) due(n witness) bool {
	named := w.claim.On(n.name) != nil
	if scoped, ok := w.ref.Space.Node(); ok {
		named = named || scoped == n.name
		if !named {
			return false
		}
	}
	switch {
	case w.policy == ProofNone:
		return false
	case n.node == nil: // its registration cannot be read
		return named || n.up || w.policy == ProofCluster
	case n.node.State != nodeActive, n.node.Role == RoleGateway && !named:
		return false
	}
	return named || n.up || w.policy == ProofCluster
}

// valid tells whether the node's report counts at all: its own boot and machine,
// this epoch, and a revision that existed when it was written (rule 10).
func (w weighing) valid(n witness) bool {
	return n.proof != nil && n.node != nil && n.proof.Epoch == w.epoch && n.proof.Boot == n.node.Boot &&
		n.proof.Machine == n.node.Machine && n.proof.Revision <= n.proofRev
}

// waits lists whose word is missing; none means that the claim is proven
// unused. Every report since the claim's write counts against it, due or not.
func (w weighing) waits(nodes []witness) []Wait {
	var waits []Wait
	for _, n := range nodes {
		fresh := w.valid(n) && n.proof.Revision >= w.modRev
		switch {
		case fresh && w.policy != ProofNone && n.node.State == nodeActive && n.proof.lists(w.ref, w.claim.Count):
			waits = append(waits, Wait{n.name, n.proof.why(w.ref)})
		case !w.due(n) || fresh:
		case n.noProof != "":
			waits = append(waits, Wait{n.name, "cannot prove: " + n.noProof})
		case !n.up:
			waits = append(waits, Wait{n.name, "absent"})
		default:
			waits = append(waits, Wait{n.name, "has not reported yet"})
		}
	}
	for _, p := range w.claim.Nodes {
		known := slices.ContainsFunc(nodes, func(n witness) bool { return n.name == p.Node })
		if !known && w.policy != ProofNone {
			waits = append(waits, Wait{p.Node, "not registered"})
		}
	}
	slices.SortFunc(waits, func(a, b Wait) int { return strings.Compare(a.Node, b.Node) })
	return waits
}

// policyOf is the proof policy that a claim waits under: its pool's, or the
// strictest when the pool is gone or its record unreadable.
func policyOf(space cluster.Space, p *Pool) ProofPolicy {
	if strings.HasPrefix(string(space), "vlan/") {
		return ProofNone
	}
	if p == nil {
		return ProofCluster
	}
	return p.Proof
}
