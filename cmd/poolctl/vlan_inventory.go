package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/problem"
)

func newInventoryCmd(f *Factory) *cobra.Command {
	cmd := &cobra.Command{Use: "inventory", Short: "Define VLAN inventories", Args: cobra.NoArgs, RunE: needsSubcommand}
	cmd.AddCommand(newInventorySetCmd(f), newInventoryShowCmd(f), newInventoryListCmd(f), newInventoryDeleteCmd(f), newInventoryImportCmd(f), newInventoryExportCmd(f))
	return cmd
}

type inventorySetOptions struct {
	f        *Factory
	name     string
	patch    api.InventoryPatch
	exclude  string
	dryRun   bool
	excluded bool // --exclude was given, if only to end an exclusion
}

func newInventorySetCmd(f *Factory) *cobra.Command {
	o := &inventorySetOptions{f: f}
	cmd := &cobra.Command{
		Use:   "set NAME [RANGES|-]|--file PATH --on NODE",
		Short: "Create or change an inventory",
		Long: `Create an inventory, or change what is named and leave the rest as it is. RANGES "-"
reads them from stdin; RANGES "" makes an inventory without VLANs, which is not the
same as leaving them away. Given together, --add comes first, then --remove, then
RANGES replace what is there. Shrinking an inventory touches nothing that is held.

With --file the VLANs stay in a pool file that other programs may use too; the agent
of node --on reads and writes it.`,
		Example: `  poolctl vlan inventory set fabric-a 100-199 --cooldown 10m
  poolctl vlan inventory set fabric-a --add 300-399 --dry-run
  poolctl vlan inventory set legacy --file /srv/vlans.json --on n1`,
		Args: o.args,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.excluded = cmd.Flags().Changed("exclude")
			return runs(o.run)(cmd, args)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.patch.Add, "add", "", "add these ranges")
	flags.StringVar(&o.patch.Remove, "remove", "", "take these ranges away")
	flags.StringVar(&o.exclude, "exclude", "", "never grant these VLANs of the ranges")
	flags.StringVar(&o.patch.Order, "order", "", "lowest (default), random or rotate")
	flags.StringVar(&o.patch.Cooldown, "cooldown", "", "keep a released VLAN back for this long (default 10m)")
	flags.StringVar(&o.patch.LowWater, "low-water", "", "call the inventory low below this count or percentage (default 10%)")
	flags.StringVar(&o.patch.File, "file", "", "the VLANs are in this pool file, an absolute path")
	flags.StringVar(&o.patch.On, "on", "", "the node whose agent reads and writes the file")
	flags.StringVar(&o.patch.Settle, "settle", "", "how long an interrupted write of the file may still appear (default 0)")
	flags.BoolVar(&o.dryRun, "dry-run", false, "say what would be stored, store nothing")
	choices(cmd, "order", poolOrders...)
	return cmd
}

func (o *inventorySetOptions) args(_ *cobra.Command, args []string) error {
	switch len(args) {
	case 0:
		return usage("which NAME? none was named")
	case 1, 2:
		return nil
	}
	return usage("%d words after the inventory's name: RANGES are one, so quote blanks or leave them away", len(args)-1).
		Advise("so", "poolctl vlan inventory set %s %s", args[0], strings.Join(args[1:], ","))
}

func (o *inventorySetOptions) run(ctx context.Context, args []string) error {
	o.name = args[0]
	if len(args) == 2 {
		value, err := readDefinition(args[1], ",", o.f.In)
		if err != nil {
			return inFlag("inventory "+o.name+" not stored", err)
		}
		o.patch.Ranges = &value
	}
	if o.excluded {
		o.patch.Exclude = &o.exclude
	}
	if o.patch == (api.InventoryPatch{}) {
		return usage("nothing to change was named").
			Advise("a new inventory", "poolctl vlan inventory set %s RANGES", o.name).
			Advise("more VLANs", "poolctl vlan inventory set %s --add RANGES", o.name)
	}
	if err := oneOf("--order", o.patch.Order, poolOrders); err != nil {
		return inFlag("inventory "+o.name+" not stored", err)
	}
	c, err := o.f.Client()
	if err != nil {
		return err
	}
	stored, err := o.store(ctx, c)
	if err != nil {
		return err
	}
	if o.dryRun {
		o.f.hint("nothing was stored (--dry-run); this would be")
	}
	if n := stored.Counts[api.StateOutside]; n > 0 && stored.File == "" {
		o.f.hint("%d of its VLANs that are held or wait are outside its ranges: their holders keep them, and they are not granted again\n"+
			"  look:  poolctl vlan list %s", n, o.name)
	}
	return o.f.printInventory(stored)
}

