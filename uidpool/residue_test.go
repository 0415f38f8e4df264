package uidpool

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/leases"
)

const keyUsers = `    0:    10 9/9 4/1000000 61/25000000
70001:     3 3/3 3/200 63/20000
70007:     2 2/2 2/200 30/20000
70006:     2 2/2 2/200 26/20000
70008:     2 2/2 2/200 31/20000
70009:     1 1/1 1/200 30/20000
70010:     2 2/2
garbage
`

const sysvShm = `       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      ctime                   rss                  swap
    118785         32  1600                   100  7000  7000      0 70002 70002 70002 70002          0          0 1700000000                  4096                     0
    118786         33  1600                   100  7000  7000      0     0     0 70003 70003          0          0 1700000000                  4096                     0
`

const sysvMsg = `       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid      stime      rtime      ctime
         1          5   600          0          0     0     0 70004 70004 70004 70004          0          0 1700000000
       oops
`

func leftover(id, count uint32) leases.Leftover {
	return leases.Leftover{Ref: leases.Ref{Space: cluster.SpaceUID, ID: id}, Count: count}
}

func found() *Residue {
	r := newResidue()
	r.readKeyUsers(keyUsers)
	r.readSysV("shm", sysvShm)
	r.readNames("/etc/passwd", "root:x:0:0::/:/bin/sh\njoe:x:70005:100::/:\nbroken\n", 2)
	r.readNames("/etc/subuid", "70006:100000:65536\nann:100000:65536\n", 0)
	return r
}

func TestResidueOf(t *testing.T) {
	r := found()
	for _, c := range []struct {
		id, count uint32
		want      string
	}{
		{70000, 1, ""},
		{70001, 1, "keys in the kernel (/proc/key-users)"},
		{70002, 1, "System V shm 32"},
		{70003, 1, "System V shm 33 that it created"},
		{70006, 1, `an entry in /etc/subuid ("70006")`},
		{70007, 1, ""},
		{70008, 1, "keys in the kernel (/proc/key-users)"},
		{70009, 1, "keys in the kernel (/proc/key-users)"},
		{70010, 1, "keys in the kernel (/proc/key-users)"},
		{70005, 1, `an entry in /etc/passwd ("joe")`},
		{70000, 2, "keys in the kernel (/proc/key-users) of 70001"},
		{100000, 1, ""},
		{4294967294, 2, ""},
	} {
		if got := r.of(leftover(c.id, c.count)); got != c.want {
			t.Errorf("%d*%d: %q; want %q", c.id, c.count, got, c.want)
		}
	}
	l := leftover(70007, 1)
	if l.ClearsKeyring = true; r.of(l) != "user keyrings of 70007" {
		t.Errorf("empty keyrings, to a pool that clears them: %q", r.of(l))
	}
	l = leftover(70001, 1)
	if l.ClearsKeyring = true; r.of(l) != "keys in the kernel (/proc/key-users)" {
		t.Errorf("keys, to a pool that clears them: %q", r.of(l))
	}
}

// TestResidueDoubt: what cannot be read speaks against every uid.
func TestResidueDoubt(t *testing.T) {
	r := newResidue()
	r.readSysV("msg", sysvMsg)
	if got := r.of(leftover(1, 1)); !strings.HasPrefix(got, "cannot tell: /proc/sysvipc/msg") {
		t.Errorf("another uid: %q", got)
	}
	if got := r.of(leftover(70004, 1)); !strings.Contains(got, "System V msg 5") {
		t.Errorf("the line before: %q", got)
	}
}

// recorder is a cleaner that only notes.
type recorder struct{ did []string }

func (c *recorder) RemoveIPC(o IPCObject) error {
	c.did = append(c.did, o.String())
	return nil
}
func (c *recorder) RemoveShared(path string) error {
	c.did = append(c.did, path)
	return errors.New("no")
}
func (c *recorder) ClearKeyring(uid UID) error {
	c.did = append(c.did, "keys "+uid.String())
	return nil
}

// TestResidueClean: what the policy names of the uids asked about, and nothing else.
func TestResidueClean(t *testing.T) {
	r := found()
	r.Shared[70002] = []string{"/dev/shm/x"}
	for _, c := range []struct {
		id, count uint32
		ipc, keys bool
		want      []string
		did       bool
	}{
		{70000, 16, false, false, nil, false},
		{70000, 7, true, false, []string{"shm 32", "shm 33", "/dev/shm/x"}, true},
		{70000, 8, false, true, []string{"keys 70001", "keys 70006", "keys 70007"}, true},
		{70002, 1, true, true, []string{"shm 32", "/dev/shm/x"}, true},
		{70011, 1, true, true, nil, false},
	} {
		l := leftover(c.id, c.count)
		l.RemoveIPC, l.ClearKeyring = c.ipc, c.keys
		by := &recorder{}
		if did := r.clean(l, by); did != c.did || !slices.Equal(by.did, c.want) {
			t.Errorf("%+v: %v %q", c, did, by.did)
		}
	}
}

func FuzzResidue(f *testing.F) {
	f.Add(sysvShm, keyUsers, "joe:x:70005:")
	f.Fuzz(func(_ *testing.T, ipc, keys, names string) {
		r := newResidue()
		r.readSysV("shm", ipc)
		r.readKeyUsers(keys)
		r.readNames("/etc/group", names, 2)
		_ = r.of(leftover(1, 1<<20))
	})
}
