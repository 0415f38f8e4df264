package agent

import (
	"context"
	"errors"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/problem"
)

type listVLANsIn struct {
	Inventory string `path:"inventory" maxLength:"63" doc:"name of a VLAN inventory"`
	Limit     int    `query:"limit" minimum:"1" maximum:"10000" default:"1000" doc:"most items of one page"`
	Cursor    string `query:"cursor" maxLength:"100" doc:"next of the page before"`
	State     string `query:"state" enum:"free,locked,used,idle,quarantined,reserved"`
	Holder    string `query:"holder" maxLength:"256"`
	Key       string `query:"key" maxLength:"256"`
	Service   string `query:"service" maxLength:"63"`
	VIDs      string `query:"vids" doc:"ranges, e.g. 100-109"`
}

type vlansOut struct{ Body api.List[api.VLAN] }

type vlanPath struct {
	Inventory string `path:"inventory" maxLength:"63" doc:"name of a VLAN inventory"`
	VID       uint32 `path:"vid" maximum:"4095"`
}

type vlanOut struct {
	Status int
	Body   api.VLAN
}

type allocateVLANIn struct {
	Inventory string `path:"inventory" maxLength:"63" doc:"name of a VLAN inventory"`
	Body      *api.VLANRequestBody
}

func (s *server) vlanRoutes() {
	tags := []string{"vlans"}
	const path = "/v1/vlan-inventories/{inventory}/vlans"
	add(s, huma.Operation{OperationID: "list-vlans", Method: http.MethodGet, Path: path, Summary: "VLANs that are held or waiting; free ones with state=free", Tags: tags}, s.listVLANs)
	add(s, huma.Operation{OperationID: "allocate-vlan", Method: http.MethodPost, Path: path, Summary: "Ask for a VLAN: 201, or 200 for the same grant as before", Tags: tags, DefaultStatus: http.StatusCreated}, s.allocateVLAN)
	add(s, huma.Operation{OperationID: "get-vlan", Method: http.MethodGet, Path: path + "/{vid}", Summary: "One VLAN", Tags: tags}, s.getVLAN)
	add(s, huma.Operation{OperationID: "release-vlan", Method: http.MethodDelete, Path: path + "/{vid}", Summary: "End the grant named; 204 if it is over", Tags: tags}, s.releaseVLAN)
	add(s, huma.Operation{OperationID: "release-vlans", Method: http.MethodDelete, Path: path, Summary: "End the grant of an allocation key; 204 if it is over", Tags: tags}, s.releaseVLANKey)
}

func vlanRef(inventory string, vid uint32) leases.Ref {
	return leases.Ref{Space: cluster.VLANSpace(inventory), ID: vid}
}

// etcdInventory is an inventory with ranges of its own; not says what a file's
// cannot be done to.
func (c *core) etcdInventory(name, not string) (leases.PoolInfo, error) {
	p, err := c.inventory(name, not)
	if err == nil && p.Outside != nil {
		err = problem.New(problem.CodeInvalid, "%s: the VLANs of inventory %s are in %s on node %s", not, name, p.Outside.File, p.Outside.On).
			Note("services get them there, and give them back").
			Advise("a service", "poolctl vlan service create NAME --north %s", name).
			Advise("what is in use", "poolctl vlan inventory export %s", name)
	}
	return p, err
}

func (s *server) listVLANs(ctx context.Context, who caller, in *listVLANsIn) (*vlansOut, error) {
	c, err := s.a.serving(ctx)
	if err != nil {
		return nil, err
	}
	not := "VLANs of " + in.Inventory + " not listed"
	p, err := c.inventory(in.Inventory, not)
	if err != nil {
		return nil, err
	}
	var within *idset.Set
	if in.VIDs != "" {
		set, err := parseVLANs(in.VIDs)
		if err != nil {
			return nil, prefixed(not+": vids: ", err)
		}
		within = &set
	}
	from, err := vlanCursor(in.Cursor)
	if err != nil {
		return nil, err
	}
	out := &vlansOut{}
	out.Body.Items = []api.VLAN{}
	switch {
	case p.Outside != nil:
		f, err := c.fileVLANs(ctx, in.Inventory, p, not)
		if err != nil {
			return nil, err
		}
		f.list(in, within, from, &out.Body)
		return out, nil
	case in.State == api.StateFree:
		c.listFreeVLANs(p, in, within, from, &out.Body)
		return out, nil
	}
	space := cluster.VLANSpace(in.Inventory)
	infos := c.engine.List(ctx, nil, in.Limit+1, func(ref leases.Ref, claim *leases.Claim) bool {
		return ref.Space == space && ref.ID >= from && (within == nil || within.Contains(ref.ID)) && chosen(in, claim)
	})
	if len(infos) > in.Limit {
		infos = infos[:in.Limit]
		out.Body.Next = decimal(int(infos[in.Limit-1].ID))
	}
	for _, info := range infos {
		out.Body.Items = append(out.Body.Items, vlanView(who, info))
	}
	return out, nil
}

