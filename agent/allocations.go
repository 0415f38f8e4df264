package agent

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/danielgtaylor/huma/v2"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/problem"
)

// keepWithin is how long a grant may take until it is kept, where nobody could ask
// for it again or uids take part. An agent that dies in between leaves nothing
// behind.
const keepWithin = time.Minute

// allocator is the requester of what is kept: always the same, so that a repeated
// request adds no other.
const allocator = "allocation"

type listAllocationsIn struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"10000" default:"1000" doc:"most items of one page"`
	Cursor string `query:"cursor" maxLength:"2000" doc:"next of the page before"`
	Holder string `query:"holder" maxLength:"256"`
	Caller string `query:"caller" maxLength:"256"`
}

type allocationsOut struct {
	Body api.List[api.Allocation]
}

type allocationPath struct {
	Key string `path:"key" maxLength:"256" doc:"allocation key of the caller"`
}

type allocationOut struct {
	Status int
	Body   api.Allocation
}

type putAllocationIn struct {
	Key  string `path:"key" maxLength:"256" doc:"allocation key of the caller"`
	Body api.AllocationRequest
}

func (s *server) allocationRoutes() {
	tags := []string{"allocations"}
	add(s, huma.Operation{OperationID: "list-allocations", Method: http.MethodGet, Path: "/v1/allocations", Summary: "What allocation keys stand for", Tags: tags}, s.listAllocations)
	add(s, huma.Operation{OperationID: "get-allocation", Method: http.MethodGet, Path: "/v1/allocations/{key}", Summary: "What a key of the caller stands for", Tags: tags}, s.getAllocation)
	add(s, huma.Operation{OperationID: "put-allocation", Method: http.MethodPut, Path: "/v1/allocations/{key}", Summary: "Grant any mix of uids and VLANs, all or none: 201, or 200 for the same grant as before", Tags: tags}, s.putAllocation)
	add(s, huma.Operation{OperationID: "delete-allocation", Method: http.MethodDelete, Path: "/v1/allocations/{key}", Summary: "Release all that a key stands for; 204 if it is over", Tags: tags}, s.deleteAllocation)
}

func (s *server) listAllocations(ctx context.Context, who caller, in *listAllocationsIn) (*allocationsOut, error) {
	c, err := s.a.serving(ctx)
	if err != nil {
		return nil, err
	}
	infos := c.engine.List(ctx, nil, 0, func(_ leases.Ref, claim *leases.Claim) bool {
		return claim.Key != "" && claim.Service == "" && live(claim) &&
			(in.Holder == "" || in.Holder == claim.Holder) && (in.Caller == "" || in.Caller == claim.Caller)
	})
	groups := map[string][]leases.ClaimInfo{}
	var tokens []string
	for _, info := range infos {
		t := info.Claim.Token
		if groups[t] == nil {
			tokens = append(tokens, t)
		}
		groups[t] = append(groups[t], info)
	}
	place := func(t string) string { c := groups[t][0].Claim; return c.Caller + "\x00" + c.Key }
	slices.SortFunc(tokens, func(x, y string) int { return cmp.Compare(place(x), place(y)) })
	out := &allocationsOut{}
	out.Body.Items = []api.Allocation{}
	for _, t := range tokens {
		if place(t) <= in.Cursor {
			continue
		}
		if len(out.Body.Items) == in.Limit {
			last := out.Body.Items[in.Limit-1]
			out.Body.Next = last.Caller + "\x00" + last.Key
			break
		}
		out.Body.Items = append(out.Body.Items, allocationView(who, groups[t]))
	}
	return out, nil
}

// live tells whether a claim belongs to a grant that goes on.
func live(c *leases.Claim) bool {
	return c.State == leases.Locked || c.State == leases.Used || c.State == leases.Idle
}

// allocationView shows one grant by its claims, which are in order of space and id.
func allocationView(who caller, infos []leases.ClaimInfo) api.Allocation {
	v := api.Allocation{State: api.StateUsed, Items: []api.AllocationItem{}}
	for _, info := range infos {
		c := info.Claim
		if c.State == leases.Locked {
			v.State = api.StateLocked
		}
		v.Key, v.Caller, v.Holder, v.GrantedAt = c.Key, c.Caller, c.Holder, when(c.GrantedAt)
		if who.operator || who.name == c.Caller {
			v.Token = c.Token
		}
		v.Items = append(v.Items, itemView(info.Ref, c))
	}
	return v
}

func itemView(ref leases.Ref, c *leases.Claim) api.AllocationItem {
	id := ref.ID
	item := api.AllocationItem{Name: c.Attribute, State: c.State.String()}
	if inventory, ok := ref.Space.Inventory(); ok {
		item.VID, item.Inventory = &id, inventory
		return item
	}
	item.UID, item.GID, item.Pool, item.Count = &id, &id, c.Pool, c.Count
	return item
}

func (s *server) getAllocation(ctx context.Context, who caller, in *allocationPath) (*allocationOut, error) {
	c, err := s.a.serving(ctx)
	if err != nil {
		return nil, err
	}
	refs, t, err := c.engine.Find(ctx, who.name, in.Key)
	if err != nil {
		return nil, err
	}
	infos := c.carrying(ctx, refs, t)
	if len(infos) == 0 {
		return nil, problem.New(problem.CodeKeyEnded, "the grant of key %s has just ended", in.Key)
	}
	return &allocationOut{http.StatusOK, allocationView(who, infos)}, nil
}

// carrying are those of refs that belong to the grant of a token still.
func (c *core) carrying(ctx context.Context, refs []leases.Ref, t string) []leases.ClaimInfo {
	var infos []leases.ClaimInfo
	for _, ref := range refs {
		if info := c.engine.Get(ctx, ref); info.Claim != nil && info.Claim.Token == t && live(info.Claim) {
			infos = append(infos, info)
		}
	}
	return infos
}

func (s *server) putAllocation(ctx context.Context, who caller, in *putAllocationIn) (*allocationOut, error) {
	c, err := s.a.serving(ctx)
	if err != nil {
		return nil, err
	}
	not := "allocation " + in.Key + " not made"
	req, uids, err := readAllocation(in.Key, who, in.Body)
	if err != nil {
		return nil, prefixed(not+": ", err)
	}
	if uids && s.a.cfg.Role == leases.RoleGateway {
		return nil, problem.New(problem.CodeUnavailable, "%s: %s is a gateway, which grants no uid; nothing was done", not, s.a.cfg.Node).
			Note("ask the agent of the machine that will run the process")
	}
	for _, w := range req.Wants {
		if inventory, ok := leases.InventoryOf(w.Pool); ok {
			if _, err := c.etcdInventory(inventory, not); err != nil {
				return nil, err
			}
		}
	}
	g, err := c.engine.Grant(ctx, req)
	if err != nil {
		return nil, endsWhole(in.Key, aboutVLANs(c.explained("granted", err)))
	}
	held := g.Held
	if uids {
		if held, err = c.keep(ctx, g); err != nil {
			return nil, err
		}
	}
	out := &allocationOut{http.StatusCreated, api.Allocation{
		Key: in.Key, State: api.StateUsed, Token: g.Token, Caller: who.name, Holder: in.Body.Holder, Items: []api.AllocationItem{}, Changed: !g.Same,
	}}
	if g.Same {
		out.Status = http.StatusOK
	}
	for _, h := range held {
		if h.Claim == nil {
			return nil, problem.New(problem.CodeInternal, "bug: %s is granted and has no claim", h.Ref)
		}
		if h.Claim.State == leases.Locked {
			out.Body.State = api.StateLocked
		}
		out.Body.Holder, out.Body.GrantedAt = h.Claim.Holder, when(h.Claim.GrantedAt)
		out.Body.Items = append(out.Body.Items, itemView(h.Ref, h.Claim))
	}
	return out, nil
}

// keep ends the hand-over of a grant with uids: all of it is kept, or refused. A
// refusal leaves the grant to its short hold.
func (c *core) keep(ctx context.Context, g *leases.Grant) ([]leases.Held, error) {
	refs := make([]leases.Ref, 0, len(g.Held))
	for _, h := range g.Held {
		refs = append(refs, h.Ref)
	}
	held, err := c.engine.ConfirmGroup(ctx, refs, g.Token, g.Requester)
	if err != nil {
		return nil, err
	}
	if len(held) != len(refs) {
		return nil, problem.New(problem.CodeInternal, "bug: %d ids kept of %d", len(held), len(refs))
	}
	return held, nil
}

// readAllocation turns the body into a request of the caller, and tells whether
// uids take part.
func readAllocation(key string, who caller, b api.AllocationRequest) (req leases.GrantRequest, uids bool, err error) {
	req = leases.GrantRequest{Caller: who.name, Key: key, Holder: b.Holder}
	if strings.ContainsFunc(key, unicode.IsControl) {
		return req, false, problem.New(problem.CodeInvalid, "its key has control characters")
	}
	names := map[string]bool{}
	for i, item := range b.Items {
		w := leases.Want{Count: max(1, int(item.Count)), Label: item.Name}
		switch {
		case (item.UIDPool == "") == (item.VLANInventory == ""):
			return req, false, problem.New(problem.CodeInvalid, "item %d names a uid pool or a VLAN inventory, one of them", i+1)
		case item.UIDPool != "":
			w.Pool, uids = item.UIDPool, true
			err = cluster.ValidName(item.UIDPool)
		default:
			w.Pool = leases.VLANPool(item.VLANInventory)
			err = cluster.ValidName(item.VLANInventory)
		}
		if err == nil && item.Name != "" {
			err = cluster.ValidName(item.Name)
		}
		switch {
		case err != nil:
			return req, false, prefixed("item "+decimal(i+1)+": ", err)
		case item.Name != "" && w.Count > 1:
			return req, false, problem.New(problem.CodeInvalid, "item %d, %s, is %d ids: a name is of one", i+1, item.Name, w.Count)
		case names[item.Name]:
			return req, false, problem.New(problem.CodeInvalid, "two items are called %s", item.Name)
		}
		if item.Name != "" {
			names[item.Name] = true
		}
		req.Wants = append(req.Wants, w)
	}
	if uids {
		inTransit(&req)
	}
	return req, uids, nil
}

// inTransit locks what a request gets for a short while, until [core.keep].
func inTransit(req *leases.GrantRequest) {
	req.TTL = keepWithin
	req.Requester = leases.Requester{
		ID: allocator, Hold: leases.HoldTTL, Deadline: int64(leases.BootTime() + keepWithin), Until: time.Now().Add(keepWithin).UTC().Truncate(time.Millisecond),
	}
}

// endsWhole advises to end an allocation by its own command, whichever of its ids
// the engine speaks of.
func endsWhole(key string, err error) error {
	var p *problem.Error
	if !errors.As(err, &p) {
		return err
	}
	e := *p
	e.Try = slices.Clone(p.Try)
	for i, t := range e.Try {
		if strings.HasSuffix(t.Command, " release --key "+key) {
			e.Try[i].Command = "poolctl allocation delete " + key
		}
	}
	return &e
}

// deleteAllocation ends what a key of the caller stands for, at whichever agents the
// caller asked for it. Others that joined a uid of it keep their part.
func (s *server) deleteAllocation(ctx context.Context, who caller, in *allocationPath) (*allocationOut, error) {
	c, err := s.a.serving(ctx)
	if err != nil {
		return nil, err
	}
	refs, t, err := c.engine.Find(ctx, who.name, in.Key)
	over := &allocationOut{http.StatusNoContent, api.Allocation{Key: in.Key, Items: []api.AllocationItem{}}}
	if problem.CodeOf(err) == problem.CodeKeyEnded {
		return over, nil
	}
	if err != nil {
		return nil, err
	}
	was := c.carrying(ctx, refs, t)
	held, changed, err := c.engine.Release(ctx, leases.Release{Refs: refs, Token: t, Everywhere: allocator, By: who.name})
	if err != nil {
		return nil, err
	}
	if !changed || len(was) == 0 {
		return over, nil
	}
	out := &allocationOut{http.StatusOK, allocationView(who, was)}
	out.Body.State, out.Body.Changed = api.StateFree, true
	for i, info := range was {
		state := leases.Free
		for _, h := range held {
			if h.Ref == info.Ref && h.Claim != nil {
				state = h.Claim.State
			}
		}
		out.Body.Items[i].State = state.String()
		if state != leases.Free && out.Body.State != api.StateUsed {
			out.Body.State = api.StateQuarantined
		}
		if state == leases.Locked || state == leases.Used || state == leases.Idle {
			out.Body.State = api.StateUsed
		}
	}
	return out, nil
}
