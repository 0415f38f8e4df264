package agent_test

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/cluster/clustertest"
	"github.com/idpool/idpool/problem"
)

// Users of these tests; nobody has them.
const (
	member, stranger, second uint32 = 3900030001, 3900030002, 3900030003
	group, otherGroup        uint32 = 3900031001, 3900031002
)

// guarded is an agent that serves root and two groups.
func guarded(t *testing.T) *node {
	needRoot(t)
	c := config(t, "n1", clustertest.Start(t).Endpoints()...)
	// Two groups: the socket's mode keeps nobody away, the agent decides.
	c.Groups = []string{fmt.Sprint(group), fmt.Sprint(otherGroup)}
	n := start(t, c)
	n.pool(t, api.Pool{Name: "p", Ranges: "3900032000-3900032009"})
	return n
}

// body is the part of a problem that tests look at.
type body struct {
	Code   problem.Code `json:"code"`
	Detail string       `json:"detail"`
}

func TestWhoMayAsk(t *testing.T) {
	t.Parallel()
	n := guarded(t)
	as := func(uid, gid uint32, groups ...uint32) *helper {
		return spawn(t, "call", uid, gid, groups, n.cfg.Socket)
	}
	out := as(stranger, stranger)
	for _, line := range []string{"GET /v1/uids", "GET /v1/status", "POST /v1/uid-pools/p/uids - {}", "PUT /v1/uid-pools/q - {}", "GET /v1/nodes"} {
		var b body
		if code := out.call(t, &b, line); code != 403 || b.Code != problem.CodeForbidden ||
			!strings.Contains(b.Detail, fmt.Sprintf("your uid %d is neither root nor in groups %d, %d", stranger, group, otherGroup)) {
			t.Errorf("%s as a stranger: %d %+v", line, code, b)
		}
	}
	if code := out.call(t, nil, "GET /healthz"); code != 200 {
		t.Errorf("healthz as a stranger: %d", code)
	}
	for _, h := range []*helper{as(member, group), as(second, second, 5, otherGroup)} {
		if code := h.call(t, nil, "GET /v1/uids"); code != 200 {
			t.Errorf("a member: %d", code)
		}
	}
}

// othersCalls are what a caller may not do to another's grant, nor to the cluster.
func othersCalls(path, token string) []refusedCall {
	return []refusedCall{
		{[]string{"DELETE", path, token}, problem.CodeForbidden},
		{[]string{"DELETE", path, "*"}, problem.CodeForbidden},
		{[]string{"DELETE", "/v1/uids?key=k"}, problem.CodeHeld},
		{[]string{"POST", path + "/confirm", token, `{"keep":true}`}, problem.CodeForbidden},
		{[]string{"POST", path + "/renew", token, `{}`}, problem.CodeForbidden},
		{[]string{"POST", path + "/nodes", token, `{}`}, problem.CodeForbidden},
		{[]string{"POST", path + "/adopt", token, `{}`}, problem.CodeForbidden},
		{[]string{"POST", "/v1/uid-pools/p/uids", "-", `{"key":"k"}`}, problem.CodeKeyConflict},
		{[]string{"PUT", "/v1/uid-pools/q", "-", `{"ranges":"70000"}`}, problem.CodeForbidden},
		{[]string{"PATCH", "/v1/uid-pools/p", "-", `{"add":"70000"}`}, problem.CodeForbidden},
		{[]string{"DELETE", "/v1/uid-pools/p"}, problem.CodeForbidden},
		{[]string{"POST", "/v1/reservations", "-", `{"ranges":"3900032009","reason":"x"}`}, problem.CodeForbidden},
		{[]string{"DELETE", "/v1/reservations?ranges=3900032009"}, problem.CodeForbidden},
		{[]string{"POST", "/v1/nodes/n1/leave", "-", `{}`}, problem.CodeForbidden},
		{[]string{"POST", "/v1/nodes/n1/fence", "-", `{"reason":"x","force":true}`}, problem.CodeForbidden},
		{[]string{"POST", "/v1/nodes/n1/unfence", "-", `{}`}, problem.CodeForbidden},
		{[]string{"DELETE", "/v1/nodes/n1"}, problem.CodeForbidden},
	}
}

type refusedCall struct {
	line []string
	code problem.Code
}

