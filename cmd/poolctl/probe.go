package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/uidpool"
)

var usageSheet = sheet[uidpool.Usage]{
	kind: "uid",
	id:   func(u uidpool.Usage) string { return u.UID.String() },
	columns: []column[uidpool.Usage]{
		{head: "UID", cell: func(u uidpool.Usage) string { return u.UID.String() }},
		{head: "IN USE", cell: func(u uidpool.Usage) string { return yes(u.InUse) }},
		{head: "BY", cell: byText},
	},
}

func byText(u uidpool.Usage) string {
	parts := make([]string, 0, len(u.By))
	for _, p := range u.By {
		parts = append(parts, p.String())
	}
	return strings.Join(parts, ", ")
}

type probeOptions struct{ f *Factory }

func newProbeCmd(f *Factory) *cobra.Command {
	o := &probeOptions{f: f}
	return &cobra.Command{
		Use:   "probe UID…",
		Short: "Look whether anything runs under a uid here; needs no agent",
		Long: `Look whether any process or thread of this machine has a uid as real, effective,
saved or filesystem uid. Needs neither agent nor etcd.

Exit codes: 0 none is in use, 3 some are, 5 it cannot be told.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage("which UID? none was named")
			}
			return nil
		},
		RunE: runs(func(_ context.Context, args []string) error { return o.run(args) }),
	}
}

func (o *probeOptions) run(args []string) error {
	var uids []uidpool.UID
	for _, arg := range args {
		uid, err := parseUID(arg)
		if err != nil {
			return err
		}
		uids = append(uids, uidpool.UID(uid))
	}
	used := 0
	items := make([]uidpool.Usage, 0, len(uids))
	for _, uid := range uids {
		u, err := uidpool.Probe(uid)
		if err != nil {
			return doubt(uid, err)
		}
		if u.By == nil {
			u.By = []uidpool.Process{}
		}
		if u.InUse {
			used++
		}
		items = append(items, u)
	}
	if err := printList(o.f, usageSheet, items, api.List[uidpool.Usage]{Items: items}); err != nil {
		return err
	}
	if used > 0 {
		return exitError{code: 3}
	}
	return nil
}

// doubt makes every reason for not knowing end with exit code 5; a number that
// is never a uid stays what it is.
func doubt(uid uidpool.UID, err error) error {
	if problem.CodeOf(err).ExitCode() == problem.CodeNoProof.ExitCode() || problem.CodeOf(err) == problem.CodeInvalid {
		return err
	}
	return exitError{code: problem.CodeNoProof.ExitCode(), err: fmt.Errorf("cannot tell whether uid %s is in use: %w", uid, err)}
}
