package leases

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/idset"
)

func encodeClaim(c *Claim) []byte { return cluster.Encode(c) }

// roundTrip decodes untrusted bytes and holds that what was read can be written
// and read again to the same bytes.
func roundTrip[T any](f *testing.F, decode func([]byte) (*T, error), seeds ...any) {
	f.Helper()
	for _, s := range seeds {
		f.Add(cluster.Encode(s))
	}
	for _, s := range []string{"", "null", "{}", `{"v":1}`, `{"v":2,"state":"used"}`, `{"v":"1"}`, `[]`, `{"v":1,"state":"used","token":"t","count":1,"nodes":[{}]}`, "\xff", `{"v":1,"in_use":{"uid":"5-1"}}`, `{"v":1,"ranges":"x"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := decode(data)
		if err != nil {
			return
		}
		first := cluster.Encode(v)
		again, err := decode(first)
		if err != nil {
			t.Fatalf("what was read cannot be read again: %v\n%s", err, first)
		}
		if diff := cmp.Diff(string(first), string(cluster.Encode(again))); diff != "" {
			t.Error(diff)
		}
	})
}

func FuzzDecodeClaim(f *testing.F) {
	full := onNodes(Used, "n1", "n2")
	full.Nodes[0].Requesters[0].Until, full.Nodes[0].Requesters[0].Keep, full.GrantedAt = at, true, at
	roundTrip(f, func(b []byte) (*Claim, error) { return decodeClaim(Ref{"uid", 1 << 16}, b) }, full, onNodes(Locked, "n1"), onNodes(Reserved))
}

func FuzzDecodeRecord(f *testing.F) {
	decode := func(b []byte) (*Record, error) { return decodeRecord("c", "key:k", b) }
	roundTrip(f, decode, Record{V: format, Token: "t", Caller: "c", Key: "k", IDs: []Ref{uid(1), {"vlan/x", 4094}}, Since: at})
}

func FuzzDecodeNode(f *testing.F) {
	roundTrip(f, func(b []byte) (*Node, error) { return decodeNode("n", b) }, Node{V: format, Of: "n", Machine: "m", Boot: "b", State: nodeFenced, FencedBoot: "b", Since: at}, Node{V: format, State: "new"})
}

func FuzzDecodeAlive(f *testing.F) {
	roundTrip(f, func(b []byte) (*Alive, error) { return decodeAlive("n", b) }, Alive{V: format, Nonce: "n", Counter: 1 << 63, Machine: "m", Secret: "s"})
}

func FuzzDecodeProof(f *testing.F) {
	roundTrip(f, func(b []byte) (*Proof, error) { return decodeProof("n", b) }, Proof{V: format, Epoch: "e", Boot: "b", Machine: "m", Revision: 9, InUse: map[cluster.Space]idset.Set{"uid": idset.New(1, 2, 9)}})
}

func FuzzDecodePool(f *testing.F) {
	p := Pool{V: format, Ranges: idset.New(1, 2, 9), Policy: DefaultPolicy(), Since: at}
	p.Reclaim.After = time.Hour
	roundTrip(f, func(b []byte) (*Pool, error) { return decodePool("p", b) }, p)
}

func FuzzDecodeInventory(f *testing.F) {
	p := Pool{V: format, Ranges: idset.New(1, 4094), Policy: VLANPolicy(), Since: at}
	o := Pool{V: format, Policy: VLANPolicy(), Since: at, Outside: &Outside{File: "/pool.json", On: "n1", Settle: time.Second}}
	roundTrip(f, func(b []byte) (*Pool, error) { return decodePool(VLANPool("v"), b) }, p, o)
}

// TestPoisonedKeys feeds a mirror a record that it cannot read in each place.
func TestPoisonedKeys(t *testing.T) {
	t.Parallel()
	for _, poison := range []string{"", "{", `{"v":99}`, `{"v":1,"state":"molten","token":"t","count":1}`, strings.Repeat("x", 5000)} {
		w := newWorld(t)
		a := w.node("n1")
		a.pool("p", "1000-1003")
		good := a.get(a.m.born("r"))
		k := w.keys
		places := []string{k.Node("bad"), k.Alive("bad"), k.Proof("bad"), k.UIDPool("bad"), k.Claim(cluster.SpaceUID, 1000), k.Claim(cluster.SpaceUID, 1001), k.Grant("c", "key:bad"), k.Root() + "nothing/of/ours"}
		for _, key := range places {
			if key == k.Claim(good.ref().Space, good.ref().ID) {
				continue
			}
			if _, err := w.client.Txn().Put(w.ctx(), key, poison); err != nil {
				t.Fatal(err)
			}
		}
		a.sync()
		atLeast := len(places) - 1 // one may be the good claim's
		if strings.Contains(poison, "molten") {
			atLeast = 3 // a presence, proof or pool may have any state
		}
		if got := a.Overview().Unreadable; len(got) < atLeast {
			t.Errorf("poison %.20q: unreadable %v", poison, got)
		}
		w.keepsWorking(a, good)
	}
}

// keepsWorking uses what is left of a pool of four, of which 1000 and 1001
// cannot be read.
func (w *world) keepsWorking(a *agent, good *Grant) {
	w.t.Helper()
	free := 0
	for id := uint32(1000); id < 1004; id++ {
		if _, ok := w.stored(w.keys.Claim(cluster.SpaceUID, id))[w.keys.Claim(cluster.SpaceUID, id)]; !ok {
			free++
		}
	}
	for range free {
		if id := a.get(a.m.born("x")).ref().ID; id < 1002 {
			w.t.Errorf("granted %d, whose claim cannot be read", id)
		}
	}
	if _, err := a.ask(a.m.born("y")); err == nil {
		w.t.Error("an unreadable claim does not take its id")
	}
	a.confirm(good, true, false)
}

func TestMirrorReadsWhatWasMended(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	key := w.keys.Claim(cluster.SpaceUID, 5)
	put := func(v []byte) {
		if _, err := w.client.Txn().Put(w.ctx(), key, string(v)); err != nil {
			t.Fatal(err)
		}
		a.sync()
	}
	put([]byte("bad"))
	if len(a.Overview().Unreadable) != 1 || !a.Taken(cluster.SpaceUID).Contains(5) {
		t.Errorf("poisoned: %v", a.Overview())
	}
	put(encodeClaim(onNodes(Used, "n1")))
	if len(a.Overview().Unreadable) != 0 || a.Overview().Counts["used"] != 1 {
		t.Errorf("mended: %+v", a.Overview())
	}
	if _, err := w.client.Txn().Delete(w.ctx(), key); err != nil {
		t.Fatal(err)
	}
	a.sync()
	if a.Taken(cluster.SpaceUID).Contains(5) {
		t.Error("deleted, and taken")
	}
}
