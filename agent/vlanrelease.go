package agent

import (
	"context"
	"net/http"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/problem"
)

type releaseVLANIn struct {
	Inventory string `path:"inventory" maxLength:"63" doc:"name of a VLAN inventory"`
	VID       uint32 `path:"vid" maximum:"4095"`
	IfMatch   string `header:"If-Match" maxLength:"200" doc:"the grant's token; operators may send *"`
}

type releaseVLANKeyIn struct {
	Inventory string `path:"inventory" maxLength:"63" doc:"name of a VLAN inventory"`
	Key       string `query:"key" maxLength:"256" doc:"allocation key of the caller"`
}

type vlansReleasedOut struct {
	Status int
	Body   api.VLANsReleased
}

// noVLANs is the answer where nothing was left to do.
func noVLANs() *vlansReleasedOut {
	return &vlansReleasedOut{http.StatusNoContent, api.VLANsReleased{Items: []api.VLAN{}}}
}

// releaseVLAN ends the grant that the token names. What carries another token by
// now is over for the caller, whoever has it: done, and nothing is written (P5).
func (s *server) releaseVLAN(ctx context.Context, who caller, in *releaseVLANIn) (*vlansReleasedOut, error) {
	c, err := s.a.serving(ctx)
	if err != nil {
		return nil, err
	}
	not := vlanText(in.Inventory, in.VID) + " not released"
	t := token(in.IfMatch)
	switch t {
	case "":
		return nil, problem.New(problem.CodePreconditionRequired, "%s: the request names no grant", not).
			Note("send the grant's token as If-Match").
			Advise("your VLANs and their tokens", "poolctl vlan list %s -o json", in.Inventory)
	case "*":
		if err := who.mustOperate(not + " without its token"); err != nil {
			return nil, err
		}
	}
	ref := vlanRef(in.Inventory, in.VID)
	info := c.engine.Get(ctx, ref)
	if info.Claim == nil || (t != "*" && info.Claim.Token != t) { // over, or too new for the mirror
		if err := c.engine.Sync(ctx); err != nil {
			return nil, err
		}
		info = c.engine.Get(ctx, ref)
	}
	claim := info.Claim
	if info.Unread != nil {
		return nil, info.Unread
	}
	if claim == nil {
		if _, err := c.etcdInventory(in.Inventory, not); err != nil {
			return nil, err
		}
		return noVLANs(), nil
	}
	if t == "*" {
		t = claim.Token
	}
	switch {
	case claim.Token != t || claim.State == leases.Quarantined:
		return noVLANs(), nil
	case claim.State == leases.Reserved:
		return nil, problem.New(problem.CodeHeld, "%s: it is reserved (%s)", not, claim.Reason)
	case claim.Service != "":
		return nil, ofService(not, claim)
	}
	if err := ownVLAN(who, info, not); err != nil {
		return nil, err
	}
	return c.releasedVLANs(ctx, who, []leases.Ref{ref}, t)
}

// ofService refuses to end a part of a service.
func ofService(not string, claim *leases.Claim) error {
	since := claim.Since
	return problem.New(problem.CodeHeld, "%s: it belongs to service %s", not, claim.Service).
		By(problem.Holder{Caller: claim.Caller, Holder: claim.Holder, Since: &since, State: claim.State.String()}).
		Note("the VLANs of a service end with it").
		Advise("end the service", "poolctl vlan service delete %s", claim.Service).
		Advise("drop this VLAN from it", "poolctl vlan service patch %s --drop NAME", claim.Service)
}

// ownVLAN refuses a live grant that is another caller's.
func ownVLAN(who caller, info leases.ClaimInfo, not string) error {
	c := info.Claim
	if who.operator || c.Caller == who.name {
		return nil
	}
	since := c.Since
	h := problem.Holder{Caller: c.Caller, Holder: c.Holder, Since: &since, State: c.State.String()}
	inventory, _ := info.Space.Inventory()
	return problem.New(problem.CodeForbidden, "%s: it is held by %s, and you are %s", not, h, who.name).By(h).
		Advise("look", "poolctl vlan show %s %d", inventory, info.ID)
}

// releasedVLANs ends grants and shows the VLANs as they are after it.
func (c *core) releasedVLANs(ctx context.Context, who caller, refs []leases.Ref, t string) (*vlansReleasedOut, error) {
	held, changed, err := c.engine.Release(ctx, leases.Release{Refs: refs, Token: t, By: who.name, Whole: true})
	if err != nil {
		return nil, err
	}
	if !changed {
		return noVLANs(), nil
	}
	out := &vlansReleasedOut{http.StatusOK, api.VLANsReleased{Changed: true}}
	for _, ref := range refs {
		out.Body.Items = append(out.Body.Items, c.vlanAfter(ctx, who, ref, held))
	}
	return out, nil
}

// vlanAfter shows one VLAN: as it was left, or free.
func (c *core) vlanAfter(ctx context.Context, who caller, ref leases.Ref, held []leases.Held) api.VLAN {
	for _, h := range held {
		if h.Ref == ref && h.Claim != nil {
			return c.heldVLAN(ctx, who, h)
		}
	}
	return c.heldVLAN(ctx, who, leases.Held{Ref: ref})
}

// releaseVLANKey ends the grant of an allocation key, if it is VLANs of this
// inventory.
func (s *server) releaseVLANKey(ctx context.Context, who caller, in *releaseVLANKeyIn) (*vlansReleasedOut, error) {
	c, err := s.a.serving(ctx)
	if err != nil {
		return nil, err
	}
	if in.Key == "" {
		return nil, problem.New(problem.CodePreconditionRequired, "no VLAN of %s released: name a grant by ?key=, or one VLAN and its token", in.Inventory)
	}
	refs, t, err := c.engine.Find(ctx, who.name, in.Key)
	if problem.CodeOf(err) == problem.CodeKeyEnded {
		return noVLANs(), nil
	}
	if err != nil {
		return nil, err
	}
	if err := allOf(refs, cluster.VLANSpace(in.Inventory), in.Key); err != nil {
		return nil, err
	}
	return c.releasedVLANs(ctx, who, refs, t)
}

// allOf refuses to end a key's grant by a command that is about one space, if it
// has ids of others.
func allOf(refs []leases.Ref, space cluster.Space, key string) error {
	for _, ref := range refs {
		if ref.Space != space {
			return problem.New(problem.CodeInvalid, "key %s not released: it stands for other ids as well, such as %s", key, ref).
				Advise("all of them", "poolctl allocation delete %s", key)
		}
	}
	return nil
}

// onlyUIDs is allOf for uids, whose spaces are the cluster's and the nodes'.
func onlyUIDs(refs []leases.Ref, key string) error {
	for _, ref := range refs {
		if _, vlan := ref.Space.Inventory(); vlan {
			return allOf(refs, cluster.SpaceUID, key)
		}
	}
	return nil
}
