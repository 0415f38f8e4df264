package main

import (
	"context"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/idpool/idpool/api"
)

// Streams are where a command reads and writes.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// Factory is what commands are made from: the streams, the flags that all
// commands share, and the client, which is made when first needed.
type Factory struct {
	Streams

	agent             string
	format            format
	quiet             bool
	timeout           time.Duration
	cert, certKey, ca string
	client            *api.Client
}

// extraCommands make further commands of the root; files that stand alone add
// to it in their init.
var extraCommands []func(*Factory) *cobra.Command

// Client returns the client of the agent that the flags name.
func (f *Factory) Client() (*api.Client, error) {
	if f.client != nil {
		return f.client, nil
	}
	f.client = api.New(api.Options{
		Agent: f.agent, Files: api.Files{Cert: f.cert, Key: f.certKey, CA: f.ca}, Timeout: f.timeout, UserAgent: "poolctl/" + api.Version(),
	})
	return f.client, nil
}

func newRootCmd(f *Factory) *cobra.Command {
	root := &cobra.Command{
		Use:   "poolctl",
		Short: "uids and VLAN ids that a whole cluster agrees on",
		Long: `poolctl talks to an idpool agent: this machine's, over its socket, or another's
over https. Data goes to stdout, messages to stderr.

Exit codes: 0 ok, 1 error, 2 usage or invalid, 3 held by another or not held,
4 exhausted, 5 unavailable (nothing was done), 6 outcome unknown (repeat with
the same --key), 7 forbidden.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          needsSubcommand,
	}
	root.SetIn(f.In)
	root.SetOut(f.Out)
	root.SetErr(f.Err)
	flags := root.PersistentFlags()
	flags.StringVar(&f.agent, "agent", "", "unix:///PATH or https://HOST:PORT (IDPOOL_AGENT; default unix://"+api.DefaultSocket+")")
	flags.VarP(&f.format, "output", "o", "table, wide, json, jsonl, yaml or name")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "print bare ids only")
	flags.DurationVar(&f.timeout, "timeout", api.DefaultTimeout, "give up on a call after this, beside --wait")
	flags.StringVar(&f.cert, "cert", "", "client certificate for https (IDPOOL_CERT)")
	flags.StringVar(&f.certKey, "cert-key", "", "its private key (IDPOOL_CERT_KEY)")
	flags.StringVar(&f.ca, "ca", "", "CA of the agent's certificate (IDPOOL_CA)")
	choices(root, "output", "table", "wide", "json", "jsonl", "yaml", "name")
	root.AddCommand(newUIDCmd(f), newNodeCmd(f), newStatusCmd(f), newVersionCmd(f))
	for _, extra := range extraCommands {
		root.AddCommand(extra(f))
	}
	return root
}

func newUIDCmd(f *Factory) *cobra.Command {
	cmd := &cobra.Command{Use: "uid", Short: "Ask for uids, end grants, see who has what", Args: cobra.NoArgs, RunE: needsSubcommand}
	cmd.AddCommand(
		newPoolCmd(f), newProbeCmd(f), newRequestCmd(f), newConfirmCmd(f), newRenewCmd(f), newReleaseCmd(f),
		newJoinCmd(f), newAdoptCmd(f), newReserveCmd(f), newUnreserveCmd(f), newExecCmd(f), newUIDListCmd(f), newUIDShowCmd(f),
	)
	return cmd
}

// one wants a single argument; what names it as the usage line does.
func one(what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch len(args) {
		case 0:
			return usage("which %s? none was named", what)
		case 1:
			return nil
		}
		return usage("one %s at a time, %d were given", what, len(args))
	}
}

// atMostOne is [one] where the argument may be left away.
func atMostOne(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		return one(what)(cmd, args)
	}
}

// needsSubcommand prints the help of a command that only groups others, and
// fails so that a script with a forgotten word does not go on.
func needsSubcommand(cmd *cobra.Command, _ []string) error {
	cmd.SetOut(cmd.ErrOrStderr())
	_ = cmd.Help()
	return exitError{code: 2}
}

// run is poolctl without the process around it; it returns the exit code.
func run(ctx context.Context, args []string, s Streams) int {
	f := &Factory{Streams: s}
	root := newRootCmd(f)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if f.client != nil {
		f.client.Close()
	}
	return f.report(cmd, err)
}
