package userdb_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/idpool/idpool/agent/userdb"
)

const limit = 2 * time.Minute

// source is what tests say is granted.
type source struct {
	mu      sync.Mutex
	grants  []userdb.Grant
	changes chan struct{}
}

func grants(all ...userdb.Grant) *source {
	s := &source{}
	s.set(all...)
	return s
}

func (s *source) set(all ...userdb.Grant) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changes != nil {
		close(s.changes)
	}
	s.grants, s.changes = all, make(chan struct{})
}

func (s *source) Changes() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changes == nil {
		return nil
	}
	return s.changes
}

func (s *source) Grants() []userdb.Grant {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.grants
}

func server(t testing.TB, src userdb.Source) *userdb.Server {
	return userdb.NewServer(userdb.NewIndex(src, "idp-").Files(hostFiles(t, "", "")...), "io.idpool", "test")
}

// serve answers until the test ends, and returns how to connect.
func serve(t testing.TB, s *userdb.Server) func() *peer {
	t.Helper()
	dir, err := os.MkdirTemp("", "udb")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "io.idpool")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
		_ = os.RemoveAll(dir)
	})
	return func() *peer {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(limit))
		return &peer{t, conn, bufio.NewReader(conn)}
	}
}

// peer is a client.
type peer struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

func (p *peer) send(text string) {
	p.t.Helper()
	if _, err := p.conn.Write([]byte(text)); err != nil {
		p.t.Fatal(err)
	}
}

// get is the next reply; it ends with a NUL.
func (p *peer) get() string {
	p.t.Helper()
	text, err := p.r.ReadString(0)
	if err != nil {
		p.t.Fatalf("reply %q: %v", text, err)
	}
	return strings.TrimSuffix(text, "\x00")
}

func (p *peer) closed() bool {
	_, err := p.r.ReadByte()
	return err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
}

func ask(method, params string) string {
	return fmt.Sprintf(`{"method":%q,"parameters":{%s}}`, "io.systemd.UserDatabase."+method, params)
}

const ours = `"service":"io.idpool"`

