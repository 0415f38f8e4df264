package rbac_test

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/cluster/clustertest"
	"github.com/idpool/idpool/cluster/embed"
	"github.com/idpool/idpool/cluster/pki"
	"github.com/idpool/idpool/cluster/rbac"
	"github.com/idpool/idpool/problem"
)

const limit = 30 * time.Second

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

// everybody has one of each kind with rights, and nobody, who has none.
func everybody(t *testing.T, s *clustertest.Secure) rbac.Wish {
	t.Helper()
	s.Issue(t, pki.Wish{Specs: []pki.Spec{
		{Name: "n1", Kind: pki.Agent}, {Name: "n2", Kind: pki.Agent}, {Name: "eve", Kind: pki.Observer}, {Name: "vault", Kind: pki.Backup}, {Name: "nobody", Kind: pki.Operator},
	}})
	return rbac.Wish{Root: cluster.DefaultRoot, Users: map[pki.Kind][]string{pki.Agent: {"n1", "n2"}, pki.Observer: {"eve"}, pki.Backup: {"vault"}}}
}

// apply fulfils a wish and returns how many steps that took.
func apply(t *testing.T, c *cluster.Client, w rbac.Wish) int {
	t.Helper()
	have, err := rbac.Read(within(t), c)
	if err != nil {
		t.Fatal(err)
	}
	steps, err := rbac.Plan(w, have)
	if err == nil {
		err = rbac.Apply(within(t), c, steps, func(rbac.Step) {})
	}
	if err != nil {
		t.Fatal(err)
	}
	return len(steps)
}

// deeds are what somebody may try; each is one request.
func deeds(c *cluster.Client) map[string]func(context.Context) error {
	cl, inside, outside := c.Txn(), cluster.DefaultRoot+"x", "/other/x"
	put := func(key string) func(context.Context) error {
		return func(ctx context.Context) error { _, err := cl.Put(ctx, key, "v"); return err }
	}
	get := func(key string, o ...clientv3.OpOption) func(context.Context) error {
		return func(ctx context.Context) error { _, err := cl.Get(ctx, key, o...); return err }
	}
	return map[string]func(context.Context) error{
		"read":           get(inside),
		"list":           get(cluster.DefaultRoot, clientv3.WithPrefix()),
		"write":          put(inside),
		"delete":         func(ctx context.Context) error { _, err := cl.Delete(ctx, inside); return err },
		"read outside":   get(outside),
		"write outside":  put(outside),
		"list all":       get("\x00", clientv3.WithFromKey()),
		"list neighbour": get("/idpool", clientv3.WithPrefix()),
		"delete all":     func(ctx context.Context) error { _, err := cl.Delete(ctx, "", clientv3.WithPrefix()); return err },
		"transaction over the edge": func(ctx context.Context) error {
			_, err := cl.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(inside), "=", 0)).
				Then(clientv3.OpTxn(nil, nil, []clientv3.Op{clientv3.OpPut(outside, "v")})).Commit()
			return err
		},
		"compare outside": func(ctx context.Context) error {
			_, err := cl.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(outside), "=", 0)).Commit()
			return err
		},
		"snapshot": func(ctx context.Context) error {
			r, err := cl.Snapshot(ctx)
			if err == nil {
				_, err = io.Copy(io.Discard, r)
				err = errors.Join(err, r.Close())
			}
			return err
		},
		"users":      func(ctx context.Context) error { _, err := cl.UserList(ctx); return err },
		"add user":   func(ctx context.Context) error { _, err := cl.UserAdd(ctx, "me", "me"); return err },
		"grant role": func(ctx context.Context) error { _, err := cl.UserGrantRole(ctx, "n2", "root"); return err },
		"auth off":   func(ctx context.Context) error { _, err := cl.AuthDisable(ctx); return err },
		"defragment": func(ctx context.Context) error { _, err := cl.Defragment(ctx, c.Config().Endpoints[0]); return err },
		"disarm": func(ctx context.Context) error {
			_, err := cl.AlarmDisarm(ctx, &clientv3.AlarmMember{MemberID: 1, Alarm: pb.AlarmType_NOSPACE})
			return err
		},
		"add member": func(ctx context.Context) error {
			_, err := cl.MemberAdd(ctx, []string{"http://127.0.0.1:1"})
			return err
		},
		"status":  func(ctx context.Context) error { _, err := cl.Status(ctx, c.Config().Endpoints[0]); return err },
		"lease":   func(ctx context.Context) error { _, err := cl.Grant(ctx, 5); return err },
		"compact": func(ctx context.Context) error { _, err := cl.Compact(ctx, 1); return err },
	}
}

