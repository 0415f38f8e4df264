package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/idpool/idpool/test/e2e/robust"
	"github.com/idpool/idpool/test/e2e/robust/judge"
)

// patience is how long a run may take beyond its traffic.
const patience = 8 * time.Minute

func newCampaign() *cobra.Command {
	c := &campaign{}
	cmd := &cobra.Command{
		Use: "campaign", Short: "many runs; those that have a verdict already are not repeated", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c.out = func(s string) { fmt.Fprintln(cmd.OutOrStdout(), s) }
			return c.run(cmd.Context())
		},
	}
	flags := cmd.Flags()
	flags.Int64Var(&c.first, "first", 1, "the first seed")
	flags.IntVar(&c.runs, "runs", 100, "how many seeds, one after the other from the first")
	flags.DurationVar(&c.lasts, "for", time.Minute, "how long each has traffic and faults")
	flags.IntVar(&c.parallel, "parallel", 2, "how many run at once")
	flags.StringVar(&c.dir, "dir", "build/robust", "where the results are")
	return cmd
}

// campaign is many runs, each a process of its own: what ends one ends no other.
type campaign struct {
	first    int64
	runs     int
	lasts    time.Duration
	parallel int
	dir      string
	bin      string
	self     string
	out      func(string)

	mu   sync.Mutex // guards the fields below
	done int
	bad  int
}

func (c *campaign) run(ctx context.Context) (err error) {
	if c.self, err = os.Executable(); err != nil {
		return err
	}
	if c.bin, err = build(ctx, c.dir, ""); err != nil {
		return err
	}
	c.out(fmt.Sprintf("seeds %d to %d, %s each, %d at once", c.first, c.first+int64(c.runs)-1, c.lasts, c.parallel))
	var g errgroup.Group
	g.SetLimit(max(c.parallel, 1))
	for i := range c.runs {
		g.Go(func() error { return c.seed(ctx, c.first+int64(i)) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if c.bad > 0 {
		c.out(fmt.Sprintf("%d of %d runs broke a promise or came to nothing", c.bad, c.runs))
		return errBroken
	}
	return nil
}

// seed does the run of a seed, if it is not done. An error ends the campaign.
func (c *campaign) seed(ctx context.Context, seed int64) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	dir := seedDir(c.dir, seed)
	result, err := robust.LoadResult(dir)
	if err == nil && result.Verdict != nil {
		c.count(result, " (done before)")
		return nil
	}
	limit, cancel := context.WithTimeout(ctx, c.lasts+patience)
	defer cancel()
	cmd := exec.CommandContext(limit, c.self, "run", "--seed", fmt.Sprint(seed), "--for", c.lasts.String(), "--dir", c.dir, "--bin", c.bin)
	var text bytes.Buffer
	cmd.Stdout, cmd.Stderr = &text, &text
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	ended := cmd.Run()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if result, err = robust.LoadResult(dir); err != nil {
		result = &robust.Result{Seed: seed, Duration: c.lasts, Error: fmt.Sprintf("the run ended without a result: %v", ended)}
		if err := robust.SaveResult(dir, result); err != nil {
			return err
		}
	}
	if !result.Kept() {
		if err := os.WriteFile(filepath.Join(dir, "run.log"), text.Bytes(), 0o644); err != nil {
			return err
		}
	}
	c.count(result, "")
	return nil
}

func (c *campaign) count(r *robust.Result, note string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done++
	if !r.Kept() {
		c.bad++
	}
	c.out(fmt.Sprintf("[%d/%d] %s%s", c.done, c.runs, line(r), note))
}

// rejudge judges a recorded run with the present judge and stores the verdict.
func rejudge(dir string) (*robust.Result, error) {
	run, err := robust.Load(dir)
	if err != nil {
		return nil, err
	}
	old, err := robust.LoadResult(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if old == nil {
		old = &robust.Result{}
	}
	if old.Error != "" {
		return old, nil
	}
	result := robust.NewResult(run, judge.Judge(run), old.Duration)
	return result, robust.SaveResult(dir, result)
}
