package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/problem"
)

// envPool names the environment variable with the pool that --pool defaults to.
const envPool = "IDPOOL_POOL"

// defaultHold is what a request without --hold asks for.
const defaultHold = "ttl=5m"

type requestOptions struct {
	f      *Factory
	pool   string
	from   string
	uid    uint32
	count  int
	key    string
	holder string
	hold   string
	wait   time.Duration
}

func newRequestCmd(f *Factory) *cobra.Command {
	o := &requestOptions{f: f}
	cmd := &cobra.Command{
		Use:   "request",
		Short: "Ask for a uid that nobody has and nothing runs under",
		Long: `Ask for a uid that nobody has and nothing runs under. The uid is locked until it
is confirmed or its hold ends: start your process under it, then confirm.

With --key the same request can be sent again and returns the same uid.`,
		Example: `  uid=$(poolctl -q uid request --pool jobs --key job-4711)
  poolctl uid request --hold pid=$$`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("uid") && o.uid == 0 {
				return usage("uid 0 is root's and never granted")
			}
			return runs(func(ctx context.Context, _ []string) error { return o.run(ctx) })(cmd, args)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.pool, "pool", "", poolHelp)
	flags.StringVar(&o.from, "from", "", "only uids of these ranges")
	flags.Uint32Var(&o.uid, "uid", 0, "this uid and no other")
	flags.IntVar(&o.count, "count", 1, "uids granted together, all or none, at most "+strconv.Itoa(api.MaxCount))
	flags.StringVar(&o.key, "key", "", "allocation key: your name for this request")
	flags.StringVar(&o.holder, "holder", "", "what others are shown as the holder")
	flags.StringVar(&o.hold, "hold", defaultHold, "what keeps the uid until it is confirmed: ttl=DURATION or pid=PID")
	flags.DurationVar(&o.wait, "wait", 0, "wait this long for a uid when none is free")
	return cmd
}

const poolHelp = "the pool (IDPOOL_POOL; default: the only one there is)"

func (o *requestOptions) run(ctx context.Context) error {
	hold, err := parseHold(o.hold)
	if err != nil {
		return err
	}
	if o.count < 1 {
		return usage("--count is %d; a request is for 1 to %d uids", o.count, api.MaxCount)
	}
	from, err := normalRanges("--from", o.from)
	if err != nil {
		return err
	}
	c, err := o.f.Client()
	if err != nil {
		return err
	}
	pool, err := choosePool(ctx, c, o.pool)
	if err != nil {
		return err
	}
	grant, err := c.Grant(ctx, api.UIDRequest{
		Pool: pool, From: from, UID: o.uid, Count: o.count, Key: o.key, Holder: o.holder, Hold: hold, Wait: o.wait,
	})
	if err != nil {
		return err
	}
	o.whatNext(grant)
	if o.count > 1 {
		return printList(o.f, uidSheet, grant.Items, grant)
	}
	if o.f.format == formatTable || o.f.format == formatWide {
		return printList(o.f, uidSheet, grant.Items, nil)
	}
	return printOne(o.f, uidSheet, grant.Items[0])
}

// whatNext tells how the grant goes on.
func (o *requestOptions) whatNext(g api.Grant) {
	first := g.Items[0]
	which, by := "uid "+uidAndBlock(first), uidText(first.UID)+" --token "+g.Token
	if len(g.Items) > 1 {
		which, by = fmt.Sprintf("%d uids", len(g.Items)), "UID --token "+g.Token+"   (for each)"
	}
	if g.Key != "" {
		by = "--key " + g.Key
	}
	again := ""
	if g.Same {
		again = ", as before,"
	}
	if first.State != api.StateLocked {
		o.f.hint("%s of pool %s: yours%s and confirmed; token %s\n  give back:  poolctl uid release %s",
			which, first.Pool, again, g.Token, by)
		return
	}
	o.f.hint("%s of pool %s: yours%s until %s; token %s\n"+
		"  start your process under it, then:  poolctl uid confirm %s\n"+
		"  or give back:                       poolctl uid release %s",
		which, first.Pool, again, holdEnd(first.Hold), g.Token, by, by)
}

// holdEnd says until when a hold keeps its grant.
func holdEnd(h *api.Hold) string {
	switch {
	case h == nil:
		return "it is confirmed"
	case h.Kind == api.HoldPID:
		return fmt.Sprintf("process %d and its children are gone", h.PID)
	case h.Until != nil:
		return problem.Clock(*h.Until)
	}
	return "its ttl ends"
}

// parseHold reads ttl=DURATION or pid=PID.
func parseHold(s string) (api.Hold, error) {
	kind, value, ok := strings.Cut(s, "=")
	if ok {
		switch kind {
		case api.HoldTTL:
			d, err := time.ParseDuration(value)
			if err != nil || d < time.Second || d > 24*time.Hour {
				return api.Hold{}, usage("--hold %s: a ttl is a duration from 1s to 24h, such as 5m", s)
			}
			return api.Hold{Kind: api.HoldTTL, TTL: value}, nil
		case api.HoldPID:
			pid, err := strconv.ParseInt(value, 10, 32)
			if err != nil || pid < 1 {
				return api.Hold{}, usage("--hold %s: %q is no process id", s, value)
			}
			return api.Hold{Kind: api.HoldPID, PID: int(pid)}, nil
		}
	}
	return api.Hold{}, usage("--hold %q is neither ttl=DURATION nor pid=PID", s).
		Advise("until a time", "--hold ttl=5m").
		Advise("while a process lives", "--hold pid=$$")
}

// choosePool is the pool named, by flag or environment, or the only one.
func choosePool(ctx context.Context, c *api.Client, named string) (string, error) {
	if named == "" {
		named = os.Getenv(envPool)
	}
	if named != "" {
		return named, nil
	}
	pools, err := c.Pools().List(ctx)
	if err != nil {
		return "", err
	}
	switch len(pools) {
	case 0:
		return "", noPool()
	case 1:
		return pools[0].Name, nil
	}
	names := make([]string, 0, len(pools))
	for _, p := range pools {
		names = append(names, p.Name)
	}
	return "", usage("which pool? there are %d: %s", len(pools), strings.Join(names, ", ")).
		Advise("name it", "--pool %s   or   export %s=%s", names[0], envPool, names[0])
}

func noPool() *problem.Error {
	return problem.New(problem.CodeNotFound, "there is no uid pool yet").
		Advise("which ranges would do", "poolctl uid pool suggest --count 1000").
		Advise("then", "poolctl uid pool set default RANGES")
}
