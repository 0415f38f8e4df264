package leases

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/problem"
)

// set writes a key behind everybody's back.
func (w *world) set(key, value string, o ...clientv3.OpOption) {
	w.t.Helper()
	if _, err := w.client.Txn().Put(w.ctx(), key, value, o...); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) drop(key string) {
	w.t.Helper()
	if _, err := w.client.Txn().Delete(w.ctx(), key); err != nil {
		w.t.Fatal(err)
	}
}

// lease is one that nobody renews, and that outlasts the test.
func (w *world) lease() clientv3.OpOption {
	w.t.Helper()
	l, err := w.client.Renew().Grant(w.ctx(), 3600)
	if err != nil {
		w.t.Fatal(err)
	}
	return clientv3.WithLease(l.ID)
}

// edit changes a claim behind everybody's back.
func (w *world) edit(a *agent, ref Ref, change func(*Claim)) {
	w.t.Helper()
	a.sync()
	var c *Claim
	a.mirror.read(func(v *view) { c = v.claims[ref].Val.clone() })
	change(c)
	w.set(w.keys.Claim(ref.Space, ref.ID), string(mustJSON(c)))
}

func TestFindings(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kind, subject, detail string
		bend                  func(w *world, a *agent, g *Grant)
	}{
		{"", "", "", func(*world, *agent, *Grant) {}},
		{FindLockWithoutClaim, "uid 1007", "nobody has the id", func(w *world, _ *agent, _ *Grant) {
			w.set(w.keys.Lock("uid", 1007), NewToken(), w.lease())
		}},
		{FindLockWithoutClaim, "uid 1000", "the id is used", func(w *world, a *agent, g *Grant) {
			w.edit(a, g.ref(), func(c *Claim) { c.State, c.Nodes[0].Requesters[0].Keep = Used, true })
		}},
		{FindClaimWithoutHolder, "uid 1000", "is of n9, which the cluster does not know", func(w *world, a *agent, g *Grant) {
			w.edit(a, g.ref(), func(c *Claim) { c.Nodes[0].Node = "n9" })
		}},
		{FindClaimWithoutHolder, "uid 1000", "names no node", func(w *world, a *agent, g *Grant) {
			w.edit(a, g.ref(), func(c *Claim) { c.Nodes = nil })
		}},
		{FindGroupDisagrees, "grant K of tenant", "does not have any more: uid 1000", func(w *world, _ *agent, g *Grant) {
			w.drop(w.keys.Claim("uid", 1000))
			w.drop(w.keys.Lock("uid", 1000))
		}},
		{FindGroupDisagrees, "uid 1000", "has no record", func(w *world, _ *agent, _ *Grant) { w.drop(w.keys.Grant("tenant", "key:K")) }},
		{FindUsedWithoutProcess, "pool p", "for more than a day: 1000", func(w *world, a *agent, g *Grant) {
			w.edit(a, g.ref(), func(c *Claim) {
				c.State, c.Since = Idle, time.Now().Add(-25*time.Hour)
				c.Nodes[0].Idle, c.Nodes[0].Confirmed, c.Nodes[0].Requesters = true, true, nil
			})
			w.drop(w.keys.Lock("uid", 1000))
		}},
		{FindOutsidePool, "pool p", "1 id is held outside of it", func(_ *world, a *agent, _ *Grant) { a.pool("p", "1001-1009") }},
		{FindForeign, "uid 1005", "in use on n1", func(_ *world, a *agent, _ *Grant) {
			if err := a.foreign(a.w.ctx(), uid(1005), "p", 1); err != nil {
				t.Error(err)
			}
		}},
		{FindNodeWithoutProof, "node n2", "its agent is absent", func(w *world, a *agent, _ *Grant) {
			b := w.node("n2")
			b.crash()
			b.expire()
		}},
	} {
		t.Run(c.kind+" "+c.subject, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := w.node("n1")
			a.pool("p", "1000-1009")
			g := a.get(a.m.born("r"), exact(1000), withKey("K"))
			c.bend(w, a, g)
			found, err := a.Findings(w.ctx())
			if err != nil {
				t.Fatal(err)
			}
			if c.kind == "" {
				if len(found) > 0 {
					t.Errorf("a healthy cluster: %+v", found)
				}
				return
			}
			at := slices.IndexFunc(found, func(f Finding) bool {
				return f.Kind == c.kind && f.Subject == c.subject && strings.Contains(f.Detail, c.detail)
			})
			if at < 0 || len(found[at].Try) == 0 {
				t.Errorf("found %+v", found)
			}
			if len(found) > 1 {
				t.Errorf("one thing is wrong, %d are found: %+v", len(found), found)
			}
		})
	}
}

func TestRepair(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000-1009")
	g := a.get(a.m.born("r"), exact(1000))
	stray, strange := w.keys.Lock("uid", 1007), w.keys.Root()+"scribble"
	w.set(stray, NewToken(), w.lease())
	w.set(strange, "x")
	w.set(w.keys.Claim("uid", 1008), "poison")
	w.set(w.keys.Lock("uid", 1008), NewToken(), w.lease())
	plan, err := a.Repairs(w.ctx())
	if err != nil || len(plan) != 2 || plan[0].Key != stray || plan[1].Key != strange {
		t.Fatalf("%+v, %v", plan, err)
	}
	for _, r := range plan {
		if err := a.Repair(w.ctx(), r); err != nil {
			t.Error(err)
		}
		if err := a.Repair(w.ctx(), r); err != nil {
			t.Errorf("once more: %v", err)
		}
	}
	if left, err := a.Repairs(w.ctx()); err != nil || len(left) != 0 {
		t.Errorf("%+v, %v", left, err)
	}
	w.mustBe(g.ref(), Locked)
	if _, held, err := w.lock(g.ref()); err != nil || !held {
		t.Errorf("the lock of a grant is gone: %v", err)
	}
}

// TestRepairRestsOnWhatItFound: a claim that is granted between plan and repair
// keeps its lock, and a key that was written anew stays.
func TestRepairRestsOnWhatItFound(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000-1009")
	strange := w.keys.Root() + "scribble"
	w.set(w.keys.Lock("uid", 1007), NewToken(), w.lease())
	w.set(strange, "x")
	plan, err := a.Repairs(w.ctx())
	if err != nil || len(plan) != 2 {
		t.Fatalf("%+v, %v", plan, err)
	}
	w.set(strange, "y")
	mustErr(t, a.Repair(w.ctx(), plan[1]), problem.ErrPrecondition, "has changed since")
	a.get(a.m.born("r"), exact(1007))
	mustErr(t, a.Repair(w.ctx(), plan[0]), problem.ErrPrecondition, "has changed since")
	if _, held, err := w.lock(uid(1007)); err != nil || !held {
		t.Errorf("the lock of a grant is gone: %v", err)
	}
}

// lock reads a lock from etcd.
func (w *world) lock(ref Ref) (lease int64, held bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	resp, err := w.client.Txn().Get(ctx, w.keys.Lock(ref.Space, ref.ID))
	if err != nil || len(resp.Kvs) == 0 {
		return 0, false, err
	}
	return resp.Kvs[0].Lease, true, nil
}
