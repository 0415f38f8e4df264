package agent_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/agent"
	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/cluster/clustertest"
	"github.com/idpool/idpool/problem"
)

func TestDataDirectoryInUse(t *testing.T) {
	t.Parallel()
	c := config(t, "n1", clustertest.Start(t).Endpoints()...)
	first := start(t, c)
	again := c
	again.Socket += "2"
	err := launch(t, again).ended(t)
	wants(t, err, problem.CodeHeld, "data directory "+c.Data+" is in use by pid ")
	first.stop()
	if first.err != nil {
		t.Errorf("stopped: %v", first.err)
	}
	start(t, again)
}

func TestTwoAgentsOneName(t *testing.T) {
	t.Parallel()
	endpoints := clustertest.Start(t).Endpoints()
	first := start(t, config(t, "n1", endpoints...))
	second := launch(t, config(t, "n1", endpoints...))
	st, err := second.Status(t.Context())
	for err != nil && problem.CodeOf(err) == problem.CodeUnavailable { // until it has its socket
		st, err = second.Status(t.Context())
	}
	if err != nil || st.Ready || len(st.NotReady) == 0 {
		t.Errorf("status of the second: %+v, %v", st, err)
	}
	wants(t, second.ended(t), problem.CodeFenced, "node n1 is run by another agent", first.cfg.Socket)
	if st, err := first.Status(t.Context()); err != nil || !st.Ready {
		t.Errorf("the first after it: %+v, %v", st, err)
	}
}

func TestSocketTaken(t *testing.T) {
	t.Parallel()
	endpoints := clustertest.Start(t).Endpoints()
	first := start(t, config(t, "n1", endpoints...))
	c := config(t, "n2", endpoints...)
	own := c.Socket
	c.Socket = first.cfg.Socket
	wants(t, launch(t, c).ended(t), problem.CodeHeld, "socket "+c.Socket+" is in use", "the agent of node n1 (active")

	c.Socket = own
	l, err := net.Listen("unix", own)
	if err != nil {
		t.Fatal(err)
	}
	wants(t, launch(t, c).ended(t), problem.CodeHeld, "is in use")
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = l.Close() // leaves a stale socket behind
	n := start(t, c)
	if info, err := os.Stat(own); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("socket: %v, %v", info, err)
	}
	n.stop()
	if _, err := os.Lstat(own); !os.IsNotExist(err) {
		t.Errorf("the socket after a stop: %v", err)
	}
	if err := os.WriteFile(own, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wants(t, launch(t, c).ended(t), problem.CodeInvalid, "is no socket")
}

func TestUnreachableAtStart(t *testing.T) {
	t.Parallel()
	etcd := clustertest.Start(t)
	etcd.Stop(t)
	n := launch(t, config(t, "n1", etcd.Endpoints()...))
	var st api.Status
	eventually(t, "status says that etcd does not answer", func() (bool, any) {
		var err error
		st, err = n.Status(t.Context())
		return err == nil && strings.Contains(strings.Join(st.NotReady, " "), "no etcd answers"), st.NotReady
	})
	if st.Ready || st.Session != "lost" || st.Node != "n1" || st.State != "starting" {
		t.Errorf("status: %+v", st)
	}
	_, err := n.Pools().List(t.Context())
	wants(t, err, problem.CodeUnavailable, "no etcd answers")
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 503, "/v1/uids": 503, "/v1/nodes/n1": 503, "/openapi.json": 200} {
		code, header, body := n.raw(t, "GET", path, "")
		if code != want || code == 503 && (header.Get("Retry-After") == "" || header.Get("Content-Type") != "application/problem+json") {
			t.Errorf("%s: %d %v %s", path, code, header, body)
		}
	}
	etcd.Restart(t)
	select {
	case <-n.agent.Ready():
	case <-n.done:
		t.Fatalf("ended: %v", n.err)
	}
	eventually(t, "ready", func() (bool, any) {
		code, _, body := n.raw(t, "GET", "/readyz", "")
		return code == 200, string(body)
	})
	n.pool(t, api.Pool{Name: "p", Ranges: "3900020000-3900020009"})
	n.request(t, api.UIDRequest{})
}

