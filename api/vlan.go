package api

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"

	"github.com/idpool/idpool/problem"
)

// InventoriesService reads and changes VLAN inventories.
type InventoriesService struct{ c *Client }

// Inventories returns the service of VLAN inventories.
func (c *Client) Inventories() *InventoriesService { return &InventoriesService{c} }

func inventoryPath(name, rest string) string {
	return "/v1/vlan-inventories/" + url.PathEscape(name) + rest
}

// List returns all inventories with their counts, in order of name.
func (s *InventoriesService) List(ctx context.Context) ([]Inventory, error) {
	return all(paged[Inventory](ctx, s.c, "/v1/vlan-inventories", "inventories not listed", nil))
}

// Get returns an inventory with its counts.
func (s *InventoriesService) Get(ctx context.Context, name string) (Inventory, error) {
	return s.send(ctx, call{method: http.MethodGet, path: inventoryPath(name, ""), what: "inventory " + name + " not shown"})
}

// Put stores an inventory as given, new or instead of the one of that name;
// fields left empty take their defaults. Shrinking one touches nothing that is
// held; changing between ranges and a file is ErrInvalid while VLANs are held.
func (s *InventoriesService) Put(ctx context.Context, i Inventory, o WriteOptions) (Inventory, error) {
	name := i.Name
	i.Name = ""
	return s.send(ctx, call{method: http.MethodPut, path: inventoryPath(name, ""), query: o.query(), body: i, what: "inventory " + name + " not stored"})
}

// Patch changes the fields given of an inventory that exists; ErrNotFound
// otherwise. Ranges are added, then removed, then replaced.
func (s *InventoriesService) Patch(ctx context.Context, name string, p InventoryPatch, o WriteOptions) (Inventory, error) {
	return s.send(ctx, call{method: http.MethodPatch, path: inventoryPath(name, ""), query: o.query(), body: p, what: "inventory " + name + " not changed"})
}

// Delete removes an inventory that nothing is held from; ErrHeld otherwise.
func (s *InventoriesService) Delete(ctx context.Context, name string) error {
	_, err := s.c.do(ctx, call{method: http.MethodDelete, path: inventoryPath(name, ""), what: "inventory " + name + " not deleted"}, nil)
	return err
}

func (s *InventoriesService) send(ctx context.Context, q call) (Inventory, error) {
	var i Inventory
	_, err := s.c.do(ctx, q, &i)
	return i, err
}

// Import reads a pool file (JSON; at most 1 MiB): ids that it has as used become
// claims of the caller, in state used. An inventory that does not exist, or has no
// ranges, gets the file's range once they are. Importing again changes nothing, and
// goes on where an import was cut off. Operators only, unless it is a dry run.
func (s *InventoriesService) Import(ctx context.Context, name string, file []byte, o ImportOptions) (ImportResult, error) {
	what := "nothing imported into inventory " + name
	if !json.Valid(file) {
		return ImportResult{}, problem.New(problem.CodeInvalid, "%s: the pool file is no JSON", what)
	}
	query := url.Values{}
	if o.DryRun {
		query.Set("dry_run", "true")
	}
	if o.ToRanges {
		query.Set("to_ranges", "true")
	}
	var r ImportResult
	_, err := s.c.do(ctx, call{
		method: http.MethodPost, path: inventoryPath(name, "/import"), query: query, body: json.RawMessage(file), what: what,
	}, &r)
	return r, err
}

// Export returns the inventory as a pool file: its ids in use, with keyed also
// their allocation keys.
func (s *InventoriesService) Export(ctx context.Context, name string, keyed bool) ([]byte, error) {
	var query url.Values
	if keyed {
		query = url.Values{"keyed": {"true"}}
	}
	var raw json.RawMessage
	_, err := s.c.do(ctx, call{method: http.MethodGet, path: inventoryPath(name, "/export"), query: query, what: "inventory " + name + " not exported"}, &raw)
	return raw, err
}

// VLANsService grants, reads and releases single VLANs. VLANs of a service are
// the business of [Client.Services].
type VLANsService struct{ c *Client }

