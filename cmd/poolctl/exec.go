package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/problem"
)

// Exit codes of "uid exec" beside the command's own, as env(1) has them.
const (
	exitRefused       = 125
	exitNotExecutable = 126
	exitNotFound      = 127
	exitSignal        = 128
)

const (
	onLostContinue = "continue"
	onLostKill     = "kill"

	// confirmPause is between two tries to confirm while the agent is silent.
	confirmPause = time.Second
	// releaseTimeout bounds the release after the command's end.
	releaseTimeout = 30 * time.Second
)

type execOptions struct {
	f      *Factory
	pool   string
	key    string
	holder string
	groups []string
	join   bool
	detach bool
	onLost string
}

func newExecCmd(f *Factory) *cobra.Command {
	o := &execOptions{f: f}
	cmd := &cobra.Command{
		Use:   "exec [flags] -- COMMAND [ARG…]",
		Short: "Run a command under a uid of its own",
		Long: `Ask for a uid, run a command under it, and give the uid back when the command and
whatever it started have ended. Needs root.

The command gets the uid and the gid of the same number, no other groups but those
of --groups, a new session keyring, no way to other privileges (setuid programs do
not work), none of our open files but the first three, umask 077, / as its
directory, and of the environment PATH, HOME, SHELL, USER, LOGNAME, TERM, IDPOOL_UID
and IDPOOL_POOL. Signals are passed on to it.

Exit codes: the command's own; 125 idpool refused; 126 the command cannot be
executed; 127 it is not found; 128+N it died of signal N.`,
		Example: `  poolctl uid exec --pool jobs --key job-4711 -- ./run-job --fast
  poolctl uid exec -- id`,
		Args: o.args,
		RunE: runs(o.run),
	}
	// What follows the command is the command's.
	cmd.Flags().SetInterspersed(false)
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return refused(usage("%s", err.Error()).Advise("see", "%s --help", cmd.CommandPath()))
	})
	flags := cmd.Flags()
	flags.StringVar(&o.pool, "pool", "", poolHelp)
	flags.StringVar(&o.key, "key", "", "allocation key: your name for this request")
	flags.StringVar(&o.holder, "holder", "", "what others are shown as the holder")
	flags.StringSliceVar(&o.groups, "groups", nil, "further groups of the command, names or numbers")
	flags.BoolVar(&o.join, "join", false, "join the grant of --key, made elsewhere, instead of asking for a uid")
	flags.BoolVar(&o.detach, "detach", false, "do not wait for what the command leaves running; the uid stays taken then")
	flags.StringVar(&o.onLost, "on-lost", onLostContinue, "when the grant is lost: continue, or kill the command")
	choices(cmd, "on-lost", onLostContinue, onLostKill)
	return cmd
}

// refused ends "uid exec" with the code that no command of its own means.
func refused(err error) error { return exitError{code: exitRefused, err: err} }

func (o *execOptions) args(_ *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return refused(usage("run what? a command is missing").Advise("so", "poolctl uid exec -- COMMAND …"))
	case o.onLost != onLostContinue && o.onLost != onLostKill:
		return refused(usage("--on-lost %q is neither continue nor kill", o.onLost))
	case o.join && o.key == "":
		return refused(usage("--join needs the --key of the grant to join"))
	case o.join && (o.pool != "" || o.holder != ""):
		return refused(usage("--pool and --holder are the grant's already; leave them away with --join"))
	}
	return nil
}

func (o *execOptions) run(ctx context.Context, args []string) error {
	if err := canExec(); err != nil {
		return refused(err)
	}
	groups, err := groupIDs(o.groups)
	if err != nil {
		return refused(err)
	}
	c, err := o.f.Client()
	if err != nil {
		return refused(err)
	}
	u, err := o.acquire(ctx, c)
	if err != nil {
		return refused(err)
	}
	// From here signals are the command's, and what was begun is ended.
	ctx = context.WithoutCancel(ctx)
	code, left, err := o.supervise(ctx, u, command{argv: args, groups: groups})
	if left {
		o.f.say("uid %s stays taken: what the command left running still has it\n"+
			"  when it has ended:  poolctl uid release %s", u, u)
	} else {
		o.release(ctx, u)
	}
	if code == 0 && err == nil {
		return nil
	}
	return exitError{code: code, err: err}
}

// acquire asks for a uid that is bound to this process.
func (o *execOptions) acquire(ctx context.Context, c *api.Client) (*api.LockedUID, error) {
	hold := api.Hold{Kind: api.HoldPID, PID: os.Getpid()}
	if o.join {
		targets, err := keyTargets(ctx, c, o.key, "not joined")
		if err != nil {
			return nil, err
		}
		if len(targets) > 1 {
			return nil, usage("key %s not joined: it has %d uids, a command runs under one", o.key, len(targets)).
				Advise("join them", "poolctl uid join --key %s", o.key)
		}
		return c.JoinUID(ctx, targets[0].uid, targets[0].ref, hold)
	}
	pool, err := choosePool(ctx, c, o.pool)
	if err != nil {
		return nil, err
	}
	return c.RequestUID(ctx, api.UIDRequest{Pool: pool, Key: o.key, Holder: o.holder, Hold: hold})
}

