package leases

import (
	"errors"
	"fmt"
	"slices"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/problem"
)

// tie turns wants that are tied to the first one's id into wants of exact ids: it
// chooses the first one's id such that all of them are free. false means that no
// number will do now. Without ties the wants come back as they are.
func (a *Allocator) tie(v *view, wants []Want) ([]Want, bool, error) {
	if !tied(wants) {
		return wants, true, nil
	}
	p, ok := v.pools[wants[0].Pool]
	if !ok {
		return nil, false, unknownPool(v, wants[0].Pool)
	}
	if err := a.reachable(v, wants); err != nil {
		return nil, false, err
	}
	fit, err := a.fitting(v, wants)
	if err != nil {
		return nil, false, err
	}
	flying := func(id uint32) bool {
		for i, w := range wants {
			if i > 0 && w.Offset == nil {
				continue
			}
			ref := Ref{v.pools[w.Pool].space(a.id.Node), w.shifted(id)}
			_, bad := a.flying[ref]
			if bad || slices.ContainsFunc(wants[1:], func(o Want) bool {
				return o.Offset == nil && o.Exact != nil && cluster.Space(o.Pool) == ref.Space && *o.Exact == ref.ID
			}) {
				return true
			}
		}
		return false
	}
	first, ok := a.next(p, wants[0].Pool, fit, idset.Set{}, flying)
	if !ok {
		return nil, false, nil
	}
	exact := slices.Clone(wants)
	for i, w := range exact {
		if i == 0 || w.Offset != nil {
			id := w.shifted(first)
			exact[i].Exact = &id
		}
	}
	return exact, true, nil
}

// reachable refuses a number asked for that some side does not have.
func (a *Allocator) reachable(v *view, wants []Want) error {
	for i, w := range wants {
		p, ok := v.pools[w.Pool]
		if !ok || (i > 0 && w.Offset == nil) {
			continue
		}
		if p.Val.Outside != nil {
			return labelled(keptOutside(p), w.Label)
		}
		if wants[0].Exact == nil {
			continue
		}
		id := int64(*wants[0].Exact)
		if w.Offset != nil {
			id += *w.Offset
		}
		switch {
		case id < 0 || id > maxVLAN || !p.firsts.Contains(uint32(id)):
			return labelled(outsidePool(p, uint32(max(0, min(id, 1<<32-1)))), w.Label)
		case w.Within != nil && !w.Within.Contains(uint32(id)):
			return labelled(excludedByItself(Ref{p.space(a.id.Node), uint32(id)}), w.Label)
		}
	}
	return nil
}

// shifted is the want's id where the first want's is id.
func (w Want) shifted(id uint32) uint32 {
	if w.Offset == nil {
		return id
	}
	return uint32(int64(id) + *w.Offset)
}

// fitting are the ids that the first want may get, so that every want tied to it
// is in its inventory, allowed and free.
func (a *Allocator) fitting(v *view, wants []Want) (idset.Set, error) {
	var fit idset.Set
	lead := v.pools[wants[0].Pool]
next:
	for id := range lead.firsts.All() {
		for i, w := range wants {
			if i > 0 && w.Offset == nil {
				continue
			}
			p, ok := v.pools[w.Pool]
			if !ok {
				return fit, unknownPool(v, w.Pool)
			}
			at := int64(id)
			if w.Offset != nil {
				at += *w.Offset
			}
			if at < 0 || at > maxVLAN || !w.allows(uint32(at)) || !p.firsts.Contains(uint32(at)) || v.takenIn(p.space(a.id.Node)).Contains(uint32(at)) {
				continue next
			}
		}
		fit.Insert(id)
	}
	return fit, nil
}

// allows tells whether the want's own words admit an id.
func (w Want) allows(id uint32) bool {
	return (w.Exact == nil || *w.Exact == id) && (w.Within == nil || w.Within.Contains(id))
}

// untied refuses tied wants that can each be met but not together; nil where one
// of their inventories is gone.
func (a *Allocator) untied(v *view, wants []Want) *problem.Error {
	var parts []string
	for _, w := range wants {
		p, ok := v.pools[w.Pool]
		if !ok {
			return nil
		}
		_, bare := tradeOf(w.Pool)
		part := fmt.Sprintf("%s: %d free", bare, p.firsts.CountWithout(v.takenIn(p.space(a.id.Node))))
		if w.Offset != nil && *w.Offset != 0 {
			part += fmt.Sprintf(", shifted by %+d", *w.Offset)
		}
		parts = append(parts, part)
	}
	for i, w := range wants { // one number was asked for: say who has it
		if wants[0].Exact == nil || (i > 0 && w.Offset == nil) {
			continue
		}
		ref := Ref{v.pools[w.Pool].space(a.id.Node), w.shifted(*wants[0].Exact)}
		if c := v.claims[ref].Val; c != nil {
			e := heldBy(ref, c)
			e.Attribute = w.Label
			return e
		}
	}
	e := problem.New(problem.CodeExhausted, "no VLAN is free on all sides at revision %d (%s)", v.rev, join(parts))
	e.Revision = v.rev // of no side alone, so no attribute is named
	return e
}

// tied tells whether a want's number depends on another's.
func tied(wants []Want) bool {
	return slices.ContainsFunc(wants, func(w Want) bool { return w.Offset != nil })
}

// labelled names the part of the request that a refusal is about.
func labelled(err error, label string) error {
	var e *problem.Error
	if errors.As(err, &e) && e.Attribute == "" {
		e.Attribute = label
	}
	return err
}

// checkTies refuses ties that can never hold.
func (r *GrantRequest) checkTies() error {
	type side struct {
		pool   string
		offset int64
	}
	seen := map[side]bool{}
	for i, w := range r.Wants {
		if w.Offset == nil {
			if i == 0 {
				seen[side{w.Pool, 0}] = true
			}
			continue
		}
		_, lead := InventoryOf(r.Wants[0].Pool)
		_, vlans := InventoryOf(w.Pool)
		s := side{w.Pool, *w.Offset}
		switch {
		case i == 0 || !lead || !vlans || w.Count > 1 || r.Wants[0].Count > 1:
			return problem.New(problem.CodeInvalid, "only single VLANs can be tied to the first one of a request")
		case w.Exact != nil:
			return problem.New(problem.CodeInvalid, "a VLAN is tied to another one or named by number, not both")
		case seen[s]:
			_, bare := tradeOf(w.Pool)
			return problem.New(problem.CodeInvalid, "inventory %s cannot give one VLAN to two attributes: sides of one inventory need different numbers", bare)
		}
		seen[s] = true
	}
	return nil
}
