package api

import (
	"context"
	"net/http"
	"net/url"
)

// PoolsService reads and changes uid pools.
type PoolsService struct{ c *Client }

// Pools returns the service of uid pools.
func (c *Client) Pools() *PoolsService { return &PoolsService{c} }

// WriteOptions go with a change.
type WriteOptions struct {
	// DryRun asks what would be stored, and stores nothing.
	DryRun bool
}

func (o WriteOptions) query() url.Values {
	if o.DryRun {
		return url.Values{"dry_run": {"true"}}
	}
	return nil
}

func poolPath(name, rest string) string { return "/v1/uid-pools/" + url.PathEscape(name) + rest }

// List returns all pools with their counts, in order of name.
func (s *PoolsService) List(ctx context.Context) ([]Pool, error) {
	return all(paged[Pool](ctx, s.c, "/v1/uid-pools", "pools not listed", nil))
}

// Get returns a pool with its counts.
func (s *PoolsService) Get(ctx context.Context, name string) (Pool, error) {
	return s.send(ctx, call{method: http.MethodGet, path: poolPath(name, ""), what: "pool " + name + " not shown"})
}

// Put stores a pool as given, new or instead of the one of that name; fields
// left empty take their defaults. Shrinking a pool touches nothing that is held.
// The answer is what was stored, with warnings.
func (s *PoolsService) Put(ctx context.Context, p Pool, o WriteOptions) (Pool, error) {
	name := p.Name
	p.Name = ""
	return s.send(ctx, call{method: http.MethodPut, path: poolPath(name, ""), query: o.query(), body: p, what: "pool " + name + " not stored"})
}

// Patch changes the fields given of a pool that exists; ErrNotFound otherwise.
// Ranges are added, then removed, then replaced, where more than one is given.
func (s *PoolsService) Patch(ctx context.Context, name string, p PoolPatch, o WriteOptions) (Pool, error) {
	return s.send(ctx, call{method: http.MethodPatch, path: poolPath(name, ""), query: o.query(), body: p, what: "pool " + name + " not changed"})
}

// Delete removes a pool that nothing is held from; ErrHeld otherwise.
func (s *PoolsService) Delete(ctx context.Context, name string) error {
	_, err := s.c.do(ctx, call{method: http.MethodDelete, path: poolPath(name, ""), what: "pool " + name + " not deleted"}, nil)
	return err
}

func (s *PoolsService) send(ctx context.Context, q call) (Pool, error) {
	var p Pool
	_, err := s.c.do(ctx, q, &p)
	return p, err
}
