package userdb_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/idpool/idpool/agent/userdb"
)

func hostFiles(t testing.TB, passwd, group string) []string {
	t.Helper()
	dir := t.TempDir()
	files := []string{filepath.Join(dir, "passwd"), filepath.Join(dir, "group")}
	for i, text := range []string{passwd, group} {
		if err := os.WriteFile(files[i], []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

func one(uid uint32, holder string) userdb.Grant {
	return userdb.Grant{UID: uid, Count: 1, Pool: "jobs", Holder: holder, Live: true}
}

// TestNames: what each uid is called, and that every name leads back to its uid.
func TestNames(t *testing.T) {
	t.Parallel()
	released := one(70021, "gone")
	released.Live = false
	former := one(70031, "web")
	former.Live = false
	block := userdb.Grant{UID: 80000, Count: 4, Holder: "block", Live: true}
	const long = "abcdefghijklmnopqrstuvwxyz0" // one letter more than fits
	s, err := userdb.Names("idp-", []userdb.Grant{
		one(70013, "web"), one(70012, ""), one(70014, "twice"), one(70015, "twice"), one(70016, "unix:0"), one(70017, "70012"), one(70018, "Upper"),
		one(70019, "../etc"), one(70020, long), one(70022, long+"x"), one(70023, "taken"), one(70024, "in-group"), released, block, former,
		one(70025, "at-home"), one(70026, ""), one(70027, ""), one(80002, "within-block"), one(0, ""), one(65534, ""), one(1<<32-1, ""), {UID: 5},
		one(70028, "new\nline"), one(70029, "a b"), one(70030, "-x"),
	}, hostFiles(t, "root:x:0:0::/:/bin/sh\nbroken\nidp-taken:x:1:1::/:\nuser:x:70025:1::/:\nidp-70026:x:2:2::/:\n", "idp-in-group:x:3:\ng:x:70027:\n")...)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for r := range s.All() {
		got = append(got, r.Name)
		if back, ok := s.ByName(r.Name); !ok || back != r {
			t.Errorf("%s leads to %+v %v, is of %+v", r.Name, back, ok, r)
		}
		if same, ok := s.ByUID(r.UID); !ok || same != r {
			t.Errorf("%d is %+v %v, was %+v", r.UID, same, ok, r)
		}
	}
	want := strings.Fields("idp-70012 idp-web idp-70014 idp-70015 idp-70016 idp-70017 idp-70018 idp-70019 idp-" + long +
		" idp-70021 idp-70022 idp-70023 idp-70024 idp-70028 idp-70029 idp--x former idp-80000 idp-80001 idp-80002 idp-80003")
	want[len(want)-6], want[len(want)-5] = "idp-70030", "idp-70031"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, name := range []string{"", "idp-", "idp-70013", "idp-070012", "idp-+70012", "idp-99999999999", "idp-taken", "idp-gone", "web", "70012", "idp-0", "idp-79999", "idp-80004", "idp-twice"} {
		if r, ok := s.ByName(name); ok {
			t.Errorf("%q is %+v", name, r)
		}
	}
	for _, uid := range []uint32{0, 5, 65534, 1<<32 - 1, 70025, 70026, 70027, 79999, 80004} {
		if r, ok := s.ByUID(uid); ok {
			t.Errorf("%d is %+v", uid, r)
		}
	}
}

func TestPrefix(t *testing.T) {
	t.Parallel()
	for prefix, want := range map[string]bool{"idp-": true, "_x": true, "": false, "1a": false, "-": false, "Idp": false, "a b": false, "abcdefghijklmnop": true, "abcdefghijklmnopq": false, "a\n": false} {
		if got := userdb.ValidPrefix(prefix); got != want {
			t.Errorf("%q: %v", prefix, got)
		}
	}
}