// TestRights holds what each kind may, in a real etcd: what is not named is denied.
func TestRights(t *testing.T) {
	t.Parallel()
	s := clustertest.StartSecure(t, 1)
	w, root := everybody(t, s), s.OpenAs(t, "root")
	if n := apply(t, root, w); n != 15 {
		t.Errorf("%d steps", n)
	}
	if n := apply(t, root, w); n != 0 {
		t.Errorf("%d steps more the second time", n)
	}
	// What etcd grants to whoever has a certificate at all.
	anybody := []string{"status", "lease"}
	reads := append([]string{"read", "list"}, anybody...)
	for who, may := range map[string][]string{
		"nobody": anybody, "eve": reads, "n1": append([]string{"write", "delete"}, reads...),
	} {
		try := deeds(s.OpenAs(t, who))
		for _, what := range slices.Sorted(maps.Keys(try)) {
			err := try[what](within(t))
			if want := slices.Contains(may, what); want && err != nil || !want && !cluster.IsPermissionDenied(err) {
				t.Errorf("%s: %s: %v, want it allowed: %v", who, what, err, want)
			}
		}
	}
	vault := deeds(s.OpenAs(t, "vault"))
	for _, what := range []string{"snapshot", "list"} {
		if err := vault[what](within(t)); err != nil {
			t.Errorf("backup: %s: %v", what, err)
		}
	}
	if _, err := rbac.Read(within(t), s.OpenAs(t, "n1")); problem.CodeOf(err) != problem.CodeForbidden {
		t.Errorf("an agent reads users: %v", err)
	}
}

// TestLeases: a lease is whose keys may be written; one without keys is anybody's.
func TestLeases(t *testing.T) {
	t.Parallel()
	s := clustertest.StartSecure(t, 1)
	apply(t, s.OpenAs(t, "root"), everybody(t, s))
	n1, n2, eve, nobody := s.OpenAs(t, "n1").Renew(), s.OpenAs(t, "n2").Renew(), s.OpenAs(t, "eve").Renew(), s.OpenAs(t, "nobody").Renew()
	lease, err := n1.Grant(within(t), 60)
	if err == nil {
		_, err = n1.Put(within(t), cluster.DefaultRoot+"locks/x", "v", clientv3.WithLease(lease.ID))
	}
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]*clientv3.Client{"observer": eve, "nobody": nobody} {
		if _, err := c.KeepAliveOnce(within(t), lease.ID); !cluster.IsPermissionDenied(err) {
			t.Errorf("%s renews an agent's lease: %v", name, err)
		}
		if _, err := c.Revoke(within(t), lease.ID); !cluster.IsPermissionDenied(err) {
			t.Errorf("%s revokes an agent's lease: %v", name, err)
		}
		if _, err := c.TimeToLive(within(t), lease.ID); err != nil {
			t.Errorf("%s: time to live: %v", name, err)
		}
	}
	if _, err := eve.TimeToLive(within(t), lease.ID, clientv3.WithAttachedKeys()); err != nil {
		t.Errorf("observer: keys of a lease: %v", err)
	}
	if _, err := nobody.TimeToLive(within(t), lease.ID, clientv3.WithAttachedKeys()); !cluster.IsPermissionDenied(err) {
		t.Errorf("nobody: keys of a lease: %v", err)
	}
	// Agents trust each other: RBAC cannot say "your own".
	if _, err := n2.Revoke(within(t), lease.ID); err != nil {
		t.Errorf("another agent revokes: %v", err)
	}
}

