package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/problem"
)

func init() { clusterCommands = append(clusterCommands, newClusterAdoptCmd) }

type adoptRestore struct {
	f       *clusterFactory
	words   leases.AdoptOptions
	resolve []string
	dryRun  bool
	yes     bool
	noWait  bool
}

func newClusterAdoptCmd(f *clusterFactory) *cobra.Command {
	o := &adoptRestore{f: f}
	cmd := &cobra.Command{
		Use:   "adopt-restore [--dry-run | --yes]",
		Short: "Go on with an etcd that was restored from a backup",
		Long: `After etcd was restored, agents grant nothing: what was granted since the snapshot is
missing in it. This begins a new epoch: every node says what it holds, from its
journal and from what runs on it, and when all have spoken granting resumes.

The plan is shown first; without --yes that is all. Nodes that were registered since
the snapshot are unknown to this etcd: name each with --node, so that it is waited
for. A machine that is off for good is named with --fence, which takes a --reason.
What two nodes know differently, and no revision decides, is shown with both sides;
--resolve KEY=NODE takes the word of one.

Interrupted, the same command goes on. While nodes are waited for, more words can be
given with it from another terminal.`,
		Args: cobra.NoArgs,
		RunE: runs(o.run),
	}
	f.addEtcd(cmd)
	flags := cmd.Flags()
	flags.BoolVar(&o.dryRun, "dry-run", false, "show the plan, or how far it is, and do nothing")
	flags.BoolVar(&o.yes, "yes", false, "do it")
	flags.StringSliceVar(&o.words.Nodes, "node", nil, "wait for this node, although etcd does not know it (repeatable)")
	flags.StringSliceVar(&o.words.Fence, "fence", nil, "do not wait for this node: its machine is off (repeatable)")
	flags.StringVar(&o.words.Reason, "reason", "", "why, shown to whoever asks")
	flags.StringSliceVar(&o.resolve, "resolve", nil, "KEY=NODE: take this node's word on a disputed key, such as uid/70012=n3 (repeatable)")
	flags.BoolVar(&o.noWait, "no-wait", false, "begin, and do not wait for the nodes")
	return cmd
}

