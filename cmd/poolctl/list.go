package main

import (
	"bytes"
	"context"
	"encoding/json"
	"time"

	"github.com/spf13/cobra"

	"github.com/idpool/idpool/api"
)

type uidListOptions struct {
	f        *Factory
	filter   api.UIDFilter
	watch    bool
	interval time.Duration
}

func newUIDListCmd(f *Factory) *cobra.Command {
	o := &uidListOptions{f: f}
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List uids that are held, waiting or reserved",
		Args:    cobra.NoArgs,
		RunE:    runs(func(ctx context.Context, _ []string) error { return o.run(ctx) }),
	}
	flags := cmd.Flags()
	flags.StringVar(&o.filter.State, "state", "", "only this state: locked, used, idle, quarantined, reserved or free")
	flags.StringVar(&o.filter.Node, "node", "", "only those of this node")
	flags.StringVar(&o.filter.Pool, "pool", "", "only those of this pool")
	flags.StringVar(&o.filter.Holder, "holder", "", "only those of this holder")
	flags.StringVar(&o.filter.Key, "key", "", "only those of this allocation key")
	flags.StringVar(&o.filter.UIDs, "uids", "", "only those of these ranges")
	flags.IntVar(&o.filter.PID, "pid", 0, "only those granted to this process of the node")
	flags.BoolVar(&o.watch, "watch", false, "go on, and write what changes")
	flags.DurationVar(&o.interval, "interval", 2*time.Second, "how often --watch looks")
	stateChoices(cmd)
	return cmd
}

func (o *uidListOptions) run(ctx context.Context) error {
	ranges, err := normalRanges("--uids", o.filter.UIDs)
	if err != nil {
		return err
	}
	o.filter.UIDs = ranges
	if o.interval <= 0 {
		return usage("--interval %s is not above 0", o.interval)
	}
	c, err := o.f.Client()
	if err != nil {
		return err
	}
	items, err := o.fetch(ctx, c)
	if err != nil {
		return err
	}
	if len(items) == 0 {
		o.f.hint("no uid is %s", o.sought())
	}
	if !o.watch {
		return printList(o.f, uidSheet, items, nil)
	}
	return o.follow(ctx, c, items)
}

func (o *uidListOptions) fetch(ctx context.Context, c *api.Client) ([]api.UID, error) {
	var items []api.UID
	for u, err := range c.UIDs().List(ctx, o.filter) {
		if err != nil {
			return nil, err
		}
		items = append(items, u)
	}
	return items, nil
}

// sought says what an empty list has none of.
func (o *uidListOptions) sought() string {
	if o.filter != (api.UIDFilter{}) {
		return "like that"
	}
	return "held, waiting or reserved"
}

// follow writes the items and then, until interrupted, each one that changed:
// a row, or a line of JSON.
func (o *uidListOptions) follow(ctx context.Context, c *api.Client, items []api.UID) error {
	if o.f.format == formatJSON {
		o.f.format = formatJSONL
	}
	tick := time.NewTicker(o.interval)
	defer tick.Stop()
	var before []api.UID
	heads := true
	for {
		changed := changes(before, items)
		if err := o.write(changed, heads); err != nil {
			return err
		}
		heads = heads && len(changed) == 0
		before = items
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		var err error
		if items, err = o.fetch(ctx, c); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
}

func (o *uidListOptions) write(items []api.UID, heads bool) error {
	if !o.f.quiet && (o.f.format == formatTable || o.f.format == formatWide) {
		return uidSheet.table(o.f.Out, items, o.f.format == formatWide, heads)
	}
	if len(items) == 0 {
		return nil
	}
	return printList(o.f, uidSheet, items, nil)
}

// changes are the items that are new or other than before, and those that are
// gone, as free.
func changes(before, now []api.UID) []api.UID {
	old := make(map[uint32]api.UID, len(before))
	for _, u := range before {
		old[u.UID] = u
	}
	var out []api.UID
	for _, u := range now {
		was, ok := old[u.UID]
		delete(old, u.UID)
		if !ok || !sameUID(was, u) {
			out = append(out, u)
		}
	}
	for _, u := range before {
		if _, gone := old[u.UID]; gone {
			out = append(out, api.UID{UID: u.UID, GID: u.GID, Count: u.Count, Pool: u.Pool, State: api.StateFree, InPool: u.InPool})
		}
	}
	return out
}

// sameUID compares what is shown; the JSON has all of it.
func sameUID(a, b api.UID) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

type uidShowOptions struct{ f *Factory }

func newUIDShowCmd(f *Factory) *cobra.Command {
	o := &uidShowOptions{f: f}
	return &cobra.Command{
		Use:   "show UID",
		Short: "Show who has a uid, or what it waits for",
		Args:  one("UID"),
		RunE:  runs(o.run),
	}
}

func (o *uidShowOptions) run(ctx context.Context, args []string) error {
	uid, err := parseUID(args[0])
	if err != nil {
		return err
	}
	c, err := o.f.Client()
	if err != nil {
		return err
	}
	u, err := c.UIDs().Get(ctx, uid)
	if err != nil {
		return err
	}
	return printOne(o.f, uidSheet, u)
}
