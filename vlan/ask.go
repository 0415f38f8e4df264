package vlan

import (
	"context"
	"errors"

	"github.com/idpool/idpool/problem"
)

// askOutside finds out by key what an intent led to whose result nobody wrote.
func (a *Allocator) askOutside(ctx context.Context, s *Service, name string) error {
	at := s.attribute(name)
	inv, err := a.inventory(at.Inventory)
	var vid uint32
	found := false
	if err == nil {
		short, cancel := context.WithTimeout(ctx, outsideLimit)
		err = a.engine.Seam().Do("outside:find", func() (err error) {
			vid, found, err = inv.Find(short, at.Key)
			return err
		})
		cancel()
	}
	if err == nil && found {
		err = a.ours(ctx, s, *at, vid)
	}
	switch {
	case problem.CodeOf(err) == problem.CodeKeyConflict: // what is there is the other's
		return a.refused(ctx, s.Name, *at, string(problem.CodeKeyConflict), err)
	case errors.Is(err, ErrNoKeys):
		return a.unknown(ctx, s.Name, name, StepAllocating, "whether a VLAN was allocated cannot be told: "+err.Error())
	case err != nil:
		return errors.Join(err, a.note(ctx, s.Name, name, StepAllocating, StepAllocating, err))
	case found:
		return a.got(ctx, s.Name, name, vid)
	}
	_, err = a.advance(ctx, "service:not-there", s.Name, func(s *Service, p place) (ending, error) {
		at := s.attribute(name)
		if at == nil || at.Step != StepAllocating {
			return nil, errOvertaken
		}
		at.clear()
		if s.State == Allocating && !s.Delete {
			at.Step = StepWanted
			return nil, nil
		}
		if s.Delete && s.State == Allocating {
			return s.stop(p), nil
		}
		s.finish(p)
		return nil, nil
	})
	return err
}

// ours refuses what was found under an attribute's key where it cannot be what its
// own request got.
func (a *Allocator) ours(ctx context.Context, s *Service, at Attribute, vid uint32) error {
	choice, err := s.Selection.outside(s.Attributes, s.index(at.Name))
	if err != nil {
		return err
	}
	if !choice.allows(vid) {
		return problem.New(problem.CodeKeyConflict, "allocation key %s of inventory %s stands for VLAN %d, which is not what was asked for", at.Key, at.Inventory, vid)
	}
	return a.alone(ctx, s, at)
}

// alone refuses an allocation key under which another attribute has, or may have, a
// VLAN of the same outside inventory: to the inventory they would be one. The
// intent is written before this look, so of two that begin at once one sees the
// other. One round trip.
func (a *Allocator) alone(ctx context.Context, s *Service, at Attribute) error {
	if err := a.engine.Sync(ctx); err != nil {
		return err
	}
	for _, d := range a.engine.Documents(ctx) {
		o, err := read(d, true)
		if err != nil {
			continue
		}
		for _, b := range o.Attributes {
			same := b.Outside && b.Inventory == at.Inventory && b.Key == at.Key && !(o.Name == s.Name && b.Name == at.Name)
			if same && (b.VID != nil || (b.Step != "" && b.Step != StepWanted)) {
				return problem.New(problem.CodeKeyConflict, "allocation key %s of inventory %s is that of service %s (%s)", at.Key, at.Inventory, o.Name, b.Name)
			}
		}
	}
	return nil
}
