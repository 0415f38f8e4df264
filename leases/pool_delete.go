package leases

import (
	"context"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/problem"
)

// DeletePool removes a pool that nothing is held from: else ErrHeld names the
// holders. There is no force. The transaction compares that no claim in the
// pool's reach was written since the look that found none: one round trip for the
// look and one commit.
func (a *Allocator) DeletePool(ctx context.Context, name string) error {
	ctx, cancel := a.budget(ctx)
	defer cancel()
	for {
		if err := a.linearize(ctx); err != nil {
			return err
		}
		var c *child
		var err error
		a.mirror.read(func(v *view) {
			old, ok := v.pools[name]
			if !ok {
				err = unknownPool(v, name)
				return
			}
			if err = a.holdersOf(v, name, deleting); err != nil {
				return
			}
			key := poolKey(a.keys, name)
			c = &child{
				alone: true,
				cmps:  []clientv3.Cmp{sameValue(key, old.Raw), clientv3.Compare(clientv3.ModRevision(a.keys.PoolIndex()), "=", v.index), a.unwritten(name, old.Val, v.rev)},
				puts:  []put{{key: key}, {key: a.keys.PoolIndex(), value: cluster.Encode(map[string]any{"v": format, "w": shortToken()})}},
				gets:  []string{key, a.keys.PoolIndex()},
			}
		})
		if err != nil {
			return err
		}
		r := a.submit(ctx, "pool-delete", c)
		if r.err != nil {
			return r.err
		}
		a.reach(ctx, r.revision, time.Second)
		if r.applied {
			return nil
		}
		if ctx.Err() != nil {
			return problem.Wrap(problem.CodeUnavailable, context.Cause(ctx), "%s not deleted: its ids kept changing", name)
		}
	}
}

// unwritten compares that no claim which a pool could have made was written after
// rev.
func (a *Allocator) unwritten(name string, p *Pool, rev int64) clientv3.Cmp {
	reach := a.keys.ClaimsPrefix()
	if _, vlans := InventoryOf(name); vlans {
		reach = a.keys.ClaimsIn(cluster.Space(name))
	}
	from, end := reach, clientv3.GetPrefixRangeEnd(reach)
	if lo, ok := p.Ranges.Min(); ok && p.Scope == ScopeCluster && reach == a.keys.ClaimsPrefix() {
		hi, _ := p.Ranges.Max()
		from, end = a.keys.Claim(cluster.SpaceUID, lo), a.keys.Claim(cluster.SpaceUID, hi)+"\x00"
	}
	return clientv3.Compare(clientv3.ModRevision(from), "<", rev+1).WithRange(end)
}

// holdersOf refuses while claims are of the pool, and names some of them.
func (a *Allocator) holdersOf(v *view, name, not string) error {
	var refs []Ref
	for ref, c := range v.claims {
		if c.Val.Pool == name {
			refs = append(refs, ref)
		}
	}
	t, bare := tradeOf(name)
	if len(refs) == 0 {
		if p, ok := v.pools[name]; ok {
			return a.hidden(v, name, p.Val, not)
		}
		return nil
	}
	slices.SortFunc(refs, Ref.compare)
	e := problem.New(problem.CodeHeld, "%s %s %s: %d of its %s are held", t.pool, bare, not, len(refs), t.ids)
	for i, ref := range refs {
		if i == 5 {
			e.Note("and %d more", len(refs)-i)
			break
		}
		c := v.claims[ref].Val
		since := c.Since
		e.Note("%d: %s", ref.ID, problem.Holder{Caller: c.Caller, Holder: c.Holder, Nodes: c.NodeNames(), State: c.State.String(), Since: &since})
	}
	if !(poolEntry{name: name}).ofUIDs() {
		return e.Advise("look", "poolctl vlan list %s", bare).Advise("let no more out meanwhile", "poolctl vlan inventory set %s \"\"", bare)
	}
	return e.Advise("look", "poolctl uid list --pool %s", name).Advise("let no more out meanwhile", "poolctl uid pool set %s \"\"", name)
}
