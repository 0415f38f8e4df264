package vlan

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/problem"
)

// outsideLimit bounds one call of an outside inventory: a file that somebody else
// keeps locked must not stop this node's other work.
const outsideLimit = 5 * time.Second

// asking is the context of a call to an outside inventory that changes it, for an
// attribute whose step this process wrote: only while its lock on the service, and
// so its session, stands in etcd, and the step does too.
func (a *Allocator) asking(ctx context.Context, service, attribute string, st Step) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, outsideLimit)
	return Guarded(ctx, func(ctx context.Context) error {
		if err := a.engine.Sync(ctx); err != nil {
			return err
		}
		d, ok := a.engine.Document(ctx, service)
		s, err := read(d, ok)
		if err != nil {
			return err
		}
		if s == nil || d.Lock != a.mine || s.attribute(attribute) == nil || s.attribute(attribute).Step != st || s.attribute(attribute).By != a.mine {
			return errOvertaken
		}
		return nil
	}), cancel
}

// errOvertaken is returned when a service is not any more as a step needs it.
var errOvertaken = errors.New("overtaken by another change")

// passing tells whether a write may go through when it is tried again.
func passing(err error) bool {
	return errors.Is(err, problem.ErrUnavailable) || errors.Is(err, problem.ErrOutcomeUnknown)
}

// do carries a task out.
func (a *Allocator) do(ctx context.Context, s *Service, t todo) error {
	name := s.Attributes[t.attribute].Name
	switch t.task {
	case taskAllocate:
		return a.allocateOutside(ctx, s, name)
	case taskAsk:
		return a.askOutside(ctx, s, name)
	case taskRelease, taskReread:
		return a.releaseOutside(ctx, s, name, t.task == taskReread)
	}
	_, err := a.advance(ctx, point(t.task), s.Name, func(now *Service, p place) (ending, error) {
		if now.Write != s.Write { // the task rests on this very record
			return nil, errOvertaken
		}
		return t.settleInEtcd(now, p), nil
	})
	return err
}

func point(t task) string {
	switch t {
	case taskEnd:
		return "service:end"
	case taskFinish:
		return "service:done"
	case taskGotten:
		return "service:allocated"
	case taskHold:
		return "service:hold-lost"
	case taskMark:
		return "service:outcome-unknown"
	case taskUnlock:
		return "service:unlocked"
	}
	return "service:forget"
}

// settleInEtcd is a task that asks no outside inventory.
func (t todo) settleInEtcd(s *Service, p place) ending {
	switch t.task {
	case taskEnd:
		return s.stop(p)
	case taskFinish:
		s.finish(p)
	case taskGotten:
		s.gotten(p)
	case taskHold:
		s.because(ReasonHoldLost, holdLost(s))
		return s.compensate(Failed, p)
	case taskMark:
		s.because(ReasonOutcomeUnknown, "begun, and neither confirmed nor reported as failed in time: devices may carry its VLANs")
	case taskForget:
		s.State = Gone
	}
	return nil
}

func holdLost(s *Service) string {
	if s.Hold != nil && s.Hold.Requester.Hold == leases.HoldPID {
		return "the process that it was allocated for is gone, and nobody confirmed it"
	}
	return "nobody confirmed it within " + s.ConfirmWithin.String()
}

// advance writes a step's result on the record as it stands: edit changes a copy,
// or returns errOvertaken. Whoever has more to do next has the lock, or takes
// it; who is done drops it, in the same write. It returns the record written.
func (a *Allocator) advance(ctx context.Context, point, name string, edit func(*Service, place) (ending, error)) (*Service, error) {
	for {
		d, ok := a.engine.Document(ctx, name)
		s, err := read(d, ok)
		switch {
		case err != nil:
			return nil, err
		case s == nil, d.Lock != "" && d.Lock != a.mine:
			return nil, errOvertaken
		}
		ends, err := edit(s, a.place())
		if err != nil {
			return nil, err
		}
		do := &decision{after: s, ends: ends, lock: a.lockFor(s, d), reason: "service " + name + ": " + s.why()}
		err = a.write(ctx, point, d, true, do)
		if !errors.Is(err, leases.ErrChanged) || ctx.Err() != nil {
			return s, err
		}
	}
}