func (o *adoptRestore) run(ctx context.Context, _ []string) error {
	if o.dryRun && o.yes {
		return usage("--dry-run does nothing, --yes does it: give one of them")
	}
	o.words.By = fmt.Sprintf("unix:%d", os.Getuid())
	o.words.Resolve = map[string]string{}
	for _, r := range o.resolve {
		key, node, ok := strings.Cut(r, "=")
		if !ok || key == "" || cluster.ValidName(node) != nil {
			return usage("--resolve %q: want KEY=NODE, such as uid/70012=n3", r)
		}
		o.words.Resolve[key] = node
	}
	client, err := o.f.open(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	r, err := leases.Restored(ctx, client)
	if err != nil {
		return err
	}
	if err := r.Check(o.words); err != nil {
		return err
	}
	if r.Meta.State == cluster.StateNormal && o.dryRun {
		o.f.hint("the cluster is normal: no agent has seen etcd go back in time")
	}
	if err := o.print(r); err != nil {
		return err
	}
	if !o.yes {
		o.f.hint("nothing was done\n  %s", o.next(r))
		return nil
	}
	if err := leases.Adopt(ctx, client, o.words); err != nil {
		return err
	}
	if o.noWait {
		o.f.hint("begun; the nodes go on by themselves\n  how far it is:  poolctl cluster adopt-restore --dry-run")
		return nil
	}
	return o.wait(ctx, client)
}

// next is what to type after a plan.
func (o *adoptRestore) next(r *leases.Restore) string {
	if r.Adopting() {
		return "to wait for it, or to add words to it:  poolctl cluster adopt-restore --yes"
	}
	return "were nodes registered since the snapshot? name them:  poolctl cluster adopt-restore --node NAME … --yes\n  else:  poolctl cluster adopt-restore --yes"
}

// restoreView is the plan, or how far it is, as json and yaml show it.
type restoreView struct {
	Epoch     uint64            `json:"epoch"`
	State     string            `json:"state"`
	Adopting  bool              `json:"adopting"`
	ClusterID string            `json:"cluster_id"`
	Revision  int64             `json:"revision"`
	Reason    string            `json:"reason"`
	By        string            `json:"by"`
	Since     *time.Time        `json:"since"`
	Claims    int               `json:"claims"`
	Nodes     []restoreNodeView `json:"nodes"`
	WaitsFor  []restoreWait     `json:"waits_for"`
	Conflicts []leases.Conflict `json:"conflicts"`
}

type restoreWait struct {
	Node string `json:"node"`
	Why  string `json:"why"`
}

type restoreNodeView struct {
	Name     string `json:"name"`
	State    string `json:"state"`
	Part     string `json:"part"`
	Spoke    bool   `json:"spoke"`
	Known    int    `json:"known"`
	Asserted int    `json:"asserted"`
	Foreign  int    `json:"foreign"`
}

func viewOf(r *leases.Restore, o leases.AdoptOptions) restoreView {
	v := restoreView{
		Epoch: r.Meta.Number, State: r.Meta.State, Adopting: r.Adopting(), ClusterID: fmt.Sprintf("%x", r.ClusterID), Revision: r.Revision,
		Reason: r.Meta.Reason, By: r.Meta.By, Claims: r.Claims, Nodes: []restoreNodeView{}, WaitsFor: []restoreWait{}, Conflicts: []leases.Conflict{},
	}
	if !r.Meta.Since.IsZero() {
		v.Since = &r.Meta.Since
	}
	for _, n := range r.Nodes {
		one := restoreNodeView{Name: n.Name, State: n.State, Part: "waited for"}
		switch {
		case slices.Contains(o.Fence, n.Name), !n.Void && n.State == "fenced" && r.Adopting(), !n.Void && n.State == "left" && r.Adopting():
			one.Part = "not waited for"
		case n.Said != nil:
			one.Part, one.Spoke, one.Known, one.Asserted, one.Foreign = "has spoken", true, n.Said.Journal, n.Said.Asserted, n.Said.Foreign
		case n.Void:
			one.Part = "waited for: " + n.State + " before the restore, which is void"
		}
		v.Nodes = append(v.Nodes, one)
	}
	for _, name := range slices.Concat(r.Meta.Expect, o.Nodes) {
		if !slices.ContainsFunc(v.Nodes, func(n restoreNodeView) bool { return n.Name == name }) {
			v.Nodes = append(v.Nodes, restoreNodeView{Name: name, State: "unknown", Part: "waited for: named by you"})
		}
	}
	for _, w := range r.Waits {
		v.WaitsFor = append(v.WaitsFor, restoreWait{w.Node, w.Why})
	}
	v.Conflicts = append(v.Conflicts, r.Conflicts...)
	return v
}

func (o *adoptRestore) print(r *leases.Restore) error {
	v := viewOf(r, o.words)
	f := o.f
	if f.format != formatTable && f.format != formatWide && f.format != formatName && !f.quiet {
		return writeObject(f.Factory, v)
	}
	w := tabwriter.NewWriter(f.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "cluster:\t%s, revision %d, %d ids taken\n", v.ClusterID, v.Revision, v.Claims)
	what := v.State
	if v.Reason != "" {
		what += ": " + v.Reason
	}
	if v.By != "" {
		what += " (" + v.By + ")"
	}
	fmt.Fprintf(w, "epoch:\t%d, %s\n", v.Epoch, flat(what))
	if !v.Adopting {
		fmt.Fprintf(w, "new epoch:\t%d\n", v.Epoch+1)
	}
	fmt.Fprintf(w, "\nNODE\tSTATE\tPART\tKNOWN\tASSERTED\tFOREIGN\n")
	for _, n := range v.Nodes {
		counts := "\t\t"
		if n.Spoke {
			counts = fmt.Sprintf("%d\t%d\t%d", n.Known, n.Asserted, n.Foreign)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", flat(n.Name), flat(n.State), flat(n.Part), counts)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, c := range v.Conflicts {
		fmt.Fprint(f.Out, conflictText(c))
	}
	return nil
}

func conflictText(c leases.Conflict) string {
	other := c.Theirs.Node
	if other == "" && len(c.Theirs.Nodes) > 0 {
		other = c.Theirs.Nodes[0]
	}
	if other == "" {
		other = "NODE"
	}
	return fmt.Sprintf("\ndisputed: %s: %s\n  %s\n  %s\n  take one:  poolctl cluster adopt-restore --yes --resolve %s=%s    or  --resolve %s=%s\n",
		flat(c.Short()), flat(c.Why), flat(c.Ours.String()), flat(c.Theirs.String()), flat(c.Short()), flat(c.Ours.Node), flat(c.Short()), flat(other))
}

// wait shows how far the nodes are until the cluster is normal.
func (o *adoptRestore) wait(ctx context.Context, client *cluster.Client) error {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	told := map[string]bool{}
	say := func(text string) {
		if !told[text] {
			told[text] = true
			o.f.hint("%s", text)
		}
	}
	failing := 0
	for {
		r, err := leases.Progress(ctx, client)
		switch {
		case err == nil:
			failing = 0
			o.tell(r, say)
			if done, err := leases.Resume(ctx, client, r); done || err != nil {
				if done {
					o.f.hint("granting resumes: epoch %d", r.Meta.Number)
				}
				return err
			}
		case problem.CodeOf(err) != problem.CodeUnavailable || failing > 3:
			return err
		default:
			failing++
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return problem.New(problem.CodeUnavailable, "not waited for any longer; the nodes go on by themselves").
				Advise("to wait for it again", "poolctl cluster adopt-restore --yes")
		}
	}
}

// tell says what is new, each thing once.
func (o *adoptRestore) tell(r *leases.Restore, say func(string)) {
	for _, n := range r.Nodes {
		if n.Said != nil {
			say(fmt.Sprintf("%s has spoken: it knew %d keys, %d of them it put right, and %d ids were in use there that nobody had granted", flat(n.Name), n.Said.Journal, n.Said.Asserted, n.Said.Foreign))
		}
	}
	for _, w := range r.Waits {
		say(fmt.Sprintf("waits for %s: %s", flat(w.Node), flat(w.Why)))
	}
	for _, c := range r.Conflicts {
		say(strings.TrimSpace(conflictText(c)))
	}
}
