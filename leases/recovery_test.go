package leases

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/cluster/clustertest"
	"github.com/idpool/idpool/problem"
)

// restores are the ways in which a snapshot comes back.
var restores = map[string]clustertest.RestoreOptions{
	"same token":           {},
	"new token":            {NewToken: true},
	"same token, bumped":   {Bump: 1_000_000, MarkCompacted: true},
	"new token and bumped": {NewToken: true, Bump: 1_000_000, MarkCompacted: true},
}

// restoring is a world on an etcd of its own, with nodes that run all their loops.
type restoring struct {
	*world
	etcd  *clustertest.Cluster
	nodes []*agent
	// held are the grants, as their callers know them.
	held []*Grant
}

func newRestoring(t *testing.T, nodes ...string) *restoring {
	t.Helper()
	etcd := clustertest.Start(t)
	r := &restoring{world: worldAt(t, etcd.Endpoints(), func(c *cluster.Config) {
		c.LeaseTTL, c.Attempt, c.Budget = 3*time.Second, time.Second, 8*time.Second
	}), etcd: etcd}
	for _, n := range nodes {
		r.nodes = append(r.nodes, r.running(n))
	}
	r.nodes[0].pool("p", "1000-1999")
	r.nodes[0].vlanPool("a", "100-299")
	return r
}

func (a *agent) vlanPool(name, ranges string) { a.pool(VLANPool(name), ranges) }

// take grants n uids and a VLAN for each node, a third of the uids confirmed with a
// process, a third with a live requester.
func (r *restoring) take(n int, nodes ...*agent) {
	r.t.Helper()
	for _, a := range nodes {
		a.sync()
		for range n {
			name := fmt.Sprintf("r%d", len(r.held))
			g := a.get(a.m.born(name))
			if len(r.held)%3 == 0 {
				a.m.start(g.ref().ID)
				a.confirm(g, false, true)
				a.m.die(name)
			}
			r.held = append(r.held, g)
		}
		r.held = append(r.held, a.get(Requester{}, withKey("v-"+NewToken()), wants(Want{Pool: VLANPool("a"), Count: 1})))
	}
}

func (r *restoring) frozen(nodes ...*agent) {
	r.t.Helper()
	for _, a := range nodes {
		until(r.t, a.id.Node+" refuses", func() bool {
			_, err := a.ask(a.m.born("never"))
			if err == nil {
				r.t.Fatalf("%s grants in a restored etcd", a.id.Node)
			}
			return errors.Is(err, problem.ErrFrozen)
		})
	}
}

// adopt is an operator's command, without waiting for the nodes.
func (r *restoring) adopt(o AdoptOptions) {
	r.t.Helper()
	o.By, o.Reason = "op", "test"
	if err := Adopt(r.ctx(), r.client, o); err != nil {
		r.t.Fatal(err)
	}
}

func (r *restoring) normal(nodes ...*agent) {
	r.t.Helper()
	defer func() {
		if r.t.Failed() {
			p, err := Progress(r.ctx(), r.client)
			if err == nil {
				r.t.Logf("%+v, waits for %v, disputed %v", p.Meta, p.Waits, p.Conflicts)
			}
		}
	}()
	for _, a := range nodes {
		until(r.t, a.id.Node+" grants again", func() bool {
			select {
			case <-a.done:
				r.t.Fatalf("%s ended: %v", a.id.Node, a.err)
			default:
			}
			return a.session.refusal() == nil && a.guardNow() != nil && !a.staleNow() && a.gate.isTrusted()
		})
	}
}

// allHeld is P1 and P8: each grant stands under its token, and whoever asks gets
// something else.
func (r *restoring) allHeld(asks int, nodes ...*agent) {
	r.t.Helper()
	taken := map[Ref]string{}
	for _, g := range r.held {
		for _, h := range g.Held {
			c := r.claim(h.Ref)
			if c == nil || c.Token != g.Token {
				r.t.Errorf("%s was granted under %s, and is %+v", h.Ref, g.Token, c)
			} else if c.State != Locked && c.State != Used && c.State != Idle {
				r.t.Errorf("%s is %s: %s", h.Ref, c.State, c.Reason)
			}
			taken[h.Ref] = g.Token
		}
	}
	for i := range asks {
		a := nodes[i%len(nodes)]
		g := a.get(a.m.born(fmt.Sprint("after", i)))
		v := a.get(Requester{}, withKey("v-"+NewToken()), wants(Want{Pool: VLANPool("a"), Count: 1}))
		for _, ref := range []Ref{g.ref(), v.ref()} {
			if by := taken[ref]; by != "" {
				r.t.Errorf("%s is granted again, to %s beside %s", ref, g.Token, by)
			}
			taken[ref] = g.Token
		}
	}
}

