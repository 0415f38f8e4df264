package vlan

import (
	"context"
	"errors"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/problem"
)

// Deallocation names one VLAN that is to be given back by itself, and the grant
// that ends.
type Deallocation struct {
	Inventory string
	// VID is the VLAN; 0 is one. nil: what stands under Key.
	VID *uint32
	// Token is the grant's; "" is whatever grant the caller has of it.
	Token string
	// Key is the allocation key.
	Key string
	By  By
}

// Deallocate gives one VLAN back: read, then delete (the handler of that name in
// the system that this replaces). What is free already, or belongs to another
// grant than the one named, is done: false, and nothing is written. It can be
// repeated until it works.
//
// A VLAN of an outside inventory is given back on the node that keeps it, by its
// key; by number alone only by operators. Errors: ErrHeld for a VLAN of a
// service, which ends with its service; ErrForbidden for another caller's;
// ErrNotFound (inventory, key); ErrUnavailable, ErrOutcomeUnknown: repeat it.
func (a *Allocator) Deallocate(ctx context.Context, d Deallocation) (bool, error) {
	if err := cluster.ValidName(d.Inventory); err != nil {
		return false, problem.Wrap(problem.CodeInvalid, err, "inventory")
	}
	if d.VID == nil && d.Key == "" {
		return false, problem.New(problem.CodeInvalid, "inventory %s: name the VLAN, or its key", d.Inventory)
	}
	if err := a.engine.Sync(ctx); err != nil {
		return false, err
	}
	info, err := a.engine.Pool(leases.VLANPool(d.Inventory))
	switch {
	case err != nil:
		return false, err
	case info.Outside != nil:
		return a.deallocateOutside(ctx, d, info.Outside.On)
	case d.VID == nil:
		return a.deallocateKey(ctx, d)
	}
	return a.deallocateRef(ctx, d, leases.Ref{Space: cluster.VLANSpace(d.Inventory), ID: *d.VID})
}

// deallocateKey ends what the caller was granted under a key.
func (a *Allocator) deallocateKey(ctx context.Context, d Deallocation) (bool, error) {
	refs, token, err := a.engine.Find(ctx, d.By.Caller, d.Key)
	if errors.Is(err, problem.ErrKeyEnded) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if d.Token != "" && d.Token != token {
		return false, nil
	}
	d.Token = token
	changed := false
	for _, ref := range refs {
		if inv, ok := ref.Space.Inventory(); !ok || inv != d.Inventory {
			continue
		}
		did, err := a.deallocateRef(ctx, d, ref)
		if err != nil {
			return changed, err
		}
		changed = changed || did
	}
	return changed, nil
}

func (a *Allocator) deallocateRef(ctx context.Context, d Deallocation, ref leases.Ref) (bool, error) {
	info := a.engine.Get(ctx, ref)
	c := info.Claim
	switch {
	case info.Unread != nil:
		return false, info.Unread
	case c == nil, d.Token != "" && c.Token != d.Token, c.State == leases.Quarantined:
		return false, nil
	case d.Key != "" && c.Key != d.Key:
		return false, nil
	}
	h := problem.Holder{Caller: c.Caller, Holder: c.Holder, Key: c.Key, State: c.State.String(), Since: &c.Since}
	switch {
	case c.Service != "":
		return false, ofService(d.Inventory, ref.ID, c.Service).By(h)
	case c.State == leases.Reserved:
		return false, problem.New(problem.CodeHeld, "VLAN %d of %s not given back: it is reserved (%s)", ref.ID, d.Inventory, c.Reason).By(h)
	case !d.By.Operator && c.Caller != d.By.Caller:
		return false, problem.New(problem.CodeForbidden, "VLAN %d of %s not given back: it is held by %s, and you are %s", ref.ID, d.Inventory, h, d.By.Caller).By(h)
	}
	_, changed, err := a.engine.Release(ctx, leases.Release{Refs: []leases.Ref{ref}, Token: c.Token, Whole: true, By: d.By.Caller})
	return changed, err
}

func ofService(inventory string, vid uint32, service string) *problem.Error {
	return problem.New(problem.CodeHeld, "VLAN %d of %s not given back: it is of service %s and ends with it", vid, inventory, service).
		Advise("end the service", "poolctl vlan service delete %s", service).
		Advise("or take it out", "poolctl vlan service patch %s --drop ATTRIBUTE", service)
}

// deallocateOutside gives a VLAN back to the file that keeps it.
func (a *Allocator) deallocateOutside(ctx context.Context, d Deallocation, on string) (bool, error) {
	if on != a.engine.Node() {
		return false, problem.New(problem.CodeUnavailable, "inventory %s is kept by node %s; nothing was done here", d.Inventory, on).
			Advise("ask its agent", "poolctl --agent … vlan release %s", d.Inventory)
	}
	if d.Key == "" && !d.By.Operator {
		return false, problem.New(problem.CodeForbidden, "VLAN %d of %s not given back: name its key, or be an operator: its file does not say whose it is", *d.VID, d.Inventory)
	}
	inv, err := a.inventory(d.Inventory)
	if err != nil {
		return false, err
	}
	if d.VID == nil {
		vid, found, err := inv.Find(ctx, d.Key)
		if err != nil || !found {
			return false, err
		}
		d.VID = &vid
	}
	e, err := inv.Read(ctx, *d.VID)
	switch {
	case err != nil:
		return false, err
	case !e.Allocated, d.Key != "" && e.Keyed && e.Key != d.Key:
		return false, nil
	}
	if s := a.serviceOf(ctx, d.Inventory, *d.VID, e); s != "" {
		return false, ofService(d.Inventory, *d.VID, s)
	}
	guarded := Guarded(ctx, func(ctx context.Context) error { // a service may have come to have it
		if err := a.engine.Sync(ctx); err != nil {
			return err
		}
		if s := a.serviceOf(ctx, d.Inventory, *d.VID, e); s != "" {
			return ofService(d.Inventory, *d.VID, s)
		}
		return nil
	})
	if err := inv.Release(guarded, *d.VID, e.Key); err != nil {
		return false, err
	}
	return true, nil
}

// serviceOf is the service that a VLAN of an outside inventory belongs to, or
// may come to belong to; "" if none does.
func (a *Allocator) serviceOf(ctx context.Context, inventory string, vid uint32, e Entry) string {
	for _, s := range a.List(ctx) {
		for i := range s.Attributes {
			at := &s.Attributes[i]
			if !at.Outside || at.Inventory != inventory || !at.pending() {
				continue
			}
			if (at.VID != nil && *at.VID == vid && (!e.Keyed || e.Key == at.Key)) || (e.Keyed && e.Key == at.Key) {
				return s.Name
			}
		}
	}
	return ""
}
