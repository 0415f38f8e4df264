package leases

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.uber.org/zap"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/problem"
)

// TestOwnClaimIsMissing: what the journal of a node that runs has as held and etcd has
// not is a sign of time travel by itself.
func TestOwnClaimIsMissing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000-1009")
	g := a.get(a.m.born("r"))
	key := w.keys.Claim(g.ref().Space, g.ref().ID)
	raw := w.stored(key)[key]
	resp, err := w.client.Txn().Delete(w.ctx(), key)
	if err != nil {
		t.Fatal(err)
	}
	a.sync()
	if err := a.session.audited1(w.ctx()); err != nil {
		t.Fatalf("its end was seen: %v", err)
	}
	held := jentry{Key: strings.TrimPrefix(key, w.keys.Root()), Value: []byte(raw), Rev: resp.Header.Revision, Epoch: a.session.home.Epoch(), Number: 1}
	if err := a.journal.note([]jentry{held}); err != nil {
		t.Fatal(err)
	}
	mustErr(t, a.session.audited1(w.ctx()), problem.ErrFrozen, "missing in etcd")
}

// TestCrashBeforeTheJournal: an agent that died between the end of a claim and its note of
// it starts again, and freezes nobody.
func TestCrashBeforeTheJournal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000-1009")
	g := a.get(a.m.born("r"))
	a.crash()
	if _, err := w.client.Txn().Delete(w.ctx(), w.keys.Claim(g.ref().Space, g.ref().ID)); err != nil {
		t.Fatal(err)
	}
	a = a.again()
	a.get(a.m.born("r2"))
	if err := a.session.audited1(w.ctx()); err != nil {
		t.Errorf("the next audit: %v", err)
	}
}

// TestEpochToAssertFirst: a node that comes from an epoch before the cluster's writes
// nothing for anybody until it has said what it holds.
func TestEpochToAssertFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.vlanPool("a", "100-299")
	a.m.set(func() { a.m.err = errors.New("not now") }) // so it cannot say it
	if err := a.session.home.change(func(m *memory) { m.Epoch = epochOther }); err != nil {
		t.Fatal(err)
	}
	_, err := a.ask(Requester{}, withKey("k"), wants(Want{Pool: VLANPool("a"), Count: 1}))
	mustErr(t, err, problem.ErrFrozen, "about to say what it holds")
}

// TestDoubtIsWaitedFor: between the break of a watch and the audit of what it shows
// then nothing is written, though the connection for transactions stands.
func TestDoubtIsWaitedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000-1009")
	a.session.doubt()
	told := make(chan error, 1)
	go func() {
		_, err := a.ask(a.m.born("r"))
		told <- err
	}()
	select {
	case err := <-told:
		t.Errorf("told in doubt: %v", err)
		return
	case <-closedSoon():
	}
	a.session.listing()
	if err := <-told; err != nil {
		t.Error(err)
	}
}

// TestFrozenIsNotTheEnd: an agent that was frozen goes on by itself once etcd is as it
// was.
func TestFrozenIsNotTheEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000-1009")
	_ = a.session.freeze(goneBack("a copy"))
	until(t, "it has a session again", func() bool {
		select {
		case <-a.done:
			t.Fatalf("it has ended: %v", a.err)
		default:
		}
		return a.guardNow() != nil
	})
	a.get(a.m.born("r"))
}

// TestSpoken walks the rows of whom a recovery waits for.
func TestSpoken(t *testing.T) {
	t.Parallel()
	meta := cluster.Meta{Epoch: epochTwo, Number: 2, Expect: []string{"n17"}}
	active := Node{State: nodeActive, Boot: "b", Epoch: epochOne}
	said := Recovery{Epoch: epochTwo, Boot: "b", Revision: 60}
	for name, tt := range map[string]struct {
		node  Node
		said  *Recovery
		waits bool
	}{
		"has spoken":                    {active, &said, false},
		"silent":                        {active, nil, true},
		"spoke in another recovery":     {active, &Recovery{Epoch: epochOne, Boot: "b", Revision: 60}, true},
		"spoke in another boot":         {active, &Recovery{Epoch: epochTwo, Boot: "a", Revision: 60}, true},
		"spoke before the last word":    {active, &Recovery{Epoch: epochTwo, Boot: "b", Revision: 49}, true},
		"fenced in this recovery":       {Node{State: nodeFenced, Boot: "b", Epoch: epochTwo}, nil, false},
		"fenced before":                 {Node{State: nodeFenced, Boot: "b", Epoch: epochOne}, nil, true},
		"left before":                   {Node{State: nodeLeft, Boot: "b", Epoch: epochOne}, nil, true},
		"fenced before, and has spoken": {Node{State: nodeFenced, Boot: "b", Epoch: epochOne}, &said, false},
	} {
		v := newView()
		v.marked = 50
		v.nodes["n1"] = Stored[Node]{Val: &tt.node}
		if tt.said != nil {
			v.recoveries["n1"] = Stored[Recovery]{Val: tt.said}
		}
		waits, conflicts := v.spoken(meta)
		if want := map[bool]string{false: "[n17]", true: "[n1 n17]"}[tt.waits]; names(waits) != want || len(conflicts) != 0 {
			t.Errorf("%s: waits for %v, want %s; disputed %v", name, waits, want, conflicts)
		}
	}
	v := newView()
	v.nodes["n17"] = Stored[Node]{Val: &Node{State: nodeFenced, Epoch: epochTwo}}
	v.strange["n2"] = struct{}{}
	v.alive["n3"] = Stored[Alive]{Val: &Alive{}}
	v.recoveries["n4"] = Stored[Recovery]{Val: &Recovery{Epoch: epochTwo, Conflicts: []Conflict{{Key: "k"}}}}
	v.recoveries["n5"] = Stored[Recovery]{Val: &Recovery{Epoch: epochOne, Conflicts: []Conflict{{Key: "past"}}}}
	waits, conflicts := v.spoken(meta)
	if names(waits) != "[n2 n3]" || len(conflicts) != 1 || conflicts[0].Key != "k" {
		t.Errorf("waits for %v, disputed %v", waits, conflicts)
	}
}

