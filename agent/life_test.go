package agent_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/cluster/clustertest"
	"github.com/idpool/idpool/problem"
)

// TestLife walks one uid from its pool and back to it.
func TestLife(t *testing.T) {
	needRoot(t)
	t.Parallel()
	n := single(t, "3900010000")
	const uid = 3900010000
	ctx := t.Context()
	g := n.request(t, api.UIDRequest{Key: "k", Holder: "job 1"})
	u := g.Items[0]
	if u.UID != uid || u.State != api.StateLocked || u.Caller != "unix:0" || u.Holder != "job 1" || u.Key != "k" || g.Same ||
		!u.InPool || !u.ConfirmedInEtcd || u.Hold == nil || u.Hold.Until == nil || !slices.Equal(u.Nodes, []string{"n1"}) || u.Requester == "" {
		t.Fatalf("granted %+v, %+v", g, u)
	}
	if again := n.request(t, api.UIDRequest{Key: "k"}); !again.Same || again.Token != g.Token || again.Requester == g.Requester {
		t.Errorf("the same request again: %+v", again)
	}
	_, err := n.Grant(ctx, api.UIDRequest{Pool: "p"})
	wants(t, err, problem.CodeExhausted, "0 of 1 uids free", "1 locked")
	ref := api.Ref{Token: g.Token}
	_, err = n.UIDs().Confirm(ctx, uid, ref, api.ConfirmBody{})
	wants(t, err, problem.CodeNotRunning)
	if r, err := n.UIDs().Renew(ctx, uid, ref, api.RenewBody{TTL: "1h"}); err != nil || r.Hold == nil || time.Until(*r.Hold.Until) < 50*time.Minute {
		t.Errorf("renewed: %+v, %v", r.Hold, err)
	}
	h := begin(t, uid)
	for range 2 { // twice is a no-op
		if c, err := n.UIDs().Confirm(ctx, uid, ref, api.ConfirmBody{}); err != nil || c.State != api.StateUsed || !c.Running {
			t.Fatalf("confirmed: %+v, %v", c, err)
		}
	}
	h.end()
	if u := n.until(t, uid, api.StateUsed); u.Token != g.Token {
		t.Errorf("after the process: %+v", u)
	}
	r, err := n.UIDs().ReleaseKey(ctx, "k")
	if err != nil || !r.Changed || len(r.Items) != 1 {
		t.Fatalf("released: %+v, %v", r, err)
	}
	n.until(t, uid, api.StateFree)
	for what, again := range map[string]func() (api.Released, error){
		"key":   func() (api.Released, error) { return n.UIDs().ReleaseKey(ctx, "k") },
		"token": func() (api.Released, error) { return n.UIDs().Release(ctx, uid, g.Token, "") },
	} {
		if r, err := again(); err != nil || r.Changed || len(r.Items) != 0 {
			t.Errorf("released again by %s: %+v, %v", what, r, err)
		}
	}
	_, err = n.Grant(ctx, api.UIDRequest{Pool: "p", Key: "k"})
	wants(t, err, problem.CodeKeyEnded)
	next := n.request(t, api.UIDRequest{})
	if r, err := n.UIDs().Release(ctx, uid, g.Token, ""); err != nil || r.Changed {
		t.Errorf("a late release: %+v, %v", r, err)
	}
	if u := n.show(t, uid); u.State != api.StateLocked || u.Token != next.Token {
		t.Errorf("the next grant after a late release of the first: %+v", u)
	}
	_, err = n.UIDs().Confirm(ctx, uid, ref, api.ConfirmBody{Keep: true})
	wants(t, err, problem.CodeNotHeld, "uid 3900010000 not confirmed")
}

type refusal struct {
	name string
	do   func() error
	code problem.Code
	part string
}

