package main

import (
	"bytes"
	"context"
	"encoding/json"
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
