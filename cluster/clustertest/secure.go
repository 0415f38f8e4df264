package clustertest

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/cluster/embed"
	"github.com/idpool/idpool/cluster/pki"
	"github.com/idpool/idpool/cluster/rbac"
)

// Secure is a cluster with TLS on both sides of every connection, between members
// too. Its endpoints are https; authentication is off until a test switches it on.
type Secure struct {
	*Cluster
	// PKI is the directory of its certificates, those of members m0, m1 and so on, and
	// of etcd's administrator.
	PKI string
}

// StartSecure runs a cluster of n members whose certificates, of the package pki, are
// in a new directory.
func StartSecure(t testing.TB, n int) *Secure {
	t.Helper()
	s := &Secure{PKI: filepath.Join(t.TempDir(), "pki")}
	var members []pki.Spec
	for i := range n {
		members = append(members, pki.Spec{Name: fmt.Sprintf("m%d", i), Kind: pki.Member})
	}
	s.Issue(t, pki.Wish{Specs: members})
	s.Cluster = start(t, n, func(dir string, n int) []embed.Config {
		all := configs(t, dir, n)
		for i := range all {
			all[i].TLS = s.TLS(fmt.Sprintf("m%d", i))
			all[i].ListenClient, all[i].NoSocket = "https://"+freeAddress(t), true
			if n == 1 {
				continue
			}
			all[i].PeerTLS = all[i].TLS
			all[i].ListenPeer = "https" + all[i].ListenPeer[len("http"):]
			all[i].Members[all[i].Name] = all[i].ListenPeer
		}
		return all
	})
	return s
}

// Issue makes or renews certificates.
func (s *Secure) Issue(t testing.TB, w pki.Wish) {
	t.Helper()
	s.IssueAt(t, w, time.Now())
}

// IssueAt is Issue at another time: what it makes ends earlier.
func (s *Secure) IssueAt(t testing.TB, w pki.Wish, now time.Time) {
	t.Helper()
	if _, err := pki.Ensure(s.PKI, w, now); err != nil {
		t.Fatal(err)
	}
}

// TLS is the configuration of whoever has the certificate of that name.
func (s *Secure) TLS(name string) cluster.TLSConfig {
	file := func(name string) string { return filepath.Join(s.PKI, name) }
	return cluster.TLSConfig{CAFile: file("ca.crt"), CertFile: file(name + ".crt"), KeyFile: file(name + ".key")}
}

// As is a client's configuration with the certificate of that name.
func (s *Secure) As(name string) cluster.Config {
	cfg := s.Config()
	cfg.TLS = s.TLS(name)
	return cfg
}

// OpenAs connects a client with the certificate of that name.
func (s *Secure) OpenAs(t testing.TB, name string) *cluster.Client {
	t.Helper()
	return s.OpenWith(t, func(c *cluster.Config) { c.TLS = s.TLS(name) })
}

// Authorize gives the certificates of these names their rights, and switches
// authentication on. It can be called again, for more names.
func (s *Secure) Authorize(t testing.TB, users map[pki.Kind][]string) {
	t.Helper()
	root := s.OpenAs(t, pki.RootName)
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	have, err := rbac.Read(ctx, root)
	if err != nil {
		t.Fatal(err)
	}
	steps, err := rbac.Plan(rbac.Wish{Root: cluster.DefaultRoot, Users: users}, have)
	if err == nil {
		err = rbac.Apply(ctx, root, steps, func(rbac.Step) {})
	}
	if err != nil {
		t.Fatal(err)
	}
}
