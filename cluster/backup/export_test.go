package backup_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/cluster/backup"
	"github.com/idpool/idpool/cluster/clustertest"
	"github.com/idpool/idpool/problem"
)

// filled makes a cluster's tree: records of every kind that is carried, and of those
// that are not.
func filled(t *testing.T, c *cluster.Client) {
	t.Helper()
	if _, _, err := c.EnsureMeta(testContext(t)); err != nil {
		t.Fatal(err)
	}
	k := c.Keys()
	for key, value := range map[string]string{
		k.UIDPool("jobs"): `{"v":1,"ranges":"60000-60099"}`, k.VLANInventory("a"): `{"v":1,"ranges":"100-199"}`, k.PoolIndex(): `{"v":1,"w":"x"}`,
		k.Claim(cluster.SpaceUID, 60001): `{"v":1,"state":"used","token":"t","holder":"<&>é"}`, k.Claim(cluster.SpaceUID, 60002): "\x00\xff no JSON",
		k.Claim(cluster.SpaceUID, 60003): "{\"v\":1,\n\"state\":\"used\"}", k.Claim(cluster.VLANSpace("a"), 100): `{"v":1} `, k.Claim(cluster.SpaceUID, 60004): `[1]`,
		k.Claim(cluster.SpaceUID, 60005): "{\"v\":\"\xff\"}", k.Claim(cluster.SpaceUID, 60006): "", k.Claim(cluster.SpaceUID, 60007): `{ "v" : 1, "v": 2 }`,
		k.Grant("uid:0", "key:a b/c"): `{"v":1}`, k.Node("n1"): `{"v":1,"state":"active"}`, k.Service("edge 7"): `{"v":1}`,
		k.Proof("n1"): `{"v":1}`, k.Members(): `{"v":1}`, k.Root() + "strange/key": "x",
	} {
		put(t, c, key, value)
	}
	lease, err := c.Renew().Grant(testContext(t), 600)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{k.Alive("n1"), k.Lock(cluster.SpaceUID, 60001), k.Claim(cluster.SpaceUID, 60099)} {
		if _, err := c.Commit(testContext(t), nil, []clientv3.Op{clientv3.OpPut(key, `{"v":1}`, clientv3.WithLease(lease.ID))}, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// tree is everything below a client's root, by key below it.
func tree(t *testing.T, c *cluster.Client) map[string]string {
	t.Helper()
	resp, err := c.Read(testContext(t), clientv3.OpGet(c.Keys().Root(), clientv3.WithPrefix()))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, kv := range resp.Responses[0].GetResponseRange().Kvs {
		all[strings.TrimPrefix(string(kv.Key), c.Keys().Root())] = string(kv.Value)
	}
	return all
}

func export(t *testing.T, c *cluster.Client, only string) ([]byte, backup.Exported) {
	t.Helper()
	var out bytes.Buffer
	x, err := backup.Export(testContext(t), c, &out, backup.ExportOptions{Only: only})
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), x
}

// other opens a client below another root of the same etcd.
func other(t *testing.T, c *clustertest.Cluster, root string) *cluster.Client {
	t.Helper()
	return c.OpenWith(t, func(cfg *cluster.Config) { cfg.Root = root })
}

func TestExportAndImport(t *testing.T) {
	c := clustertest.Start(t)
	from, to := c.Open(t), other(t, c, "/moved/")
	filled(t, from)
	data, x := export(t, from, "")
	wantLeft := map[string]int{"alive": 1, "lock": 1, "claim": 1, "proof": 1, "members": 1, "pool index": 1, "unknown": 1}
	if diff := cmp.Diff(wantLeft, x.Header.LeftOut); diff != "" {
		t.Errorf("left out: %s", diff)
	}
	wantCounts := map[string]int{"uid pool": 1, "vlan inventory": 1, "claim": 8, "grant": 1, "node": 1, "service": 1}
	if diff := cmp.Diff(wantCounts, x.Header.Counts); diff != "" || x.Keys != 13 {
		t.Errorf("%d keys: %s", x.Keys, diff)
	}
	if line := `{"key":"claims/uid/0000060001","value":{"v":1,"state":"used","token":"t","holder":"<&>é"}}` + "\n"; !strings.Contains(string(data), line) {
		t.Errorf("a record does not stand there as it is:\n%s", data)
	}
	done, err := backup.Import(testContext(t), to, bytes.NewReader(data), backup.ImportOptions{By: "a test"})
	if err != nil {
		t.Fatal(err)
	}
	want, got := tree(t, from), tree(t, to)
	for _, key := range []string{"alive/n1", "locks/uid/0000060001", "claims/uid/0000060099", "proofs/n1", "members", "pools/index", "strange/key", "meta"} {
		delete(want, key)
	}
	meta, err := cluster.DecodeMeta([]byte(got["meta"]))
	delete(got, "meta")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("imported: %s", diff)
	}
	now := mustRead(t, to)
	if err != nil || meta.State != cluster.StateRecovering || meta.Adopted || meta.Epoch != x.Header.Epoch || meta.Base != x.Header.Revision || meta.Imported != now-1 || meta.By != "a test" {
		t.Errorf("meta is %+v (%v), exported at %d, etcd is at %d", meta, err, x.Header.Revision, now)
	}
	if diff := cmp.Diff(meta, done.Meta); diff != "" {
		t.Error(diff)
	}
	if was, later := meta.Rev(now-2), meta.Rev(now+1); was != x.Header.Revision || later != now+1 {
		t.Errorf("what was imported is of revision %d, what came later of %d", was, later)
	}
	if _, err := backup.Export(testContext(t), to, io.Discard, backup.ExportOptions{}); !errors.Is(err, problem.ErrFrozen) {
		t.Errorf("export before the adoption: %v", err)
	}
	if _, err := backup.Import(testContext(t), to, bytes.NewReader(data), backup.ImportOptions{}); !errors.Is(err, problem.ErrHeld) || !strings.Contains(err.Error(), "8 claims") {
		t.Errorf("import into what is there: %v", err)
	}
}

func mustRead(t *testing.T, c *cluster.Client) int64 {
	t.Helper()
	resp, err := c.Read(testContext(t), clientv3.OpGet("/x"))
	if err != nil {
		t.Fatal(err)
	}
	return resp.Header.Revision
}

func TestExportOfPoolsIsStable(t *testing.T) {
	c := clustertest.Start(t)
	from, to := c.Open(t), other(t, c, "/new/")
	filled(t, from)
	before, _ := export(t, from, backup.OnlyPools)
	put(t, from, from.Keys().Claim(cluster.SpaceUID, 60050), `{"v":1}`)
	after, _ := export(t, from, backup.OnlyPools)
	if !bytes.Equal(before, after) {
		t.Errorf("a claim changed it:\n%s\n%s", before, after)
	}
	done, err := backup.Import(testContext(t), to, bytes.NewReader(after), backup.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	meta, _, err := to.EnsureMeta(testContext(t))
	if err != nil || meta.State != cluster.StateNormal || meta.Number != 1 || len(meta.Previous) != 0 || strings.Contains(string(after), meta.Epoch) {
		t.Errorf("meta %+v (%v): want a new cluster", meta, err)
	}
	if len(tree(t, to)) != 3 || done.Keys != 2 {
		t.Errorf("imported %v", tree(t, to))
	}
}

// TestExportIsOfOneRevision: what happens between two pages is not in it.
func TestExportIsOfOneRevision(t *testing.T) {
	c := clustertest.Start(t)
	writer := c.Open(t)
	filled(t, writer)
	k := writer.Keys()
	for i := range uint32(12) {
		var ops []clientv3.Op
		for j := range uint32(100) {
			ops = append(ops, clientv3.OpPut(k.Claim(cluster.SpaceUID, 70000+100*i+j), `{"v":1}`))
		}
		if _, err := writer.Commit(testContext(t), nil, ops, nil); err != nil {
			t.Fatal(err)
		}
	}
	var pages atomic.Int32
	reader := c.OpenWith(t, func(cfg *cluster.Config) {
		cfg.Seam = func(at string, do func() error) error {
			if at == "etcd:Range" {
				pages.Add(1)
				put(t, writer, k.Claim(cluster.SpaceUID, 80000+uint32(pages.Load())), `{"v":1}`)
				put(t, writer, k.Claim(cluster.SpaceUID, 71199), `{"v":1,"changed":true}`)
			}
			return do()
		}
	})
	want := mustRead(t, writer)
	data, x := export(t, reader, "")
	if x.Header.Revision != want || x.Header.Counts["claim"] != 1208 || bytes.Contains(data, []byte("changed")) || pages.Load() < 6 {
		t.Errorf("%d claims at revision %d in %d pages, want 1208 at %d", x.Header.Counts["claim"], x.Header.Revision, pages.Load(), want)
	}
}

func TestExportFile(t *testing.T) {
	c := clustertest.Start(t)
	client := c.Open(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "e.jsonl")
	if _, err := backup.ExportFile(testContext(t), client, file, backup.ExportOptions{}); !errors.Is(err, problem.ErrNotFound) {
		t.Errorf("of an empty etcd: %v", err)
	}
	alone(t, dir)
	filled(t, client)
	x, err := backup.ExportFile(testContext(t), client, file, backup.ExportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	alone(t, dir, "e.jsonl")
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	got, err := backup.Verify(f)
	got.File = file
	if diff := cmp.Diff(x, got); err != nil || diff != "" {
		t.Errorf("verified: %v %s", err, diff)
	}
	if _, err := backup.ExportFile(testContext(t), client, file, backup.ExportOptions{}); !errors.Is(err, problem.ErrHeld) {
		t.Errorf("over a file: %v", err)
	}
}

// TestImportGoesOn: one that stopped counts for nothing, is told to whoever meets it,
// and goes on with the same file alone.
func TestImportGoesOn(t *testing.T) {
	c := clustertest.Start(t)
	from := c.Open(t)
	filled(t, from)
	for i := range uint32(450) {
		put(t, from, from.Keys().Claim(cluster.SpaceUID, 70000+i), fmt.Sprintf(`{"v":1,"n":%d}`, i))
	}
	data, x := export(t, from, "")
	pools, _ := export(t, from, backup.OnlyPools)

	ctx, cancel := context.WithCancel(testContext(t))
	to := other(t, c, "/to/")
	_, err := backup.Import(ctx, to, bytes.NewReader(data), backup.ImportOptions{By: "me", Progress: func(done, total int64) { cancel() }})
	if !errors.Is(err, problem.ErrUnavailable) || !strings.Contains(err.Error(), "import stopped at ") {
		t.Fatalf("stopped: %v", err)
	}
	part := tree(t, to)
	if n := len(part); n < 2 || n > x.Keys {
		t.Fatalf("%d keys after it stopped: it shows nothing", n)
	}
	if _, _, err := to.EnsureMeta(testContext(t)); !errors.Is(err, problem.ErrUnavailable) || !strings.Contains(err.Error(), "import has not ended") {
		t.Errorf("an agent that meets it: %v", err)
	}
	if now := tree(t, to); now["meta"] != part["meta"] { // what was on its way may have arrived since
		t.Errorf("meta was %s, now %s", part["meta"], now["meta"])
	}
	if _, err := backup.Import(testContext(t), to, bytes.NewReader(pools), backup.ImportOptions{}); !errors.Is(err, problem.ErrHeld) || !strings.Contains(err.Error(), "another file") {
		t.Errorf("another file: %v", err)
	}
	// Of every third request the answer is lost.
	var n atomic.Int32
	deaf := c.OpenWith(t, func(cfg *cluster.Config) {
		cfg.Root = "/to/"
		cfg.Seam = func(at string, do func() error) error {
			if err := do(); err != nil || at != "etcd:Txn" || n.Add(1)%3 != 0 {
				return err
			}
			return status.Error(codes.Unavailable, "lost")
		}
	})
	done, err := backup.Import(testContext(t), deaf, bytes.NewReader(data), backup.ImportOptions{By: "me"})
	if err != nil || !done.Resumed {
		t.Fatalf("again: %v, resumed: %v", err, done.Resumed)
	}
	if got := tree(t, to); len(got) != x.Keys+1 || got["claims/uid/0000070449"] != `{"v":1,"n":449}` {
		t.Errorf("%d keys, want %d", len(got), x.Keys+1)
	}
}

func TestImportMeetsAStranger(t *testing.T) {
	c := clustertest.Start(t)
	from, to := c.Open(t), other(t, c, "/to/")
	filled(t, from)
	data, _ := export(t, from, "")
	stranger := to.Keys().Claim(cluster.SpaceUID, 60001)
	busy := c.OpenWith(t, func(cfg *cluster.Config) {
		cfg.Root = "/to/"
		n := 0
		cfg.Seam = func(at string, do func() error) error {
			if at == "etcd:Txn" {
				if n++; n == 2 {
					put(t, from, stranger, "mine")
				}
			}
			return do()
		}
	})
	_, err := backup.Import(testContext(t), busy, bytes.NewReader(data), backup.ImportOptions{})
	if !errors.Is(err, problem.ErrHeld) || !strings.Contains(err.Error(), "somebody else wrote "+stranger) {
		t.Errorf("import: %v", err)
	}
	if got := tree(t, to); got["claims/uid/0000060001"] != "mine" {
		t.Errorf("it wrote over %v", got)
	}
}
