package uidpool

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/problem"
)

// credentialRow is one row of the table of task states: who has the uid, and
// whether getpriority sees it. The exact scan must see every one.
type credentialRow struct {
	name  string
	quick bool
	// only: the uid is no uid of the leader, so that Who must name a thread.
	only  bool
	state string
	start func(t *testing.T, u uint32) *helper
}

func process(uids func(u uint32) [4]uint32, more ...func(*helperTask)) func(*testing.T, uint32) *helper {
	return ofKind("process", uids, more...)
}

func ofKind(kind string, uids func(u uint32) [4]uint32, more ...func(*helperTask)) func(*testing.T, uint32) *helper {
	return func(t *testing.T, u uint32) *helper {
		task := helperTask{Kind: kind, UIDs: uids(u)}
		for _, f := range more {
			f(&task)
		}
		return startHelper(t, task)
	}
}

func allFour(u uint32) [4]uint32      { return [4]uint32{u, u, u, u} }
func realOnly(u uint32) [4]uint32     { return [4]uint32{u, 0, 0, 0} }
func effective(u uint32) [4]uint32    { return [4]uint32{0, u, 0, u} }
func savedOnly(u uint32) [4]uint32    { return [4]uint32{0, 0, u, 0} }
func savedDropped(u uint32) [4]uint32 { return [4]uint32{other, other, u, other} }
func filesystem(u uint32) [4]uint32   { return [4]uint32{0, 0, 0, u} }

// other is a uid that none of the rows asks about.
const other = 3_999_999_999

func credentialRows() []credentialRow {
	return []credentialRow{
		{name: "all four", quick: true, start: process(allFour)},
		{name: "non-dumpable", quick: true, start: process(allFour, func(h *helperTask) { h.NonDumpable = true })},
		{name: "zombie", quick: true, state: "Z (zombie)", start: process(allFour, func(h *helperTask) { h.Exit = true })},
		{name: "child pid namespace", quick: true, start: process(allFour, func(h *helperTask) { h.Clone = unix.CLONE_NEWPID })},
		{name: "child user namespace", quick: true, start: inUserNamespace},
		{name: "real only", quick: true, start: process(realOnly)},
		{name: "effective only", start: process(effective)},
		{name: "saved only", start: process(savedOnly)},
		{name: "saved only, dropped", start: process(savedDropped)},
		{name: "filesystem only", start: process(filesystem)},
		{name: "one thread", quick: true, only: true, start: ofKind("thread", allFour)},
		{name: "one thread, effective", only: true, start: ofKind("thread", effective)},
		{name: "one thread, filesystem", only: true, start: ofKind("thread", filesystem)},
		{name: "leader exited", quick: true, only: true, start: ofKind("leader", allFour)},
		{name: "setuid program", start: setuidProgram},
	}
}

func inUserNamespace(t *testing.T, u uint32) *helper {
	if text, err := os.ReadFile("/proc/sys/user/max_user_namespaces"); err != nil || strings.TrimSpace(string(text)) == "0" {
		t.Skip("this kernel makes no user namespaces")
	}
	return startHelper(t, helperTask{Kind: "block"}, func(cmd *exec.Cmd) {
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(u), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}},
			Credential:  &syscall.Credential{NoSetGroups: true},
		}
	})
}

// setuidProgram runs a copy of cat that u owns, with the setuid bit, as
// another user.
func setuidProgram(t *testing.T, u uint32) *helper {
	cat, err := exec.LookPath("cat")
	if err != nil {
		t.Skip("needs the program cat")
	}
	text, err := os.ReadFile(cat)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "setuid")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "cat")
	var fs unix.Statfs_t
	steps := []error{
		os.Chmod(dir, 0o755), os.WriteFile(path, text, 0o755), os.Chown(path, int(u), 0),
		os.Chmod(path, 0o755|os.ModeSetuid), unix.Statfs(dir, &fs),
	}
	if err := errors.Join(steps...); err != nil {
		t.Fatal(err)
	}
	if fs.Flags&(unix.ST_NOSUID|unix.ST_NOEXEC) != 0 {
		t.Skip("the temporary folder is mounted nosuid or noexec")
	}
	cmd := exec.Command(path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: other, Gid: other}}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h := &helper{cmd: cmd, stdin: stdin}
	t.Cleanup(h.end)
	return h
}

