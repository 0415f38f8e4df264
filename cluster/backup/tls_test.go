package backup_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/cluster/backup"
	"github.com/idpool/idpool/cluster/embed"
	"github.com/idpool/idpool/problem"
)

// authority issues certificates into a directory.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.issue("ca")
	return a
}

// issue makes NAME.crt and NAME.key for a server on the loopback and a client named name.
func (a *authority) issue(name string) cluster.TLSConfig {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		IsCA: a.cert == nil, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	if a.cert == nil {
		a.cert, a.key = cert, key
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	base := filepath.Join(a.dir, name)
	for file, block := range map[string]*pem.Block{base + ".crt": {Type: "CERTIFICATE", Bytes: der}, base + ".key": {Type: "PRIVATE KEY", Bytes: raw}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	return cluster.TLSConfig{CAFile: filepath.Join(a.dir, "ca.crt"), CertFile: base + ".crt", KeyFile: base + ".key"}
}

// TestSaveWithCertificates: with mutual TLS and etcd's authentication on, root may and
// another may not.
func TestSaveWithCertificates(t *testing.T) {
	ca := newAuthority(t)
	dir, err := os.MkdirTemp("", "idpb-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s, err := embed.Start(testContext(t), embed.Config{Dir: dir, Fast: true, ListenClient: "https://127.0.0.1:0", TLS: ca.issue("member")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	cfg := cluster.DefaultConfig()
	cfg.Endpoints, cfg.TLS = s.Endpoints()[1:], ca.issue("root")

	admin, err := cluster.Open(testContext(t), cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = admin.Close() }()
	enableAuth(t, admin)

	file := filepath.Join(t.TempDir(), "s.db")
	if _, err := backup.Save(testContext(t), cfg, file, backup.Options{}); err != nil {
		t.Fatal(err)
	}
	cfg.TLS = ca.issue("reader")
	_, err = backup.Save(testContext(t), cfg, filepath.Join(filepath.Dir(file), "other.db"), backup.Options{})
	if !errors.Is(err, problem.ErrForbidden) || !strings.Contains(err.Error(), "denies a snapshot") {
		t.Errorf("a user without the role root: %v", err)
	}
	cfg.TLS.CertFile, cfg.TLS.KeyFile, cfg.Attempt = "", "", 300*time.Millisecond
	if _, err = backup.Save(testContext(t), cfg, filepath.Join(filepath.Dir(file), "other.db"), backup.Options{}); err == nil {
		t.Error("without a certificate it was sent")
	}
	alone(t, filepath.Dir(file), "s.db")
}

// enableAuth makes root the administrator, and reader one who may read.
func enableAuth(t *testing.T, admin *cluster.Client) {
	t.Helper()
	ctx, auth := testContext(t), clientv3.NewAuth(admin.Txn())
	nobody := &clientv3.UserAddOptions{NoPassword: true}
	for _, do := range []func() error{
		func() error { _, err := auth.RoleAdd(ctx, "root"); return err },
		func() error { _, err := auth.UserAddWithOptions(ctx, "root", "", nobody); return err },
		func() error { _, err := auth.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := auth.RoleAdd(ctx, "reader"); return err },
		func() error {
			_, err := auth.RoleGrantPermission(ctx, "reader", "/idpool/", clientv3.GetPrefixRangeEnd("/idpool/"), clientv3.PermissionType(clientv3.PermRead))
			return err
		},
		func() error { _, err := auth.UserAddWithOptions(ctx, "reader", "", nobody); return err },
		func() error { _, err := auth.UserGrantRole(ctx, "reader", "reader"); return err },
		func() error { _, err := auth.AuthEnable(ctx); return err },
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
}
