package clustertest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/cluster/clustertest"
)

func TestRestore(t *testing.T) {
	for _, tt := range []struct {
		name    string
		members int
		opts    clustertest.RestoreOptions
	}{
		{"same token", 1, clustertest.RestoreOptions{}},
		{"new token", 1, clustertest.RestoreOptions{NewToken: true}},
		{"same token, bumped", 1, clustertest.RestoreOptions{Bump: 1000, MarkCompacted: true}},
		{"new token, bumped", 1, clustertest.RestoreOptions{NewToken: true, Bump: 1000, MarkCompacted: true}},
		{"three members, new token", 3, clustertest.RestoreOptions{NewToken: true, Bump: 1000, MarkCompacted: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := clustertest.StartN(t, tt.members)
			client := c.Open(t)
			ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
			defer cancel()
			put(t, ctx, client, "/before")
			then := read(t, ctx, client, "/before")
			file := c.Snapshot(t)
			put(t, ctx, client, "/after")
			id := c.Open(t).ClusterID()

			c.Restore(t, file, tt.opts)
			now := read(t, ctx, client, "/before")
			if len(now.Responses[0].GetResponseRange().Kvs) != 1 {
				t.Error("what was written before the snapshot is gone")
			}
			if want := then.Header.Revision + int64(tt.opts.Bump); now.Header.Revision != want {
				t.Errorf("revision %d after the restore, want %d", now.Header.Revision, want)
			}
			if kvs := read(t, ctx, client, "/after").Responses[0].GetResponseRange().Kvs; len(kvs) != 0 {
				t.Error("what was written after the snapshot is still there")
			}
			if same := c.Open(t).ClusterID() == id; same == tt.opts.NewToken {
				t.Errorf("cluster id %x is the same: %v, new token: %v", id, same, tt.opts.NewToken)
			}
			if tt.opts.MarkCompacted {
				_, err := client.Txn().Get(ctx, "/before", clientv3.WithRev(then.Header.Revision))
				if !errors.Is(err, rpctypes.ErrCompacted) {
					t.Errorf("a read at a revision from before: %v, want %v", err, rpctypes.ErrCompacted)
				}
			}
			c.Stop(t)
			c.Restart(t)
			put(t, ctx, client, "/after")
		})
	}
}

func put(t *testing.T, ctx context.Context, c *cluster.Client, key string) {
	t.Helper()
	for ctx.Err() == nil {
		if _, err := c.Commit(ctx, nil, []clientv3.Op{clientv3.OpPut(key, "v")}, nil); err == nil {
			return
		}
	}
	t.Fatalf("put %s: %v", key, context.Cause(ctx))
}

func read(t *testing.T, ctx context.Context, c *cluster.Client, key string) *clientv3.TxnResponse {
	t.Helper()
	resp, err := c.Read(ctx, clientv3.OpGet(key))
	if err != nil {
		t.Fatal(err)
	}
	return resp
}
