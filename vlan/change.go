package vlan

import (
	"context"
	"errors"
	"time"

	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/problem"
)

// Change names the service to change, by its token as well: a late change never
// touches a later service of that name (rule 26).
type Change struct {
	Name, Token string
	By          By
}

// admit checks name, caller and token, and what the table says of the event: a
// refusal, or whether there is nothing to do.
func (c *Change) admit(s *Service, e event, verb string) (verdict, error) {
	if s == nil {
		if v := step(Gone, e).v; v == vDone {
			return v, nil
		}
		return vMissing, missing(c.Name)
	}
	if err := s.mayChange(c.By, verb); err != nil {
		return vRefuse, err
	}
	if err := s.carries(c.Token, verb); err != nil {
		return vRefuse, err
	}
	v := step(s.State, e).v
	switch v {
	case vMove, vDone:
		return v, nil
	}
	return v, s.refusedState(verb, v)
}

// simple is a change by an event of the table alone: edit changes the copy that
// is in the next state already.
func (a *Allocator) simple(ctx context.Context, c Change, e event, point, verb string, edit func(*Service, place) ending) (*Service, bool, error) {
	if err := checkName(c.Name); err != nil {
		return nil, false, err
	}
	return a.change(ctx, point, c.Name, func(s *Service, _ leases.Document) (*decision, error) {
		v, err := c.admit(s, e, verb)
		if err != nil || v == vDone {
			return nil, err
		}
		p := a.place()
		do := &decision{after: s, reason: "service " + c.Name + " " + verb + " by " + c.By.Caller}
		do.ends = edit(s, p)
		return do, nil
	})
}

// Begin says that the caller begins to touch devices: from here no end of the
// hold takes the VLANs away. Again is done.
func (a *Allocator) Begin(ctx context.Context, c Change) (*Service, bool, error) {
	return a.simple(ctx, c, evBegin, "service:begin", "begun", func(s *Service, p place) ending {
		s.move(step(s.State, evBegin).next, p.now)
		return nil
	})
}

// Confirm says that the devices are done: the service is up. Again is done.
// ErrCompensated once its VLANs are being given back: the caller undoes its
// devices.
func (a *Allocator) Confirm(ctx context.Context, c Change) (*Service, bool, error) {
	return a.simple(ctx, c, evConfirm, "service:confirm", "confirmed", func(s *Service, p place) ending {
		s.move(step(s.State, evConfirm).next, p.now)
		s.because("", "")
		s.Hold = nil
		return nil
	})
}

// Fail says that the devices cannot be done: everything is given back, and the
// service stays as failed, with the reason, for a retry. Again is done.
func (a *Allocator) Fail(ctx context.Context, c Change, reason string) (*Service, bool, error) {
	return a.simple(ctx, c, evFail, "service:fail", "reported as failed", func(s *Service, p place) ending {
		s.because(ReasonFailed, reason)
		return s.compensate(Failed, p)
	})
}

// Extend lets the hold of an allocated service end d from now, 1 s to 366 days,
// counted by this node.
func (a *Allocator) Extend(ctx context.Context, c Change, d time.Duration) (*Service, bool, error) {
	if d < MinConfirmWithin || d > MaxConfirmWithin {
		return nil, false, problem.New(problem.CodeInvalid, "service %s: extended by %s: want %s to %s", c.Name, d, MinConfirmWithin, MaxConfirmWithin)
	}
	if s, err := a.Get(ctx, c.Name); err == nil && s.Hold != nil && s.Hold.Requester.Hold == leases.HoldPID {
		return s, false, problem.New(problem.CodeInvalid, "service %s not extended: it is held by process %d on node %s, not for a time", c.Name, s.Hold.Requester.PID, s.Hold.Node)
	}
	return a.simple(ctx, c, evExtend, "service:extend", "extended", func(s *Service, p place) ending {
		if s.ReasonCode == ReasonOutcomeUnknown {
			s.because("", "")
		}
		s.Hold = p.hold(d)
		return nil
	})
}

