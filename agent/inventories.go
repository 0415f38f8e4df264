package agent

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/problem"
)

type inventoryPath struct {
	Inventory string `path:"inventory" maxLength:"63" doc:"name of a VLAN inventory"`
}

type inventoryOut struct {
	Status int
	Body   api.Inventory
}

type inventoriesOut struct{ Body api.List[api.Inventory] }

type putInventoryIn struct {
	Inventory string `path:"inventory" maxLength:"63" doc:"name of a VLAN inventory"`
	DryRun    bool   `query:"dry_run" doc:"say what would be stored, store nothing"`
	Body      api.Inventory
}

type patchInventoryIn struct {
	Inventory string `path:"inventory" maxLength:"63" doc:"name of a VLAN inventory"`
	DryRun    bool   `query:"dry_run" doc:"say what would be stored, store nothing"`
	Body      api.InventoryPatch
}

func (s *server) inventoryRoutes() {
	tags := []string{"inventories"}
	add(s, huma.Operation{OperationID: "list-vlan-inventories", Method: http.MethodGet, Path: "/v1/vlan-inventories", Summary: "VLAN inventories with their counts", Tags: tags}, s.listInventories)
	add(s, huma.Operation{OperationID: "get-vlan-inventory", Method: http.MethodGet, Path: "/v1/vlan-inventories/{inventory}", Summary: "One inventory", Tags: tags}, s.getInventory)
	add(s, huma.Operation{OperationID: "put-vlan-inventory", Method: http.MethodPut, Path: "/v1/vlan-inventories/{inventory}", Summary: "Create or replace an inventory", Tags: tags}, s.putInventory)
	add(s, huma.Operation{OperationID: "patch-vlan-inventory", Method: http.MethodPatch, Path: "/v1/vlan-inventories/{inventory}", Summary: "Change an inventory: add, then remove, then replace", Tags: tags}, s.patchInventory)
	add(s, huma.Operation{OperationID: "delete-vlan-inventory", Method: http.MethodDelete, Path: "/v1/vlan-inventories/{inventory}", Summary: "Delete an inventory that nothing is held from", Tags: tags}, s.deleteInventory)
	add(s, huma.Operation{OperationID: "import-vlan-inventory", Method: http.MethodPost, Path: "/v1/vlan-inventories/{inventory}/import", Summary: "Take over what a pool file has in use", Tags: tags, SkipValidateBody: true}, s.importFile)
	add(s, huma.Operation{OperationID: "export-vlan-inventory", Method: http.MethodGet, Path: "/v1/vlan-inventories/{inventory}/export", Summary: "The inventory as a pool file", Tags: tags, Responses: map[string]*huma.Response{
		"200": {Description: "the pool file", Content: map[string]*huma.MediaType{"application/json": {Schema: &huma.Schema{Type: huma.TypeObject}}}},
	}}, s.exportFile)
}

func (s *server) listInventories(ctx context.Context, _ caller, _ *pageIn) (*inventoriesOut, error) {
	c, err := s.a.serving(ctx)
	if err != nil {
		return nil, err
	}
	out := &inventoriesOut{}
	out.Body.Items = []api.Inventory{}
	for _, p := range c.engine.Inventories() {
		out.Body.Items = append(out.Body.Items, c.inventoryView(ctx, p))
	}
	return out, nil
}

func (s *server) getInventory(ctx context.Context, _ caller, in *inventoryPath) (*inventoryOut, error) {
	_, p, err := s.inventory(ctx, in.Inventory)
	if err != nil {
		return nil, err
	}
	return &inventoryOut{http.StatusOK, p}, nil
}

// inventory is the core and an inventory as it is shown.
func (s *server) inventory(ctx context.Context, name string) (*core, api.Inventory, error) {
	c, err := s.a.serving(ctx)
	if err != nil {
		return nil, api.Inventory{}, err
	}
	p, err := c.inventory(name, "inventory "+name)
	if err != nil {
		return nil, api.Inventory{}, err
	}
	return c, c.inventoryView(ctx, p), nil
}

// inventory is one as the engine has it; what begins the refusal of one that is
// there and cannot be read.
func (c *core) inventory(name, what string) (leases.PoolInfo, error) {
	p, err := c.engine.Pool(leases.VLANPool(name))
	if err != nil {
		if err := c.readable("pools/vlan/"+name, what); err != nil {
			return p, err
		}
	}
	return p, err
}

