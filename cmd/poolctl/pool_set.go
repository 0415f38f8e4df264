package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/uidpool"
)

type poolSetOptions struct {
	f                       *Factory
	name                    string
	ranges                  *string // nil: left away, which is not the same as ""
	add, remove             string
	exclude                 string
	separator               string
	policy                  api.PoolPolicy
	removeIPC, clearKeyring bool
	dryRun                  bool
	// excluded tells that --exclude was given, if only to end an exclusion.
	excluded bool
}

var (
	poolScopes = []string{"cluster", "node"}
	poolOrders = []string{"random", "lowest", "rotate"}
	poolProofs = []string{"holders", "cluster", "none"}
)

// oneOf refuses a value that is given and none of the words.
func oneOf(flag, value string, words []string) error {
	if value == "" || slices.Contains(words, value) {
		return nil
	}
	return usage("%s %q is none of %s", flag, value, strings.Join(words, ", "))
}

func newPoolSetCmd(f *Factory) *cobra.Command {
	o := &poolSetOptions{f: f}
	cmd := &cobra.Command{
		Use:   "set NAME [RANGES|-]",
		Short: "Create or change a pool",
		Long: `Create a pool, or change what is named and leave the rest as it is. RANGES "-"
reads them from stdin; RANGES "" makes a pool without uids, which is not the same
as leaving them away. Given together, --add comes first, then --remove, then
RANGES replace what is there. Shrinking a pool touches nothing that is held.`,
		Example: `  poolctl uid pool set jobs 70000-79999 --reclaim after=1h
  poolctl uid pool set jobs --add 80000-80999 --dry-run`,
		Args: o.args,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.excluded = cmd.Flags().Changed("exclude")
			if cmd.Flags().Changed("remove-ipc") {
				o.policy.RemoveIPC = &o.removeIPC
			}
			if cmd.Flags().Changed("clear-keyring") {
				o.policy.ClearKeyring = &o.clearKeyring
			}
			return runs(o.run)(cmd, args)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.add, "add", "", "add these ranges")
	flags.StringVar(&o.remove, "remove", "", "take these ranges away")
	flags.StringVar(&o.exclude, "exclude", "", "never grant these uids of the ranges")
	flags.StringVar(&o.separator, "separator", uidpool.ParseSeparator, "what separates ranges")
	flags.StringVar(&o.policy.Scope, "scope", "", "cluster (default) or node: whether a uid has one holder everywhere or one a node")
	flags.StringVar(&o.policy.Order, "order", "", "random (default), lowest or rotate")
	flags.StringVar(&o.policy.Proof, "proof", "", "holders (default), cluster or none: who must prove a uid unused")
	flags.StringVar(&o.policy.Cooldown, "cooldown", "", "keep a released uid back for this long (default 0)")
	flags.StringVar(&o.policy.Reclaim, "reclaim", "", "when-needed (default), never or after=DURATION: uids whose process is gone")
	flags.StringVar(&o.policy.ScanAge, "scan-age", "", "how old the scan behind a hand-out may be (default 0: its own)")
	flags.Uint32Var(&o.policy.Block, "block", 0, "uids that a grant takes, aligned (default 1)")
	flags.StringVar(&o.policy.LowWater, "low-water", "", "call the pool low below this count or percentage (default 10%)")
	flags.BoolVar(&o.removeIPC, "remove-ipc", false, "remove what released uids left in System V IPC, shared memory and message queues")
	flags.BoolVar(&o.clearKeyring, "clear-keyring", false, "clear the user keyrings of released uids")
	flags.BoolVar(&o.dryRun, "dry-run", false, "say what would be stored, store nothing")
	choices(cmd, "scope", poolScopes...)
	choices(cmd, "order", poolOrders...)
	choices(cmd, "proof", poolProofs...)
	choices(cmd, "reclaim", "when-needed", "never", "after=1h")
	return cmd
}

func (o *poolSetOptions) args(_ *cobra.Command, args []string) error {
	switch len(args) {
	case 0:
		return usage("which NAME? none was named")
	case 1, 2:
		return nil
	}
	return usage("%d words after the pool's name: RANGES are one, so quote blanks or leave them away", len(args)-1).
		Advise("so", "poolctl uid pool set %s %s", args[0], strings.Join(args[1:], ","))
}