// TestRolesAreBroughtBack: a role of the house has its permission and no other.
func TestRolesAreBroughtBack(t *testing.T) {
	t.Parallel()
	s := clustertest.StartSecure(t, 1)
	w, root := everybody(t, s), s.OpenAs(t, "root")
	apply(t, root, w)
	auth := root.Txn().Auth
	_, err := auth.RoleGrantPermission(within(t), "idpool-agent", "/other/", "/other0", clientv3.PermissionType(clientv3.PermReadWrite))
	if err == nil {
		_, err = auth.RoleGrantPermission(within(t), "idpool-observer", "/idpool/", "/idpool0", clientv3.PermissionType(clientv3.PermReadWrite))
	}
	if err == nil {
		_, err = auth.UserRevokeRole(within(t), "n2", "idpool-agent")
	}
	if err != nil {
		t.Fatal(err)
	}
	if n := apply(t, root, w); n != 3 {
		t.Errorf("%d steps, want 3", n)
	}
	for who, what := range map[string]string{"n1": "write outside", "eve": "write"} {
		if err := deeds(s.OpenAs(t, who))[what](within(t)); !cluster.IsPermissionDenied(err) {
			t.Errorf("%s: %s: %v", who, what, err)
		}
	}
	if err := deeds(s.OpenAs(t, "n2"))["write"](within(t)); err != nil {
		t.Error(err)
	}
}

// TestNobodyIsLockedOut: authentication stays off where certificates name nobody.
func TestNobodyIsLockedOut(t *testing.T) {
	t.Parallel()
	s := clustertest.StartSecure(t, 1) // for its certificates
	w := everybody(t, s)
	for name, row := range map[string]struct {
		change func(*embed.Config)
		says   string
	}{
		"no client certificates": {func(c *embed.Config) { c.NoSocket, c.TLS.CAFile = true, "" }, "on, and off again"},
		"a socket":               {func(*embed.Config) {}, "serves clients at unix://"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := embed.Config{Dir: t.TempDir(), Fast: true, ListenClient: "https://127.0.0.1:0", TLS: s.TLS("m0")}
			row.change(&cfg)
			server, err := embed.Start(within(t), cfg, nil)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = server.Close() })
			conf := s.As("root")
			conf.Endpoints = server.Endpoints()[len(server.Endpoints())-1:]
			conf.Budget, conf.Attempt = 4*time.Second, time.Second
			root, err := cluster.Open(within(t), conf, nil)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = root.Close() })
			steps, err := rbac.Plan(w, rbac.State{})
			if err == nil {
				err = rbac.Apply(within(t), root, steps, func(rbac.Step) {})
			}
			if problem.CodeOf(err) != problem.CodePrecondition || !strings.Contains(err.Error(), row.says) {
				t.Errorf("got %v", err)
			}
			have, err := rbac.Read(within(t), root)
			if err != nil || have.Enabled || len(have.Users) != 5 {
				t.Errorf("after it: %+v, %v", have, err)
			}
		})
	}
}

// TestPlan holds decisions that need no etcd.
func TestPlan(t *testing.T) {
	t.Parallel()
	users := func(k pki.Kind, names ...string) rbac.Wish {
		return rbac.Wish{Root: cluster.DefaultRoot, Users: map[pki.Kind][]string{k: names}}
	}
	for name, row := range map[string]struct {
		w    rbac.Wish
		have rbac.State
		code problem.Code
	}{
		"another kind's user": {users(pki.Observer, "n1"), rbac.State{Users: map[string][]string{"n1": {"idpool-agent"}}}, problem.CodeHeld},
		"a backup before":     {users(pki.Agent, "v"), rbac.State{Users: map[string][]string{"v": {"root"}}}, problem.CodeHeld},
		"a stranger's role":   {users(pki.Agent, "n1"), rbac.State{Users: map[string][]string{"n1": {"apps"}}}, ""},
		"another root's role": {users(pki.Observer, "n1"), rbac.State{Users: map[string][]string{"n1": {"idpool-agent:/pools/"}}}, ""},
		"bad root":            {rbac.Wish{Root: "/"}, rbac.State{}, problem.CodeInvalid},
		"root's name":         {users(pki.Agent, "root"), rbac.State{}, problem.CodeInvalid},
		"no name":             {users(pki.Agent, ""), rbac.State{}, problem.CodeInvalid},
	} {
		if _, err := rbac.Plan(row.w, row.have); problem.CodeOf(err) != row.code {
			t.Errorf("%s: %v", name, err)
		}
	}
	got := rbac.LockedOut(users(pki.Agent, "n1"), rbac.State{Nodes: []string{"n1", "n2", "n3", "n4"}, Users: map[string][]string{"n2": {"idpool-agent"}, "n3": {"idpool-observer"}}})
	if !slices.Equal(got, []string{"n3", "n4"}) {
		t.Errorf("locked out: %v", got)
	}
}
