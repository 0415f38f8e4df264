package leases

import (
	"time"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/problem"
)

// Identity is who an agent is.
type Identity struct {
	Node    string
	Role    string
	Machine string
	Boot    string
	PIDNS   uint64
	Version string
	PID     int
	Address string
}

// admission is what an agent may do that comes to its node's place in etcd.
type admission struct {
	// register: write this node record, members and a first proof.
	register *Node
	// takeOver: a presence of our own stands there and is replaced.
	takeOver bool
	// wait: a presence stands there that may be a ghost; how many TTLs it is given.
	wait int
	err  error
}

// admit decides how an agent enters (rules 11 to 13): pure. node and alive are
// what stands in etcd, nil if nothing does; mem is what the agent remembers.
func admit(id Identity, secret string, mem memory, node *Node, alive *Alive, now time.Time) admission {
	ours := alive != nil && alive.Secret == secret && alive.Machine == id.Machine
	fresh := &Node{V: format, State: nodeActive, Role: id.Role, Machine: id.Machine, Boot: id.Boot, PIDNS: id.PIDNS, Secret: secret, Since: now}
	switch {
	case alive != nil && !ours:
		return admission{wait: 1, err: problem.New(problem.CodeFenced, "node %s is run by another agent (%s, pid %d, %s): one node name, one agent", id.Node, address(alive), alive.PID, alive.Version).
			Advise("two machines", "poolagent --node ANOTHERNAME …").
			Advise("a moved data directory", "stop the other agent, then  poolctl node fence %s --reason …", id.Node)}
	case ours && !mem.knows(alive):
		return admission{err: problem.New(problem.CodeFenced, "node %s was cloned or rolled back: etcd has seen a session of it that its data directory has not", id.Node).
			Advise("when only one of the two runs", "poolctl node fence %s --reason …", id.Node)}
	case ours && node != nil && node.State == nodeActive && (node.Boot != id.Boot || node.PIDNS != id.PIDNS):
		// The ghost of a boot that is over goes within one TTL, or two where etcd's leader
		// changed. One that stays is renewed: by the machine that this one is a copy of,
		// where processes run on.
		return admission{wait: 2, err: problem.New(problem.CodeFenced, "node %s runs in another boot of this machine (%s, pid %d, %s), so one of the two is a copy", id.Node, address(alive), alive.PID, alive.Version).
			Advise("two machines", "give the copy a machine id of its own, remove its data directory, and  poolagent --node ANOTHERNAME …").
			Advise("if the other has ended", "start this agent again")}
	case node == nil && mem.Boot == id.Boot && !mem.Left:
		return admission{err: problem.New(problem.CodeFenced, "node %s was removed from the cluster in this boot: what ran under its uids may still run, while they were given to others", id.Node).
			Advise("first", "reboot the machine").
			Advise("if nothing of idpool runs here", "remove the agent's data directory")}
	case node == nil:
		return admission{register: fresh}
	case node.State == nodeFenced:
		return admission{err: problem.New(problem.CodeFenced, "node %s is fenced since %s (%s)", id.Node, problem.Clock(node.Since), node.Reason).
			Advise("after a reboot", "poolctl node unfence %s", id.Node)}
	case node.FencedBoot != "" && node.FencedBoot == id.Boot:
		return admission{err: problem.New(problem.CodeFenced, "node %s was fenced in this boot: what ran then may still run, while its ids were given to others", id.Node).
			Advise("first", "reboot the machine")}
	case node.State == nodeLeft:
		return admission{register: fresh, takeOver: ours}
	case node.Secret != secret || node.Machine != id.Machine:
		return admission{err: problem.New(problem.CodeFenced, "node %s is registered by another machine or data directory (machine %.12s, since %s)", id.Node, node.Machine, problem.Clock(node.Since)).
			Advise("two machines", "poolagent --node ANOTHERNAME …").
			Advise("the old one is gone for good", "poolctl node fence %s --reason … && poolctl node unfence %s", id.Node, id.Node)}
	case node.Boot != id.Boot || node.PIDNS != id.PIDNS || node.Role != id.Role:
		return admission{register: fresh, takeOver: ours}
	}
	return admission{takeOver: ours}
}

// returning prepares what an agent remembers and what stands at its place for
// [admit], where it comes from an epoch before the cluster's, or to a recovery: the
// registration there is as old as the snapshot. That it lacks this node, or says
// that it was fenced or has left, is then no word against it, and while nodes are
// gathered a registration of this machine, or of one that belonged to the cluster,
// takes it in under the secret that it has now. Pure.
func returning(id Identity, mem memory, meta cluster.Meta, node *Node, secret string) (memory, *Node) {
	if mem.Epoch == meta.Epoch || (mem.Epoch == "" && !meta.Adopted) {
		return mem, node
	}
	mem.Boot = ""
	if node == nil || !meta.Adopted || node.Epoch == meta.Epoch {
		return mem, node
	}
	strange := node.Secret != secret || node.Machine != id.Machine
	if node.State != nodeActive || (strange && (node.Machine == id.Machine || mem.Epoch != "")) {
		n := *node
		n.State, n.FencedBoot = nodeLeft, ""
		return mem, &n
	}
	return mem, node
}

func address(a *Alive) string {
	if a.Address == "" {
		return "no address"
	}
	return a.Address
}
