package leases

import (
	"context"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/problem"
)

// NodeAbsent is the state of a registered node without presence.
const NodeAbsent = "absent"

// NodeInfo is a node as it stands.
type NodeInfo struct {
	Name string
	// State is active, absent, left or fenced.
	State    string
	Node     Node
	Alive    *Alive
	LastSeen *time.Time
	Holds    map[string]uint64
	Proof    int64 // the revision of its last report
	// WaitedFor lists the quarantined ids that wait for its word.
	WaitedFor []Ref
}

// Nodes lists every registered node by name.
func (a *Allocator) Nodes() []NodeInfo {
	var all []NodeInfo
	a.mirror.read(func(v *view) {
		waited := v.waitedFor()
		for name := range v.nodes {
			all = append(all, v.nodeInfo(name, waited[name]))
		}
	})
	slices.SortFunc(all, func(x, y NodeInfo) int { return compareStrings(x.Name, y.Name) })
	return all
}

// NodeNamed returns one node; ErrNotFound if it is not registered.
func (a *Allocator) NodeNamed(name string) (NodeInfo, error) {
	var info NodeInfo
	var err error
	a.mirror.read(func(v *view) {
		if _, ok := v.nodes[name]; ok {
			info = v.nodeInfo(name, v.waitedFor()[name])
		} else {
			err = unknownNode(v, name)
		}
	})
	return info, err
}

// waitedFor lists by node the quarantined ids that wait for its word.
func (v *view) waitedFor() map[string][]Ref {
	waited := map[string][]Ref{}
	nodes := v.witnesses()
	for ref := range v.quarantined {
		for _, w := range v.weigh(ref, v.claims[ref]).waits(nodes) {
			waited[w.Node] = append(waited[w.Node], ref)
		}
	}
	return waited
}

func (v *view) nodeInfo(name string, waited []Ref) NodeInfo {
	n := v.nodes[name].Val
	info := NodeInfo{Name: name, State: n.State, Node: *n, LastSeen: v.seen(name), Holds: map[string]uint64{}, WaitedFor: waited}
	if al, ok := v.alive[name]; ok {
		info.Alive = al.Val
	} else if n.State == nodeActive {
		info.State = NodeAbsent
	}
	if p, ok := v.proofs[name]; ok && p.Val != nil {
		info.Proof = p.Val.Revision
	}
	for _, c := range v.claims {
		if c.Val.On(name) != nil {
			info.Holds[c.Val.State.String()]++
		}
	}
	slices.SortFunc(info.WaitedFor, Ref.compare)
	return info
}

// Fence is an operator's word that a machine is off: its ids need its proof no
// longer, and its grants end. Refused while its agent is present, unless forced
// (rule 13). With dry it writes nothing. It returns the ids that name the node or
// wait for it. One commit; the reaper then takes the node out of its claims.
func (a *Allocator) Fence(ctx context.Context, name, reason, by string, force, dry bool) ([]Ref, error) {
	if reason == "" && !dry {
		return nil, problem.New(problem.CodeInvalid, "fencing %s takes a reason: it is your word that the machine is off", name).
			Advise("as in", "poolctl node fence %s --reason \"power supply dead\"", name)
	}
	var refs []Ref
	err := a.changeNode(ctx, name, "fence", func(v *view, n *Node) (*Node, []clientv3.Cmp, []put, error) {
		refs = v.concern(name)
		alive, up := v.alive[name]
		switch {
		case n.State == nodeFenced:
			return nil, nil, nil, nil
		case up && !force:
			return nil, nil, nil, problem.New(problem.CodeHeld, "node %s not fenced: its agent is present (%s, pid %d), so the machine is not off", name, address(alive.Val), alive.Val.PID).
				Advise("to take it out of service", "poolctl node leave %s", name).
				Advise("if you know better", "poolctl node fence %s --force --reason …", name)
		case dry:
			return nil, nil, nil, nil
		}
		n.State, n.Reason, n.FencedBoot, n.Since = nodeFenced, clip(reason+" ("+by+")"), n.Boot, time.Now().UTC()
		if up {
			return n, []clientv3.Cmp{sameValue(a.keys.Alive(name), alive.Raw)}, []put{{key: a.keys.Alive(name)}}, nil
		}
		return n, []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(a.keys.Alive(name)), "=", 0)}, nil, nil
	})
	return refs, err
}

