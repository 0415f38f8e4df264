package clustertest_test

import (
	"crypto/tls"
	"strings"
	"testing"
	"time"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/cluster/clustertest"
	"github.com/idpool/idpool/cluster/pki"
	"github.com/idpool/idpool/problem"
)

// TestSecure: three members talk TLS with clients and with each other, and an agent's
// certificate, of the same authority, is none of a member.
func TestSecure(t *testing.T) {
	t.Parallel()
	s := clustertest.StartSecure(t, 3)
	s.Issue(t, pki.Wish{Specs: []pki.Spec{{Name: "n1", Kind: pki.Agent}}})
	s.Authorize(t, map[pki.Kind][]string{pki.Agent: {"n1"}})
	if _, _, err := s.OpenAs(t, "n1").EnsureMeta(t.Context()); err != nil {
		t.Fatal(err)
	}
	peer := s.Member(0).Etcd().Config().ListenPeerUrls[0].Host
	for name, lets := range map[string]bool{"m1": true, "n1": false} {
		pair, err := tls.LoadX509KeyPair(s.TLS(name).CertFile, s.TLS(name).KeyFile)
		if err != nil {
			t.Fatal(err)
		}
		c, err := tls.Dial("tcp", peer, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{pair}})
		if err == nil {
			_ = c.SetDeadline(time.Now().Add(10 * time.Second))
			if _, err = c.Write([]byte("GET /raft HTTP/1.0\r\n\r\n")); err == nil {
				_, err = c.Read(make([]byte, 1))
			}
			_ = c.Close()
		}
		if (err == nil) != lets {
			t.Errorf("%s at a member's port for members: %v", name, err)
		}
	}
}

// TestHandshakesTold: why etcd cannot be reached is told where certificates are the
// reason, and not only that time ran out.
func TestHandshakesTold(t *testing.T) {
	t.Parallel()
	s, other := clustertest.StartSecure(t, 1), clustertest.StartSecure(t, 1)
	for name, row := range map[string]struct {
		change func(*cluster.Config)
		says   string
	}{
		"another authority's certificate": {func(c *cluster.Config) {
			c.TLS.CertFile, c.TLS.KeyFile = other.TLS("root").CertFile, other.TLS("root").KeyFile
		}, " refuses our certificate " + other.TLS("root").CertFile + ": tls: unknown certificate authority"},
		"another authority trusted": {func(c *cluster.Config) { c.TLS.CAFile = other.TLS("root").CAFile }, " shows is not trusted: x509: certificate signed by unknown authority"},
		"another name":              {func(c *cluster.Config) { c.TLS.ServerName = "etcd9" }, "x509: certificate is valid for m0, localhost, not etcd9"},
		"no certificate":            {func(c *cluster.Config) { c.TLS.CertFile, c.TLS.KeyFile = "", "" }, "wants a certificate of ours, and none is configured"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := s.As("root")
			cfg.Attempt = 500 * time.Millisecond
			row.change(&cfg)
			_, err := cluster.Open(t.Context(), cfg, nil)
			if problem.CodeOf(err) != problem.CodeUnavailable || !strings.Contains(err.Error(), "TLS to etcd: ") || !strings.Contains(err.Error(), row.says) || !strings.Contains(err.Error(), s.Endpoints()[0]) {
				t.Errorf("got %v, want %q", err, row.says)
			}
		})
	}
}
