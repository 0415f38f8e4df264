package main

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/idpool/idpool/api"
)

var reservationSheet = sheet[api.ReservationResult]{
	kind: "uids",
	id:   func(r api.ReservationResult) string { return r.Ranges },
	columns: []column[api.ReservationResult]{
		{head: "RANGES", cell: func(r api.ReservationResult) string { return r.Ranges }},
		{head: "CHANGED", cell: func(r api.ReservationResult) string { return strconv.FormatUint(r.Changed, 10) }},
	},
}

type reserveOptions struct {
	f      *Factory
	reason string
	end    bool
}

func newReserveCmd(f *Factory) *cobra.Command {
	o := &reserveOptions{f: f}
	cmd := &cobra.Command{
		Use:   "reserve RANGES --reason TEXT",
		Short: "Keep uids out of every hand-out",
		Args:  one("RANGES"),
		RunE:  runs(o.run),
	}
	cmd.Flags().StringVar(&o.reason, "reason", "", "why, shown to whoever meets it (required)")
	return cmd
}

func newUnreserveCmd(f *Factory) *cobra.Command {
	o := &reserveOptions{f: f, end: true}
	return &cobra.Command{
		Use:   "unreserve RANGES",
		Short: "End a reservation; the uids are free once proven unused",
		Args:  one("RANGES"),
		RunE:  runs(o.run),
	}
}

func (o *reserveOptions) run(ctx context.Context, args []string) error {
	ranges, err := normalRanges("RANGES", args[0])
	if err != nil {
		return err
	}
	if ranges == "" {
		return usage("no uid was named")
	}
	if !o.end && o.reason == "" {
		return usage("uids %s not reserved: say why, others will ask", ranges).
			Advise("so", "poolctl uid reserve %s --reason \"…\"", ranges)
	}
	c, err := o.f.Client()
	if err != nil {
		return err
	}
	var r api.ReservationResult
	if o.end {
		r, err = c.UIDs().Unreserve(ctx, ranges)
	} else {
		r, err = c.UIDs().Reserve(ctx, ranges, o.reason)
	}
	if err != nil {
		return err
	}
	return printOne(o.f, reservationSheet, r)
}
