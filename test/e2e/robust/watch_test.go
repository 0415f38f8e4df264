package robust

import (
	"context"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/cluster/clustertest"
	"github.com/idpool/idpool/test/e2e/robust/rig"
)

// TestHistoryAcrossRestores: the watcher goes on in the history that a restore
// begins, whatever its revisions are, and tells the two apart.
func TestHistoryAcrossRestores(t *testing.T) {
	for _, tt := range []struct {
		name string
		opts clustertest.RestoreOptions
	}{
		{"same token", clustertest.RestoreOptions{}},
		{"new token, raised", clustertest.RestoreOptions{NewToken: true, Bump: 1000, MarkCompacted: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			etcd := clustertest.Start(t)
			db := etcd.Open(t)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			put := func(key string) int64 {
				t.Helper()
				for {
					resp, err := db.Commit(ctx, nil, []clientv3.Op{clientv3.OpPut(db.Keys().Root()+key, "v")}, nil)
					if err == nil {
						return resp.Header.Revision
					}
					if ctx.Err() != nil {
						t.Fatal(err)
					}
				}
			}
			began := time.Now()
			h := newHistory(db, func() time.Duration { return time.Since(began) })
			failed := make(chan error, 1)
			go func() { failed <- h.Run(ctx) }()
			put("a")
			at := put("a")
			for range 2 { // the second snapshot is of the second history
				file := etcd.Snapshot(t)
				if err := h.Reach(ctx, put("a")); err != nil {
					t.Fatal(err)
				}
				etcd.Stop(t)
				if err := h.Cut(rig.Restored{Snapshot: at, Begins: at + int64(tt.opts.Bump)}); err != nil {
					t.Fatal(err)
				}
				etcd.Restore(t, file, tt.opts)
				at = put("a")
				if err := h.Reach(ctx, at); err != nil {
					t.Fatal(err)
				}
			}
			cancel()
			if err := <-failed; err != nil {
				t.Fatal(err)
			}
			eras := [3]int{}
			for _, c := range h.changes {
				eras[c.Era]++
			}
			if eras != [3]int{3, 2, 1} || h.versions["a"] != 4 {
				t.Errorf("changes by era %v, version %d: %+v", eras, h.versions["a"], h.changes)
			}
		})
	}
}

// TestCutOfTheUnknown: what etcd is said to be restored from must be in the history.
func TestCutOfTheUnknown(t *testing.T) {
	h := newHistory(nil, nil)
	if err := h.Cut(rig.Restored{Snapshot: 7, Begins: 7}); err == nil {
		t.Error("a snapshot of a revision that nobody saw")
	}
	h.last = 20
	if err := h.Cut(rig.Restored{Snapshot: 10, Begins: 1010}); err != nil {
		t.Fatal(err)
	}
	if err := h.Cut(rig.Restored{Snapshot: 12, Begins: 12}); err == nil {
		t.Error("a snapshot of an earlier history")
	}
}