// concern lists the claims that name a node or wait for its word.
func (v *view) concern(name string) []Ref {
	set := map[Ref]bool{}
	for _, ref := range v.waitedFor()[name] {
		set[ref] = true
	}
	for ref, c := range v.claims {
		if c.Val.On(name) != nil {
			set[ref] = true
		}
	}
	refs := make([]Ref, 0, len(set))
	for ref := range set {
		refs = append(refs, ref)
	}
	slices.SortFunc(refs, Ref.compare)
	return refs
}

// Unfence lets a fenced node register again, in another boot than the fenced one
// (rule 13). One commit.
func (a *Allocator) Unfence(ctx context.Context, name, by string) error {
	return a.changeNode(ctx, name, "unfence", func(v *view, n *Node) (*Node, []clientv3.Cmp, []put, error) {
		switch n.State {
		case nodeLeft:
			return nil, nil, nil, nil
		case nodeActive:
			return nil, nil, nil, problem.New(problem.CodePrecondition, "node %s is not fenced", name)
		}
		if held := v.heldOn(name); held > 0 {
			return nil, nil, nil, problem.New(problem.CodeUnavailable, "node %s is still being taken out of %d claims; try again in a moment", name, held)
		}
		n.State, n.Reason, n.Since = nodeLeft, "unfenced by "+by, time.Now().UTC()
		return n, nil, nil, nil
	})
}

// Remove forgets a node that is fenced or left and that no claim names (rule 13).
// One commit.
func (a *Allocator) Remove(ctx context.Context, name string) error {
	return a.changeNode(ctx, name, "remove", func(v *view, n *Node) (*Node, []clientv3.Cmp, []put, error) {
		if n.State == nodeActive {
			return nil, nil, nil, problem.New(problem.CodePrecondition, "node %s not removed: it is %s", name, v.nodeInfo(name, nil).State).
				Advise("if it is off", "poolctl node fence %s --reason …", name).
				Advise("if it runs", "poolctl node leave %s", name)
		}
		for ref, c := range v.claims {
			if c.Val.On(name) != nil {
				return nil, nil, nil, problem.New(problem.CodeHeld, "node %s not removed: %s names it (%s)", name, label(ref), c.Val.why()).Advise("look", "poolctl %s", showOf(ref))
			}
		}
		return nil, []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(a.keys.Alive(name)), "=", 0)},
			[]put{{key: a.keys.Node(name)}, {key: a.keys.Proof(name)}}, nil
	})
}

func (v *view) heldOn(name string) int {
	n := 0
	for _, c := range v.claims {
		if c.Val.State.held() && c.Val.On(name) != nil {
			n++
		}
	}
	return n
}

// changeNode writes a decision on another node's registration, with members, in a
// transaction of its own. The decision returns no node and no puts for nothing
// to do.
func (a *Allocator) changeNode(ctx context.Context, name, did string, decide func(*view, *Node) (*Node, []clientv3.Cmp, []put, error)) error {
	ctx, cancel := a.budget(ctx)
	defer cancel()
	for {
		if err := a.linearize(ctx); err != nil {
			return err
		}
		var c *child
		var err error
		a.mirror.read(func(v *view) {
			old, ok := v.nodes[name]
			if !ok {
				err = unknownNode(v, name)
				return
			}
			n := *old.Val
			after, cmps, puts, e := decide(v, &n)
			if e != nil || (after == nil && puts == nil) {
				err = e
				return
			}
			key := a.keys.Node(name)
			c = &child{alone: true, puts: puts, gets: []string{key, a.keys.Members()}}
			c.cmps = append(cmps, sameValue(key, old.Raw), clientv3.Compare(clientv3.ModRevision(a.keys.Members()), "=", v.members.ModRev))
			if after != nil {
				after.Of, after.Epoch, after.Write = name, v.epoch(), shortToken()
				c.puts = append(c.puts, put{key: key, value: cluster.Encode(after)})
			}
			c.puts = append(c.puts, put{key: a.keys.Members(), value: cluster.Encode(Members{V: format, By: a.id.Node, Did: did + " " + name, Write: shortToken()})})
		})
		if err != nil || c == nil {
			return err
		}
		r := a.submit(ctx, did, c)
		if r.err != nil {
			return r.err
		}
		a.reach(ctx, r.revision, time.Second)
		if r.applied {
			return nil
		}
		if ctx.Err() != nil {
			return problem.Wrap(problem.CodeUnavailable, context.Cause(ctx), "node %s kept changing; nothing was done", name)
		}
	}
}