func TestRecords(t *testing.T) {
	t.Parallel()
	p := serve(t, server(t, grants(one(70012, ""))))()
	p.send(ask("GetUserRecord", `"uid":70012,`+ours) + "\x00" + ask("GetGroupRecord", `"groupName":"idp-70012","gid":null,`+ours) + "\x00") // two at once
	for _, want := range []string{
		`{"parameters":{"record":{"userName":"idp-70012","uid":70012,"gid":70012,"realName":"idpool uid 70012 of pool jobs","homeDirectory":"/",
			"shell":"/usr/sbin/nologin","locked":true,"disposition":"dynamic","service":"io.idpool"},"incomplete":false}}`,
		`{"parameters":{"record":{"groupName":"idp-70012","gid":70012,"description":"idpool uid 70012 of pool jobs","disposition":"dynamic","service":"io.idpool"},"incomplete":false}}`,
	} {
		var a, b any
		if err := json.Unmarshal([]byte(want), &a); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(p.get()), &b); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(a, b); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

// TestAnswers: what each call is answered with; a part of the reply.
func TestAnswers(t *testing.T) {
	t.Parallel()
	p := serve(t, server(t, grants(one(70012, ""), one(70013, "web"))))()
	const ns, std = "io.systemd.UserDatabase.", "org.varlink.service."
	for _, tt := range []struct{ call, want string }{
		{ask("GetUserRecord", `"userName":"idp-web",`+ours), `"uid":70013`},
		{ask("GetUserRecord", `"userName":"idp-web","uid":70013,`+ours), `"uid":70013`},
		{ask("GetUserRecord", `"userName":"idp-web","uid":70012,`+ours), ns + "ConflictingRecordFound"},
		{ask("GetUserRecord", `"userName":"root","uid":70012,`+ours), ns + "ConflictingRecordFound"},
		{ask("GetUserRecord", `"userName":"idp-web","uid":70099,`+ours), ns + "ConflictingRecordFound"},
		{ask("GetUserRecord", `"userName":"root","uid":0,`+ours), ns + "NoRecordFound"},
		{ask("GetUserRecord", `"uid":70014,`+ours), ns + "NoRecordFound"},
		{ask("GetGroupRecord", `"gid":70014,`+ours), ns + "NoRecordFound"},
		{ask("GetGroupRecord", `"gid":70013,"gidMin":70013,"gidMax":70013,"dispositionMask":["dynamic"],"fuzzyNames":["WEB"],`+ours), `"groupName":"idp-web"`},
		{ask("GetUserRecord", `"uid":70013,"uidMin":70014,`+ours), ns + "NonMatchingRecordFound"},
		{ask("GetUserRecord", `"uid":70013,"uidMax":70012,`+ours), ns + "NonMatchingRecordFound"},
		{ask("GetUserRecord", `"uid":70013,"dispositionMask":["regular"],`+ours), ns + "NonMatchingRecordFound"},
		{ask("GetUserRecord", `"uid":70013,"fuzzyNames":["zz"],`+ours), ns + "NonMatchingRecordFound"},
		{ask("GetUserRecord", `"uid":70012`), ns + "BadService"},
		{ask("GetUserRecord", `"uid":70012,"service":"io.systemd.Home"`), ns + "BadService"},
		{ask("GetGroupRecord", `"gid":70012,"service":""`), ns + "BadService"},
		{ask("GetMemberships", ``), ns + "BadService"},
		{ask("GetMemberships", `"userName":"idp-web",`+ours), ns + "NoRecordFound"},
		{ask("GetMemberships", `"groupName":5,`+ours), std + `InvalidParameter","parameters":{"parameter":"groupName"}`},
		{ask("GetMemberships", `"uid":5,`+ours), std + "InvalidParameter"},
		{ask("GetUserRecord", `"service":5`), std + `InvalidParameter","parameters":{"parameter":"service"}`},
		{ask("GetUserRecord", ours), std + "ExpectedMore"},
		{ask("GetUserRecord", `"uid":-1,`+ours), std + `InvalidParameter","parameters":{"parameter":"uid"}`},
		{ask("GetUserRecord", `"uid":4294967295,`+ours), std + "InvalidParameter"},
		{ask("GetUserRecord", `"uid":4294967296,`+ours), std + "InvalidParameter"},
		{ask("GetUserRecord", `"uid":1.5,`+ours), std + "InvalidParameter"},
		{ask("GetUserRecord", `"uid":"70012",`+ours), std + "InvalidParameter"},
		{ask("GetUserRecord", `"UID":70012,`+ours), std + "InvalidParameter"},
		{ask("GetUserRecord", `"uid":70012,"uidMin":"x",`+ours), std + "InvalidParameter"},
		{ask("GetUserRecord", `"uid":70012,"uidMax":"x",`+ours), std + "InvalidParameter"},
		{ask("GetUserRecord", `"userName":1,`+ours), std + "InvalidParameter"},
		{ask("GetUserRecord", `"uid":70012,"fuzzyNames":"x",`+ours), std + "InvalidParameter"},
		{ask("GetUserRecord", `"uid":70012,"dispositionMask":7,`+ours), std + "InvalidParameter"},
		{ask("GetUserRecord", `"gid":70012,`+ours), std + "InvalidParameter"},
		{ask("Nothing", ours), std + `MethodNotFound","parameters":{"method":"io.systemd.UserDatabase.Nothing"}`},
		{`{"method":"org.example.Get"}`, std + `InterfaceNotFound","parameters":{"interface":"org.example"}`},
		{`{"method":"x"}`, std + "InterfaceNotFound"},
		{`{"method":"org.varlink.service.GetInfo"}`, `"interfaces":["org.varlink.service","io.systemd.UserDatabase"]`},
		{`{"method":"org.varlink.service.Get"}`, std + "MethodNotFound"},
		{`{"method":"org.varlink.service.GetInterfaceDescription","parameters":{"interface":"io.systemd.UserDatabase"}}`, "method GetMemberships("},
		{`{"method":"org.varlink.service.GetInterfaceDescription","parameters":{"interface":"x"}}`, std + "InterfaceNotFound"},
		{`{"method":"org.varlink.service.GetInterfaceDescription","parameters":{"interface":1}}`, std + "InvalidParameter"},
	} {
		p.send(tt.call + "\x00")
		if got := p.get(); !strings.Contains(got, tt.want) || strings.Contains(got, `"error"`) != (strings.Contains(tt.want, ns) || strings.Contains(tt.want, std) && !strings.Contains(tt.want, "interfaces")) {
			t.Errorf("%s: %s; want %s", tt.call, got, tt.want)
		}
	}
}

func TestMore(t *testing.T) {
	t.Parallel()
	src := grants(one(70012, ""), one(70013, "web"), one(70014, ""))
	p := serve(t, server(t, src))()
	all := func(params string) []string {
		p.send(strings.TrimSuffix(ask("GetUserRecord", params), "}") + `,"more":true}` + "\x00")
		var names []string
		for {
			var m struct {
				Error      string
				Continues  bool
				Parameters struct{ Record struct{ UserName string } }
			}
			if err := json.Unmarshal([]byte(p.get()), &m); err != nil {
				t.Fatal(err)
			}
			if names = append(names, m.Error+m.Parameters.Record.UserName); !m.Continues {
				return names
			}
		}
	}
	for params, want := range map[string][]string{
		ours:                      {"idp-70012", "idp-web", "idp-70014"},
		`"uidMin":70013,` + ours:  {"idp-web", "idp-70014"},
		`"uidMin":70015,` + ours:  {"io.systemd.UserDatabase.NoRecordFound"},
		`"uid":70013,` + ours:     {"idp-web"},
		`"service":"io.idpool.x"`: {"io.systemd.UserDatabase.BadService"},
	} {
		if diff := cmp.Diff(want, all(params)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", params, diff)
		}
	}
	src.set(userdb.Grant{UID: 100000, Count: 1 << 24, Live: true})
	p.send(ask("GetUserRecord", `"uid":100001,`+ours) + "\x00") // waits for the names of now
	p.get()
	if n := len(all(ours)); n != 1<<16 {
		t.Errorf("an endless block is listed as %d records", n)
	}
}

func TestNothingKnown(t *testing.T) {
	t.Parallel()
	p := serve(t, server(t, &source{}))()
	for _, call := range []string{ask("GetUserRecord", `"uid":70012,`+ours), ask("GetGroupRecord", `"groupName":"idp-1",`+ours), `{"more":true,` + ask("GetUserRecord", ours)[1:]} {
		p.send(call + "\x00")
		if got := p.get(); !strings.Contains(got, "ServiceNotAvailable") {
			t.Errorf("%s: %s", call, got)
		}
	}
}

// TestNoCalls: what is no call ends its connection and no other.
func TestNoCalls(t *testing.T) {
	t.Parallel()
	dial := serve(t, server(t, grants(one(70012, ""))))
	other := dial()
	for _, text := range []string{
		"\x00", "x\x00", "null\x00", "[]\x00", "{}\x00", `{"method":""}` + "\x00", `{"method":5}` + "\x00", `{"method":"a.B","parameters":[]}` + "\x00",
		`{"method":"a.B","more":1}` + "\x00", `{"method":"a.B"} {}` + "\x00", "\xff\x00", "GET / HTTP/1.1\r\n\r\n\x00",
		strings.Repeat("[", userdb.MaxMessage-1) + "\x00", strings.Repeat(" ", userdb.MaxMessage+4096),
	} {
		p := dial()
		_, _ = p.conn.Write([]byte(text)) // the server may be gone before all is written
		if !p.closed() {
			t.Errorf("%.40q is answered", text)
		}
	}
	long := ask("GetUserRecord", `"uid":70012,`+ours)
	other.send(long + strings.Repeat(" ", userdb.MaxMessage-len(long)-1) + "\x00") // the longest
	if got := other.get(); !strings.Contains(got, "idp-70012") {
		t.Errorf("the other connection: %s", got)
	}
	other.send(`{"oneway":true,` + long[1:] + "\x00" + ask("Nothing", ours) + "\x00")
	if got := other.get(); !strings.Contains(got, "MethodNotFound") {
		t.Errorf("after a call that wants no answer: %s", got)
	}
}

// TestCrowd: the longest silent connection makes room, and silence has an end.
func TestCrowd(t *testing.T) {
	t.Parallel()
	s := server(t, grants(one(70012, "")))
	s.Bounds(2, limit)
	dial := serve(t, s)
	call := ask("GetUserRecord", `"uid":70012,`+ours) + "\x00"
	first, second := dial(), dial()
	for _, p := range []*peer{first, second, first} {
		p.send(call)
		p.get()
	}
	third := dial()
	third.send(call)
	third.get()
	if !second.closed() {
		t.Error("the longest silent connection stays")
	}
	first.send(call)
	first.get()

	s = server(t, grants())
	s.Bounds(10, time.Millisecond)
	p := serve(t, s)()
	if !p.closed() {
		t.Error("a silent connection stays")
	}
}

// FuzzCall sends any message: nothing panics, and what is a call is answered.
func FuzzCall(f *testing.F) {
	for _, text := range []string{"", "{}", "null", ask("GetUserRecord", `"uid":70012,`+ours), ask("GetGroupRecord", `"groupName":"idp-web","gid":null,"gidMax":1,`+ours), ask("GetMemberships", ours),
		`{"method":"org.varlink.service.GetInfo"}`, `{"method":".","oneway":true,"more":true,"parameters":null}`, `{"more":true,` + ask("GetUserRecord", `"fuzzyNames":["a"],"dispositionMask":[],`+ours)[1:]} {
		f.Add([]byte(text))
	}
	s := server(f, grants(one(70012, ""), one(70013, "web")))
	f.Fuzz(func(t *testing.T, data []byte) {
		replies, called, err := s.Answer(data)
		if called && (err != nil || len(replies) == 0) || !called && err == nil {
			t.Errorf("%q: %q %v", data, replies, err)
		}
	})
}
