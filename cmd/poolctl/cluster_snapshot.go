package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/idpool/idpool/cluster/backup"
)

func init() { clusterCommands = append(clusterCommands, newClusterSnapshotCmd) }

type clusterSnapshotOptions struct {
	c     *clusterFactory
	force bool
	check bool
}

func newClusterSnapshotCmd(c *clusterFactory) *cobra.Command {
	o := &clusterSnapshotOptions{c: c}
	cmd := &cobra.Command{
		Use:   "snapshot FILE",
		Short: "Save all that etcd holds, to be restored with etcdutl",
		Long: `Write etcd's own snapshot to FILE, verified by etcd's checksum and synced. It holds
every write that was acknowledged before; of an error or Ctrl-C nothing stays.

With etcd's authentication on only the administrator's certificate may do this (its
common name is root). The file holds every grant's token: keep it as you keep keys.

What to do after a restore is in docs/operations.md.`,
		Args: one("FILE"),
		RunE: runs(o.run),
	}
	c.addEtcd(cmd)
	cmd.Flags().BoolVar(&o.force, "force", false, "replace FILE if it is there")
	cmd.Flags().BoolVar(&o.check, "check", false, "only verify a FILE that is there; asks no etcd")
	return cmd
}

func (o *clusterSnapshotOptions) run(ctx context.Context, args []string) error {
	if o.check {
		s, err := backup.Check(args[0])
		if err != nil {
			return err
		}
		return printOne(o.c.Factory, snapshotSheet, s)
	}
	if err := o.c.needsEndpoints(); err != nil {
		return err
	}
	bar, end := o.c.bytesBar("snapshot")
	s, err := backup.Save(ctx, o.c.cfg, args[0], backup.Options{Force: o.force, Progress: bar})
	end()
	if err != nil {
		return err
	}
	return printOne(o.c.Factory, snapshotSheet, s)
}

var snapshotSheet = sheet[backup.Snapshot]{
	kind: "snapshot",
	id:   func(s backup.Snapshot) string { return s.File },
	columns: []column[backup.Snapshot]{
		{head: "FILE", cell: func(s backup.Snapshot) string { return s.File }},
		{head: "SIZE", cell: func(s backup.Snapshot) string { return fmt.Sprintf("%d (%s)", s.Size, bytesText(s.Size)) }},
		{head: "REVISION", cell: func(s backup.Snapshot) string { return strconv.FormatInt(s.Revision, 10) }},
		{head: "SHA256", cell: func(s backup.Snapshot) string { return s.SHA256 }},
		{head: "MEMBER", cell: func(s backup.Snapshot) string { return s.Member }},
		{head: "CLUSTER", cell: func(s backup.Snapshot) string { return s.Cluster }},
		{head: "STORAGE", cell: func(s backup.Snapshot) string { return s.Storage }},
	},
}

// bytesText is a number of bytes for people.
func bytesText(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	x, i := float64(n)/unit, 0
	for ; x >= unit && i < 3; i++ {
		x /= unit
	}
	return fmt.Sprintf("%.1f %s", x, [...]string{"KiB", "MiB", "GiB", "TiB"}[i])
}
