package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/problem"
)

func newServiceCmd(f *Factory) *cobra.Command {
	cmd := &cobra.Command{
		Use: "service", Short: "VLANs that a network service needs together", Args: cobra.NoArgs, RunE: needsSubcommand,
		Long: `A service has named attributes, each a VLAN of an inventory: north_vlan_id and
south_vlan_id, say. It gets all of them or none, and they come back when it fails.

  create → allocated → (begin → provisioning) → confirm → up → delete

A service that nobody confirms ends by itself (--confirm-within).`,
	}
	cmd.AddCommand(
		newServiceCreateCmd(f),
		newServiceStepCmd(f, beginStep), newServiceStepCmd(f, confirmStep), newServiceFailCmd(f), newServiceStepCmd(f, retryStep),
		newServiceExtendCmd(f), newServicePatchCmd(f), newServiceDeleteCmd(f), newServiceRemovedCmd(f),
		newServiceListCmd(f), newServiceShowCmd(f),
	)
	return cmd
}

// choiceFlags restrict which VLANs are got.
type choiceFlags struct {
	vid    vidFlag
	offset int64
	choice api.ServiceChoice
}

func (o *choiceFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.Var(&o.vid, "vid", "this VLAN id for the first attribute")
	flags.BoolVar(&o.choice.Same, "same", false, "one number for all attributes")
	flags.Int64Var(&o.offset, "offset", 0, "each attribute's number is the one before's plus this")
	flags.StringVar(&o.choice.Parity, "parity", "", "odd or even ids only")
	flags.StringVar(&o.choice.Exclude, "exclude", "", "none of these ranges")
	choices(cmd, "parity", vlanParities...)
}

func (o *choiceFlags) read(cmd *cobra.Command) (api.ServiceChoice, error) {
	o.choice.VID = o.vid.vid
	if cmd.Flags().Changed("offset") {
		o.choice.Offset = &o.offset
	}
	return o.choice, oneOf("--parity", o.choice.Parity, vlanParities)
}

// readAttributes reads NAME=INVENTORY words.
func readAttributes(words []string) ([]api.ServiceWant, error) {
	var wants []api.ServiceWant
	for _, word := range words {
		name, inventory, ok := strings.Cut(word, "=")
		if !ok || name == "" || inventory == "" {
			return nil, usage("--attribute %q is not NAME=INVENTORY", word).Advise("so", "--attribute %s=fabric-a", orElse(name, "uplink"))
		}
		wants = append(wants, api.ServiceWant{Name: name, Inventory: inventory})
	}
	return wants, nil
}

type serviceCreateOptions struct {
	f            *Factory
	north, south string
	attributes   []string
	choice       choiceFlags
	within       time.Duration
	hold         string
	req          api.ServiceRequest
	dryRun       bool
}