func refusedRequests(ctx context.Context, n *node) []refusal {
	return []refusal{
		{"no pool", func() error { _, err := n.Grant(ctx, api.UIDRequest{Pool: "q"}); return err }, problem.CodeNotFound, "pools: p"},
		{"key, other request", func() error { _, err := n.Grant(ctx, api.UIDRequest{Pool: "p", Key: "k", Count: 2}); return err }, problem.CodeKeyConflict, "3900011001"},
		{"uid taken", func() error { _, err := n.Grant(ctx, api.UIDRequest{Pool: "p", UID: 3900011001}); return err }, problem.CodeHeld, "unix:"},
		{"uid outside", func() error { _, err := n.Grant(ctx, api.UIDRequest{Pool: "p", UID: 77}); return err }, problem.CodeOutsidePool, "77"},
		{"root", func() error {
			_, err := n.Grant(ctx, api.UIDRequest{Pool: "p", UID: 65534})
			return err
		}, problem.CodeInvalid, "nobody"},
		{"ttl too long", func() error {
			_, err := n.Grant(ctx, api.UIDRequest{Pool: "p", Hold: api.Hold{Kind: api.HoldTTL, TTL: "25h"}})
			return err
		}, problem.CodeInvalid, "24h"},
		{"dead pid", func() error {
			_, err := n.Grant(ctx, api.UIDRequest{Pool: "p", Hold: api.Hold{Kind: api.HoldPID, PID: 1 << 30}})
			return err
		}, problem.CodeInvalid, "pid"},
		{"hold kind", func() error {
			_, err := n.Grant(ctx, api.UIDRequest{Pool: "p", Hold: api.Hold{Kind: "socket"}})
			return err
		}, problem.CodeInvalid, "body.hold.kind"},
		{"wait", func() error {
			_, err := n.Grant(ctx, api.UIDRequest{Pool: "p", Wait: 48 * time.Hour})
			return err
		}, problem.CodeInvalid, "24h"},
	}
}

func refusedChanges(ctx context.Context, n *node, token string) []refusal {
	return []refusal{
		{"no token", func() error {
			_, err := n.UIDs().Release(ctx, 3900011001, "", "")
			return err
		}, problem.CodePreconditionRequired, "If-Match"},
		{"no token, confirm", func() error {
			_, err := n.UIDs().Confirm(ctx, 3900011001, api.Ref{}, api.ConfirmBody{Keep: true})
			return err
		}, problem.CodePreconditionRequired, ""},
		{"another token", func() error {
			_, err := n.UIDs().Confirm(ctx, 3900011001, api.Ref{Token: "x"}, api.ConfirmBody{Keep: true})
			return err
		}, problem.CodeNotHeld, ""},
		{"free uid", func() error {
			_, err := n.UIDs().Renew(ctx, 3900011002, api.Ref{Token: token}, api.RenewBody{})
			return err
		}, problem.CodeLockLost, ""},
		{"unknown key", func() error { _, err := n.UIDs().ReleaseKey(ctx, "never"); return err }, problem.CodeNotFound, "never"},
		{"key without the uid", func() error {
			_, err := n.UIDs().Confirm(ctx, 3900011005, api.Ref{Key: "k"}, api.ConfirmBody{Keep: true})
			return err
		}, problem.CodeNotHeld, "key k"},
		{"uid nowhere", func() error { _, err := n.UIDs().Get(ctx, 5); return err }, problem.CodeNotFound, "uid 5"},
		{"adopt a free one", func() error {
			_, err := n.UIDs().Adopt(ctx, 3900011007, api.AdoptBody{})
			return err
		}, problem.CodeNotFound, "nothing to adopt"},
		{"reserve a held one", func() error {
			_, err := n.UIDs().Reserve(ctx, "3900011000-3900011002", "why")
			return err
		}, problem.CodeHeld, "3900011001"},
		{"bad cursor", func() error { _, err := n.UIDs().Page(ctx, api.UIDFilter{}, 1, "x"); return err }, problem.CodeInvalid, "cursor"},
		{"bad state", func() error {
			_, err := n.UIDs().Page(ctx, api.UIDFilter{State: "sold"}, 1, "")
			return err
		}, problem.CodeInvalid, "query.state"},
	}
}

// TestRefusals: what a request or a change must name.
func TestRefusals(t *testing.T) {
	t.Parallel()
	n := single(t, "3900011000-3900011009")
	ctx := t.Context()
	g := n.request(t, api.UIDRequest{Key: "k", UID: 3900011001})
	for _, c := range slices.Concat(refusedRequests(ctx, n), refusedChanges(ctx, n, g.Token)) {
		t.Run(c.name, func(t *testing.T) { wants(t, c.do(), c.code, c.part) })
	}
	if u := n.show(t, 3900011001); u.Token != g.Token || u.State != api.StateLocked {
		t.Errorf("the grant after all that: %+v", u)
	}
}

