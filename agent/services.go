package agent

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/uidpool"
	"github.com/idpool/idpool/vlan"
)

type listServicesIn struct {
	Limit     int    `query:"limit" minimum:"1" maximum:"10000" default:"1000" doc:"most items of one page"`
	Cursor    string `query:"cursor" maxLength:"100" doc:"next of the page before"`
	State     string `query:"state" enum:"allocating,allocated,rejected,provisioning,up,deallocating,failed"`
	Inventory string `query:"inventory" maxLength:"63"`
	Holder    string `query:"holder" maxLength:"256"`
}

type servicesOut struct{ Body api.List[api.Service] }

type servicePath struct {
	Service string `path:"service" maxLength:"63" doc:"name of a VLAN service"`
}

type serviceOut struct {
	Status int
	Body   api.Service
}

type putServiceIn struct {
	Service string `path:"service" maxLength:"63" doc:"name of a VLAN service"`
	DryRun  bool   `query:"dry_run" doc:"say what would be granted, do nothing"`
	Body    api.ServiceRequest
}

type patchServiceIn struct {
	Service string `path:"service" maxLength:"63" doc:"name of a VLAN service"`
	IfMatch string `header:"If-Match" maxLength:"200" doc:"the service's token; operators may send *"`
	Body    api.ServicePatch
}

type changeServiceIn struct {
	Service string `path:"service" maxLength:"63" doc:"name of a VLAN service"`
	IfMatch string `header:"If-Match" maxLength:"200" doc:"the service's token; operators may send *"`
}

type deleteServiceIn struct {
	Service string `path:"service" maxLength:"63" doc:"name of a VLAN service"`
	IfMatch string `header:"If-Match" maxLength:"200" doc:"the service's token, if it must still be that one; operators may send *"`
	Hold    bool   `query:"hold" doc:"its VLANs stay until /removed says that the devices are clean"`
}

type failServiceIn struct {
	Service string `path:"service" maxLength:"63" doc:"name of a VLAN service"`
	IfMatch string `header:"If-Match" maxLength:"200" doc:"the service's token; operators may send *"`
	Body    api.ServiceFail
}

type extendServiceIn struct {
	Service string `path:"service" maxLength:"63" doc:"name of a VLAN service"`
	IfMatch string `header:"If-Match" maxLength:"200" doc:"the service's token; operators may send *"`
	Body    api.ServiceExtend
}

type removedServiceIn struct {
	Service string `path:"service" maxLength:"63" doc:"name of a VLAN service"`
	IfMatch string `header:"If-Match" maxLength:"200" doc:"the service's token; operators may send *"`
	Body    *api.ServiceRemoved
}

func (s *server) serviceRoutes() {
	tags := []string{"services"}
	const path = "/v1/vlan-services/{service}"
	add(s, huma.Operation{OperationID: "list-vlan-services", Method: http.MethodGet, Path: "/v1/vlan-services", Summary: "VLAN services", Tags: tags}, s.listServices)
	add(s, huma.Operation{OperationID: "get-vlan-service", Method: http.MethodGet, Path: path, Summary: "One service", Tags: tags}, s.getService)
	add(s, huma.Operation{OperationID: "put-vlan-service", Method: http.MethodPut, Path: path, Summary: "All VLANs of a service, or none: 201, 200 as it stands, 202 while it is allocating", Tags: tags}, s.putService)
	add(s, huma.Operation{OperationID: "patch-vlan-service", Method: http.MethodPatch, Path: path, Summary: "Add, re-home or drop attributes of a service that is up", Tags: tags}, s.patchService)
	add(s, huma.Operation{OperationID: "delete-vlan-service", Method: http.MethodDelete, Path: path, Summary: "Release the VLANs and forget the service; 202 while that goes on, 204 if it is gone", Tags: tags}, s.deleteService)
	add(s, huma.Operation{OperationID: "begin-vlan-service", Method: http.MethodPost, Path: path + "/begin", Summary: "Devices are about to be touched: no hold's end takes the VLANs away", Tags: tags}, s.beginService)
	add(s, huma.Operation{OperationID: "confirm-vlan-service", Method: http.MethodPost, Path: path + "/confirm", Summary: "The service is provisioned", Tags: tags}, s.confirmService)
	add(s, huma.Operation{OperationID: "fail-vlan-service", Method: http.MethodPost, Path: path + "/fail", Summary: "Provisioning failed: release the VLANs", Tags: tags}, s.failService)
	add(s, huma.Operation{OperationID: "retry-vlan-service", Method: http.MethodPost, Path: path + "/retry", Summary: "Ask for what is missing", Tags: tags}, s.retryService)
	add(s, huma.Operation{OperationID: "extend-vlan-service", Method: http.MethodPost, Path: path + "/extend", Summary: "Move the end of the hold", Tags: tags}, s.extendService)
	add(s, huma.Operation{OperationID: "removed-vlan-service", Method: http.MethodPost, Path: path + "/removed", Summary: "The devices are clean: the VLANs that a delete with hold kept may go", Tags: tags}, s.removedService)
}