func (o *poolSetOptions) run(ctx context.Context, args []string) error {
	o.name = args[0]
	if len(args) == 2 {
		value, err := readDefinition(args[1], o.separator, o.f.In)
		if err != nil {
			return inFlag("pool "+o.name+" not stored", err)
		}
		o.ranges = &value
	}
	patch, warnings, err := o.patch()
	if err != nil {
		return inFlag("pool "+o.name+" not stored", err)
	}
	c, err := o.f.Client()
	if err != nil {
		return err
	}
	stored, err := o.store(ctx, c, patch)
	if err != nil {
		return err
	}
	if o.dryRun {
		o.f.hint("nothing was stored (--dry-run); this would be")
	}
	stored.Warnings = append(newWarnings(warnings, stored.Warnings), stored.Warnings...)
	o.tellOutside(stored)
	return o.f.printPool(stored)
}

// tellOutside says what became of uids that the ranges no longer have.
func (o *poolSetOptions) tellOutside(stored api.Pool) {
	switch n := stored.Counts["outside"]; {
	case n == 0:
	case o.dryRun:
		o.f.hint("%s then outside the pool: their holders keep them", heldText(n))
	default:
		o.f.hint("%s outside the pool now: their holders keep them, and they are not granted again\n"+
			"  look:  poolctl uid list --pool %s", heldText(n), o.name)
	}
}

func heldText(n uint64) string {
	if n == 1 {
		return "1 uid that is held or waits is"
	}
	return fmt.Sprintf("%d uids that are held or wait are", n)
}

// patch is the change as it is sent, and what this host warns of.
func (o *poolSetOptions) patch() (api.PoolPatch, []string, error) {
	p := api.PoolPatch{PoolPolicy: o.policy}
	if o.ranges == nil && o.add == "" && o.remove == "" && !o.excluded && o.policy == (api.PoolPolicy{}) {
		return p, nil, usage("nothing to change was named").
			Advise("a new pool", "poolctl uid pool set %s RANGES", o.name).
			Advise("more uids", "poolctl uid pool set %s --add RANGES", o.name)
	}
	if err := oneOf("--scope", o.policy.Scope, poolScopes); err != nil {
		return p, nil, err
	}
	if err := oneOf("--order", o.policy.Order, poolOrders); err != nil {
		return p, nil, err
	}
	if err := oneOf("--proof", o.policy.Proof, poolProofs); err != nil {
		return p, nil, err
	}
	exclude, err := parseRanges("--exclude", o.exclude, o.separator)
	if err != nil {
		return p, nil, err
	}
	if o.excluded {
		normal := idset.Of(exclude...).String()
		p.Exclude = &normal
	}
	remove, err := parseRanges("--remove", o.remove, o.separator)
	if err != nil {
		return p, nil, err
	}
	p.Remove = idset.Of(remove...).String()
	added, err := define(o.add, o.separator, exclude)
	if err != nil {
		return p, nil, inFlag("--add", err)
	}
	p.Add = added.normal
	warnings := added.warnings
	if o.ranges != nil {
		d, err := define(*o.ranges, o.separator, exclude)
		if err != nil {
			return p, nil, err
		}
		p.Ranges = &d.normal
		warnings = d.warnings
	}
	return p, warnings, nil
}

// store changes the pool, or creates it where ranges say of what. Add and
// remove have nothing to work on then, and ranges win over them anyway.
func (o *poolSetOptions) store(ctx context.Context, c *api.Client, patch api.PoolPatch) (api.Pool, error) {
	write := api.WriteOptions{DryRun: o.dryRun}
	stored, err := c.Pools().Patch(ctx, o.name, patch, write)
	if !errors.Is(err, problem.ErrNotFound) {
		return stored, err
	}
	if patch.Ranges == nil {
		return stored, problem.New(problem.CodeNotFound, "pool %s not changed: there is no pool of that name", o.name).
			Advise("create it", "poolctl uid pool set %s RANGES", o.name)
	}
	fresh := api.Pool{Name: o.name, Ranges: *patch.Ranges, PoolPolicy: patch.PoolPolicy}
	if patch.Exclude != nil {
		fresh.Exclude = *patch.Exclude
	}
	return c.Pools().Put(ctx, fresh, write)
}

// newWarnings are those of ours that the agent does not give as well.
func newWarnings(ours, agents []string) []string {
	known := make(map[string]bool, len(agents))
	for _, w := range agents {
		known[w] = true
	}
	var out []string
	for _, w := range ours {
		if !known[w] {
			out = append(out, w)
		}
	}
	return out
}
