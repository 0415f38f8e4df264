package tlsfile_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/tlsfile"
)

var began = time.Now().Truncate(time.Second)

// write puts a self-signed certificate of this name and life into its files.
func write(t *testing.T, f tlsfile.Files, name string, life time.Duration) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: began, NotAfter: began.Add(life)}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	put(t, f.Cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	put(t, f.Key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}))
}

func put(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func files(t *testing.T) tlsfile.Files {
	dir := t.TempDir()
	return tlsfile.Files{Cert: filepath.Join(dir, "c"), Key: filepath.Join(dir, "k"), CA: filepath.Join(dir, "a")}
}

// TestReread: what changes is taken in whole; what cannot be used changes nothing, and
// is told once.
func TestReread(t *testing.T) {
	t.Parallel()
	f := files(t)
	write(t, f, "one", time.Hour)
	pem, _ := os.ReadFile(f.Cert)
	put(t, f.CA, pem)
	core, logs := observer.New(zap.InfoLevel)
	s, err := tlsfile.Open("test", f, zap.New(core))
	if err != nil {
		t.Fatal(err)
	}
	is := func(want string) {
		t.Helper()
		for range 3 {
			if cert, roots := s.Now(); cert == nil || roots == nil || cert.Leaf.Subject.CommonName != want {
				t.Fatalf("got %+v, want %s", cert, want)
			}
		}
	}
	is("one")
	write(t, f, "two", time.Hour)
	is("two")
	good, _ := os.ReadFile(f.Key)
	for what, spoil := range map[string]func(){
		"another's key": func() {
			other := files(t)
			write(t, other, "x", time.Hour)
			k, _ := os.ReadFile(other.Key)
			put(t, f.Key, k)
		},
		"no key":     func() { _ = os.Remove(f.Key) },
		"half a key": func() { put(t, f.Key, good[:40]) },
	} {
		before := logs.FilterLevelExact(zap.WarnLevel).Len()
		spoil()
		is("two")
		put(t, f.Key, good)
		is("two")
		if n := logs.FilterLevelExact(zap.WarnLevel).Len() - before; n != 1 {
			t.Errorf("%s: told %d times", what, n)
		}
	}
	put(t, f.CA, []byte("no certificate"))
	is("two")
	if n := logs.FilterMessage("certificates can be used again").Len(); n != 3 {
		t.Errorf("told %d times that all is well again", n)
	}
}

// TestTimes: what is told of a certificate's life.
func TestTimes(t *testing.T) {
	t.Parallel()
	f := files(t)
	f.CA = ""
	write(t, f, "long", 100*24*time.Hour)
	s, err := tlsfile.Open("TLS to x", f, nil)
	if err != nil {
		t.Fatal(err)
	}
	end := began.Add(100 * 24 * time.Hour)
	if !s.Ends().Equal(end) {
		t.Errorf("ends %v, want %v", s.Ends(), end)
	}
	stamp := end.UTC().Format(time.RFC3339)
	for _, row := range []struct {
		at              time.Time
		trouble, ending string
	}{
		{began.Add(-time.Second), "begins " + began.UTC().Format(time.RFC3339), ""},
		{began.Add(time.Second), "", ""},
		{end.Add(-21 * 24 * time.Hour), "", ""}, // a fifth is 20 days
		{end.Add(-19 * 24 * time.Hour), "", "certificate " + f.Cert + " ends " + stamp},
		{end.Add(time.Second), "TLS to x: certificate " + f.Cert + " ended " + stamp, "ended " + stamp},
	} {
		err := s.Trouble(row.at)
		if (err == nil) != (row.trouble == "") || err != nil && (problem.CodeOf(err) != problem.CodeUnavailable || !strings.Contains(err.Error(), row.trouble)) {
			t.Errorf("at %v: %v, want %q", row.at, err, row.trouble)
		}
		if got := s.Ending(row.at); (got == "") != (row.ending == "") || !strings.Contains(got, row.ending) {
			t.Errorf("at %v: %q, want %q", row.at, got, row.ending)
		}
	}
	put(t, f.Key, nil)
	var p *problem.Error
	if err := s.Trouble(end.Add(time.Second)); !asProblem(err, &p) || !strings.Contains(p.Text(), "the files have changed and cannot be used") {
		t.Errorf("an end, and a renewal that cannot be used: %v", err)
	}
	none, err := tlsfile.Open("x", tlsfile.Files{}, nil)
	if err != nil || none.Trouble(end) != nil || none.Ending(end) != "" || !none.Ends().IsZero() {
		t.Errorf("without files: %v", err)
	}
	if cert, roots := none.Now(); cert != nil || roots != nil {
		t.Error("something of no files")
	}
}

func asProblem(err error, into **problem.Error) bool {
	p, ok := err.(*problem.Error)
	*into = p
	return ok
}
