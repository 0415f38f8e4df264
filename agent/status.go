package agent

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/problem"
)

const (
	sessionLive = "live"
	sessionLost = "lost"

	// nodeStarting is the state of a node that is not registered yet.
	nodeStarting = "starting"
)

type statusOut struct{ Body api.Status }

type healthOut struct {
	Body struct {
		Status string `json:"status" enum:"ok"`
	}
}

func (s *server) routes() {
	s.poolRoutes()
	s.uidRoutes()
	s.reservationRoutes()
	s.nodeRoutes()
	s.inventoryRoutes()
	s.vlanRoutes()
	s.serviceRoutes()
	s.allocationRoutes()
	s.checkRoutes()
	s.eventRoutes()
	tags := []string{"status"}
	add(s, huma.Operation{OperationID: "get-status", Method: http.MethodGet, Path: "/v1/status", Summary: "How agent, node and cluster are; answers always", Tags: tags}, s.status)
	s.operationRoutes()
}

// notReady says why a uid request would be refused, the weightiest reason first.
func (a *Agent) notReady() (problem.Code, []string) {
	c, err := a.working()
	if err != nil {
		return problem.CodeOf(err), []string{err.Error()}
	}
	code := problem.Code("")
	var why []string
	note := func(as problem.Code, format string, args ...any) {
		if code == "" {
			code = as
		}
		why = append(why, fmt.Sprintf(format, args...))
	}
	o := c.engine.Overview()
	if err := c.engine.Session().Err(); err != nil {
		note(problem.CodeOf(err), "%v", err)
	} else if _, live := c.engine.Session().Live(); !live {
		note(problem.CodeUnavailable, "node %s has no session with etcd", a.cfg.Node)
	}
	if err := c.engine.Blocked(); err != nil {
		note(problem.CodeOf(err), "%v", err)
	}
	r := c.engine.Recovering()
	for _, w := range r.Waits {
		note(problem.CodeFrozen, "granting waits for %s: %s", w.Node, w.Why)
	}
	for _, d := range r.Conflicts {
		note(problem.CodeFrozen, "%s is disputed: %s; %s", d.Short(), d.Ours, d.Theirs)
	}
	if r.Stuck != nil && r.Meta.State == cluster.StateRecovering {
		note(problem.CodeOf(r.Stuck), "%v", r.Stuck)
	}
	if o.Stale != nil {
		note(problem.CodeUnavailable, "%v", o.Stale)
	}
	if o.NoProof != "" && a.cfg.Role == leases.RoleNode {
		note(problem.CodeNoProof, "%s", o.NoProof)
	}
	return code, why
}

func (s *server) status(ctx context.Context, _ caller, _ *struct{}) (*statusOut, error) {
	a := s.a
	_, why := a.notReady()
	st := api.Status{
		Node: a.cfg.Node, State: nodeStarting, Version: a.cfg.Version, PID: a.pid, Socket: a.cfg.Socket,
		Endpoints: a.Endpoints(), Embedded: a.cfg.Embedded, Session: sessionLost, Ready: len(why) == 0, NotReady: why, Settings: a.now.Load().settings,
		Pools: []api.Pool{}, Nodes: []api.Node{}, Counts: map[string]uint64{}, Inventories: []api.Inventory{}, Services: map[string]uint64{},
	}
	if st.Endpoints == nil {
		st.Endpoints = []string{}
	}
	a.mu.Lock()
	c := a.core
	st.Listen = a.listens
	a.mu.Unlock()
	if c != nil {
		c.addStatus(ctx, &st)
	}
	return &statusOut{st}, nil
}

// addStatus adds what the engine knows.
func (c *core) addStatus(ctx context.Context, st *api.Status) {
	o := c.engine.Overview()
	st.ClusterID = fmt.Sprintf("%x", c.client.ClusterID())
	if r := c.engine.Recovering(); r.Meta.Epoch != "" {
		o.Meta = r.Meta
	}
	st.Epoch, st.EpochNumber, st.EpochState = o.Meta.Epoch, o.Meta.Number, o.Meta.State
	st.Recovery = recoveryView(c.engine.Recovering())
	st.Revision, st.Counts, st.Unreadable, st.NoProof = o.Revision, o.Counts, o.Unreadable, c.noProof(o.NoProof)
	if o.Stale != nil {
		st.MirrorStale = o.Stale.Error()
	}
	if _, live := c.engine.Session().Live(); live {
		st.Session = sessionLive
	}
	for _, p := range c.engine.Pools() {
		st.Pools = append(st.Pools, poolView(p))
	}
	for _, p := range c.engine.Inventories() {
		st.Inventories = append(st.Inventories, c.inventoryView(ctx, p))
	}
	for _, v := range c.vlans.List(ctx) {
		st.Services[string(v.State)]++
	}
	select {
	case <-c.engine.Ready():
		st.State = api.NodeActive // the list may lag behind
	default:
	}
	for _, n := range c.engine.Nodes() {
		st.Nodes = append(st.Nodes, nodeView(n))
		if n.Name == st.Node {
			st.State = n.State
		}
	}
}

// ReadyLine is what an agent prints once it serves.
func (a *Agent) ReadyLine() string {
	etcd := strings.Join(a.Endpoints(), ",")
	if a.cfg.Embedded {
		etcd += ", embedded"
	}
	return fmt.Sprintf("node %s ready on %s (etcd %s)", a.cfg.Node, a.cfg.Socket, etcd)
}

// recoveryView is what status tells of a restore, nil while there is nothing.
func recoveryView(r leases.Recovering) *api.Recovery {
	if r.Meta.State != cluster.StateRecovering && r.Seen == nil && len(r.Late) == 0 {
		return nil
	}
	v := &api.Recovery{Adopted: r.Meta.Adopted, By: r.Meta.By, Reason: r.Meta.Reason, WaitsFor: []problem.WaitsFor{}, Disputed: []api.Disputed{}}
	if !r.Meta.Since.IsZero() {
		v.Since = &r.Meta.Since
	}
	if r.Seen != nil {
		v.Seen = r.Seen.Error()
	}
	for _, w := range r.Waits {
		v.WaitsFor = append(v.WaitsFor, problem.WaitsFor{Node: w.Node, Why: w.Why})
	}
	for _, c := range append(r.Conflicts[:len(r.Conflicts):len(r.Conflicts)], r.Late...) {
		v.Disputed = append(v.Disputed, api.Disputed{Subject: c.Short(), Why: c.Why, Sides: []string{c.Ours.String(), c.Theirs.String()}})
	}
	return v
}
