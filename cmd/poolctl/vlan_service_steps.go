package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/problem"
)

// serviceToken is the flag that names one life of a service.
type serviceToken struct{ token string }

func (t *serviceToken) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&t.token, "token", "", "the service's token, as create printed it (default: looked up)")
}

// read returns the token given, or that of the service as it stands: a later one of
// the name could be meant only by somebody who did not look.
func (t *serviceToken) read(ctx context.Context, c *api.Client, name, not string) (string, error) {
	if t.token != "" {
		return t.token, nil
	}
	v, err := c.Services().Get(ctx, name)
	if err != nil {
		return "", err
	}
	if v.Token == "" {
		h := problem.Holder{Caller: v.Caller, Holder: v.Holder, State: v.State, Since: v.StateSince}
		return "", problem.New(problem.CodeForbidden, "service %s %s: it belongs to %s, not to you", name, not, h).By(h)
	}
	return v.Token, nil
}

// serviceStep is a change of a service that takes its name alone.
type serviceStep struct {
	use, short, long, not string
	do                    func(ctx context.Context, s *api.ServicesService, name, token string) (api.Service, error)
}

var (
	beginStep = serviceStep{
		use: "begin NAME", short: "Say that devices are about to be touched", not: "not begun",
		long: `Say that devices are about to be touched. From here nothing but your word ends the
service: confirm, fail or delete.`,
		do: func(ctx context.Context, s *api.ServicesService, name, token string) (api.Service, error) {
			return s.Begin(ctx, name, token)
		},
	}
	confirmStep = serviceStep{
		use: "confirm NAME", short: "Say that the service is provisioned", not: "not confirmed",
		do: func(ctx context.Context, s *api.ServicesService, name, token string) (api.Service, error) {
			return s.Confirm(ctx, name, token)
		},
	}
	retryStep = serviceStep{
		use: "retry NAME", short: "Ask again for what a rejected or failed service has not got", not: "not retried",
		do: func(ctx context.Context, s *api.ServicesService, name, token string) (api.Service, error) {
			return s.Retry(ctx, name, token)
		},
	}
)

func newServiceStepCmd(f *Factory, step serviceStep) *cobra.Command {
	var token serviceToken
	cmd := &cobra.Command{Use: step.use, Short: step.short, Long: step.long, Args: one("NAME"), RunE: runs(func(ctx context.Context, args []string) error {
		return f.stepService(ctx, &token, args[0], step.not, step.do)
	})}
	token.add(cmd)
	return cmd
}

// stepService changes a service and prints it as it is then.
func (f *Factory) stepService(ctx context.Context, t *serviceToken, name, not string, do func(ctx context.Context, s *api.ServicesService, name, token string) (api.Service, error)) error {
	c, err := f.Client()
	if err != nil {
		return err
	}
	token, err := t.read(ctx, c, name, not)
	if err != nil {
		return err
	}
	v, err := do(ctx, c.Services(), name, token)
	if err != nil {
		return err
	}
	return f.serviceNow(v)
}

func newServiceFailCmd(f *Factory) *cobra.Command {
	var token serviceToken
	reason := ""
	cmd := &cobra.Command{
		Use:   "fail NAME --reason TEXT",
		Short: "Say that provisioning failed: the VLANs come back",
		Args:  one("NAME"),
		RunE: runs(func(ctx context.Context, args []string) error {
			if reason == "" {
				return usage("service %s not failed: say why with --reason, others will ask", args[0])
			}
			return f.stepService(ctx, &token, args[0], "not failed", func(ctx context.Context, s *api.ServicesService, name, token string) (api.Service, error) {
				return s.Fail(ctx, name, token, reason)
			})
		}),
	}
	token.add(cmd)
	cmd.Flags().StringVar(&reason, "reason", "", "why, shown to whoever asks")
	return cmd
}

func newServiceExtendCmd(f *Factory) *cobra.Command {
	var token serviceToken
	cmd := &cobra.Command{
		Use:   "extend NAME DURATION",
		Short: "Let an allocated service wait for its confirmation for so long from now",
		Args:  two("NAME", "DURATION"),
		RunE: runs(func(ctx context.Context, args []string) error {
			d, err := time.ParseDuration(args[1])
			if err != nil || d <= 0 {
				return usage("service %s not extended: %q is no duration such as 30m", args[0], args[1])
			}
			return f.stepService(ctx, &token, args[0], "not extended", func(ctx context.Context, s *api.ServicesService, name, token string) (api.Service, error) {
				return s.Extend(ctx, name, token, d)
			})
		}),
	}
	token.add(cmd)
	return cmd
}

type servicePatchOptions struct {
	f          *Factory
	token      serviceToken
	attributes []string
	drop       []string
	choice     choiceFlags
}

func newServicePatchCmd(f *Factory) *cobra.Command {
	o := &servicePatchOptions{f: f}
	cmd := &cobra.Command{
		Use:   "patch NAME",
		Short: "Add attributes to a service that is up, move them to another inventory, or drop them",
		Long: `Change a service that is up, all or nothing. Attributes that are not named keep their
VLAN, and so does one that is of the inventory already.`,
		Example: `  poolctl vlan service patch edge-7 --attribute backup_vlan_id=fabric-c --drop south_vlan_id`,
		Args:    one("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runs(func(ctx context.Context, args []string) error { return o.run(ctx, cmd, args) })(cmd, args)
		},
	}
	cmd.Flags().StringArrayVar(&o.attributes, "attribute", nil, "NAME=INVENTORY: a VLAN to add or to move (may be repeated)")
	cmd.Flags().StringArrayVar(&o.drop, "drop", nil, "NAME of an attribute that goes (may be repeated)")
	o.choice.add(cmd)
	o.token.add(cmd)
	return cmd
}

