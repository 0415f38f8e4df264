package main

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/idpool/idpool/api"
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
	// What of ours the command keeps, and what it gets of its own.
	env        []string
	keepFDs    []int
	chdir      string
	privateTmp bool
	ipc        string
	cgroup     bool
	noNewPrivs bool
}

func newExecCmd(f *Factory) *cobra.Command { return (&execOptions{f: f}).cobra() }

func (o *execOptions) cobra() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "exec [flags] -- COMMAND [ARG…]",
		Short: "Run a command under a uid of its own",
		Long: `Ask for a uid, run a command under it, and give the uid back when the command and
whatever it started have ended. Needs root.

The command gets the uid and the gid of the same number, no other groups but those
of --groups, no capability and no way to one (setuid programs do not work), a new
session keyring, System V IPC and message queues of its own, a session of its own
and, where ours is a terminal, a new terminal; none of our open files but the first
three and those of --keep-fd; umask 077, / as its directory; and of the environment
PATH, HOME, SHELL, USER, LOGNAME, TERM, IDPOOL_UID, IDPOOL_POOL and what --env
names. Signals are passed on to it. When poolctl is killed the command lives on and
keeps the uid.

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
	o.flags(cmd)
	return cmd
}

func (o *execOptions) flags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&o.pool, "pool", "", poolHelp)
	flags.StringVar(&o.key, "key", "", "allocation key: your name for this request")
	flags.StringVar(&o.holder, "holder", "", "what others are shown as the holder")
	flags.StringSliceVar(&o.groups, "groups", nil, "further groups of the command, names or numbers")
	flags.BoolVar(&o.join, "join", false, "join the grant of --key, made elsewhere, instead of asking for a uid")
	flags.BoolVar(&o.detach, "detach", false, "do not wait for what the command leaves running; the uid stays taken then")
	flags.StringVar(&o.onLost, "on-lost", onLostContinue, "when the grant is lost: continue, or kill the command")
	choices(cmd, "on-lost", onLostContinue, onLostKill)
	flags.StringArrayVar(&o.env, "env", nil, "NAME=VALUE for the command's environment, or NAME to pass ours; may be repeated")
	flags.IntSliceVar(&o.keepFDs, "keep-fd", nil, "numbers of open files that the command keeps")
	flags.StringVar(&o.chdir, "chdir", "", "start in this directory instead of / (looked up as the uid)")
	flags.BoolVar(&o.privateTmp, "private-tmp", false, "empty /tmp, /var/tmp and /dev/shm of its own, gone with the command")
	flags.StringVar(&o.ipc, "ipc", ipcPrivate, "System V IPC and message queues: private, or the host's")
	choices(cmd, "ipc", ipcPrivate, ipcHost)
	flags.BoolVar(&o.cgroup, "cgroup", false, "run it in a cgroup of its own, below ours (cgroup v2)")
	flags.BoolVar(&o.noNewPrivs, "no-new-privs", true, "=false lets setuid programs and file capabilities work")
}

// refused ends "uid exec" with the code that no command of its own means.
func refused(err error) error { return exitError{code: exitRefused, err: err} }

func (o *execOptions) args(_ *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return refused(usage("run what? a command is missing").Advise("so", "poolctl uid exec -- COMMAND …"))
	case o.onLost != onLostContinue && o.onLost != onLostKill:
		return refused(usage("--on-lost %q is neither continue nor kill", o.onLost))
	case o.ipc != ipcPrivate && o.ipc != ipcHost:
		return refused(usage("--ipc %q is neither private nor host", o.ipc))
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
	cmd, err := o.command(args)
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
	code, left, err := o.supervise(ctx, u, cmd)
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
	cmd.uid, cmd.env = u.UID(), cleanEnv(u.UID(), info.Pool, cmd.env)
	child, code, err := start(cmd)
	if err != nil {
		return code, false, err
	}
	ctx, cancel := context.WithCancel(ctx)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return child.forward(ctx) })
	g.Go(func() error { return child.relay(ctx) })
	g.Go(func() error { return o.confirm(ctx, u) })
	g.Go(func() error { return o.watch(ctx, u, child) })
	code, left = child.wait(!o.detach)
	cancel()
	_ = g.Wait()
	child.finish()
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
