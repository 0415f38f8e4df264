package agent_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/idpool/idpool/agent"
	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/cluster/clustertest"
	"github.com/idpool/idpool/problem"
)

// listening is an agent with a TCP port, a pool "p", and what it trusts.
func listening(t *testing.T) (*node, *authority) {
	t.Helper()
	ca := newAuthority(t, "cluster")
	c := config(t, "n1", clustertest.Start(t).Endpoints()...)
	own := ca.issue("agent", "n1", nil)
	c.Listen, c.ListenTLS = "127.0.0.1:0", agent.TLSFiles{Cert: own.Cert, Key: own.Key, ClientCA: ca.file}
	n := start(t, c)
	n.pool(t, api.Pool{Name: "p", Ranges: "3900040000-3900040009"})
	return n, ca
}

// port is where the agent listens.
func (n *node) port(t testing.TB) string {
	t.Helper()
	st, err := n.Status(t.Context())
	if err != nil || st.Listen == "" {
		t.Fatalf("status: %+v, %v", st, err)
	}
	return st.Listen
}

// as is a client over TCP with these files.
func (n *node) as(t testing.TB, f api.Files) *api.Client {
	t.Helper()
	c := api.New(api.Options{Agent: "https://" + n.port(t), Files: f, Timeout: limit})
	t.Cleanup(c.Close)
	return c
}

// TestCertificates: a certificate's units say the role, its common name who calls.
func TestCertificates(t *testing.T) {
	t.Parallel()
	n, ca := listening(t)
	request := func(f api.Files, r api.UIDRequest) (api.Grant, error) { return n.as(t, f).Grant(t.Context(), r) }
	observer := ca.issue("o", "looker", []string{"idpool-observer"})
	if _, err := n.as(t, observer).Nodes().List(t.Context()); err != nil {
		t.Errorf("an observer's look: %v", err)
	}
	_, err := request(observer, api.UIDRequest{Pool: "p"})
	wants(t, err, problem.CodeForbidden, "takes the role requester", "cert:looker is observer", "docs/security.md")
	alice := ca.issue("a", "alice", []string{"staff", "idpool-requester"})
	g, err := request(alice, api.UIDRequest{Pool: "p", Key: "k"})
	if err != nil || g.Items[0].Caller != "cert:alice" || g.Token == "" {
		t.Fatalf("a requester's grant: %+v, %v", g, err)
	}
	err = n.as(t, alice).Pools().Delete(t.Context(), "p")
	wants(t, err, problem.CodeForbidden, "takes the role operator")

	// A process's number says nothing to another machine.
	_, err = request(alice, api.UIDRequest{Pool: "p", Hold: api.Hold{Kind: api.HoldPID, PID: os.Getpid()}})
	wants(t, err, problem.CodeInvalid, "over TCP", "hold by time")
	_, err = n.as(t, alice).UIDs().ReleasePID(t.Context(), os.Getpid())
	wants(t, err, problem.CodeInvalid, "over TCP")

	// Another certificate's holder ends nothing of hers; an operator does.
	bob := ca.issue("b", "bob", []string{"idpool-requester"})
	uid := g.Items[0].UID
	_, err = n.as(t, bob).UIDs().Release(t.Context(), uid, g.Token, "")
	wants(t, err, problem.CodeForbidden, "cert:alice", "cert:bob")
	if u, err := n.as(t, bob).UIDs().Get(t.Context(), uid); err != nil || u.Token != "" {
		t.Errorf("bob sees %+v, %v", u, err)
	}
	root := ca.issue("r", "root", []string{"idpool-observer", "idpool-operator"})
	if r, err := n.as(t, root).UIDs().Release(t.Context(), uid, g.Token, ""); err != nil || !r.Changed {
		t.Errorf("an operator's release: %+v, %v", r, err)
	}
	for what, f := range map[string]api.Files{
		"names no role": ca.issue("x", "nobody", []string{"operator", "idpool-Operator"}),
		"cannot name a": ca.issue("y", "unix:0 or so", []string{"idpool-operator"}),
		`name ""`:       ca.issue("z", "", []string{"idpool-operator"}),
	} {
		_, err := n.as(t, f).Nodes().List(t.Context())
		wants(t, err, problem.CodeForbidden, what)
	}
}

// TestForeignCertificates: without a certificate of the configured authority that
// holds now there is no answer at all.
func TestForeignCertificates(t *testing.T) {
	t.Parallel()
	n, ca := listening(t)
	operator := []string{"idpool-operator"}
	foreign := newAuthority(t, "cluster").issue("f", "root", operator)
	foreign.CA = ca.file
	for name, f := range map[string]api.Files{
		"another authority's": foreign,
		"none":                {CA: ca.file},
		"expired":             ca.issue("e", "root", operator, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }),
		"not yet":             ca.issue("n", "root", operator, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(30 * time.Minute) }),
		"a server's": ca.issue("s", "root", operator, func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}),
	} {
		_, err := n.as(t, f).Status(t.Context())
		if code := problem.CodeOf(err); code != problem.CodeForbidden && code != problem.CodeUnavailable {
			t.Errorf("%s: %v", name, err)
		}
		if text := handshake(t, n.port(t), f); !strings.Contains(text, "tls: ") {
			t.Errorf("%s: the agent says %q", name, text)
		}
	}
	good := ca.issue("g", "root", operator)
	if text := handshake(t, n.port(t), good); !strings.HasPrefix(text, "HTTP/1.1 200") {
		t.Errorf("a good one: %q", text)
	}
	// Neither plain HTTP nor an older TLS.
	if text := exchange(t, dial(t, n.port(t))); strings.Contains(text, " 200 ") {
		t.Errorf("plain HTTP: %q", text)
	}
	_, err := tls.Dial("tcp", n.port(t), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})
	if err == nil || !strings.Contains(err.Error(), "version") {
		t.Errorf("TLS 1.2: %v", err)
	}
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(limit))
	return c
}

