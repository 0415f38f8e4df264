package leases

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
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
		r.held = append(r.held, a.get(Requester{ID: NewToken(), Hold: HoldNone}, wants(Want{Pool: VLANPool("a"), Count: 1})))
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
			if !errors.Is(err, problem.ErrFrozen) {
				r.t.Log(err)
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
			r.t.Logf("%+v, %v", p, err)
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
		v := a.get(Requester{ID: NewToken(), Hold: HoldNone}, wants(Want{Pool: VLANPool("a"), Count: 1}))
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

var _ = context.Canceled
var _ = flag.Parsed
var _ = os.Getenv
