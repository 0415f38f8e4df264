package api

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/idpool/idpool/problem"
)

// ServicesService allocates VLANs for network services and follows their life.
type ServicesService struct{ c *Client }

// Services returns the service of VLAN services.
func (c *Client) Services() *ServicesService { return &ServicesService{c} }

func servicePath(name, rest string) string {
	return "/v1/vlan-services/" + url.PathEscape(name) + rest
}

// List walks the services that the filter selects, in order of name. An error
// ends the walk, beside a zero Service.
func (s *ServicesService) List(ctx context.Context, f ServiceFilter) iter.Seq2[Service, error] {
	q := url.Values{}
	for name, value := range map[string]string{"state": f.State, "inventory": f.Inventory, "holder": f.Holder} {
		if value != "" {
			q.Set(name, value)
		}
	}
	return paged[Service](ctx, s.c, "/v1/vlan-services", "services not listed", q)
}

// Get returns a service; ErrNotFound where there is none. Its tokens are shown to
// its caller and to operators.
func (s *ServicesService) Get(ctx context.Context, name string) (Service, error) {
	return s.send(ctx, name, call{method: http.MethodGet, path: servicePath(name, ""), what: "service " + name + " not shown"})
}

// Create makes a service: all its VLANs or none. ErrExhausted where it was
// rejected; it stays visible, for [ServicesService.Retry]. Where an outside
// inventory does not answer in time it comes back in the state allocating. With
// DryRun it is what would be granted, and nothing is done.
//
// The same request by the same caller returns the service as it stands, Changed
// false; another one under its name is ErrKeyConflict, another caller's ErrHeld.
func (s *ServicesService) Create(ctx context.Context, r ServiceRequest, o WriteOptions) (Service, error) {
	return s.send(ctx, r.Name, call{
		method: http.MethodPut, path: servicePath(r.Name, ""), query: o.query(), body: r, repeats: true, what: "service " + r.Name + " not created",
	})
}

// Patch adds attributes to a service that is up, gives them other inventories or
// drops them, all or none.
func (s *ServicesService) Patch(ctx context.Context, name, token string, p ServicePatch) (Service, error) {
	return s.send(ctx, name, call{method: http.MethodPatch, path: servicePath(name, ""), body: p, token: token, what: "service " + name + " not changed"})
}

// Begin says that devices are about to be touched: from here no hold's end takes
// the VLANs away.
func (s *ServicesService) Begin(ctx context.Context, name, token string) (Service, error) {
	return s.post(ctx, name, "/begin", "not begun", token, nil)
}

// Confirm says that the service is provisioned. The code compensated says that
// its VLANs were released before: what was configured must be undone.
func (s *ServicesService) Confirm(ctx context.Context, name, token string) (Service, error) {
	return s.post(ctx, name, "/confirm", "not confirmed", token, nil)
}

// Fail says that provisioning failed: the VLANs are released, and the service
// stays as failed with the reason.
func (s *ServicesService) Fail(ctx context.Context, name, token, reason string) (Service, error) {
	return s.post(ctx, name, "/fail", "not failed", token, ServiceFail{Reason: reason})
}

// Retry asks for what a rejected or failed service has not got.
func (s *ServicesService) Retry(ctx context.Context, name, token string) (Service, error) {
	return s.post(ctx, name, "/retry", "not retried", token, nil)
}

// Extend moves the end of an allocated service's hold to d from now.
func (s *ServicesService) Extend(ctx context.Context, name, token string, d time.Duration) (Service, error) {
	return s.post(ctx, name, "/extend", "not extended", token, ServiceExtend{ConfirmWithin: d.String()})
}

// Removed says, without an attribute, that the devices of a service deleted with
// hold are clean: its VLANs go. With one it settles an attribute that an outside
// inventory without keys left unknown.
func (s *ServicesService) Removed(ctx context.Context, name, token, attribute string) (Service, error) {
	return s.post(ctx, name, "/removed", "not removed", token, ServiceRemoved{Attribute: attribute})
}

// Delete releases the VLANs of a service and forgets it; with hold they stay until
// [ServicesService.Removed]. token may be empty. The answer's state is gone, or
// deallocating where that goes on. Gone already is no error: Changed is false.
func (s *ServicesService) Delete(ctx context.Context, name, token string, hold bool) (Service, error) {
	var query url.Values
	if hold {
		query = url.Values{"hold": {"true"}}
	}
	return s.send(ctx, name, call{
		method: http.MethodDelete, path: servicePath(name, ""), query: query, token: token, repeats: true, what: "service " + name + " not deleted",
	})
}

// Wait looks at a service every [Options.WatchInterval] until cond is true, and
// returns it as it was then: in state gone, if there is none. The context's cause
// when ctx ends first.
func (s *ServicesService) Wait(ctx context.Context, name string, cond func(Service) bool) (Service, error) {
	tick := time.NewTicker(s.c.interval)
	defer tick.Stop()
	for {
		v, err := s.Get(ctx, name)
		if problem.CodeOf(err) == problem.CodeNotFound {
			v, err = Service{Name: name, State: ServiceGone}, nil
		}
		if err != nil && ctx.Err() == nil {
			return v, err
		}
		if err == nil && cond(v) {
			return v, nil
		}
		select {
		case <-ctx.Done():
			return v, context.Cause(ctx)
		case <-tick.C:
		}
	}
}

func (s *ServicesService) post(ctx context.Context, name, rest, not, token string, body any) (Service, error) {
	return s.send(ctx, name, call{method: http.MethodPost, path: servicePath(name, rest), body: body, token: token, what: "service " + name + " " + not})
}

// send sends a call that is answered by a service; no content is one that is gone.
func (s *ServicesService) send(ctx context.Context, name string, q call) (Service, error) {
	var v Service
	status, err := s.c.do(ctx, q, &v)
	switch {
	case err != nil:
		return Service{}, err
	case status == http.StatusNoContent:
		return Service{Name: name, State: ServiceGone}, nil
	case v.Name == "" || v.State == "":
		return Service{}, q.unreadable(fmt.Errorf("it names service %q in state %q", v.Name, v.State))
	}
	return v, nil
}

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
// process dies its VLANs come back. Elsewhere r.ConfirmWithin does that. r.Hold
// must be left nil. A service of that name that is up already is what an earlier
// run made: fn is not called.
func (s *ServicesService) Exec(ctx context.Context, r ServiceRequest, fn func(ctx context.Context, v *Service) error) (err error) {
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
		if v, err = s.Wait(ctx, r.Name, func(v Service) bool { return v.State != ServiceAllocating }); err != nil {
			return err
		}
	}
	switch {
	case v.State == ServiceUp:
		return nil
	case v.State != ServiceAllocated:
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

// during calls fn; whatever is not success fails the service.
func (s *ServicesService) during(ctx context.Context, v *Service, fn func(ctx context.Context, v *Service) error) (err error) {
	reason := "the program that provisioned it panicked"
	succeeded := false
	// Deferred, so that a panic (or runtime.Goexit) of fn counts as a failure and
	// goes on its way with its stack untouched.
	defer func() {
		if succeeded {
			return
		}
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
		defer cancel()
		if _, undone := s.Fail(undo, v.Name, v.Token, reason); undone != nil && !errors.Is(undone, ErrNotFound) {
			err = errors.Join(err, fmt.Errorf("undo service %s: %w", v.Name, undone))
		}
	}()
	err = fn(ctx, v)
	succeeded = err == nil
	if err != nil {
		reason = clip(err.Error(), maxReason)
	}
	return err
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