// chosen runs under the mirror's lock.
func chosen(in *listVLANsIn, c *leases.Claim) bool {
	return (in.State == "" || in.State == string(c.State)) && (in.Holder == "" || in.Holder == c.Holder) &&
		(in.Key == "" || in.Key == c.Key) && (in.Service == "" || in.Service == c.Service)
}

// listFreeVLANs lists ids that have no claim. Filters on what only a claim has
// select none.
func (c *core) listFreeVLANs(p leases.PoolInfo, in *listVLANsIn, within *idset.Set, from uint32, page *api.List[api.VLAN]) {
	if in.Holder != "" || in.Key != "" || in.Service != "" {
		return
	}
	taken := c.engine.Taken(cluster.VLANSpace(in.Inventory))
	free := p.IDs()
	if within != nil {
		free = free.Intersect(*within)
	}
	for id, ok := free.NextWithout(taken, from); ok; id, ok = free.NextWithout(taken, id+1) {
		if len(page.Items) == in.Limit {
			page.Next = decimal(int(page.Items[in.Limit-1].VID))
			return
		}
		page.Items = append(page.Items, api.VLAN{Inventory: in.Inventory, VID: id, State: api.StateFree, InInventory: true})
	}
}

// vlanCursor is the id that a page begins with.
func vlanCursor(text string) (uint32, error) {
	if text == "" {
		return 0, nil
	}
	id, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return 0, problem.New(problem.CodeInvalid, "cursor %q is none that a page gave", text)
	}
	return uint32(id) + 1, nil
}

func (s *server) getVLAN(ctx context.Context, who caller, in *vlanPath) (*vlanOut, error) {
	c, err := s.a.serving(ctx)
	if err != nil {
		return nil, err
	}
	not := vlanText(in.Inventory, in.VID) + " not shown"
	info := c.engine.Get(ctx, vlanRef(in.Inventory, in.VID))
	if info.Claim == nil {
		p, err := c.inventory(in.Inventory, not)
		if err != nil {
			return nil, err
		}
		if p.Outside != nil {
			return c.getFileVLAN(ctx, in, p, not)
		}
		if info.Unread != nil {
			return nil, info.Unread
		}
		if len(info.Pools) == 0 {
			return nil, noSuchVLAN(in)
		}
	}
	return &vlanOut{http.StatusOK, vlanView(who, info)}, nil
}

func noSuchVLAN(in *vlanPath) error {
	return problem.New(problem.CodeNotFound, "VLAN %d is not in inventory %s and nobody holds it", in.VID, in.Inventory).
		Advise("look", "poolctl vlan inventory show %s", in.Inventory)
}

func (c *core) getFileVLAN(ctx context.Context, in *vlanPath, p leases.PoolInfo, not string) (*vlanOut, error) {
	f, err := c.fileVLANs(ctx, in.Inventory, p, not)
	if err != nil {
		return nil, err
	}
	v := f.vlan(in.VID)
	if v.State == api.StateFree && !v.InInventory {
		return nil, noSuchVLAN(in)
	}
	return &vlanOut{http.StatusOK, v}, nil
}

func vlanText(inventory string, vid uint32) string {
	return "VLAN " + decimal(int(vid)) + " of " + inventory
}

// vlanView shows a VLAN as who may see it.
func vlanView(who caller, info leases.ClaimInfo) api.VLAN {
	inventory, _ := info.Space.Inventory()
	v := api.VLAN{
		Inventory: inventory, VID: info.ID, State: api.StateFree,
		InInventory: slices.Contains(info.Pools, leases.VLANPool(inventory)), NotBefore: info.NotBefore,
	}
	c := info.Claim
	if c == nil {
		return v
	}
	v.State, v.Caller, v.Holder, v.Service, v.Key = c.State.String(), c.Caller, c.Holder, c.Service, c.Key
	v.GrantedAt, v.StateSince, v.Reason, v.ReasonCode, v.Revision = when(c.GrantedAt), when(c.Since), c.Reason, c.ReasonCode, info.ModRev
	if who.operator || who.name == c.Caller {
		v.Token = c.Token
	}
	return v
}

// heldVLAN shows a VLAN as an operation left it.
func (c *core) heldVLAN(ctx context.Context, who caller, h leases.Held) api.VLAN {
	info := c.engine.Get(ctx, h.Ref)
	if info.Claim == nil || h.Claim == nil || info.Claim.Token != h.Claim.Token {
		info.NotBefore = nil
	}
	info.Claim, info.ModRev = h.Claim, h.ModRev
	return vlanView(who, info)
}