// Retry asks for what a rejected or failed service misses, and for nothing else:
// what is held stays. After a failure the service has a new token. It waits like
// [Allocator.Allocate], with its errors, for [DefaultWait]. With nothing missing
// it is done.
func (a *Allocator) Retry(ctx context.Context, c Change) (*Service, bool, error) {
	if err := checkName(c.Name); err != nil {
		return nil, false, err
	}
	s, changed, err := a.reacquire(ctx, c.Name, func(s *Service) (*acquisition, error) {
		v, err := c.admit(s, evRetry, "retried")
		if err != nil || v == vDone {
			return nil, err
		}
		var wants []Want
		for _, at := range s.Attributes {
			wants = append(wants, Want{at.Name, at.Inventory, at.Key})
		}
		outside, err := a.outside(wants)
		if err != nil {
			return nil, err
		}
		for i := range s.Attributes { // what its inventories are by now
			if at := &s.Attributes[i]; at.VID == nil {
				at.Outside = outside[at.Inventory]
			}
		}
		s.again(a.place())
		return &acquisition{point: "service:retry", draft: s, missing: s.missing(false), selection: s.Selection}, nil
	})
	if err != nil || !s.underWay() {
		return s, changed, err
	}
	return a.settle(ctx, s, changed, 0)
}

// Patch changes the attributes of a service that is up, in one transaction:
// untouched ones keep their VLANs, those dropped or moved give theirs back. With
// nothing to change it is done. A refusal leaves everything as it was:
// ErrExhausted and the others of [Allocator.Allocate].
func (a *Allocator) Patch(ctx context.Context, c Change, p Patch) (*Service, bool, error) {
	if err := checkName(c.Name); err != nil {
		return nil, false, err
	}
	if err := validWants(c.Name, p.Set); err != nil {
		return nil, false, err
	}
	return a.reacquire(ctx, c.Name, func(s *Service) (*acquisition, error) {
		v, err := c.admit(s, evPatch, "patched")
		if err != nil || v == vDone {
			return nil, err
		}
		outside, err := a.outside(p.Set)
		if err != nil {
			return nil, err
		}
		missing, ends, err := p.plan(s, outside)
		if err != nil || (len(missing) == 0 && len(ends) == 0) {
			return nil, err
		}
		sel := p.selection(s)
		if err := sel.valid(s.Attributes, p.named(s, missing)); err != nil {
			return nil, err
		}
		return &acquisition{point: "service:patch", draft: s, missing: missing, selection: sel, named: p.named(s, missing), ends: ends, strict: true}, nil
	})
}

// reacquire is change for decisions that ask the engine for VLANs.
func (a *Allocator) reacquire(ctx context.Context, name string, decide func(*Service) (*acquisition, error)) (*Service, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	sure := false
	for {
		s, d, q, err := decided(ctx, a, name, &sure, func(s *Service, _ leases.Document) (*acquisition, error) { return decide(s) })
		if err != nil || q == nil {
			return s, false, err
		}
		q.before = d.Raw
		s, err = a.acquire(ctx, q)
		if err == nil || !errors.Is(err, leases.ErrChanged) {
			return s, s != nil, err
		}
		if err := retryable(ctx, name, err); err != nil {
			return nil, false, err
		}
	}
}

