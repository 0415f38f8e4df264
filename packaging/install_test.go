package main

import (
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

// step is a command of the document, and the output that stands below it.
type step struct {
	on      []string
	command string
	output  []string
}

var prompt = regexp.MustCompile(`^((?:m[0-9]+ +)+)# (.+)$`)

// documented are the commands of the first block of docs/install.md.
func documented(t *testing.T) []step {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "docs", "install.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, block, ok := strings.Cut(string(text), "```console\n")
	block, _, closed := strings.Cut(block, "```")
	if !ok || !closed {
		t.Fatal("docs/install.md has no block of commands")
	}
	var steps []step
	for line := range strings.Lines(block) {
		line = strings.TrimSuffix(line, "\n")
		if m := prompt.FindStringSubmatch(line); m != nil {
			steps = append(steps, step{on: strings.Fields(m[1]), command: m[2]})
		} else if len(steps) > 0 {
			last := &steps[len(steps)-1]
			last.output = append(last.output, line)
		} else {
			t.Fatalf("docs/install.md: %q is no command", line)
		}
	}
	return steps
}

// TestInstall does what docs/install.md says, on two machines and an etcd.
func TestInstall(t *testing.T) {
	steps := documented(t)
	if len(steps) != 5 {
		t.Fatalf("docs/install.md promises five commands and has %d", len(steps))
	}
	needMachines(t)
	b, err := build()
	if err != nil {
		t.Fatal(err)
	}
	deb := made(t, platform{"linux", runtime.GOARCH}, "deb")
	etcd := filepath.Join(work, "etcd")
	if _, err := b.command(t.Context(), []string{"CGO_ENABLED=0", "GOFLAGS="}, "go", "build", "-o", etcd, "go.etcd.io/etcd/server/v3"); err != nil {
		t.Fatal(err)
	}
	hub := newMachine(t, "etcd1")
	machines := map[string]*machine{"m1": newMachine(t, "m1"), "m2": newMachine(t, "m2")}
	connect(t, hub, machines["m1"], machines["m2"])
	hub.put(etcd, "/srv/etcd", 0o755)
	hub.must("setsid ./etcd --data-dir /srv/etcd.data --listen-client-urls http://10.79.0.1:2379 --advertise-client-urls http://10.79.0.1:2379 " +
		"--listen-peer-urls http://127.0.0.1:2380 </dev/null >etcd.log 2>&1 & " +
		"until curl -s http://10.79.0.1:2379/health | grep -q true; do kill -0 $! || { cat etcd.log; exit 1; }; sleep 0.1; done")
	for _, m := range machines {
		m.must("echo '10.79.0.1 etcd1' >>/etc/hosts")
		m.must("rm -f /usr/bin/poolagent /usr/bin/poolctl")
		m.put(deb, "/srv/"+filepath.Base(deb), 0o644)
		// A namespace is what this machine is made of, and the agent is told so.
		m.must("echo IDPOOL_ACCEPT_PID_NAMESPACE=true >/etc/default/poolagent")
		m.put("testdata/systemctl", "/usr/local/bin/systemctl", 0o755)
	}
	for _, s := range steps {
		for _, name := range s.on {
			out := machines[name].must(s.command)
			t.Logf("%s # %s\n%s", name, s.command, out)
			for _, want := range s.output {
				// The uid is another one each time, of the document's pool.
				pattern := regexp.MustCompile(`7\d{4}`).ReplaceAllString(regexp.QuoteMeta(want), `(7\d{4})`)
				m := regexp.MustCompile(`(?m)^` + pattern + `$`).FindStringSubmatch(out)
				if m == nil || m[1] != m[2] || m[2] != m[3] {
					t.Errorf("%s says %q, the document %q", s.command, out, want)
				}
			}
		}
	}
	afterInstall(t, machines)
}

// afterInstall: both are nodes of one cluster, the group is there, and removing the
// package leaves configuration and identity.
func afterInstall(t *testing.T, machines map[string]*machine) {
	t.Helper()
	if out := machines["m1"].must("poolctl node list -q"); !strings.Contains(out, "m1") || !strings.Contains(out, "m2") {
		t.Errorf("nodes: %s", out)
	}
	m := machines["m2"]
	if out := m.must("getent group idpool && man -w poolagent 2>/dev/null || true"); !strings.Contains(out, "idpool:x:") {
		t.Errorf("no group: %s", out)
	}
	if out := m.must("apt remove -y idpool"); !strings.Contains(out, "/var/lib/idpool stays") {
		t.Errorf("removing says %s", out)
	}
	m.must("test ! -e /usr/bin/poolctl && test -d /var/lib/idpool && grep -q etcd1 /etc/idpool/agent.yaml")
	m.must("apt install -y ./idpool_*.deb && grep -q etcd1 /etc/idpool/agent.yaml")
}