func newServiceCreateCmd(f *Factory) *cobra.Command {
	o := &serviceCreateOptions{f: f}
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Get all VLANs that a service needs, or none",
		Long: `Get all VLANs that a service needs, or none. Configure the devices, then confirm. If
nobody does within --confirm-within, the VLANs come back; "begin" ends that.

The same command again returns the service as it stands.`,
		Example: `  poolctl vlan service create edge-7 --north fabric-a --south fabric-b
  poolctl vlan service create trunk --attribute a=fabric-a --attribute b=fabric-b --same --vid 300`,
		Args: one("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runs(func(ctx context.Context, args []string) error { return o.run(ctx, cmd, args) })(cmd, args)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.north, "north", "", "inventory of "+api.NorthVLAN)
	flags.StringVar(&o.south, "south", "", "inventory of "+api.SouthVLAN)
	flags.StringArrayVar(&o.attributes, "attribute", nil, "NAME=INVENTORY: one more VLAN (may be repeated)")
	o.choice.add(cmd)
	flags.DurationVar(&o.within, "confirm-within", time.Hour, "give the VLANs back if nobody confirms or begins for so long, 1s to 8784h")
	flags.StringVar(&o.hold, "hold", "", "pid=PID: give them back when this process is gone, instead of after a time")
	flags.StringVar(&o.req.OnPartial, "on-partial", "", "release (default) or keep: what an outside inventory gave before another refused")
	flags.StringVar(&o.req.Holder, "holder", "", "what others are shown as the holder")
	flags.BoolVar(&o.dryRun, "dry-run", false, "say what would be granted, do nothing")
	choices(cmd, "on-partial", api.OnPartialRelease, api.OnPartialKeep)
	return cmd
}

func (o *serviceCreateOptions) read(cmd *cobra.Command) error {
	var err error
	if o.req.ServiceChoice, err = o.choice.read(cmd); err != nil {
		return err
	}
	words := slices.Clone(o.attributes)
	if o.south != "" {
		words = slices.Insert(words, 0, api.SouthVLAN+"="+o.south)
	}
	if o.north != "" {
		words = slices.Insert(words, 0, api.NorthVLAN+"="+o.north)
	}
	if o.req.Attributes, err = readAttributes(words); err != nil {
		return err
	}
	if len(words) == 0 {
		return usage("a service of which VLANs? none was named").
			Advise("a pair", "--north INVENTORY --south INVENTORY").
			Advise("any names", "--attribute NAME=INVENTORY …")
	}
	if cmd.Flags().Changed("confirm-within") {
		if o.within <= 0 {
			return usage("--confirm-within %s is not above 0", o.within)
		}
		o.req.ConfirmWithin = o.within.String()
	}
	if o.hold != "" {
		h, err := parseHold(o.hold)
		if err != nil {
			return err
		}
		if h.Kind != api.HoldPID {
			return usage("--hold %s: a service is held by a process; for a time, --confirm-within %s", o.hold, h.TTL)
		}
		o.req.Hold = &h
	}
	return oneOf("--on-partial", o.req.OnPartial, []string{api.OnPartialRelease, api.OnPartialKeep})
}

func (o *serviceCreateOptions) run(ctx context.Context, cmd *cobra.Command, args []string) error {
	o.req.Name = args[0]
	if err := o.read(cmd); err != nil {
		return err
	}
	c, err := o.f.Client()
	if err != nil {
		return err
	}
	v, err := c.Services().Create(ctx, o.req, api.WriteOptions{DryRun: o.dryRun})
	if err != nil {
		return err
	}
	if o.dryRun {
		o.f.hint("nothing was done (--dry-run); service %s would get %s", v.Name, valuesText(v))
		return o.f.printService(v)
	}
	return o.f.serviceNow(v)
}

// serviceNow prints a service and what to do next. One that is not allocated yet
// is told by the exit code too: a script must not take its VLANs for granted.
func (f *Factory) serviceNow(v api.Service) error {
	if v.State == api.ServiceAllocating {
		e := problem.New(problem.CodeOutcomeUnknown, "service %s is not allocated yet: it waits for %s", v.Name, orElse(waitsText(v.WaitsFor), "its nodes")).
			Note("run the same command again: it returns this service as it stands then, never a second").
			Advise("look", "poolctl vlan service show %s --watch", v.Name)
		e.WaitsFor = v.WaitsFor
		if err := f.printService(v); err != nil {
			return err
		}
		return e
	}
	f.hint("%s", serviceHint(v))
	return f.printService(v)
}

// serviceHint tells how a service goes on.
func serviceHint(v api.Service) string {
	head := fmt.Sprintf("service %s is %s", v.Name, v.State)
	if !v.Changed {
		head += ", as before"
	}
	if text := valuesText(v); text != "" {
		head += ": " + text
	}
	switch v.State {
	case api.ServiceAllocated:
		return head + until(v.Hold) + "\n  configure the devices, then:  poolctl vlan service confirm " + v.Name +
			"\n  or give back:                 poolctl vlan service fail " + v.Name + ` --reason "…"`
	case api.ServiceProvisioning:
		return head + "\n  when the devices are done:  poolctl vlan service confirm " + v.Name +
			"\n  or give back:               poolctl vlan service fail " + v.Name + ` --reason "…"`
	case api.ServiceRejected, api.ServiceFailed:
		return head + reasonText(v) + "\n  ask again:  poolctl vlan service retry " + v.Name
	case api.ServiceDeallocating:
		return head + reasonText(v) + waitingText(v)
	}
	return head
}

// until says when an allocated service ends by itself.
func until(h *api.Hold) string {
	switch {
	case h == nil:
		return ""
	case h.Kind == api.HoldPID:
		return fmt.Sprintf("; given back when process %d is gone", h.PID)
	case h.Until != nil:
		return "; given back at " + problem.Clock(*h.Until) + " if nobody confirms"
	}
	return ""
}

func reasonText(v api.Service) string {
	if v.Reason == "" {
		return ""
	}
	return " (" + v.Reason + ")"
}

func waitingText(v api.Service) string {
	if len(v.WaitsFor) == 0 {
		return ""
	}
	return "; it waits for " + waitsText(v.WaitsFor)
}

// valuesText lists attributes and their VLANs, by name.
func valuesText(v api.Service) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(v.Values)) {
		if vid := v.Values[name]; vid != nil {
			parts = append(parts, name+" "+uidText(*vid))
		}
	}
	return strings.Join(parts, ", ")
}

