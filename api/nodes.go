package api

import (
	"context"
	"net/http"
	"net/url"
)

// NodesService reads nodes and tells the cluster about them.
type NodesService struct{ c *Client }

// Nodes returns the service of nodes.
func (c *Client) Nodes() *NodesService { return &NodesService{c} }

func nodePath(name, rest string) string { return "/v1/nodes/" + url.PathEscape(name) + rest }

// List returns all registered nodes, in order of name.
func (s *NodesService) List(ctx context.Context) ([]Node, error) {
	return all(paged[Node](ctx, s.c, "/v1/nodes", "nodes not listed", nil))
}

// Get returns a node.
func (s *NodesService) Get(ctx context.Context, name string) (Node, error) {
	var n Node
	_, err := s.c.do(ctx, call{method: http.MethodGet, path: nodePath(name, ""), what: "node " + name + " not shown"}, &n)
	return n, err
}

// Leave takes the answering agent's own node out of service cleanly.
func (s *NodesService) Leave(ctx context.Context, name string, a NodeAction) (NodeResult, error) {
	return s.act(ctx, name, "/leave", "has not left", a)
}

// Fence is an operator's word that a machine is off: its ids need its proof no
// longer. A.Reason is required. It is refused while the node's agent is
// present, unless a.Force is set. A.DryRun only lists the ids that would be freed.
func (s *NodesService) Fence(ctx context.Context, name string, a NodeAction) (NodeResult, error) {
	return s.act(ctx, name, "/fence", "not fenced", a)
}

// Unfence lets a fenced node register again, once it has booted anew.
func (s *NodesService) Unfence(ctx context.Context, name string, a NodeAction) (NodeResult, error) {
	return s.act(ctx, name, "/unfence", "not unfenced", a)
}

// Remove forgets a node that left or is fenced and that no claim names.
func (s *NodesService) Remove(ctx context.Context, name string) (NodeResult, error) {
	var r NodeResult
	_, err := s.c.do(ctx, call{method: http.MethodDelete, path: nodePath(name, ""), what: "node " + name + " not removed"}, &r)
	return r, err
}

func (s *NodesService) act(ctx context.Context, name, rest, not string, a NodeAction) (NodeResult, error) {
	var r NodeResult
	_, err := s.c.do(ctx, call{method: http.MethodPost, path: nodePath(name, rest), body: a, what: "node " + name + " " + not}, &r)
	return r, err
}

// Status returns how the agent, its node and the cluster are as the agent sees
// them. It answers also while uid requests are refused.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var st Status
	_, err := c.do(ctx, call{method: http.MethodGet, path: "/v1/status", what: "status not shown"}, &st)
	return st, err
}
