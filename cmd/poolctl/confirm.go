package main

import (
	"context"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/problem"
)

// grantFlags name the grant that a change of a uid is meant for.
type grantFlags struct {
	token string
	key   string
}

func (g *grantFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&g.token, "token", "", "the grant's token, as the request printed it (default: looked up)")
	cmd.Flags().StringVar(&g.key, "key", "", "the grant's allocation key")
}

// resolve finds uid and grant: the uid typed or, by key alone, the key's uids.
// Without a token the agent is asked, which shows callers their own.
func (g grantFlags) resolve(ctx context.Context, c *api.Client, args []string, not string) ([]target, error) {
	if len(args) == 0 {
		return keyTargets(ctx, c, g.key, not)
	}
	uid, err := parseUID(args[0])
	if err != nil {
		return nil, err
	}
	if g.token != "" || g.key != "" {
		return []target{{uid: uid, ref: api.Ref{Token: g.token, Key: g.key}}}, nil
	}
	u, err := c.UIDs().Get(ctx, uid)
	if err != nil {
		return nil, err
	}
	if u.Token == "" {
		return nil, notYours(u, not)
	}
	return []target{{uid: uid, ref: api.Ref{Token: u.Token}}}, nil
}

// target is a uid with the grant it is thought to belong to.
type target struct {
	uid uint32
	ref api.Ref
}

func keyTargets(ctx context.Context, c *api.Client, key, not string) ([]target, error) {
	var targets []target
	for u, err := range c.UIDs().List(ctx, api.UIDFilter{Key: key}) {
		if err != nil {
			return nil, err
		}
		// Keys are each caller's own; operators see other callers' as well.
		if u.State == api.StateQuarantined {
			continue
		}
		targets = append(targets, target{uid: u.UID, ref: api.Ref{Token: u.Token, Key: key}})
	}
	if len(targets) == 0 {
		return nil, problem.New(problem.CodeNotFound, "key %s %s: no grant has it", key, not).
			Advise("see yours", "poolctl uid list")
	}
	for _, t := range targets {
		if t.ref.Token != targets[0].ref.Token {
			return nil, problem.New(problem.CodeInvalid, "key %s %s: more than one caller has a grant of that name", key, not).
				Advise("name the uid", "poolctl uid list --key %s", key)
		}
	}
	return targets, nil
}

// notYours refuses to touch a uid whose token the agent does not show us.
func notYours(u api.UID, not string) error {
	uid := uidText(u.UID)
	switch u.State {
	case api.StateFree, api.StateQuarantined, api.StateReserved:
		return problem.New(problem.CodeNotHeld, "uid %s %s: it is %s, nobody holds it", uid, not, u.State).
			Advise("look", "poolctl uid show %s", uid)
	}
	h := problem.Holder{Caller: u.Caller, Holder: u.Holder, Key: u.Key, Nodes: u.Nodes, Since: u.StateSince, State: u.State}
	return problem.New(problem.CodeHeld, "uid %s %s: it is held by %s, not by you", uid, not, h).By(h).
		Advise("look", "poolctl uid show %s", uid)
}

func parseUID(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || s[0] == '+' {
		return 0, usage("%q is no uid: a uid is a decimal number up to 4294967295", s)
	}
	return uint32(n), nil
}

// uidOrKey wants one uid, or --key instead.
func uidOrKey(g *grantFlags) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) > 1:
			return usage("one uid at a time, %d were given", len(args))
		case len(args) == 0 && g.key == "":
			return usage("name the grant: a UID or --key KEY")
		}
		return nil
	}
}

type confirmOptions struct {
	f     *Factory
	grant grantFlags
	keep  bool
}

func newConfirmCmd(f *Factory) *cobra.Command {
	o := &confirmOptions{f: f}
	cmd := &cobra.Command{
		Use:     "confirm UID|--key KEY",
		Aliases: []string{"unlock"},
		Short:   "Say that your process runs: the uid stays taken",
		Long: `End the hand-over of a uid: its process runs now, and the uid stays taken until it
is released. Refused while nothing runs under it, unless --keep is given: then it
stays taken, also without a process, until somebody releases it.`,
		Args: uidOrKey(&o.grant),
		RunE: runs(o.run),
	}
	o.grant.add(cmd)
	cmd.Flags().BoolVar(&o.keep, "keep", false, "confirm although nothing runs; never reclaimed")
	return cmd
}