// TestCallers: a caller sees and ends what it holds, and nothing else.
func TestCallers(t *testing.T) {
	t.Parallel()
	n := guarded(t)
	me := spawn(t, "call", member, group, nil, n.cfg.Socket)
	other := spawn(t, "call", second, group, nil, n.cfg.Socket)
	var mine api.Grant
	if code := me.call(t, &mine, "POST", "/v1/uid-pools/p/uids", "-", `{"key":"k","holder":"me"}`); code != 201 {
		t.Fatalf("request: %d", code)
	}
	u := mine.Items[0]
	path := fmt.Sprintf("/v1/uids/%d", u.UID)
	if u.Caller != fmt.Sprintf("unix:%d", member) || u.Token == "" {
		t.Errorf("granted: %+v", u)
	}
	var seen api.UID
	for who, c := range map[string]struct {
		h     *helper
		token string
	}{"its caller": {me, mine.Token}, "another": {other, ""}} {
		seen = api.UID{}
		if code := c.h.call(t, &seen, "GET", path); code != 200 || seen.Token != c.token || seen.Holder != "me" {
			t.Errorf("%s sees %d %+v", who, code, seen)
		}
	}
	if u := n.show(t, u.UID); u.Token != mine.Token {
		t.Errorf("root sees %+v", u)
	}
	quoted := `"` + mine.Token + `"`
	for _, c := range othersCalls(path, quoted) {
		var b body
		if code := other.call(t, &b, c.line...); b.Code != c.code || code != c.code.HTTPStatus() {
			t.Errorf("another's %v: %d %+v; want %s", c.line, code, b, c.code)
		}
	}
	if now := n.show(t, u.UID); now.State != api.StateLocked || now.Token != mine.Token || now.Keep {
		t.Errorf("after all that: %+v", now)
	}
	var r api.Released
	if code := me.call(t, &r, "DELETE", path, quoted); code != 200 || !r.Changed {
		t.Errorf("its own release: %d %+v", code, r)
	}
	// Root ends anybody's, by the token it sees or without.
	for _, token := range []string{"*", ""} {
		if code := me.call(t, &mine, "POST", "/v1/uid-pools/p/uids", "-", `{}`); code != 201 {
			t.Fatalf("request: %d", code)
		}
		if token == "" {
			token = mine.Token
		}
		if r, err := n.UIDs().Release(t.Context(), mine.Items[0].UID, token, ""); err != nil || !r.Changed {
			t.Errorf("root's release by %q: %+v, %v", token, r, err)
		}
		// Its requester may not know yet: the uid waits for its word, or its ttl.
		u := n.until(t, mine.Items[0].UID, api.StateQuarantined)
		if u.ReasonCode != "released_by_operator" {
			t.Errorf("ended by root: %+v", u)
		}
		if code := me.call(t, &r, "DELETE", fmt.Sprintf("/v1/uids/%d", u.UID), mine.Token); code != 200 || !r.Changed {
			t.Errorf("its caller's word after root's: %d %+v", code, r)
		}
		n.until(t, u.UID, api.StateFree)
	}
	// What somebody else has by then is not touched.
	if code := other.call(t, &r, "DELETE", path, quoted); code != 204 {
		t.Errorf("a late release with a token of old: %d %+v", code, r)
	}
}

// TestHoldByProcess: the process dies while another of its session lives on.
func TestHoldByProcess(t *testing.T) {
	needRoot(t)
	t.Parallel()
	n := single(t, "3900033000-3900033001")
	const uid, next = 3900033000, 3900033001
	parent := spawn(t, "parent", 0, 0, nil)
	var pid int
	if _, err := fmt.Sscan(parent.line(t), &pid); err != nil {
		t.Fatal(err)
	}
	hold := api.Hold{Kind: api.HoldPID, PID: pid}
	g := n.request(t, api.UIDRequest{UID: uid, Hold: hold})
	if h := g.Items[0].Hold; h == nil || h.Kind != api.HoldPID || h.PID != pid {
		t.Errorf("hold %+v", h)
	}
	fmt.Fprintln(parent.in, uid)
	var child int
	if _, err := fmt.Sscan(parent.line(t), &child); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { endProcess(child) })
	parent.kill()
	if u := n.until(t, uid, api.StateUsed); !u.Running || u.Token != g.Token {
		t.Errorf("the child runs: %+v", u)
	}
	endProcess(child)
	n.until(t, uid, api.StateIdle)
	// Idle, it is the last resort: first the free one, then this.
	if g := n.request(t, api.UIDRequest{}); g.Items[0].UID != next {
		t.Errorf("granted %+v while one is free", g.Items[0])
	}
	if again := n.request(t, api.UIDRequest{}); again.Items[0].UID != uid || again.Token == g.Token {
		t.Errorf("granted %+v of none but the idle one", again.Items[0])
	}
	// A process that dies without a child gives its uid back.
	if _, err := n.UIDs().Release(t.Context(), next, n.show(t, next).Token, ""); err != nil {
		t.Fatal(err)
	}
	n.until(t, next, api.StateFree)
	alone := spawn(t, "block", 0, 0, nil)
	if _, err := fmt.Sscan(alone.line(t), &pid); err != nil {
		t.Fatal(err)
	}
	n.request(t, api.UIDRequest{UID: next, Hold: api.Hold{Kind: api.HoldPID, PID: pid}})
	alone.kill()
	n.until(t, next, api.StateFree)
}

