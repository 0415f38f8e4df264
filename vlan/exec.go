package vlan

import (
	"context"
	"errors"
	"time"

	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/problem"
)

// undoLimit bounds what Exec does after its function failed.
const undoLimit = 30 * time.Second

// Exec allocates a service, calls fn with it and confirms it if fn succeeds. If
// fn fails, by an error or a panic, which are passed on, the VLANs are given
// back; likewise if this process dies: it is the service's hold where
// Options.Self names it, else ConfirmWithin is, which is extended meanwhile. fn's
// context is cancelled with [problem.ErrLockLost] as its cause when the service is
// taken away. A service that is up already is not configured again: nil.
//
// Errors: those of [Allocator.Allocate], of [Allocator.Confirm], and fn's.
func (a *Allocator) Exec(ctx context.Context, r Request, fn func(context.Context, *Service) error) (err error) {
	if r.Hold == nil && a.self != nil {
		self, err := a.self()
		if err != nil {
			return err
		}
		r.Hold = &self
	}
	s, _, err := a.Allocate(ctx, r)
	switch {
	case err != nil:
		return err
	case s.State == Up:
		return nil
	case s.State == Allocating:
		return a.giveUp(ctx, s, r.By)
	case s.State != Allocated && s.State != Provisioning:
		return s.refusedState("configured", vRefuse)
	}
	c := Change{Name: s.Name, Token: s.Token, By: r.By}
	inner, cancel := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() { // ends with inner, which the deferred function below cancels
		defer close(watched)
		a.guard(inner, c, s, cancel)
	}()
	done := false
	defer func() {
		cancel(nil)
		<-watched
		if done {
			return
		}
		undo, stop := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
		defer stop()
		reason := "the function that it was allocated for panicked"
		if err != nil {
			reason = err.Error()
		}
		if _, _, e := a.Fail(undo, c, reason); e != nil && !errors.Is(e, problem.ErrNotFound) {
			err = errors.Join(err, e)
		}
	}()
	if err := fn(inner, s); err != nil {
		return err
	}
	done = true // from here devices carry it, whatever Confirm says
	sure, stop := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
	defer stop()
	return again(sure, func() error {
		_, _, err := a.Confirm(sure, c)
		return err
	})
}

// giveUp ends a service that was not allocated in time: nobody waits for it.
func (a *Allocator) giveUp(ctx context.Context, s *Service, by By) error {
	e := problem.New(problem.CodeUnavailable, "service %s not allocated in time; it is given back", s.Name)
	e.WaitsFor = a.WaitsFor(s)
	undo, stop := context.WithTimeout(context.WithoutCancel(ctx), undoLimit)
	defer stop()
	if _, _, err := a.Delete(undo, Change{Name: s.Name, Token: s.Token, By: by}, false); err != nil {
		return errors.Join(e, err)
	}
	return e
}

// guard cancels when the service is taken away, and extends a hold by time, until
// ctx ends.
func (a *Allocator) guard(ctx context.Context, c Change, s *Service, cancel context.CancelCauseFunc) {
	byTime := s.Hold != nil && s.Hold.Requester.Hold == leases.HoldTTL
	for ctx.Err() == nil {
		wait, stop := ctx, func() {}
		if byTime {
			wait, stop = context.WithTimeout(ctx, s.ConfirmWithin/3)
		}
		_, err := a.Wait(wait, c.Name, func(n *Service) bool {
			return n == nil || n.Token != c.Token || (n.State != Allocated && n.State != Provisioning && n.State != Up)
		})
		stop()
		switch {
		case err == nil:
			cancel(problem.ErrLockLost)
			return
		case ctx.Err() == nil && byTime:
			_, _, _ = a.Extend(ctx, c, s.ConfirmWithin) // the next look tells what became of it
		}
	}
}
