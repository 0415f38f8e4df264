package api

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"net/url"
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
