package main

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/idpool/idpool/agent"
	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/problem"
)

// envPrefix begins the environment's names of settings.
const envPrefix = "IDPOOL_"

// options are the flags, whatever they come from.
type options struct {
	cfg     agent.Config
	file    string
	check   bool
	args    []string
	environ []string
	// origins says where the settings come from that have not their default.
	origins map[string]origin
}

// origin is where a setting's value comes from.
type origin struct{ source, where string }

// notSettings are flags about one run: they stand neither in file nor
// environment. --config itself may come from the environment.
var notSettings = []string{"help", "version", "check-config"}

func newOptions(environ []string) *options {
	return &options{cfg: agent.Default(), environ: environ, origins: map[string]origin{}}
}

func (o *options) bind(flags *pflag.FlagSet) {
	c := &o.cfg
	c.Version = api.Version()
	flags.StringVar(&c.Node, "node", c.Node, "the node's name in the cluster")
	flags.StringSliceVar(&c.Endpoints, "endpoints", nil, "etcd: http://HOST:PORT, https://HOST:PORT or unix:///PATH, several separated by commas")
	flags.BoolVar(&c.Embedded, "embedded", false, "run an etcd of our own, in the data directory")
	flags.StringVar(&c.EmbeddedListen, "embedded-listen", "", "further addresses of the embedded etcd for other agents: http://127.0.0.1:PORT, or https://IP:PORT")
	flags.StringVar(&c.Data, "data", c.Data, "the agent's own directory, which must survive restarts")
	flags.StringVar(&c.Socket, "socket", c.Socket, "where the agent answers")
	flags.StringVar(&c.Listen, "listen", "", "HOST:PORT where it answers over TCP too, with certificates on both sides")
	flags.StringVar(&c.ListenTLS.Cert, "tls-cert", "", "our certificate for --listen")
	flags.StringVar(&c.ListenTLS.Key, "tls-key", "", "its private key")
	flags.StringVar(&c.ListenTLS.ClientCA, "client-ca", "", "authorities of the certificates of those who call over TCP")
	flags.StringVar(&c.TLS.CAFile, "etcd-ca", "", "authorities of etcd's certificates")
	flags.StringVar(&c.TLS.CertFile, "etcd-cert", "", "our certificate for etcd")
	flags.StringVar(&c.TLS.KeyFile, "etcd-key", "", "its private key")
	flags.StringVar(&c.TLS.ServerName, "etcd-server-name", "", "the name in etcd's certificate, if it is not the endpoint's host")
	flags.StringVar(&c.Root, "root", cluster.DefaultRoot, "prefix of all keys in etcd")
	flags.DurationVar(&c.LeaseTTL, "lease-ttl", c.LeaseTTL, "how long presence and locks outlive a dead agent, 2s to 1h")
	flags.DurationVar(&c.ScanEvery, "scan-every", c.ScanEvery, "how often to look for idle and foreign uids")
	flags.StringVar(&c.Role, "role", c.Role, "node, or gateway: grants no uid")
	flags.BoolVar(&c.AcceptPIDNamespace, "accept-pid-namespace", false, "this container is the node: what runs outside of it is not its affair")
	flags.StringSliceVar(&c.Groups, "group", nil, "a group of requesters: may read, ask, and end what it holds; may be given several times")
	flags.StringSliceVar(&c.OperatorGroups, "operator-group", nil, "a group of operators: may do everything, as root may")
	flags.StringSliceVar(&c.ObserverGroups, "observer-group", nil, "a group of observers: may read")
	flags.StringVar(&c.LogLevel, "log-level", c.LogLevel, "debug, info, warn or error")
	flags.StringVar(&c.UserDB, "userdb", c.UserDB, "socket on which uids have names for NSS: a path, off, or auto: "+agent.DefaultUserDB+" if its directory is there")
	flags.StringVar(&c.UserDBDropIn, "userdb-dropin", "", "directory for name records of this node's uids as files, such as /run/userdb")
	flags.StringVar(&c.UserDBPrefix, "userdb-prefix", c.UserDBPrefix, "what every name begins with")
	flags.StringVar(&o.file, "config", "", "YAML file with settings")
	flags.BoolVar(&o.check, "check-config", false, "check the configuration, and the files, groups and directories it names, and end")
}

