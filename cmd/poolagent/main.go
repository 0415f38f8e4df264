package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sync/errgroup"

	"github.com/idpool/idpool/agent"
	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/cmd/internal/manual"
	"github.com/idpool/idpool/problem"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == agent.HelperCommand {
		os.Exit(agent.HelperMain())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	// A second signal ends the process at once.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}

// run is poolagent without the process around it; it returns the exit code.
func run(ctx context.Context, args, environ []string, out, errs io.Writer) int {
	cmd := newCommand(args, environ, errs)
	cmd.SetArgs(args)
	cmd.SetOut(out)
	cmd.SetErr(errs)
	err := cmd.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	var p *problem.Error
	if !errors.As(err, &p) {
		p = problem.New(problem.CodeInvalid, "%v", err).Advise("see", "poolagent --help")
	}
	// An error that only passes a refusal on adds its step to the first line.
	if text := err.Error(); text != p.Detail {
		whole := *p
		whole.Detail = strings.ReplaceAll(text, "\n", "; ")
		p = &whole
	}
	fmt.Fprintf(errs, "poolagent: %s\n", p.Text())
	return p.Code.ExitCode()
}

func newCommand(args, environ []string, errs io.Writer) *cobra.Command {
	o := newOptions(environ)
	o.args = args
	cmd := &cobra.Command{
		Use:   "poolagent (--endpoints URL,… | --embedded)",
		Short: "The idpool agent of a node",
		Long: `The agent of a node: it grants uids that a whole cluster agrees on to programs of
this machine, on a Unix socket, and proves them unused before anybody gets them
again. Pools and grants live in etcd.

Each setting may also stand in the environment, IDPOOL_NODE for --node and so on,
or in the YAML file of --config, under the flag's name. The command line wins over
the environment, the environment over the file.`,
		Example: `  poolagent --embedded                        one machine, nothing else needed
  poolagent --endpoints https://etcd1:2379,https://etcd2:2379 --etcd-ca CA --etcd-cert CERT --etcd-key KEY --group idpool`,
		Args: cobra.NoArgs, SilenceErrors: true, SilenceUsage: true, Version: api.Build(),
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd, errs) },
	}
	cmd.SetVersionTemplate("poolagent {{.Version}}\n")
	o.bind(cmd.Flags())
	// What cobra adds to a program with commands is not what this one is about.
	cmd.CompletionOptions.HiddenDefaultCmd = true
	cmd.SetHelpCommand(&cobra.Command{Use: "help", Hidden: true, Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error { return cmd.Help() }})
	cmd.AddCommand(manual.Command("8", api.Version(), map[string]string{"node": "the host's name"}))
	return cmd
}

func (o *options) run(cmd *cobra.Command, errs io.Writer) error {
	cfg, err := o.config(cmd.Flags())
	if err != nil {
		return err
	}
	if err := o.located(cfg.Faults()); err != nil {
		return err
	}
	if o.check {
		if err := o.located(agent.Check(cfg)); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "the configuration of node %s is fine\n", cfg.Node)
		return nil
	}
	cfg.Seam, cfg.Settings = faults(), o.settings(cmd.Flags())
	level := zap.NewAtomicLevel()
	cfg.Level = &level
	log := newLog(cfg, errs)
	if cfg.Listener, err = activated(cfg.Socket); err != nil {
		return err
	}
	a, err := agent.New(cfg, log)
	if err != nil {
		return err
	}
	m := newManager(a, &reloader{agent: a, args: o.args, environ: o.environ, log: log}, log)
	ended := make(chan struct{})
	var g errgroup.Group
	g.Go(func() error {
		defer close(ended)
		return a.Run(cmd.Context())
	})
	g.Go(func() error {
		select {
		case <-a.Ready():
			fmt.Fprintf(errs, "poolagent: %s\n", a.ReadyLine())
		case <-ended:
		}
		return nil
	})
	g.Go(func() error {
		m.run(cmd.Context(), ended)
		return nil
	})
	return g.Wait()
}

// newLog logs JSON, or lines for people on a terminal.
func newLog(cfg agent.Config, errs io.Writer) *zap.Logger {
	if least, err := zapcore.ParseLevel(cfg.LogLevel); err == nil { // else refused by Validate
		cfg.Level.SetLevel(least)
	}
	conf := zap.NewProductionEncoderConfig()
	conf.EncodeTime = zapcore.ISO8601TimeEncoder
	encoder := zapcore.NewJSONEncoder(conf)
	if terminal(errs) {
		conf.EncodeLevel = zapcore.CapitalLevelEncoder
		encoder = zapcore.NewConsoleEncoder(conf)
	}
	return zap.New(zapcore.NewCore(encoder, zapcore.Lock(zapcore.AddSync(errs)), cfg.Level))
}

func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&(os.ModeDevice|os.ModeCharDevice) == os.ModeDevice|os.ModeCharDevice
}
