package agent

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/uidpool"
)

type poolPath struct {
	Pool string `path:"pool" maxLength:"63" doc:"name of a uid pool"`
}

type poolOut struct {
	Status int
	Body   api.Pool
}

type pageIn struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"10000" default:"1000" doc:"most items of one page"`
	Cursor string `query:"cursor" maxLength:"100" doc:"next of the page before"`
}

type poolsOut struct{ Body api.List[api.Pool] }

type putPoolIn struct {
	Pool   string `path:"pool" maxLength:"63" doc:"name of a uid pool"`
	DryRun bool   `query:"dry_run" doc:"say what would be stored, store nothing"`
	Body   api.Pool
}

type patchPoolIn struct {
	Pool   string `path:"pool" maxLength:"63" doc:"name of a uid pool"`
	DryRun bool   `query:"dry_run" doc:"say what would be stored, store nothing"`
	Body   api.PoolPatch
}

func (s *server) poolRoutes() {
	add(s, huma.Operation{OperationID: "list-uid-pools", Method: http.MethodGet, Path: "/v1/uid-pools", Summary: "Uid pools with their counts", Tags: []string{"pools"}}, s.listPools)
	add(s, huma.Operation{OperationID: "get-uid-pool", Method: http.MethodGet, Path: "/v1/uid-pools/{pool}", Summary: "One pool", Tags: []string{"pools"}}, s.getPool)
	add(s, huma.Operation{OperationID: "put-uid-pool", Method: http.MethodPut, Path: "/v1/uid-pools/{pool}", Summary: "Create or replace a pool", Tags: []string{"pools"}}, s.putPool)
	add(s, huma.Operation{OperationID: "patch-uid-pool", Method: http.MethodPatch, Path: "/v1/uid-pools/{pool}", Summary: "Change a pool: add, then remove, then replace", Tags: []string{"pools"}}, s.patchPool)
	add(s, huma.Operation{OperationID: "delete-uid-pool", Method: http.MethodDelete, Path: "/v1/uid-pools/{pool}", Summary: "Delete a pool that nothing is held from", Tags: []string{"pools"}}, s.deletePool)
}

func (s *server) listPools(ctx context.Context, _ caller, _ *pageIn) (*poolsOut, error) {
	c, err := s.a.serving(ctx)
	if err != nil {
		return nil, err
	}
	out := &poolsOut{}
	out.Body.Items = []api.Pool{}
	for _, p := range c.engine.Pools() {
		out.Body.Items = append(out.Body.Items, poolView(p))
	}
	return out, nil
}

func (s *server) getPool(ctx context.Context, _ caller, in *poolPath) (*poolOut, error) {
	c, err := s.a.serving(ctx)
	if err != nil {
		return nil, err
	}
	p, err := c.engine.Pool(in.Pool)
	if err != nil {
		return nil, err
	}
	return &poolOut{http.StatusOK, poolView(p)}, nil
}

func (s *server) putPool(ctx context.Context, who caller, in *putPoolIn) (*poolOut, error) {
	if in.Body.Name != "" && in.Body.Name != in.Pool {
		return nil, problem.New(problem.CodeInvalid, "pool not stored: the body names %q, the path %q", in.Body.Name, in.Pool)
	}
	d, err := define(in.Body)
	if err != nil {
		return nil, notStored(in.Pool, err)
	}
	return s.store(ctx, who, in.Pool, in.DryRun, func(p *leases.Pool, _ bool) error {
		d.apply(p)
		return nil
	})
}

func (s *server) patchPool(ctx context.Context, who caller, in *patchPoolIn) (*poolOut, error) {
	c, err := s.a.serving(ctx)
	if err != nil {
		return nil, err
	}
	_, missing := c.engine.Pool(in.Pool)
	if missing == nil {
		missing = problem.New(problem.CodeNotFound, "there is no pool %s any more", in.Pool)
	}
	return s.store(ctx, who, in.Pool, in.DryRun, func(p *leases.Pool, exists bool) error {
		if !exists {
			return missing
		}
		return notStored(in.Pool, change(p, in.Body))
	})
}

// store writes a pool and answers with what stands, and what it overlaps.
func (s *server) store(ctx context.Context, who caller, name string, dry bool, edit func(*leases.Pool, bool) error) (*poolOut, error) {
	c, err := s.a.serving(ctx)
	if err != nil {
		return nil, err
	}
	if !dry {
		if err := who.mustOperate("pool " + name + " not stored"); err != nil {
			return nil, err
		}
	}
	if err := c.readable("pools/uid/"+name, "pool "+name+" not stored"); err != nil {
		return nil, err
	}
	p, created, err := c.engine.SetPool(ctx, name, dry, edit)
	if err != nil {
		return nil, err
	}
	out := &poolOut{http.StatusOK, poolView(p)}
	out.Body.Warnings = uidpool.Warnings(p.IDs().RangeList(), uidpool.HostFiles{})
	if created && !dry {
		out.Status = http.StatusCreated
	}
	return out, nil
}

func (s *server) deletePool(ctx context.Context, who caller, in *poolPath) (*struct{}, error) {
	c, err := s.a.serving(ctx)
	if err != nil {
		return nil, err
	}
	if err := who.mustOperate("pool " + in.Pool + " not deleted"); err != nil {
		return nil, err
	}
	if err := c.readable("pools/uid/"+in.Pool, "pool "+in.Pool+" not deleted"); err != nil {
		return nil, err
	}
	return nil, c.engine.DeletePool(ctx, in.Pool)
}