func (s *server) putInventory(ctx context.Context, who caller, in *putInventoryIn) (*inventoryOut, error) {
	if in.Body.Name != "" && in.Body.Name != in.Inventory {
		return nil, problem.New(problem.CodeInvalid, "inventory not stored: the body names %q, the path %q", in.Body.Name, in.Inventory)
	}
	d, err := defineInventory(in.Body)
	if err != nil {
		return nil, inventoryNotStored(in.Inventory, err)
	}
	return s.storeInventory(ctx, who, in.Inventory, in.DryRun, func(p *leases.Pool, _ bool) error {
		d.apply(p)
		return nil
	})
}

func (s *server) patchInventory(ctx context.Context, who caller, in *patchInventoryIn) (*inventoryOut, error) {
	c, err := s.a.serving(ctx)
	if err != nil {
		return nil, err
	}
	_, missing := c.inventory(in.Inventory, "inventory "+in.Inventory+" not stored")
	if missing == nil {
		missing = problem.New(problem.CodeNotFound, "there is no inventory %s any more", in.Inventory)
	}
	return s.storeInventory(ctx, who, in.Inventory, in.DryRun, func(p *leases.Pool, exists bool) error {
		if !exists {
			return missing
		}
		return inventoryNotStored(in.Inventory, changeInventory(p, in.Body))
	})
}

// storeInventory writes an inventory and answers with what stands.
func (s *server) storeInventory(ctx context.Context, who caller, name string, dry bool, edit func(*leases.Pool, bool) error) (*inventoryOut, error) {
	c, err := s.a.serving(ctx)
	if err != nil {
		return nil, err
	}
	not := "inventory " + name + " not stored"
	if !dry {
		if err := who.mustOperate(not); err != nil {
			return nil, err
		}
	}
	if err := c.readable("pools/vlan/"+name, not); err != nil {
		return nil, err
	}
	// Read before: the edit runs under the mirror's lock.
	busy := c.busy(ctx, name, not)
	p, created, err := c.engine.SetPool(ctx, leases.VLANPool(name), dry, func(p *leases.Pool, exists bool) error {
		var was leases.Outside
		if p.Outside != nil {
			was = *p.Outside
		}
		if err := edit(p, exists); err != nil {
			return err
		}
		// A file's VLANs are known by the services that have them, not by claims.
		if was != (leases.Outside{}) && (p.Outside == nil || p.Outside.File != was.File || p.Outside.On != was.On) {
			return busy
		}
		return nil
	})
	if err != nil {
		return nil, inventoryNotStored(name, err)
	}
	out := &inventoryOut{http.StatusOK, c.inventoryView(ctx, p)}
	if created && !dry {
		out.Status = http.StatusCreated
	}
	return out, nil
}

func (s *server) deleteInventory(ctx context.Context, who caller, in *inventoryPath) (*struct{}, error) {
	c, err := s.a.serving(ctx)
	if err != nil {
		return nil, err
	}
	not := "inventory " + in.Inventory + " not deleted"
	if err := who.mustOperate(not); err != nil {
		return nil, err
	}
	p, err := c.inventory(in.Inventory, not)
	if err != nil {
		return nil, err
	}
	if p.Outside != nil {
		if err := c.busy(ctx, in.Inventory, not); err != nil {
			return nil, err
		}
	}
	return nil, c.engine.DeletePool(ctx, leases.VLANPool(in.Inventory))
}

// busy refuses while services have, or are about to get, VLANs of an inventory.
func (c *core) busy(ctx context.Context, inventory, not string) error {
	var e *problem.Error
	n := 0
	for _, v := range c.vlans.List(ctx) {
		for _, a := range v.Attributes {
			if a.Inventory != inventory || (a.VID == nil && a.Step == "") {
				continue
			}
			if n++; e == nil {
				since := v.Since
				e = problem.New(problem.CodeHeld, "").By(problem.Holder{Caller: v.Caller, Holder: v.Holder, State: string(v.State), Since: &since}).
					Advise("look", "poolctl vlan service list --inventory %s", inventory)
			}
			if n <= 5 {
				e.Note("service %s (%s) has it for %s", v.Name, v.State, a.Name)
			}
			break
		}
	}
	if e == nil {
		return nil
	}
	e.Detail = not + ": 1 service has VLANs of it"
	if n > 1 {
		e.Detail = not + ": " + decimal(n) + " services have VLANs of it"
	}
	if n > 5 {
		e.Note("and %d more", n-5)
	}
	return e
}
