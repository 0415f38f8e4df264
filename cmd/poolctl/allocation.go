package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/idpool/idpool/api"
)

func newAllocationCmd(f *Factory) *cobra.Command {
	cmd := &cobra.Command{
		Use: "allocation", Short: "Uids and VLANs together, under one key", Args: cobra.NoArgs, RunE: needsSubcommand,
	}
	cmd.AddCommand(newAllocationCreateCmd(f), newAllocationShowCmd(f), newAllocationListCmd(f), newAllocationDeleteCmd(f))
	return cmd
}

func newAllocationCreateCmd(f *Factory) *cobra.Command {
	var holder string
	cmd := &cobra.Command{
		Use:   "create KEY ITEM…",
		Short: "Get any mix of uids and VLANs, all or none",
		Long: `Get any mix of uids and VLANs in one step, all or none. They are yours until the
allocation is deleted. The same command again returns the same ids.

ITEM is uid:POOL, uid:POOL*N for N uids, vlan:INVENTORY, or vlan:INVENTORY=NAME.`,
		Example: `  poolctl allocation create job-4711 uid:jobs*2 vlan:fabric-a=north vlan:fabric-b=south`,
		Args: func(_ *cobra.Command, args []string) error {
			switch len(args) {
			case 0:
				return usage("which KEY and ITEMs? none was named")
			case 1:
				return usage("allocation %s of what? name ITEMs such as uid:POOL*2 or vlan:INVENTORY", args[0])
			}
			return nil
		},
		RunE: runs(func(ctx context.Context, args []string) error {
			r := api.AllocationRequest{Key: args[0], Holder: holder}
			for _, word := range args[1:] {
				w, err := parseItem(word)
				if err != nil {
					return err
				}
				r.Items = append(r.Items, w)
			}
			c, err := f.Client()
			if err != nil {
				return err
			}
			a, err := c.Allocations().Create(ctx, r)
			if err != nil {
				return err
			}
			again := ""
			if !a.Changed {
				again = ", as before,"
			}
			f.hint("allocation %s: yours%s until you delete it; token %s\n  give back:  poolctl allocation delete %s", a.Key, again, a.Token, a.Key)
			return f.printAllocation(a)
		}),
	}
	cmd.Flags().StringVar(&holder, "holder", "", "what others are shown as the holder")
	return cmd
}

// parseItem reads uid:POOL[*N] or vlan:INVENTORY[=NAME].
func parseItem(word string) (api.AllocationWant, error) {
	bad := func(why string) (api.AllocationWant, error) {
		return api.AllocationWant{}, usage("item %q %s", word, why).
			Advise("uids", "uid:POOL or uid:POOL*N").
			Advise("a VLAN", "vlan:INVENTORY or vlan:INVENTORY=NAME")
	}
	kind, rest, _ := strings.Cut(word, ":")
	switch kind {
	case "uid":
		pool, count, counted := strings.Cut(rest, "*")
		w := api.AllocationWant{UIDPool: pool}
		if counted {
			n, err := strconv.ParseUint(count, 10, 32)
			if err != nil || n < 1 || n > api.MaxCount {
				return bad(fmt.Sprintf("is for %q uids: want 1 to %d", count, api.MaxCount))
			}
			w.Count = uint32(n)
		}
		if pool == "" {
			return bad("names no pool")
		}
		return w, nil
	case "vlan":
		inventory, name, named := strings.Cut(rest, "=")
		if inventory == "" || named && name == "" {
			return bad("names no inventory, or ends with =")
		}
		return api.AllocationWant{VLANInventory: inventory, Name: name}, nil
	}
	return bad("is neither a uid nor a vlan")
}

// printAllocation writes one allocation. Quiet, it is its bare ids, a line each.
func (f *Factory) printAllocation(a api.Allocation) error {
	if !f.quiet {
		return printOne(f, allocationSheet, a)
	}
	for _, i := range a.Items {
		id := i.UID
		if id == nil {
			id = i.VID
		}
		if id == nil {
			continue
		}
		if _, err := fmt.Fprintln(f.Out, uidText(*id)); err != nil {
			return err
		}
	}
	return nil
}

func newAllocationShowCmd(f *Factory) *cobra.Command {
	return &cobra.Command{
		Use:   "show KEY",
		Short: "Show what a key of yours stands for",
		Args:  one("KEY"),
		RunE: runs(func(ctx context.Context, args []string) error {
			c, err := f.Client()
			if err != nil {
				return err
			}
			a, err := c.Allocations().Get(ctx, args[0])
			if err != nil {
				return err
			}
			return f.printAllocation(a)
		}),
	}
}

func newAllocationListCmd(f *Factory) *cobra.Command {
	var filter api.AllocationFilter
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List what allocation keys stand for, also those of single uids and VLANs",
		Args:    cobra.NoArgs,
		RunE: runs(func(ctx context.Context, _ []string) error {
			c, err := f.Client()
			if err != nil {
				return err
			}
			all, err := collect(c.Allocations().List(ctx, filter))
			if err != nil {
				return err
			}
			if len(all) == 0 {
				f.hint("no key stands for anything")
			}
			return printList(f, allocationSheet, all, nil)
		}),
	}
	cmd.Flags().StringVar(&filter.Holder, "holder", "", "only those of this holder")
	cmd.Flags().StringVar(&filter.Caller, "caller", "", "only those of this caller, such as unix:1000")
	return cmd
}

func newAllocationDeleteCmd(f *Factory) *cobra.Command {
	return &cobra.Command{
		Use:   "delete KEY",
		Short: "Give back all that a key stands for",
		Args:  one("KEY"),
		RunE: runs(func(ctx context.Context, args []string) error {
			c, err := f.Client()
			if err != nil {
				return err
			}
			a, err := c.Allocations().Delete(ctx, args[0])
			if err != nil {
				return err
			}
			if !a.Changed {
				f.hint("the grant of key %s is over already; nothing was left to do", args[0])
				a.Key, a.Items = args[0], []api.AllocationItem{}
			} else {
				f.hint("allocation %s deleted: %s given back", a.Key, itemsText(a))
			}
			if f.format == formatTable || f.format == formatWide {
				return nil
			}
			return f.printAllocation(a)
		}),
	}
}