// TestGroups: several uids under one token, ended one by one or together.
func TestGroups(t *testing.T) {
	t.Parallel()
	n := single(t, "3900012000-3900012009")
	ctx := t.Context()
	g := n.request(t, api.UIDRequest{Count: 4, Key: "g"})
	if len(g.Items) != 4 || !slices.IsSortedFunc(g.Items, func(a, b api.UID) int { return int(int64(a.UID) - int64(b.UID)) }) {
		t.Fatalf("granted %+v", g.Items)
	}
	first := g.Items[0].UID
	if r, err := n.UIDs().Release(ctx, first, g.Token, ""); err != nil || !r.Changed || len(r.Items) != 1 || r.Items[0].UID != first {
		t.Fatalf("released one: %+v, %v", r, err)
	}
	if u := n.show(t, g.Items[1].UID); u.State != api.StateLocked {
		t.Errorf("the others: %+v", u)
	}
	if r, err := n.UIDs().ReleaseKey(ctx, "g"); err != nil || !r.Changed || len(r.Items) != 3 {
		t.Fatalf("released the rest: %+v, %v", r, err)
	}
	_, err := n.Grant(ctx, api.UIDRequest{Pool: "p", Count: 11})
	wants(t, err, problem.CodeExhausted, "10 uids free", "11 asked for")
}

// reserve leaves 3900013009 of the pool reserved.
func (n *node) reserve(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	if r, err := n.UIDs().Reserve(ctx, "3900013008-3900013009", "test"); err != nil || r.Changed != 2 {
		t.Errorf("reserved: %+v, %v", r, err)
	}
	if r, err := n.UIDs().Reserve(ctx, "3900013009", "test"); err != nil || r.Changed != 0 || r.Ranges != "3900013009" {
		t.Errorf("reserved again: %+v, %v", r, err)
	}
	if r, err := n.UIDs().Unreserve(ctx, "3900013007-3900013008"); err != nil || r.Changed != 1 {
		t.Errorf("unreserved: %+v, %v", r, err)
	}
	n.until(t, 3900013008, api.StateFree)
	reserved := 0
	for u, err := range n.UIDs().Reservations(ctx) {
		if reserved++; err != nil || u.UID != 3900013009 || u.Reason != "test" {
			t.Errorf("reservation %+v, %v", u, err)
		}
	}
	if reserved != 1 {
		t.Errorf("%d reservations; want 1", reserved)
	}
}

// TestLists: filters and pages.
func TestLists(t *testing.T) {
	t.Parallel()
	n := single(t, "3900013000-3900013009")
	ctx := t.Context()
	n.pool(t, api.Pool{Name: "local", Ranges: "3900013100-3900013109", PoolPolicy: api.PoolPolicy{Scope: "node"}})
	n.pool(t, api.Pool{Name: "blocks", Ranges: "3900013984-3900014111", PoolPolicy: api.PoolPolicy{Block: 32, Order: "lowest"}})
	n.request(t, api.UIDRequest{Count: 5, Key: "five", Holder: "h", From: "3900013000-3900013005"})
	n.request(t, api.UIDRequest{Pool: "local", UID: 3900013105, Hold: api.Hold{Kind: api.HoldPID, PID: 1}})
	block := n.request(t, api.UIDRequest{Pool: "blocks"}).Items[0]
	if block.Count != 32 || block.UID%32 != 0 {
		t.Errorf("block: %+v", block)
	}
	if u := n.show(t, block.UID+31); u.UID != block.UID || u.Token == "" {
		t.Errorf("a uid of the block: %+v", u)
	}
	n.reserve(t)
	count := func(f api.UIDFilter, limit int) int {
		t.Helper()
		total, cursor := 0, ""
		for {
			page, err := n.UIDs().Page(ctx, f, limit, cursor)
			if err != nil || len(page.Items) > limit {
				t.Fatalf("page %+v: %d items, %v", f, len(page.Items), err)
			}
			total += len(page.Items)
			if cursor = page.Next; cursor == "" {
				return total
			}
		}
	}
	for _, limit := range []int{1, 2, 3, 500} {
		held := count(api.UIDFilter{State: "locked"}, limit)
		free := count(api.UIDFilter{State: "free"}, limit)
		if held != 7 || free != 4+9+3 {
			t.Errorf("pages of %d: %d locked, %d free", limit, held, free)
		}
	}
	for _, c := range []struct {
		f    api.UIDFilter
		want int
	}{
		{api.UIDFilter{Key: "five"}, 5}, {api.UIDFilter{Holder: "h"}, 5}, {api.UIDFilter{Pool: "local"}, 1}, {api.UIDFilter{PID: 1}, 1},
		{api.UIDFilter{Node: "n1", State: "locked"}, 7}, {api.UIDFilter{Node: "n2"}, 0}, {api.UIDFilter{UIDs: "3900013105-3900013984"}, 2},
		{api.UIDFilter{State: "free", Pool: "blocks"}, 3}, {api.UIDFilter{State: "free", Key: "five"}, 0},
	} {
		if got := count(c.f, 2); got != c.want {
			t.Errorf("%+v selects %d; want %d", c.f, got, c.want)
		}
	}
	if r, err := n.UIDs().ReleasePID(ctx, 1); err != nil || !r.Changed || len(r.Items) != 1 {
		t.Errorf("released by pid: %+v, %v", r, err)
	}
}

