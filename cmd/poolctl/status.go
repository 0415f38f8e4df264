package main

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/problem"
)

func newStatusCmd(f *Factory) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show how agent, node and cluster are",
		Args:  cobra.NoArgs,
		RunE: runs(func(ctx context.Context, _ []string) error {
			c, err := f.Client()
			if err != nil {
				return err
			}
			st, err := c.Status(ctx)
			if err != nil {
				return err
			}
			return f.printStatus(st)
		}),
	}
}

func (f *Factory) printStatus(st api.Status) error {
	switch {
	case f.quiet:
		_, err := fmt.Fprintln(f.Out, flat(st.Node))
		return err
	case f.format == formatName:
		_, err := fmt.Fprintln(f.Out, "node/"+flat(st.Node))
		return err
	case f.format != formatTable && f.format != formatWide:
		return writeObject(f, st)
	}
	w := tabwriter.NewWriter(f.Out, 0, 0, 2, ' ', 0)
	for _, line := range statusLines(st) {
		if line[1] != "" {
			fmt.Fprintf(w, "%s:\t%s\n", line[0], flat(line[1]))
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	wide := f.format == formatWide
	if len(st.Pools) > 0 {
		fmt.Fprintln(f.Out)
		if err := poolSheet.table(f.Out, st.Pools, wide, true); err != nil {
			return err
		}
	}
	if len(st.Inventories) > 0 {
		fmt.Fprintln(f.Out)
		if err := inventorySheet.table(f.Out, st.Inventories, wide, true); err != nil {
			return err
		}
	}
	if len(st.Nodes) > 0 {
		fmt.Fprintln(f.Out)
		if err := nodeSheet.table(f.Out, st.Nodes, wide, true); err != nil {
			return err
		}
	}
	if wide && len(st.Settings) > 0 {
		fmt.Fprintln(f.Out)
		return settingSheet.table(f.Out, st.Settings, wide, true)
	}
	return nil
}

// settingSheet is the configuration in effect.
var settingSheet = sheet[api.Setting]{
	kind: "setting",
	id:   func(s api.Setting) string { return s.Name },
	columns: []column[api.Setting]{
		{head: "SETTING", cell: func(s api.Setting) string { return s.Name }},
		{head: "VALUE", cell: func(s api.Setting) string { return s.Value }},
		{head: "FROM", cell: func(s api.Setting) string { return s.Source }},
		{head: "WHERE", cell: func(s api.Setting) string { return s.Where }},
		{head: "RELOADS", cell: func(s api.Setting) string { return yes(s.Reloads) }},
	},
}

// settingsText are the settings that have not their default.
func settingsText(all []api.Setting) string {
	var parts []string
	for _, s := range all {
		if s.Source != api.SourceDefault {
			parts = append(parts, s.Name+"="+s.Value+" ("+s.Source+")")
		}
	}
	return strings.Join(parts, ", ")
}

func statusLines(st api.Status) [][2]string {
	ready := "yes"
	if !st.Ready {
		ready = "no: " + strings.Join(st.NotReady, "; ")
	}
	where := strings.Join(st.Endpoints, ", ")
	if st.Embedded {
		where = strings.TrimSpace(where + " (embedded)")
	}
	cluster, revision := "", ""
	if st.ClusterID != "" {
		cluster = fmt.Sprintf("%s, epoch %d (%s)", st.ClusterID, st.EpochNumber, st.EpochState)
		revision = fmt.Sprint(st.Revision)
	}
	return [][2]string{
		{"node", fmt.Sprintf("%s (%s)", st.Node, st.State)},
		{"ready", ready},
		{"agent", fmt.Sprintf("%s, pid %d, %s", st.Version, st.PID, st.Socket)},
		{"etcd", where},
		{"cluster", cluster},
		{"recovery", recoveryText(st.Recovery)},
		{"session", st.Session},
		{"revision", revision},
		{"mirror", st.MirrorStale},
		{"no proof", st.NoProof},
		{"uids", holdsText(st.Counts)},
		{"services", servicesText(st.Services)},
		{"settings", settingsText(st.Settings)},
		{"unreadable", strings.Join(st.Unreadable, ", ")},
	}
}

// recoveryText says what a restore of etcd has brought about.
func recoveryText(r *api.Recovery) string {
	if r == nil {
		return ""
	}
	parts := []string{"frozen"}
	if r.Adopted {
		parts[0] = "the nodes say what they hold"
	}
	if r.By != "" {
		parts = append(parts, "by "+r.By)
	}
	if r.Since != nil {
		parts = append(parts, "since "+problem.Clock(*r.Since))
	}
	text := strings.Join(parts, ", ")
	if r.Reason != "" {
		text += ": " + r.Reason
	}
	var waits []string
	for _, w := range r.WaitsFor {
		waits = append(waits, w.Node+" ("+w.Why+")")
	}
	if len(waits) > 0 {
		text += "; waits for " + strings.Join(waits, ", ")
	}
	if n := len(r.Disputed); n > 0 {
		text += fmt.Sprintf("; %d disputed: poolctl check", n)
	}
	return text
}

// servicesText counts services in the order of a service's life.
func servicesText(services map[string]uint64) string {
	var parts []string
	for _, state := range []string{
		api.ServiceAllocating, api.ServiceAllocated, api.ServiceRejected, api.ServiceProvisioning, api.ServiceUp, api.ServiceDeallocating, api.ServiceFailed,
	} {
		if n := services[state]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, state))
		}
	}
	return strings.Join(parts, ", ")
}

// versionInfo is what "version" tells.
type versionInfo struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func newVersionCmd(f *Factory) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version; needs no agent",
		Args:  cobra.NoArgs,
		RunE: runs(func(context.Context, []string) error {
			v := versionInfo{Version: api.Version(), Commit: api.Commit(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
			switch {
			case f.quiet:
				_, err := fmt.Fprintln(f.Out, v.Version)
				return err
			case f.format == formatTable || f.format == formatWide || f.format == formatName:
				_, err := fmt.Fprintln(f.Out, "poolctl", api.Build())
				return err
			}
			return writeObject(f, v)
		}),
	}
}
