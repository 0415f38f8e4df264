package agent_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/idpool/idpool/agent"
	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/cluster/clustertest"
	"github.com/idpool/idpool/problem"
)

// poisoned is a live cluster with something of every kind, whose keys a test
// overwrites.
type poisoned struct {
	t      *testing.T
	client *cluster.Client
	keys   cluster.Keys
	n1, n2 *node
	logs   *observer.ObservedLogs
	grant  api.Grant // of pool p under key k, from n1
	// places are one key of every kind, and good what stands there; siblings are
	// other records of the same kinds.
	places map[cluster.Kind]string
	good   map[string]cluster.KV
	// puts counts the test's own writes.
	puts int
}

func newPoisoned(t *testing.T) *poisoned {
	etcd := clustertest.Start(t)
	core, logs := observer.New(zap.InfoLevel)
	w := &poisoned{t: t, client: etcd.Open(t), logs: logs, good: map[string]cluster.KV{}}
	w.keys = w.client.Keys()
	w.n1, w.n2 = startLogged(t, config(t, "n1", etcd.Endpoints()...), zap.New(core)), startLogged(t, config(t, "n2", etcd.Endpoints()...), zap.New(core))
	w.n1.pool(t, api.Pool{Name: "p", Ranges: "3900060000-3900060003"})
	w.n1.pool(t, api.Pool{Name: "q", Ranges: "3900061000-3900061999"})
	for name, ranges := range map[string]string{"a": "100-109", "b": "200-209"} {
		if _, err := w.n1.Inventories().Put(t.Context(), api.Inventory{Name: name, Ranges: ranges}, api.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := answered(t, func() (err error) {
		w.grant, err = w.n1.Grant(t.Context(), api.UIDRequest{Pool: "p", Count: 2, Key: "k", Hold: api.Hold{Kind: api.HoldTTL, TTL: "1h"}})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	w.n1.service(t, pair("edge"))
	uid := w.grant.Items[0].UID
	w.places = map[cluster.Kind]string{
		cluster.KindMeta: w.keys.Meta(), cluster.KindMembers: w.keys.Members(), cluster.KindNode: w.keys.Node("n1"), cluster.KindAlive: w.keys.Alive("n1"),
		cluster.KindProof: w.keys.Proof("n1"), cluster.KindUIDPool: w.keys.UIDPool("p"), cluster.KindVLANInventory: w.keys.VLANInventory("a"),
		cluster.KindPoolIndex: w.keys.PoolIndex(), cluster.KindClaim: w.keys.Claim(cluster.SpaceUID, uid), cluster.KindLock: w.keys.Lock(cluster.SpaceUID, uid),
		cluster.KindGrant: w.keys.Grant(w.grant.Items[0].Caller, "key:k"), cluster.KindReaper: w.keys.ReaperLock(),
		cluster.KindService: w.keys.Service("edge"), cluster.KindServiceLock: w.keys.ServiceLock("edge"),
		cluster.KindRecovery: w.keys.Recovery("n1"), cluster.KindRecovered: w.keys.Recovered(w.keys.Claim(cluster.SpaceUID, uid)),
	}
	for _, kind := range cluster.Kinds() {
		if w.places[kind] == "" {
			t.Fatalf("no key of kind %q is poisoned: add one to this test, and what it does to package agent's check", kind)
		}
	}
	eventually(t, "a quiet cluster", func() (bool, any) {
		w.read()
		missing := slices.DeleteFunc(slices.Collect(maps.Values(w.places)), func(k string) bool {
			_, ok := w.good[k]
			return ok || k == w.keys.ServiceLock("edge") || k == w.places[cluster.KindRecovery] || k == w.places[cluster.KindRecovered]
		})
		return len(missing) == 0 && w.clean(w.n1) && w.clean(w.n2), missing
	})
	return w
}

// answered repeats f while nothing was done because a busy machine was too slow.
func answered(t testing.TB, f func() error) (err error) {
	t.Helper()
	eventually(t, "an answer", func() (bool, any) {
		err = f()
		code := problem.CodeOf(err)
		return code != problem.CodeUnavailable && code != problem.CodeOutcomeUnknown, err
	})
	return err
}

// startLogged is start with a log.
func startLogged(t *testing.T, c agent.Config, log *zap.Logger) *node {
	n := launchLogged(t, c, log)
	select {
	case <-n.agent.Ready():
	case <-n.done:
		t.Fatalf("agent of %s ended: %v", c.Node, n.err)
	case <-time.After(limit):
		t.Fatalf("agent of %s not ready", c.Node)
	}
	return n
}

func (w *poisoned) read() {
	w.t.Helper()
	resp, err := w.client.Txn().Get(w.t.Context(), w.keys.Root(), clientv3.WithPrefix())
	if err != nil {
		w.t.Fatal(err)
	}
	w.good = map[string]cluster.KV{}
	for _, kv := range resp.Kvs {
		w.good[string(kv.Key)] = cluster.KV{Key: string(kv.Key), Value: kv.Value, Lease: kv.Lease}
	}
}

func (w *poisoned) put(key string, value []byte) {
	w.t.Helper()
	w.puts++
	if _, err := w.client.Txn().Put(w.t.Context(), key, string(value)); err != nil {
		w.t.Fatalf("put %.40q: %v", key, err)
	}
}

// mend puts back what stood at a key; one whose lease has ended goes.
func (w *poisoned) mend(key string) {
	w.t.Helper()
	w.puts++
	if kv, ok := w.good[key]; ok {
		_, err := w.client.Txn().Put(w.t.Context(), key, string(kv.Value), clientv3.WithLease(clientv3.LeaseID(kv.Lease)))
		if err == nil {
			return
		}
		if !cluster.IsLeaseNotFound(err) {
			w.t.Fatal(err)
		}
	}
	if _, err := w.client.Txn().Delete(w.t.Context(), key); err != nil {
		w.t.Fatal(err)
	}
}

func (w *poisoned) clean(n *node) bool {
	found, err := n.Check(w.t.Context())
	return err == nil && len(found) == 0
}

// reported wants a node's check to name a key, what is wrong and what to do.
func (w *poisoned) reported(n *node, what, key string) {
	w.t.Helper()
	var found []api.Finding
	err := answered(w.t, func() (err error) {
		found, err = n.Check(w.t.Context())
		return err
	})
	if err != nil {
		w.t.Errorf("%s: check on %s: %v", what, n.cfg.Node, err)
		return
	}
	i := slices.IndexFunc(found, func(f api.Finding) bool { return f.Subject == agent.ShowKey(key) })
	if i < 0 {
		w.t.Errorf("%s: check on %s does not name %.100q: %+v", what, n.cfg.Node, key, found)
		return
	}
	if f := found[i]; f.Kind != "unreadable" || f.Detail == "" || len(f.Detail) > 1000 || len(f.Try) < 2 {
		w.t.Errorf("%s: check on %s says only %+v", what, n.cfg.Node, f)
	}
}

func (w *poisoned) alive(what string, nodes ...*node) {
	w.t.Helper()
	for _, n := range append(nodes, w.n1, w.n2) {
		select {
		case <-n.done:
			w.t.Fatalf("%s: agent of %s ended: %v", what, n.cfg.Node, n.err)
		default:
		}
	}
}

func (w *poisoned) serves(what string, n *node) {
	w.t.Helper()
	if err := answered(w.t, func() error {
		_, err := n.Grant(w.t.Context(), api.UIDRequest{Pool: "q"})
		return err
	}); err != nil {
		w.t.Errorf("%s: another pool on %s: %v", what, n.cfg.Node, err)
	}
}

// heals waits until nothing is left of the poison and both nodes grant.
func (w *poisoned) heals(what string) {
	w.t.Helper()
	eventually(w.t, what+" heals", func() (bool, any) {
		w.alive(what)
		for _, n := range []*node{w.n1, w.n2} {
			found, err := n.Check(w.t.Context())
			if err == nil && len(found) == 0 {
				_, err = n.Grant(w.t.Context(), api.UIDRequest{Pool: "q"})
			}
			if err != nil || len(found) > 0 {
				return false, fmt.Sprint(n.cfg.Node, found, err)
			}
		}
		return true, nil
	})
}

// TestPoison walks every kind of key and every poison on a live cluster: no agent
// ends or spins, other pools go on, what the record protects stays, check names it,
// and all is well once it is as it was.
func TestPoison(t *testing.T) {
	t.Parallel()
	w := newPoisoned(t)
	began, first, cells := time.Now(), w.revision(), 0
	for _, kind := range cluster.Kinds() {
		key := w.places[kind]
		w.read() // locks and presences may have others by now
		for name, value := range w.poisons(kind) {
			what := fmt.Sprintf("%s with %s", kind, name)
			w.put(key, value)
			cells++
			w.reported(w.n2, what, key)
			w.protects(what, kind)
			w.alive(what)
		}
		what := kind.String()
		switch kind {
		case cluster.KindMeta:
		case cluster.KindNode, cluster.KindAlive:
			w.serves(what, w.n2)
		default:
			w.serves(what, w.n1)
			w.serves(what, w.n2)
		}
		w.mend(key)
		w.heals(what)
	}
	w.quiet(cells, first, began)
	if n := w.strangeKeys(); n < 20 {
		t.Errorf("only %d strange keys", n)
	}
	t.Logf("%d kinds, %d cells", len(cluster.Kinds()), cells)
}

func (w *poisoned) revision() int64 {
	resp, err := w.client.Read(w.t.Context(), clientv3.OpGet(w.keys.Meta()))
	if err != nil {
		w.t.Fatal(err)
	}
	return resp.Header.Revision
}

// quiet bounds what the agents wrote and logged meanwhile: a few of each a cell, and
// a second.
func (w *poisoned) quiet(cells int, first int64, began time.Time) {
	w.t.Helper()
	seconds := int64(time.Since(began)/time.Second) + 1
	if wrote := w.revision() - first - int64(w.puts); wrote > int64(10*cells)+40*seconds {
		w.t.Errorf("agents wrote %d times in %d cells and %d s", wrote, cells, seconds)
	}
	if lines := int64(w.logs.Len()); lines > int64(6*cells)+10*seconds {
		w.t.Errorf("agents logged %d lines in %d cells and %d s: %v", lines, cells, seconds, w.logs.All()[lines-5:])
	}
}

// protects holds what a record stands for while it cannot be read.
func (w *poisoned) protects(what string, kind cluster.Kind) {
	w.t.Helper()
	ctx, item := w.t.Context(), w.grant.Items[0]
	refused := func(f func() error, codes ...problem.Code) {
		w.t.Helper()
		if err := answered(w.t, f); !slices.Contains(codes, problem.CodeOf(err)) {
			w.t.Errorf("%s: %v (%s), want one of %v", what, err, problem.CodeOf(err), codes)
		}
	}
	switch kind {
	case cluster.KindMeta:
		for _, n := range []*node{w.n1, w.n2} {
			refused(func() error { _, err := n.Grant(ctx, api.UIDRequest{Pool: "q"}); return err }, problem.CodeFrozen)
		}
	case cluster.KindNode, cluster.KindAlive:
		refused(func() error { _, err := w.n1.Grant(ctx, api.UIDRequest{Pool: "q"}); return err }, problem.CodeFrozen)
		if kind == cluster.KindNode {
			refused(func() error {
				_, err := w.n2.Nodes().Fence(ctx, "n1", api.NodeAction{Reason: "a test", Force: true})
				return err
			}, problem.CodeInvalid)
		}
	case cluster.KindUIDPool:
		refused(func() error { _, err := w.n2.Grant(ctx, api.UIDRequest{Pool: "p"}); return err }, problem.CodeInvalid)
		refused(func() error {
			_, err := w.n2.Pools().Put(ctx, api.Pool{Name: "p", Ranges: "3900060000-3900060003"}, api.WriteOptions{})
			return err
		}, problem.CodeInvalid)
		refused(func() error {
			_, err := w.n2.Pools().Put(ctx, api.Pool{Name: "new", Ranges: "3900060000-3900060003", PoolPolicy: api.PoolPolicy{Scope: "node"}}, api.WriteOptions{})
			return err
		}, problem.CodeInvalid)
	case cluster.KindClaim:
		refused(func() error { _, err := w.n2.Grant(ctx, api.UIDRequest{Pool: "p", UID: item.UID}); return err }, problem.CodeHeld)
		refused(func() error { _, err := w.n1.UIDs().Release(ctx, item.UID, w.grant.Token, ""); return err }, problem.CodeInvalid, problem.CodeInternal)
		refused(func() error { return w.n2.Pools().Delete(ctx, "p") }, problem.CodeHeld)
	case cluster.KindGrant:
		refused(func() error {
			_, err := w.n1.Grant(ctx, api.UIDRequest{Pool: "p", Count: 2, Key: "k", Hold: api.Hold{Kind: api.HoldTTL, TTL: "1h"}})
			return err
		}, problem.CodeInvalid)
		refused(func() error { _, err := w.n1.UIDs().ReleaseKey(ctx, "k"); return err }, problem.CodeInvalid)
	case cluster.KindService:
		refused(func() error { _, err := w.n2.Services().Create(ctx, pair("edge"), api.WriteOptions{}); return err }, problem.CodeInvalid)
		if v, err := w.n2.VLANs().Get(ctx, "a", 100); err != nil || v.Service != "edge" {
			w.t.Errorf("%s: its VLAN is %+v, %v", what, v, err)
		}
	}
}

// TestPoisonAtStart: an agent that starts on poisoned records serves if it can, says
// why it does not, and goes on by itself once they are mended.
func TestPoisonAtStart(t *testing.T) {
	t.Parallel()
	w := newPoisoned(t)
	c := config(t, "n3", w.n1.cfg.Endpoints...)
	for _, kind := range cluster.Kinds() {
		if kind != cluster.KindMeta && kind != cluster.KindNode && kind != cluster.KindAlive {
			w.put(w.places[kind], []byte(`{"v":2}`))
		}
	}
	n3 := start(t, c)
	w.serves("a start on poison", n3)
	n3.stop()
	for _, key := range []string{w.keys.Meta(), w.keys.Node("n3"), w.keys.Alive("n3")} {
		delete(w.good, w.keys.Node("n3"))
		w.read()
		for _, value := range []string{"", `{"v":2}`} {
			w.put(key, []byte(value))
			n3 := launch(t, c)
			eventually(t, "status names "+key, func() (bool, any) {
				w.alive(key, n3)
				st, err := n3.Status(t.Context())
				return err == nil && !st.Ready && strings.Contains(strings.Join(st.NotReady, " "), key), fmt.Sprint(st.NotReady, err)
			})
			_, err := n3.Grant(t.Context(), api.UIDRequest{Pool: "q"})
			wants(t, err, problem.CodeFrozen, key, "cannot be read")
			w.mend(key)
			eventually(t, "the agent goes on after "+key, func() (bool, any) {
				w.alive(key, n3)
				_, err := n3.Grant(t.Context(), api.UIDRequest{Pool: "q"})
				return err == nil, err
			})
			n3.stop()
		}
	}
	for _, key := range w.places {
		w.mend(key)
	}
}
