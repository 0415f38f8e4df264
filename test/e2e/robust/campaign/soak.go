package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/idpool/idpool/test/e2e/robust"
)

func newSoak() *cobra.Command {
	var hours float64
	var dir, doc string
	var seed int64
	cmd := &cobra.Command{
		Use: "soak", Short: "one long run with few faults and an audit of leaks", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if seed == 0 {
				seed = 1 + rand.Int64N(1_000_000_000)
			}
			ctx, out := cmd.Context(), cmd.OutOrStdout()
			fmt.Fprintf(out, "seed %d\n", seed)
			bin, err := build(ctx, dir, "")
			if err != nil {
				return err
			}
			at := filepath.Join(dir, "soak")
			if err := os.RemoveAll(at); err != nil {
				return err
			}
			o := robust.Options{
				Seed: seed, For: time.Duration(hours * float64(time.Hour)), Bin: bin, Logs: filepath.Join(at, "logs"), Commit: commit(ctx), Log: out,
			}
			run, leaks, err := robust.Soak(ctx, o)
			if ctx.Err() != nil || run == nil {
				return err
			}
			if err != nil {
				result := &robust.Result{Seed: seed, Commit: o.Commit, Started: run.Started, Duration: o.For, Error: err.Error()}
				_ = robust.Save(at, run, result)
				return tell(out, result)
			}
			if err := robust.Save(at, run, leaks.Result); err != nil {
				return err
			}
			if err := robust.SaveLeaks(filepath.Join(at, "soak.json"), leaks); err != nil {
				return err
			}
			if err := robust.Splice(doc, "soak", robust.SoakTable(leaks)); err != nil {
				return err
			}
			return tell(out, leaks.Result)
		},
	}
	flags := cmd.Flags()
	flags.Float64Var(&hours, "hours", 1, "how long there is traffic")
	flags.Int64Var(&seed, "seed", 0, "what decides faults and clients; 0 is a fresh one")
	flags.StringVar(&dir, "dir", "build/robust", "the result goes into soak below it")
	flags.StringVar(&doc, "doc", "docs/reliability.md", "the document with the result")
	return cmd
}