func (c caller) by() vlan.By { return vlan.By{Caller: c.name, Operator: c.operator} }

func (s *server) getService(ctx context.Context, who caller, in *servicePath) (*serviceOut, error) {
	c, err := s.a.serving(ctx)
	if err != nil {
		return nil, err
	}
	v, err := c.vlans.Get(ctx, in.Service)
	if problem.CodeOf(err) == problem.CodeNotFound {
		if err := c.readable("services/"+in.Service, "service "+in.Service); err != nil {
			return nil, err
		}
	}
	if err != nil {
		return nil, err
	}
	return &serviceOut{http.StatusOK, c.serviceView(who, v, false)}, nil
}

func (s *server) listServices(ctx context.Context, who caller, in *listServicesIn) (*servicesOut, error) {
	c, err := s.a.serving(ctx)
	if err != nil {
		return nil, err
	}
	out := &servicesOut{}
	out.Body.Items = []api.Service{}
	for _, v := range c.vlans.List(ctx) {
		if v.Name <= in.Cursor || !wantsService(in, &v) {
			continue
		}
		if len(out.Body.Items) == in.Limit {
			out.Body.Next = out.Body.Items[in.Limit-1].Name
			break
		}
		out.Body.Items = append(out.Body.Items, c.serviceView(who, &v, false))
	}
	return out, nil
}

func wantsService(in *listServicesIn, v *vlan.Service) bool {
	if (in.State != "" && in.State != string(v.State)) || (in.Holder != "" && in.Holder != v.Holder) {
		return false
	}
	for _, at := range v.Attributes {
		if at.Inventory == in.Inventory {
			return true
		}
	}
	return in.Inventory == ""
}

func (s *server) putService(ctx context.Context, who caller, in *putServiceIn) (*serviceOut, error) {
	c, err := s.a.serving(ctx)
	if err != nil {
		return nil, err
	}
	not := "service " + in.Service + " not created"
	if err := c.readable("services/"+in.Service, not); err != nil {
		return nil, err
	}
	r, err := readService(in.Service, who, in.Body)
	if err != nil {
		return nil, prefixed(not+": ", err)
	}
	r.DryRun = in.DryRun
	v, changed, err := c.vlans.Allocate(ctx, r)
	if err != nil {
		return nil, ofThe(in.Service, "not created", aboutVLANs(err))
	}
	out := c.serviceAnswer(who, in.Service, v, changed)
	switch {
	case in.DryRun && v != nil: // what would be, of which nothing is
		out.Status, out.Body.Token, out.Body.CreatedAt, out.Body.StateSince, out.Body.Hold = http.StatusOK, "", nil, nil, nil
	case changed && out.Status == http.StatusOK:
		out.Status = http.StatusCreated
	}
	return out, nil
}

