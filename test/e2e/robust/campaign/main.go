// Command campaign runs the robustness test: one run, a campaign of many seeds, the
// soak, and the tables of docs/reliability.md that they fill.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/idpool/idpool/test/e2e/robust/rig"
)

// errBroken ends the program with 1; what was broken is printed already.
var errBroken = errors.New("a promise was broken, or a run came to nothing")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := &cobra.Command{
		Use: "campaign", Short: "try to break the promises of a cluster under faults",
		SilenceUsage: true, SilenceErrors: true,
	}
	root.AddCommand(newRun(), newCampaign(), newJudge(), newReport(), newSoak(), newAvailable())
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "campaign:", err)
		os.Exit(1)
	}
}

func newAvailable() *cobra.Command {
	return &cobra.Command{
		Use: "available", Short: "tell whether this machine can run it, and why not", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return rig.Available() },
	}
}
