package agent

import (
	"cmp"
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/uidpool"
)

// maxWait bounds how long a request may wait for a uid.
const maxWait = 24 * time.Hour

// undoTimeout bounds the giving back of a grant whose client has gone.
const undoTimeout = 30 * time.Second

type uidPath struct {
	UID uint64 `path:"uid" maximum:"4294967295"`
}

// grantRef names the grant that a change is meant for.
type grantRef struct {
	uid     uint32
	ifMatch string
	key     string
}

type uidOut struct{ Body api.UID }

type requestIn struct {
	Pool string `path:"pool" maxLength:"63" doc:"name of a uid pool"`
	Body api.UIDRequestBody
}

type confirmIn struct {
	UID     uint64 `path:"uid" maximum:"4294967295"`
	IfMatch string `header:"If-Match" maxLength:"200" doc:"the grant's token; operators may send *"`
	Key     string `query:"key" maxLength:"256" doc:"instead of a token: the caller's allocation key"`
	Body    *api.ConfirmBody
}

type renewIn struct {
	UID     uint64 `path:"uid" maximum:"4294967295"`
	IfMatch string `header:"If-Match" maxLength:"200" doc:"the grant's token; operators may send *"`
	Key     string `query:"key" maxLength:"256" doc:"instead of a token: the caller's allocation key"`
	Body    *api.RenewBody
}

type joinIn struct {
	UID     uint64 `path:"uid" maximum:"4294967295"`
	IfMatch string `header:"If-Match" maxLength:"200" doc:"the grant's token; operators may send *"`
	Key     string `query:"key" maxLength:"256" doc:"instead of a token: the caller's allocation key"`
	Body    *api.JoinBody
}

type adoptIn struct {
	UID  uint64 `path:"uid" maximum:"4294967295"`
	Body *api.AdoptBody
}

func (s *server) uidRoutes() {
	tags := []string{"uids"}
	add(s, huma.Operation{OperationID: "request-uids", Method: http.MethodPost, Path: "/v1/uid-pools/{pool}/uids", Summary: "Ask for uids: 201, or 200 for the same grant as before", Tags: tags, DefaultStatus: http.StatusCreated, Responses: s.grantResponses()}, s.request)
	add(s, huma.Operation{OperationID: "list-uids", Method: http.MethodGet, Path: "/v1/uids", Summary: "Uids that are held, waiting or reserved", Tags: tags}, s.listUIDs)
	add(s, huma.Operation{OperationID: "get-uid", Method: http.MethodGet, Path: "/v1/uids/{uid}", Summary: "One uid", Tags: tags}, s.getUID)
	add(s, huma.Operation{OperationID: "confirm-uid", Method: http.MethodPost, Path: "/v1/uids/{uid}/confirm", Summary: "End the hand-over: the process runs", Tags: tags}, s.confirm)
	add(s, huma.Operation{OperationID: "renew-uid", Method: http.MethodPost, Path: "/v1/uids/{uid}/renew", Summary: "Move the end of a ttl hold", Tags: tags}, s.renew)
	add(s, huma.Operation{OperationID: "join-uid", Method: http.MethodPost, Path: "/v1/uids/{uid}/nodes", Summary: "Add this node to a grant, before anything runs here", Tags: tags}, s.join)
	add(s, huma.Operation{OperationID: "adopt-uid", Method: http.MethodPost, Path: "/v1/uids/{uid}/adopt", Summary: "Make a grant of a foreign use", Tags: tags}, s.adopt)
	add(s, huma.Operation{OperationID: "release-uid", Method: http.MethodDelete, Path: "/v1/uids/{uid}", Summary: "End the grant named; 204 if it is over", Tags: tags}, s.release)
	add(s, huma.Operation{OperationID: "release-uids", Method: http.MethodDelete, Path: "/v1/uids", Summary: "End the grant of an allocation key, or of a process; 204 if it is over", Tags: tags}, s.releaseMany)
}

