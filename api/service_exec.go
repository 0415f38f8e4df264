package api

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/idpool/idpool/problem"
)

// defaultConfirmWithin is the hold of a service that names none.
const defaultConfirmWithin = time.Hour

// Exec makes a service, calls fn with it and confirms it. (The seed's failsafe
// allocation around a function.)
//
// When fn returns an error or panics, the service fails for that reason: its VLANs
// are released, and the error or panic is passed on; an error of that is joined to
// it. When fn returns nil the service is confirmed; an error of that is returned
// and nothing is released, since what fn configured may be in use. What fn itself
// confirmed, failed or deleted is left as it is.
//
// The service is bound to this process where the agent is on a Unix socket: if the
// process dies its VLANs come back. Elsewhere r.ConfirmWithin does that, and is
// extended while fn runs. r.Hold must be left nil. While fn runs the service is
// looked at every [Options.WatchInterval]; if it is taken away, fn's context is
// cancelled with a cause that is ErrLockLost.
//
// A service of that name that is up already is what an earlier run made: fn is not
// called. Where an outside inventory does not answer, Exec waits until ctx ends,
// and deletes the service then.
func (s *ServicesService) Exec(ctx context.Context, r ServiceRequest, fn func(ctx context.Context, v *Service) error) error {
	if r.Hold != nil {
		return problem.New(problem.CodeInvalid, "Exec binds the service to its process; another hold was given")
	}
	if s.c.address.socket != "" {
		r.Hold = &Hold{Kind: HoldPID, PID: os.Getpid()}
	}
	v, err := s.Create(ctx, r, WriteOptions{})
	if err != nil {
		return err
	}
	if v.State == ServiceAllocating {
		if v, err = s.allocated(ctx, v); err != nil {
			return err
		}
	}
	switch v.State {
	case ServiceUp:
		return nil
	case ServiceAllocated, ServiceProvisioning:
	default:
		return problem.New(problem.CodeNotHeld, "service %s is %s (%s): nothing was run for it", v.Name, v.State, v.Reason).
			Advise("look", "poolctl vlan service show %s", v.Name)
	}
	if err := s.during(ctx, &v, fn); err != nil {
		return err
	}
	_, err = s.Confirm(ctx, v.Name, v.Token)
	if problem.CodeOf(err) == problem.CodeNotFound {
		return nil // fn deleted it
	}
	return err
}

// allocated waits for the VLANs of a service; one that is not waited for any more
// is deleted.
func (s *ServicesService) allocated(ctx context.Context, v Service) (Service, error) {
	now, err := s.Wait(ctx, v.Name, func(n Service) bool { return n.State != ServiceAllocating || n.Token != v.Token })
	if err == nil {
		return now, nil
	}
	undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	if _, undone := s.Delete(undo, v.Name, v.Token, false); undone != nil {
		err = errors.Join(err, fmt.Errorf("undo service %s: %w", v.Name, undone))
	}
	return v, err
}

// during calls fn in the caller's goroutine while another watches; whatever is not
// success fails the service.
func (s *ServicesService) during(ctx context.Context, v *Service, fn func(ctx context.Context, v *Service) error) (err error) {
	fnCtx, cancel := context.WithCancelCause(ctx)
	watchCtx, stop := context.WithCancel(ctx)
	var g errgroup.Group
	name, token, held := v.Name, v.Token, v.Hold
	g.Go(func() error {
		if s.taken(watchCtx, name, token, held) {
			cancel(problem.New(problem.CodeLockLost, "service %s was ended before its program was done", name).
				Note("undo what was configured").
				Advise("look", "poolctl vlan service show %s", name))
		}
		return nil
	})
	reason := "the program that provisioned it panicked"
	succeeded := false
	// Deferred, so that a panic (or runtime.Goexit) of fn counts as a failure and
	// goes on its way with its stack untouched.
	defer func() {
		stop()
		_ = g.Wait()
		cancel(nil)
		if succeeded {
			return
		}
		undo, done := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
		defer done()
		if _, undone := s.Fail(undo, name, token, reason); undone != nil && !over(undone) {
			err = errors.Join(err, fmt.Errorf("undo service %s: %w", name, undone))
		}
	}()
	err = fn(fnCtx, v)
	succeeded = err == nil
	if err != nil {
		reason = clip(err.Error(), maxReason)
	}
	if lost := context.Cause(fnCtx); err != nil && errors.Is(lost, ErrLockLost) && !errors.Is(err, ErrLockLost) {
		err = errors.Join(err, lost)
	}
	return err
}

// over tells that there is nothing left to fail: the service is gone, or a later
// one has its name.
func over(err error) bool { return errors.Is(err, ErrNotFound) || errors.Is(err, ErrNotHeld) }

// taken watches a service until ctx ends, false, or until somebody ended it. It
// extends a hold by time. An agent that does not answer has taken nothing away.
func (s *ServicesService) taken(ctx context.Context, name, token string, held *Hold) bool {
	tick := time.NewTicker(s.c.interval)
	defer tick.Stop()
	within := defaultConfirmWithin
	if held != nil && held.Until != nil {
		within = max(time.Until(*held.Until), time.Second)
	}
	extended := time.Now()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
		v, err := s.Get(ctx, name)
		switch {
		case ctx.Err() != nil:
			return false
		case problem.CodeOf(err) == problem.CodeNotFound:
			return true
		case err != nil:
			continue
		case v.Token != token || (v.State != ServiceAllocated && v.State != ServiceProvisioning && v.State != ServiceUp):
			return true
		}
		if v.Hold != nil && v.Hold.Kind == HoldTTL && time.Since(extended) > within/3 {
			if _, err := s.Extend(ctx, name, token, within); err == nil {
				extended = time.Now()
			}
		}
	}
}

// maxReason is the longest reason that is sent, in bytes.
const maxReason = 1000

// clip cuts a text at a rune.
func clip(text string, bytes int) string {
	if len(text) <= bytes {
		return text
	}
	cut := 0
	for i := range text {
		if i > bytes {
			break
		}
		cut = i
	}
	return text[:cut] + "…"
}
