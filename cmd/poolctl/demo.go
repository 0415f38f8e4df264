package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/idpool/idpool/agent"
	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/cluster/embed"
	"github.com/idpool/idpool/problem"
)

// demoLimit bounds the whole tour.
const demoLimit = 2 * time.Minute

func init() { extraCommands = append(extraCommands, newDemoCmd) }

func newDemoCmd(f *Factory) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "A tour on an embedded etcd; needs nothing and leaves nothing",
		Long: `Start an etcd and three agents in a temporary directory, as three nodes would run
them, and show the life of a uid: granted, under a process, through the death of
its requester and of its agent, released, proven unused, free; and of a pair of
VLANs: granted together, refused together, given back when provisioning fails or its
program is killed. Everything it starts it stops, and it removes the directory. As
root it really switches uids.`,
		Args: cobra.NoArgs,
		RunE: runs(func(ctx context.Context, _ []string) error { return runDemo(ctx, f.Streams) }),
	}
	cmd.AddCommand(newDemoAgentCmd(), newDemoRequesterCmd(f), newDemoProvisionerCmd(f))
	return cmd
}

// newDemoAgentCmd is one node's agent, in a process of its own so that the tour
// can kill it.
func newDemoAgentCmd() *cobra.Command {
	c := agent.Default()
	c.LeaseTTL, c.ScanEvery, c.AcceptPIDNamespace = 3*time.Second, 300*time.Millisecond, true
	cmd := &cobra.Command{Use: "agent", Hidden: true, Args: cobra.NoArgs, RunE: runs(func(ctx context.Context, _ []string) error {
		log, err := zap.NewProduction()
		if err != nil {
			return err
		}
		a, err := agent.New(c, log)
		if err != nil {
			return err
		}
		return a.Run(ctx)
	})}
	cmd.Flags().StringVar(&c.Node, "node", "", "")
	cmd.Flags().StringSliceVar(&c.Endpoints, "endpoints", nil, "")
	cmd.Flags().StringVar(&c.Data, "data", "", "")
	cmd.Flags().StringVar(&c.Socket, "socket", "", "")
	return cmd
}

// newDemoRequesterCmd asks for a uid that is bound to its own process and then
// waits to be killed.
func newDemoRequesterCmd(f *Factory) *cobra.Command {
	return &cobra.Command{Use: "requester", Hidden: true, Args: cobra.NoArgs, RunE: runs(func(ctx context.Context, _ []string) error {
		client, err := f.Client()
		if err != nil {
			return err
		}
		u, err := client.RequestUID(ctx, api.UIDRequest{Pool: "demo", Holder: "a requester about to die", Hold: api.Hold{Kind: api.HoldPID, PID: os.Getpid()}})
		if err != nil {
			return err
		}
		fmt.Fprintln(f.Out, u)
		<-ctx.Done()
		return nil
	})}
}

// demo is the tour's world.
type demo struct {
	Streams
	dir   string
	etcd  *embed.Server
	nodes []*demoNode
	steps int
	began time.Time
	notes []string // what the summary adds
}

// runDemo makes the world, walks through it and takes it down.
func runDemo(ctx context.Context, s Streams) (err error) {
	ctx, cancel := context.WithTimeout(ctx, demoLimit)
	defer cancel()
	dir, err := os.MkdirTemp("", "idpool-demo-")
	if err != nil {
		return problem.Wrap(problem.CodeInternal, err, "the tour needs a temporary directory")
	}
	d := &demo{Streams: s, dir: dir, began: time.Now()}
	defer func() {
		d.down()
		if e := os.RemoveAll(dir); e != nil {
			err = errors.Join(err, e)
		}
	}()
	d.say("idpool: uids and VLANs that a whole cluster agrees on. One etcd and three agents are started in")
	d.say("%s, as on three nodes; nothing else is touched.", dir)
	if os.Getuid() != 0 {
		d.say("You are not root, so no process can switch its uid; the tour says where it would.")
		d.notes = append(d.notes, "run it as root to see real processes under the uids")
	}
	if err := d.up(ctx); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{d.pool, d.requests, d.process, d.requesterDies, d.agentDies, d.exhausted, d.release,
		d.inventories, d.pair, d.southExhausted, d.provisioningFails, d.coordinatorDies, d.deletion, d.summary} {
		if err := step(ctx); err != nil {
			d.logs()
			return err
		}
	}
	return nil
}

// up starts etcd and the three agents and waits until they may grant.
func (d *demo) up(ctx context.Context) error {
	etcd, err := embed.Start(ctx, embed.Config{Dir: filepath.Join(d.dir, "etcd"), Fast: true}, zap.NewNop())
	if err != nil {
		return err
	}
	d.etcd = etcd
	for i := range 3 {
		n := newDemoNode(d, fmt.Sprintf("n%d", i+1))
		d.nodes = append(d.nodes, n)
		if err := n.start(); err != nil {
			return err
		}
	}
	for _, n := range d.nodes {
		if err := n.ready(ctx); err != nil {
			d.logs()
			return err
		}
	}
	return nil
}

func (d *demo) down() {
	for _, n := range d.nodes {
		n.stopAll()
	}
	if d.etcd != nil {
		d.etcd.Close()
	}
}

// logs shows what the agents said last, when the tour fails.
func (d *demo) logs() {
	for _, n := range d.nodes {
		text, _ := os.ReadFile(n.logFile)
		fmt.Fprintf(d.Err, "--- log of agent %s\n%s\n", n.name, text[max(0, len(text)-2000):])
	}
}

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.Out, format+"\n", args...) }

// title begins a step.
func (d *demo) title(format string, args ...any) {
	d.steps++
	fmt.Fprintf(d.Out, "\n%d. %s\n", d.steps, fmt.Sprintf(format, args...))
}

// command shows what a person would type.
func (d *demo) command(format string, args ...any) {
	fmt.Fprintf(d.Out, "   $ %s\n", fmt.Sprintf(format, args...))
}

// result shows an answer.
func (d *demo) result(format string, args ...any) {
	fmt.Fprintf(d.Out, "     %s\n", fmt.Sprintf(format, args...))
}
