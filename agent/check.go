package agent

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"go.uber.org/zap"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/vlan"
)

type findingsOut struct{ Body api.List[api.Finding] }

func (s *server) checkRoutes() {
	add(s, huma.Operation{OperationID: "repair", Method: http.MethodPost, Path: "/v1/repair", Summary: "Delete what nothing rests on: without items, the plan; with them, those of the plan", Tags: []string{"status"}}, s.repair)
	add(s, huma.Operation{OperationID: "check", Method: http.MethodGet, Path: "/v1/check", Summary: "What a person should look at", Tags: []string{"status"}}, s.check)
}

func engineFindings(all []leases.Finding) []api.Finding {
	items := []api.Finding{}
	for _, f := range all {
		items = append(items, api.Finding{Kind: f.Kind, Subject: f.Subject, Detail: f.Detail, Try: append([]problem.Advice{}, f.Try...), Key: f.Key})
	}
	return items
}

// check lists what is wrong with ids and nodes, records that cannot be read, and
// what is wrong with services.
func (s *server) check(ctx context.Context, _ caller, _ *struct{}) (*findingsOut, error) {
	c, err := s.a.serving(ctx)
	if err != nil {
		return nil, err
	}
	recovery := c.engine.RecoveryFindings()
	if r := c.engine.Recovering(); r.Meta.State == cluster.StateRecovering { // nothing else is sure
		out := &findingsOut{}
		out.Body.Items = engineFindings(recovery)
		return out, nil
	}
	found, err := c.vlans.Findings(ctx)
	if err != nil {
		return nil, err
	}
	ids, err := c.engine.Findings(ctx)
	if err != nil {
		return nil, err
	}
	out := &findingsOut{}
	out.Body.Items = engineFindings(append(recovery, ids...))
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

type repairIn struct{ Body *api.RepairRequest }

type repairsOut struct{ Body api.List[api.Repair] }

// repair shows what it would do, or does what it was shown: nothing that is not in
// the plan of this moment, and that only while it stands as it was found.
func (s *server) repair(ctx context.Context, who caller, in *repairIn) (*repairsOut, error) {
	c, err := s.a.serving(ctx)
	if err != nil {
		return nil, err
	}
	if err := who.mustOperate("nothing repaired"); err != nil {
		return nil, err
	}
	plan, err := c.engine.Repairs(ctx)
	if err != nil {
		return nil, err
	}
	out := &repairsOut{}
	out.Body.Items = []api.Repair{}
	if in.Body == nil || in.Body.Items == nil {
		if rec := auditOf(ctx); rec != nil {
			rec.DryRun = true
		}
		for _, r := range plan {
			out.Body.Items = append(out.Body.Items, repairView(r))
		}
		return out, nil
	}
	for _, asked := range in.Body.Items {
		out.Body.Items = append(out.Body.Items, s.mend(ctx, c, who, plan, asked))
	}
	return out, nil
}

func (s *server) mend(ctx context.Context, c *core, who caller, plan []leases.Repair, asked api.Repair) api.Repair {
	i := slices.IndexFunc(plan, func(r leases.Repair) bool { return r.Key == asked.Key && r.Revision == asked.Revision })
	if i < 0 {
		asked.Why = "it is not in the plan, or has changed since; nothing was done"
		asked.Done = false
		return asked
	}
	v := repairView(plan[i])
	if err := c.engine.Repair(ctx, plan[i]); err != nil {
		v.Why = err.Error()
		return v
	}
	v.Done = true
	s.a.log.Info("repaired", zap.String("key", v.Key), zap.Int64("revision", v.Revision), zap.String("by", who.name))
	return v
}

func repairView(r leases.Repair) api.Repair {
	return api.Repair{Key: r.Key, Revision: r.Revision, Action: "delete", Why: r.Why}
}
