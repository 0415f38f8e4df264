package agent

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/uidpool"
)

type releaseIn struct {
	UID       uint64 `path:"uid" maximum:"4294967295"`
	IfMatch   string `header:"If-Match" maxLength:"200" doc:"the grant's token; operators may send *"`
	Key       string `query:"key" maxLength:"256" doc:"instead of a token: the caller's allocation key"`
	Requester string `query:"requester" maxLength:"100" doc:"end only this requester's part"`
}

type releaseManyIn struct {
	Key string `query:"key" maxLength:"256" doc:"allocation key of the caller"`
	PID int    `query:"pid" minimum:"0" doc:"process of this node"`
}

type releasedOut struct {
	Status int
	Body   api.Released
}

// release ends the grant that the token names. What carries another token by now
// is over for the caller, whoever has it: done, and nothing is written (P5).
func (s *server) release(ctx context.Context, who caller, in *releaseIn) (*releasedOut, error) {
	const not = "not released"
	c, err := s.a.serving(ctx)
	if err != nil {
		return nil, err
	}
	ref := grantRef{uint32(in.UID), in.IfMatch, in.Key}
	info, t, err := c.named(ctx, who, ref, not)
	if err == nil && (info.Claim == nil || info.Claim.Token != t) { // over, or too new for the mirror
		if err := c.engine.Sync(ctx); err != nil {
			return nil, err
		}
		info, t, err = c.named(ctx, who, ref, not)
	}
	switch {
	case problem.CodeOf(err) == problem.CodeKeyEnded:
		return nothing(), nil
	case err != nil:
		return nil, err
	case info.Unread != nil:
		return nil, info.Unread
	case info.Claim == nil || info.Claim.Token != t:
		return nothing(), nil
	case info.Claim.State == leases.Reserved:
		return nil, problem.New(problem.CodeHeld, "uid %d %s: it is reserved (%s)", in.UID, not, info.Claim.Reason).
			Advise("end that", "poolctl uid unreserve %d", in.UID)
	}
	if err := own(who, info, t, not); err != nil {
		return nil, err
	}
	r := leases.Release{Refs: []leases.Ref{info.Ref}, Token: t, Requester: in.Requester, By: who.name}
	switch {
	case in.Requester != "":
	case who.name != info.Claim.Caller, token(in.IfMatch) == "*": // an operator's word, also about what is its own
		r.Whole = true
	default:
		r.Match = speaksFor(who)
	}
	return c.released(ctx, who, r)
}

// nothing is the answer where nothing was left to do.
func nothing() *releasedOut {
	return &releasedOut{http.StatusNoContent, api.Released{Items: []api.UID{}}}
}

// released ends what r names and shows the ids as they are after it: also where
// nothing changed, if the grant goes on for requesters that r does not speak for.
func (c *core) released(ctx context.Context, who caller, r leases.Release) (*releasedOut, error) {
	held, changed, err := c.engine.Release(ctx, r)
	if err != nil {
		return nil, err
	}
	if !changed && (r.Requester != "" || !slices.ContainsFunc(held, lives(r.Token))) {
		return nothing(), nil
	}
	out := &releasedOut{http.StatusOK, api.Released{Changed: changed}}
	u := c.uses(ctx)
	for _, ref := range r.Refs {
		out.Body.Items = append(out.Body.Items, c.afterRelease(ctx, who, u, ref, held))
	}
	return out, nil
}

// lives tells whether an id is the grant's of a token still.
func lives(token string) func(leases.Held) bool {
	return func(h leases.Held) bool {
		if h.Claim == nil || h.Claim.Token != token {
			return false
		}
		switch h.Claim.State {
		case leases.Locked, leases.Used, leases.Idle:
			return true
		}
		return false
	}
}

