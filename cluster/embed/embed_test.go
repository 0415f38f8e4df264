package embed_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/cluster/embed"
	"github.com/idpool/idpool/problem"
)

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "idpe-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func start(t *testing.T, cfg embed.Config) *embed.Server {
	t.Helper()
	cfg.Fast = true
	s, err := embed.Start(testContext(t), cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func open(t *testing.T, endpoints ...string) *cluster.Client {
	t.Helper()
	cfg := cluster.DefaultConfig()
	cfg.Endpoints = endpoints
	c, err := cluster.Open(testContext(t), cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestRestartKeepsDataAndIdentity(t *testing.T) {
	dir := shortDir(t)
	s := start(t, embed.Config{Dir: dir})
	c := open(t, s.Endpoints()...)
	if _, err := c.Commit(testContext(t), nil, []clientv3.Op{clientv3.OpPut("/k", "v")}, nil); err != nil {
		t.Fatal(err)
	}
	token, err := os.ReadFile(filepath.Join(dir, "etcd", "token"))
	if err != nil {
		t.Fatal(err)
	}
	id := c.ClusterID()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s = start(t, embed.Config{Dir: dir})
	c = open(t, s.Endpoints()...)
	resp, err := c.Read(testContext(t), clientv3.OpGet("/k"))
	if err != nil {
		t.Fatal(err)
	}
	if kvs := resp.Responses[0].GetResponseRange().Kvs; len(kvs) != 1 || string(kvs[0].Value) != "v" {
		t.Errorf("data after a restart: %v", kvs)
	}
	if c.ClusterID() != id {
		t.Errorf("cluster id %x became %x over a restart", id, c.ClusterID())
	}
	after, err := os.ReadFile(filepath.Join(dir, "etcd", "token"))
	if err != nil || string(after) != string(token) {
		t.Errorf("token %q became %q (%v)", token, after, err)
	}
}

func TestNewDirectoriesAreDifferentClusters(t *testing.T) {
	a := open(t, start(t, embed.Config{Dir: shortDir(t)}).Endpoints()...)
	b := open(t, start(t, embed.Config{Dir: shortDir(t)}).Endpoints()...)
	if a.ClusterID() == b.ClusterID() {
		t.Errorf("two first boots made one cluster id %x: the token is not random", a.ClusterID())
	}
}

func TestSecondStartOnOneDirectoryIsRefused(t *testing.T) {
	dir := shortDir(t)
	start(t, embed.Config{Dir: dir})
	_, err := embed.Start(testContext(t), embed.Config{Dir: dir, Fast: true}, nil)
	if !errors.Is(err, problem.ErrHeld) {
		t.Fatalf("second start: %v, want %v", err, problem.ErrHeld)
	}
	if want := fmt.Sprintf("in use by pid %d", os.Getpid()); !strings.Contains(err.Error(), want) {
		t.Errorf("second start: %q lacks %q", err, want)
	}
}

func TestStartRefuses(t *testing.T) {
	file := filepath.Join(shortDir(t), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	emptyToken := shortDir(t)
	if err := os.MkdirAll(filepath.Join(emptyToken, "etcd"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(emptyToken, "etcd", "token"), []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := shortDir(t)
	for _, tt := range []struct {
		name string
		cfg  embed.Config
		want string
	}{
		{"no directory", embed.Config{}, "dir is missing"},
		{"a file", embed.Config{Dir: file}, "is no directory"},
		{"below a file", embed.Config{Dir: filepath.Join(file, "sub")}, "not a directory"},
		{"empty token file", embed.Config{Dir: emptyToken}, "is empty"},
		{"etcd's own name", embed.Config{Dir: dir, Name: "default"}, "choose another"},
		{"bad name", embed.Config{Dir: dir, Name: "a/b"}, "a/b"},
		{"host name", embed.Config{Dir: dir, ListenClient: "http://example.org:1"}, "IP address"},
		{"no scheme", embed.Config{Dir: dir, ListenClient: "10.0.0.1:2379"}, "use http://IP:PORT"},
		{"https without a certificate", embed.Config{Dir: dir, ListenClient: "https://127.0.0.1:0"}, "certificate"},
		{"certificate without https", embed.Config{Dir: dir, TLS: cluster.TLSConfig{CertFile: "a", KeyFile: "b"}}, "no listener is https"},
		{"certificate without key", embed.Config{Dir: dir, ListenClient: "https://127.0.0.1:0", TLS: cluster.TLSConfig{CertFile: "a"}}, "go together"},
		{"peer without members", embed.Config{Dir: dir, ListenPeer: "http://127.0.0.1:1"}, "members lack"},
		{"members without peer", embed.Config{Dir: dir, Members: map[string]string{"a": "b"}}, "no peer listener"},
		{"peer without token", embed.Config{Dir: dir, Name: "a", ListenPeer: "http://127.0.0.1:1", Members: map[string]string{"a": "http://127.0.0.1:1"}}, "token"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := embed.Start(testContext(t), tt.cfg, nil)
			if s != nil {
				s.Close()
			}
			if problem.CodeOf(err) != problem.CodeInvalid || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an invalid that says %q", err, tt.want)
			}
		})
	}
}

func TestAnotherTokenIsRefused(t *testing.T) {
	dir := shortDir(t)
	if err := start(t, embed.Config{Dir: dir, Token: "one"}).Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := embed.Start(testContext(t), embed.Config{Dir: dir, Token: "two"}, nil); !errors.Is(err, problem.ErrInvalid) {
		t.Errorf("another token: %v", err)
	}
	start(t, embed.Config{Dir: dir})
}

func TestUsedPortIsAnErrorAndFreesTheDirectory(t *testing.T) {
	s := start(t, embed.Config{Dir: shortDir(t), ListenClient: "http://127.0.0.1:0"})
	if len(s.Endpoints()) != 2 {
		t.Fatalf("endpoints %v, want a socket and an address", s.Endpoints())
	}
	dir := shortDir(t)
	_, err := embed.Start(testContext(t), embed.Config{Dir: dir, ListenClient: s.Endpoints()[1], Fast: true}, nil)
	if !errors.Is(err, problem.ErrUnavailable) || !strings.Contains(err.Error(), "in use") {
		t.Fatalf("a port in use: %v", err)
	}
	start(t, embed.Config{Dir: dir})
}

func TestEveryEndpointServes(t *testing.T) {
	s := start(t, embed.Config{Dir: shortDir(t), ListenClient: "http://127.0.0.1:0, http://127.0.0.2:0"})
	if got := s.Endpoints(); len(got) != 3 || !strings.HasPrefix(got[0], "unix:///") {
		t.Fatalf("endpoints %v, want a socket and two addresses", got)
	}
	for _, e := range s.Endpoints() {
		if _, err := open(t, e).Read(testContext(t), clientv3.OpGet("/k")); err != nil {
			t.Errorf("at %s: %v", e, err)
		}
	}
}

func TestLongAndOddPathsGetAShortSocket(t *testing.T) {
	for name, sub := range map[string]string{"long": strings.Repeat("x", 120), "odd": "with space%41,ünd"} {
		t.Run(name, func(t *testing.T) {
			s := start(t, embed.Config{Dir: filepath.Join(shortDir(t), sub)})
			socket := strings.TrimPrefix(s.Endpoints()[0], "unix://")
			if len(socket) >= 100 {
				t.Errorf("socket %s has %d bytes", socket, len(socket))
			}
			open(t, s.Endpoints()...)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(filepath.Dir(socket)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the socket's directory is left: %v", err)
			}
		})
	}
}

func TestDirectoryIsPrivate(t *testing.T) {
	dir := shortDir(t)
	if err := os.Mkdir(filepath.Join(dir, "etcd"), 0o755); err != nil {
		t.Fatal(err)
	}
	start(t, embed.Config{Dir: dir})
	info, err := os.Stat(filepath.Join(dir, "etcd"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, want 0700: the socket asks for no certificate", info.Mode().Perm())
	}
}

func TestCloseTwiceAndDone(t *testing.T) {
	s := start(t, embed.Config{Dir: shortDir(t)})
	select {
	case <-s.Done():
		t.Fatal("done while it runs")
	default:
	}
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	<-s.Done()
	if s.Err() != nil {
		t.Errorf("after Close: %v", s.Err())
	}
}

func TestCloseLeavesNoGoroutine(t *testing.T) {
	before := goleak.IgnoreCurrent()
	s, err := embed.Start(testContext(t), embed.Config{Dir: shortDir(t), Fast: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	goleak.VerifyNone(t, before)
}

func TestErrSaysThatTheServerEndedByItself(t *testing.T) {
	s := start(t, embed.Config{Dir: shortDir(t)})
	s.Etcd().Server.HardStop()
	select {
	case <-s.Done():
	case <-testContext(t).Done():
		t.Fatal("not done though the server stopped")
	}
	if !errors.Is(s.Err(), problem.ErrUnavailable) {
		t.Errorf("got %v", s.Err())
	}
}

func TestCloseEndsOpenWatches(t *testing.T) {
	s := start(t, embed.Config{Dir: shortDir(t)})
	c := open(t, s.Endpoints()...)
	ctx := testContext(t)
	created := c.Watch().Watch(ctx, "/k", clientv3.WithCreatedNotify())
	<-created
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	// Etcd alone waits more than five seconds for a watch.
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(4 * time.Second):
		t.Error("Close waits for a client's watch")
		<-closed
	}
}

func TestStartEndsWithItsContext(t *testing.T) {
	// Two of three members are missing: this one never becomes ready.
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	_, err := embed.Start(ctx, embed.Config{
		Dir: shortDir(t), Name: "a", Token: "t", Fast: true, ListenPeer: "http://127.0.0.1:23801",
		Members: map[string]string{"a": "http://127.0.0.1:23801", "b": "http://127.0.0.1:23802", "c": "http://127.0.0.1:23803"},
	}, nil)
	if !errors.Is(err, problem.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}
