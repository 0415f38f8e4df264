package agent

import (
	"context"
	"net/http"
	"time"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/vlan"
)

// changed runs one change and answers with the service as it is then.
func (s *server) changed(ctx context.Context, who caller, name, ifMatch, not string, do func(*core, vlan.Change) (*vlan.Service, bool, error)) (*serviceOut, error) {
	c, ch, err := s.change(ctx, who, name, ifMatch, not)
	if err != nil {
		return nil, err
	}
	v, changed, err := do(c, ch)
	if err != nil {
		return nil, ofThe(name, not, aboutVLANs(err))
	}
	return c.serviceAnswer(who, name, c.soon(ctx, v), changed), nil
}

// soonEnough is how long a change waits for what is given back to a pool file: most
// often it is there before anybody would look again.
const soonEnough = 2 * time.Second

// soon is a service a moment later, if it is on its way to an end.
func (c *core) soon(ctx context.Context, v *vlan.Service) *vlan.Service {
	if v == nil || v.State != vlan.Deallocating || v.HoldIDs {
		return v
	}
	short, cancel := context.WithTimeout(ctx, soonEnough)
	defer cancel()
	now, err := c.vlans.Wait(short, v.Name, func(n *vlan.Service) bool {
		return n == nil || n.Token != v.Token || n.State != vlan.Deallocating
	})
	switch {
	case err != nil:
		return v
	case now != nil && now.Token != v.Token:
		return nil
	}
	return now
}

func (s *server) beginService(ctx context.Context, who caller, in *changeServiceIn) (*serviceOut, error) {
	return s.changed(ctx, who, in.Service, in.IfMatch, "not begun", func(c *core, ch vlan.Change) (*vlan.Service, bool, error) {
		return c.vlans.Begin(ctx, ch)
	})
}

func (s *server) confirmService(ctx context.Context, who caller, in *changeServiceIn) (*serviceOut, error) {
	return s.changed(ctx, who, in.Service, in.IfMatch, "not confirmed", func(c *core, ch vlan.Change) (*vlan.Service, bool, error) {
		return c.vlans.Confirm(ctx, ch)
	})
}

func (s *server) retryService(ctx context.Context, who caller, in *changeServiceIn) (*serviceOut, error) {
	return s.changed(ctx, who, in.Service, in.IfMatch, "not retried", func(c *core, ch vlan.Change) (*vlan.Service, bool, error) {
		return c.vlans.Retry(ctx, ch)
	})
}

func (s *server) failService(ctx context.Context, who caller, in *failServiceIn) (*serviceOut, error) {
	return s.changed(ctx, who, in.Service, in.IfMatch, "not failed", func(c *core, ch vlan.Change) (*vlan.Service, bool, error) {
		if in.Body.Reason == "" {
			return nil, false, problem.New(problem.CodeInvalid, "service %s not failed: say why, others will ask", in.Service)
		}
		return c.vlans.Fail(ctx, ch, in.Body.Reason)
	})
}

func (s *server) extendService(ctx context.Context, who caller, in *extendServiceIn) (*serviceOut, error) {
	return s.changed(ctx, who, in.Service, in.IfMatch, "not extended", func(c *core, ch vlan.Change) (*vlan.Service, bool, error) {
		var d time.Duration
		if err := setDuration(&d, "confirm_within", in.Body.ConfirmWithin); err != nil {
			return nil, false, prefixed("service "+in.Service+" not extended: ", err)
		}
		return c.vlans.Extend(ctx, ch, d)
	})
}

func (s *server) removedService(ctx context.Context, who caller, in *removedServiceIn) (*serviceOut, error) {
	return s.changed(ctx, who, in.Service, in.IfMatch, "not removed", func(c *core, ch vlan.Change) (*vlan.Service, bool, error) {
		if in.Body != nil && in.Body.Attribute != "" {
			return c.vlans.Settled(ctx, ch, in.Body.Attribute)
		}
		return c.vlans.Removed(ctx, ch)
	})
}

