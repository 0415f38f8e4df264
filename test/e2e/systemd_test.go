package e2e

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/idpool/idpool/api"
)

// hearer is the service manager's end of sd_notify.
type hearer struct {
	t    *testing.T
	conn *net.UnixConn
}

func hear(t *testing.T, path string) *hearer {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &hearer{t, conn}
}

// until reads messages until one has part, and returns those before it.
func (h *hearer) until(part string) []string {
	h.t.Helper()
	var before []string
	_ = h.conn.SetReadDeadline(time.Now().Add(time.Minute))
	buf := make([]byte, 4096)
	for {
		n, err := h.conn.Read(buf)
		if err != nil {
			h.t.Fatalf("never told %q: %v; told %q", part, err, before)
		}
		if strings.Contains(string(buf[:n]), part) {
			return before
		}
		before = append(before, string(buf[:n]))
	}
}

// setting is one setting in effect.
func (n *node) setting(name string) api.Setting {
	n.w.t.Helper()
	st, err := n.client.Status(n.w.t.Context())
	if err != nil {
		n.w.t.Fatal(err)
	}
	for _, s := range st.Settings {
		if s.Name == name {
			return s
		}
	}
	n.w.t.Fatalf("no setting %s in %+v", name, st.Settings)
	return api.Setting{}
}

// TestServiceManager: what systemd is told, and what SIGHUP changes and does not.
func TestServiceManager(t *testing.T) {
	w := newWorld(t)
	n := w.node("n1")
	file := filepath.Join(w.dir, "agent.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("scan-every: 1s\nlease-ttl: 10s\n")
	h := hear(t, filepath.Join(w.dir, "notify"))
	n.activated(n.listen(), []string{"--config", file}, "NOTIFY_SOCKET="+filepath.Join(w.dir, "notify"), "WATCHDOG_USEC=600000")
	h.until("READY=1")
	h.until("STATUS=node n1 serves")
	h.until("WATCHDOG=1")
	if s := n.setting("scan-every"); s.Value != "1s" || s.Source != api.SourceFile || s.Where != file+":1" || !s.Reloads {
		t.Errorf("scan-every: %+v", s)
	}
	reload := func() {
		t.Helper()
		_ = n.cmd.Process.Signal(syscall.SIGHUP)
		h.until("RELOADING=1\nMONOTONIC_USEC=")
		h.until("READY=1")
	}
	write("# changed\nscan-every: 2s\nlease-ttl: 11s\nlog-level: debug\n")
	reload()
	for name, value := range map[string]string{"scan-every": "2s", "log-level": "debug", "lease-ttl": "10s"} {
		if s := n.setting(name); s.Value != value {
			t.Errorf("after a reload %s is %+v, want %s", name, s, value)
		}
	}
	if log := n.log.String(); !strings.Contains(log, `"needs a restart","settings":["lease-ttl"]`) || !strings.Contains(log, `"changed":["log-level","scan-every"]`) {
		t.Errorf("the log of a reload: %s", tail(log, 2000))
	}
	write("scan-every: 3s\nrole: king\n")
	reload()
	if s := n.setting("scan-every"); s.Value != "2s" {
		t.Errorf("after a bad reload scan-every is %+v", s)
	}
	if log := n.log.String(); !strings.Contains(log, "not reloaded; nothing was changed") || !strings.Contains(log, file+`:2: role \"king\"`) {
		t.Errorf("the log of a bad reload: %s", tail(log, 2000))
	}
	if out := n.must("status", "-o", "wide"); !strings.Contains(out, "scan-every") || !strings.Contains(out, file+":2") {
		t.Errorf("poolctl status -o wide:\n%s", out)
	}
	_ = n.cmd.Process.Signal(syscall.SIGTERM)
	h.until("STOPPING=1")
	<-n.exited
	if code := n.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("stopped with %d", code)
	}
}

// TestForeignSocket: a socket that is not the agent's is refused.
func TestForeignSocket(t *testing.T) {
	w := newWorld(t)
	n := w.node("n1")
	l := n.listen()
	n.activated(l, nil, "LISTEN_FDNAMES=web")
	<-n.exited
	if code, log := n.cmd.ProcessState.ExitCode(), n.log.String(); code != 2 || !strings.Contains(log, "FileDescriptorName=agent") {
		t.Errorf("a socket of another name: %d %s", code, log)
	}
	n.socket += "2"
	n.activated(l, nil)
	<-n.exited
	if code, log := n.cmd.ProcessState.ExitCode(), n.log.String(); code != 2 || !strings.Contains(log, "make them the same") {
		t.Errorf("a socket of another path: %d %s", code, log)
	}
}