// TestWait: a request waits for a uid, and one that is cut off leaves nothing.
func TestWait(t *testing.T) {
	t.Parallel()
	n := single(t, "3900014500")
	const uid = 3900014500
	g := n.request(t, api.UIDRequest{})
	short, cancel := context.WithCancel(t.Context())
	cut := make(chan error, 1)
	go func() {
		_, err := n.Grant(short, api.UIDRequest{Pool: "p", Wait: time.Hour})
		cut <- err
	}()
	cancel()
	if err := <-cut; err == nil {
		t.Error("a request that was cut off was granted")
	}
	got := make(chan api.Grant, 1)
	go func() {
		g, err := n.Grant(context.WithoutCancel(t.Context()), api.UIDRequest{Pool: "p", Wait: time.Hour})
		if err != nil {
			t.Errorf("the one that waits: %v", err)
		}
		got <- g
	}()
	if _, err := n.UIDs().Release(t.Context(), uid, g.Token, ""); err != nil {
		t.Fatal(err)
	}
	select {
	case second := <-got:
		if len(second.Items) != 1 || second.Items[0].UID != uid || second.Token == g.Token {
			t.Errorf("granted %+v", second)
		}
	case <-time.After(limit):
		t.Fatalf("nothing granted: %+v", n.show(t, uid))
	}
}

// TestJoin: one uid on two nodes ends with the last.
func TestJoin(t *testing.T) {
	t.Parallel()
	etcd := clustertest.Start(t)
	n1, n2 := start(t, config(t, "n1", etcd.Endpoints()...)), start(t, config(t, "n2", etcd.Endpoints()...))
	n1.pool(t, api.Pool{Name: "p", Ranges: "3900015000"})
	const uid = 3900015000
	ctx := t.Context()
	g := n1.request(t, api.UIDRequest{Key: "k"})
	n2.until(t, uid, api.StateLocked)
	j, err := n2.UIDs().Join(ctx, uid, api.Ref{Token: g.Token}, api.JoinBody{Hold: &api.Hold{Kind: api.HoldTTL, TTL: "1h"}})
	if err != nil || j.Requester == "" || j.Requester == g.Requester || !slices.Equal(j.Nodes, []string{"n1", "n2"}) {
		t.Fatalf("joined: %+v, %v", j, err)
	}
	if r, err := n1.UIDs().Release(ctx, uid, g.Token, g.Requester); err != nil || !r.Changed || r.Items[0].State != api.StateLocked {
		t.Fatalf("the first's part: %+v, %v", r, err)
	}
	if r, err := n2.UIDs().Release(ctx, uid, g.Token, j.Requester); err != nil || !r.Changed {
		t.Fatalf("the last part: %+v, %v", r, err)
	}
	n1.until(t, uid, api.StateFree)
	_, err = n2.UIDs().Join(ctx, uid, api.Ref{Token: g.Token}, api.JoinBody{})
	wants(t, err, problem.CodeKeyEnded)
	// From a node that the claim does not name, the whole grant ends.
	g = n1.request(t, api.UIDRequest{})
	n2.until(t, uid, api.StateLocked)
	if r, err := n2.UIDs().Release(ctx, uid, g.Token, ""); err != nil || !r.Changed {
		t.Fatalf("from elsewhere: %+v, %v", r, err)
	}
	eventually(t, "the whole grant has ended", func() (bool, any) {
		u := n1.show(t, uid)
		return u.Token != g.Token || u.State == api.StateQuarantined, u
	})
}