// readService turns the body into a request of the caller.
func readService(name string, who caller, b api.ServiceRequest) (vlan.Request, error) {
	r := vlan.Request{Name: name, By: who.by(), Holder: b.Holder, OnPartial: b.OnPartial, Attributes: readWants(b.Attributes)}
	var err error
	if r.Selection, err = readSelection(b.ServiceChoice); err != nil {
		return r, err
	}
	if err := setDuration(&r.ConfirmWithin, "confirm_within", b.ConfirmWithin); err != nil {
		return r, err
	}
	if b.ConfirmWithin != "" && r.ConfirmWithin == 0 {
		return r, problem.New(problem.CodeInvalid, "confirm_within 0: want %s to %s", vlan.MinConfirmWithin, vlan.MaxConfirmWithin)
	}
	if b.Hold != nil {
		if err := who.mustBeLocal("a pid hold is refused"); err != nil {
			return r, err
		}
	}
	r.Hold, err = readProcess(b.Hold)
	return r, err
}

func readWants(wants []api.ServiceWant) []vlan.Want {
	var out []vlan.Want
	for _, w := range wants {
		out = append(out, vlan.Want{Name: w.Name, Inventory: w.Inventory, Key: w.Key})
	}
	return out
}

func readSelection(b api.ServiceChoice) (vlan.Selection, error) {
	o := vlan.Selection{VID: b.VID, Same: b.Same, Offset: b.Offset, Parity: b.Parity}
	exclude, err := parseVLANs(b.Exclude)
	o.Exclude = exclude
	return o, in("exclude", err)
}

// readProcess reads the hold of a service: a process of this node, or nil.
func readProcess(h *api.Hold) (*leases.Requester, error) {
	if h == nil {
		return nil, nil
	}
	if h.Kind != api.HoldPID || h.PID <= 0 || h.TTL != "" {
		return nil, problem.New(problem.CodeInvalid, "a service is held by a process: kind pid and its pid, or by confirm_within alone")
	}
	ref, err := uidpool.Identify(h.PID)
	if err != nil {
		return nil, problem.New(problem.CodeInvalid, "hold pid=%d: %v", h.PID, err)
	}
	since, err := uidpool.NowTicks()
	if err != nil {
		return nil, err
	}
	return &leases.Requester{ID: leases.NewToken(), Hold: leases.HoldPID, PID: ref.PID, Start: ref.Start, PIDNS: ref.PIDNS, Session: ref.Session, Since: since}, nil
}

// change is what the changes of a service begin with: it names the life of the
// service that the caller means (rule 26).
func (s *server) change(ctx context.Context, who caller, name, ifMatch, not string) (*core, vlan.Change, error) {
	ch := vlan.Change{Name: name, By: who.by(), Token: token(ifMatch)}
	c, err := s.a.serving(ctx)
	if err != nil {
		return nil, ch, err
	}
	what := "service " + name + " " + not
	if err := c.readable("services/"+name, what); err != nil {
		return nil, ch, err
	}
	switch ch.Token {
	case "":
		return nil, ch, problem.New(problem.CodePreconditionRequired, "%s: the request does not name its token", what).
			Note("send it as If-Match; it stands in the answer to the request that made the service").
			Advise("look", "poolctl vlan service show %s -o json", name)
	case "*":
		if err := who.mustOperate(what + " without its token"); err != nil {
			return nil, ch, err
		}
		v, err := c.vlans.Get(ctx, name)
		if err != nil {
			return nil, ch, err
		}
		ch.Token = v.Token
	}
	return c, ch, nil
}

// ofThe begins a refusal with the service it is about, if it does not name it.
func ofThe(service, not string, err error) error {
	var p *problem.Error
	if !errors.As(err, &p) || strings.Contains(p.Detail, "service "+service) || strings.HasPrefix(p.Detail, "service: ") {
		return err
	}
	return prefixed("service "+service+" "+not+": ", err)
}
