package agent_test

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/idpool/idpool/agent"
	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/cluster/clustertest"
	"github.com/idpool/idpool/problem"
)

func settingsOf(c agent.Config) []api.Setting {
	return []api.Setting{
		{Name: "group", Value: strings.Join(c.Groups, ","), Source: api.SourceFile, Reloads: true}, {Name: "lease-ttl", Value: c.LeaseTTL.String(), Source: api.SourceDefault},
		{Name: "log-level", Value: c.LogLevel, Source: api.SourceDefault, Reloads: true},
		{Name: "operator-group", Value: strings.Join(c.OperatorGroups, ","), Source: api.SourceFile, Reloads: true},
		{Name: "observer-group", Value: strings.Join(c.ObserverGroups, ","), Source: api.SourceFile, Reloads: true},
	}
}

// reloadable is an agent whose log's level and groups can change.
func reloadable(t *testing.T, change func(*agent.Config)) (*node, *zap.AtomicLevel) {
	t.Helper()
	c := config(t, "n1", clustertest.Start(t).Endpoints()...)
	level := zap.NewAtomicLevel()
	c.Level = &level
	change(&c)
	c.Settings = settingsOf(c)
	return start(t, c), &level
}

// TestReload: what can change does, what cannot is named, and a fault changes
// nothing.
func TestReload(t *testing.T) {
	needRoot(t)
	t.Parallel()
	n, level := reloadable(t, func(*agent.Config) {})
	h := spawn(t, "call", member, group, nil, n.cfg.Socket)
	next := n.cfg
	next.Groups, next.LogLevel, next.ScanEvery, next.LeaseTTL = []string{fmt.Sprint(group)}, "debug", time.Second, time.Minute
	next.Settings = settingsOf(next)
	changed, restart, err := n.agent.Reload(next)
	if err != nil || strings.Join(changed, ",") != "group,log-level" || strings.Join(restart, ",") != "lease-ttl" {
		t.Fatalf("reload: changed %v, restart %v, %v", changed, restart, err)
	}
	if level.Level() != zap.DebugLevel {
		t.Errorf("level %v", level)
	}
	st, err := n.Status(t.Context())
	if err != nil || len(st.Settings) != 5 || st.Settings[0].Value != fmt.Sprint(group) || st.Settings[1].Value != n.cfg.LeaseTTL.String() {
		t.Errorf("settings in effect: %+v, %v", st.Settings, err)
	}
	if code := h.call(t, nil, "GET /v1/uids"); code != 200 {
		t.Errorf("a member of the new group: %d", code)
	}
	for part, spoil := range map[string]func(*agent.Config){
		"no-such-group": func(c *agent.Config) { c.Groups = []string{"no-such-group"} }, "scan-every": func(c *agent.Config) { c.ScanEvery = 1 },
	} {
		bad := next
		bad.LogLevel = "error"
		spoil(&bad)
		bad.Settings = settingsOf(bad)
		_, _, err := n.agent.Reload(bad)
		wants(t, err, problem.CodeInvalid, part)
		if level.Level() != zap.DebugLevel {
			t.Errorf("after a bad reload the level is %v", level)
		}
	}
	if code := h.call(t, nil, "GET /v1/uids"); code != 200 {
		t.Errorf("a member after the bad reloads: %d", code)
	}
}

// TestReloadOfRoles: who gains a role has it with the next request, who loses it has
// not; the status tells the groups in effect.
func TestReloadOfRoles(t *testing.T) {
	needRoot(t)
	t.Parallel()
	n, _ := reloadable(t, func(c *agent.Config) { c.OperatorGroups = []string{fmt.Sprint(group)} })
	n.pool(t, api.Pool{Name: "p", Ranges: "3900067000-3900067009"})
	first := spawn(t, "call", member, group, nil, n.cfg.Socket)
	late := spawn(t, "call", stranger, observers, nil, n.cfg.Socket)
	try := func(h *helper, look, ask, change int) {
		t.Helper()
		for line, want := range map[string]int{"GET /v1/uids": look, "POST /v1/uid-pools/p/uids - {}": ask, `PATCH /v1/uid-pools/p - {"order":"lowest"}`: change} {
			if code := h.call(t, nil, line); code != want {
				t.Errorf("%s: %d, want %d", line, code, want)
			}
		}
	}
	try(first, 200, 201, 200)
	next := n.cfg
	next.OperatorGroups, next.ObserverGroups = nil, []string{fmt.Sprint(group), fmt.Sprint(observers)}
	next.Settings = settingsOf(next)
	changed, restart, err := n.agent.Reload(next)
	if err != nil || strings.Join(changed, ",") != "operator-group,observer-group" || len(restart) > 0 {
		t.Fatalf("reload: changed %v, restart %v, %v", changed, restart, err)
	}
	try(first, 200, 403, 403)
	try(late, 200, 403, 403)
	st, err := n.Status(t.Context())
	if err != nil || st.Settings[3].Value != "" || st.Settings[4].Value != strings.Join(next.ObserverGroups, ",") {
		t.Errorf("settings in effect: %+v, %v", st.Settings, err)
	}
	next.ObserverGroups, next.OperatorGroups = nil, []string{fmt.Sprint(observers)}
	next.Settings = settingsOf(next)
	if _, _, err := n.agent.Reload(next); err != nil {
		t.Fatal(err)
	}
	try(late, 200, 201, 200)
	info, err := os.Stat(n.cfg.Socket) // one group alone: nobody else connects
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("socket: %v, %v", info, err)
	}
}

