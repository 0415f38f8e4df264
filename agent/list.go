package agent

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/uidpool"
)

type listIn struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"10000" default:"1000" doc:"most items of one page"`
	Cursor string `query:"cursor" maxLength:"100" doc:"next of the page before"`
	State  string `query:"state" enum:"free,locked,used,idle,quarantined,reserved"`
	Node   string `query:"node" maxLength:"63"`
	Pool   string `query:"pool" maxLength:"63"`
	Holder string `query:"holder" maxLength:"256"`
	Key    string `query:"key" maxLength:"256"`
	UIDs   string `query:"uids" doc:"ranges, e.g. 70000-70099"`
	PID    int    `query:"pid" minimum:"0" doc:"granted to this process of the answering node"`
}

type uidsOut struct{ Body api.List[api.UID] }

type reserveIn struct{ Body api.Reservation }

type unreserveIn struct {
	Ranges string `query:"ranges" required:"true"`
}

type reservedOut struct{ Body api.ReservationResult }

func (s *server) reservationRoutes() {
	tags := []string{"reservations"}
	add(s, huma.Operation{OperationID: "list-reservations", Method: http.MethodGet, Path: "/v1/reservations", Summary: "Reserved uids", Tags: tags}, s.listReserved)
	add(s, huma.Operation{OperationID: "reserve-uids", Method: http.MethodPost, Path: "/v1/reservations", Summary: "Keep uids out of every hand-out", Tags: tags}, s.reserve)
	add(s, huma.Operation{OperationID: "unreserve-uids", Method: http.MethodDelete, Path: "/v1/reservations", Summary: "Give reserved uids back", Tags: tags}, s.unreserve)
}

// filter chooses claims; spaces are where they may be.
type filter struct {
	in     *listIn
	node   string // the answering one
	spaces []cluster.Space
	is     func(leases.Requester) bool // bound to the process asked for
	within *idset.Set
}

func (s *server) newFilter(c *core, in *listIn) (*filter, error) {
	f := &filter{in: in, node: c.engine.Node(), spaces: c.engine.Spaces(), is: uidpool.BoundTo(in.PID)}
	if in.Node != "" && in.Node != f.node {
		f.spaces = append(f.spaces, cluster.NodeSpace(in.Node))
		slices.Sort(f.spaces)
	}
	if in.UIDs != "" {
		set, err := parseSet(in.UIDs)
		if err != nil {
			return nil, err
		}
		f.within = &set
	}
	return f, nil
}

// keep runs under the mirror's lock.
func (f *filter) keep(ref leases.Ref, c *leases.Claim) bool {
	switch in := f.in; {
	case !slices.Contains(f.spaces, ref.Space),
		in.State != "" && in.State != string(c.State),
		in.Pool != "" && in.Pool != c.Pool,
		in.Holder != "" && in.Holder != c.Holder,
		in.Key != "" && in.Key != c.Key,
		in.Node != "" && c.On(in.Node) == nil,
		in.PID != 0 && !boundTo(c, f.node, f.is):
		return false
	}
	return f.within == nil || f.within.Contains(ref.ID)
}

func (s *server) listUIDs(ctx context.Context, who caller, in *listIn) (*uidsOut, error) {
	c, err := s.a.serving(ctx)
	if err != nil {
		return nil, err
	}
	f, err := s.newFilter(c, in)
	if err != nil {
		return nil, err
	}
	after, err := readCursor(in.Cursor)
	if err != nil {
		return nil, err
	}
	if in.State == api.StateFree {
		return c.listFree(ctx, f, after)
	}
	infos := c.engine.List(ctx, after, in.Limit+1, f.keep)
	out := &uidsOut{}
	out.Body.Items = []api.UID{}
	if len(infos) > in.Limit {
		infos = infos[:in.Limit]
		out.Body.Next = infos[in.Limit-1].Ref.String()
	}
	u := c.uses(ctx)
	for _, info := range infos {
		out.Body.Items = append(out.Body.Items, c.uidView(ctx, who, u, info))
	}
	return out, nil
}

// listFree lists ids of pools that have no claim. Filters on what only a claim
// has select none.
func (c *core) listFree(ctx context.Context, f *filter, after *leases.Ref) (*uidsOut, error) {
	out := &uidsOut{}
	out.Body.Items = []api.UID{}
	if in := f.in; in.Node != "" && in.Node != f.node || in.Holder != "" || in.Key != "" || in.PID != 0 {
		return out, nil
	}
	free := map[cluster.Space]idset.Set{}
	for _, p := range c.engine.Pools() {
		if f.in.Pool != "" && f.in.Pool != p.Name {
			continue
		}
		ids := p.Firsts()
		if f.within != nil {
			ids = ids.Intersect(*f.within)
		}
		space := p.Space(f.node)
		free[space] = free[space].Add(ids)
	}
	u := c.uses(ctx)
	var last leases.Ref
	for _, space := range c.engine.Spaces() {
		taken := c.engine.Taken(space)
		from := uint32(0)
		if after != nil && after.Space > space {
			continue
		}
		if after != nil && after.Space == space {
			if from = after.ID + 1; from == 0 {
				continue
			}
		}
		for {
			id, ok := free[space].NextWithout(taken, from)
			if !ok {
				break
			}
			if len(out.Body.Items) == f.in.Limit {
				out.Body.Next = last.String()
				return out, nil
			}
			last = leases.Ref{Space: space, ID: id}
			out.Body.Items = append(out.Body.Items, c.freeView(ctx, u, c.engine.Get(ctx, last)))
			if from = id + 1; from == 0 {
				break
			}
		}
	}
	return out, nil
}

// readCursor reads where a page ended: SPACE/ID.
func readCursor(text string) (*leases.Ref, error) {
	if text == "" {
		return nil, nil
	}
	at := strings.LastIndexByte(text, '/')
	if at > 0 {
		if id, err := strconv.ParseUint(text[at+1:], 10, 32); err == nil {
			return &leases.Ref{Space: cluster.Space(text[:at]), ID: uint32(id)}, nil
		}
	}
	return nil, problem.New(problem.CodeInvalid, "cursor %q is none that a page gave", text)
}

func (s *server) listReserved(ctx context.Context, who caller, in *pageIn) (*uidsOut, error) {
	return s.listUIDs(ctx, who, &listIn{Limit: in.Limit, Cursor: in.Cursor, State: api.StateReserved})
}

func (s *server) reserve(ctx context.Context, who caller, in *reserveIn) (*reservedOut, error) {
	c, ids, err := s.reservation(ctx, who, in.Body.Ranges, "not reserved")
	if err != nil {
		return nil, err
	}
	if in.Body.Reason == "" {
		return nil, problem.New(problem.CodeInvalid, "uids %s not reserved: say why, others will ask", in.Body.Ranges)
	}
	before := c.reserved(ctx, ids)
	done, err := c.engine.Reserve(ctx, ids, who.name, in.Body.Reason)
	if err != nil {
		return nil, partly(err, done, "reserved")
	}
	return &reservedOut{api.ReservationResult{Ranges: done.String(), Changed: done.Remove(before).Count()}}, nil
}

func (s *server) unreserve(ctx context.Context, who caller, in *unreserveIn) (*reservedOut, error) {
	c, ids, err := s.reservation(ctx, who, in.Ranges, "reserved still")
	if err != nil {
		return nil, err
	}
	before := c.reserved(ctx, ids)
	done, err := c.engine.Unreserve(ctx, ids, who.name)
	if err != nil {
		return nil, partly(err, done, "given back")
	}
	return &reservedOut{api.ReservationResult{Ranges: done.String(), Changed: done.Intersect(before).Count()}}, nil
}

func (s *server) reservation(ctx context.Context, who caller, ranges, not string) (*core, idset.Set, error) {
	c, err := s.a.serving(ctx)
	if err != nil {
		return nil, idset.Set{}, err
	}
	if err := who.mustOperate("uids " + ranges + " " + not); err != nil {
		return nil, idset.Set{}, err
	}
	ids, err := parseSet(ranges)
	return c, ids, err
}

// reserved are those of ids that are reserved now.
func (c *core) reserved(ctx context.Context, ids idset.Set) idset.Set {
	var set idset.Set
	for _, info := range c.engine.List(ctx, nil, 0, func(ref leases.Ref, claim *leases.Claim) bool {
		return ref.Space == cluster.SpaceUID && claim.State == leases.Reserved && ids.Contains(ref.ID)
	}) {
		set.Insert(info.ID)
	}
	return set
}

// partly says what an operation that failed half-way had done.
func partly(err error, done idset.Set, did string) error {
	if done.IsEmpty() {
		return err
	}
	out := prefixed("only in part: ", err)
	if p, ok := out.(*problem.Error); ok {
		return p.Note("%s: %s", did, done)
	}
	return out
}