// config completes the flags that were not given from the environment and the
// file. Validity is for the agent to say.
func (o *options) config(flags *pflag.FlagSet) (agent.Config, error) {
	given := map[string]bool{}
	flags.Visit(func(f *pflag.Flag) {
		given[f.Name] = true
		o.origins[f.Name] = origin{api.SourceFlag, "--" + f.Name}
	})
	env := o.environment(flags)
	if v, ok := env["config"]; ok && !given["config"] {
		o.file = v
	}
	entries, err := readFile(o.file, flags)
	if err != nil {
		return o.cfg, err
	}
	var faults []error
	for _, e := range entries {
		if _, later := env[e.name]; given[e.name] || later {
			continue
		}
		if err := e.set(flags.Lookup(e.name)); err != nil {
			faults = append(faults, problem.New(problem.CodeInvalid, "%s: %s: %v", e.where, e.name, err))
		}
		o.origins[e.name] = origin{api.SourceFile, e.where}
	}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if given[name] {
			continue
		}
		if err := set(flags.Lookup(name), env[name]); err != nil {
			faults = append(faults, problem.New(problem.CodeInvalid, "environment %s: %v", envName(name), err))
		}
		o.origins[name] = origin{api.SourceEnvironment, envName(name)}
	}
	return o.cfg, problem.Gather(faults)
}

func set(f *pflag.Flag, value string) error {
	if slice, ok := f.Value.(pflag.SliceValue); ok && value == "" {
		return slice.Replace(nil)
	}
	return f.Value.Set(value)
}

// settings are all settings as they are in effect, by name.
func (o *options) settings(flags *pflag.FlagSet) []api.Setting {
	var all []api.Setting
	flags.VisitAll(func(f *pflag.Flag) {
		if slices.Contains(notSettings, f.Name) || f.Name == "config" {
			return
		}
		s := api.Setting{Name: f.Name, Value: f.Value.String(), Source: api.SourceDefault, Reloads: slices.Contains(agent.Reloads, f.Name)}
		if slice, ok := f.Value.(pflag.SliceValue); ok {
			s.Value = strings.Join(slice.GetSlice(), ",")
		}
		if from, ok := o.origins[f.Name]; ok {
			s.Source, s.Where = from.source, from.where
		}
		all = append(all, s)
	})
	return all
}

// located makes one refusal of what is wrong with settings; each says where its
// setting stands.
func (o *options) located(faults []agent.Fault) error {
	var all []error
	for _, f := range faults {
		from, ok := o.origins[f.Setting]
		var p *problem.Error
		if ok && errors.As(f.Err, &p) {
			there := *p
			there.Detail = from.where + ": " + f.Err.Error()
			if from.source == api.SourceEnvironment {
				there.Detail = "environment " + there.Detail
			}
			f.Err = &there
		}
		all = append(all, f.Err)
	}
	return problem.Gather(all)
}

func envName(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// environment reads IDPOOL_*, each of which names a flag, but for those that are
// other programs': poolctl has the same prefix.
func (o *options) environment(flags *pflag.FlagSet) map[string]string {
	byName := map[string]string{}
	flags.VisitAll(func(f *pflag.Flag) {
		if !slices.Contains(notSettings, f.Name) {
			byName[envName(f.Name)] = f.Name
		}
	})
	values := map[string]string{}
	for _, entry := range o.environ {
		name, value, _ := strings.Cut(entry, "=")
		if flag, ok := byName[name]; ok {
			values[flag] = value
		}
	}
	return values
}