// VLANs returns the service of single VLANs.
func (c *Client) VLANs() *VLANsService { return &VLANsService{c} }

func vlanPath(inventory string, vid uint32) string {
	return inventoryPath(inventory, "/vlans/"+strconv.FormatUint(uint64(vid), 10))
}

func (f VLANFilter) query() url.Values {
	q := url.Values{}
	for name, value := range map[string]string{
		"state": f.State, "holder": f.Holder, "key": f.Key, "service": f.Service, "vids": f.VIDs,
	} {
		if value != "" {
			q.Set(name, value)
		}
	}
	return q
}

// List walks the VLANs of an inventory that the filter selects, in numeric order.
// Free ones are left out unless the filter's State is free. An error ends the
// walk, beside a zero VLAN.
func (s *VLANsService) List(ctx context.Context, inventory string, f VLANFilter) iter.Seq2[VLAN, error] {
	return paged[VLAN](ctx, s.c, inventoryPath(inventory, "/vlans"), "VLANs of "+inventory+" not listed", f.query())
}

// Get returns one VLAN; one that the inventory does not have and nobody holds is
// ErrNotFound. Its token is shown to its caller and to operators.
func (s *VLANsService) Get(ctx context.Context, inventory string, vid uint32) (VLAN, error) {
	var v VLAN
	_, err := s.c.do(ctx, call{method: http.MethodGet, path: vlanPath(inventory, vid), what: fmt.Sprintf("VLAN %d of %s not shown", vid, inventory)}, &v)
	return v, err
}

// Allocate grants one VLAN until it is released. same tells that the key had this
// grant already. ErrExhausted: no VLAN of the inventory could be granted at one
// revision. ErrOutcomeUnknown: the answer was lost; with a Key this call has sent
// the same request once more already.
func (s *VLANsService) Allocate(ctx context.Context, r VLANRequest) (v VLAN, same bool, err error) {
	switch {
	case r.Inventory == "":
		return VLAN{}, false, problem.New(problem.CodeInvalid, "a VLAN request names no inventory; nothing was done")
	case r.Wait < 0:
		return VLAN{}, false, problem.New(problem.CodeInvalid, "the time to wait, %s, is below 0", r.Wait)
	}
	b := VLANRequestBody{VID: r.VID, From: r.From, Exclude: r.Exclude, Parity: r.Parity, Key: r.Key, Holder: r.Holder}
	if r.Wait > 0 {
		b.Wait = r.Wait.String()
	}
	q := call{
		method: http.MethodPost, path: inventoryPath(r.Inventory, "/vlans"), body: b,
		what: "no VLAN of inventory " + r.Inventory + " granted", key: r.Key, grants: true, wait: r.Wait,
	}
	status, err := s.c.do(ctx, q, &v)
	switch {
	case err != nil:
		return VLAN{}, false, err
	case v.Token == "" || v.Inventory == "":
		return VLAN{}, false, q.unreadable(fmt.Errorf("it has inventory %q and token %q", v.Inventory, v.Token))
	}
	return v, status == http.StatusOK, nil
}

// Release ends the grant of a VLAN that the token names; operators may give "*".
// Releasing a grant that is over already succeeds with Changed false, whoever has
// the VLAN now. A VLAN of a service is ErrHeld.
func (s *VLANsService) Release(ctx context.Context, inventory string, vid uint32, token string) (VLANsReleased, error) {
	return s.release(ctx, call{path: vlanPath(inventory, vid), token: token, what: fmt.Sprintf("VLAN %d of %s not released", vid, inventory)})
}

// ReleaseKey ends the grant of an allocation key of the caller.
func (s *VLANsService) ReleaseKey(ctx context.Context, inventory, key string) (VLANsReleased, error) {
	return s.release(ctx, call{path: inventoryPath(inventory, "/vlans"), query: url.Values{"key": {key}}, what: "key " + key + " not released"})
}

func (s *VLANsService) release(ctx context.Context, q call) (VLANsReleased, error) {
	q.method, q.repeats = http.MethodDelete, true
	var r VLANsReleased
	_, err := s.c.do(ctx, q, &r)
	return r, err
}
