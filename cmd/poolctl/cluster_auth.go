package main

import (
	"context"
	"crypto/tls"
	"strings"

	"github.com/spf13/cobra"

	"github.com/idpool/idpool/cluster/pki"
	"github.com/idpool/idpool/cluster/rbac"
	"github.com/idpool/idpool/problem"
)

func init() { clusterCommands = append(clusterCommands, newClusterAuthCmd) }

type clusterAuthOptions struct {
	c     *clusterFactory
	named map[pki.Kind]*[]string
	apply bool
}

func newClusterAuthCmd(c *clusterFactory) *cobra.Command {
	o := &clusterAuthOptions{c: c, named: map[pki.Kind]*[]string{}}
	cmd := &cobra.Command{
		Use:   "auth [--agent NAME]… [--observer NAME]… [--backup NAME]… [--apply]",
		Short: "Give certificates their rights in etcd",
		Long: `Print the etcdctl commands that make a user of each name, which is the common name
of its certificate, and the role of its kind: an agent reads and writes below --root and
nothing else, an observer reads there, and a backup has etcd's role root, since etcd gives
a snapshot to nobody else. With --endpoints, only what etcd lacks is printed; etcd's
members must run with --client-cert-auth.

With --apply do it, with root's certificate, and switch authentication on, last. It is
switched off again if root's certificate is not taken for root at every endpoint: name
all members. Running it again adds names.

  poolctl cluster auth --agent n1 --agent n2 --apply --endpoints https://etcd1:2379,… \
    --etcd-ca pki/ca.crt --etcd-cert pki/root.crt --etcd-key pki/root.key`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runs(func(ctx context.Context, _ []string) error {
				return o.run(ctx, o.apply || cmd.Flags().Changed("endpoints"))
			})(cmd, nil)
		},
	}
	c.addEtcd(cmd)
	flags := cmd.Flags()
	for k, help := range map[pki.Kind]string{
		pki.Agent: "an agent; may be given several times, as all of these", pki.Observer: "who reads", pki.Backup: "who takes snapshots",
	} {
		o.named[k] = flags.StringSlice(string(k), nil, help)
	}
	flags.BoolVar(&o.apply, "apply", false, "do it, and switch authentication on")
	return cmd
}

func (o *clusterAuthOptions) run(ctx context.Context, look bool) error {
	w := rbac.Wish{Root: o.c.cfg.Root, Users: map[pki.Kind][]string{}}
	for k, names := range o.named {
		w.Users[k] = *names
	}
	if err := w.Validate(); err != nil {
		return err
	}
	if !look {
		steps, err := rbac.Plan(w, rbac.State{})
		if err != nil {
			return err
		}
		return o.print(steps)
	}
	if o.apply {
		if err := o.asRoot(); err != nil {
			return err
		}
	}
	client, err := o.c.open(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	have, err := rbac.Read(ctx, client)
	if err != nil {
		return err
	}
	steps, err := rbac.Plan(w, have)
	if err != nil {
		return err
	}
	if nodes := rbac.LockedOut(w, have); len(nodes) > 0 {
		o.c.say("warning: no user of its name may write for node %s: if its agent's certificate has no other name, name it with --agent", strings.Join(nodes, ", "))
	}
	if len(steps) == 0 {
		o.c.hint("etcd has all of it already, and authentication is on")
		return nil
	}
	if !o.apply {
		return o.print(steps)
	}
	if err := rbac.Apply(ctx, client, steps, func(s rbac.Step) { o.c.hint("done: %s", s.Command()) }); err != nil {
		return err
	}
	o.c.hint("authentication is on")
	return nil
}

// print writes the commands bare, so that they can be given to a shell.
func (o *clusterAuthOptions) print(steps []rbac.Step) error {
	f := *o.c.Factory
	f.quiet = f.quiet || f.format == formatTable || f.format == formatWide
	all := make([]authStep, len(steps))
	for i, s := range steps {
		all[i] = authStep{s.Command()}
	}
	return printList(&f, stepSheet, all, nil)
}

// asRoot refuses to switch authentication on as somebody who may not see it through.
func (o *clusterAuthOptions) asRoot() error {
	t := o.c.cfg.TLS
	advised := func(p *problem.Error) error {
		return p.Advise("with root's certificate", "--etcd-ca DIR/ca.crt --etcd-cert DIR/root.crt --etcd-key DIR/root.key")
	}
	if t.CertFile == "" {
		return advised(usage("--apply needs the certificate of etcd's administrator: none was named"))
	}
	pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
	if err != nil {
		return problem.Wrap(problem.CodeInvalid, err, "certificate %s", t.CertFile)
	}
	if name := pair.Leaf.Subject.CommonName; name != pki.RootName {
		return advised(problem.New(problem.CodeForbidden, "%s is the certificate of %q, and users and roles are for %s to change", t.CertFile, name, pki.RootName))
	}
	return nil
}

// authStep is one change in etcd.
type authStep struct {
	Command string `json:"command"`
}

var stepSheet = sheet[authStep]{kind: "step", id: func(s authStep) string { return s.Command }}