func (o *confirmOptions) run(ctx context.Context, args []string) error {
	return eachTarget(ctx, o.f, o.grant, args, "not confirmed", func(c *api.Client, t target) (api.UID, error) {
		return c.UIDs().Confirm(ctx, t.uid, t.ref, api.ConfirmBody{Keep: o.keep})
	})
}

type renewOptions struct {
	f     *Factory
	grant grantFlags
	ttl   time.Duration
}

func newRenewCmd(f *Factory) *cobra.Command {
	o := &renewOptions{f: f}
	cmd := &cobra.Command{
		Use:   "renew UID|--key KEY",
		Short: "Hold a uid longer that is not confirmed yet",
		Args:  uidOrKey(&o.grant),
		RunE:  runs(o.run),
	}
	o.grant.add(cmd)
	cmd.Flags().DurationVar(&o.ttl, "ttl", 5*time.Minute, "hold it this long from now, 1s to 24h")
	return cmd
}

func (o *renewOptions) run(ctx context.Context, args []string) error {
	return eachTarget(ctx, o.f, o.grant, args, "not renewed", func(c *api.Client, t target) (api.UID, error) {
		return c.UIDs().Renew(ctx, t.uid, t.ref, api.RenewBody{TTL: o.ttl.String()})
	})
}

type joinOptions struct {
	f     *Factory
	grant grantFlags
	hold  string
}

func newJoinCmd(f *Factory) *cobra.Command {
	o := &joinOptions{f: f}
	cmd := &cobra.Command{
		Use:   "join UID|--key KEY",
		Short: "Use a grant on this node as well",
		Long: `Add this node to a grant that was made elsewhere (a job's other ranks), before
anything runs here under the uid. The grant ends when the last that joined it ends.`,
		Args: uidOrKey(&o.grant),
		RunE: runs(o.run),
	}
	o.grant.add(cmd)
	cmd.Flags().StringVar(&o.hold, "hold", defaultHold, "what keeps your part until it is confirmed: ttl=DURATION or pid=PID")
	return cmd
}

func (o *joinOptions) run(ctx context.Context, args []string) error {
	hold, err := parseHold(o.hold)
	if err != nil {
		return err
	}
	return eachTarget(ctx, o.f, o.grant, args, "not joined", func(c *api.Client, t target) (api.UID, error) {
		u, err := c.UIDs().Join(ctx, t.uid, t.ref, api.JoinBody{Hold: &hold})
		if err == nil && u.Requester != "" {
			o.f.hint("uid %s joined\n  end your part alone:  poolctl uid release %s --token %s --requester %s",
				uidText(u.UID), uidText(u.UID), orElse(u.Token, t.ref.Token), u.Requester)
		}
		return u, err
	})
}

// eachTarget does the same to every uid that flags and arguments name, and
// prints them as they are then.
func eachTarget(ctx context.Context, f *Factory, g grantFlags, args []string, not string, do func(*api.Client, target) (api.UID, error)) error {
	c, err := f.Client()
	if err != nil {
		return err
	}
	targets, err := g.resolve(ctx, c, args, not)
	if err != nil {
		return err
	}
	var done []api.UID
	for _, t := range targets {
		u, err := do(c, t)
		if err != nil {
			return err
		}
		done = append(done, u)
	}
	if len(done) == 1 && f.format != formatTable && f.format != formatWide {
		return printOne(f, uidSheet, done[0])
	}
	return printList(f, uidSheet, done, nil)
}

type adoptOptions struct {
	f    *Factory
	body api.AdoptBody
}

func newAdoptCmd(f *Factory) *cobra.Command {
	o := &adoptOptions{f: f}
	cmd := &cobra.Command{
		Use:   "adopt UID",
		Short: "Make a grant of a uid that runs although nobody was granted it",
		Args:  one("UID"),
		RunE:  runs(o.run),
	}
	cmd.Flags().StringVar(&o.body.Pool, "pool", "", "the pool it belongs to (default: the one that contains it)")
	cmd.Flags().StringVar(&o.body.Holder, "holder", "", "what others are shown as the holder")
	cmd.Flags().StringVar(&o.body.Key, "key", "", "allocation key of the grant")
	return cmd
}

func (o *adoptOptions) run(ctx context.Context, args []string) error {
	uid, err := parseUID(args[0])
	if err != nil {
		return err
	}
	c, err := o.f.Client()
	if err != nil {
		return err
	}
	u, err := c.UIDs().Adopt(ctx, uid, o.body)
	if err != nil {
		return err
	}
	if o.f.format == formatTable || o.f.format == formatWide {
		return printList(o.f, uidSheet, []api.UID{u}, nil)
	}
	return printOne(o.f, uidSheet, u)
}
