package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/cluster/clustertest"
	"github.com/idpool/idpool/cluster/embed"
)

// secured is an etcd that asks for certificates and roles.
type secured struct {
	w        *world
	ca       *x509.Certificate
	key      *ecdsa.PrivateKey
	endpoint string
	root     *clientv3.Client
}

// secure starts it, with one agent's user that may do everything below the root.
func (w *world) secure(user string) *secured {
	w.t.Helper()
	s := &secured{w: w}
	s.ca, s.key = &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, s.newKey()
	s.sign("ca", s.ca, s.ca, s.key)
	s.issue("etcd", &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}})
	s.issue(user, &x509.Certificate{Subject: pkix.Name{CommonName: user}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	server, err := embed.Start(ctx, embed.Config{Dir: filepath.Join(w.dir, "etcd"), ListenClient: "https://127.0.0.1:0", Fast: true,
		TLS: cluster.TLSConfig{CAFile: s.file("ca.crt"), CertFile: s.file("etcd.crt"), KeyFile: s.file("etcd.key")}}, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = server.Close() })
	socket := server.Endpoints()[:1]
	s.endpoint = server.Endpoints()[1]
	first, err := clientv3.New(clientv3.Config{Endpoints: socket})
	if err != nil {
		w.t.Fatal(err)
	}
	defer first.Close()
	for _, step := range []func() error{
		func() error { _, err := first.UserAdd(ctx, "root", "secret"); return err },
		func() error { _, err := first.UserGrantRole(ctx, "root", "root"); return err },
		func() error {
			_, err := first.UserAddWithOptions(ctx, user, "", &clientv3.UserAddOptions{NoPassword: true})
			return err
		},
		func() error { _, err := first.RoleAdd(ctx, "agent"); return err },
		func() error { _, err := first.UserGrantRole(ctx, user, "agent"); return err },
		func() error { _, err := first.AuthEnable(ctx); return err },
	} {
		if err := step(); err != nil {
			w.t.Fatal(err)
		}
	}
	if s.root, err = clientv3.New(clientv3.Config{Endpoints: socket, Username: "root", Password: "secret"}); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = s.root.Close() })
	return s
}

// allow gives the agents' role what it needs, or takes it away.
func (s *secured) allow(yes bool) {
	s.w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	end := clientv3.GetPrefixRangeEnd(cluster.DefaultRoot)
	var err error
	if !yes {
		_, err = s.root.RoleRevokePermission(ctx, "agent", cluster.DefaultRoot, end)
	} else {
		_, err = s.root.RoleGrantPermission(ctx, "agent", cluster.DefaultRoot, end, clientv3.PermissionType(clientv3.PermReadWrite))
	}
	if err != nil {
		s.w.t.Fatal(err)
	}
}

func (s *secured) file(name string) string { return filepath.Join(s.w.dir, name) }

func (s *secured) newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.w.t.Fatal(err)
	}
	return key
}

func (s *secured) issue(name string, cert *x509.Certificate) { s.sign(name, cert, s.ca, s.newKey()) }

func (s *secured) sign(name string, cert, parent *x509.Certificate, key *ecdsa.PrivateKey) {
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		s.w.t.Fatal(err)
	}
	cert.SerialNumber, cert.NotBefore, cert.NotAfter = serial, time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	if cert.Subject.CommonName == "" {
		cert.Subject.CommonName = name
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, parent, key.Public(), s.key)
	if err != nil {
		s.w.t.Fatal(err)
	}
	raw, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		s.w.t.Fatal(err)
	}
	for suffix, block := range map[string]*pem.Block{".crt": {Type: "CERTIFICATE", Bytes: der}, ".key": {Type: "EC PRIVATE KEY", Bytes: raw}} {
		if err := os.WriteFile(s.file(name+suffix), pem.EncodeToMemory(block), 0o600); err != nil {
			s.w.t.Fatal(err)
		}
	}
}

// TestPermissionRevoked: an agent whose role is taken away says so and touches nothing,
// started anew too, and goes on by itself once it has it again.
func TestPermissionRevoked(t *testing.T) {
	t.Parallel()
	w := newWorldOn(t, func() *clustertest.Cluster { return nil })
	s := w.secure("n1")
	s.allow(true)
	n := w.node("n1")
	n.endpoints = []string{s.endpoint}
	n.flags = []string{"--etcd-ca", s.file("ca.crt"), "--etcd-cert", s.file("n1.crt"), "--etcd-key", s.file("n1.key")}
	n.start()
	n.ready()
	n.must("uid", "pool", "set", "p", apart(5, 20))
	job := n.occupies("p")
	s.allow(false)
	n.saysReady(503, "permission denied") // nobody asked it anything
	n.refused(5, []string{"uid", "request", "--pool", "p"}, "etcd denies the agent of node n1", "nothing was done", "poolctl cluster auth --agent n1")
	n.refused(5, []string{"uid", "release", fmt.Sprint(job.was.UID), "--token", job.was.Token}, "etcd denies the agent of node n1", "nothing was done")
	job.goesOn()
	s.allow(true)
	n.saysReady(200)
	n.must("uid", "request", "--pool", "p")
	job.goesOn()

	s.allow(false)
	n.terminate()
	n.start()
	n.saysReady(503, "permission denied")
	n.refused(5, []string{"uid", "request", "--pool", "p"}, "permission denied", "nothing was done")
	s.allow(true)
	n.saysReady(200)
	n.must("uid", "request", "--pool", "p")
	job.goesOn()
	if strings.Contains(n.log.String(), "panic") {
		t.Error("the agent's log tells of a panic")
	}
}
