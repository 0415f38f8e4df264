package main

import (
	"context"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/idpool/idpool/api"
)

func init() { extraCommands = append(extraCommands, newEventsCmd) }

var eventSheet = sheet[api.Event]{
	kind: "event",
	id:   func(e api.Event) string { return e.ID },
	columns: []column[api.Event]{
		{head: "TIME", cell: func(e api.Event) string { return clock(e.Time) }},
		{head: "TYPE", cell: func(e api.Event) string { return e.Type }},
		{head: "ABOUT", cell: aboutText},
		{head: "CALLER", cell: func(e api.Event) string {
			if e.Audit != nil {
				return e.Audit.Caller
			}
			return orElse(e.Holder, e.Caller)
		}},
		{head: "REASON", cell: func(e api.Event) string {
			if e.Audit != nil {
				return e.Audit.Operation + ": " + e.Audit.Outcome
			}
			return e.Reason
		}},
		{head: "ID", wide: true, cell: func(e api.Event) string { return e.ID }},
		{head: "REVISION", wide: true, cell: func(e api.Event) string { return strconv.FormatInt(e.Revision, 10) }},
	},
}

func aboutText(e api.Event) string {
	if e.Audit != nil {
		return strings.Join(e.Audit.Subjects, " ")
	}
	return e.Subject
}

func newEventsCmd(f *Factory) *cobra.Command {
	var watch bool
	var which api.EventFilter
	cmd := &cobra.Command{
		Use:   "events",
		Short: "What happened lately; with --watch, what happens",
		Long: `What happened to uids, VLANs, services, pools and nodes, and who asked this agent
for a change. Without --watch: what the agent remembers. With it: from now on,
over lost connections too, until interrupted. An event "reset" says that some
cannot be told: list again.`,
		Args: cobra.NoArgs,
		RunE: runs(func(ctx context.Context, _ []string) error {
			c, err := f.Client()
			if err != nil {
				return err
			}
			which.Once, which.Recent = !watch, !watch
			if watch && f.format == formatJSON {
				f.format = formatJSONL
			}
			if !watch {
				items, err := collect(c.Events(ctx, which))
				if err != nil {
					return err
				}
				return printList(f, eventSheet, items, nil)
			}
			l := listing[api.Event]{sheet: eventSheet}
			heads := true
			for e, err := range c.Events(ctx, which) {
				switch {
				case ctx.Err() != nil:
					return nil
				case err != nil:
					return err
				}
				if err := l.write(f, []api.Event{e}, heads); err != nil {
					return err
				}
				heads = false
			}
			return nil
		}),
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "go on until interrupted")
	cmd.Flags().StringSliceVar(&which.Types, "type", nil, "only these, e.g. uid, uid.free, audit")
	cmd.Flags().StringSliceVar(&which.Subjects, "about", nil, "only what is about these, e.g. uid/70012, service/edge-7")
	cmd.Flags().StringVar(&which.After, "after", "", "resume after the event of this id")
	return cmd
}