// Leave takes this node out cleanly (rules 37 and 38): it stops all writes and
// waits for those under way, raises the session's counter, reads what etcd has, scans, and only if nothing of ours
// runs and nobody bound may start anything does it write left. Else the node
// stays, and the error says why; stopped anyway it becomes absent. Two round
// trips and two commits.
func (a *Allocator) Leave(ctx context.Context) error {
	ctx, cancel := a.budget(ctx)
	defer cancel()
	a.mu.Lock()
	a.leaving = true
	a.mu.Unlock()
	a.inspect(ctx, a.chores(), false) // nobody here marks a claim idle afterwards
	err := a.batch.pause(ctx)
	if err == nil {
		err = a.leave(ctx)
	}
	if err != nil {
		a.batch.resume()
		a.mu.Lock()
		a.leaving = false
		a.mu.Unlock()
	}
	return err
}

func (a *Allocator) leave(ctx context.Context) error {
	g, err := a.session.current(ctx)
	if err != nil {
		return err
	}
	if err := a.session.raise(ctx, g); err != nil {
		return err
	}
	if err := a.linearize(ctx); err != nil {
		return err
	}
	seen, err := a.observation(ctx)
	if err != nil {
		return problem.Wrap(problem.CodeNoProof, err, "node %s cannot leave: it cannot tell what runs on it", a.id.Node)
	}
	if g, err = a.session.current(ctx); err != nil {
		return err
	}
	var node *Node
	var members int64
	a.mirror.read(func(v *view) {
		members = v.members.ModRev
		n, ok := v.nodes[a.id.Node]
		if !ok {
			err = unknownNode(v, a.id.Node)
			return
		}
		c := *n.Val
		node = &c
		for ref := range v.mine {
			if err = a.stays(ref, v.claims[ref].Val, seen); err != nil {
				return
			}
		}
	})
	if err != nil {
		return err
	}
	node.Of, node.State, node.Since, node.Reason, node.Epoch, node.Write = a.id.Node, nodeLeft, time.Now().UTC(), "left", g.epoch, shortToken()
	return a.seam.Do("leave", func() error { return a.session.leave(ctx, g, node, members) })
}

// stays says why a claim keeps this node from leaving, nil if it does not.
func (a *Allocator) stays(ref Ref, c *Claim, seen *observation) error {
	p := c.On(a.id.Node)
	why := ""
	switch {
	case !ref.vlan() && seen.runs(ref, c.Count):
		why = "a process runs under it"
	case p.Boot == a.id.Boot && seen.live[ref]:
		why = "a requester here may still start something"
	case p.kept() && c.State.held():
		why = "it is kept"
	case c.State == Used && !p.Idle:
		why = "it was not seen idle yet"
	case c.State == Locked:
		why = "it is being handed over"
	default:
		return nil
	}
	return problem.New(problem.CodeHeld, "node %s cannot leave: %s is %s and %s", a.id.Node, label(ref), c.State, why).
		Advise("look", "poolctl %s", showOf(ref)).
		Advise("stop the agent all the same", "the node is absent then, and its ids wait for it")
}
