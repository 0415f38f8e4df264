package uidpool

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/idpool/idpool/leases"
)

// TestResidueFiles: on a file system made for it.
func TestResidueFiles(t *testing.T) {
	needRoot(t)
	root := t.TempDir()
	put := func(path string, uid int) {
		t.Helper()
		at := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Lchown(at, uid, uid); err != nil {
			t.Fatal(err)
		}
	}
	put("/dev/shm/a", 70001)
	put("/dev/mqueue/q", 70002)
	put("/var/spool/cron/crontabs/joe", 70003)
	put("/var/spool/cron/atjobs/a0001", 70004)
	put("/run/user/70005/x", 0)
	put("/var/lib/systemd/linger/70006", 0)
	put("/tmp/krb5cc_70007", 70007)
	put("/tmp/other", 70008)
	p := &Prover{roots: root}
	for id, want := range map[uint32]string{
		70001: "/dev/shm/a", 70002: "/dev/mqueue/q", 70003: "crontabs/joe", 70004: "atjobs/a0001",
		70005: "/run/user/70005", 70006: "linger/70006", 70007: "krb5cc_70007", 70008: "", 70009: "",
	} {
		l := leftover(id, 1)
		left, ok := p.Residue([]leases.Leftover{l})[l.Ref]
		if ok != (want != "") || !strings.HasSuffix(left, want) {
			t.Errorf("%d: %q; want %q", id, left, want)
		}
	}
	if err := os.RemoveAll(filepath.Join(root, "dev/shm")); err != nil {
		t.Fatal(err)
	}
	put("/dev/shm", 0) // no directory
	l := leftover(70009, 1)
	if left := p.Residue([]leases.Leftover{l})[l.Ref]; !strings.HasPrefix(left, "cannot tell: ") {
		t.Errorf("what cannot be listed: %q", left)
	}
}
