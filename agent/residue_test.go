package agent_test

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/idpool/idpool/agent"
	"github.com/idpool/idpool/api"
)

// leaveBehind makes one thing that outlives its process, and says how it went.
func leaveBehind(what string) int {
	var err error
	switch what {
	case "shm":
		_, err = unix.SysvShmGet(unix.IPC_PRIVATE, 100, unix.IPC_CREAT|0o600)
	case "keyring": // as login, su and sudo do by pam_keyinit
		_, err = unix.KeyctlGetKeyringID(unix.KEY_SPEC_USER_KEYRING, true)
	case "persistent": // as Kerberos does
		var ring int
		if ring, err = unix.KeyctlInt(22, os.Getuid(), unix.KEY_SPEC_PROCESS_KEYRING, 0, 0); err == nil {
			_, err = unix.AddKey("user", "idpool-test", []byte("hunter2"), ring)
		}
	case "key":
		_, err = unix.AddKey("user", "idpool-test", []byte("hunter2"), unix.KEY_SPEC_USER_KEYRING)
	case "file":
		err = os.WriteFile("/dev/shm/idpool-test-"+strconv.Itoa(os.Getuid()), nil, 0o600)
	}
	fmt.Println(err)
	return 0
}

// sweep removes what an earlier run left of the uids of a test.
func sweep(t *testing.T, first, last uint32) {
	t.Helper()
	for uid := first; uid <= last; uid++ {
		_ = os.Remove(fmt.Sprint("/dev/shm/idpool-test-", uid))
		exe, err := executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(exe, agent.HelperCommand)
		cmd.Env, cmd.Dir = []string{}, "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Logf("sweep uid %d: %v: %s", uid, err, out)
		}
	}
	eventually(t, "the keys of an earlier run are gone", func() (bool, any) {
		text, err := os.ReadFile("/proc/key-users")
		for uid := first; uid <= last; uid++ {
			if strings.Contains(string(text), fmt.Sprint(uid, ":")) {
				return false, string(text)
			}
		}
		return true, err
	})
}

// TestResidue: what a process left behind keeps its uid in quarantine, which says
// so, until it is gone: removed by a person, or by the pool's policy.
func TestResidue(t *testing.T) {
	needRoot(t)
	sweep(t, 3900050000, 3900050007)
	n := single(t, "3900050000-3900050007")
	yes, no := true, false
	policy := func(p api.PoolPolicy) {
		t.Helper()
		if _, err := n.Pools().Patch(t.Context(), "p", api.PoolPatch{PoolPolicy: p}, api.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for what, c := range map[string]struct {
		found    string
		on, off  api.PoolPolicy
		byPerson func(uid uint32)
	}{
		"shm":        {"System V shm ", api.PoolPolicy{RemoveIPC: &yes}, api.PoolPolicy{RemoveIPC: &no}, nil},
		"file":       {"/dev/shm/idpool-test-", api.PoolPolicy{RemoveIPC: &yes}, api.PoolPolicy{RemoveIPC: &no}, func(uid uint32) { _ = os.Remove(fmt.Sprint("/dev/shm/idpool-test-", uid)) }},
		"key":        {"keys in the kernel", api.PoolPolicy{ClearKeyring: &yes}, api.PoolPolicy{ClearKeyring: &no}, nil},
		"persistent": {"keys in the kernel", api.PoolPolicy{ClearKeyring: &yes}, api.PoolPolicy{ClearKeyring: &no}, nil},
	} {
		t.Run(what, func(t *testing.T) {
			policy(c.off)
			leave := func() uint32 {
				g := n.request(t, api.UIDRequest{})
				uid := g.Items[0].UID
				h := spawn(t, "leave", uid, uid, nil, what)
				if said := h.line(t); said != "<nil>" {
					t.Skipf("cannot leave a %s: %s", what, said)
				}
				h.end()
				if _, err := n.UIDs().Release(t.Context(), uid, g.Token, ""); err != nil {
					t.Fatal(err)
				}
				var u api.UID
				eventually(t, "the residue is the reason", func() (bool, any) {
					u = n.show(t, uid)
					return u.ReasonCode == "residue", u
				})
				if u.State != api.StateQuarantined || !strings.Contains(u.Reason, "left behind on n1: ") || !strings.Contains(u.Reason, c.found) || len(u.WaitsFor) != 1 {
					t.Errorf("%+v", u)
				}
				return uid
			}
			uid := leave()
			if c.byPerson != nil {
				c.byPerson(uid)
				n.until(t, uid, api.StateFree)
				uid = leave()
			}
			policy(c.on)
			t.Cleanup(func() { policy(c.off) })
			n.until(t, uid, api.StateFree)
		})
	}
}

// TestNoResidue: a process that merely ran under its uid left nothing, nor did one
// whose user keyrings were made for it and hold nothing; a pool that clears keyrings
// has those taken away, too.
func TestNoResidue(t *testing.T) {
	needRoot(t)
	sweep(t, 3900050008, 3900050015)
	n := single(t, "3900050008-3900050015")
	use := func(run func(uid uint32)) {
		t.Helper()
		g := n.request(t, api.UIDRequest{})
		uid := g.Items[0].UID
		run(uid)
		if _, err := n.UIDs().Release(t.Context(), uid, g.Token, ""); err != nil {
			t.Fatal(err)
		}
		n.until(t, uid, api.StateFree)
	}
	setpriv, err := exec.LookPath("setpriv")
	if err == nil {
		use(func(uid uint32) {
			name := fmt.Sprint(uid)
			if out, err := exec.Command(setpriv, "--reuid", name, "--regid", name, "--clear-groups", "true").CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		})
	}
	look := func(uid uint32) {
		h := spawn(t, "leave", uid, uid, nil, "keyring")
		if said := h.line(t); said != "<nil>" {
			t.Skipf("no keyrings: %s", said)
		}
		h.end()
	}
	keys := func() string {
		text, err := os.ReadFile("/proc/key-users")
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	var touched uint32
	use(func(uid uint32) { look(uid); touched = uid })
	if !strings.Contains(keys(), fmt.Sprint(touched, ":")) {
		t.Error("its user keyrings are gone by themselves: this test shows nothing")
	}
	yes := true
	if _, err := n.Pools().Patch(t.Context(), "p", api.PoolPatch{PoolPolicy: api.PoolPolicy{ClearKeyring: &yes}}, api.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	use(func(uid uint32) { look(uid); touched = uid })
	if strings.Contains(keys(), fmt.Sprint(touched, ":")) {
		t.Errorf("the keyrings of %d outlived its way to free:\n%s", touched, keys())
	}
}