// printService writes one service. Quiet, it is the bare VLAN ids, a line each by
// the attributes' names; "-" where there is none.
func (f *Factory) printService(v api.Service) error {
	if f.quiet {
		for _, name := range slices.Sorted(maps.Keys(v.Values)) {
			text := "-"
			if vid := v.Values[name]; vid != nil {
				text = uidText(*vid)
			}
			if _, err := fmt.Fprintln(f.Out, text); err != nil {
				return err
			}
		}
		return nil
	}
	if err := printOne(f, serviceSheet, v); err != nil {
		return err
	}
	if (f.format == formatTable || f.format == formatWide) && len(v.Attributes) > 0 {
		fmt.Fprintln(f.Out)
		return writeAttributes(f.Out, v, f.format == formatWide)
	}
	return nil
}

func writeAttributes(out io.Writer, v api.Service, wide bool) error {
	var rows []attributeRow
	for _, name := range slices.Sorted(maps.Keys(v.Attributes)) {
		rows = append(rows, attributeRow{name, v.Attributes[name]})
	}
	return attributeSheet.table(out, rows, wide, true)
}

type serviceListOptions struct {
	f      *Factory
	filter api.ServiceFilter
	watch  watchFlags
}

func newServiceListCmd(f *Factory) *cobra.Command {
	o := &serviceListOptions{f: f}
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List services",
		Args:    cobra.NoArgs,
		RunE:    runs(func(ctx context.Context, _ []string) error { return o.run(ctx) }),
	}
	flags := cmd.Flags()
	flags.StringVar(&o.filter.State, "state", "", "only this state: allocating, allocated, rejected, provisioning, up, deallocating or failed")
	flags.StringVar(&o.filter.Inventory, "inventory", "", "only those with an attribute of this inventory")
	flags.StringVar(&o.filter.Holder, "holder", "", "only those of this holder")
	o.watch.add(cmd)
	choices(cmd, "state", api.ServiceAllocating, api.ServiceAllocated, api.ServiceRejected, api.ServiceProvisioning, api.ServiceUp, api.ServiceDeallocating, api.ServiceFailed)
	return cmd
}

func (o *serviceListOptions) run(ctx context.Context) error {
	c, err := o.f.Client()
	if err != nil {
		return err
	}
	empty := "there is no service"
	if o.filter != (api.ServiceFilter{}) {
		empty = "no service is like that"
	}
	return watchable(ctx, o.f, o.watch, listing[api.Service]{
		sheet: serviceSheet, empty: empty, key: func(v api.Service) string { return v.Name },
		fetch: func(ctx context.Context) ([]api.Service, error) { return collect(c.Services().List(ctx, o.filter)) },
		gone:  func(v api.Service) api.Service { return goneService(v.Name) },
	})
}

type serviceShowOptions struct {
	f     *Factory
	watch watchFlags
}

func newServiceShowCmd(f *Factory) *cobra.Command {
	o := &serviceShowOptions{f: f}
	cmd := &cobra.Command{Use: "show NAME", Short: "Show a service, its VLANs and what it waits for", Args: one("NAME"), RunE: runs(o.run)}
	o.watch.add(cmd)
	return cmd
}

func (o *serviceShowOptions) run(ctx context.Context, args []string) error {
	c, err := o.f.Client()
	if err != nil {
		return err
	}
	v, err := c.Services().Get(ctx, args[0])
	if err != nil {
		return err
	}
	if !o.watch.watch {
		return o.f.printService(v)
	}
	// A line for each change until it is gone, as the list has it.
	ctx, gone := context.WithCancel(ctx)
	defer gone()
	return watchable(ctx, o.f, o.watch, listing[api.Service]{
		sheet: serviceSheet, key: func(v api.Service) string { return v.Name },
		fetch: func(ctx context.Context) ([]api.Service, error) {
			v, err := c.Services().Get(ctx, args[0])
			if problem.CodeOf(err) == problem.CodeNotFound {
				return nil, nil
			}
			return []api.Service{v}, err
		},
		gone: func(v api.Service) api.Service {
			gone()
			return goneService(v.Name)
		},
	})
}

// goneService is a service that there is no more, with nothing null in it.
func goneService(name string) api.Service {
	return api.Service{
		Name: name, State: api.ServiceGone, Attributes: map[string]api.ServiceAttribute{}, Values: map[string]*uint32{}, WaitsFor: []problem.WaitsFor{},
	}
}
