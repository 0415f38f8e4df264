package main

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/cluster/pki"
	"github.com/idpool/idpool/problem"
)

func init() { clusterCommands = append(clusterCommands, newClusterInitCmd) }

type clusterInitOptions struct {
	c   *clusterFactory
	dir string
	// named are the names of each kind, as they were typed.
	named  map[pki.Kind]*[]string
	renew  []string
	retire bool
	own    bool
	days   int
}

func newClusterInitCmd(c *clusterFactory) *cobra.Command {
	o := &clusterInitOptions{c: c, named: map[pki.Kind]*[]string{}}
	cmd := &cobra.Command{
		Use:   "init --endpoints URL,… | --pki DIR [--KIND NAME]…",
		Short: "Make a cluster's first record, or its certificates",
		Long: `With --endpoints: make the record that a cluster begins with, which an agent does
too where there is none.

With --pki, which needs no etcd: make an authority and a certificate for each name,
as DIR/NAME.crt and DIR/NAME.key, and one for etcd's own administrator, "root". What is
there is kept, so running it again adds names. Members and agents name their hosts,
NAME=HOST,HOST; without, the name is the host; localhost is always one.

  poolctl cluster init --pki pki --member etcd1 --member etcd2 --member etcd3 \
    --agent n1 --agent n2=n2.example.org,10.0.0.2 --operator alice

An etcd member uses its own certificate for everything, and lets no other kind in
as a member:

  etcd --client-cert-auth --trusted-ca-file ca.crt --cert-file etcd1.crt --key-file etcd1.key \
    --peer-client-cert-auth --peer-trusted-ca-file ca.crt --peer-cert-file etcd1.crt \
    --peer-key-file etcd1.key --peer-cert-allowed-cn etcd1,etcd2,etcd3 …

and an agent: --etcd-ca ca.crt --etcd-cert n1.crt --etcd-key n1.key. Then say who may what:
poolctl cluster auth. ca.key signs for all of them: keep it elsewhere.

To renew: --renew NAME, and copy both files to their places; agents and members
read them again. A new authority takes three rounds: --renew ca, and ca.crt to
everybody (members of etcd restart for it, one by one); --renew of all names; then
--retire-old-ca, and ca.crt to everybody again.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runs(func(ctx context.Context, _ []string) error { return o.run(ctx, cmd) })(cmd, nil)
		},
	}
	c.addEtcd(cmd)
	flags := cmd.Flags()
	flags.StringVar(&o.dir, "pki", "", "directory of certificates, made if missing")
	for _, k := range pki.Kinds {
		o.named[k] = flags.StringArray(string(k), nil, kindHelp[k])
	}
	flags.StringSliceVar(&o.renew, "renew", nil, "names whose certificate and key are made anew; ca: a new authority beside the old")
	flags.BoolVar(&o.retire, "retire-old-ca", false, "trust the newest authority alone from now on")
	flags.BoolVar(&o.own, "own-directories", false, "also give every certificate a directory of its own, DIR/NAME: ca.crt, tls.crt, tls.key")
	flags.IntVar(&o.days, "days", pki.DefaultDays, "how long new certificates are valid, 1 to "+strconv.Itoa(pki.MaxDays))
	return cmd
}

var kindHelp = map[pki.Kind]string{
	pki.Member:    "a member of etcd: NAME[=HOST,…]; may be given several times, as all of these",
	pki.Agent:     "an agent: NAME[=HOST,…]",
	pki.Operator:  "an operator at an agent's TCP port: NAME",
	pki.Requester: "a requester at an agent's TCP port: NAME",
	pki.Observer:  "an observer at an agent's TCP port and in etcd: NAME",
	pki.Backup:    "who takes backups of etcd: NAME",
}

func (o *clusterInitOptions) run(ctx context.Context, cmd *cobra.Command) error {
	if o.dir == "" {
		for _, k := range pki.Kinds {
			if cmd.Flags().Changed(string(k)) {
				return usage("--%s goes with --pki DIR: where shall the certificate be?", k)
			}
		}
		for _, name := range []string{"renew", "retire-old-ca", "own-directories", "days", "pki"} {
			if cmd.Flags().Changed(name) {
				return usage("--%s needs --pki DIR: where are the certificates?", name)
			}
		}
		return o.record(ctx)
	}
	if cmd.Flags().Changed("endpoints") {
		return usage("--pki and --endpoints: one at a time, since etcd needs the certificates first").
			Advise("certificates, without etcd", "poolctl cluster init --pki %s …", o.dir).
			Advise("then, with etcd running", "poolctl cluster init --endpoints %s …", strings.Join(o.c.cfg.Endpoints, ","))
	}
	if cmd.Flags().Changed("days") && o.days == 0 {
		return usage("--days 0: a certificate lives 1 to %d days", pki.MaxDays)
	}
	return o.certificates(time.Now())
}

// record makes the cluster's first record.
func (o *clusterInitOptions) record(ctx context.Context) error {
	client, err := o.c.open(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	made := false
	m, _, err := client.ReadMeta(ctx)
	if problem.CodeOf(err) == problem.CodeNotFound {
		made = true
		m, _, err = client.EnsureMeta(ctx)
	}
	if err != nil {
		return err
	}
	if !made {
		o.c.hint("there is a cluster below %s already; nothing was changed", o.c.cfg.Root)
	}
	return printOne(o.c.Factory, clusterSheet, clusterRecord{Root: o.c.cfg.Root, Made: made, Meta: m})
}

// clusterRecord is what "cluster init" tells of the first record.
type clusterRecord struct {
	Root string `json:"root"`
	// Made tells that this command made it.
	Made bool `json:"made"`
	cluster.Meta
}

var clusterSheet = sheet[clusterRecord]{
	kind: "epoch",
	id:   func(r clusterRecord) string { return r.Epoch },
	columns: []column[clusterRecord]{
		{head: "ROOT", cell: func(r clusterRecord) string { return r.Root }},
		{head: "EPOCH", cell: func(r clusterRecord) string { return r.Epoch }},
		{head: "NUMBER", cell: func(r clusterRecord) string { return strconv.FormatUint(r.Number, 10) }},
		{head: "STATE", cell: func(r clusterRecord) string { return r.State }},
		{head: "MADE", cell: func(r clusterRecord) string { return yes(r.Made) }},
	},
}

// certificates makes what is missing in the directory.
func (o *clusterInitOptions) certificates(now time.Time) error {
	w := pki.Wish{Renew: o.renew, Retire: o.retire, Own: o.own, Days: o.days}
	for _, k := range pki.Kinds {
		for _, text := range *o.named[k] {
			s, err := parseSpec(k, text)
			if err != nil {
				return err
			}
			w.Specs = append(w.Specs, s)
		}
	}
	made, err := pki.Ensure(o.dir, w, now)
	if err != nil {
		return err
	}
	if err := printList(o.c.Factory, certificateSheet, made, nil); err != nil {
		return err
	}
	ca := made[0]
	if ca.Retired > 0 {
		o.c.hint("%s trusts its newest authority alone, %d left it: bring it to everybody", ca.Cert, ca.Retired)
	}
	if ca.Deed != pki.Kept {
		o.c.hint("%s signs for the whole cluster: keep it elsewhere", ca.Key)
	}
	return nil
}

// parseSpec reads NAME or NAME=HOST,HOST.
func parseSpec(k pki.Kind, text string) (pki.Spec, error) {
	name, hosts, named := strings.Cut(text, "=")
	s := pki.Spec{Name: name, Kind: k}
	if named {
		if s.Hosts = strings.Split(hosts, ","); hosts == "" {
			return s, usage("--%s %s: no host after the =; without it the name is the host", k, text)
		}
	}
	return s, nil
}

var certificateSheet = sheet[pki.Entry]{
	kind: "certificate",
	id:   func(e pki.Entry) string { return e.Name },
	columns: []column[pki.Entry]{
		{head: "NAME", cell: func(e pki.Entry) string { return e.Name }},
		{head: "KIND", cell: func(e pki.Entry) string { return string(e.Kind) }},
		{head: "DONE", cell: func(e pki.Entry) string { return string(e.Deed) }},
		{head: "UNTIL", cell: func(e pki.Entry) string { return e.Ends.Local().Format(time.DateOnly) }},
		{head: "HOSTS", cell: func(e pki.Entry) string { return strings.Join(e.Hosts, ",") }},
		{head: "CERTIFICATE", wide: true, cell: func(e pki.Entry) string { return e.Cert }},
		{head: "KEY", wide: true, cell: func(e pki.Entry) string { return e.Key }},
	},
}