func (o *servicePatchOptions) run(ctx context.Context, cmd *cobra.Command, args []string) error {
	choice, err := o.choice.read(cmd)
	if err != nil {
		return err
	}
	wants, err := readAttributes(o.attributes)
	if err != nil {
		return err
	}
	if len(wants) == 0 && len(o.drop) == 0 {
		return usage("service %s: nothing to change was named", args[0]).
			Advise("one more VLAN", "poolctl vlan service patch %s --attribute NAME=INVENTORY", args[0]).
			Advise("one less", "poolctl vlan service patch %s --drop NAME", args[0])
	}
	return o.f.stepService(ctx, &o.token, args[0], "not changed", func(ctx context.Context, s *api.ServicesService, name, token string) (api.Service, error) {
		return s.Patch(ctx, name, token, api.ServicePatch{Attributes: wants, Drop: o.drop, ServiceChoice: choice})
	})
}

type serviceDeleteOptions struct {
	f          *Factory
	token      serviceToken
	hold, wait bool
}

func newServiceDeleteCmd(f *Factory) *cobra.Command {
	o := &serviceDeleteOptions{f: f}
	cmd := &cobra.Command{
		Use:   "delete NAME",
		Short: "Give a service's VLANs back and forget it",
		Long: `Give a service's VLANs back and forget it. With --hold they stay until "removed" says
that the devices are clean. Deleting twice succeeds.`,
		Args: one("NAME"),
		RunE: runs(o.run),
	}
	cmd.Flags().BoolVar(&o.hold, "hold", false, "keep the VLANs until the devices are clean")
	cmd.Flags().BoolVar(&o.wait, "wait", false, "wait until it is gone")
	cmd.Flags().StringVar(&o.token.token, "token", "", "the service's token: a later service of the name stays")
	return cmd
}

func (o *serviceDeleteOptions) run(ctx context.Context, args []string) error {
	if o.hold && o.wait {
		return usage("--hold keeps the service until you say \"removed\", and --wait waits until it is gone: one of them")
	}
	c, err := o.f.Client()
	if err != nil {
		return err
	}
	v, err := c.Services().Delete(ctx, args[0], o.token.token, o.hold)
	if err != nil {
		return err
	}
	return o.f.ending(ctx, c, v, o.wait)
}

// ending tells how the end of a service goes on, and waits for it if asked to.
func (f *Factory) ending(ctx context.Context, c *api.Client, v api.Service, wait bool) error {
	changed := v.Changed
	if wait && v.State != api.ServiceGone {
		if len(v.WaitsFor) > 0 {
			f.hint("service %s is %s%s", v.Name, v.State, waitingText(v))
		}
		var err error
		if v, err = c.Services().Wait(ctx, v.Name, func(s api.Service) bool { return s.State == api.ServiceGone }); err != nil {
			return err
		}
		v.Changed = changed
	}
	switch {
	case v.State == api.ServiceGone && changed:
		f.hint("service %s deleted", v.Name)
	case v.State == api.ServiceGone:
		f.hint("there is no service %s (any more); nothing was left to do", v.Name)
	case len(v.WaitsFor) > 0:
		f.hint("service %s is %s%s", v.Name, v.State, waitingText(v))
	default:
		f.hint("service %s is %s: its VLANs stay until the devices are clean\n  then:  poolctl vlan service removed %s", v.Name, v.State, v.Name)
	}
	if v.State != api.ServiceGone {
		return f.printService(v)
	}
	if f.format == formatTable || f.format == formatWide {
		return nil
	}
	v = goneService(v.Name)
	v.Changed = changed
	return f.printService(v)
}

func newServiceRemovedCmd(f *Factory) *cobra.Command {
	var token serviceToken
	attribute := ""
	cmd := &cobra.Command{
		Use:   "removed NAME",
		Short: "Say that the devices of a service deleted with --hold are clean",
		Long: `Say that the devices of a service deleted with --hold are clean: its VLANs come back.

With --attribute it is an operator's word about one VLAN of an outside inventory
without allocation keys, where after a crash nobody can tell whether it was got or
given back: you have looked there, and nothing is left of it.`,
		Args: one("NAME"),
		RunE: runs(func(ctx context.Context, args []string) error {
			c, err := f.Client()
			if err != nil {
				return err
			}
			t, err := token.read(ctx, c, args[0], "not removed")
			if problem.CodeOf(err) == problem.CodeNotFound && attribute == "" {
				return f.ending(ctx, c, api.Service{Name: args[0], State: api.ServiceGone}, false)
			}
			if err != nil {
				return err
			}
			v, err := c.Services().Removed(ctx, args[0], t, attribute)
			if err != nil {
				return err
			}
			if attribute != "" && v.State != api.ServiceGone {
				return f.serviceNow(v)
			}
			return f.ending(ctx, c, v, false)
		}),
	}
	token.add(cmd)
	cmd.Flags().StringVar(&attribute, "attribute", "", "settle this attribute, whose step is unknown")
	return cmd
}