// TestRestoreKeepsGrants: snapshot, a hundred more grants, restore; each way, nothing
// of the hundred is granted to another, and all are held again.
func TestRestoreKeepsGrants(t *testing.T) {
	for name, opts := range restores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRestoring(t, "n1", "n2")
			r.take(5, r.nodes...)
			file := r.etcd.Snapshot(t)
			r.take(50, r.nodes...)
			r.etcd.Restore(t, file, opts)
			r.frozen(r.nodes...)
			r.adopt(AdoptOptions{})
			r.normal(r.nodes...)
			r.allHeld(50, r.nodes...)
			until(t, "the marks are cleared up", func() bool {
				return len(r.stored(r.keys.RecoveredPrefix()))+len(r.stored(r.keys.RecoveryPrefix())) == 0
			})
		})
	}
}

// back starts a node again whose agent had ended, on its home and machine.
func (r *restoring) back(a *agent) *agent {
	r.t.Helper()
	return r.spawn(a.id.Node, a.home, a.m, true)
}

// TestRestoreFromJournals: every agent ends before the restore and starts after it,
// so that nothing but the journals knows of the grants.
func TestRestoreFromJournals(t *testing.T) {
	t.Parallel()
	r := newRestoring(t, "n1", "n2")
	r.take(5, r.nodes...)
	file := r.etcd.Snapshot(t)
	r.take(20, r.nodes...)
	for _, a := range r.nodes {
		a.crash()
	}
	r.etcd.Restore(t, file, clustertest.RestoreOptions{NewToken: true, Bump: 1000, MarkCompacted: true})
	for _, a := range r.nodes {
		r.refusedStart(a.id.Node, a.home, a.m, problem.ErrFrozen, "gone back in time")
	}
	r.adopt(AdoptOptions{})
	for i, a := range r.nodes {
		r.nodes[i] = r.back(a)
	}
	r.normal(r.nodes...)
	r.allHeld(20, r.nodes...)
}

// TestRestoreNoticedByANewcomer: an agent that has never seen the cluster grants
// nothing in a restored etcd either (trace 15).
func TestRestoreNoticedByANewcomer(t *testing.T) {
	t.Parallel()
	for _, opts := range restores {
		r := newRestoring(t, "n1")
		r.take(5, r.nodes...)
		file := r.etcd.Snapshot(t)
		r.nodes[0].crash()
		r.etcd.Restore(t, file, opts)
		r.refusedStart("n2", t.TempDir(), newMachine("n2"), problem.ErrFrozen, "raft index")
		if m, _, err := r.client.ReadMeta(r.ctx()); err != nil || m.State != cluster.StateRecovering || m.By != "n2" {
			t.Errorf("%+v: %+v, %v", opts, m, err)
		}
	}
}

// TestRestoreWaitsForANode: one that is off while the restore is adopted, and that
// was registered after the snapshot, comes back later; granting waits (trace 23).
func TestRestoreWaitsForANode(t *testing.T) {
	t.Parallel()
	r := newRestoring(t, "n1")
	r.take(5, r.nodes...)
	file := r.etcd.Snapshot(t)
	off := r.running("n2")
	r.take(20, off)
	off.crash()
	r.take(5, r.nodes[0])
	r.nodes[0].crash() // nobody has seen what n2 holds
	r.etcd.Restore(t, file, clustertest.RestoreOptions{})
	r.refusedStart("n1", r.nodes[0].home, r.nodes[0].m, problem.ErrFrozen)
	r.adopt(AdoptOptions{Nodes: []string{"n2"}})
	r.nodes[0] = r.back(r.nodes[0])
	until(t, "n1 has spoken", func() bool {
		p, err := Progress(r.ctx(), r.client)
		return err == nil && len(p.Waits) == 1 && p.Waits[0].Node == "n2"
	})
	r.frozen(r.nodes[0])
	off = r.back(off)
	r.normal(r.nodes[0], off)
	r.allHeld(20, r.nodes[0], off)
}