// lockFor is what a write does with the lock: held on to, or taken, while this
// process has a next step at an outside inventory.
func (a *Allocator) lockFor(s *Service, d leases.Document) leases.LockChange {
	x := a.situation(d, d.Since, a.keepers())
	x.lock, x.elected = a.mine, false
	more := false
	switch t := next(s, x); t.task {
	case taskAllocate, taskAsk, taskRelease, taskReread:
		more = t.wait == 0
	}
	l := leases.LockChange{Value: a.mine}
	switch {
	case d.Lock == a.mine && more:
		l.Do = leases.LockHold
	case d.Lock == a.mine:
		l.Do = leases.LockDrop
	case more:
		l.Do = leases.LockTake
	}
	return l
}

// allocateOutside gets one VLAN of an outside inventory: intent, allocation,
// result.
func (a *Allocator) allocateOutside(ctx context.Context, s *Service, name string) error {
	s, err := a.advance(ctx, "service:intent", s.Name, func(s *Service, _ place) (ending, error) {
		at := s.attribute(name)
		if at == nil || s.State != Allocating || s.Delete || at.Step != StepWanted {
			return nil, errOvertaken
		}
		at.Step, at.By = StepAllocating, a.mine
		return nil, nil
	})
	if err != nil {
		return err
	}
	i := s.index(name)
	at := s.Attributes[i]
	vid := uint32(0)
	switch err = a.alone(ctx, s, at); {
	case err == nil:
		vid, err = a.allocateFrom(ctx, s, i)
	case passing(err):
		return err // nothing was asked yet; the next to come asks by key
	}
	switch code := problem.CodeOf(err); {
	case err == nil:
		return again(ctx, func() error { return a.got(ctx, s.Name, name, vid) })
	case ctx.Err() != nil || errors.Is(err, errOvertaken):
		return err // the next to come asks by key
	case errors.Is(err, context.DeadlineExceeded): // locked by another: not a refusal
		return errors.Join(err, a.note(ctx, s.Name, name, StepAllocating, StepAllocating, err))
	case code == problem.CodeOutcomeUnknown || code == problem.CodeInternal:
		return errors.Join(err, a.note(ctx, s.Name, name, StepAllocating, StepAllocating, err))
	default:
		return again(ctx, func() error { return a.refused(ctx, s.Name, at, string(code), err) })
	}
}

func (a *Allocator) allocateFrom(ctx context.Context, s *Service, i int) (vid uint32, err error) {
	choice, err := s.Selection.outside(s.Attributes, i)
	if err != nil {
		return 0, err
	}
	inv, err := a.inventory(s.Attributes[i].Inventory)
	if err != nil {
		return 0, err
	}
	ctx, cancel := a.asking(ctx, s.Name, s.Attributes[i].Name, StepAllocating)
	defer cancel()
	err = a.engine.Seam().Do("outside:allocate", func() (err error) {
		vid, err = inv.Allocate(ctx, s.Attributes[i].Key, choice)
		return err
	})
	return vid, err
}

// got writes down what an intent led to. Where the service is being given back
// by now, that is next.
func (a *Allocator) got(ctx context.Context, service, name string, vid uint32) error {
	_, err := a.advance(ctx, "service:got", service, func(s *Service, p place) (ending, error) {
		at := s.attribute(name)
		if at == nil || at.Step != StepAllocating {
			return nil, errOvertaken
		}
		at.clear()
		at.VID, at.Token = &vid, leases.NewToken()
		if s.State == Allocating && s.Delete {
			return s.stop(p), nil
		}
		s.gotten(p)
		return nil, nil
	})
	if errors.Is(err, errOvertaken) {
		a.log.Warn("a VLAN was allocated and its service has gone on without it", zap.String("service", service), zap.String("attribute", name), zap.Uint32("vid", vid))
	}
	return err
}

// refused writes down that an outside inventory refused.
func (a *Allocator) refused(ctx context.Context, service string, was Attribute, code string, cause error) error {
	_, err := a.advance(ctx, "service:refused", service, func(s *Service, p place) (ending, error) {
		at := s.attribute(was.Name)
		if at == nil || at.Step != StepAllocating {
			return nil, errOvertaken
		}
		at.Step = ""
		if s.State != Allocating { // given back meanwhile: nothing was got
			s.finish(p)
			return nil, nil
		}
		if s.Delete {
			return s.stop(p), nil
		}
		return s.reject(was.Name, code, refusalText(was.Name, was.Inventory, cause, nil), p), nil
	})
	return err
}