func names(waits []Wait) string {
	var all []string
	for _, w := range waits {
		all = append(all, w.Node)
	}
	return fmt.Sprint(all)
}

// TestResumingRestsOnWhatItSaw: whatever is written between the look and the end of a
// recovery keeps it recovering.
func TestResumingRestsOnWhatItSaw(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := cluster.Meta{V: cluster.MetaFormat, Epoch: epochTwo, Number: 2, State: cluster.StateRecovering, Adopted: true}
	put := func(key, value string) {
		t.Helper()
		if _, err := w.client.Txn().Put(w.ctx(), key, value); err != nil {
			t.Fatal(err)
		}
	}
	resumes := func(behind func()) bool {
		t.Helper()
		put(w.keys.Meta(), string(cluster.Encode(m)))
		p, err := Progress(w.ctx(), w.client)
		if err != nil || len(p.Waits)+len(p.Conflicts) != 0 {
			t.Fatalf("%+v, %v", p, err)
		}
		behind()
		done, err := Resume(w.ctx(), w.client, p)
		if err != nil {
			t.Fatal(err)
		}
		return done
	}
	if !resumes(func() {}) {
		t.Error("it does not resume")
	}
	claim := w.keys.Claim(cluster.SpaceUID, 1000)
	for what, key := range map[string]string{
		"the node list": w.keys.Members(), "a node's word": w.keys.Recovery("n1"), "an assertion": w.keys.Recovered(claim),
		"a registration": w.keys.Node("n1"), "the record": w.keys.Meta(),
	} {
		if resumes(func() { put(key, "{}") }) {
			t.Errorf("it resumes although %s has changed", what)
		}
		if _, err := w.client.Txn().Delete(w.ctx(), key); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAssertionRestsOnWhatItRead: of two nodes that assert one key at once, one reads
// again.
func TestAssertionRestsOnWhatItRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.sync()
	g := a.guardNow()
	m, err := cluster.DecodeMeta(g.meta)
	if err != nil {
		t.Fatal(err)
	}
	s := &asserting{a: a.Allocator, g: g, meta: m}
	key := "claims/uid/0000001000"
	part := []jentry{{Key: key, Value: []byte("a"), Rev: 60, Epoch: epochOther, Number: 1}}
	for what, changed := range map[string]string{"the key": w.keys.Root() + key, "its mark": w.keys.Recovered(w.keys.Root() + key)} {
		at, err := s.read(w.ctx(), part)
		if err != nil {
			t.Fatal(err)
		}
		cmps, puts, conflicts := s.decide(part, at)
		if len(puts) != 2 || len(conflicts) != 0 {
			t.Fatalf("%d puts, %v", len(puts), conflicts)
		}
		if _, err := w.client.Txn().Put(w.ctx(), changed, "{}"); err != nil {
			t.Fatal(err)
		}
		resp, err := w.client.Commit(w.ctx(), cmps, puts, nil)
		if err != nil || resp.Succeeded {
			t.Errorf("asserted although %s had changed (%v)", what, err)
		}
		for _, k := range []string{w.keys.Root() + key, w.keys.Recovered(w.keys.Root() + key)} {
			if _, err := w.client.Txn().Delete(w.ctx(), k); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestMarkOfAnotherRecovery says nothing about this one; one that cannot be read is no
// leave to write.
func TestMarkOfAnotherRecovery(t *testing.T) {
	t.Parallel()
	found := func(raw string) *pb.ResponseOp {
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{ResponseRange: &pb.RangeResponse{Kvs: []*mvccpb.KeyValue{{Value: []byte(raw), ModRevision: 9}}}}}
	}
	mark := found(string(cluster.Encode(Mark{V: format, In: epochOne, Number: 1, Epoch: epochOne, Rev: 90, Node: "n9"})))
	if at, err := standingOf(found("a"), mark, epochTwo); err != nil || at.mark != nil || at.markRev != 9 || at.modRev != 9 {
		t.Errorf("%+v, %v", at, err)
	}
	if at, err := standingOf(found("a"), mark, epochOne); err != nil || at.mark == nil {
		t.Errorf("%+v, %v", at, err)
	}
	if _, err := standingOf(found("a"), found(`{"v":99}`), epochTwo); err == nil {
		t.Error("a mark that cannot be read goes unnoticed")
	}
}

// TestImportedIsAsOldAsItsExport: what came into an etcd from an export counts as old
// as that, whatever revision it got.
func TestImportedIsAsOldAsItsExport(t *testing.T) {
	t.Parallel()
	meta := cluster.Meta{Epoch: epochTwo, Number: 2, Base: 50, Imported: 900, Previous: []cluster.Epoch{{Epoch: epochOne, Number: 1}}}
	for rev, want := range map[int64]ruling{60: assert, 40: yield} {
		e := jentry{Key: "k", Value: []byte("a"), Rev: rev, Epoch: epochOne, Number: 1}
		if got := rule(e, standing{raw: []byte("b"), modRev: 700}, meta, "n1"); got != want {
			t.Errorf("revision %d: %d, want %d", rev, got, want)
		}
	}
	v := newView()
	v.meta = Stored[cluster.Meta]{Val: &meta}
	v.claims[uid(1000)] = Stored[Claim]{ModRev: 700}
	if got := v.base(); got != 50 {
		t.Errorf("base %d", got)
	}
}

// TestAdoptionLooksAtWhatRuns: what is in use on a node, and nobody asserts, is no
// longer free when granting resumes; and the record says what the snapshot had.
func TestAdoptionLooksAtWhatRuns(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	a.pool("p", "1000-1009")
	g := a.get(a.m.born("r"), exact(1000))
	a.m.start(1003)
	if err := Adopt(w.ctx(), w.client, AdoptOptions{By: "op", Reason: "test"}); err != nil {
		t.Fatal(err)
	}
	var m cluster.Meta
	until(t, "granting resumes", func() bool {
		var err error
		m, _, err = w.client.ReadMeta(w.ctx())
		return err == nil && m.State == cluster.StateNormal && m.Number == 2
	})
	if c := w.claim(uid(1003)); c == nil || c.ReasonCode != ReasonForeign {
		t.Errorf("1003 is in use, and %+v", c)
	}
	if m.Base < g.Held[0].ModRev {
		t.Errorf("base %d, and the snapshot had revision %d", m.Base, g.Held[0].ModRev)
	}
}

// TestLateNode walks the rows of what a node puts back after granting has resumed.
func TestLateNode(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	meta := cluster.Meta{Epoch: epochTwo, Number: 2, Base: 50, Previous: []cluster.Epoch{{Epoch: epochOne, Number: 1}}}
	s := &asserting{a: a.Allocator, meta: meta, late: true}
	ref, vlan := uid(1000), Ref{cluster.Space(VLANPool("a")), 100}
	on := func(node, boot, token string, r Ref, state State) []byte {
		c := onNodes(state)
		c.Of, c.Token, c.Epoch, c.Write = r.String(), token, epochOne, "w"
		if node != "" {
			c.Nodes = []Presence{{Node: node, Boot: boot, Requesters: []Requester{{ID: "r", Hold: HoldPID}}}}
		}
		return cluster.Encode(c)
	}
	for name, tt := range map[string]struct {
		ref         Ref
		mine, there []byte
		rev         int64
		want        ruling
	}{
		"lacks it":                  {ref, on("n1", a.m.boot, "t", ref, Used), nil, 60, assert},
		"of an earlier boot":        {ref, on("n1", "before", "t", ref, Used), nil, 60, yield},
		"another's now":             {ref, on("n1", a.m.boot, "t", ref, Used), on("n2", "b", "u", ref, Used), 60, dispute},
		"has it as ours":            {ref, on("n1", a.m.boot, "t", ref, Used), on("n1", a.m.boot, "t", ref, Used), 60, yield},
		"has it on another node":    {ref, on("n1", a.m.boot, "t", ref, Used), on("n2", "b", "t", ref, Used), 60, assert},
		"a deletion":                {ref, nil, on("n2", "b", "t", ref, Used), 60, yield},
		"lacks a VLAN":              {vlan, on("", "", "t", vlan, Used), nil, 60, assert},
		"lacks a VLAN that is over": {vlan, on("", "", "t", vlan, Used), nil, 40, yield},
		"a VLAN is another's":       {vlan, on("", "", "t", vlan, Used), on("", "", "u", vlan, Used), 60, dispute},
	} {
		e := jentry{Key: strings.TrimPrefix(below.Claim(tt.ref.Space, tt.ref.ID), below.Root()), Value: tt.mine, Rev: tt.rev, Epoch: epochOne, Number: 1}
		if _, got := s.ruleLate(e, standing{raw: tt.there, modRev: 900}); got != tt.want {
			t.Errorf("%s: %d, want %d", name, got, tt.want)
		}
	}
}

// TestGate: a new list stays beside the mirror, and out of the journal, until it is
// let in.
func TestGate(t *testing.T) {
	t.Parallel()
	k, _ := cluster.NewKeys(cluster.DefaultRoot)
	j := openJournal(t, t.TempDir())
	s := &Session{changed: make(chan struct{})}
	live := NewMirror(k, "n1", zap.NewNop())
	g := newGate(live, s, j)
	c := onNodes(Used, "n1")
	c.Of, c.Epoch, c.Write = uid(1000).String(), epochOne, "w"
	key := k.Claim(cluster.SpaceUID, 1000)
	meta := cluster.KV{Key: k.Meta(), Value: cluster.Encode(cluster.Meta{V: cluster.MetaFormat, Epoch: epochOne, Number: 1, State: cluster.StateNormal}), ModRev: 1}
	g.Reset(5, []cluster.KV{meta, {Key: key, Value: cluster.Encode(c), CreateRev: 4, ModRev: 4}})
	if err := g.open(false); err != nil {
		t.Fatal(err)
	}
	stands := func() (there bool, journal string) {
		live.read(func(v *view) { there = v.claims[uid(1000)].Val != nil })
		return there, string(j.all()["claims/uid/0000001000"].Value)
	}
	if there, noted := stands(); !there || noted == "" || s.doubts != 0 {
		t.Fatalf("%t, %q, %d doubts", there, noted, s.doubts)
	}
	g.Reset(6, []cluster.KV{meta}) // it is gone: freed, or lost
	if there, noted := stands(); !there || noted == "" || s.doubts != 1 {
		t.Errorf("told before an audit: %t, %q, %d doubts", there, noted, s.doubts)
	}
	other := *c
	other.Write = "x"
	g.Apply(7, []cluster.Event{{KV: cluster.KV{Key: key, Value: cluster.Encode(&other), CreateRev: 7, ModRev: 7}}})
	if _, noted := stands(); noted != string(cluster.Encode(c)) {
		t.Errorf("noted before an audit: %q", noted)
	}
	if err := g.open(false); err != nil {
		t.Fatal(err)
	}
	if _, noted := stands(); noted != string(cluster.Encode(&other)) {
		t.Errorf("not noted afterwards: %q", noted)
	}
}

// TestDecidedInAnEpochThatIsOver: what waits in the batch while the cluster comes to
// a new epoch is not written in it.
func TestDecidedInAnEpochThatIsOver(t *testing.T) {
	t.Parallel()
	b := &batcher{session: &Session{}}
	c := &child{done: make(chan childResult, 1)}
	if kept := b.ofThisEpoch([]*child{c}); len(kept) != 1 {
		t.Fatalf("%d kept", len(kept))
	}
	b.session.gen.Add(1)
	if kept := b.ofThisEpoch([]*child{c}); len(kept) != 0 {
		t.Fatal("it is written")
	}
	mustErr(t, (<-c.done).err, problem.ErrUnavailable, "restored meanwhile")
}

// TestDeletionIsAsserted: what a journal knows to be gone goes from the snapshot too.
func TestDeletionIsAsserted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := &asserting{a: &Allocator{keys: w.keys, id: Identity{Node: "n1"}}, meta: cluster.Meta{Epoch: epochTwo, Number: 2, Base: 50, Previous: []cluster.Epoch{{Epoch: epochOne, Number: 1}}}}
	e := jentry{Key: "claims/uid/0000001000", Rev: 60, Epoch: epochOne, Number: 1, Gone: time.Now().Unix()}
	_, puts, _ := s.decide([]jentry{e}, []standing{{raw: []byte("a"), modRev: 40}})
	if len(puts) != 2 || !puts[0].IsDelete() || !puts[1].IsPut() {
		t.Errorf("%+v", puts)
	}
	if _, puts, _ = s.decide([]jentry{e}, []standing{{}}); len(puts) != 1 || !puts[0].IsPut() {
		t.Errorf("its mark is not left: %+v", puts)
	}
}
