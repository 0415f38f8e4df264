package pki_test

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/idpool/idpool/cluster/pki"
	"github.com/idpool/idpool/problem"
)

var now = time.Now()

func ensure(t *testing.T, dir string, w pki.Wish, at time.Time) []pki.Entry {
	t.Helper()
	all, err := pki.Ensure(dir, w, at)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestTimes: a certificate begins before now, for clocks that are behind, and does not
// outlive its authority, which is refused once it has ended.
func TestTimes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	all := ensure(t, dir, pki.Wish{Days: 30}, now)
	if ca, root := all[0], all[1]; !root.Begins.Before(now) || root.Ends.Sub(now).Round(time.Hour) != 30*24*time.Hour || ca.Ends.Before(now.AddDate(9, 0, 0)) {
		t.Errorf("%+v", all)
	}
	ca := all[0].Ends
	late := ca.Add(-time.Hour)
	all = ensure(t, dir, pki.Wish{Renew: []string{"root"}}, late)
	if !all[1].Ends.Equal(ca) {
		t.Errorf("root ends %v, its authority %v", all[1].Ends, ca)
	}
	wish := pki.Wish{Specs: []pki.Spec{{Name: "n1", Kind: pki.Agent}}, Renew: []string{"root"}}
	_, err := pki.Ensure(dir, wish, ca.Add(time.Hour))
	if problem.CodeOf(err) != problem.CodeInvalid || !strings.Contains(err.Error(), "ca.crt ended ") {
		t.Errorf("an authority that ended: %v", err)
	}
	wish.Renew = append(wish.Renew, "ca")
	ensure(t, dir, wish, ca.Add(time.Hour))
	_, err = pki.Ensure(dir, pki.Wish{Specs: wish.Specs}, ca.AddDate(2, 0, 0))
	if problem.CodeOf(err) != problem.CodeInvalid || !strings.Contains(err.Error(), "root.crt ended ") {
		t.Errorf("a certificate that ended: %v", err)
	}
}

// TestOneAtATime: of several runs at once each makes all or is refused; none spoils
// another's authority.
func TestOneAtATime(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "pki")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			_, err := pki.Ensure(dir, pki.Wish{Specs: []pki.Spec{{Name: "m1", Kind: pki.Member}}}, now)
			if err != nil && problem.CodeOf(err) != problem.CodeHeld {
				t.Error(err)
			}
		})
	}
	all.Wait()
	ensure(t, dir, pki.Wish{Specs: []pki.Spec{{Name: "m1", Kind: pki.Member}}}, now)
}

// TestCutShort: wherever a run ends, the next one completes it. What is left behind is
// all that was there before some file of it.
func TestCutShort(t *testing.T) {
	t.Parallel()
	wish := pki.Wish{Specs: []pki.Spec{{Name: "n1", Kind: pki.Agent}, {Name: "m1", Kind: pki.Member}}}
	order := []string{"ca.key", "ca.crt", "root.key", "root.crt", "n1.key", "n1.crt", "m1.key", "m1.crt"}
	for i := range order {
		dir := t.TempDir()
		ensure(t, dir, wish, now)
		for _, name := range order[i:] {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, order[i]+".tmp"), []byte("-----BEGIN"), 0o644); err != nil {
			t.Fatal(err)
		}
		all := ensure(t, dir, wish, now)
		roots := x509.NewCertPool()
		data, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
		if err != nil || !roots.AppendCertsFromPEM(data) || len(all) != 4 {
			t.Fatalf("before %s: %v, %v", order[i], all, err)
		}
		ensure(t, dir, wish, now) // refuses what does not fit together
	}
}

// FuzzDirectory: whatever the files hold is told, and kept.
func FuzzDirectory(f *testing.F) {
	dir := f.TempDir()
	if _, err := pki.Ensure(dir, pki.Wish{}, now); err != nil {
		f.Fatal(err)
	}
	for _, name := range []string{"ca.crt", "ca.key", "root.crt", "root.key"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, data)
	}
	f.Add([]byte{}, []byte("-----BEGIN PRIVATE KEY-----\nMA==\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, cert, key []byte) {
		dir := t.TempDir()
		for name, data := range map[string][]byte{"ca.crt": cert, "n1.key": key, "n1.crt": cert, "root.key": key} {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		_, err := pki.Ensure(dir, pki.Wish{Specs: []pki.Spec{{Name: "n1", Kind: pki.Agent}}, Renew: []string{"n1"}}, now)
		if code := problem.CodeOf(err); err == nil || code == problem.CodeInternal {
			t.Errorf("%v", err)
		}
		left, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
		if err != nil || string(left) != string(cert) {
			t.Error("ca.crt changed")
		}
	})
}