// releaseOutside gives one VLAN back to an outside inventory: read it, write that
// it is released, release it, clear it. What is free already, or another key's,
// is done, and nothing is written to the inventory. reread: an earlier release
// has no result.
func (a *Allocator) releaseOutside(ctx context.Context, s *Service, name string, reread bool) error {
	at := *s.attribute(name)
	inv, err := a.inventory(at.Inventory)
	var e Entry
	if err == nil {
		short, cancel := context.WithTimeout(ctx, outsideLimit)
		err = a.engine.Seam().Do("outside:read", func() (err error) {
			e, err = inv.Read(short, *at.VID)
			return err
		})
		cancel()
	}
	switch {
	case err != nil:
		return errors.Join(err, a.note(ctx, s.Name, name, at.Step, at.Step, err))
	case !e.Allocated || (e.Keyed && e.Key != at.Key):
		return a.cleared(ctx, s.Name, at)
	case reread && !e.Keyed:
		return a.unknown(ctx, s.Name, name, StepReleasing, "whether its VLAN was released, and is another's by now, cannot be told: the inventory keeps no keys")
	}
	_, err = a.advance(ctx, "service:releasing", s.Name, func(s *Service, _ place) (ending, error) {
		now := s.attribute(name)
		if now == nil || s.State != Deallocating || s.HoldIDs || now.Step != at.Step || now.By != at.By || !samePtr(now.VID, at.VID) {
			return nil, errOvertaken
		}
		now.Step, now.By = StepReleasing, a.mine
		return nil, nil
	})
	if err != nil {
		return err
	}
	sure, cancel := a.asking(ctx, s.Name, name, StepReleasing)
	defer cancel()
	if err := a.engine.Seam().Do("outside:release", func() error { return inv.Release(sure, *at.VID, at.Key) }); err != nil {
		if errors.Is(err, errOvertaken) {
			return err
		}
		step := Step("") // nothing was done
		if code := problem.CodeOf(err); code == problem.CodeOutcomeUnknown || code == problem.CodeInternal || ctx.Err() != nil {
			step = StepReleasing
		}
		return errors.Join(err, again(ctx, func() error { return a.note(ctx, s.Name, name, StepReleasing, step, err) }))
	}
	return again(ctx, func() error { return a.cleared(ctx, s.Name, at) })
}

// cleared writes down that an outside inventory has a VLAN no more.
func (a *Allocator) cleared(ctx context.Context, service string, was Attribute) error {
	_, err := a.advance(ctx, "service:cleared", service, func(s *Service, p place) (ending, error) {
		at := s.attribute(was.Name)
		if at == nil || s.State != Deallocating || !samePtr(at.VID, was.VID) || at.Token != was.Token {
			return nil, errOvertaken
		}
		at.clear()
		s.finish(p)
		return nil, nil
	})
	return err
}

// unknown writes down that the outcome of a step can never be told here. It
// stays until an operator says that it is settled.
func (a *Allocator) unknown(ctx context.Context, service, name string, from Step, why string) error {
	_, err := a.advance(ctx, "service:unknown", service, func(s *Service, _ place) (ending, error) {
		at := s.attribute(name)
		if at == nil || at.Step != from {
			return nil, errOvertaken
		}
		at.Step, at.Reason = StepUnknown, clip(why)
		if s.State == Allocating {
			s.because(ReasonOutcomeUnknown, name+": "+why)
		}
		return nil, nil
	})
	return err
}

// note writes down why a step is not done yet, unless the record says so. It
// will be tried again.
func (a *Allocator) note(ctx context.Context, service, name string, from, to Step, cause error) error {
	_, err := a.advance(ctx, "service:noted", service, func(s *Service, _ place) (ending, error) {
		at := s.attribute(name)
		if at == nil || at.Step != from || (from == to && at.Reason == clip(cause.Error())) {
			return nil, errOvertaken
		}
		at.Step, at.Reason = to, clip(cause.Error())
		if to == "" {
			at.By = ""
		}
		return nil, nil
	})
	if errors.Is(err, errOvertaken) {
		return nil
	}
	return err
}
