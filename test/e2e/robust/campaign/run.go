package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/idpool/idpool/test/e2e/robust"
	"github.com/idpool/idpool/test/e2e/robust/rig"
)

// binaries is where the binaries are built unless told otherwise, below --dir.
const binaries = "bin"

// runFlags are those of one run.
type runFlags struct {
	seed   int64
	lasts  time.Duration
	dir    string
	bin    string
	only   []string
	silent bool
}

func newRun() *cobra.Command {
	f := &runFlags{}
	cmd := &cobra.Command{
		Use: "run", Short: "one run, by its seed", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.seed == 0 {
				f.seed = 1 + rand.Int64N(1_000_000_000)
			}
			return one(cmd.Context(), cmd.OutOrStdout(), f)
		},
	}
	flags := cmd.Flags()
	flags.Int64Var(&f.seed, "seed", 0, "what decides faults and clients; 0 is a fresh one")
	flags.DurationVar(&f.lasts, "for", time.Minute, "how long there are traffic and faults")
	flags.StringVar(&f.dir, "dir", "build/robust", "the result goes into a directory named after the seed below it")
	flags.StringVar(&f.bin, "bin", "", "binaries that are built already")
	flags.StringSliceVar(&f.only, "only", nil, "these faults alone, by name")
	flags.BoolVar(&f.silent, "silent", false, "print the seed and the result alone")
	return cmd
}

// build builds what a run needs, once for all runs of this program.
func build(ctx context.Context, dir, bin string) (string, error) {
	if err := rig.Available(); err != nil {
		return "", fmt.Errorf("this machine cannot run it: %w", err)
	}
	if bin != "" {
		return filepath.Abs(bin)
	}
	bin, err := filepath.Abs(filepath.Join(dir, binaries))
	if err != nil {
		return "", err
	}
	return bin, rig.Build(ctx, bin)
}

// commit names what the binaries were built from.
func commit(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// seedDir is the directory of a run's result.
func seedDir(dir string, seed int64) string { return filepath.Join(dir, fmt.Sprintf("seed-%d", seed)) }

// one does one run and writes its result down.
func one(ctx context.Context, out io.Writer, f *runFlags) error {
	fmt.Fprintf(out, "seed %d\n", f.seed)
	bin, err := build(ctx, f.dir, f.bin)
	if err != nil {
		return err
	}
	dir := seedDir(f.dir, f.seed)
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	o := robust.Options{Seed: f.seed, For: f.lasts, Bin: bin, Logs: filepath.Join(dir, "logs"), Commit: commit(ctx), Only: f.only}
	if !f.silent {
		o.Log = out
	}
	run, verdict, err := robust.Run(ctx, o)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	result := &robust.Result{Seed: f.seed, Commit: o.Commit, Started: run.Started, Duration: f.lasts, Error: fmt.Sprint(err)}
	if err == nil {
		result = robust.NewResult(run, verdict, f.lasts)
	}
	if err := robust.Save(dir, run, result); err != nil {
		return err
	}
	return tell(out, result)
}

// tell prints a result; what was broken makes it an error.
func tell(out io.Writer, r *robust.Result) error {
	fmt.Fprintln(out, line(r))
	if r.Verdict != nil {
		if err := r.Verdict.Err(); err != nil {
			fmt.Fprintln(out, err)
		}
	}
	if !r.Kept() {
		return errBroken
	}
	return nil
}

// line is a result in one line.
func line(r *robust.Result) string {
	if r.Verdict == nil {
		return fmt.Sprintf("seed %d: no verdict: %s", r.Seed, r.Error)
	}
	s := robust.Sum(r)
	word := "all promises kept"
	if n := len(r.Verdict.Violations); n > 0 {
		word = fmt.Sprintf("%d VIOLATIONS", n)
	}
	return fmt.Sprintf("seed %d: %s; %d calls ok, %d refused, %d unknown; %d faults, %d processes, %d changes",
		r.Seed, word, s.OK, s.Refused, s.Unknown, s.Faults, r.Verdict.Counts.Processes, r.Verdict.Counts.Changes)
}

func newJudge() *cobra.Command {
	return &cobra.Command{
		Use: "judge DIRECTORY...", Short: "judge recorded runs again", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, dirs []string) error {
			bad := false
			for _, dir := range dirs {
				result, err := rejudge(dir)
				if err != nil {
					return err
				}
				bad = tell(cmd.OutOrStdout(), result) != nil || bad
			}
			if bad {
				return errBroken
			}
			return nil
		},
	}
}
