package uidpool_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/uidpool"
)

func TestCheckAccepts(t *testing.T) {
	for _, definition := range []string{"", "1", "1-65533", "65536-4294967294", "5,5", "10-12,10-11", "1000-2000,1500"} {
		if err := uidpool.Check(poolOf(t, definition)); err != nil {
			t.Errorf("%q: %v", definition, err)
		}
	}
}

func TestCheckRefuses(t *testing.T) {
	for definition, want := range map[string]string{
		"9-3": `uid pool refused: element 1, "9-3", has its lower bound, 9, above the higher, 3
  instead of element 1: 3-9   (7 uids)`,
		"9-0": `uid pool refused: element 1, "9-0", has its lower bound, 9, above the higher, 0
  instead of element 1: 1-9   (9 uids)
  what can never be granted can be left out: --exclude 0`,
		"0": `uid pool refused: element 1, "0", contains 0 (root)
  instead of element 1: 65536   (1 uid)`,
		"65534": `uid pool refused: element 1, "65534", contains 65534 (nobody)
  instead of element 1: 65536   (1 uid)`,
		"65535": `uid pool refused: element 1, "65535", contains 65535 (the 16-bit -1)
  instead of element 1: 65536   (1 uid)`,
		"4294967295": `uid pool refused: element 1, "4294967295", contains 4294967295 (the kernel's "no change")
  instead of element 1: 65536   (1 uid)`,
		"61000-61100,61110,61200-70000": `uid pool refused: element 3, "61200-70000", overlaps 61184-65519 (systemd DynamicUser) and contains 65534 (nobody) and 65535 (the 16-bit -1)
  ok: 61000-61100, 61110
  instead of element 3: 65536-74336   (8801 uids)
  overlap alone is a warning; what can never be granted can be left out: --exclude 65534-65535`,
		"0-4294967295": `uid pool refused: element 1, "0-4294967295", overlaps 60001-60513 (systemd-homed), 61184-65519 (systemd DynamicUser), 524288-1879048191 (systemd containers) and contains 0 (root), 65534 (nobody), 65535 (the 16-bit -1) and 4294967295 (the kernel's "no change")
  instead of element 1: 1-65533, 65536-4294967294   (4294967292 uids)
  overlap alone is a warning; what can never be granted can be left out: --exclude 0,65534-65535,4294967295`,
	} {
		err := uidpool.Check(poolOf(t, definition))
		var e *problem.Error
		if !errors.As(err, &e) || !errors.Is(err, problem.ErrInvalid) {
			t.Errorf("%q: got %v", definition, err)
			continue
		}
		if diff := cmp.Diff(want, e.Text()); diff != "" {
			t.Errorf("%q (-want +got):\n%s", definition, diff)
		}
	}
}

// hostWith makes a host whose files are the given ones.
func hostWith(t *testing.T, files map[string]string) uidpool.HostFiles {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return uidpool.HostFiles{Root: root}
}

func usualHost(t *testing.T) uidpool.HostFiles {
	return hostWith(t, map[string]string{
		"etc/login.defs": `# UID_MIN 5
UID_MIN			 1000
UID_MAX			60000
#SYS_UID_MIN 101
SYS_UID_MAX 999
SUB_UID_MIN 0x186a0
SUB_UID_MAX 600100000
UID_MAX_NONSENSE x
MOTD_FILE
`,
		"etc/passwd": `root:x:0:0:root:/root:/bin/bash
alice:x:1000:1000::/home/alice:/bin/sh
toor:x:0:0::/root:/bin/sh
+::::::
backup:x:70001:70001::/:/bin/false
broken
big:x:99999999999:1::/:/bin/false
`,
		"etc/subuid": "alice:100000:65536\n# a remark\nbob:165536:65536\nodd:1:0\nlast:4294967290:100\nbad:x:1\n",
	})
}

func TestWarnings(t *testing.T) {
	host := usualHost(t)
	for definition, want := range map[string][]string{
		"":            nil,
		"65536-70000": nil,
		"70000-70002": {"contains 1 account of /etc/passwd: 70001 (backup)"},
		"60400-61200": {
			"overlaps 60001-60513 (systemd-homed) in 60400-60513",
			"overlaps 61184-65519 (systemd DynamicUser) in 61184-61200",
		},
		"999-1001,60000": {
			"overlaps 1000-60000 (UID_MIN to UID_MAX of /etc/login.defs) in 1000-1001, 60000",
			"contains 1 account of /etc/passwd: 1000 (alice)",
		},
		"165530-165540,524280-524290": {
			"overlaps 524288-1879048191 (systemd containers) in 524288-524290",
			"overlaps 100000-600100000 (SUB_UID_MIN to SUB_UID_MAX of /etc/login.defs) in 165530-165540, 524280-524290",
			"overlaps 100000-165535 (subordinate uids of alice in /etc/subuid) in 165530-165535",
			"overlaps 165536-231071 (subordinate uids of bob in /etc/subuid) in 165536-165540",
		},
		"4294967294": {"overlaps 4294967290-4294967295 (subordinate uids of last in /etc/subuid) in 4294967294"},
	} {
		if diff := cmp.Diff(want, uidpool.Warnings(poolOf(t, definition), host)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", definition, diff)
		}
	}
}

func TestWarningsOfOddHosts(t *testing.T) {
	pool := poolOf(t, "70000-79999")
	if got := uidpool.Warnings(pool, uidpool.HostFiles{Root: t.TempDir()}); got != nil {
		t.Errorf("no files: %q", got)
	}
	// A folder in the place of a file cannot be read, not even by root.
	host := hostWith(t, map[string]string{"etc/passwd/x": "", "etc/subuid": strings.Repeat("a:70000:1\n", 3)})
	got := uidpool.Warnings(pool, host)
	if len(got) != 2 || !strings.Contains(got[0], "subordinate uids of a") || !strings.HasPrefix(got[1], "overlap with /etc/passwd not checked: ") {
		t.Errorf("got %q", got)
	}
	var accounts, subs strings.Builder
	for i := range 20 {
		n := string(rune('a' + i))
		accounts.WriteString(n + ":x:700" + string(rune('0'+i/10)) + string(rune('0'+i%10)) + ":1::/:\n")
		subs.WriteString(n + ":710" + string(rune('0'+i/10)) + string(rune('0'+i%10)) + ":1\n")
	}
	got = uidpool.Warnings(pool, hostWith(t, map[string]string{"etc/passwd": accounts.String(), "etc/subuid": subs.String()}))
	want := "contains 20 accounts of /etc/passwd: 70000 (a), 70001 (b), 70002 (c), 70003 (d), 70004 (e) and 15 more"
	if len(got) != 7 || got[0] != want || got[6] != "overlaps 15 more ranges of /etc/subuid" {
		t.Errorf("got %q", got)
	}
}
