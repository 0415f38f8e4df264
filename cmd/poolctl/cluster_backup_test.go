package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/idpool/idpool/cluster/backup"
	"github.com/idpool/idpool/cluster/embed"
)

// testEtcd runs an etcd until the test ends, and returns its address.
func testEtcd(t *testing.T) string {
	t.Helper()
	s, err := embed.Start(t.Context(), embed.Config{Dir: t.TempDir(), Fast: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s.Endpoints()[0]
}

// poolctl runs a command and returns what it wrote.
func poolctl(t *testing.T, wantCode int, stdin string, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code := run(context.Background(), args, Streams{In: strings.NewReader(stdin), Out: &out, Err: &err})
	if code != wantCode {
		t.Fatalf("poolctl %s: code %d, want %d\n%s%s", strings.Join(args, " "), code, wantCode, &out, &err)
	}
	return out.String(), err.String()
}

func TestClusterSnapshot(t *testing.T) {
	etcd := testEtcd(t)
	file := filepath.Join(t.TempDir(), "s.db")
	out, _ := poolctl(t, 0, "", "cluster", "snapshot", file, "--endpoints", etcd, "-o", "json")
	var saved, checked backup.Snapshot
	if err := json.Unmarshal([]byte(out), &saved); err != nil || saved.File != file || saved.Size == 0 || saved.Revision != 1 || len(saved.SHA256) != 64 {
		t.Fatalf("it says %+v (%v)", saved, err)
	}
	out, _ = poolctl(t, 0, "", "cluster", "snapshot", "--check", file, "-o", "json")
	if err := json.Unmarshal([]byte(out), &checked); err != nil || checked.SHA256 != saved.SHA256 {
		t.Errorf("checked: %+v (%v), want %+v", checked, err, saved)
	}
	_, stderr := poolctl(t, 3, "", "cluster", "snapshot", file, "--endpoints", etcd)
	if !strings.Contains(stderr, "is there already") || !strings.Contains(stderr, "--force") {
		t.Errorf("over a file: %s", stderr)
	}
	out, _ = poolctl(t, 0, "", "cluster", "snapshot", file, "--endpoints", etcd, "--force")
	if !strings.Contains(out, "revision:  1\n") {
		t.Errorf("table: %s", out)
	}
	_, stderr = poolctl(t, 2, "", "cluster", "snapshot", file)
	if !strings.Contains(stderr, "--endpoints") {
		t.Errorf("without endpoints: %s", stderr)
	}
}

func TestClusterExportAndImport(t *testing.T) {
	etcd := testEtcd(t)
	at := []string{"--endpoints", etcd}
	_, stderr := poolctl(t, 1, "", append([]string{"cluster", "export"}, at...)...)
	if !strings.Contains(stderr, "holds no idpool data below /idpool/") {
		t.Errorf("of nothing: %s", stderr)
	}
	pools := `{"idpool":"export","v":1,"only":"pools","root":"/idpool/","epoch":"3f0e8f5e-8a57-4d0b-9d0e-6a4d2b1c0f11","number":1,"revision":3,"counts":{"uid pool":1}}
{"key":"pools/uid/jobs","value":{"v":1}}
`
	sum := fmt.Sprintf("%x", sha256.Sum256([]byte(pools)))
	pools += `{"end":true,"keys":1,"sha256":"` + sum + `"}` + "\n"

	out, _ := poolctl(t, 0, pools, "cluster", "import", "-", "--check", "-o", "json")
	if !strings.Contains(out, sum) {
		t.Errorf("checked: %s", out)
	}
	_, stderr = poolctl(t, 2, pools[:len(pools)-9], append([]string{"cluster", "import", "-"}, at...)...)
	if !strings.Contains(stderr, "nothing imported: line 3: the file ends here") {
		t.Errorf("a cut file: %s", stderr)
	}
	out, _ = poolctl(t, 0, pools, append([]string{"cluster", "import", "-"}, at...)...)
	if !strings.Contains(out, "state:  normal\n") || !strings.Contains(out, "keys:   1: 1 of kind uid pool\n") {
		t.Errorf("imported: %s", out)
	}
	_, stderr = poolctl(t, 3, pools, append([]string{"cluster", "import", "-"}, at...)...)
	if !strings.Contains(stderr, "is not empty: 1 uid pools, 2 keys in all, epoch ") {
		t.Errorf("once more: %s", stderr)
	}
	out, _ = poolctl(t, 0, "", append([]string{"cluster", "export", "--only", "pools"}, at...)...)
	if !strings.Contains(out, "\n"+`{"key":"pools/uid/jobs","value":{"v":1}}`+"\n") {
		t.Errorf("exported: %s", out)
	}
	file := filepath.Join(t.TempDir(), "all.jsonl")
	poolctl(t, 0, "", append([]string{"cluster", "export", file}, at...)...)
	out, stderr = poolctl(t, 0, "", append([]string{"cluster", "import", file, "--root", "/moved/"}, at...)...)
	if !strings.Contains(out, "state:   recovering\n") || !strings.Contains(stderr, "adopt-restore") {
		t.Errorf("moved: %s%s", out, stderr)
	}
}