// supervise runs the command to its end. left tells that processes of it are
// left running, which only --detach allows. An error is about a command that
// never ran.
func (o *execOptions) supervise(ctx context.Context, u *api.LockedUID, cmd command) (code int, left bool, err error) {
	info := u.Info()
	cmd.uid, cmd.env = u.UID(), cleanEnv(u.UID(), info.Pool)
	if cmd.argv, err = absolute(cmd.argv); err != nil {
		return exitRefused, false, err
	}
	child, code, err := start(cmd)
	if err != nil {
		return code, false, err
	}
	ctx, cancel := context.WithCancel(ctx)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return child.forward(ctx) })
	g.Go(func() error { return o.confirm(ctx, u) })
	g.Go(func() error { return o.watch(ctx, u, child) })
	code, left = child.wait(!o.detach)
	cancel()
	_ = g.Wait()
	return code, left, nil
}

// confirm says that the command runs, again while the agent is silent. A
// command that has ended already needs no confirmation.
func (o *execOptions) confirm(ctx context.Context, u *api.LockedUID) error {
	told := false
	for {
		err := u.Confirm(ctx)
		retry := errors.Is(err, api.ErrUnavailable) || errors.Is(err, api.ErrOutcomeUnknown)
		switch {
		case err == nil, ctx.Err() != nil, errors.Is(err, api.ErrNotRunning), errors.Is(err, api.ErrLockLost), errors.Is(err, api.ErrNotHeld):
			return nil
		case !told:
			told = true
			o.f.say("uid %s is not confirmed: %v", u, err)
		}
		if !retry {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(confirmPause):
		}
	}
}

// watch acts when the grant is lost while the command runs.
func (o *execOptions) watch(ctx context.Context, u *api.LockedUID, child *child) error {
	err := u.Watch(ctx)
	if !errors.Is(err, api.ErrLockLost) {
		return nil
	}
	if o.onLost == onLostKill {
		o.f.say("uid %s is lost; the command is killed (--on-lost kill)", u)
		child.kill()
		return nil
	}
	o.f.say("uid %s is lost; the command runs on\n  nobody else gets the uid while it does; to end it instead: --on-lost kill", u)
	return nil
}

func (o *execOptions) release(ctx context.Context, u *api.LockedUID) {
	ctx, cancel := context.WithTimeout(ctx, releaseTimeout)
	defer cancel()
	if err := u.Release(ctx); err != nil {
		o.f.say("uid %s is not released: %v\n  nothing runs under it any more:  poolctl uid release %s", u, err, u)
	}
}

// command is what to run, and as whom.
type command struct {
	uid    uint32
	groups []uint32
	argv   []string
	env    []string
}

// cleanEnv is the whole environment of a command. The grant's token is not in
// it: whoever has it may end the grant.
func cleanEnv(uid uint32, pool string) []string {
	name := uidText(uid)
	env := []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/",
		"SHELL=/bin/sh",
		"USER=" + name,
		"LOGNAME=" + name,
		"IDPOOL_UID=" + name,
		"IDPOOL_POOL=" + pool,
	}
	if term, ok := os.LookupEnv("TERM"); ok {
		env = append(env, "TERM="+term)
	}
	return env
}

// absolute makes a relative path of a command mean the caller's directory,
// since the command starts in /.
func absolute(argv []string) ([]string, error) {
	if !strings.Contains(argv[0], "/") || filepath.IsAbs(argv[0]) {
		return argv, nil
	}
	path, err := filepath.Abs(argv[0])
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", argv[0], err)
	}
	argv = slices.Clone(argv)
	argv[0] = path
	return argv, nil
}

// groupIDs are the numbers of groups given by name or number, root's not among them.
func groupIDs(names []string) ([]uint32, error) {
	var ids []uint32
	for _, name := range names {
		text := name
		if _, err := strconv.ParseUint(name, 10, 32); err != nil {
			g, err := user.LookupGroup(name)
			if err != nil {
				return nil, usage("--groups: there is no group %q on this machine", name)
			}
			text = g.Gid
		}
		id, err := strconv.ParseUint(text, 10, 32)
		if err != nil || id == 4294967295 {
			return nil, usage("--groups: %q is no group id", name)
		}
		if id == 0 {
			return nil, problem.New(problem.CodeForbidden, "--groups: group 0 is root's and goes to nobody")
		}
		ids = append(ids, uint32(id))
	}
	return ids, nil
}
