package agent_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/idpool/idpool/api"
)

// documented is an agent with the pool of the examples.
func documented(t *testing.T, program string) *node {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("%s is missing", program)
	}
	n := single(t, "3900063000-3900063009")
	n.pool(t, api.Pool{Name: "jobs", Ranges: "3900063000-3900063009"})
	return n
}

// TestExamplesInCurl runs what docs/api.md shows.
func TestExamplesInCurl(t *testing.T) {
	t.Parallel()
	n := documented(t, "curl")
	text, err := os.ReadFile("../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	if len(blocks) < 3 {
		t.Fatalf("%d examples found", len(blocks))
	}
	for _, b := range blocks {
		cmd := exec.Command("sh", "-euc", strings.ReplaceAll(b[1], api.DefaultSocket, n.cfg.Socket))
		cmd.Dir = t.TempDir()
		if out, err := cmd.CombinedOutput(); err != nil || len(out) == 0 {
			t.Errorf("%s\n%v: %s", b[1], err, out)
		}
	}
	if told := n.all(t, api.EventFilter{Recent: true, Types: []string{"audit"}}); told[len(told)-1].Audit.Operation != "release-uid" {
		t.Errorf("the examples did %+v last", told[len(told)-1].Audit)
	}
}

// TestExampleInPython runs docs/example.py, and sees how it fails.
func TestExampleInPython(t *testing.T) {
	t.Parallel()
	n := documented(t, "python3")
	script := filepath.Join("..", "docs", "example.py")
	out, err := exec.Command("python3", script, n.cfg.Socket, "jobs").CombinedOutput()
	if err != nil || !regexp.MustCompile(`^granted 39000630\d\d\nreleased True\n$`).Match(out) {
		t.Errorf("%v: %s", err, out)
	}
	if out, err = exec.Command("python3", script, n.cfg.Socket, "none").CombinedOutput(); err == nil || !strings.Contains(string(out), "not_found: ") {
		t.Errorf("without its pool: %v: %s", err, out)
	}
}
