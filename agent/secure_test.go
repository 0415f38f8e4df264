package agent_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/idpool/idpool/agent"
	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/cluster/clustertest"
	"github.com/idpool/idpool/cluster/pki"
	"github.com/idpool/idpool/problem"
)

// secured is an etcd with authentication on, where n1 is an agent.
func secured(t *testing.T, members int) (*clustertest.Secure, agent.Config) {
	t.Helper()
	etcd := clustertest.StartSecure(t, members)
	etcd.Issue(t, pki.Wish{Specs: []pki.Spec{{Name: "n1", Kind: pki.Agent}, {Name: "stranger", Kind: pki.Operator}}})
	etcd.Authorize(t, map[pki.Kind][]string{pki.Agent: {"n1"}})
	c := config(t, "n1", etcd.Endpoints()...)
	c.TLS = etcd.TLS("n1")
	return etcd, c
}

// load asks and gives back until it is stopped; nothing of it may fail. Its client
// repeats what was not done: a member's restart breaks the agent's watch for a moment.
type load struct {
	stop   func()
	rounds atomic.Int64
}

func (n *node) load(t *testing.T, workers int) *load {
	t.Helper()
	n.pool(t, api.Pool{Name: "p", Ranges: "3900060000-3900060999"})
	n.inventory(t, api.Inventory{Name: "load", Ranges: "100-199", InventoryPolicy: api.InventoryPolicy{Cooldown: "0s"}})
	l := &load{}
	asks := *n
	asks.Client = api.New(api.Options{Agent: n.cfg.Socket, Timeout: limit, Retry: limit})
	t.Cleanup(asks.Client.Close)
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				if err := asks.round(fmt.Sprintf("w%d-%d", w, i)); err != nil {
					t.Errorf("round %d of worker %d: %v", i, w, err)
					return
				}
				l.rounds.Add(1)
			}
		})
	}
	l.stop = sync.OnceFunc(func() {
		cancel()
		all.Wait()
	})
	t.Cleanup(l.stop)
	return l
}

// round is one uid and one pair of VLANs, from the request to the release.
func (n *node) round(key string) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	g, err := n.Grant(ctx, api.UIDRequest{Pool: "p", Key: key})
	if err != nil {
		return fmt.Errorf("request: %w", err)
	}
	uid := g.Items[0].UID
	if _, err := n.UIDs().Confirm(ctx, uid, api.Ref{Token: g.Token}, api.ConfirmBody{Keep: true}); err != nil {
		return fmt.Errorf("confirm: %w", err)
	}
	if _, err := n.UIDs().Release(ctx, uid, g.Token, ""); err != nil {
		return fmt.Errorf("release: %w", err)
	}
	v, _, err := n.VLANs().Allocate(ctx, api.VLANRequest{Inventory: "load", Key: "vlan-" + key})
	if err != nil {
		return fmt.Errorf("allocate: %w", err)
	}
	if _, err := n.VLANs().Release(ctx, "load", v.VID, v.Token); err != nil {
		return fmt.Errorf("release a VLAN: %w", err)
	}
	return nil
}

// more waits until the load has done so many rounds since now.
func (l *load) more(t *testing.T, rounds int64) {
	t.Helper()
	from := l.rounds.Load()
	eventually(t, "the load goes on", func() (bool, any) { return l.rounds.Load() >= from+rounds || t.Failed(), l.rounds.Load() })
}