// TestOtherCluster: a node that has been part of a cluster makes no other one.
func TestOtherCluster(t *testing.T) {
	t.Parallel()
	etcd, other := clustertest.Start(t), clustertest.Start(t)
	c := config(t, "n1", etcd.Endpoints()...)
	start(t, c).stop()
	strange := c
	strange.Endpoints = other.Endpoints()
	for _, step := range []struct{ says string }{{"holds no idpool data"}, {"is another cluster"}} {
		n := launch(t, strange)
		eventually(t, "status says "+step.says, func() (bool, any) {
			select {
			case <-n.done:
				t.Fatalf("ended: %v", n.err)
			default:
			}
			st, err := n.Status(t.Context())
			return err == nil && !st.Ready && strings.Contains(strings.Join(st.NotReady, " "), step.says), fmt.Sprint(st.NotReady, err)
		})
		_, err := n.Pools().List(t.Context())
		wants(t, err, problem.CodeFrozen)
		n.stop()
		if n.err != nil {
			t.Errorf("stopped: %v", n.err)
		}
		if step.says == "holds no idpool data" {
			client := other.Open(t)
			if _, _, err := client.ReadMeta(t.Context()); problem.CodeOf(err) != problem.CodeNotFound {
				t.Errorf("the other cluster has a meta record now: %v", err)
			}
			if _, _, err := client.EnsureMeta(t.Context()); err != nil { // somebody else's idpool
				t.Fatal(err)
			}
		}
	}
	n := start(t, c)
	if st, err := n.Status(t.Context()); err != nil || !st.Ready {
		t.Errorf("back at its own: %+v, %v", st, err)
	}
}