func (s *server) request(ctx context.Context, who caller, in *requestIn) (*grantOut, error) {
	c, err := s.a.serving(ctx)
	if err != nil {
		return nil, err
	}
	if s.a.cfg.Role == leases.RoleGateway {
		return nil, problem.New(problem.CodeUnavailable, "no uid granted: %s is a gateway, which grants none; nothing was done", s.a.cfg.Node).
			Note("ask the agent of the machine that will run the process")
	}
	req, err := readRequest(who, in)
	if err != nil {
		return nil, err
	}
	if req.Hold.Connection {
		// Known before the claim names it, and for as long as this request lasts.
		req.Requester = cmp.Or(req.Requester, leases.NewToken())
		context.AfterFunc(ctx, c.prover.Connect(req.Requester))
	}
	_, g, err := c.uids.Request(ctx, req)
	if err != nil {
		return nil, c.explained("granted", err)
	}
	if ctx.Err() != nil && req.Key == "" && !g.Same {
		return nil, s.undo(ctx, c, who, g)
	}
	status, body := c.granted(ctx, who, g)
	if req.Hold.Connection {
		return c.stream(status, body, g.Held), nil
	}
	return once(status, body), nil
}

// undo gives a grant back at once whose client went away: nobody knows its token.
func (s *server) undo(ctx context.Context, c *core, who caller, g *leases.Grant) error {
	gone := context.Cause(ctx)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	refs := make([]leases.Ref, 0, len(g.Held))
	for _, h := range g.Held {
		refs = append(refs, h.Ref)
	}
	_, _, err := c.engine.Release(ctx, leases.Release{Refs: refs, Token: g.Token, Requester: g.Requester, By: who.name + ", whose request was cut off"})
	if err != nil {
		return err
	}
	return problem.Wrap(problem.CodeUnavailable, gone, "the request was cut off; what was granted is given back")
}

// readRequest turns the body into a request of the caller.
func readRequest(who caller, in *requestIn) (uidpool.Request, error) {
	b := in.Body
	req := uidpool.Request{Caller: who.name, Pool: in.Pool, UID: uidpool.UID(b.UID), Count: int(b.Count), Key: b.Key, Holder: b.Holder, Requester: b.Requester}
	if err := cluster.ValidName(in.Pool); err != nil {
		return req, err
	}
	var err error
	if req.Hold, err = readHold(who, b.Hold); err != nil {
		return req, err
	}
	if b.From != "" {
		from, err := parseSet(b.From)
		if err != nil {
			return req, err
		}
		req.From = &from
	}
	if err := setDuration(&req.Wait, "wait", b.Wait); err != nil {
		return req, err
	}
	if req.Wait < 0 || req.Wait > maxWait {
		return req, problem.New(problem.CodeInvalid, "wait %s: want 0 to %s", req.Wait, maxWait)
	}
	return req, nil
}

// readHold reads a hold; nil is the default.
func readHold(who caller, h *api.Hold) (uidpool.Hold, error) {
	if h == nil {
		return uidpool.Hold{}, nil
	}
	switch h.Kind {
	case api.HoldConnection:
		if h.PID != 0 || h.TTL != "" {
			return uidpool.Hold{}, problem.New(problem.CodeInvalid, "a connection hold takes neither pid nor ttl")
		}
		// Not knowing whose it is, only what is the uid already counts when it ends.
		return uidpool.Hold{Connection: true, Process: who.process}, nil
	case api.HoldPID:
		if h.PID == 0 && h.TTL == "" {
			if who.unidentified != nil || who.process.PID == 0 {
				return uidpool.Hold{}, problem.New(problem.CodeInvalid, "a pid hold of the process that asks: it is not known (%v); name its pid", who.unidentified)
			}
			return uidpool.Hold{Process: who.process}, nil
		}
		if h.PID <= 0 || h.TTL != "" {
			return uidpool.Hold{}, problem.New(problem.CodeInvalid, "a pid hold takes the pid of a process and no ttl, not pid %d and ttl %q", h.PID, h.TTL)
		}
		return uidpool.Hold{PID: h.PID}, who.mustBeLocal("a pid hold is refused")
	case api.HoldTTL:
		out := uidpool.Hold{TTL: uidpool.DefaultTTL}
		if h.PID != 0 {
			return out, problem.New(problem.CodeInvalid, "a ttl hold takes no pid")
		}
		return out, readTTL(&out.TTL, h.TTL)
	}
	return uidpool.Hold{}, problem.New(problem.CodeInvalid, "hold kind %q is none of ttl, pid and connection", h.Kind)
}

