package agent_test

import (
	"bytes"
	"os"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/cluster/clustertest"
)

// TestServesFormat1: an agent joins a cluster of the first version's records and serves
// it. Those that a later version has rewritten it names, and never writes over.
func TestServesFormat1(t *testing.T) {
	t.Parallel()
	etcd := clustertest.Start(t)
	db := etcd.Open(t)
	lease, err := db.Renew().Grant(t.Context(), 3600)
	if err != nil {
		t.Fatal(err)
	}
	later := map[string][]byte{}
	for _, part := range []string{"claims/uid/0000070002", "pools/uid/own", "services/up", "nodes/n4", "grants/unix:1000/key:job-0"} {
		later[cluster.DefaultRoot+part] = nil
	}
	for _, path := range []string{"../leases/testdata/format-1.txt", "../vlan/testdata/format-1.txt"} {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(data)) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
			var under []clientv3.OpOption
			if at, err := db.Keys().Parse(key); err != nil {
				t.Fatal(err)
			} else if at.Kind.Leased() {
				under = append(under, clientv3.WithLease(lease.ID))
			}
			if _, ok := later[key]; ok {
				later[key] = bytes.Replace([]byte(value), []byte(`"v":1`), []byte(`"v":2,"news":1`), 1)
				value = string(later[key])
			}
			if _, err := db.Txn().Put(t.Context(), key, value, under...); err != nil {
				t.Fatal(err)
			}
		}
	}
	n := start(t, config(t, "n9", etcd.Endpoints()...))
	st, err := n.Status(t.Context())
	if err != nil || len(st.Unreadable) != len(later)-1 { // a service's is its trade's to read
		t.Errorf("unreadable: %q, %v; want those of %d records", st.Unreadable, err, len(later)-1)
	}
	found, err := n.Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	named := 0
	for _, f := range found {
		if f.Kind == "unreadable" {
			named++
			if !strings.Contains(f.Detail, "record of format 2, this version reads 1: upgrade") {
				t.Errorf("%s: %s", f.Subject, f.Detail)
			}
		}
	}
	if named != len(later) {
		t.Errorf("check names %d records of a later version, want %d: %+v", named, len(later), found)
	}
	if g := n.request(t, api.UIDRequest{Pool: "jobs"}); g.Items[0].UID == 70002 {
		t.Error("the id of a later version's claim was granted")
	}
	if u := n.show(t, 70003); u.State != api.StateIdle || u.Pool != "jobs" {
		t.Errorf("uid 70003: %+v", u)
	}
	if s, err := n.Services().Get(t.Context(), "pushed"); err != nil || s.State != "provisioning" {
		t.Errorf("service pushed: %+v, %v", s, err)
	}
	for _, refused := range []func() error{
		func() error {
			_, err := n.UIDs().Release(t.Context(), 70002, "TOKEN000000000000000000002", "")
			return err
		},
		func() error { return n.Pools().Delete(t.Context(), "own") },
		func() error { _, err := n.Nodes().Unfence(t.Context(), "n4", api.NodeAction{}); return err },
		func() error { _, err := n.Services().Create(t.Context(), pair("up"), api.WriteOptions{}); return err },
	} {
		if refused() == nil {
			t.Error("a record of a later version was changed")
		}
	}
	for key, value := range later {
		resp, err := db.Txn().Get(t.Context(), key)
		if err != nil || len(resp.Kvs) != 1 || !bytes.Equal(resp.Kvs[0].Value, value) {
			t.Errorf("%s was written over: %v, %v", key, resp, err)
		}
	}
}
