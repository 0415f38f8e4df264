package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/idpool/idpool/problem"
)

// FuzzConfig reads anything as the file of --config: an error is invalid, and names
// the file or the setting.
func FuzzConfig(f *testing.F) {
	for _, s := range []string{
		"", "node: n\ndata: /d\nroot: /r/\nendpoints: [http://e:1]\ngroup: [a]\nlease-ttl: 30s\nembedded: true\n", "node: [a]", "- a", "a: &x [*x]", "node: !!binary gIGC", "lease-ttl: -1h",
		"check-config: true", "\xff", "node: a\n---\nnode: b", "? {a: b}\n: c", "root: ../", "endpoints: {a: 1}",
	} {
		f.Add(s)
	}
	path := filepath.Join(f.TempDir(), "agent.yaml")
	f.Fuzz(func(t *testing.T, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		o := newOptions([]string{"IDPOOL_CONFIG=" + path})
		flags := pflag.NewFlagSet("poolagent", pflag.ContinueOnError)
		flags.SetOutput(io.Discard)
		o.bind(flags)
		c, err := o.config(flags)
		if err == nil {
			_ = c.Validate()
			return
		}
		if problem.CodeOf(err) != problem.CodeInvalid || !strings.Contains(err.Error(), "agent.yaml") {
			t.Errorf("%q: %v (%s)", text, err, problem.CodeOf(err))
		}
	})
}