func readTTL(to *time.Duration, text string) error {
	if err := setDuration(to, "ttl", text); err != nil {
		return err
	}
	if *to < uidpool.MinTTL || *to > uidpool.MaxTTL {
		return problem.New(problem.CodeInvalid, "ttl %s: want %s to %s", *to, uidpool.MinTTL, uidpool.MaxTTL)
	}
	return nil
}

func (s *server) getUID(ctx context.Context, who caller, in *uidPath) (*uidOut, error) {
	c, err := s.a.serving(ctx)
	if err != nil {
		return nil, err
	}
	info := c.find(ctx, uint32(in.UID))
	if info.Unread != nil {
		return nil, info.Unread
	}
	if info.Claim == nil && len(info.Pools) == 0 {
		return nil, problem.New(problem.CodeNotFound, "uid %d is in no pool and nobody holds it", in.UID).Advise("look", "poolctl uid pool list")
	}
	return &uidOut{c.uidView(ctx, who, c.uses(ctx), info)}, nil
}

// find is an id in the space that it stands in here: with a claim, else in a
// pool; a number inside of a block is the block.
func (c *core) find(ctx context.Context, uid uint32) leases.ClaimInfo {
	var first, pooled *leases.ClaimInfo
	try := func(space cluster.Space, id uint32) bool {
		info := c.engine.Get(ctx, leases.Ref{Space: space, ID: id})
		if first == nil {
			first = &info
		}
		if pooled == nil && len(info.Pools) > 0 {
			pooled = &info
		}
		if info.Unread != nil || (info.Claim != nil && info.Claim.Count > uid-id) {
			pooled = &info
			return true
		}
		return false
	}
	for _, space := range c.engine.Spaces() {
		if try(space, uid) {
			return *pooled
		}
	}
	if pooled != nil {
		return *pooled
	}
	for _, p := range c.engine.Pools() {
		if p.Block > 1 && p.IDs().Contains(uid) && try(p.Space(c.engine.Node()), uid&^(p.Block-1)) {
			break
		}
	}
	if pooled != nil {
		return *pooled
	}
	return *first
}

// named is the grant that a caller names for one uid: by token, or by its key.
func (c *core) named(ctx context.Context, who caller, in grantRef, not string) (leases.ClaimInfo, string, error) {
	info := c.find(ctx, in.uid)
	t := token(in.ifMatch)
	switch {
	case t == "*":
		if err := who.mustOperate("uid " + uidpool.UID(in.uid).String() + " " + not + " without its token"); err != nil {
			return info, "", err
		}
		if info.Claim != nil {
			return info, info.Claim.Token, nil
		}
		return info, "*", nil
	case t != "":
		return info, t, nil
	case in.key == "":
		return info, "", problem.New(problem.CodePreconditionRequired, "uid %d %s: the request names no grant", in.uid, not).
			Note("send the grant's token as If-Match, or its allocation key as ?key=").
			Advise("your uids and their tokens", "poolctl uid list -o json")
	}
	refs, t, err := c.engine.Find(ctx, who.name, in.key)
	if err != nil {
		return info, "", err
	}
	for _, ref := range refs {
		if ref == info.Ref {
			return info, t, nil
		}
	}
	return info, "", problem.New(problem.CodeNotHeld, "uid %d %s: key %s has not this uid", in.uid, not, in.key).
		Advise("look", "poolctl uid list --key %s", in.key)
}

// own refuses a live grant, named by its token, that is another caller's.
func own(who caller, info leases.ClaimInfo, t, not string) error {
	c := info.Claim
	if c == nil || c.Token != t || who.operator || c.Caller == who.name {
		return nil
	}
	since := c.Since
	h := problem.Holder{Caller: c.Caller, Holder: c.Holder, Nodes: c.NodeNames(), Since: &since, State: c.State.String()}
	return problem.New(problem.CodeForbidden, "uid %d %s: it is held by %s, and you are %s", info.ID, not, h, who.name).By(h).
		Advise("look", "poolctl uid show %d", info.ID)
}