// afterRelease shows one id: as it was left, or free.
func (c *core) afterRelease(ctx context.Context, who caller, u *uses, ref leases.Ref, held []leases.Held) api.UID {
	for _, h := range held {
		if h.Ref == ref {
			return c.heldView(ctx, who, u, h, "")
		}
	}
	info := c.engine.Get(ctx, ref)
	info.Claim = nil
	return c.freeView(ctx, u, info)
}

// releaseMany ends the grant of an allocation key, or what a process was granted.
func (s *server) releaseMany(ctx context.Context, who caller, in *releaseManyIn) (*releasedOut, error) {
	c, err := s.a.serving(ctx)
	switch {
	case err != nil:
		return nil, err
	case (in.Key == "") == (in.PID == 0):
		return nil, problem.New(problem.CodePreconditionRequired, "no uid released: name a grant by ?key= or a process by ?pid=")
	case in.PID != 0:
		if err := who.mustBeLocal("no uid released by pid"); err != nil {
			return nil, err
		}
		return c.releasePID(ctx, who, in.PID)
	}
	refs, t, err := c.engine.Find(ctx, who.name, in.Key)
	if problem.CodeOf(err) == problem.CodeKeyEnded {
		return nothing(), nil
	}
	if err == nil {
		err = onlyUIDs(refs, in.Key)
	}
	if err != nil {
		return nil, err
	}
	return c.released(ctx, who, leases.Release{Refs: refs, Token: t, Match: speaksFor(who), By: who.name})
}

func (c *core) releasePID(ctx context.Context, who caller, pid int) (*releasedOut, error) {
	may := func(claim *leases.Claim) bool { return who.operator || claim.Caller == who.name }
	var refs []leases.Ref
	node, is := c.engine.Node(), uidpool.BoundTo(pid)
	for _, info := range c.engine.List(ctx, nil, 0, func(_ leases.Ref, claim *leases.Claim) bool { return boundTo(claim, node, is) && may(claim) }) {
		refs = append(refs, info.Ref)
	}
	held, changed, err := c.uids.ReleaseByPID(ctx, pid, may, who.name)
	if err != nil {
		return nil, err
	}
	if len(refs) == 0 && !changed {
		return nothing(), nil
	}
	out := &releasedOut{http.StatusOK, api.Released{Items: []api.UID{}, Changed: changed}}
	u := c.uses(ctx)
	for _, ref := range refs {
		out.Body.Items = append(out.Body.Items, c.afterRelease(ctx, who, u, ref, held))
	}
	return out, nil
}

// speaksFor chooses the requesters of this node that a caller speaks for who
// names no requester: those with a word of its own (a ttl), and processes that
// are gone, or are the one that asks, or started it. Other live processes keep
// their part (rule 4).
func speaksFor(who caller) func(leases.Requester) bool {
	line := ancestors(who.pid)
	return func(r leases.Requester) bool {
		if (r.Hold != leases.HoldPID && r.Hold != leases.HoldConn) || line[r.PID] {
			return true
		}
		alive, _ := uidpool.ProcessRef{PID: r.PID, Start: r.Start, PIDNS: r.PIDNS, Session: r.Session}.Alive()
		return !alive
	}
}

// maxAncestors ends the walk where process ids were given again on the way.
const maxAncestors = 64

// ancestors is a process and those that started it, as far as can be told.
func ancestors(pid int) map[int]bool {
	line := map[int]bool{}
	for ; pid > 0 && !line[pid] && len(line) < maxAncestors; pid = parent(pid) {
		line[pid] = true
	}
	return line
}

// parent is field 4 of a stat file; the name before it may hold anything but
// ends with the last parenthesis.
func parent(pid int) int {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0
	}
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < 2 {
		return 0
	}
	ppid, err := strconv.Atoi(string(fields[1]))
	if err != nil {
		return 0
	}
	return ppid
}

// boundTo tells whether a requester of the claim on the node is the one meant.
func boundTo(claim *leases.Claim, node string, is func(leases.Requester) bool) bool {
	p := claim.On(node)
	return p != nil && slices.ContainsFunc(p.Requesters, is)
}