// TestLogLevel: operators change it, others and nonsense do not.
func TestLogLevel(t *testing.T) {
	needRoot(t)
	t.Parallel()
	n, level := reloadable(t, func(c *agent.Config) { c.Groups = []string{fmt.Sprint(group)} })
	if code, _, body := n.raw(t, "PUT", "/v1/log-level", `{"level":"warn"}`); code != 200 || level.Level() != zap.WarnLevel {
		t.Errorf("root: %d %s, level %v", code, body, level)
	}
	st, err := n.Status(t.Context())
	if err != nil || st.Settings[2].Value != "warn" || st.Settings[2].Source != api.SourceOperator {
		t.Errorf("settings: %+v, %v", st.Settings, err)
	}
	if code, _, body := n.raw(t, "PUT", "/v1/log-level", `{"level":"loud"}`); code != 422 {
		t.Errorf("loud: %d %s", code, body)
	}
	h := spawn(t, "call", member, group, nil, n.cfg.Socket)
	if code := h.call(t, nil, `PUT /v1/log-level - {"level":"debug"}`); code != 403 || level.Level() != zap.WarnLevel {
		t.Errorf("a member: %d, level %v", code, level)
	}
}

// TestMetrics: what the agent does is counted.
func TestMetrics(t *testing.T) {
	needRoot(t)
	t.Parallel()
	n := fabrics(t)
	n.pool(t, api.Pool{Name: "p", Ranges: "3900060000-3900060003"})
	n.request(t, api.UIDRequest{Key: "k"})
	n.request(t, api.UIDRequest{Key: "k"})
	_, err := n.Grant(t.Context(), api.UIDRequest{Pool: "p", Count: 5})
	wants(t, err, problem.CodeExhausted)
	v := n.service(t, pair("edge"))
	if _, err := n.Services().Fail(t.Context(), "edge", v.Token, "no power"); err != nil {
		t.Fatal(err)
	}
	gone := n.service(t, pair("gone")) // a deletion is no compensation
	if _, err := n.Services().Delete(t.Context(), "gone", gone.Token, false); err != nil {
		t.Fatal(err)
	}
	code, header, body := n.raw(t, "GET", "/metrics", "")
	if code != 200 || !strings.HasPrefix(header.Get("Content-Type"), "text/plain") {
		t.Fatalf("%d %v %.200s", code, header, body)
	}
	text := "\n" + string(body)
	for _, line := range []string{
		`idpool_grant_seconds_count{kind="uid",result="granted"} 1`, `idpool_grant_seconds_count{kind="uid",result="same"} 1`,
		`idpool_grant_seconds_count{kind="uid",result="exhausted"} 1`, `idpool_grant_seconds_count{kind="vlan",result="granted"} 2`,
		`idpool_ids{kind="uid",pool="p",state="locked"} 1`, `idpool_ids{kind="uid",pool="p",state="free"} 3`,
		`idpool_compensations_total 1`, `idpool_ready 1`, `idpool_session_live 1`, `idpool_proof_lag_seconds{node="n1"} 0`, `idpool_requests_total{code="409"} 1`,
		`idpool_requests_under_way 1`, `idpool_sessions_lost_total 0`,
	} {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("no %s", line)
		}
	}
	for _, never := range []string{"idpool_commits_total{outcome=\"applied\"} 0\n", "idpool_scanned_tasks_total 0\n", "idpool_batch_operations_count 0\n"} {
		if strings.Contains(text, never) {
			t.Errorf("nothing was counted: %s", never)
		}
	}
	for _, part := range []string{"\ngo_goroutines ", "\nprocess_open_fds "} {
		if !strings.Contains(text, part) {
			t.Errorf("no %q", part)
		}
	}
}

// TestStuck: a loop that makes no step for minutes is no life, a slow one is.
func TestStuck(t *testing.T) {
	if err := agent.Stuck(map[string]time.Duration{"janitor": time.Minute, "reaper": time.Second}); err != nil {
		t.Error(err)
	}
	wants(t, agent.Stuck(map[string]time.Duration{"janitor": time.Hour, "reaper": time.Second}), problem.CodeUnavailable, "its janitor has made no step for 1h0m0s")
}

// TestGivenSocket: the service manager's socket is taken as it is, and stays.
func TestGivenSocket(t *testing.T) {
	t.Parallel()
	c := config(t, "n1", clustertest.Start(t).Endpoints()...)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: c.Socket})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Chmod(c.Socket, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // it serves one agent after the other
		f, err := l.File()
		if err != nil {
			t.Fatal(err)
		}
		if c.Listener, err = net.FileListener(f); err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
		n := start(t, c)
		if st, err := n.Status(t.Context()); err != nil || !st.Ready {
			t.Errorf("status: %+v, %v", st.NotReady, err)
		}
		n.stop()
		if info, err := os.Lstat(c.Socket); err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("the socket after the agent: %v, %v", info, err)
		}
	}
}
