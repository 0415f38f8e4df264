package robust

import (
	"context"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/test/e2e/robust/record"
	"github.com/idpool/idpool/test/e2e/robust/rig"
)

// newMixed is a client that wants uids and VLANs together, all or none, under one
// key.
func newMixed(c *client) *actor {
	m := &mixed{c}
	return &actor{client: c, act: m.life}
}

type mixed struct{ *client }

// create asks until the answer is certain, and tells which node gave it.
func (m *mixed) create(ctx context.Context, r api.AllocationRequest) (a api.Allocation, at *rig.Node, err error) {
	op := record.Op{Kind: record.Allocate, Key: r.Key}
	for _, i := range r.Items {
		op.Wants = append(op.Wants, record.Want{Pool: i.UIDPool, Inventory: i.VLANInventory, Count: int(max(i.Count, 1))})
	}
	err = m.settled(ctx, func() error {
		at = m.node()
		op.Node = at.Name()
		return m.call(ctx, op, func(ctx context.Context, op *record.Op) error {
			a, err = at.API().Allocations().Create(ctx, r)
			if err == nil {
				op.Token, op.IDs, op.Same = a.Token, itemIDs(a.Items), !a.Changed
			}
			return err
		})
	})
	return a, at, err
}

// delete ends an allocation at a node, mostly that which granted it; nil is any.
func (m *mixed) delete(ctx context.Context, at *rig.Node, key, token string) error {
	return m.settled(ctx, func() error {
		if at == nil || m.chance(10) {
			at = m.node()
		}
		return m.call(ctx, record.Op{Kind: record.Deallocate, Node: at.Name(), Key: key, Token: token}, func(ctx context.Context, op *record.Op) error {
			a, err := at.API().Allocations().Delete(ctx, key)
			if err == nil {
				op.Same = !a.Changed
			}
			return err
		})
	})
}

func (m *mixed) life(ctx, traffic context.Context) {
	defer func() { _ = m.w.pause(traffic, m.between(80, 400)) }()
	m.tidy(ctx)
	r := api.AllocationRequest{Key: m.key(), Items: []api.AllocationWant{
		{UIDPool: poolMixed, Count: uint32(1 + m.rnd.IntN(2))}, {VLANInventory: fabric, Count: uint32(1 + m.rnd.IntN(2))},
	}}
	gone := m.later(r.Key, func(ctx context.Context) error {
		err := m.delete(ctx, nil, r.Key, "")
		if problem.CodeOf(err) == problem.CodeNotFound {
			return nil
		}
		return err
	})
	a, at, err := m.create(ctx, r)
	if err != nil {
		if problem.CodeOf(err) == problem.CodeExhausted {
			gone()
		}
		return
	}
	_ = m.w.pause(traffic, m.between(50, 400))
	if m.chance(40) {
		_, _, _ = m.create(ctx, r) // the same ids
	}
	if m.chance(20) { // refused: the key stands for something else
		other := r
		other.Items = append(append([]api.AllocationWant{}, r.Items...), api.AllocationWant{VLANInventory: fabric})
		_, _, _ = m.create(ctx, other)
	}
	if m.chance(3) {
		return // forgotten until the end
	}
	if m.delete(ctx, at, r.Key, a.Token) == nil {
		gone()
	}
	if m.chance(20) {
		_ = m.delete(ctx, at, r.Key, a.Token)
	}
	if m.chance(20) { // refused: its grant is over
		_, _, _ = m.create(ctx, r)
	}
}
