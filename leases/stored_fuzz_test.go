package leases

import (
	"errors"
	"strings"
	"testing"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/problem"
)

// FuzzStored puts anything at any key of a mirror and looks at all of it in every
// way that the loops and the interface do: nothing panics, a claim's id is taken
// whatever it says, what cannot be read is listed, and all is gone when the key is.
func FuzzStored(f *testing.F) {
	w := newWorld(f)
	keys := w.keys
	claim := onNodes(Quarantined, "n1", "n2")
	seeds := map[string]any{
		"meta": cluster.Meta{V: 1, Epoch: "0b5b0ea6-59c4-4b36-9d0c-3a8cbb5f1f6f", Number: 1, State: "normal"}, "members": Members{V: 1, By: "n1"},
		"nodes/n1": Node{V: 1, State: nodeFenced, Role: RoleNode, Machine: "m", Boot: "b"}, "alive/n1": Alive{V: 1, Nonce: "n", Counter: 1, Machine: "m", Secret: "s"},
		"proofs/n1":    Proof{V: 1, Epoch: "e", Boot: "b", Machine: "m", Revision: 3, InUse: map[cluster.Space]idset.Set{"uid": idset.New(1, 9)}},
		"pools/uid/p":  Pool{V: 1, Ranges: idset.New(0, 4294967295), Policy: DefaultPolicy()},
		"pools/vlan/v": Pool{V: 1, Ranges: idset.New(1, 4094), Policy: VLANPolicy()}, "pools/index": map[string]any{"v": 1, "w": "x"},
		"claims/uid/0000000016": claim, "claims/vlan/v/0000000100": onNodes(Locked), "claims/uid@n1/4294967295": onNodes(Idle, "n1"), "locks/uid/0000000016": "t",
		"grants/c/key:k": Record{V: 1, Token: "t", Caller: "c", Key: "k", IDs: []Ref{uid(16)}, Ended: true}, "locks/reaper": "n1", "services/s": "x", "locks/service/s": "x",
	}
	for key, v := range seeds {
		f.Add(key, []byte(cluster.Encode(v)), int64(7))
	}
	f.Add("claims/uid/4294967295", []byte(`{"v":1,"state":"used","token":"t","count":4294967295}`), int64(0))
	f.Add("nodes/\n..", []byte("\xff"), int64(-1))
	f.Fuzz(func(t *testing.T, below string, value []byte, lease int64) {
		a := New(Options{Client: w.client, Identity: Identity{Node: "n1", Boot: "b"}, Prover: newMachine("n1")})
		m := a.mirror
		var good []cluster.KV
		for key, v := range seeds {
			good = append(good, cluster.KV{Key: keys.Root() + key, Value: cluster.Encode(v), ModRev: 5, CreateRev: 5})
		}
		m.Reset(9, good)
		kv := cluster.KV{Key: keys.Root() + below, Value: value, ModRev: 10, CreateRev: 10, Lease: lease}
		m.Apply(10, []cluster.Event{{KV: kv}})
		lookAtAll(t, a)
		parsed, err := keys.Parse(kv.Key)
		listed := m.unreadable[kv.Key] != nil
		switch {
		case err != nil && !listed:
			t.Errorf("key %q is not listed", kv.Key)
		case parsed.Kind == cluster.KindClaim && !a.Taken(parsed.Space).Contains(parsed.ID):
			t.Errorf("claim %q with %q does not take its id", kv.Key, value)
		}
		if why := m.unreadable[kv.Key]; listed && len(Unread(kv.Key, why).Error()) > len(kv.Key)+1000 {
			t.Errorf("%q says %d bytes", kv.Key, len(why.Error()))
		}
		m.Reset(11, append(good, kv))
		lookAtAll(t, a)
		m.Apply(12, []cluster.Event{{KV: cluster.KV{Key: kv.Key, ModRev: 12}, Deleted: true}})
		if m.unreadable[kv.Key] != nil {
			t.Errorf("%q is gone and listed", kv.Key)
		}
		lookAtAll(t, a)
	})
}

// lookAtAll reads the mirror as the loops, the operations and the interface do.
func lookAtAll(t *testing.T, a *Allocator) {
	t.Helper()
	ctx := t.Context()
	_ = a.duties()
	_ = a.chores()
	_, _, _ = a.Pools(), a.Inventories(), a.Nodes()
	_, _ = a.Overview(), a.Unreadable()
	_ = a.report(&observation{rev: 9, live: map[Ref]bool{}, runs: a.runsBy(idset.New(16, 17))})
	_ = a.refusal([]Want{{Pool: "p", Count: 1}, {Pool: VLANPool("v"), Count: 1}})
	if picks, err := a.pick([]Want{{Pool: "p", Count: 2}, {Pool: VLANPool("v"), Count: 1}}); err == nil {
		a.land(picks, 0)
		for _, p := range picks {
			if a.Taken(p.ref.Space).Contains(p.ref.ID) {
				t.Errorf("picked %s, which has a claim", p.ref)
			}
		}
	}
	for _, info := range a.List(ctx, nil, 0, func(Ref, *Claim) bool { return true }) {
		_ = a.Get(ctx, info.Ref)
		_ = a.Group(info.Ref)
	}
	for _, name := range []string{"p", VLANPool("v"), "new"} {
		_, _, _, _ = a.planPool(name, func(p *Pool, _ bool) error { p.Ranges = idset.New(1, 100); return nil })
	}
}

// FuzzHome reads anything as an agent's memory: an error names the file and says
// what to do, and what is read is written back the same.
func FuzzHome(f *testing.F) {
	for _, s := range []string{"", "{}", `{"v":1,"secret":"s","counter":18446744073709551615}`, `{"v":2,"secret":"s"}`, `{"v":1}`, "[]", `{"v":1,"secret":"s","revision":-1}`, "\xff", `{"v":1,"secret":"s"} x`} {
		f.Add([]byte(s))
	}
	const path = "/d/agent.json"
	f.Fuzz(func(t *testing.T, data []byte) {
		h := &Home{path: path}
		if err := h.decode(data); err != nil {
			var p *problem.Error
			if !errors.As(err, &p) || p.Code != problem.CodeInvalid || !strings.Contains(p.Detail, path) || len(p.Try) == 0 || len(p.Detail) > 1000 {
				t.Errorf("%q: %v", data, err)
			}
			return
		}
		again := &Home{path: path}
		if err := again.decode(cluster.Encode(h.mem)); err != nil || again.mem != h.mem {
			t.Errorf("%q: %+v came back as %+v, %v", data, h.mem, again.mem, err)
		}
	})
}