// TestOnSecuredEtcd: an agent needs no more than its role; changes of users and roles
// make no request fail.
func TestOnSecuredEtcd(t *testing.T) {
	t.Parallel()
	etcd, c := secured(t, 1)
	n := start(t, c)
	l := n.load(t, 3)
	l.more(t, 3)
	auth := etcd.OpenAs(t, "root").Txn().Auth
	for i := range 200 { // each makes what is on its way refer to roles of before
		if _, err := auth.RoleAdd(t.Context(), fmt.Sprintf("r%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	l.more(t, 3)
	l.stop()
	if found, err := n.Check(t.Context()); err != nil || len(found) != 0 {
		t.Errorf("check: %v, %v", found, err)
	}
	n.execs(t)
	n.stop() // leaves: nothing is held
	if n.err != nil {
		t.Errorf("stopped: %v", n.err)
	}
	stranger := config(t, "stranger", etcd.Endpoints()...)
	stranger.TLS = etcd.TLS("stranger")
	denied := launch(t, stranger)
	eventually(t, "an agent without a role says so", func() (bool, any) {
		st, err := denied.Status(t.Context())
		return err == nil && !st.Ready && strings.Contains(strings.Join(st.NotReady, "\n"), "permission denied"), err
	})
}

// execs lets a process run under a uid, from its confirmation to the proof that it is
// gone, and a service from its VLANs to its end.
func (n *node) execs(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		g := n.request(t, api.UIDRequest{})
		uid := g.Items[0].UID
		h := begin(t, uid)
		if u, err := n.UIDs().Confirm(t.Context(), uid, api.Ref{Token: g.Token}, api.ConfirmBody{}); err != nil || !u.Running {
			t.Errorf("confirmed: %+v, %v", u, err)
		}
		if _, err := n.UIDs().Release(t.Context(), uid, g.Token, ""); err != nil {
			t.Error(err)
		}
		n.until(t, uid, api.StateQuarantined)
		h.end()
		n.until(t, uid, api.StateFree)
	}
	for _, name := range []string{"a", "b"} {
		n.inventory(t, api.Inventory{Name: name, Ranges: "100-109"})
	}
	if err := n.Services().Exec(t.Context(), pair("e"), func(context.Context, *api.Service) error { return nil }); err != nil {
		t.Error(err)
	}
	if _, err := n.Services().Delete(t.Context(), "e", "", false); err != nil {
		t.Error(err)
	}
}

// TestCertificatesReplaced: every certificate is replaced, the authority too, while
// requests go on; the old authority's are refused at the end.
func TestCertificatesReplaced(t *testing.T) {
	t.Parallel()
	etcd, c := secured(t, 3)
	n := start(t, c)
	l := n.load(t, 2)
	l.more(t, 2)
	old := t.TempDir()
	for _, f := range []string{"ca.crt", "n1.crt", "n1.key"} {
		copyFile(t, etcd.PKI+"/"+f, old+"/"+f)
	}
	// Etcd's members read their authorities when they start.
	oneByOne := func() {
		for i := range 3 {
			etcd.StopMember(t, i)
			etcd.Restart(t)
			l.more(t, 1)
		}
	}
	etcd.Issue(t, pki.Wish{Renew: []string{pki.CAName}})
	oneByOne()
	etcd.Issue(t, pki.Wish{Renew: []string{"root", "m0", "m1", "m2", "n1", "stranger"}})
	l.more(t, 2)
	etcd.Issue(t, pki.Wish{Retire: true})
	oneByOne()
	l.more(t, 2)
	l.stop()
	if st, err := n.Status(t.Context()); err != nil || !st.Ready {
		t.Errorf("status: %v, %v", st.NotReady, err)
	}
	cfg := etcd.As("n1")
	cfg.TLS.CertFile, cfg.TLS.KeyFile, cfg.Attempt = old+"/n1.crt", old+"/n1.key", 500*time.Millisecond
	_, err := cluster.Open(t.Context(), cfg, nil)
	wants(t, err, problem.CodeUnavailable, "certificate")
}

// TestCertificateEnded: what is told, and that a new file mends it without a restart.
func TestCertificateEnded(t *testing.T) {
	t.Parallel()
	etcd, c := secured(t, 1)
	n := start(t, c)
	n.pool(t, api.Pool{Name: "p", Ranges: "3900061000-3900061009"})
	// Renewed by a machine whose clock is days behind: it has ended already.
	etcd.IssueAt(t, pki.Wish{Renew: []string{"n1"}, Days: 1}, time.Now().Add(-48*time.Hour))
	says := "TLS to etcd: certificate " + c.TLS.CertFile + " ended "
	n.request(t, api.UIDRequest{}) // the connections of before go on
	if st, err := n.Status(t.Context()); err != nil || !st.Ready || len(st.Warnings) != 1 || !strings.Contains(st.Warnings[0], says) {
		t.Errorf("on connections that stand: %+v, %v", st, err)
	}
	if found, err := n.Check(t.Context()); err != nil || len(found) != 1 || found[0].Kind != "certificate" || !strings.Contains(found[0].Detail, says) {
		t.Errorf("check: %+v, %v", found, err)
	}
	etcd.Stop(t)
	etcd.Restart(t)
	eventually(t, "readyz names the certificate", func() (bool, any) {
		code, _, body := n.raw(t, "GET", "/readyz", "")
		var p struct{ Detail string }
		_ = json.Unmarshal(body, &p)
		return code == 503 && strings.Contains(p.Detail, says), string(body)
	})
	st, err := n.Status(t.Context())
	if err != nil || st.Ready || !strings.Contains(st.NotReady[0], says) {
		t.Errorf("status: %+v, %v", st.NotReady, err)
	}
	_, err = n.Grant(t.Context(), api.UIDRequest{Pool: "p"})
	wants(t, err, problem.CodeUnavailable, says)
	// One that starts now says so too, and waits.
	c2 := config(t, "n2", etcd.Endpoints()...)
	c2.TLS = c.TLS
	second := launch(t, c2)
	eventually(t, "a new agent names the certificate", func() (bool, any) {
		_, err := second.Pools().List(t.Context())
		return err != nil && strings.Contains(err.Error(), says), err
	})
	etcd.Issue(t, pki.Wish{Renew: []string{"n1"}})
	for _, n := range []*node{n, second} {
		eventually(t, "the agent serves with the new one", func() (bool, any) {
			code, _, body := n.raw(t, "GET", "/readyz", "")
			return code == 200, string(body)
		})
	}
}
