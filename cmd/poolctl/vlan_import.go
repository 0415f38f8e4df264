package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/vlan"
)

const (
	// manyVLANs is from how many on an import tells how far it is.
	manyVLANs = 500
	// maxSent is how long a pool file is sent as it stands, in bytes.
	maxSent = 1 << 20
)

type inventoryImportOptions struct {
	f    *Factory
	opts api.ImportOptions
}

func newInventoryImportCmd(f *Factory) *cobra.Command {
	o := &inventoryImportOptions{f: f}
	cmd := &cobra.Command{
		Use:   "import NAME FILE|-",
		Short: "Take over what a pool file has in use",
		Long: `Make claims of the ids that a pool file has in use, so that nobody is granted them.
An inventory that does not exist, or has no ranges, gets the file's range. The file is
only read. Importing again changes nothing.`,
		Args: two("NAME", "FILE"),
		RunE: runs(o.run),
	}
	cmd.Flags().BoolVar(&o.opts.DryRun, "dry-run", false, "say what would be done, do nothing")
	cmd.Flags().BoolVar(&o.opts.ToRanges, "to-ranges", false, "an inventory that is kept in a file gets ranges of its own instead")
	return cmd
}

func (o *inventoryImportOptions) run(ctx context.Context, args []string) error {
	data, file, err := o.read(args[1])
	if err != nil {
		return inFlag("nothing imported into inventory "+args[0], err)
	}
	c, err := o.f.Client()
	if err != nil {
		return err
	}
	var r api.ImportResult
	told, done := context.WithCancel(ctx)
	defer done()
	var g errgroup.Group
	if n := file.Used().Count(); n >= manyVLANs && terminal(o.f.Err) && !o.opts.DryRun {
		g.Go(func() error { o.progress(told, c, args[0], n); return nil })
	}
	r, err = c.Inventories().Import(ctx, args[0], data, o.opts)
	done()
	_ = g.Wait()
	if err != nil {
		return err
	}
	return o.print(args[0], r)
}

// read returns a pool file as it is sent, and what is in it.
func (o *inventoryImportOptions) read(path string) ([]byte, *vlan.PoolFile, error) {
	in := o.f.In
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, nil, problem.Wrap(problem.CodeInvalid, errors.Unwrap(err), "%s", path)
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxStdin+1))
	if err != nil {
		return nil, nil, problem.Wrap(problem.CodeInvalid, err, "%s", path)
	}
	file, err := vlan.ParsePoolFile(data)
	if err != nil {
		return nil, nil, inFlag(path, err)
	}
	if len(data) > maxSent {
		data, err = lean(file)
	}
	return data, file, err
}

// lean is a file without blanks and without what idpool does not know.
func lean(f *vlan.PoolFile) ([]byte, error) {
	from, to := f.Range()
	keys := f.Allocations()
	used := f.Used().Remove(idset.New(slices.Collect(maps.Values(keys))...))
	small, err := vlan.NewPoolFile(from, to, slices.Collect(used.All()), keys)
	if err != nil {
		return nil, err
	}
	return small.Encode(), nil
}

// progress counts on one line of a terminal until ctx ends.
func (o *inventoryImportOptions) progress(ctx context.Context, c *api.Client, name string, total uint64) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	defer fmt.Fprint(o.f.Err, "\r\x1b[K")
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		i, err := c.Inventories().Get(ctx, name)
		if err != nil {
			continue
		}
		var n uint64
		for state, count := range i.Counts {
			if state != api.StateFree {
				n += count
			}
		}
		fmt.Fprintf(o.f.Err, "\rpoolctl: %d of %d VLANs imported", min(n, total), total)
	}
}

// terminal tells whether somebody may be looking.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func (o *inventoryImportOptions) print(name string, r api.ImportResult) error {
	table := o.f.format == formatTable || o.f.format == formatWide
	if o.f.quiet || table || o.f.format == formatName {
		o.f.warn(r.Warnings)
	}
	verb := "imported"
	if r.DryRun {
		o.f.hint("nothing was done (--dry-run); this would be")
		verb = "would be imported"
	}
	switch {
	case r.Count > 0:
		o.f.hint("%d VLANs %s into inventory %s: %s", r.Count, verb, name, r.Imported)
	case r.Present != "":
		o.f.hint("no VLAN %s into inventory %s: it has all of them claimed already", verb, name)
	default:
		o.f.hint("no VLAN %s into inventory %s: the file has none in use", verb, name)
	}
	if table {
		return printOne(o.f, inventorySheet, r.Inventory)
	}
	if o.f.quiet || o.f.format == formatName {
		return printOne(o.f, inventorySheet, r.Inventory)
	}
	return writeObject(o.f, r)
}
