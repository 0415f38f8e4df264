package agent

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/problem"
)

type nodePath struct {
	Node string `path:"node" maxLength:"63"`
}

type nodeOut struct{ Body api.Node }

type nodesOut struct{ Body api.List[api.Node] }

type nodeActionIn struct {
	Node string `path:"node" maxLength:"63"`
	Body *api.NodeAction
}

type nodeResultOut struct{ Body api.NodeResult }

func (s *server) nodeRoutes() {
	tags := []string{"nodes"}
	add(s, huma.Operation{OperationID: "list-nodes", Method: http.MethodGet, Path: "/v1/nodes", Summary: "Registered nodes", Tags: tags}, s.listNodes)
	add(s, huma.Operation{OperationID: "get-node", Method: http.MethodGet, Path: "/v1/nodes/{node}", Summary: "One node", Tags: tags}, s.getNode)
	add(s, huma.Operation{OperationID: "remove-node", Method: http.MethodDelete, Path: "/v1/nodes/{node}", Summary: "Forget a node that left or is fenced", Tags: tags}, s.removeNode)
	add(s, huma.Operation{OperationID: "leave-node", Method: http.MethodPost, Path: "/v1/nodes/{node}/leave", Summary: "Take the answering node out of service; its agent ends", Tags: tags}, s.leaveNode)
	add(s, huma.Operation{OperationID: "fence-node", Method: http.MethodPost, Path: "/v1/nodes/{node}/fence", Summary: "An operator's word that a machine is off", Tags: tags}, s.fenceNode)
	add(s, huma.Operation{OperationID: "unfence-node", Method: http.MethodPost, Path: "/v1/nodes/{node}/unfence", Summary: "Let a fenced node register again, after a reboot", Tags: tags}, s.unfenceNode)
}

func (s *server) listNodes(ctx context.Context, _ caller, _ *pageIn) (*nodesOut, error) {
	c, err := s.a.serving(ctx)
	if err != nil {
		return nil, err
	}
	out := &nodesOut{}
	out.Body.Items = []api.Node{}
	for _, n := range c.engine.Nodes() {
		out.Body.Items = append(out.Body.Items, nodeView(n))
	}
	return out, nil
}

func (s *server) getNode(ctx context.Context, _ caller, in *nodePath) (*nodeOut, error) {
	c, err := s.a.serving(ctx)
	if err != nil {
		return nil, err
	}
	n, err := c.engine.NodeNamed(in.Node)
	if err != nil {
		return nil, err
	}
	return &nodeOut{nodeView(n)}, nil
}

// operate is what node actions begin with: the node as it stands.
func (s *server) operate(ctx context.Context, who caller, name, not string) (*core, leases.NodeInfo, error) {
	c, err := s.a.serving(ctx)
	if err != nil {
		return nil, leases.NodeInfo{}, err
	}
	if err := who.mustOperate("node " + name + " " + not); err != nil {
		return nil, leases.NodeInfo{}, err
	}
	n, err := c.engine.NodeNamed(name)
	return c, n, err
}

func (a *nodeActionIn) action() api.NodeAction {
	if a.Body == nil {
		return api.NodeAction{}
	}
	return *a.Body
}

func (s *server) removeNode(ctx context.Context, who caller, in *nodePath) (*nodeResultOut, error) {
	c, n, err := s.operate(ctx, who, in.Node, "not removed")
	if err != nil {
		return nil, err
	}
	if err := c.engine.Remove(ctx, in.Node); err != nil {
		return nil, err
	}
	return &nodeResultOut{api.NodeResult{Node: nodeView(n)}}, nil
}

func (s *server) leaveNode(ctx context.Context, who caller, in *nodeActionIn) (*nodeResultOut, error) {
	c, n, err := s.operate(ctx, who, in.Node, "has not left")
	if err != nil {
		return nil, err
	}
	if in.Node != s.a.cfg.Node {
		return nil, problem.New(problem.CodeInvalid, "node %s has not left: this is the agent of %s, and a node leaves through its own", in.Node, s.a.cfg.Node).
			Advise("there", "poolctl node leave").
			Advise("if the machine is off", "poolctl node fence %s --reason …", in.Node)
	}
	if in.action().DryRun {
		return nil, problem.New(problem.CodeInvalid, "node %s has not left: a leave has no dry run; it is refused while something keeps the node", in.Node)
	}
	if err := s.a.leave(ctx, c); err != nil {
		return nil, err
	}
	n.State, n.Alive = api.NodeLeft, nil
	return &nodeResultOut{api.NodeResult{Node: nodeView(n)}}, nil
}

func (s *server) fenceNode(ctx context.Context, who caller, in *nodeActionIn) (*nodeResultOut, error) {
	c, n, err := s.operate(ctx, who, in.Node, "not fenced")
	if err != nil {
		return nil, err
	}
	a := in.action()
	refs, err := c.engine.Fence(ctx, in.Node, a.Reason, who.name, a.Force, a.DryRun)
	if err != nil {
		return nil, err
	}
	var ids idset.Set
	for _, ref := range refs {
		if _, vlan := ref.Space.Inventory(); !vlan {
			ids.Insert(ref.ID)
		}
	}
	return &nodeResultOut{api.NodeResult{Node: s.afterAction(c, n), Frees: ids.String(), Count: ids.Count(), DryRun: a.DryRun}}, nil
}

func (s *server) unfenceNode(ctx context.Context, who caller, in *nodeActionIn) (*nodeResultOut, error) {
	c, n, err := s.operate(ctx, who, in.Node, "not unfenced")
	if err != nil {
		return nil, err
	}
	if in.action().DryRun {
		return &nodeResultOut{api.NodeResult{Node: nodeView(n), DryRun: true}}, nil
	}
	if err := c.engine.Unfence(ctx, in.Node, who.name); err != nil {
		return nil, err
	}
	return &nodeResultOut{api.NodeResult{Node: s.afterAction(c, n)}}, nil
}

// afterAction is the node as it stands, or as it was if it is gone.
func (s *server) afterAction(c *core, was leases.NodeInfo) api.Node {
	if now, err := c.engine.NodeNamed(was.Name); err == nil {
		return nodeView(now)
	}
	return nodeView(was)
}
