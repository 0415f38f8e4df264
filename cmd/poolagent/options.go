package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"gopkg.in/yaml.v3"

	"github.com/idpool/idpool/agent"
	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/problem"
)

// envPrefix begins the environment's names of settings.
const envPrefix = "IDPOOL_"

// maxFile bounds the configuration file.
const maxFile = 1 << 20

// options are the flags, whatever they come from.
type options struct {
	cfg     agent.Config
	file    string
	check   bool
	environ []string
}

// notSettings are flags about one run: they stand neither in file nor
// environment. --config itself may come from the environment.
var notSettings = []string{"help", "version", "check-config"}

func newOptions(environ []string) *options {
	return &options{cfg: agent.Default(), environ: environ}
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
	flags.StringVar(&c.TLS.CAFile, "etcd-ca", "", "authorities of etcd's certificates")
	flags.StringVar(&c.TLS.CertFile, "etcd-cert", "", "our certificate for etcd")
	flags.StringVar(&c.TLS.KeyFile, "etcd-key", "", "its private key")
	flags.StringVar(&c.TLS.ServerName, "etcd-server-name", "", "the name in etcd's certificate, if it is not the endpoint's host")
	flags.StringVar(&c.Root, "root", cluster.DefaultRoot, "prefix of all keys in etcd")
	flags.DurationVar(&c.LeaseTTL, "lease-ttl", c.LeaseTTL, "how long presence and locks outlive a dead agent, 2s to 1h")
	flags.DurationVar(&c.ScanEvery, "scan-every", c.ScanEvery, "how often to look for idle and foreign uids")
	flags.StringVar(&c.Role, "role", c.Role, "node, or gateway: grants no uid")
	flags.BoolVar(&c.AcceptPIDNamespace, "accept-pid-namespace", false, "this container is the node: what runs outside of it is not its affair")
	flags.StringSliceVar(&c.Groups, "group", nil, "a group that may ask for uids, beside root; may be given several times")
	flags.StringVar(&c.LogLevel, "log-level", c.LogLevel, "debug, info, warn or error")
	flags.StringVar(&c.UserDB, "userdb", c.UserDB, "socket on which uids have names for NSS: a path, off, or auto: "+agent.DefaultUserDB+" if its directory is there")
	flags.StringVar(&c.UserDBDropIn, "userdb-dropin", "", "directory for name records of this node's uids as files, such as /run/userdb")
	flags.StringVar(&c.UserDBPrefix, "userdb-prefix", c.UserDBPrefix, "what every name begins with")
	flags.StringVar(&o.file, "config", "", "YAML file with settings")
	flags.BoolVar(&o.check, "check-config", false, "check the configuration and end")
}

// config completes the flags that were not given from the environment and the
// file. Validity is for the agent to say.
func (o *options) config(flags *pflag.FlagSet) (agent.Config, error) {
	given := map[string]bool{}
	flags.Visit(func(f *pflag.Flag) { given[f.Name] = true })
	env, err := o.environment(flags)
	if err != nil {
		return o.cfg, err
	}
	if v, ok := env["config"]; ok && !given["config"] {
		o.file = v
	}
	file, err := o.readFile()
	if err != nil {
		return o.cfg, err
	}
	for name, value := range file {
		if _, later := env[name]; given[name] || later {
			continue
		}
		if err := set(flags, name, value); err != nil {
			return o.cfg, problem.New(problem.CodeInvalid, "%s: %s: %v", o.file, name, err)
		}
	}
	for name, value := range env {
		if given[name] {
			continue
		}
		if err := set(flags, name, value); err != nil {
			return o.cfg, problem.New(problem.CodeInvalid, "environment %s: %v", envName(name), err)
		}
	}
	return o.cfg, nil
}

func set(flags *pflag.FlagSet, name, value string) error {
	f := flags.Lookup(name)
	if slice, ok := f.Value.(pflag.SliceValue); ok && value == "" {
		return slice.Replace(nil)
	}
	return f.Value.Set(value)
}

