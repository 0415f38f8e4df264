package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/idpool/idpool/api"
)

func newNodeCmd(f *Factory) *cobra.Command {
	cmd := &cobra.Command{Use: "node", Short: "See nodes and say what became of them", Args: cobra.NoArgs, RunE: needsSubcommand}
	cmd.AddCommand(
		newNodeListCmd(f), newNodeShowCmd(f),
		newNodeActionCmd(f, leaveAction), newNodeActionCmd(f, fenceAction), newNodeActionCmd(f, unfenceAction), newNodeActionCmd(f, removeAction),
	)
	return cmd
}

func newNodeListCmd(f *Factory) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List nodes",
		Args:    cobra.NoArgs,
		RunE: runs(func(ctx context.Context, _ []string) error {
			c, err := f.Client()
			if err != nil {
				return err
			}
			nodes, err := c.Nodes().List(ctx)
			if err != nil {
				return err
			}
			return printList(f, nodeSheet, nodes, nil)
		}),
	}
}

func newNodeShowCmd(f *Factory) *cobra.Command {
	return &cobra.Command{
		Use:   "show [NODE]",
		Short: "Show a node (default: the agent's own)",
		Args:  atMostOne("NODE"),
		RunE: runs(func(ctx context.Context, args []string) error {
			c, err := f.Client()
			if err != nil {
				return err
			}
			name, err := nodeName(ctx, c, args)
			if err != nil {
				return err
			}
			n, err := c.Nodes().Get(ctx, name)
			if err != nil {
				return err
			}
			return printOne(f, nodeSheet, n)
		}),
	}
}

// nodeAction is one way of telling the cluster about a node.
type nodeAction struct {
	use, short, long string
	past             string
	// own: the node may be left away and is the agent's own then.
	own bool
	// reason, dryRun and force say which flags the action has; needsReason
	// that it is refused without a reason.
	reason, needsReason, dryRun, force bool
	act                                func(context.Context, *api.NodesService, string, api.NodeAction) (api.NodeResult, error)
}

var (
	leaveAction = nodeAction{
		use: "leave [NODE]", short: "Take this node out of service cleanly", past: "left", own: true, reason: true,
		long: `The agent's own node stops granting, looks a last time and leaves: no uid waits for
its word any more. Refused while something still runs here.`,
		act: func(ctx context.Context, s *api.NodesService, n string, a api.NodeAction) (api.NodeResult, error) {
			return s.Leave(ctx, n, a)
		},
	}
	fenceAction = nodeAction{
		use: "fence NODE --reason TEXT", short: "Say that a machine is off for good", past: "fenced",
		reason: true, needsReason: true, dryRun: true, force: true,
		long: `Your word that nothing runs on the machine any more: uids that it held are granted
again without its proof. If it does run, two programs may get one uid. The uids
that would be freed are listed first; with --dry-run that is all.`,
		act: func(ctx context.Context, s *api.NodesService, n string, a api.NodeAction) (api.NodeResult, error) {
			return s.Fence(ctx, n, a)
		},
	}
	unfenceAction = nodeAction{
		use: "unfence NODE", short: "Let a fenced node come back, once it has booted anew", past: "unfenced", reason: true, dryRun: true,
		act: func(ctx context.Context, s *api.NodesService, n string, a api.NodeAction) (api.NodeResult, error) {
			return s.Unfence(ctx, n, a)
		},
	}
	removeAction = nodeAction{
		use: "remove NODE", short: "Forget a node that left or is fenced", past: "removed",
		act: func(ctx context.Context, s *api.NodesService, n string, _ api.NodeAction) (api.NodeResult, error) {
			return s.Remove(ctx, n)
		},
	}
)

type nodeActionOptions struct {
	nodeAction
	f    *Factory
	body api.NodeAction
}

func newNodeActionCmd(f *Factory, a nodeAction) *cobra.Command {
	o := &nodeActionOptions{nodeAction: a, f: f}
	cmd := &cobra.Command{Use: a.use, Short: a.short, Long: a.long, Args: one("NODE"), RunE: runs(o.run)}
	if a.own {
		cmd.Args = atMostOne("NODE")
	}
	if a.reason {
		cmd.Flags().StringVar(&o.body.Reason, "reason", "", "why, shown to whoever asks")
	}
	if a.dryRun {
		cmd.Flags().BoolVar(&o.body.DryRun, "dry-run", false, "say what it would free, do nothing")
	}
	if a.force {
		cmd.Flags().BoolVar(&o.body.Force, "force", false, "also while its agent is present")
	}
	return cmd
}

func (o *nodeActionOptions) run(ctx context.Context, args []string) error {
	if o.needsReason && o.body.Reason == "" {
		return usage("node %s not %s: say why with --reason, others will ask", args[0], o.past).
			Advise("look first", "poolctl node fence %s --reason \"…\" --dry-run", args[0])
	}
	c, err := o.f.Client()
	if err != nil {
		return err
	}
	name, err := nodeName(ctx, c, args)
	if err != nil {
		return err
	}
	// Only fence frees what others wait for; its list is seen before it is done.
	if o.needsReason && !o.body.DryRun {
		look := o.body
		look.DryRun = true
		r, err := o.act(ctx, c.Nodes(), name, look)
		if err != nil {
			return err
		}
		o.f.hint("%s", freesText(r, "will free"))
	}
	r, err := o.act(ctx, c.Nodes(), name, o.body)
	if err != nil {
		return err
	}
	return o.print(name, r)
}

func (o *nodeActionOptions) print(name string, r api.NodeResult) error {
	switch {
	case r.DryRun:
		o.f.hint("nothing was done (--dry-run)\n  %s", freesText(r, "would free"))
	default:
		o.f.hint("node %s %s", name, o.past)
	}
	if o.f.format == formatTable || o.f.format == formatWide {
		return printList(o.f, nodeSheet, []api.Node{r.Node}, nil)
	}
	if o.f.quiet || o.f.format == formatName {
		return printOne(o.f, nodeSheet, r.Node)
	}
	return writeObject(o.f, r)
}

func freesText(r api.NodeResult, verb string) string {
	if r.Count == 0 {
		return "it " + verb + " no uid: none waits for this node alone"
	}
	uids := "uids"
	if r.Count == 1 {
		uids = "uid"
	}
	return fmt.Sprintf("it %s %d %s: %s", verb, r.Count, uids, r.Frees)
}

// nodeName is the node named, or the agent's own.
func nodeName(ctx context.Context, c *api.Client, args []string) (string, error) {
	if len(args) > 0 {
		return args[0], nil
	}
	st, err := c.Status(ctx)
	return st.Node, err
}