// Delete ends a service, whatever its state: its VLANs are given back and its
// record goes; with hold they stay, if devices may carry them, until
// [Allocator.Removed]. While a node works on the service it is told to do it.
// Token may be ""; another life's token, or no such service, is done. It returns
// nil once the service is gone.
func (a *Allocator) Delete(ctx context.Context, c Change, hold bool) (*Service, bool, error) {
	if err := checkName(c.Name); err != nil {
		return nil, false, err
	}
	s, changed, err := a.change(ctx, "service:delete", c.Name, func(s *Service, d leases.Document) (*decision, error) {
		if s == nil {
			return nil, nil
		}
		if err := s.mayChange(c.By, "deleted"); err != nil {
			return nil, err
		}
		if c.Token != "" && c.Token != s.Token {
			return nil, nil
		}
		if s.HoldIDs && !hold {
			return nil, problem.New(problem.CodePrecondition, "service %s is deleted already, and its VLANs are held until its devices are clean", c.Name).
				Advise("once they are", "poolctl vlan service removed %s", c.Name)
		}
		return s.deletion(hold, d.Lock != "", c.By.Caller, a.place()), nil
	})
	if err == nil && s != nil && c.Token != "" && c.Token != s.Token {
		return nil, false, nil
	}
	return s, changed, err
}

// deletion decides on the end of a service; nil where it is on its way already.
func (s *Service) deletion(hold, worked bool, by string, p place) *decision {
	do := &decision{after: s, reason: "service " + s.Name + " deleted by " + by}
	switch {
	case s.Delete || (s.State == Deallocating && s.Then == Gone):
		return nil
	case worked && (s.State == Allocating || s.State == Deallocating): // whoever works on it does it
		s.Delete = true
	case s.State == Deallocating:
		s.Then = Gone
		s.because(ReasonDeleted, "deleted by "+by)
	case s.State == Failed:
		s.State = Gone
	default:
		do.ends = s.remove(hold, by, p)
	}
	return do
}

// Removed says that the devices of a service that was deleted with hold are
// clean: its VLANs are given back. Again is done.
func (a *Allocator) Removed(ctx context.Context, c Change) (*Service, bool, error) {
	if err := checkName(c.Name); err != nil {
		return nil, false, err
	}
	return a.change(ctx, "service:removed", c.Name, func(s *Service, _ leases.Document) (*decision, error) {
		if _, err := c.admit(s, evRemoved, "removed"); err != nil || s == nil || !s.HoldIDs {
			return nil, err
		}
		do := &decision{after: s, reason: "service " + s.Name + " removed by " + c.By.Caller}
		do.ends = s.compensate(Gone, a.place())
		return do, nil
	})
}

// Settled is an operator's word that an attribute whose outcome is unknown is
// settled: the outside inventory has nothing under it any more. It is asked for
// again, or given back no more. An attribute that is not unknown is done. The
// token may be "".
func (a *Allocator) Settled(ctx context.Context, c Change, attribute string) (*Service, bool, error) {
	if err := checkName(c.Name); err != nil {
		return nil, false, err
	}
	if !c.By.Operator {
		return nil, false, problem.New(problem.CodeForbidden, "service %s: only an operator can say that %s is settled, and you are %s", c.Name, attribute, c.By.Caller)
	}
	return a.change(ctx, "service:settled", c.Name, func(s *Service, _ leases.Document) (*decision, error) {
		if s == nil {
			return nil, missing(c.Name)
		}
		if c.Token != "" {
			if err := s.carries(c.Token, "settled"); err != nil {
				return nil, err
			}
		}
		at := s.attribute(attribute)
		switch {
		case at == nil:
			return nil, problem.New(problem.CodeNotFound, "service %s has no attribute %s", c.Name, attribute)
		case at.Step == StepUnknown:
		case at.pending() && a.keeperIsOff(at.Inventory): // nobody will ever ask for it
		case at.pending() && s.State == Deallocating:
			return nil, problem.New(problem.CodePrecondition, "service %s: %s is not unknown: node %s will see to it", c.Name, attribute, a.keeperOf(at.Inventory)).
				Advise("if that node never comes back", "poolctl node fence %s --reason …", a.keeperOf(at.Inventory))
		default:
			return nil, nil
		}
		at.clear()
		if s.State == Allocating {
			at.Step = StepWanted
			s.because("", "")
		}
		s.finish(a.place())
		return &decision{after: s}, nil
	})
}