func TestUnknownFormats(t *testing.T) {
	t.Parallel()
	etcd := clustertest.Start(t)
	client := etcd.Open(t)
	keys := client.Keys()
	put := func(key, value string) {
		t.Helper()
		if _, err := client.Commit(t.Context(), nil, []clientv3.Op{clientv3.OpPut(key, value)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	n := start(t, config(t, "n1", etcd.Endpoints()...))
	n.pool(t, api.Pool{Name: "p", Ranges: "3900021000-3900021001"})
	claim := keys.Claim(cluster.SpaceUID, 3900021000)
	put(claim, `{"v":99,"state":"new"}`)
	eventually(t, "status names the claim", func() (bool, any) {
		st, err := n.Status(t.Context())
		return err == nil && len(st.Unreadable) == 1 && st.Unreadable[0] == claim, st.Unreadable
	})
	if g := n.request(t, api.UIDRequest{}); g.Items[0].UID != 3900021001 {
		t.Errorf("granted %+v over a claim that cannot be read", g.Items[0])
	}
	meta, _, err := client.ReadMeta(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	put(keys.Meta(), `{"v":99}`)
	late := launch(t, config(t, "n2", etcd.Endpoints()...)) // it waits, and says for what
	eventually(t, "status names meta's format", func() (bool, any) {
		st, err := late.Status(t.Context())
		return err == nil && strings.Contains(strings.Join(st.NotReady, " "), "format 99, this version reads 1: upgrade"), fmt.Sprint(st.NotReady, err)
	})
	_, err = late.Pools().List(t.Context())
	wants(t, err, problem.CodeFrozen, "meta", "99")
	put(keys.Meta(), string(cluster.Encode(meta)))
	eventually(t, "ready", func() (bool, any) {
		st, err := late.Status(t.Context())
		return err == nil && st.Ready, fmt.Sprint(st.NotReady, err)
	})
}

// TestRestart: an agent that is gone for a while resumes its claims.
func TestRestart(t *testing.T) {
	t.Parallel()
	c := config(t, "n1", clustertest.Start(t).Endpoints()...)
	n := start(t, c)
	n.pool(t, api.Pool{Name: "p", Ranges: "3900022000-3900022009"})
	locked := n.request(t, api.UIDRequest{Key: "k", Hold: api.Hold{Kind: api.HoldTTL, TTL: "1h"}})
	kept := n.request(t, api.UIDRequest{})
	ref := api.Ref{Token: kept.Token}
	if _, err := n.UIDs().Confirm(t.Context(), kept.Items[0].UID, ref, api.ConfirmBody{Keep: true}); err != nil {
		t.Fatal(err)
	}
	n.stop()
	if n.err != nil {
		t.Fatalf("stopped: %v", n.err)
	}
	n = start(t, c)
	if u := n.show(t, locked.Items[0].UID); u.State != api.StateLocked || u.Token != locked.Token {
		t.Errorf("the locked one: %+v", u)
	}
	if u := n.show(t, kept.Items[0].UID); u.State != api.StateUsed || u.Token != kept.Token || !u.Keep {
		t.Errorf("the kept one: %+v", u)
	}
	if g := n.request(t, api.UIDRequest{Key: "k"}); !g.Same || g.Token != locked.Token {
		t.Errorf("by its key: %+v", g)
	}
}

// TestNoProof: an agent that sees no processes runs, says so, and grants nothing.
func TestNoProof(t *testing.T) {
	t.Parallel()
	etcd := clustertest.Start(t)
	blind := config(t, "blind", etcd.Endpoints()...)
	blind.ProcRoot = t.TempDir()
	n := start(t, blind)
	n.pool(t, api.Pool{Name: "p", Ranges: "3900023000-3900023009"})
	_, err := n.Grant(t.Context(), api.UIDRequest{Pool: "p"})
	wants(t, err, problem.CodeNoProof, "blind", "not a procfs")
	st, err := n.Status(t.Context())
	if err != nil || st.Ready || !strings.Contains(st.NoProof, "not a procfs") || st.Session != "live" {
		t.Errorf("status: %+v, %v", st, err)
	}
	if code, _, body := n.raw(t, "GET", "/readyz", ""); code != 503 || !strings.Contains(string(body), "no_proof") {
		t.Errorf("readyz: %d %s", code, body)
	}
	sees := start(t, config(t, "sees", etcd.Endpoints()...))
	eventually(t, "the other node sees why", func() (bool, any) {
		b, err := sees.Nodes().Get(t.Context(), "blind")
		return err == nil && strings.Contains(b.NoProof, "not a procfs"), b
	})
	sees.request(t, api.UIDRequest{})
}

func TestEmbedded(t *testing.T) {
	t.Parallel()
	c := config(t, "n1")
	c.Embedded, c.EmbeddedListen = true, "http://127.0.0.1:0"
	n := start(t, c)
	endpoints := n.agent.Endpoints()
	if len(endpoints) != 2 || !strings.HasPrefix(endpoints[1], "http://127.0.0.1:") {
		t.Fatalf("endpoints %v", endpoints)
	}
	if line := n.agent.ReadyLine(); !strings.Contains(line, endpoints[1]) || !strings.Contains(line, c.Socket) {
		t.Errorf("ready line %q", line)
	}
	if _, err := os.Stat(filepath.Join(c.Data, "etcd")); err != nil {
		t.Error(err)
	}
	n2 := start(t, config(t, "n2", endpoints[1]))
	n2.pool(t, api.Pool{Name: "p", Ranges: "3900024000"})
	g := n2.request(t, api.UIDRequest{})
	n.until(t, g.Items[0].UID, api.StateLocked)
	n2.stop()
	n.stop()
	if n.err != nil || n2.err != nil {
		t.Errorf("stopped: %v, %v", n.err, n2.err)
	}
	n = start(t, c)
	if u := n.show(t, g.Items[0].UID); u.State != api.StateLocked || u.Nodes[0] != "n2" {
		t.Errorf("after a restart: %+v", u)
	}
}

// TestNodeActions: leave, fence, unfence, remove.
func TestNodeActions(t *testing.T) {
	t.Parallel()
	etcd := clustertest.Start(t)
	n1 := start(t, config(t, "n1", etcd.Endpoints()...))
	c2 := config(t, "n2", etcd.Endpoints()...)
	n2 := start(t, c2)
	ctx := t.Context()
	n1.pool(t, api.Pool{Name: "p", Ranges: "3900025000-3900025009"})
	n2.until(t, 3900025000, api.StateFree)
	g := n2.request(t, api.UIDRequest{Hold: api.Hold{Kind: api.HoldTTL, TTL: "1h"}})
	uid := g.Items[0].UID
	n1.until(t, uid, api.StateLocked)

	_, err := n1.Nodes().Leave(ctx, "n2", api.NodeAction{})
	wants(t, err, problem.CodeInvalid, "this is the agent of n1")
	_, err = n2.Nodes().Leave(ctx, "n2", api.NodeAction{})
	wants(t, err, problem.CodeHeld, "cannot leave")
	_, err = n1.Nodes().Fence(ctx, "n2", api.NodeAction{Reason: "test"})
	wants(t, err, problem.CodeHeld, "its agent is present")
	_, err = n1.Nodes().Fence(ctx, "n9", api.NodeAction{Reason: "test"})
	wants(t, err, problem.CodeNotFound, "n9")
	_, err = n1.Nodes().Remove(ctx, "n2")
	wants(t, err, problem.CodePrecondition)

	n2.stop() // it holds a uid, so it stays registered
	eventually(t, "n2 is absent", func() (bool, any) {
		n, err := n1.Nodes().Get(ctx, "n2")
		return err == nil && n.State == api.NodeAbsent, n
	})
	dry, err := n1.Nodes().Fence(ctx, "n2", api.NodeAction{DryRun: true})
	if err != nil || dry.Count != 1 || !dry.DryRun || dry.Node.State != api.NodeAbsent {
		t.Errorf("dry run: %+v, %v", dry, err)
	}
	_, err = n1.Nodes().Fence(ctx, "n2", api.NodeAction{})
	wants(t, err, problem.CodeInvalid, "reason")
	if r, err := n1.Nodes().Fence(ctx, "n2", api.NodeAction{Reason: "power"}); err != nil || r.Node.State != api.NodeFenced || r.Count != 1 {
		t.Errorf("fenced: %+v, %v", r, err)
	}
	n1.until(t, uid, api.StateFree)
	wants(t, launch(t, c2).ended(t), problem.CodeFenced, "node n2 is fenced", "power")
	if r, err := n1.Nodes().Unfence(ctx, "n2", api.NodeAction{}); err != nil || r.Node.State != api.NodeLeft {
		t.Errorf("unfenced: %+v, %v", r, err)
	}
	wants(t, launch(t, c2).ended(t), problem.CodeFenced, "in this boot")
	if _, err := n1.Nodes().Remove(ctx, "n2"); err != nil {
		t.Errorf("removed: %v", err)
	}
	_, err = n1.Nodes().Get(ctx, "n2")
	wants(t, err, problem.CodeNotFound)

	if r, err := n1.Nodes().Leave(ctx, "n1", api.NodeAction{}); err != nil || r.Node.State != api.NodeLeft {
		t.Errorf("left: %+v, %v", r, err)
	}
	if err := n1.ended(t); err != nil {
		t.Errorf("the agent of a node that left: %v", err)
	}
	start(t, n1.cfg)
}

func TestConfig(t *testing.T) {
	t.Parallel()
	long := "/" + strings.Repeat("x", 103)
	for _, c := range []struct {
		name   string
		change func(*agent.Config)
		part   string // "" is fine
	}{
		{"default and endpoints", func(*agent.Config) {}, ""},
		{"socket of 103 bytes", func(c *agent.Config) { c.Socket = long[:103] }, ""},
		{"socket of 104 bytes", func(c *agent.Config) { c.Socket = long }, "less than 104"},
		{"relative socket", func(c *agent.Config) { c.Socket = "s" }, "no absolute path"},
		{"relative data", func(c *agent.Config) { c.Data = "d" }, "no absolute path"},
		{"no name", func(c *agent.Config) { c.Node = "" }, "node:"},
		{"bad name", func(c *agent.Config) { c.Node = "a/b" }, "node:"},
		{"no etcd", func(c *agent.Config) { c.Endpoints = nil }, "where etcd is"},
		{"both", func(c *agent.Config) { c.Embedded = true }, "both set"},
		{"embedded", func(c *agent.Config) { c.Endpoints, c.Embedded = nil, true }, ""},
		{"listener without it", func(c *agent.Config) { c.EmbeddedListen = "http://127.0.0.1:1" }, "without embedded"},
		{"loopback", func(c *agent.Config) {
			c.Endpoints, c.Embedded, c.EmbeddedListen = nil, true, "http://127.0.0.1:1,http://[::1]:1"
		}, ""},
		{"everybody", func(c *agent.Config) {
			c.Endpoints, c.Embedded, c.EmbeddedListen = nil, true, "http://127.0.0.1:1,http://0.0.0.0:1"
		}, "without TLS"},
		{"bad endpoint", func(c *agent.Config) { c.Endpoints = []string{"host"} }, "endpoint"},
		{"bad root", func(c *agent.Config) { c.Root = "x" }, "root"},
		{"short lease", func(c *agent.Config) { c.LeaseTTL = 1 }, "lease TTL"},
		{"scan", func(c *agent.Config) { c.ScanEvery = 1 }, "scan-every"},
		{"role", func(c *agent.Config) { c.Role = "king" }, "role"},
		{"log", func(c *agent.Config) { c.LogLevel = "loud" }, "log-level"},
		{"several", func(c *agent.Config) { c.LogLevel, c.Role = "loud", "king" }, "also: log-level"},
	} {
		cfg := agent.Default()
		cfg.Node, cfg.Endpoints = "n1", []string{"http://127.0.0.1:2379"}
		c.change(&cfg)
		switch err := cfg.Validate(); {
		case c.part == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.part != "":
			wants(t, err, problem.CodeInvalid, c.part)
		}
	}
	cfg := agent.Default()
	cfg.Node, cfg.Endpoints, cfg.Groups = "n1", []string{"http://127.0.0.1:2379"}, []string{"no-such-group-here"}
	_, err := agent.New(cfg, nil)
	wants(t, err, problem.CodeInvalid, "no-such-group-here", "groupadd")
	// A path that only fits by its configuration is refused before anything starts.
	_, err = agent.New(agent.Config{}, nil)
	wants(t, err, problem.CodeInvalid)
}
