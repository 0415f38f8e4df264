package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/idpool/idpool/api"
)

func newPoolCmd(f *Factory) *cobra.Command {
	cmd := &cobra.Command{Use: "pool", Short: "Define uid pools", Args: cobra.NoArgs, RunE: needsSubcommand}
	cmd.AddCommand(newPoolSetCmd(f), newPoolShowCmd(f), newPoolListCmd(f), newPoolDeleteCmd(f), newPoolCheckCmd(f), newPoolSuggestCmd(f))
	return cmd
}

func newPoolShowCmd(f *Factory) *cobra.Command {
	return &cobra.Command{
		Use:   "show NAME",
		Short: "Show a pool, its policy and its counts",
		Args:  one("NAME"),
		RunE: runs(func(ctx context.Context, args []string) error {
			c, err := f.Client()
			if err != nil {
				return err
			}
			p, err := c.Pools().Get(ctx, args[0])
			if err != nil {
				return err
			}
			return f.printPool(p)
		}),
	}
}

func newPoolListCmd(f *Factory) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List pools",
		Args:    cobra.NoArgs,
		RunE: runs(func(ctx context.Context, _ []string) error {
			c, err := f.Client()
			if err != nil {
				return err
			}
			pools, err := c.Pools().List(ctx)
			if err != nil {
				return err
			}
			if len(pools) == 0 {
				f.hint("%s", noPool().Text())
			}
			return printList(f, poolSheet, pools, nil)
		}),
	}
}

func newPoolDeleteCmd(f *Factory) *cobra.Command {
	return &cobra.Command{
		Use:   "delete NAME",
		Short: "Delete a pool that nothing is held from",
		Args:  one("NAME"),
		RunE: runs(func(ctx context.Context, args []string) error {
			c, err := f.Client()
			if err != nil {
				return err
			}
			if err := c.Pools().Delete(ctx, args[0]); err != nil {
				return err
			}
			f.hint("pool %s deleted", args[0])
			return nil
		}),
	}
}

// printPool writes a pool to stdout and its warnings to stderr.
func (f *Factory) printPool(p api.Pool) error {
	if f.quiet || f.format == formatTable || f.format == formatWide || f.format == formatName {
		f.warn(p.Warnings) // else they stand in the object
	}
	return printOne(f, poolSheet, p)
}

// warn writes what is worth knowing though nothing was refused.
func (f *Factory) warn(warnings []string) {
	for _, w := range warnings {
		f.say("warning: %s", w)
	}
}
