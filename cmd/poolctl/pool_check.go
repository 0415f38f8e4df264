package main

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/uidpool"
)

// poolCheck is what "uid pool check" and "suggest" tell of a definition.
type poolCheck struct {
	Ranges   string   `json:"ranges"`
	Count    uint64   `json:"count"`
	Warnings []string `json:"warnings"`
}

var checkSheet = sheet[poolCheck]{
	kind: "ranges",
	id:   func(c poolCheck) string { return c.Ranges },
	columns: []column[poolCheck]{
		{head: "RANGES", cell: func(c poolCheck) string { return c.Ranges }},
		{head: "COUNT", cell: func(c poolCheck) string { return strconv.FormatUint(c.Count, 10) }},
	},
}

type poolCheckOptions struct {
	f         *Factory
	separator string
	exclude   string
}

func newPoolCheckCmd(f *Factory) *cobra.Command {
	o := &poolCheckOptions{f: f}
	cmd := &cobra.Command{
		Use:   "check RANGES|-",
		Short: "Check a definition; needs no agent",
		Long: `Print a definition's normal form and how many uids it has; say on stderr what it
overlaps on this host. A definition that could never be granted is refused.`,
		Args: one("RANGES"),
		RunE: runs(o.run),
	}
	cmd.Flags().StringVar(&o.separator, "separator", uidpool.ParseSeparator, "what separates ranges")
	cmd.Flags().StringVar(&o.exclude, "exclude", "", "without these uids")
	return cmd
}

func (o *poolCheckOptions) run(_ context.Context, args []string) error {
	value, err := readDefinition(args[0], o.separator, o.f.In)
	if err != nil {
		return err
	}
	exclude, err := parseRanges("--exclude", o.exclude, o.separator)
	if err != nil {
		return err
	}
	d, err := define(value, o.separator, exclude)
	if err != nil {
		return err
	}
	return o.f.printCheck(d.ranges.Remove(idset.Of(exclude...)), d.warnings)
}

// printCheck writes ranges; warnings go into the object, or to stderr.
func (f *Factory) printCheck(s idset.Set, warnings []string) error {
	c := poolCheck{
		Ranges:   uidpool.Format(s.RangeList(), uidpool.FormatSeparator),
		Count:    s.Count(),
		Warnings: append([]string{}, warnings...),
	}
	if f.format == formatTable || f.format == formatWide || f.format == formatName || f.quiet {
		f.warn(warnings)
	}
	return printOne(f, checkSheet, c)
}

type poolSuggestOptions struct {
	f     *Factory
	count uint64
}

func newPoolSuggestCmd(f *Factory) *cobra.Command {
	o := &poolSuggestOptions{f: f}
	cmd := &cobra.Command{
		Use:   "suggest --count N",
		Short: "Suggest ranges that nothing on this host claims; needs no agent",
		Args:  cobra.NoArgs,
		RunE:  runs(func(context.Context, []string) error { return o.run() }),
	}
	cmd.Flags().Uint64Var(&o.count, "count", 0, "how many uids (required)")
	_ = cmd.MarkFlagRequired("count")
	return cmd
}

func (o *poolSuggestOptions) run() error {
	ranges, err := uidpool.Suggest(o.count, uidpool.HostFiles{}.Claimed()...)
	if err != nil {
		return err
	}
	return o.f.printCheck(idset.Of(ranges...), uidpool.Warnings(ranges, uidpool.HostFiles{}))
}
