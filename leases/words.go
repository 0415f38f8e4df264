package leases

import (
	"slices"

	"github.com/idpool/idpool/problem"
)

// heldBy is the refusal of an id that has a claim.
func heldBy(ref Ref, c *Claim) *problem.Error {
	since := c.Since
	h := problem.Holder{Caller: c.Caller, Holder: c.Holder, Nodes: c.NodeNames(), Since: &since, State: c.State.String()}
	e := problem.New(problem.CodeHeld, "%s is %s: %s", label(ref), c.State, h)
	if c.Reason != "" {
		e.Note("%s", c.Reason)
	}
	e.By(h)
	if c.Service != "" {
		return e.Note("it is a VLAN of service %s", c.Service).Advise("look", "poolctl vlan service show %s", c.Service)
	}
	return e.Advise("look", "poolctl %s", showOf(ref))
}

// showOf is the command that shows an id.
func showOf(ref Ref) string {
	if inv, ok := ref.Space.Inventory(); ok {
		return "vlan show " + inv + " " + u32(ref.ID)
	}
	return "uid show " + u32(ref.ID)
}

// label is how messages name an id.
func label(ref Ref) string {
	if inv, ok := ref.Space.Inventory(); ok {
		return "VLAN " + u32(ref.ID) + " of " + inv
	}
	if node, ok := ref.Space.Node(); ok {
		return "uid " + u32(ref.ID) + " of node " + node
	}
	return "uid " + u32(ref.ID)
}

func unknownPool(v *view, name string) error {
	t, bare := tradeOf(name)
	if why := v.lostPools[name]; why != nil {
		return lookAt(problem.Wrap(problem.CodeInvalid, why, "the definition of %s %s cannot be read, so nothing is told or done about it", t.pool, bare))
	}
	var names []string
	for n := range v.pools {
		if o, other := tradeOf(n); o == t {
			names = append(names, other)
		}
	}
	if len(names) == 0 {
		return problem.New(problem.CodeNotFound, "there is no %s %s, and no other", t.pool, bare).Advise("make one", t.make, bare)
	}
	slices.Sort(names)
	if len(names) > 20 {
		names = append(names[:20], "…")
	}
	plural := map[string]string{"pool": "pools", "inventory": "inventories"}[t.pool]
	return problem.New(problem.CodeNotFound, "there is no %s %s; %s: %s", t.pool, bare, plural, join(names)).Advise("look", "%s", t.list)
}

func outsidePool(p poolEntry, id uint32) error {
	t, bare := tradeOf(p.name)
	return problem.New(problem.CodeOutsidePool, "%s %d is not in %s %s (%s)", t.id, id, t.pool, bare, clipRanges(p.Val.Ranges)).
		Advise("look", "%s %s", t.show, bare)
}

func keptOutside(p poolEntry) error {
	_, bare := tradeOf(p.name)
	o := p.Val.Outside
	return problem.New(problem.CodeInvalid, "inventory %s is kept in file %s on node %s: only services take VLANs from it", bare, o.File, o.On).
		Advise("as part of a service", "poolctl vlan service create NAME --north %s", bare)
}

func excludedByItself(ref Ref) error {
	return problem.New(problem.CodeInvalid, "%s is asked for, and excluded by the same request", label(ref))
}