// TestOtherProcessesStay: who names no requester speaks not for other live
// processes under the same key.
func TestOtherProcessesStay(t *testing.T) {
	needRoot(t)
	t.Parallel()
	n := single(t, "3900034000")
	const uid = 3900034000
	other := spawn(t, "block", 0, 0, nil)
	var pid int
	if _, err := fmt.Sscan(other.line(t), &pid); err != nil {
		t.Fatal(err)
	}
	g := n.request(t, api.UIDRequest{Key: "k", Hold: api.Hold{Kind: api.HoldPID, PID: pid}})
	n.request(t, api.UIDRequest{Key: "k"})
	if r, err := n.UIDs().Release(t.Context(), uid, g.Token, ""); err != nil || !r.Changed || r.Items[0].State != api.StateLocked {
		t.Fatalf("released: %+v, %v", r, err)
	}
	if r, err := n.UIDs().Release(t.Context(), uid, g.Token, ""); err != nil || r.Changed || len(r.Items) != 1 || r.Items[0].State != api.StateLocked {
		t.Fatalf("released again: %+v, %v; want unchanged, and that it is locked still", r, err)
	}
	// An operator's word is about all of them, whoever asked; it is free once they have
	// given up.
	if r, err := n.UIDs().Release(t.Context(), uid, "*", ""); err != nil || !r.Changed || r.Items[0].State != api.StateQuarantined {
		t.Fatalf("released by an operator: %+v, %v", r, err)
	}
	other.kill()
	n.until(t, uid, api.StateFree)
}

// TestLostLock: confirm after the hold's end.
func TestLostLock(t *testing.T) {
	t.Parallel()
	n := single(t, "3900035000")
	g := n.request(t, api.UIDRequest{Hold: api.Hold{Kind: api.HoldTTL, TTL: "1s"}})
	u := g.Items[0]
	n.until(t, u.UID, api.StateFree)
	_, err := n.UIDs().Confirm(t.Context(), u.UID, api.Ref{Token: g.Token}, api.ConfirmBody{})
	wants(t, err, problem.CodeLockLost, "not confirmed")
}

// TestForeign: a uid that runs though nobody was granted it is kept out, and can
// be adopted.
func TestForeign(t *testing.T) {
	needRoot(t)
	t.Parallel()
	n := single(t, "3900036000-3900036001")
	const uid = 3900036000
	h := begin(t, uid)
	u := n.until(t, uid, api.StateQuarantined)
	if u.ReasonCode != "foreign" || !u.Running || u.Caller != "" {
		t.Errorf("foreign: %+v", u)
	}
	_, err := n.UIDs().Adopt(t.Context(), uid, api.AdoptBody{Pool: "q"})
	wants(t, err, problem.CodeInvalid, `"q"`)
	u, err = n.UIDs().Adopt(t.Context(), uid, api.AdoptBody{Holder: "old job"})
	if err != nil || u.State != api.StateUsed || u.Token == "" || u.Holder != "old job" {
		t.Fatalf("adopted: %+v, %v", u, err)
	}
	h.end()
	if r, err := n.UIDs().Release(t.Context(), uid, u.Token, ""); err != nil || !r.Changed {
		t.Fatalf("released: %+v, %v", r, err)
	}
	n.until(t, uid, api.StateFree)
}

// TestSocketOfOneGroup: the socket is the group's, and nobody else opens it.
func TestSocketOfOneGroup(t *testing.T) {
	needRoot(t)
	t.Parallel()
	c := config(t, "n1", clustertest.Start(t).Endpoints()...)
	c.Groups = []string{fmt.Sprint(group)}
	n := start(t, c)
	info, err := os.Stat(c.Socket)
	if err != nil || info.Mode().Perm() != 0o660 || info.Sys().(*syscall.Stat_t).Gid != group {
		t.Errorf("socket: %+v, %v", info, err)
	}
	in := spawn(t, "call", member, group, nil, n.cfg.Socket)
	if code := in.call(t, nil, "GET /v1/status"); code != 200 {
		t.Errorf("a member: %d", code)
	}
	out := spawn(t, "call", stranger, stranger, nil, n.cfg.Socket)
	fmt.Fprintln(out.in, "GET /v1/status")
	if line := out.line(t); !strings.Contains(line, "permission denied") {
		t.Errorf("a stranger: %s", line)
	}
}