func (s *server) allocateVLAN(ctx context.Context, who caller, in *allocateVLANIn) (*vlanOut, error) {
	c, err := s.a.serving(ctx)
	if err != nil {
		return nil, err
	}
	const not = "no VLAN granted"
	if _, err := c.etcdInventory(in.Inventory, not); err != nil {
		return nil, err
	}
	var b api.VLANRequestBody
	if in.Body != nil {
		b = *in.Body
	}
	req := leases.GrantRequest{Caller: who.name, Key: b.Key, Holder: b.Holder}
	want, err := readVLANWant(in.Inventory, b)
	if err == nil {
		err = readWait(&req, b.Wait)
	}
	if err != nil {
		return nil, err
	}
	req.Wants = []leases.Want{want}
	if req.Key == "" { // nobody could ask again: what is lost on the way comes back
		inTransit(&req)
	}
	g, err := c.engine.Grant(ctx, req)
	if err != nil {
		return nil, aboutVLANs(err)
	}
	held := g.Held
	if req.Key == "" {
		if held, err = c.keep(ctx, g); err != nil {
			return nil, err
		}
	}
	switch {
	case len(held) != 1:
		return nil, problem.New(problem.CodeInternal, "bug: %d VLANs granted where one was asked for", len(held))
	case ctx.Err() != nil && req.Key == "":
		return nil, c.undoVLAN(ctx, who, g)
	}
	out := &vlanOut{http.StatusCreated, c.heldVLAN(ctx, who, held[0])}
	out.Body.Token = g.Token
	if g.Same {
		out.Status = http.StatusOK
	}
	return out, nil
}

// undoVLAN gives a grant back whose client went away: nobody knows its token.
func (c *core) undoVLAN(ctx context.Context, who caller, g *leases.Grant) error {
	gone := context.Cause(ctx)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	_, _, err := c.engine.Release(ctx, leases.Release{Refs: []leases.Ref{g.Held[0].Ref}, Token: g.Token, By: who.name + ", whose request was cut off", Whole: true})
	if err != nil {
		return err
	}
	return problem.Wrap(problem.CodeUnavailable, gone, "the request was cut off; what was granted is given back")
}

// readVLANWant is what a request may get. It rests on the request alone, not on the
// inventory's ranges: the same request must stay the same when these change.
func readVLANWant(inventory string, b api.VLANRequestBody) (leases.Want, error) {
	w := leases.Want{Pool: leases.VLANPool(inventory), Count: 1, Exact: b.VID}
	if b.VID != nil {
		if err := validVLAN(*b.VID); err != nil {
			return w, err
		}
	}
	if b.From == "" && b.Exclude == "" && b.Parity == "" {
		return w, nil
	}
	within := allVLANs
	if b.From != "" {
		from, err := parseVLANs(b.From)
		if err != nil {
			return w, in("no VLAN granted: from", err)
		}
		within = from
	}
	exclude, err := parseVLANs(b.Exclude)
	if err != nil {
		return w, in("no VLAN granted: exclude", err)
	}
	within = ofParity(within.Remove(exclude), b.Parity)
	switch {
	case within.IsEmpty():
		return w, problem.New(problem.CodeInvalid, "no VLAN granted: from, exclude and parity leave none")
	case b.VID != nil && !within.Contains(*b.VID):
		return w, problem.New(problem.CodeInvalid, "no VLAN granted: %d is asked for, and from, exclude or parity rule it out", *b.VID)
	}
	w.Within = &within
	return w, nil
}

// ofParity are the odd or even ids of a set; all with parity "".
func ofParity(ids idset.Set, parity string) idset.Set {
	if parity == "" {
		return ids
	}
	var out idset.Set
	for id := range ids.All() {
		if (id%2 == 1) == (parity == "odd") {
			out.Insert(id)
		}
	}
	return out
}

// longList is a list of numbers that nobody reads to its end, such as all odd ones.
var longList = regexp.MustCompile(`(\d+(?:-\d+)?,){12,}\d+(?:-\d+)?`)

// aboutVLANs makes a refusal of the engine one that a person reads: long lists are
// cut.
func aboutVLANs(err error) error {
	var p *problem.Error
	if !errors.As(err, &p) {
		return err
	}
	short := func(text string) string {
		return longList.ReplaceAllStringFunc(text, func(list string) string {
			parts := strings.Split(list, ",")
			return strings.Join(parts[:4], ",") + ",…," + parts[len(parts)-1]
		})
	}
	e := *p
	e.Detail, e.Notes = short(p.Detail), slices.Clone(p.Notes)
	for i := range e.Notes {
		e.Notes[i] = short(e.Notes[i])
	}
	return &e
}

func readWait(req *leases.GrantRequest, text string) error {
	if err := setDuration(&req.Wait, "wait", text); err != nil {
		return err
	}
	if req.Wait < 0 || req.Wait > maxWait {
		return problem.New(problem.CodeInvalid, "wait %s: want 0 to %s", req.Wait, maxWait)
	}
	return nil
}
