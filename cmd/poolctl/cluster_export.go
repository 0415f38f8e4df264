package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/cluster/backup"
	"github.com/idpool/idpool/problem"
)

func init() {
	clusterCommands = append(clusterCommands, newClusterExportCmd, newClusterImportCmd)
}

type clusterExportOptions struct {
	c     *clusterFactory
	only  string
	force bool
}

func newClusterExportCmd(c *clusterFactory) *cobra.Command {
	o := &clusterExportOptions{c: c}
	cmd := &cobra.Command{
		Use:   "export [FILE|-]",
		Short: "Write idpool's records as lines of JSON, to be moved or reviewed",
		Long: `Write everything that idpool keeps below its root, as it stood at one revision, to
FILE or stdout: a line a key, sorted. docs/export.md describes the format.

With --only pools the definitions of pools and inventories alone; the output stays the
same until one of them changes, so that it can be kept in git.

A whole export holds every grant's token: keep it as you keep keys.`,
		Args: atMostOne("FILE"),
		RunE: runs(o.run),
	}
	c.addEtcd(cmd)
	cmd.Flags().StringVar(&o.only, "only", "", "pools: the definitions of pools and inventories alone")
	cmd.Flags().BoolVar(&o.force, "force", false, "replace FILE if it is there")
	choices(cmd, "only", backup.OnlyPools)
	return cmd
}

func (o *clusterExportOptions) run(ctx context.Context, args []string) error {
	client, err := o.c.open(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	opts := backup.ExportOptions{Options: backup.Options{Force: o.force}, Only: o.only}
	if len(args) == 0 || args[0] == "-" {
		x, err := backup.Export(ctx, client, o.c.Out, opts)
		if err == nil {
			o.c.leftOut(x.Header)
		}
		return err
	}
	bar, end := o.c.keysBar("export")
	opts.Progress = bar
	x, err := backup.ExportFile(ctx, client, args[0], opts)
	end()
	if err != nil {
		return err
	}
	o.c.leftOut(x.Header)
	return printOne(o.c.Factory, exportSheet, x)
}

// leftOut warns of keys that nobody knows: they are not in the file.
func (c *clusterFactory) leftOut(h backup.Header) {
	if n := h.LeftOut[cluster.KindUnknown.String()]; n > 0 {
		c.say("%d keys below %s are none of idpool's that this version knows; they are not in the export", n, h.Root)
	}
}

func (c *clusterFactory) keysBar(what string) (told func(done, total int64), end func()) {
	return c.bar(func(done, total int64) string {
		return fmt.Sprintf("%s: %d of %d keys, %d %%", what, done, total, percent(done, total))
	})
}

type clusterImportOptions struct {
	c     *clusterFactory
	check bool
}

func newClusterImportCmd(c *clusterFactory) *cobra.Command {
	o := &clusterImportOptions{c: c}
	cmd := &cobra.Command{
		Use:   "import FILE|-",
		Short: "Make a cluster of an export, in an etcd that has none",
		Long: `Fill an empty root of etcd with an export. The file is verified to its last line before
anything is written; an import that stopped counts for nothing and goes on with the
same command. A root that holds anything is refused.

The cluster is frozen then, as one restored from a snapshot: point its agents here,
and let it grant again with poolctl cluster adopt-restore. A file of --only pools makes
a new cluster, with another epoch, that grants at once.`,
		Args: one("FILE"),
		RunE: runs(o.run),
	}
	c.addEtcd(cmd)
	cmd.Flags().BoolVar(&o.check, "check", false, "only verify FILE; asks no etcd")
	return cmd
}

func (o *clusterImportOptions) run(ctx context.Context, args []string) error {
	src, closeSrc, err := o.source(args[0])
	if err != nil {
		return err
	}
	defer closeSrc()
	if o.check {
		x, err := backup.Verify(src)
		if err != nil {
			return inFlag(args[0], err)
		}
		x.File = args[0]
		return printOne(o.c.Factory, exportSheet, x)
	}
	client, err := o.c.open(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	host, _ := os.Hostname()
	bar, end := o.c.keysBar("import")
	done, err := backup.Import(ctx, client, src, backup.ImportOptions{By: "poolctl on " + host, Progress: bar})
	end()
	if err != nil {
		return err
	}
	done.File = args[0]
	if done.Meta.State != cluster.StateNormal {
		o.c.hint("imported; it grants nothing until it is adopted\n  start its agents with these endpoints, then:  poolctl cluster adopt-restore --dry-run")
	}
	return printOne(o.c.Factory, importSheet, done)
}

// source opens what is read twice; stdin goes through a file without a name.
func (o *clusterImportOptions) source(name string) (io.ReadSeeker, func(), error) {
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, nil, problem.Wrap(problem.CodeInvalid, errors.Unwrap(err), "%s", name)
		}
		return f, func() { _ = f.Close() }, nil
	}
	f, err := os.CreateTemp("", "poolctl-import-*")
	if err != nil {
		return nil, nil, problem.Wrap(problem.CodeInternal, err, "keep what comes from stdin")
	}
	_ = os.Remove(f.Name())
	if _, err = io.Copy(f, o.c.In); err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		_ = f.Close()
		return nil, nil, problem.Wrap(problem.CodeInternal, err, "keep what comes from stdin")
	}
	return f, func() { _ = f.Close() }, nil
}

var exportSheet = sheet[backup.Exported]{
	kind: "export",
	id:   func(x backup.Exported) string { return x.File },
	columns: []column[backup.Exported]{
		{head: "FILE", cell: func(x backup.Exported) string { return x.File }},
		{head: "KEYS", cell: keysText},
		{head: "REVISION", cell: func(x backup.Exported) string { return fmt.Sprint(x.Header.Revision) }},
		{head: "EPOCH", cell: func(x backup.Exported) string { return fmt.Sprintf("%s (%d)", x.Header.Epoch, x.Header.Number) }},
		{head: "SHA256", cell: func(x backup.Exported) string { return x.SHA256 }},
	},
}

var importSheet = sheet[backup.Imported]{
	kind: "import",
	id:   func(x backup.Imported) string { return x.Root },
	columns: []column[backup.Imported]{
		{head: "ROOT", cell: func(x backup.Imported) string { return x.Root }},
		{head: "KEYS", cell: func(x backup.Imported) string { return keysText(x.Exported) }},
		{head: "EPOCH", cell: func(x backup.Imported) string { return fmt.Sprintf("%s (%d)", x.Meta.Epoch, x.Meta.Number) }},
		{head: "STATE", cell: func(x backup.Imported) string { return x.Meta.State }},
		{head: "REASON", cell: func(x backup.Imported) string { return x.Meta.Reason }},
	},
}

// keysText counts keys by kind.
func keysText(x backup.Exported) string {
	var parts []string
	for _, kind := range slices.Sorted(maps.Keys(x.Header.Counts)) {
		parts = append(parts, fmt.Sprintf("%d of kind %s", x.Header.Counts[kind], kind))
	}
	if len(parts) == 0 {
		return "0"
	}
	return fmt.Sprintf("%d: %s", x.Keys, strings.Join(parts, ", "))
}