func (s *server) patchService(ctx context.Context, who caller, in *patchServiceIn) (*serviceOut, error) {
	return s.changed(ctx, who, in.Service, in.IfMatch, "not changed", func(c *core, ch vlan.Change) (*vlan.Service, bool, error) {
		o, err := readSelection(in.Body.ServiceChoice)
		if err != nil {
			return nil, false, prefixed("service "+in.Service+" not changed: ", err)
		}
		return c.vlans.Patch(ctx, ch, vlan.Patch{Set: readWants(in.Body.Attributes), Drop: in.Body.Drop, Selection: o})
	})
}

// deleteService needs no token: it is about the name, whoever reads it first
// finds the token (rule 26). With one, a later service of the name stays.
func (s *server) deleteService(ctx context.Context, who caller, in *deleteServiceIn) (*serviceOut, error) {
	c, err := s.a.serving(ctx)
	if err != nil {
		return nil, err
	}
	what := "service " + in.Service + " not deleted"
	if err := c.readable("services/"+in.Service, what); err != nil {
		return nil, err
	}
	ch := vlan.Change{Name: in.Service, By: who.by(), Token: token(in.IfMatch)}
	if ch.Token == "*" {
		if err := who.mustOperate(what + " whatever its token"); err != nil {
			return nil, err
		}
		ch.Token = ""
	}
	v, changed, err := c.vlans.Delete(ctx, ch, in.Hold)
	if err != nil {
		return nil, err
	}
	out := c.serviceAnswer(who, in.Service, c.soon(ctx, v), changed)
	if out.Body.State == api.ServiceGone && !changed {
		out.Status = http.StatusNoContent
	}
	return out, nil
}

// serviceAnswer shows a service as a change left it: 202 while it goes on.
func (c *core) serviceAnswer(who caller, name string, v *vlan.Service, changed bool) *serviceOut {
	if v == nil {
		v = &vlan.Service{Name: name, State: vlan.Gone, Caller: who.name}
	}
	out := &serviceOut{http.StatusOK, c.serviceView(who, v, changed)}
	if (v.State == vlan.Allocating || v.State == vlan.Deallocating) && !v.HoldIDs {
		out.Status = http.StatusAccepted
	}
	return out
}

// serviceView shows a service as who may see it.
func (c *core) serviceView(who caller, v *vlan.Service, changed bool) api.Service {
	mine := who.operator || who.name == v.Caller
	out := api.Service{
		Name: v.Name, State: string(v.State), Attributes: map[string]api.ServiceAttribute{}, Values: v.Values(), Changed: changed,
		Reason: v.Reason, ReasonCode: v.ReasonCode, Caller: v.Caller, Holder: v.Holder, CreatedAt: when(v.CreatedAt), StateSince: when(v.Since),
		Hold: serviceHold(v), WaitsFor: waitsOrNone(c.vlans.WaitsFor(v)),
	}
	if mine {
		out.Token = v.Token
	}
	for _, at := range v.Attributes {
		a := api.ServiceAttribute{Inventory: at.Inventory, VID: at.VID, Key: at.Key, Step: string(at.Step), Reason: at.Reason}
		if mine {
			a.Token = at.Token
		}
		out.Attributes[at.Name] = a
	}
	return out
}

// serviceHold is what ends an allocated service that nobody confirms.
func serviceHold(v *vlan.Service) *api.Hold {
	if v.Hold == nil || v.State != vlan.Allocated {
		return nil
	}
	r := v.Hold.Requester
	h := &api.Hold{Kind: r.Hold}
	switch r.Hold {
	case leases.HoldPID:
		h.PID = r.PID
	case leases.HoldTTL:
		h.Until = when(r.Until)
	}
	return h
}

// waitsOrNone is never null.
func waitsOrNone(waits []problem.WaitsFor) []problem.WaitsFor {
	if waits == nil {
		return []problem.WaitsFor{}
	}
	return waits
}