// TestRestoreMoreWords: an operator names one node too many, and takes it back. The
// adoption that is under way goes on; no other one begins.
func TestRestoreMoreWords(t *testing.T) {
	t.Parallel()
	r := newRestoring(t, "n1")
	r.take(3, r.nodes...)
	file := r.etcd.Snapshot(t)
	r.take(3, r.nodes...)
	r.etcd.Restore(t, file, clustertest.RestoreOptions{})
	r.frozen(r.nodes...)
	r.adopt(AdoptOptions{Nodes: []string{"n17"}})
	until(t, "only n17 is waited for", func() bool {
		p, err := Progress(r.ctx(), r.client)
		return err == nil && len(p.Waits) == 1 && p.Waits[0].Node == "n17"
	})
	r.adopt(AdoptOptions{Fence: []string{"n17"}})
	r.normal(r.nodes...)
	r.allHeld(5, r.nodes...)
	if m, _, err := r.client.ReadMeta(r.ctx()); err != nil || m.Number != 2 {
		t.Errorf("%+v, %v", m, err)
	}
}

// TestRestoreDispute: two histories grew from one snapshot, and a node of each knows
// the same id as its own. An operator decides.
func TestRestoreDispute(t *testing.T) {
	t.Parallel()
	r := newRestoring(t, "n1", "n2")
	g := r.nodes[0].get(r.nodes[0].m.born("r"), exact(1500))
	r.nodes[0].m.start(1500)
	r.nodes[0].confirm(g, false, true)
	n2 := r.nodes[1]
	n2.sync()
	file := r.etcd.Snapshot(t)
	r.etcd.Restore(t, file, clustertest.RestoreOptions{})
	r.frozen(r.nodes...)
	// As after a grant in a copy that nobody noticed: another epoch of the same number.
	key := "claims/uid/0000001500"
	other := *r.claim(g.ref())
	other.Token, other.Caller, other.Nodes = NewToken(), "other", []Presence{{Node: "n2", Boot: n2.m.boot}}
	if err := n2.journal.note([]jentry{{Key: key, Value: cluster.Encode(&other), Rev: 500, Epoch: epochOther, Number: 1}}); err != nil {
		t.Fatal(err)
	}
	n2.m.start(1500)
	r.adopt(AdoptOptions{})
	until(t, "it is disputed", func() bool {
		p, err := Progress(r.ctx(), r.client)
		return err == nil && len(p.Waits) == 0 && len(p.Conflicts) > 0 && p.Conflicts[0].Short() == "uid/1500" && p.Conflicts[0].Ours.Node == "n2"
	})
	r.frozen(r.nodes...)
	r.adopt(AdoptOptions{Resolve: map[string]string{"uid/1500": "n2"}})
	r.normal(r.nodes...)
	if c := r.claim(g.ref()); c == nil || c.Token != other.Token {
		t.Errorf("the operator's word is not taken: %+v", c)
	}
}

// TestRestoreFencedNodeReturns: a node that the operator said to be off is not waited
// for; it comes back after a reboot, holds nothing, and grants.
func TestRestoreFencedNodeReturns(t *testing.T) {
	t.Parallel()
	r := newRestoring(t, "n1", "n2")
	r.take(5, r.nodes...)
	file := r.etcd.Snapshot(t)
	r.take(10, r.nodes[0])
	kept := r.held
	lost := r.nodes[1]
	r.take(5, lost)
	lost.crash()
	r.etcd.Restore(t, file, clustertest.RestoreOptions{NewToken: true})
	r.frozen(r.nodes[0])
	r.adopt(AdoptOptions{Fence: []string{"n2"}})
	r.normal(r.nodes[0])
	r.refusedStart("n2", lost.home, lost.m, problem.ErrFenced, "fenced")
	lost.m.reboot()
	until(t, "n2 is taken out", func() bool { return r.nodes[0].Unfence(r.ctx(), "n2", "op") == nil })
	lost = r.back(lost)
	r.normal(lost)
	r.held = nil
	for _, g := range kept {
		if c := r.claim(g.ref()); c != nil && c.On("n2") == nil {
			r.held = append(r.held, g)
		}
	}
	if len(r.held) < 15 {
		t.Fatalf("%d grants are left", len(r.held))
	}
	r.allHeld(10, r.nodes[0], lost)
}

