package vlan

import (
	"slices"

	"github.com/idpool/idpool/problem"
)

// Patch changes the attributes of a service that is up.
type Patch struct {
	// Set are attributes to add, or to move to another inventory; one that is of
	// that inventory already keeps its VLAN.
	Set []Want
	// Drop are attributes whose VLANs are given back.
	Drop []string
	// Selection is what the new VLANs may be; VID speaks of the first of Set that
	// is new or moves. Empty: what the service was created with.
	Selection
}

// plan is what a patch makes of a record: the attributes to get, by index, and
// the VLANs that end. Nothing to get and nothing that ends: no change.
func (p *Patch) plan(s *Service, outside map[string]bool) (missing []int, ends ending, err error) {
	fixed := func(name string) error {
		return problem.New(problem.CodeInvalid, "service %s not patched: %s is of an outside inventory, which a running service cannot change", s.Name, name).
			Note("delete the service and create it anew")
	}
	for _, name := range p.Drop {
		at := s.attribute(name)
		switch {
		case slices.ContainsFunc(p.Set, func(w Want) bool { return w.Name == name }):
			return nil, nil, problem.New(problem.CodeInvalid, "service %s not patched: %s is both set and dropped", s.Name, name)
		case at == nil:
			continue // dropped already
		case at.Outside:
			return nil, nil, fixed(name)
		}
		ends = append(ends, s.drop(name)...)
	}
	for _, w := range p.Set {
		i := s.index(w.Name)
		if i >= 0 && s.Attributes[i].Inventory == w.Inventory {
			continue
		}
		if outside[w.Inventory] || (i >= 0 && s.Attributes[i].Outside) {
			return nil, nil, fixed(w.Name)
		}
		if i < 0 {
			s.Attributes = append(s.Attributes, w.attribute(s.Name, false))
			i = len(s.Attributes) - 1
		} else {
			if s.Attributes[i].VID != nil {
				ends = append(ends, s.Attributes[i].ref())
			}
			key := w.Key
			if key == "" {
				key = s.Attributes[i].Key
			}
			s.Attributes[i] = Attribute{Name: w.Name, Inventory: w.Inventory, Key: key}
		}
		missing = append(missing, i)
	}
	switch {
	case len(s.Attributes) == 0:
		return nil, nil, problem.New(problem.CodeInvalid, "service %s not patched: it would have no VLAN left", s.Name).
			Advise("to end it", "poolctl vlan service delete %s", s.Name)
	case len(s.Attributes) > MaxAttributes:
		return nil, nil, problem.New(problem.CodeInvalid, "service %s not patched: it would have %d attributes: at most %d", s.Name, len(s.Attributes), MaxAttributes)
	}
	slices.Sort(missing)
	return missing, ends, nil
}

// selection is what a patch's new attributes may be.
func (p *Patch) selection(s *Service) Selection {
	if !p.Selection.empty() {
		return p.Selection
	}
	sel := s.Selection
	sel.VID = nil
	return sel
}

// named is the index of the attribute that a patch's VID speaks of.
func (p *Patch) named(s *Service, missing []int) int {
	for _, w := range p.Set {
		if i := s.index(w.Name); slices.Contains(missing, i) {
			return i
		}
	}
	return 0
}
