package main

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/idpool/idpool/api"
)

// findingsCode is what check exits with when there is something to look at.
const findingsCode = 3

type checkOptions struct {
	f      *Factory
	repair bool
	yes    bool
}

func newCheckCmd(f *Factory) *cobra.Command {
	o := &checkOptions{f: f}
	cmd := &cobra.Command{
		Use:   "check",
		Short: "List what a person should look at; exit code 3 if there is anything",
		Long: `List what does not fit together, waits for somebody or was forgotten, each with
the command to type next.

--repair shows which keys of etcd it would delete, those that nothing rests on, and
with --yes deletes them, each only while it stands as it was found.`,
		Args: cobra.NoArgs,
		RunE: runs(o.run),
	}
	cmd.Flags().BoolVar(&o.repair, "repair", false, "show what can be mended without a person's judgement")
	cmd.Flags().BoolVar(&o.yes, "yes", false, "with --repair: do it")
	return cmd
}

func (o *checkOptions) run(ctx context.Context, _ []string) error {
	if o.yes && !o.repair {
		return usage("--yes goes with --repair")
	}
	c, err := o.f.Client()
	if err != nil {
		return err
	}
	if o.repair {
		return o.mend(ctx, c)
	}
	found, err := c.Check(ctx)
	if err != nil {
		return err
	}
	if err := printList(o.f, findingSheet, found, nil); err != nil {
		return err
	}
	if len(found) > 0 {
		return exitError{code: findingsCode}
	}
	o.f.hint("nothing to look at")
	return nil
}

var repairSheet = sheet[api.Repair]{
	kind: "repair",
	id:   func(r api.Repair) string { return r.Key },
	columns: []column[api.Repair]{
		{head: "ACTION", cell: func(r api.Repair) string { return r.Action }},
		{head: "KEY", cell: func(r api.Repair) string { return strconv.Quote(r.Key) }},
		{head: "REVISION", cell: func(r api.Repair) string { return strconv.FormatInt(r.Revision, 10) }},
		{head: "DONE", cell: func(r api.Repair) string { return map[bool]string{true: "yes", false: "no"}[r.Done] }},
		{head: "WHY", cell: func(r api.Repair) string { return r.Why }},
	},
}

func (o *checkOptions) mend(ctx context.Context, c *api.Client) error {
	plan, err := c.RepairPlan(ctx)
	if err != nil {
		return err
	}
	if len(plan) == 0 {
		o.f.hint("nothing to repair without a person's judgement; see  poolctl check")
		return printList(o.f, repairSheet, plan, nil)
	}
	if !o.yes {
		if err := printList(o.f, repairSheet, plan, nil); err != nil {
			return err
		}
		o.f.hint("nothing was done; to do it:  poolctl check --repair --yes")
		return exitError{code: findingsCode}
	}
	done, err := c.Repair(ctx, plan)
	if err != nil {
		return err
	}
	if err := printList(o.f, repairSheet, done, nil); err != nil {
		return err
	}
	for _, r := range done {
		if !r.Done {
			return exitError{code: findingsCode}
		}
	}
	return nil
}