func TestCredentialStates(t *testing.T) {
	needRoot(t)
	r := needView(t)
	for i, row := range credentialRows() {
		t.Run(row.name, func(t *testing.T) {
			u := 3_900_000_000 + uint32(i)
			h := row.start(t, u)
			held, err := Quick(UID(u))
			if err != nil || held != row.quick {
				t.Errorf("Quick = %v, %v; want %v", held, err, row.quick)
			}
			s, err := r.Scan(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			who := s.Who[u]
			if !s.Used.Contains(u) || len(who) != 1 {
				t.Fatalf("exact scan: used %v by %v; want one task", s.Used.Contains(u), who)
			}
			if got := who[0].TID != 0; got != row.only {
				t.Errorf("scan names %v; want a thread: %v", who[0], row.only)
			}
			if row.state != "" && who[0].State != row.state {
				t.Errorf("state %q; want %q", who[0].State, row.state)
			}
			if got := s.Usage(UID(u)); !got.InUse || len(got.By) != 1 {
				t.Errorf("snapshot's usage: %+v", got)
			}
			usage, err := Probe(UID(u))
			if err != nil || !usage.InUse || len(usage.By) != 1 {
				t.Errorf("Probe = %+v, %v", usage, err)
			}
			h.end()
			waitFree(t, r, UID(u))
		})
	}
}

// waitFree polls until nobody has u: what a helper leaves is reaped by others.
func waitFree(t *testing.T, r *Reader, u UID) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		usage, err := r.Probe(t.Context(), u)
		if err != nil {
			t.Fatal(err)
		}
		if !usage.InUse {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("uid %d is still used by %v", u, usage.By)
		}
	}
}

func TestRefusedUIDs(t *testing.T) {
	for _, uid := range []UID{0, math.MaxUint32} {
		usage, err := Probe(uid)
		if !usage.InUse || !errors.Is(err, problem.ErrInvalid) && !errors.Is(err, problem.ErrNoProof) {
			t.Errorf("Probe(%d) = %+v, %v", uid, usage, err)
		}
		if held, err := Quick(uid); !held || !errors.Is(err, problem.ErrInvalid) {
			t.Errorf("Quick(%d) = %v, %v", uid, held, err)
		}
		if held, err := InUse(uid); !held || err == nil {
			t.Errorf("InUse(%d) = %v, %v", uid, held, err)
		}
	}
}

func TestMembers(t *testing.T) {
	needRoot(t)
	r := needView(t)
	const u, e = 3_900_001_000, 3_900_001_001
	startHelper(t, helperTask{Kind: "process", UIDs: allFour(u)})
	startHelper(t, helperTask{Kind: "process", UIDs: effective(e)})
	small := idset.New(0, u, e, 3_900_001_002, math.MaxUint32)
	large := small.Add(idset.Of(idset.Range{Lower: 3_910_000_000, Higher: 3_919_999_999}))
	for _, set := range []idset.Set{small, large, idset.New(3_900_001_002), {}} {
		got, err := Scan(set)
		if err != nil {
			t.Fatal(err)
		}
		want := set.Intersect(idset.New(0, u, e))
		if got.Count() != want.Count() || got.Remove(want).Count() != 0 {
			t.Errorf("Scan of %d ids = %d of them; want %d", set.Count(), got.Count(), want.Count())
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	many := &Reader{Root: "/nowhere"}
	if got, err := many.Members(ctx, small); err == nil || got.Count() != small.Count() {
		t.Errorf("without a procfs: %d members in use, %v; want all and an error", got.Count(), err)
	}
	if _, err := r.Scan(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestUsageJSON pins the names that programs read.
func TestUsageJSON(t *testing.T) {
	usage := Usage{UID: 61003, InUse: true, By: []Process{
		{PID: 7, PPID: 1, State: "S (sleeping)", Command: "cat", UIDs: [4]uint32{1, 2, 3, 4}}, {PID: 8, TID: 9}}}
	got, err := json.Marshal(usage)
	want := `{"uid":61003,"in_use":true,"by":[{"pid":7,"ppid":1,"state":"S (sleeping)","command":"cat","uids":[1,2,3,4]},` +
		`{"pid":8,"ppid":0,"tid":9,"state":"","command":"","uids":[0,0,0,0]}]}`
	if err != nil || string(got) != want {
		t.Errorf("%s, %v", got, err)
	}
	got, err = json.Marshal((&Snapshot{}).Usage(61003))
	if want := `{"uid":61003,"in_use":false,"by":[]}`; err != nil || string(got) != want {
		t.Errorf("%s, %v", got, err)
	}
	if text := usage.By[1].String(); text != "thread 9 of pid 8 `` (, child of 0)" {
		t.Error(text)
	}
}

// TestConcurrentScans: one reader serves many.
func TestConcurrentScans(t *testing.T) {
	r := needView(t)
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			s, err := r.Scan(t.Context())
			if err != nil || !s.Used.Contains(0) {
				t.Errorf("%+v, %v", s, err)
			}
		})
	}
	wait.Wait()
}