// exchange asks for the health, and is the answer or what came in its stead.
func exchange(t *testing.T, c net.Conn) string {
	t.Helper()
	_, _ = io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n")
	text, err := io.ReadAll(c)
	return string(text) + fmt.Sprint(err)
}

// handshake sees the server's word on a certificate: in TLS 1.3 it comes after the
// client's handshake, and may be lost if the client writes first.
func handshake(t *testing.T, address string, f api.Files) string {
	t.Helper()
	config := &tls.Config{InsecureSkipVerify: true}
	if f.Cert != "" {
		pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
		if err != nil {
			t.Fatal(err)
		}
		// Whatever authorities the server names.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	c := tls.Client(dial(t, address), config)
	if err := c.Handshake(); err != nil {
		return err.Error()
	}
	_ = c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	if _, err := c.Read(make([]byte, 1)); err != nil && !os.IsTimeout(err) {
		return err.Error()
	}
	c = tls.Client(dial(t, address), config)
	return exchange(t, c)
}

// TestCertificatesRenewed: files are read again when they change, for new
// connections and open ones; what cannot be used changes nothing.
func TestCertificatesRenewed(t *testing.T) {
	t.Parallel()
	n, ca := listening(t)
	files := n.cfg.ListenTLS
	alice := n.as(t, ca.issue("a", "alice", []string{"idpool-requester"}))
	look := func(c *api.Client) error {
		_, err := c.Nodes().List(t.Context())
		return err
	}
	if err := look(alice); err != nil {
		t.Fatal(err)
	}
	// Half a renewal: the key of another certificate.
	key, err := os.ReadFile(files.Key)
	if err != nil {
		t.Fatal(err)
	}
	other := ca.issue("other", "n1", nil)
	move(t, other.Key, files.Key)
	fresh := n.as(t, ca.issue("b", "bob", []string{"idpool-requester"}))
	if err := look(fresh); err != nil {
		t.Errorf("while the files do not fit: %v", err)
	}
	if err := os.WriteFile(files.Key, key, 0o600); err != nil {
		t.Fatal(err)
	}
	// Another authority for clients: who has only the old one's is out, on a
	// connection that is open too.
	next := newAuthority(t, "next")
	carol := next.issue("c", "carol", []string{"idpool-requester"})
	carol.CA = filepath.Join(t.TempDir(), "agents.pem") // the agent's own certificate is as before
	copyFile(t, ca.file, carol.CA)
	copyFile(t, next.file, files.ClientCA)
	if err := look(n.as(t, carol)); err != nil {
		t.Errorf("with a certificate of the new authority: %v", err)
	}
	wants(t, look(alice), problem.CodeForbidden, "who you are")
}

func move(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to+".new", data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	move(t, to+".new", to)
}

// TestListenConfig: no certificates, no port.
func TestListenConfig(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t, "c")
	own := ca.issue("own", "n1", nil)
	full := agent.TLSFiles{Cert: own.Cert, Key: own.Key, ClientCA: ca.file}
	notPEM := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(notPEM, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		listen string
		files  agent.TLSFiles
		part   string
		starts bool // refused when it runs, not when it is made
	}{
		{"127.0.0.1:7000", agent.TLSFiles{}, "only with TLS on both sides", false},
		{"127.0.0.1:7000", agent.TLSFiles{Cert: own.Cert, Key: own.Key}, "lacks certificates", false},
		{"", full, "without listen", false},
		{"7000", full, "no HOST:PORT", false},
		{"h:70000", full, "no HOST:PORT", false},
		{"h:http", full, "no HOST:PORT", false},
		{"127.0.0.1:0", agent.TLSFiles{Cert: own.Cert, Key: own.Key, ClientCA: "/nowhere"}, "/nowhere", true},
		{"127.0.0.1:0", agent.TLSFiles{Cert: own.Cert, Key: own.Key, ClientCA: notPEM}, "no PEM certificate", true},
		{"127.0.0.1:0", agent.TLSFiles{Cert: own.Key, Key: own.Key, ClientCA: ca.file}, "certificate", true},
	} {
		cfg := config(t, "n1", "http://127.0.0.1:1")
		cfg.Listen, cfg.ListenTLS = c.listen, c.files
		a, err := agent.New(cfg, nil)
		if c.starts && err == nil {
			err = a.Run(t.Context())
		}
		wants(t, err, problem.CodeInvalid, c.part)
	}
}

// TestClientFiles: what a client is given and cannot use.
func TestClientFiles(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t, "c")
	own := ca.issue("own", "x", nil)
	for _, f := range []api.Files{{Cert: own.Cert}, {Cert: own.Cert, Key: own.Cert}, {CA: "/nowhere"}, {CA: own.Key}} {
		_, err := api.New(api.Options{Agent: "https://127.0.0.1:1", Files: f}).Status(t.Context())
		wants(t, err, problem.CodeInvalid)
	}
	_, err := api.New(api.Options{Agent: "http://127.0.0.1:1"}).Status(t.Context())
	wants(t, err, problem.CodeInvalid, "https")
}
