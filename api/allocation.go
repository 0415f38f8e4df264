package api

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"time"

	"github.com/idpool/idpool/problem"
)

// Allocation is what one allocation key stands for: any mix of uids and VLANs,
// granted in one transaction and kept until it is deleted.
type Allocation struct {
	Key string `json:"key"`
	// State is locked while a part is being handed over, else used; after a delete
	// used if another still holds a part, else quarantined until all is free.
	State string `json:"state" enum:"locked,used,quarantined,free"`
	// Token names the grant; shown to its caller and to operators only.
	Token     string           `json:"token,omitempty"`
	Caller    string           `json:"caller"`
	Holder    string           `json:"holder,omitempty"`
	GrantedAt *time.Time       `json:"granted_at,omitempty"`
	Items     []AllocationItem `json:"items"`
	// Changed is false where the call that this answers found nothing to do.
	Changed bool `json:"changed"`
}

// AllocationItem is one id: a uid of a pool, or a VLAN of an inventory.
type AllocationItem struct {
	UID  *uint32 `json:"uid,omitempty"`
	GID  *uint32 `json:"gid,omitempty"`
	Pool string  `json:"pool,omitempty"`
	// Count is how many ids from UID on: the pool's block size.
	Count     uint32  `json:"count,omitempty"`
	VID       *uint32 `json:"vid,omitempty"`
	Inventory string  `json:"inventory,omitempty"`
	// Name is what the request called it.
	Name  string `json:"name,omitempty"`
	State string `json:"state"`
}

// AllocationWant asks for ids: of a uid pool, or of a VLAN inventory.
type AllocationWant struct {
	UIDPool       string `json:"uid_pool,omitempty" maxLength:"63"`
	VLANInventory string `json:"vlan_inventory,omitempty" maxLength:"63"`
	// Count is how many; 0 is 1. A named want has one.
	Count uint32 `json:"count,omitempty" maximum:"60"`
	Name  string `json:"name,omitempty" maxLength:"63" doc:"what the answer calls it"`
}

// AllocationRequest is the body of PUT /v1/allocations/KEY.
type AllocationRequest struct {
	// Key is the allocation key, 1 to 256 bytes.
	Key    string           `json:"-"`
	Items  []AllocationWant `json:"items" minItems:"1" maxItems:"60"`
	Holder string           `json:"holder,omitempty" maxLength:"256"`
}

// AllocationFilter selects allocations; empty fields select all.
type AllocationFilter struct{ Holder, Caller string }

// AllocationsService grants uids and VLANs together.
type AllocationsService struct{ c *Client }

// Allocations returns the service of allocations.
func (c *Client) Allocations() *AllocationsService { return &AllocationsService{c} }

func allocationPath(key string) string { return "/v1/allocations/" + url.PathEscape(key) }

// List walks the allocations that the filter selects, by caller and key. Every
// grant with an allocation key is one, also a uid or a VLAN asked for by itself.
func (s *AllocationsService) List(ctx context.Context, f AllocationFilter) iter.Seq2[Allocation, error] {
	q := url.Values{}
	for name, value := range map[string]string{"holder": f.Holder, "caller": f.Caller} {
		if value != "" {
			q.Set(name, value)
		}
	}
	return paged[Allocation](ctx, s.c, "/v1/allocations", "allocations not listed", q)
}

// Get returns what a key of the caller stands for: ErrNotFound where it has none,
// ErrKeyEnded where its grant is over.
func (s *AllocationsService) Get(ctx context.Context, key string) (Allocation, error) {
	return s.send(ctx, call{method: http.MethodGet, path: allocationPath(key), what: "allocation " + key + " not shown"})
}

// Create grants all items or none, and keeps them until Delete. The same request
// again returns the same ids, Changed false; another under the key is
// ErrKeyConflict. ErrExhausted: at one revision not all could be granted.
func (s *AllocationsService) Create(ctx context.Context, r AllocationRequest) (Allocation, error) {
	switch {
	case r.Key == "":
		return Allocation{}, problem.New(problem.CodeInvalid, "an allocation needs a key; nothing was done")
	case len(r.Items) == 0:
		return Allocation{}, problem.New(problem.CodeInvalid, "allocation %s asks for nothing", r.Key)
	}
	q := call{method: http.MethodPut, path: allocationPath(r.Key), body: r, repeats: true, what: "allocation " + r.Key + " not made"}
	v, err := s.send(ctx, q)
	if err == nil && (len(v.Items) == 0 || v.Token == "") {
		return Allocation{}, q.unreadable(fmt.Errorf("it has %d items and token %q", len(v.Items), v.Token))
	}
	return v, err
}

// Delete releases all that the key stands for. Over already is no error: Changed
// is false.
func (s *AllocationsService) Delete(ctx context.Context, key string) (Allocation, error) {
	return s.send(ctx, call{method: http.MethodDelete, path: allocationPath(key), repeats: true, what: "allocation " + key + " not deleted"})
}

func (s *AllocationsService) send(ctx context.Context, q call) (Allocation, error) {
	var v Allocation
	_, err := s.c.do(ctx, q, &v)
	return v, err
}
