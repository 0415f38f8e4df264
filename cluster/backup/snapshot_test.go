package backup_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/cluster/backup"
	"github.com/idpool/idpool/cluster/clustertest"
	"github.com/idpool/idpool/problem"
)

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// put writes a value and returns its revision.
func put(t *testing.T, c *cluster.Client, key, value string) int64 {
	t.Helper()
	resp, err := c.Commit(testContext(t), nil, []clientv3.Op{clientv3.OpPut(key, value)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return resp.Header.Revision
}

// alone fails unless the directory holds just these names.
func alone(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(names, " ") {
		t.Errorf("the directory holds %q, want %q", got, names)
	}
}

func TestSaveIsWhatComesBack(t *testing.T) {
	c := clustertest.Start(t)
	client := c.Open(t)
	rev := put(t, client, "/idpool/k", "v")
	dir := t.TempDir()
	file := filepath.Join(dir, "s.db")
	told := int64(0)
	s, err := backup.Save(testContext(t), c.Config(), file, backup.Options{Progress: func(done, total int64) {
		if told = done; done > total {
			t.Errorf("told %d of %d bytes", done, total)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	alone(t, dir, "s.db")
	info, err := os.Stat(file)
	if err != nil || info.Size() != s.Size || told != s.Size || info.Mode().Perm() != 0o600 {
		t.Errorf("file %v (%v), told %d bytes, said %d", info, err, told, s.Size)
	}
	if s.Revision != rev || s.Member != c.Endpoints()[0] || s.Cluster == "" {
		t.Errorf("it says %+v, want revision %d of %s", s, rev, c.Endpoints()[0])
	}
	checked, err := backup.Check(file)
	s.Member, s.Cluster = "", ""
	if err != nil || checked != s {
		t.Errorf("checked: %+v (%v), want %+v", checked, err, s)
	}
	put(t, client, "/idpool/k", "later")
	c.Restore(t, file, clustertest.RestoreOptions{NewToken: true})
	resp, err := client.Read(testContext(t), clientv3.OpGet("/idpool/k"))
	if err != nil {
		t.Fatal(err)
	}
	if kvs := resp.Responses[0].GetResponseRange().Kvs; len(kvs) != 1 || string(kvs[0].Value) != "v" {
		t.Errorf("restored: %v", kvs)
	}
}

func TestSaveAfterACompactionOfTheNewestRevision(t *testing.T) {
	c := clustertest.Start(t)
	client := c.Open(t)
	put(t, client, "/idpool/k", "v")
	resp, err := client.Txn().Delete(testContext(t), "/idpool/k")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Txn().Compact(testContext(t), resp.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	s, err := backup.Save(testContext(t), c.Config(), filepath.Join(t.TempDir(), "s.db"), backup.Options{})
	if err != nil || s.Revision != resp.Header.Revision {
		t.Errorf("%+v (%v), want revision %d", s, err, resp.Header.Revision)
	}
}

func TestSaveReplacesOnlyWhenAsked(t *testing.T) {
	c := clustertest.Start(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "s.db")
	if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	late := filepath.Join(dir, "late")
	appears := func(int64, int64) {
		if err := os.WriteFile(late, []byte("mine"), 0o600); err != nil {
			t.Error(err)
		}
	}
	for _, tt := range []struct {
		name, file string
		opts       backup.Options
		want       error
		says       string
	}{
		{"a file", file, backup.Options{}, problem.ErrHeld, "is there already"},
		{"a file that comes meanwhile", late, backup.Options{Progress: appears}, problem.ErrHeld, "is there already"},
		{"a directory", filepath.Join(dir, "sub"), backup.Options{Force: true}, problem.ErrInvalid, "is a directory"},
		{"a device", "/dev/null", backup.Options{Force: true}, problem.ErrInvalid, "no regular file"},
		{"no directory", filepath.Join(dir, "none", "s.db"), backup.Options{}, problem.ErrInvalid, "no such file or directory"},
	} {
		_, err := backup.Save(testContext(t), c.Config(), tt.file, tt.opts)
		if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want %v that says %q", tt.name, err, tt.want, tt.says)
		}
	}
	for _, kept := range []string{file, late} {
		if data, err := os.ReadFile(kept); err != nil || string(data) != "mine" {
			t.Errorf("%s is %.40q (%v) now", kept, data, err)
		}
	}
	alone(t, dir, "late", "s.db", "sub")
	if _, err := backup.Save(testContext(t), c.Config(), file, backup.Options{Force: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := backup.Check(file); err != nil {
		t.Error(err)
	}
}

// fill gives etcd several times what a connection buffers.
func fill(t *testing.T, c *cluster.Client) {
	t.Helper()
	value := strings.Repeat("0123456789abcdef", 1<<16)
	for i := range 16 {
		put(t, c, "/idpool/big"+string(rune('a'+i)), value)
	}
}

func TestSaveLosesEtcdInTheMiddle(t *testing.T) {
	c := clustertest.Start(t)
	fill(t, c.Open(t))
	dir := t.TempDir()
	for _, tt := range []struct {
		name string
		do   func(cancel func())
		says string
	}{
		{"the caller gives up", func(cancel func()) { cancel() }, "canceled"},
		{"etcd ends", func(func()) { c.Stop(t) }, "did not send its snapshot to the end"},
	} {
		ctx, cancel := context.WithCancel(testContext(t))
		once := false
		_, err := backup.Save(ctx, c.Config(), filepath.Join(dir, "s.db"), backup.Options{Progress: func(done, total int64) {
			if !once {
				once = true
				tt.do(cancel)
			}
		}})
		cancel()
		if !errors.Is(err, problem.ErrUnavailable) || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), "nothing was kept") {
			t.Errorf("%s: %v", tt.name, err)
		}
		alone(t, dir)
	}
}

func TestSaveOnADiskThatFails(t *testing.T) {
	c := clustertest.Start(t)
	dir := t.TempDir()
	for _, point := range []string{"create", "write", "sync", "rename"} {
		cfg := c.Config()
		cfg.Seam = func(at string, do func() error) error {
			if at == "file:backup:"+point {
				return syscall.ENOSPC
			}
			return do()
		}
		_, err := backup.Save(testContext(t), cfg, filepath.Join(dir, "s.db"), backup.Options{})
		if err == nil || !strings.Contains(err.Error(), "no space left on device") {
			t.Errorf("%s: %v", point, err)
		}
		alone(t, dir)
	}
}

func TestCheckRefuses(t *testing.T) {
	c := clustertest.Start(t)
	put(t, c.Open(t), "/idpool/k", "v")
	dir := t.TempDir()
	file := filepath.Join(dir, "s.db")
	if _, err := backup.Save(testContext(t), c.Config(), file, backup.Options{}); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	data := whole[:len(whole)-sha256.Size]
	flipped := bytes.Clone(whole)
	flipped[len(flipped)/2] ^= 1
	for name, content := range map[string][]byte{
		"empty": nil, "cut": whole[:len(whole)-1], "without its checksum": data, "cut by a page": whole[:len(whole)-4096],
		"a bit flipped": flipped, "no etcd": signed(bytes.Repeat([]byte("x"), 4096)), "nothing signed": signed(nil),
	} {
		path := filepath.Join(dir, "bad")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := backup.Check(path); !errors.Is(err, problem.ErrInvalid) || !strings.Contains(err.Error(), "is no whole snapshot") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := backup.Check(filepath.Join(dir, "none")); !errors.Is(err, problem.ErrNotFound) {
		t.Errorf("no file: %v", err)
	}
	if _, err := backup.Check(dir); !errors.Is(err, problem.ErrInvalid) {
		t.Errorf("a directory: %v", err)
	}
}

// TestCheckOfForgedPages: data with a right checksum and wrong pages ends in an answer,
// not in a crash.
func TestCheckOfForgedPages(t *testing.T) {
	c := clustertest.Start(t)
	put(t, c.Open(t), "/idpool/k", "v")
	dir := t.TempDir()
	file := filepath.Join(dir, "s.db")
	if _, err := backup.Save(testContext(t), c.Config(), file, backup.Options{}); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		data := bytes.Clone(whole[:len(whole)-sha256.Size])
		for range 1 + r.IntN(200) {
			data[r.IntN(len(data))] = byte(r.Uint32())
		}
		if err := os.WriteFile(file, signed(data), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := backup.Check(file); err != nil {
			refused++
		}
	}
	if refused == 0 {
		t.Error("no forged file was refused: vacuous")
	}
}

func signed(data []byte) []byte {
	sum := sha256.Sum256(data)
	return append(bytes.Clone(data), sum[:]...)
}
