package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/idpool/idpool/agent"
	"github.com/idpool/idpool/api"
)

// read is the configuration that a command line, an environment and a file give.
func read(t *testing.T, args, environ []string, file string) (agent.Config, error) {
	t.Helper()
	if file != "" {
		path := filepath.Join(t.TempDir(), "agent.yaml")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		environ = append(environ, "IDPOOL_CONFIG="+path)
	}
	o := newOptions(environ)
	flags := pflag.NewFlagSet("poolagent", pflag.ContinueOnError)
	flags.SetOutput(io.Discard)
	o.bind(flags)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return o.config(flags)
}

func TestOrder(t *testing.T) {
	const file = "node: f\ndata: /f\nroot: /f/\nendpoints: [http://f:1, http://f:2]\ngroup: [a, b]\nlease-ttl: 30s\nembedded: false\nuserdb: off\nuserdb-dropin: /f/d\nuserdb-prefix: f-\n"
	c, err := read(t, []string{"--node", "flag", "--group", "x", "--group", "y"},
		[]string{"IDPOOL_NODE=e", "IDPOOL_DATA=/e", "IDPOOL_ENDPOINTS=http://e:1,http://e:2", "IDPOOL_POOL=poolctl's", "IDPOOL_SCAN_EVERY=3s", "HOME=/"}, file)
	if err != nil {
		t.Fatal(err)
	}
	want := agent.Default()
	want.Version = api.Version()
	want.Node, want.Data, want.Root = "flag", "/e", "/f/"
	want.UserDB, want.UserDBDropIn, want.UserDBPrefix = "off", "/f/d", "f-"
	want.Endpoints, want.Groups = []string{"http://e:1", "http://e:2"}, []string{"x", "y"}
	want.LeaseTTL, want.ScanEvery = 30*time.Second, 3*time.Second
	if diff := cmp.Diff(want, c); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestFileRefused(t *testing.T) {
	for file, part := range map[string]string{
		"nodes: x": "nodes", "lease-ttl: soon": "agent.yaml", "node: [a]": "agent.yaml", "node: a\nnode: b": "node", "- a": "agent.yaml",
		"check-config: true": "check-config",
	} {
		if _, err := read(t, nil, nil, file); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("file %q: %v", file, err)
		}
	}
	if _, err := read(t, nil, []string{"IDPOOL_EMBEDDED=perhaps"}, ""); err == nil || !strings.Contains(err.Error(), "IDPOOL_EMBEDDED") {
		t.Errorf("environment: %v", err)
	}
	if _, err := read(t, []string{"--config", "/nowhere/x"}, nil, ""); err == nil {
		t.Error("a missing file is no error")
	}
}

// TestFileKnowsEverySetting: the file, the flags and the configuration agree.
func TestFileKnowsEverySetting(t *testing.T) {
	o := newOptions(nil)
	flags := pflag.NewFlagSet("poolagent", pflag.ContinueOnError)
	o.bind(flags)
	samples := map[string]string{
		"endpoints": "[http://h:1]", "group": "[g]", "operator-group": "[g]", "observer-group": "[g]", "embedded": "true", "accept-pid-namespace": "true", "lease-ttl": "9s", "scan-every": "9s",
	}
	n := 0
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Name == "config" || f.Name == "check-config" {
			return
		}
		n++
		value, ok := samples[f.Name]
		if !ok {
			value = "/value"
		}
		c, err := read(t, nil, nil, f.Name+": "+value)
		base, _ := read(t, nil, nil, "")
		if err != nil || cmp.Equal(c, base) {
			t.Errorf("%s: %s in the file changes nothing: %v", f.Name, value, err)
		}
	})
	if n < 15 {
		t.Errorf("only %d settings", n)
	}
}

func TestRun(t *testing.T) {
	call := func(ctx context.Context, args ...string) (int, string, string) {
		var out, errs bytes.Buffer
		code := run(ctx, args, nil, &out, &errs)
		return code, out.String(), errs.String()
	}
	for _, c := range []struct {
		args  []string
		code  int
		parts string // in out and errs together
	}{
		{[]string{"--version"}, 0, api.Version() + " (commit "},
		{[]string{"completion", "bash"}, 0, "bash completion"},
		{[]string{"man"}, 2, "accepts 1 arg"},
		{[]string{"man", "/no/such/directory"}, 2, "no such file"},
		{[]string{"help"}, 0, "--check-config"},
		{[]string{"--embedded", "--node", "n1", "--check-config", "--data", "/tmp/idpool-check", "--socket", "/tmp/idpool-check-socket"}, 0, "node n1 is fine"},
		{[]string{"--node", "n1"}, 2, "poolagent: it is not said where etcd is\n  an etcd that exists:"},
		{[]string{"--embedded", "--node", "n1", "--group", "no-such-group"}, 2, "no-such-group"},
		{[]string{"--embeded"}, 2, "unknown flag: --embeded"},
		{[]string{"start"}, 2, "start"},
		{[]string{"--embedded", "--node", "n1", "--log-level", "loud", "--check-config"}, 2, "log-level"},
	} {
		code, out, errs := call(t.Context(), c.args...)
		if code != c.code || !strings.Contains(out+errs, c.parts) {
			t.Errorf("%v: %d %q %q; want %d with %q", c.args, code, out, errs, c.code, c.parts)
		}
	}
}

// lines passes on what is written, line by line.
type lines struct {
	ch   chan string
	rest []byte
}

func (l *lines) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		at := bytes.IndexByte(l.rest, '\n')
		if at < 0 {
			return len(p), nil
		}
		l.ch <- string(l.rest[:at])
		l.rest = l.rest[at+1:]
	}
}

// TestReadyLine: the line comes, and a signal's context ends the agent with 0.
func TestReadyLine(t *testing.T) {
	dir, err := os.MkdirTemp("", "idpc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	errs := &lines{ch: make(chan string, 1000)}
	done := make(chan int, 1)
	args := []string{"--embedded", "--node", "n1", "--data", filepath.Join(dir, "d"), "--socket", filepath.Join(dir, "s"), "--accept-pid-namespace"}
	go func() { done <- run(ctx, args, nil, io.Discard, errs) }()
	want := "poolagent: node n1 ready on " + filepath.Join(dir, "s") + " (etcd unix://"
	late := time.After(time.Minute)
	for {
		select {
		case line := <-errs.ch:
			if strings.HasPrefix(line, want) {
				cancel()
				if code := <-done; code != 0 {
					t.Errorf("stopped with %d", code)
				}
				return
			}
			if !strings.HasPrefix(line, "{") {
				t.Errorf("a line that is no JSON: %q", line)
			}
		case code := <-done:
			t.Fatalf("ended with %d", code)
		case <-late:
			t.Fatal("never ready")
		}
	}
}