func envName(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// environment reads IDPOOL_*, each of which names a flag, but for those that are
// other programs': poolctl has the same prefix.
func (o *options) environment(flags *pflag.FlagSet) (map[string]string, error) {
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
	return values, nil
}

// settings is the file: the flags' names, no others.
type settings struct {
	Node               *string        `yaml:"node"`
	Endpoints          []string       `yaml:"endpoints"`
	Embedded           *bool          `yaml:"embedded"`
	EmbeddedListen     *string        `yaml:"embedded-listen"`
	Data               *string        `yaml:"data"`
	Socket             *string        `yaml:"socket"`
	CA                 *string        `yaml:"etcd-ca"`
	Cert               *string        `yaml:"etcd-cert"`
	Key                *string        `yaml:"etcd-key"`
	ServerName         *string        `yaml:"etcd-server-name"`
	Root               *string        `yaml:"root"`
	LeaseTTL           *time.Duration `yaml:"lease-ttl"`
	ScanEvery          *time.Duration `yaml:"scan-every"`
	Role               *string        `yaml:"role"`
	AcceptPIDNamespace *bool          `yaml:"accept-pid-namespace"`
	Group              []string       `yaml:"group"`
	LogLevel           *string        `yaml:"log-level"`
	UserDB             *string        `yaml:"userdb"`
	UserDBDropIn       *string        `yaml:"userdb-dropin"`
	UserDBPrefix       *string        `yaml:"userdb-prefix"`
}

// readFile reads the file of --config as values of flags.
func (o *options) readFile() (map[string]string, error) {
	if o.file == "" {
		return nil, nil
	}
	f, err := os.Open(o.file)
	if err != nil {
		return nil, problem.Wrap(problem.CodeInvalid, err, "read the configuration")
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, problem.Wrap(problem.CodeInvalid, err, "read the configuration")
	}
	if len(raw) > maxFile {
		return nil, problem.New(problem.CodeInvalid, "configuration %s is longer than %d bytes", o.file, maxFile)
	}
	var s settings
	dec := yaml.NewDecoder(strings.NewReader(string(raw)))
	dec.KnownFields(true)
	if err := dec.Decode(&s); err != nil && !errors.Is(err, io.EOF) {
		return nil, problem.New(problem.CodeInvalid, "configuration %s: %s", o.file, strings.ReplaceAll(err.Error(), "\n", " "))
	}
	return s.values(), nil
}

// values are the settings given, as flags take them.
func (s settings) values() map[string]string {
	out := map[string]string{}
	put := func(name string, v fmt.Stringer) { out[name] = v.String() }
	for name, v := range map[string]*string{
		"node": s.Node, "embedded-listen": s.EmbeddedListen, "data": s.Data, "socket": s.Socket, "etcd-ca": s.CA, "etcd-cert": s.Cert, "etcd-key": s.Key,
		"etcd-server-name": s.ServerName, "root": s.Root, "role": s.Role, "log-level": s.LogLevel,
		"userdb": s.UserDB, "userdb-dropin": s.UserDBDropIn, "userdb-prefix": s.UserDBPrefix,
	} {
		if v != nil {
			out[name] = *v
		}
	}
	for name, v := range map[string]*bool{"embedded": s.Embedded, "accept-pid-namespace": s.AcceptPIDNamespace} {
		if v != nil {
			out[name] = fmt.Sprint(*v)
		}
	}
	for name, v := range map[string]*time.Duration{"lease-ttl": s.LeaseTTL, "scan-every": s.ScanEvery} {
		if v != nil {
			put(name, *v)
		}
	}
	for name, v := range map[string][]string{"endpoints": s.Endpoints, "group": s.Group} {
		if v != nil {
			out[name] = strings.Join(v, ",")
		}
	}
	return out
}
