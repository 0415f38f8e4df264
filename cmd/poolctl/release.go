package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/problem"
)

type releaseOptions struct {
	f         *Factory
	key       string
	pid       int
	token     string
	requester string
}

func newReleaseCmd(f *Factory) *cobra.Command {
	o := &releaseOptions{f: f}
	cmd := &cobra.Command{
		Use:   "release UID|--key KEY|--pid PID",
		Short: "Give a uid back",
		Long: `Give a uid back: a promise that nothing more is started under it. It is granted
again once it is proven that nothing runs under it. Releasing twice succeeds.

By number alone the grant is looked up, and refused while the uid is being handed
to somebody else. Other live processes that it was handed to keep their part; an
operator's --token '*' ends the grant for all of them.`,
		Args: o.args,
		RunE: runs(o.run),
	}
	flags := cmd.Flags()
	flags.StringVar(&o.key, "key", "", "release what this allocation key of yours was granted")
	flags.IntVar(&o.pid, "pid", 0, "release what this process of the node was granted")
	flags.StringVar(&o.token, "token", "", "the grant's token: release only if it is still this grant")
	flags.StringVar(&o.requester, "requester", "", "end only the part of one that joined the grant")
	return cmd
}

func (o *releaseOptions) args(_ *cobra.Command, args []string) error {
	ways := len(args)
	if o.key != "" {
		ways++
	}
	if o.pid != 0 {
		ways++
	}
	switch {
	case ways == 0:
		return usage("release what? name a UID, --key KEY or --pid PID")
	case ways > 1:
		return usage("release one thing at a time: a UID, --key KEY or --pid PID")
	case o.pid < 0:
		return usage("--pid %d is no process id", o.pid)
	case len(args) == 0 && (o.token != "" || o.requester != ""):
		return usage("--token and --requester go with a UID")
	}
	return nil
}

func (o *releaseOptions) run(ctx context.Context, args []string) error {
	c, err := o.f.Client()
	if err != nil {
		return err
	}
	var r api.Released
	switch {
	case o.key != "":
		r, err = c.UIDs().ReleaseKey(ctx, o.key)
	case o.pid != 0:
		r, err = c.UIDs().ReleasePID(ctx, o.pid)
	default:
		r, err = o.number(ctx, c, args[0])
	}
	if err != nil {
		return err
	}
	if !r.Changed && len(r.Items) == 0 {
		o.f.hint("%s", o.nothing(args))
	}
	o.stillHeld(r.Items)
	if r.Items == nil {
		r.Items = []api.UID{}
	}
	return printList(o.f, uidSheet, r.Items, r)
}

// nothing says that there was nothing left to release.
func (o *releaseOptions) nothing(args []string) string {
	switch {
	case o.key != "":
		return "the grant of key " + o.key + " is over already; nothing was left to do"
	case o.pid != 0:
		return fmt.Sprintf("process %d holds no uid here; nothing was left to do", o.pid)
	case o.token != "":
		return "the grant of uid " + args[0] + " that you named is over already; nothing was left to do"
	}
	return "nobody holds uid " + args[0] + " (any more); nothing was left to do"
}

// stillHeld tells of uids whose grant goes on: it was handed to others as well.
func (o *releaseOptions) stillHeld(items []api.UID) {
	for _, u := range items {
		switch u.State {
		case api.StateLocked, api.StateUsed, api.StateIdle:
			o.f.hint("uid %d is still %s: another process that it was handed to has not ended its part\n"+
				"  look:                        poolctl -o wide uid show %d\n"+
				"  operators, for all of them:  poolctl uid release %d --token '*'", u.UID, u.State, u.UID, u.UID)
		}
	}
}

// number releases by uid. (Ganeti's ReleaseUid by integer, which checks nothing.)
func (o *releaseOptions) number(ctx context.Context, c *api.Client, arg string) (api.Released, error) {
	uid, err := parseUID(arg)
	if err != nil {
		return api.Released{}, err
	}
	token := o.token
	if token == "" {
		u, err := c.UIDs().Get(ctx, uid)
		if err != nil {
			return api.Released{}, err
		}
		over, err := mayReleaseByNumber(u, self())
		if over || err != nil {
			return api.Released{}, err
		}
		token = u.Token
	}
	return c.UIDs().Release(ctx, uid, token, o.requester)
}

// self is how an agent names this process when it calls over the socket.
func self() string { return fmt.Sprintf("unix:%d", os.Geteuid()) }

// mayReleaseByNumber decides on a release that names no grant: over where there
// is none, an error where it would hit somebody else's. An operator sees every
// token, but a uid on its way to another is not ended by number alone.
func mayReleaseByNumber(u api.UID, self string) (over bool, err error) {
	switch u.State {
	case api.StateFree, api.StateQuarantined:
		return true, nil
	case api.StateReserved:
		return false, problem.New(problem.CodeHeld, "uid %d not released: it is reserved (%s)", u.UID, u.Reason).
			Advise("end that", "poolctl uid unreserve %d", u.UID)
	}
	if u.Token == "" {
		return false, notYours(u, "not released")
	}
	if u.State == api.StateLocked && u.Caller != self {
		h := problem.Holder{Caller: u.Caller, Holder: u.Holder, Key: u.Key, Nodes: u.Nodes, Since: u.StateSince}
		return false, problem.New(problem.CodeHeld, "uid %d not released: it is just being handed to %s", u.UID, h).By(h).
			Advise("end it all the same", "poolctl uid release %d --token %s", u.UID, u.Token)
	}
	return false, nil
}
