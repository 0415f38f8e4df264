package cluster_test

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/cluster/clustertest"
)

// TestAuditComesBeforeTheFirstByte: a connection for transactions is asked about
// before it carries any; the others are not.
func TestAuditComesBeforeTheFirstByte(t *testing.T) {
	etcd := clustertest.Start(t)
	var refuse atomic.Bool
	var asked atomic.Int64
	c := etcd.OpenWith(t, func(cfg *cluster.Config) {
		cfg.Attempt = 300 * time.Millisecond
		cfg.Audit = func(s cluster.Sight) error {
			asked.Add(1)
			if s.ClusterID == 0 || s.Index == 0 || s.Revision == 0 || s.Endpoint != etcd.Endpoints()[0] {
				t.Errorf("sight %+v", s)
			}
			if refuse.Load() {
				return errors.New("it went back")
			}
			return nil
		}
	})
	put := func(value string) error {
		_, err := c.Commit(testContext(t), nil, []clientv3.Op{clientv3.OpPut("/k", value)}, nil)
		return err
	}
	if err := put("a"); err != nil || asked.Load() == 0 {
		t.Fatalf("%v, asked %d times", err, asked.Load())
	}
	refuse.Store(true)
	etcd.Stop(t)
	etcd.Restart(t)
	before := asked.Load()
	for range 3 {
		if err := put("b"); err == nil {
			t.Fatal("a transaction went through")
		}
	}
	if asked.Load() == before {
		t.Error("nobody was asked")
	}
	resp, err := c.ReadAside(testContext(t), clientv3.OpGet("/k"))
	if err != nil || string(resp.Responses[0].GetResponseRange().Kvs[0].Value) != "a" {
		t.Fatalf("aside: %v, %v", resp, err)
	}
	if _, err := c.CommitAside(testContext(t), nil, []clientv3.Op{clientv3.OpPut("/k", "c")}, nil); err != nil {
		t.Fatal(err)
	}
	refuse.Store(false)
	for ctx := testContext(t); put("d") != nil; {
		if ctx.Err() != nil {
			t.Fatal("transactions do not go on")
		}
	}
}

// TestLeadTellsARestore: the revision is never ahead of the raft index by more than
// one, until etcd is restored; then it is by all that was written before.
func TestLeadTellsARestore(t *testing.T) {
	etcd := clustertest.Start(t)
	c := etcd.Open(t)
	for range 50 {
		put(t, c, "/k", "v")
		if lead, err := c.Lead(testContext(t)); err != nil || lead > 1 {
			t.Fatalf("lead %d, %v", lead, err)
		}
	}
	file := etcd.Snapshot(t)
	for _, opts := range []clustertest.RestoreOptions{{}, {NewToken: true}, {Bump: 1000, MarkCompacted: true}} {
		etcd.Restore(t, file, opts)
		lead, err := c.Lead(testContext(t))
		if want := int64(30 + opts.Bump); err != nil || lead < want {
			t.Errorf("%+v: lead %d, %v: want %d", opts, lead, err, want)
		}
		t.Logf("%+v: lead %d", opts, lead)
	}
}
