package agent

import (
	"context"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/vlan"
)

// fileView shows the VLANs of an inventory that is kept in a pool file: what the
// file says, and which service has it.
type fileView struct {
	name     string
	file     *vlan.PoolFile
	pool     idset.Set
	services map[uint32]*vlan.Service
}

// fileVLANs reads a pool file of this node; another's is refused.
func (c *core) fileVLANs(ctx context.Context, name string, p leases.PoolInfo, not string) (*fileView, error) {
	if p.Outside.On != c.engine.Node() {
		return nil, problem.New(problem.CodeInvalid, "%s: the VLANs of inventory %s are in %s on node %s, and this is %s", not, name, p.Outside.File, p.Outside.On, c.engine.Node()).
			Note("ask the agent of that node")
	}
	f, err := contents(ctx, name, p.Outside.File)
	if err != nil {
		return nil, err
	}
	v := &fileView{name: name, file: f, services: map[uint32]*vlan.Service{}}
	if from, to := f.Range(); from < to {
		v.pool = idset.Of(idset.Range{Lower: from, Higher: to - 1})
	}
	for _, s := range c.vlans.List(ctx) {
		for _, at := range s.Attributes {
			if at.Outside && at.Inventory == name && at.VID != nil {
				v.services[*at.VID] = &s
			}
		}
	}
	return v, nil
}

// vlan shows one id. Tokens are of etcd: here a service has the key.
func (f *fileView) vlan(id uint32) api.VLAN {
	v := api.VLAN{Inventory: f.name, VID: id, State: api.StateFree, InInventory: f.pool.Contains(id)}
	if e := f.file.Entry(id); e.Allocated {
		v.State, v.Key = api.StateUsed, e.Key
		if s := f.services[id]; s != nil {
			v.Service, v.Caller, v.Holder = s.Name, s.Caller, s.Holder
		}
	}
	return v
}

// list adds a page of what the filter selects, from an id on.
func (f *fileView) list(in *listVLANsIn, within *idset.Set, from uint32, page *api.List[api.VLAN]) {
	ids := f.file.Used()
	if in.State == api.StateFree {
		ids = f.pool.Remove(ids)
	}
	for id := range ids.All() {
		v := f.vlan(id)
		switch {
		case id < from, within != nil && !within.Contains(id),
			in.State != "" && in.State != v.State, in.Key != "" && in.Key != v.Key,
			in.Service != "" && in.Service != v.Service, in.Holder != "" && in.Holder != v.Holder:
			continue
		}
		if len(page.Items) == in.Limit {
			page.Next = decimal(int(page.Items[in.Limit-1].VID))
			return
		}
		page.Items = append(page.Items, v)
	}
}
