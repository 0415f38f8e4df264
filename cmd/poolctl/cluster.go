package main

import (
	"context"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/idpool/idpool/cluster"
)

func init() { extraCommands = append(extraCommands, newClusterCmd) }

// clusterCommands make the commands of the group; each file adds its own.
var clusterCommands []func(*clusterFactory) *cobra.Command

// clusterFactory is what the commands that talk to etcd themselves are made from.
type clusterFactory struct {
	*Factory
	cfg cluster.Config
}

func newClusterCmd(f *Factory) *cobra.Command {
	c := &clusterFactory{Factory: f, cfg: cluster.DefaultConfig()}
	cmd := &cobra.Command{
		Use:   "cluster",
		Short: "Set a cluster up, back it up, bring it back",
		Long: `The only commands that talk to etcd themselves, and so need its address and, with
mutual TLS, a certificate. The flags have the names of poolagent's settings, and the
same IDPOOL_* variables.`,
		Args: cobra.NoArgs,
		RunE: needsSubcommand,
	}
	for _, make := range clusterCommands {
		cmd.AddCommand(make(c))
	}
	return cmd
}

// addEtcd gives a command the flags that say where etcd is. What is not given is
// taken from the environment, as poolagent does.
func (c *clusterFactory) addEtcd(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringSliceVar(&c.cfg.Endpoints, "endpoints", fromEnviron("IDPOOL_ENDPOINTS"), "etcd: http://HOST:PORT, https://HOST:PORT or unix:///PATH, several separated by commas (IDPOOL_ENDPOINTS)")
	flags.StringVar(&c.cfg.TLS.CAFile, "etcd-ca", os.Getenv("IDPOOL_ETCD_CA"), "authorities of etcd's certificates (IDPOOL_ETCD_CA)")
	flags.StringVar(&c.cfg.TLS.CertFile, "etcd-cert", os.Getenv("IDPOOL_ETCD_CERT"), "our certificate for etcd (IDPOOL_ETCD_CERT)")
	flags.StringVar(&c.cfg.TLS.KeyFile, "etcd-key", os.Getenv("IDPOOL_ETCD_KEY"), "its private key (IDPOOL_ETCD_KEY)")
	flags.StringVar(&c.cfg.TLS.ServerName, "etcd-server-name", os.Getenv("IDPOOL_ETCD_SERVER_NAME"), "the name in etcd's certificate, if it is not the endpoint's host (IDPOOL_ETCD_SERVER_NAME)")
	root := os.Getenv("IDPOOL_ROOT")
	if root == "" {
		root = cluster.DefaultRoot
	}
	flags.StringVar(&c.cfg.Root, "root", root, "prefix of all keys in etcd (IDPOOL_ROOT)")
}

func fromEnviron(name string) []string {
	if text := os.Getenv(name); text != "" {
		return strings.Split(text, ",")
	}
	return nil
}

// open connects to etcd; the caller closes what it gets.
func (c *clusterFactory) open(ctx context.Context) (*cluster.Client, error) {
	if err := c.needsEndpoints(); err != nil {
		return nil, err
	}
	return cluster.Open(ctx, c.cfg, nil)
}

// needsEndpoints refuses a command that was not told where etcd is.
func (c *clusterFactory) needsEndpoints() error {
	if len(c.cfg.Endpoints) == 0 {
		return usage("where is etcd? no endpoint is named: --endpoints https://HOST:2379,…, or IDPOOL_ENDPOINTS")
	}
	return nil
}