// store changes the inventory, or creates it where ranges or a file say of what.
func (o *inventorySetOptions) store(ctx context.Context, c *api.Client) (api.Inventory, error) {
	write := api.WriteOptions{DryRun: o.dryRun}
	stored, err := c.Inventories().Patch(ctx, o.name, o.patch, write)
	if !errors.Is(err, problem.ErrNotFound) {
		return stored, err
	}
	p := o.patch
	if p.Ranges == nil && p.File == "" {
		return stored, problem.New(problem.CodeNotFound, "inventory %s not changed: there is no inventory of that name", o.name).
			Advise("create it", "poolctl vlan inventory set %s RANGES", o.name)
	}
	fresh := api.Inventory{Name: o.name, InventoryPolicy: p.InventoryPolicy, File: p.File, On: p.On, Settle: p.Settle}
	if p.Ranges != nil {
		fresh.Ranges = *p.Ranges
	}
	if p.Exclude != nil {
		fresh.Exclude = *p.Exclude
	}
	return c.Inventories().Put(ctx, fresh, write)
}

// printInventory writes an inventory to stdout and its warnings to stderr.
func (f *Factory) printInventory(i api.Inventory) error {
	if f.quiet || f.format == formatTable || f.format == formatWide || f.format == formatName {
		f.warn(i.Warnings) // else they stand in the object
	}
	return printOne(f, inventorySheet, i)
}

func newInventoryShowCmd(f *Factory) *cobra.Command {
	return &cobra.Command{
		Use:   "show NAME",
		Short: "Show an inventory, its policy and its counts",
		Args:  one("NAME"),
		RunE: runs(func(ctx context.Context, args []string) error {
			c, err := f.Client()
			if err != nil {
				return err
			}
			i, err := c.Inventories().Get(ctx, args[0])
			if err != nil {
				return err
			}
			return f.printInventory(i)
		}),
	}
}

func newInventoryListCmd(f *Factory) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List inventories",
		Args:    cobra.NoArgs,
		RunE: runs(func(ctx context.Context, _ []string) error {
			c, err := f.Client()
			if err != nil {
				return err
			}
			all, err := c.Inventories().List(ctx)
			if err != nil {
				return err
			}
			if len(all) == 0 {
				f.hint("there is no VLAN inventory yet\n  make one:  poolctl vlan inventory set NAME RANGES")
			}
			return printList(f, inventorySheet, all, nil)
		}),
	}
}

func newInventoryDeleteCmd(f *Factory) *cobra.Command {
	return &cobra.Command{
		Use:   "delete NAME",
		Short: "Delete an inventory that nothing is held from",
		Args:  one("NAME"),
		RunE: runs(func(ctx context.Context, args []string) error {
			c, err := f.Client()
			if err != nil {
				return err
			}
			if err := c.Inventories().Delete(ctx, args[0]); err != nil {
				return err
			}
			f.hint("inventory %s deleted", args[0])
			return nil
		}),
	}
}

func newInventoryExportCmd(f *Factory) *cobra.Command {
	keyed := false
	cmd := &cobra.Command{
		Use:   "export NAME",
		Short: "Write an inventory as a pool file",
		Long: `Write an inventory to stdout as a pool file (JSON), whatever -o says. What its ranges
leave out between their ends is in use there, since a file has one range.`,
		Args: one("NAME"),
		RunE: runs(func(ctx context.Context, args []string) error {
			c, err := f.Client()
			if err != nil {
				return err
			}
			raw, err := c.Inventories().Export(ctx, args[0], keyed)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(f.Out, strings.TrimSpace(string(raw)))
			return err
		}),
	}
	cmd.Flags().BoolVar(&keyed, "keyed", false, "with the allocation keys")
	return cmd
}
