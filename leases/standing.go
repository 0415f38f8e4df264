package leases

import (
	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/problem"
)

// Recovering is how a node stands to a restore of etcd.
type Recovering struct {
	// Meta is the cluster's record as etcd shows it now, zero where it is not known.
	Meta cluster.Meta
	// Seen is what this node saw itself, nil if nothing.
	Seen error
	// Stuck is why this node cannot say what it holds, nil if it can.
	Stuck error
	// Waits are the nodes that a recovery under way still needs, Conflicts what an
	// operator must decide; Late is what this node found when it said what it holds
	// after granting had resumed: etcd's word stands.
	Waits     []Wait
	Conflicts []Conflict
	Late      []Conflict
}

// Recovering reads what etcd shows, also while it is not trusted.
func (a *Allocator) Recovering() Recovering {
	r := Recovering{}
	a.mu.Lock()
	r.Stuck, r.Late = a.stuckBy, a.late
	a.mu.Unlock()
	a.session.mu.Lock()
	if !isUnreadable(a.session.blocked) {
		r.Seen = a.session.blocked
	}
	a.session.mu.Unlock()
	a.gate.now().read(func(v *view) {
		if v.meta.Val == nil {
			return
		}
		r.Meta = *v.meta.Val
		if r.Meta.Adopted {
			r.Waits, r.Conflicts = v.spoken(r.Meta)
		}
	})
	return r
}

// Kinds of a [Finding] about a restore of etcd.
const (
	// FindFrozen: nobody grants, since a node saw etcd go back in time.
	FindFrozen = "frozen"
	// FindRecovering: nodes are still to say what they hold.
	FindRecovering = "recovering"
	// FindDisputed: two nodes know different things of one key.
	FindDisputed = "disputed"
)

// RecoveryFindings lists what a restore of etcd leaves for a person to do. It reads
// what etcd shows, also while that is not trusted, and asks nobody.
func (a *Allocator) RecoveryFindings() []Finding {
	var all []Finding
	r := a.Recovering()
	dry := problem.Advice{When: "look", Command: "poolctl cluster adopt-restore --dry-run"}
	if r.Meta.State == cluster.StateRecovering && !r.Meta.Adopted {
		all = append(all, Finding{Kind: FindFrozen, Subject: "cluster", Detail: frozenBy(r.Meta).Detail + ", since " + problem.Clock(r.Meta.Since), Try: []problem.Advice{
			{When: "when the restore was intended", Command: "poolctl cluster adopt-restore --dry-run"},
		}})
	}
	for _, w := range r.Waits {
		all = append(all, Finding{Kind: FindRecovering, Subject: "node " + w.Node, Detail: "granting waits for it: " + w.Why, Try: []problem.Advice{
			dry, {When: "start its agent", Command: "systemctl start poolagent   (on " + w.Node + ")"},
			{When: "the machine is off for good", Command: "poolctl cluster adopt-restore --yes --fence " + w.Node + ` --reason "…"`},
		}})
	}
	for _, c := range r.Conflicts {
		all = append(all, Finding{Kind: FindDisputed, Subject: c.Short(), Detail: c.Why + ": " + c.Ours.String() + "; " + c.Theirs.String(), Try: []problem.Advice{
			dry, {When: "take one side", Command: "poolctl cluster adopt-restore --yes --resolve " + c.Short() + "=NODE"},
		}})
	}
	for _, c := range r.Late {
		all = append(all, Finding{Kind: FindDisputed, Subject: c.Short(), Detail: "this node spoke too late, and etcd's word stands: " + c.Ours.String() + "; " + c.Theirs.String(), Try: []problem.Advice{
			{When: "end what runs under it on " + a.id.Node, Command: "poolctl uid probe UID"},
		}})
	}
	return all
}