func (s *server) confirm(ctx context.Context, who caller, in *confirmIn) (*uidOut, error) {
	const not = "not confirmed"
	c, info, t, err := s.grant(ctx, who, grantRef{uint32(in.UID), in.IfMatch, in.Key}, not)
	if err != nil {
		return nil, err
	}
	var body api.ConfirmBody
	if in.Body != nil {
		body = *in.Body
	}
	held, err := c.uids.Confirm(ctx, info.Ref, t, body.Requester, body.Keep)
	if err != nil {
		return nil, err
	}
	return &uidOut{c.heldView(ctx, who, c.uses(ctx), held, "")}, nil
}

// grant is what confirm, renew and join begin with.
func (s *server) grant(ctx context.Context, who caller, in grantRef, not string) (*core, leases.ClaimInfo, string, error) {
	c, err := s.a.serving(ctx)
	if err != nil {
		return nil, leases.ClaimInfo{}, "", err
	}
	info, t, err := c.named(ctx, who, in, not)
	if err == nil {
		err = own(who, info, t, not)
	}
	return c, info, t, err
}

func (s *server) renew(ctx context.Context, who caller, in *renewIn) (*uidOut, error) {
	c, info, t, err := s.grant(ctx, who, grantRef{uint32(in.UID), in.IfMatch, in.Key}, "not renewed")
	if err != nil {
		return nil, err
	}
	ttl, requester := uidpool.DefaultTTL, ""
	if in.Body != nil {
		requester = in.Body.Requester
		if err := readTTL(&ttl, in.Body.TTL); err != nil {
			return nil, err
		}
	}
	held, err := c.uids.Renew(ctx, info.Ref, t, requester, ttl)
	if err != nil {
		return nil, err
	}
	return &uidOut{c.heldView(ctx, who, c.uses(ctx), held, "")}, nil
}

func (s *server) join(ctx context.Context, who caller, in *joinIn) (*uidOut, error) {
	c, info, t, err := s.grant(ctx, who, grantRef{uint32(in.UID), in.IfMatch, in.Key}, "not joined")
	if err != nil {
		return nil, err
	}
	var hold uidpool.Hold
	if in.Body != nil {
		if hold, err = readHold(who, in.Body.Hold); err != nil {
			return nil, err
		}
	}
	if hold.Connection {
		return nil, problem.New(problem.CodeInvalid, "uid %d not joined: a connection holds what was asked for over it; join with a ttl or a pid", in.UID)
	}
	held, requester, err := c.uids.Join(ctx, []leases.Ref{info.Ref}, t, hold)
	if err != nil {
		return nil, c.explained("joined", err)
	}
	if len(held) == 0 {
		return nil, problem.New(problem.CodeInternal, "bug: uid %d joined, and nothing is held", in.UID)
	}
	return &uidOut{c.heldView(ctx, who, c.uses(ctx), held[0], requester)}, nil
}

func (s *server) adopt(ctx context.Context, who caller, in *adoptIn) (*uidOut, error) {
	c, err := s.a.serving(ctx)
	if err != nil {
		return nil, err
	}
	not := "uid " + uidpool.UID(uint32(in.UID)).String() + " not adopted"
	if err := who.mustOperate(not); err != nil {
		return nil, err
	}
	var body api.AdoptBody
	if in.Body != nil {
		body = *in.Body
	}
	info := c.find(ctx, uint32(in.UID))
	switch {
	case body.Key != "":
		return nil, problem.New(problem.CodeInvalid, "%s: an adopted uid has no allocation key, since no request was made for it", not)
	case body.Pool != "" && info.Claim != nil && info.Claim.Pool != body.Pool:
		return nil, problem.New(problem.CodeInvalid, "%s: it belongs to pool %q, not to %q", not, info.Claim.Pool, body.Pool)
	case len(body.Holder) > 256:
		return nil, problem.New(problem.CodeInvalid, "%s: holder takes at most 256 bytes", not)
	}
	held, err := c.uids.Adopt(ctx, info.Ref, who.name, body.Holder)
	if err != nil {
		return nil, err
	}
	return &uidOut{c.heldView(ctx, who, c.uses(ctx), held, "")}, nil
}
