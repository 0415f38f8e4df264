package agent_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/idpool/idpool/api"
)

// leaveBehind makes one thing that outlives its process, and says how it went.
func leaveBehind(what string) int {
	var err error
	switch what {
	case "shm":
		_, err = unix.SysvShmGet(unix.IPC_PRIVATE, 100, unix.IPC_CREAT|0o600)
	case "key":
		_, err = unix.AddKey("user", "idpool-test", []byte("hunter2"), unix.KEY_SPEC_USER_KEYRING)
	case "file":
		err = os.WriteFile("/dev/shm/idpool-test-"+strconv.Itoa(os.Getuid()), nil, 0o600)
	}
	fmt.Println(err)
	return 0
}

// TestResidue: what a process left behind keeps its uid in quarantine, which says
// so, until it is gone: removed by a person, or by the pool's policy.
func TestResidue(t *testing.T) {
	needRoot(t)
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
		"shm":  {"System V shm ", api.PoolPolicy{RemoveIPC: &yes}, api.PoolPolicy{RemoveIPC: &no}, nil},
		"file": {"/dev/shm/idpool-test-", api.PoolPolicy{RemoveIPC: &yes}, api.PoolPolicy{RemoveIPC: &no}, func(uid uint32) { _ = os.Remove(fmt.Sprint("/dev/shm/idpool-test-", uid)) }},
		"key":  {"keys in the kernel", api.PoolPolicy{ClearKeyring: &yes}, api.PoolPolicy{ClearKeyring: &no}, nil},
	} {
		t.Run(what, func(t *testing.T) {
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
			n.until(t, uid, api.StateFree)
			policy(c.off)
		})
	}
}
