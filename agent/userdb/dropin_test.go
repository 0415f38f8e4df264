package userdb_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/idpool/idpool/agent/userdb"
)

func here(g userdb.Grant) userdb.Grant {
	g.Here = true
	return g
}

func dropIn(t testing.TB, src userdb.Source, node, dir string) *userdb.DropIn {
	return userdb.QuietDropIn(userdb.NewIndex(src, "idp-").Files(hostFiles(t, "", "")...), dir, node)
}

func list(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestDropIn(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "userdb")
	src := grants(here(one(70012, "")), here(one(70013, "web")), one(70014, "elsewhere"))
	d := dropIn(t, src, "n1", dir)
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
	want := []string{"70012.group", "70012.user", "70013.group", "70013.user", "idp-70012.group", "idp-70012.user", "idp-web.group", "idp-web.user"}
	if diff := cmp.Diff(want, list(t, dir)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "70013.user"))
	if err != nil {
		t.Fatal(err)
	}
	var r map[string]any
	if err := json.Unmarshal(raw, &r); err != nil || r["userName"] != "idp-web" || r["uid"] != 70013.0 || r["locked"] != true {
		t.Errorf("record %s: %v", raw, err)
	}
	if info, err := os.Stat(filepath.Join(dir, "idp-web.group")); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("mode of a record: %v %v", info.Mode(), err)
	}

	// The own name goes, and its files; a later agent of the node finds what was left.
	src.set(here(one(70013, "")))
	if err := dropIn(t, src, "n1", dir).Sync(); err != nil {
		t.Fatal(err)
	}
	want = []string{"70013.group", "70013.user", "idp-70013.group", "idp-70013.user"}
	if diff := cmp.Diff(want, list(t, dir)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if to, err := os.Readlink(filepath.Join(dir, "70013.user")); to != "idp-70013.user" {
		t.Errorf("link to %s %v", to, err)
	}
	src.set()
	if err := d.Sync(); err != nil || len(list(t, dir)) != 0 {
		t.Errorf("with nothing granted: %v %v", list(t, dir), err)
	}
}

// TestDropInOthers: what is not ours stays as it is, and is told where it is in the
// way; a link that a crash left is ours.
func TestDropInOthers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	files := map[string]string{
		"idp-70012.user": `{"userName":"idp-70012"}`, "idp-70099.user": `{"io.idpool":{"node":"n2"}}`, "alice.user": "{", "1000.group": "x", "README": "text",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"70050.user": "idp-70050.user", "1000.user": "alice.user", "70099.user": "idp-70099.user", "5.user": "/etc/passwd", "6.user": "idp-../x.user"} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	err := dropIn(t, grants(here(one(70012, ""))), "n1", dir).Sync()
	if err == nil || !strings.Contains(err.Error(), "idp-70012.user is not this agent's") {
		t.Errorf("a foreign file in the way: %v", err)
	}
	for name, text := range files {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != text {
			t.Errorf("%s: %q %v", name, got, err)
		}
	}
	left := list(t, dir)
	for _, name := range []string{"1000.user", "70099.user", "5.user", "6.user"} {
		if !slices.Contains(left, name) {
			t.Errorf("the link %s is gone", name)
		}
	}
	if slices.Contains(left, "70050.user") {
		t.Error("the link that a crash left is still there")
	}

	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := dropIn(t, grants(here(one(70077, ""))), "n1", dir).Sync(); err == nil || !strings.Contains(err.Error(), "others may write") {
		t.Errorf("in a directory of everybody: %v", err)
	}
	if slices.Contains(list(t, dir), "70077.user") {
		t.Error("it is written there all the same")
	}
}

// TestDropInRuns: changes reach the directory; what is unknown removes nothing; the
// end leaves the records.
func TestDropInRuns(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	src := grants(here(one(70012, "")))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- dropIn(t, src, "n1", dir).Run(ctx) }()
	await := func(name string, want bool) {
		t.Helper()
		wait, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for slices.Contains(list(t, dir), name) != want {
			select {
			case <-tick.C:
			case <-wait.Done():
				t.Fatalf("%s is %v for ever: %v", name, !want, list(t, dir))
			}
		}
	}
	await("70012.group", true)
	src.set(here(one(70013, "")))
	await("70013.group", true)
	await("idp-70012.user", false)
	cancel()
	if err := <-done; err != nil {
		t.Errorf("run: %v", err)
	}
	if err := dropIn(t, &source{}, "n1", dir).Sync(); err != userdb.ErrNotKnown {
		t.Errorf("with nothing known: %v", err)
	}
	await("70013.group", true)
}