// TestRestoreDataDirectoryLost: a node comes back without its data directory, and
// was registered after the snapshot: what runs on it is kept out of the pool. What
// another agent saw of it is put back.
func TestRestoreDataDirectoryLost(t *testing.T) {
	t.Parallel()
	for _, seen := range []bool{false, true} {
		r := newRestoring(t, "n1")
		r.take(2, r.nodes...)
		file := r.etcd.Snapshot(t)
		off := r.running("n2")
		kept := len(r.held)
		r.take(6, off)
		for _, g := range r.held[kept:] {
			if !g.ref().vlan() {
				off.m.start(g.ref().ID)
			}
		}
		if seen {
			r.nodes[0].sync()
		}
		off.crash()
		if !seen {
			r.nodes[0].crash()
		}
		r.etcd.Restore(t, file, clustertest.RestoreOptions{})
		if !seen {
			r.refusedStart("n1", r.nodes[0].home, r.nodes[0].m, problem.ErrFrozen)
		} else {
			r.frozen(r.nodes[0])
		}
		r.adopt(AdoptOptions{Nodes: []string{"n2"}})
		if !seen {
			r.nodes[0] = r.back(r.nodes[0])
		}
		off.home = t.TempDir()
		off = r.back(off)
		r.normal(r.nodes[0], off)
		gone := r.held[kept:]
		if !seen {
			r.held = r.held[:kept]
		}
		r.allHeld(0)
		for _, g := range gone {
			if c := r.claim(g.ref()); !g.ref().vlan() && c == nil {
				t.Errorf("%s is free, and a process runs under it", g.ref())
			}
		}
	}
}

// TestRestoreOfTheSameSnapshotAgain: what was granted after the first adoption
// outlives a second restore too.
func TestRestoreOfTheSameSnapshotAgain(t *testing.T) {
	t.Parallel()
	r := newRestoring(t, "n1", "n2")
	r.take(3, r.nodes...)
	file := r.etcd.Snapshot(t)
	for range 2 {
		r.take(5, r.nodes...)
		r.etcd.Restore(t, file, clustertest.RestoreOptions{})
		r.frozen(r.nodes...)
		r.adopt(AdoptOptions{})
		r.normal(r.nodes...)
	}
	r.allHeld(10, r.nodes...)
}

// TestRestoreFalseAlarm: a node that looked at a copy freezes a cluster that is as it
// was; adopting heals it, and nobody loses anything.
func TestRestoreFalseAlarm(t *testing.T) {
	t.Parallel()
	r := newRestoring(t, "n1", "n2")
	r.take(5, r.nodes...)
	m, raw, err := r.client.ReadMeta(r.ctx())
	if err != nil {
		t.Fatal(err)
	}
	_ = r.nodes[0].session.audit.freeze(r.ctx(), raw, "a copy")
	r.frozen(r.nodes...)
	r.adopt(AdoptOptions{})
	r.normal(r.nodes...)
	r.take(5, r.nodes...)
	r.allHeld(10, r.nodes...)
	if now, _, err := r.client.ReadMeta(r.ctx()); err != nil || now.Number != m.Number+1 || !now.Follows(m.Epoch) {
		t.Errorf("%+v, %v", now, err)
	}
}

// TestRestoreLateNode: granting has resumed without a node that nobody named; its
// running process meets another holder of nothing, and what it holds is put back.
func TestRestoreLateNode(t *testing.T) {
	t.Parallel()
	r := newRestoring(t, "n1")
	r.take(2, r.nodes...)
	file := r.etcd.Snapshot(t)
	off := r.running("n2")
	r.take(6, off)
	off.crash()
	r.nodes[0].crash()
	r.etcd.Restore(t, file, clustertest.RestoreOptions{})
	r.refusedStart("n1", r.nodes[0].home, r.nodes[0].m, problem.ErrFrozen)
	r.adopt(AdoptOptions{})
	r.nodes[0] = r.back(r.nodes[0])
	r.normal(r.nodes[0])
	off = r.back(off)
	r.normal(off)
	r.allHeld(10, r.nodes[0], off)
}
