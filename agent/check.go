package agent

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/vlan"
)

type findingsOut struct{ Body api.List[api.Finding] }

func (s *server) checkRoutes() {
	add(s, huma.Operation{OperationID: "check", Method: http.MethodGet, Path: "/v1/check", Summary: "What a person should look at", Tags: []string{"status"}}, s.check)
}

// check lists records that cannot be read, and what is wrong with services.
func (s *server) check(ctx context.Context, _ caller, _ *struct{}) (*findingsOut, error) {
	c, err := s.a.serving(ctx)
	if err != nil {
		return nil, err
	}
	found, err := c.vlans.Findings(ctx)
	if err != nil {
		return nil, err
	}
	out := &findingsOut{}
	out.Body.Items = []api.Finding{}
	told := map[string]bool{}
	for _, u := range c.engine.Unreadable() {
		told[u.Key] = true
		out.Body.Items = append(out.Body.Items, unreadableFinding(u))
	}
	keys := c.client.Keys()
	for _, f := range found {
		key := keys.Service(f.Service)
		switch {
		case f.Kind != vlan.FindUnreadable:
			out.Body.Items = append(out.Body.Items, findingView(f))
		case !told[key]:
			out.Body.Items = append(out.Body.Items, unreadableFinding(leases.Unreadable{Key: key, Kind: cluster.KindService, Why: errors.New(f.Detail)}))
		}
	}
	return out, nil
}

func findingView(f vlan.Finding) api.Finding {
	subject := "service " + f.Service
	if f.Attribute != "" {
		subject += ", " + f.Attribute
	}
	v := api.Finding{Kind: f.Kind, Subject: subject, Detail: strings.TrimPrefix(f.Detail, subject+": "), Try: []problem.Advice{}}
	if f.Try != "" {
		v.Try = append(v.Try, problem.Advice{When: "next", Command: f.Try})
	}
	return v
}
