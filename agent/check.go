package agent

import (
	"context"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/idpool/idpool/api"
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
	for _, key := range c.engine.Overview().Unreadable {
		told[key] = true
		out.Body.Items = append(out.Body.Items, api.Finding{
			Kind: vlan.FindUnreadable, Subject: key, Detail: "the record cannot be read by this version of idpool: it counts as not there",
			Try: []problem.Advice{{When: "this agent's version, and the writer's", Command: "poolctl status"}},
		})
	}
	for _, f := range found {
		if f.Kind == vlan.FindUnreadable && endsOne(told, "/services/"+f.Service) {
			continue
		}
		out.Body.Items = append(out.Body.Items, findingView(f))
	}
	return out, nil
}

func endsOne(keys map[string]bool, suffix string) bool {
	for key := range keys {
		if strings.HasSuffix(key, suffix) {
			return true
		}
	}
	return false
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
