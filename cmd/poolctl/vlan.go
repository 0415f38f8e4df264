package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/problem"
)

func init() {
	extraCommands = append(extraCommands, newVLANCmd, newAllocationCmd, newCheckCmd)
}

func newVLANCmd(f *Factory) *cobra.Command {
	cmd := &cobra.Command{Use: "vlan", Short: "VLAN inventories, single VLANs, and services that need several", Args: cobra.NoArgs, RunE: needsSubcommand}
	cmd.AddCommand(newInventoryCmd(f), newServiceCmd(f), newVLANListCmd(f), newVLANShowCmd(f), newVLANAllocateCmd(f), newVLANReleaseCmd(f))
	return cmd
}

// parseVID reads a VLAN id; which can be granted is the agent's to say.
func parseVID(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || s[0] == '+' || n > 4095 {
		return 0, usage("%q is no VLAN id: want a number from 1 to 4094", s)
	}
	return uint32(n), nil
}

// vidFlag is an optional VLAN id; nil while it is not given.
type vidFlag struct{ vid *uint32 }

// String is the value in decimal.
func (v *vidFlag) String() string {
	if v.vid == nil {
		return ""
	}
	return uidText(*v.vid)
}

// Type is what help calls the value.
func (v *vidFlag) Type() string { return "VID" }

// Set takes the value of the flag.
func (v *vidFlag) Set(s string) error {
	vid, err := parseVID(s)
	if err != nil {
		return err
	}
	v.vid = &vid
	return nil
}

var vlanParities = []string{"odd", "even"}

type vlanListOptions struct {
	f         *Factory
	inventory string
	filter    api.VLANFilter
	watch     watchFlags
}

func newVLANListCmd(f *Factory) *cobra.Command {
	o := &vlanListOptions{f: f}
	cmd := &cobra.Command{
		Use:     "list INVENTORY",
		Aliases: []string{"ls"},
		Short:   "List VLANs that are held or waiting",
		Args:    one("INVENTORY"),
		RunE:    runs(o.run),
	}
	flags := cmd.Flags()
	flags.StringVar(&o.filter.State, "state", "", "only this state: used, quarantined, locked, reserved or free")
	flags.StringVar(&o.filter.Holder, "holder", "", "only those of this holder")
	flags.StringVar(&o.filter.Key, "key", "", "only those of this allocation key")
	flags.StringVar(&o.filter.Service, "service", "", "only those of this service")
	flags.StringVar(&o.filter.VIDs, "vids", "", "only those of these ranges")
	o.watch.add(cmd)
	stateChoices(cmd)
	return cmd
}

func (o *vlanListOptions) run(ctx context.Context, args []string) error {
	o.inventory = args[0]
	c, err := o.f.Client()
	if err != nil {
		return err
	}
	fetch := func(ctx context.Context) ([]api.VLAN, error) {
		return collect(c.VLANs().List(ctx, o.inventory, o.filter))
	}
	empty := "no VLAN of " + o.inventory + " is held or waiting"
	if o.filter != (api.VLANFilter{}) {
		empty = "no VLAN of " + o.inventory + " is like that"
	}
	return watchable(ctx, o.f, o.watch, listing[api.VLAN]{
		sheet: vlanSheet, fetch: fetch, empty: empty, key: func(v api.VLAN) string { return uidText(v.VID) },
		gone: func(v api.VLAN) api.VLAN {
			return api.VLAN{Inventory: v.Inventory, VID: v.VID, State: api.StateFree, InInventory: v.InInventory}
		},
	})
}

func newVLANShowCmd(f *Factory) *cobra.Command {
	return &cobra.Command{
		Use:   "show INVENTORY VID",
		Short: "Show who has a VLAN, or what it waits for",
		Args:  two("INVENTORY", "VID"),
		RunE: runs(func(ctx context.Context, args []string) error {
			vid, err := parseVID(args[1])
			if err != nil {
				return err
			}
			c, err := f.Client()
			if err != nil {
				return err
			}
			v, err := c.VLANs().Get(ctx, args[0], vid)
			if err != nil {
				return err
			}
			return printOne(f, vlanSheet, v)
		}),
	}
}

// two wants two arguments, named as the usage line does.
func two(first, second string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch len(args) {
		case 0:
			return usage("which %s and %s? none was named", first, second)
		case 1:
			return usage("which %s? %s was named as %s and nothing after it", second, args[0], first)
		case 2:
			return nil
		}
		return usage("one %s and one %s, %d words were given", first, second, len(args))
	}
}

type vlanAllocateOptions struct {
	f   *Factory
	req api.VLANRequest
	vid vidFlag
}

func newVLANAllocateCmd(f *Factory) *cobra.Command {
	o := &vlanAllocateOptions{f: f}
	cmd := &cobra.Command{
		Use:   "allocate INVENTORY",
		Short: "Ask for a VLAN that nobody has; it is yours until you release it",
		Long: `Ask for a VLAN that nobody has. It is yours until it is released.

With --key the same request can be sent again and returns the same VLAN. VLANs that
belong together, or have to go when something fails, are a service's: see "vlan
service create".`,
		Example: `  vid=$(poolctl -q vlan allocate fabric-a --key edge-7)
  poolctl vlan allocate fabric-a --from 100-199 --parity even`,
		Args: one("INVENTORY"),
		RunE: runs(o.run),
	}
	flags := cmd.Flags()
	flags.Var(&o.vid, "vid", "this VLAN id and no other")
	flags.StringVar(&o.req.Key, "key", "", "allocation key: your name for this request")
	flags.StringVar(&o.req.Holder, "holder", "", "what others are shown as the holder")
	flags.StringVar(&o.req.Parity, "parity", "", "odd or even ids only")
	flags.StringVar(&o.req.Exclude, "exclude", "", "none of these ranges")
	flags.StringVar(&o.req.From, "from", "", "only ids of these ranges")
	flags.DurationVar(&o.req.Wait, "wait", 0, "wait this long for a VLAN when none is free")
	choices(cmd, "parity", vlanParities...)
	return cmd
}

