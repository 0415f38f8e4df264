package fault

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/test/e2e/robust/rig"
)

// identity are the faults of who a node is: each ends with the node as it was.
func identity() []Fault {
	return []Fault{
		{"node-renamed", "a node's agent is started under another name while the old name stands", always, renamed},
		{"node-cloned", "a copy of a node's data is started as the same node on another machine", always, cloned},
		hit("node-fenced", "a machine is off and fenced; it boots and is let in again", anyNode, powerOffAndFence,
			func(ctx context.Context, r *rig.Rig, n *rig.Node) error {
				return errors.Join(boot(ctx, r, n), refused(ctx, n), letIn(ctx, r, n), boot(ctx, r, n))
			}),
		hit("node-removed", "a machine is off, fenced and forgotten; it boots as a new node", anyNode, powerOffAndFence,
			func(ctx context.Context, r *rig.Rig, n *rig.Node) error {
				err := eventually(ctx, func(ctx context.Context) error {
					_, err := other(r, n).API().Nodes().Remove(ctx, n.Name())
					return but(err, problem.CodeNotFound)
				})
				return errors.Join(err, boot(ctx, r, n))
			}),
		hit("data-lost", "an agent's data is lost: it is refused until an operator has fenced its node", anyNode,
			func(ctx context.Context, _ *rig.Rig, n *rig.Node) error {
				return errors.Join(n.AgentKill(), n.LoseData(), n.AgentStart(ctx))
			},
			func(ctx context.Context, r *rig.Rig, n *rig.Node) error {
				if err := refused(ctx, n); err != nil {
					return err
				}
				return errors.Join(powerOffAndFence(ctx, r, n), letIn(ctx, r, n), boot(ctx, r, n))
			}),
	}
}

const (
	// exitFenced is what an agent ends with that may not be its node.
	exitFenced = "exit code 5"
	// fenceWait bounds the wait for an operator's word to be taken.
	fenceWait = time.Minute
)

// but takes an error with a code for none.
func but(err error, code problem.Code) error {
	if problem.CodeOf(err) == code {
		return nil
	}
	return err
}

// powerOffAndFence makes the operator's word true before it is given.
func powerOffAndFence(ctx context.Context, r *rig.Rig, n *rig.Node) error {
	n.PowerOff()
	ctx, cancel := context.WithTimeout(ctx, fenceWait)
	defer cancel()
	return eventually(ctx, func(ctx context.Context) error {
		_, err := other(r, n).API().Nodes().Fence(ctx, n.Name(), api.NodeAction{Reason: "its power supply is dead"})
		return err
	})
}

// letIn lets a fenced node come back.
func letIn(ctx context.Context, r *rig.Rig, n *rig.Node) error {
	return eventually(ctx, func(ctx context.Context) error {
		_, err := other(r, n).API().Nodes().Unfence(ctx, n.Name(), api.NodeAction{})
		return err
	})
}

// refused waits until the agent that was started has ended because it may not be
// its node. An agent that serves is an error.
func refused(ctx context.Context, n *rig.Node) error {
	for {
		look, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		end := n.AgentWait(look)
		cancel()
		switch {
		case !n.AgentAlive() && end != nil && end.Error() == exitFenced:
			return nil
		case !n.AgentAlive():
			return fmt.Errorf("the agent of %s was to be refused and ended with: %w", n.Name(), end)
		case ctx.Err() != nil:
			return fmt.Errorf("the agent of %s was not refused: %w", n.Name(), context.Cause(ctx))
		}
		if st, err := n.API().Status(ctx); err == nil && st.Ready {
			return fmt.Errorf("the agent of %s serves, and was to be refused", n.Name())
		}
	}
}

// renamed starts a node's agent under a name that its data knows nothing of: what
// runs on the machine is the old name's.
func renamed(ctx context.Context, r *rig.Rig, rnd *rand.Rand) (string, func(context.Context) error, error) {
	n, err := anyNode(ctx, r, rnd)
	if err != nil {
		return "", nil, err
	}
	name := n.Name() + "-renamed"
	heal, err := inflict(ctx, r, []string{n.Name()}, func(ctx context.Context) error {
		return errors.Join(n.AgentKill(), n.AgentStartAs(ctx, name))
	}, func(ctx context.Context) error {
		return errors.Join(refused(ctx, n), n.AgentKill(), n.AgentStart(ctx))
	})
	return n.Name() + " as " + name, heal, err
}

// cloned starts a copy of a node's data on the spare machine, as the same node.
func cloned(ctx context.Context, r *rig.Rig, rnd *rand.Rand) (string, func(context.Context) error, error) {
	n, err := anyNode(ctx, r, rnd)
	if err != nil {
		return "", nil, err
	}
	s := r.Spare()
	heal, err := inflict(ctx, r, []string{n.Name(), s.Name()}, func(ctx context.Context) error {
		// The data changes while it is copied.
		err := eventually(ctx, func(context.Context) error { return s.CopyData(n) })
		return errors.Join(err, s.PowerOn(), s.AgentStartAs(ctx, n.Name()))
	}, func(ctx context.Context) error {
		var err error
		if s.AgentAlive() { // it waits for the other to go
			if st, why := s.API().Status(ctx); why == nil && st.Ready {
				err = fmt.Errorf("the copy of %s serves", n.Name())
			}
		}
		s.PowerOff()
		return errors.Join(err, s.LoseData())
	})
	return n.Name(), heal, err
}