func (o *vlanAllocateOptions) run(ctx context.Context, args []string) error {
	if err := oneOf("--parity", o.req.Parity, vlanParities); err != nil {
		return err
	}
	c, err := o.f.Client()
	if err != nil {
		return err
	}
	o.req.Inventory, o.req.VID = args[0], o.vid.vid
	v, same, err := c.VLANs().Allocate(ctx, o.req)
	if err != nil {
		return err
	}
	again := ""
	if same {
		again = ", as before,"
	}
	by := fmt.Sprintf("%d --token %s", v.VID, v.Token)
	if v.Key != "" {
		by = "--key " + v.Key
	}
	o.f.hint("VLAN %d of %s: yours%s until you release it; token %s\n  give back:  poolctl vlan release %s %s", v.VID, v.Inventory, again, v.Token, v.Inventory, by)
	if o.f.format == formatTable || o.f.format == formatWide {
		return printList(o.f, vlanSheet, []api.VLAN{v}, nil)
	}
	return printOne(o.f, vlanSheet, v)
}

type vlanReleaseOptions struct {
	f          *Factory
	key, token string
}

func newVLANReleaseCmd(f *Factory) *cobra.Command {
	o := &vlanReleaseOptions{f: f}
	cmd := &cobra.Command{
		Use:   "release INVENTORY VID|--key KEY",
		Short: "Give a VLAN back",
		Long: `Give a VLAN back. It is granted again after its inventory's cooldown. Releasing twice
succeeds. By number alone the grant is looked up. A VLAN of a service goes with the
service: see "vlan service delete".`,
		Args: o.args,
		RunE: runs(o.run),
	}
	cmd.Flags().StringVar(&o.key, "key", "", "release what this allocation key of yours was granted")
	cmd.Flags().StringVar(&o.token, "token", "", "the grant's token: release only if it is still this grant")
	return cmd
}

func (o *vlanReleaseOptions) args(_ *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return usage("release what? name an INVENTORY and a VID, or --key KEY")
	case o.key == "":
		return two("INVENTORY", "VID")(nil, args)
	case len(args) > 1:
		return usage("release one thing at a time: a VID or --key KEY")
	case o.token != "":
		return usage("--token goes with a VID")
	}
	return nil
}

func (o *vlanReleaseOptions) run(ctx context.Context, args []string) error {
	c, err := o.f.Client()
	if err != nil {
		return err
	}
	var r api.VLANsReleased
	if o.key != "" {
		r, err = c.VLANs().ReleaseKey(ctx, args[0], o.key)
	} else {
		r, err = o.number(ctx, c, args[0], args[1])
	}
	if err != nil {
		return err
	}
	switch {
	case r.Changed:
		o.coolsDown(r.Items)
	case o.key != "":
		o.f.hint("the grant of key %s is over already; nothing was left to do", o.key)
	case o.token != "":
		o.f.hint("the grant of VLAN %s of %s that you named is over already; nothing was left to do", args[1], args[0])
	default:
		o.f.hint("nobody holds VLAN %s of %s (any more); nothing was left to do", args[1], args[0])
	}
	if r.Items == nil {
		r.Items = []api.VLAN{}
	}
	return printList(o.f, vlanSheet, r.Items, r)
}

// coolsDown says from when on VLANs are granted again.
func (o *vlanReleaseOptions) coolsDown(items []api.VLAN) {
	for _, v := range items {
		if v.NotBefore != nil {
			o.f.hint("VLAN %d of %s released; it is granted again from %s on (cooldown)", v.VID, v.Inventory, problem.Clock(*v.NotBefore))
		}
	}
}

// number releases by VLAN id.
func (o *vlanReleaseOptions) number(ctx context.Context, c *api.Client, inventory, arg string) (api.VLANsReleased, error) {
	vid, err := parseVID(arg)
	if err != nil {
		return api.VLANsReleased{}, err
	}
	token := o.token
	if token == "" {
		v, err := c.VLANs().Get(ctx, inventory, vid)
		if err != nil {
			return api.VLANsReleased{}, err
		}
		if v.State == api.StateFree || v.State == api.StateQuarantined {
			return api.VLANsReleased{}, nil
		}
		if token = v.Token; token == "" {
			h := problem.Holder{Caller: v.Caller, Holder: v.Holder, Key: v.Key, Since: v.StateSince, State: v.State}
			return api.VLANsReleased{}, problem.New(problem.CodeHeld, "VLAN %d of %s not released: it is held by %s, not by you", vid, inventory, h).By(h).
				Advise("look", "poolctl vlan show %s %d", inventory, vid)
		}
	}
	return c.VLANs().Release(ctx, inventory, vid, token)
}

// watchFlags are those of lists that can be watched.
type watchFlags struct {
	watch    bool
	interval time.Duration
}

func (w *watchFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&w.watch, "watch", false, "go on, and write what changes")
	cmd.Flags().DurationVar(&w.interval, "interval", 2*time.Second, "how often --watch looks")
}
