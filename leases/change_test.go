package leases

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/idpool/idpool/problem"
)

var at = time.Unix(1000, 0).UTC()

// onNodes is a claim in a state with one requester on each node.
func onNodes(s State, nodes ...string) *Claim {
	c := &Claim{V: format, State: s, Count: 1, Token: "t"}
	for _, n := range nodes {
		c.Nodes = append(c.Nodes, Presence{Node: n, Boot: "b", Requesters: []Requester{{ID: "r-" + n, Hold: HoldPID}}})
	}
	return c
}

func byID(id string) func(Requester) bool { return func(r Requester) bool { return r.ID == id } }

func wantState(t *testing.T, c *Claim, s State) {
	t.Helper()
	if c.State != s {
		t.Fatalf("claim is %s, want %s: %+v", c.State, s, c)
	}
}

func TestBind(t *testing.T) {
	c := onNodes(Used, "n1")
	c.Nodes[0].Idle = true
	if err := c.bind("n1", "b", Requester{ID: "r2"}); err != nil || c.Nodes[0].Idle || len(c.Nodes[0].Requesters) != 2 {
		t.Errorf("bound %+v, %v", c.Nodes, err)
	}
	if err := c.bind("n2", "b", Requester{ID: "r3"}); err != nil || c.On("n2") == nil {
		t.Errorf("joined %+v, %v", c.Nodes, err)
	}
	c = onNodes(Idle, "n1")
	if err := c.bind("n1", "b", Requester{ID: "r2"}); err != nil || c.State != Used {
		t.Errorf("an idle claim after bind: %s, %v", c.State, err)
	}
	for _, s := range []State{Quarantined, Reserved} {
		mustErr(t, onNodes(s, "n1").bind("n1", "b", Requester{ID: "r"}), problem.ErrKeyEnded)
	}
}

func TestBindInANewBootForgetsTheOldOne(t *testing.T) {
	c := onNodes(Used, "n1")
	c.Nodes[0].Requesters[0].Keep = true
	if err := c.bind("n1", "b2", Requester{ID: "r2"}); err != nil {
		t.Fatal(err)
	}
	if p := c.On("n1"); len(p.Requesters) != 1 || p.Requesters[0].ID != "r2" || p.Boot != "b2" || p.kept() {
		t.Errorf("%+v", p)
	}
}

func TestBindIsBounded(t *testing.T) {
	c := onNodes(Locked, "n1")
	for i := range maxRequesters - 1 {
		if err := c.bind("n1", "b", Requester{ID: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	mustErr(t, c.bind("n1", "b", Requester{ID: "one more"}), problem.ErrInvalid, "64 requesters")
}

func TestReleaseEndsWithTheLast(t *testing.T) {
	c := onNodes(Locked, "n1", "n2")
	if !c.release("n1", byID("r-n1"), "x", at) {
		t.Fatal("the first release changed nothing")
	}
	wantState(t, c, Locked)
	if c.release("n1", byID("r-n1"), "x", at) {
		t.Error("the same release again changes something")
	}
	c.release("n2", byID("r-n2"), "x", at)
	wantState(t, c, Quarantined)
}

func TestReleaseOfAnIdleRequester(t *testing.T) {
	c := onNodes(Used, "n1")
	c.idle("n1", at)
	wantState(t, c, Idle)
	c.release("n1", byID("r-n1"), "x", at)
	wantState(t, c, Quarantined)
}

func TestReleaseLeavesAMark(t *testing.T) {
	c := onNodes(Used, "n1", "n2")
	c.release("n1", byID("r-n1"), "x", at)
	wantState(t, c, Used)
	c.idle("n2", at) // the other is gone without a word
	wantState(t, c, Quarantined)
	if c.ReasonCode != ReasonReleased {
		t.Errorf("reason %q", c.ReasonCode)
	}
}

func TestReleaseByAForgottenRequesterEndsTheGrant(t *testing.T) {
	c := onNodes(Used, "n1")
	c.Nodes[0].Requesters = nil
	c.release("n1", byID("r-n1"), "x", at)
	wantState(t, c, Quarantined)
}

func TestReleaseInQuarantineAcknowledges(t *testing.T) {
	c := onNodes(Used, "n1")
	c.quarantine(ReasonOperator, "x", at)
	if len(c.Nodes[0].Requesters) != 1 {
		t.Fatal("quarantine forgot a requester that was not told")
	}
	if !c.release("n1", byID("r-n1"), "x", at) || len(c.Nodes[0].Requesters) != 0 || c.Released {
		t.Errorf("%+v", c)
	}
	if c.release("n1", byID("r-n1"), "x", at) {
		t.Error("acknowledged twice")
	}
}

func TestKeepOutlivesOthers(t *testing.T) {
	c := onNodes(Locked, "n1", "n2")
	if err := c.confirm("n1", "", true, at); err != nil {
		t.Fatal(err)
	}
	c.release("n2", byID("r-n2"), "x", at)
	wantState(t, c, Used)
	if c.idle("n1", at) {
		t.Error("a kept claim went idle")
	}
	c.release("n1", nil, "x", at)
	wantState(t, c, Quarantined)
}

func TestConfirm(t *testing.T) {
	c := onNodes(Locked, "n1")
	if err := c.confirm("n1", "", false, at); err != nil {
		t.Fatal(err)
	}
	wantState(t, c, Used)
	mustErr(t, onNodes(Locked, "n1").confirm("n2", "", false, at), problem.ErrNotHeld)
	mustErr(t, onNodes(Quarantined, "n1").confirm("n1", "", false, at), problem.ErrLockLost)
	mustErr(t, onNodes(Reserved, "n1").confirm("n1", "", false, at), problem.ErrLockLost)
}

func TestInquiry(t *testing.T) {
	c := onNodes(Locked, "n1")
	if !c.inquiry("n1", true, "x", at) {
		t.Fatal("running changed nothing")
	}
	wantState(t, c, Used)
	c = onNodes(Locked, "n1", "n2")
	c.inquiry("n1", false, "x", at)
	wantState(t, c, Locked)
	c.inquiry("n2", false, "x", at)
	wantState(t, c, Quarantined)
	if c.ReasonCode != ReasonHoldLost {
		t.Errorf("reason %q", c.ReasonCode)
	}
	for _, s := range []State{Used, Idle, Quarantined, Reserved} {
		if onNodes(s, "n1").inquiry("n1", false, "x", at) {
			t.Errorf("an inquiry on a claim that is %s", s)
		}
	}
	kept := onNodes(Locked, "n1")
	kept.Nodes[0].Requesters = append(kept.Nodes[0].Requesters, Requester{ID: "k", Keep: true})
	kept.inquiry("n1", false, "x", at)
	wantState(t, kept, Used)
}

func TestDrop(t *testing.T) {
	c := onNodes(Used, "n1", "n2")
	c.drop("n1", ReasonBoot, "x", at)
	wantState(t, c, Used)
	if c.On("n1") != nil {
		t.Error("the dropped node is named")
	}
	c.drop("n2", ReasonBoot, "x", at)
	wantState(t, c, Quarantined)
	if c.On("n2") == nil || c.ReasonCode != ReasonBoot || len(c.Nodes[0].Requesters) != 0 {
		t.Errorf("%+v", c)
	}
	if c.drop("n3", ReasonBoot, "x", at) {
		t.Error("dropped a node that is not named")
	}
	for _, s := range []State{Quarantined, Reserved} {
		c = onNodes(s, "n1")
		c.drop("n1", ReasonBoot, "x", at)
		wantState(t, c, s)
	}
}

func TestIdleNeedsEveryNode(t *testing.T) {
	c := onNodes(Used, "n1", "n2")
	c.idle("n1", at)
	wantState(t, c, Used)
	c.idle("n2", at)
	wantState(t, c, Idle)
	if !c.runs("n2", at) {
		t.Fatal("running again changed nothing")
	}
	wantState(t, c, Used)
	if c.runs("n2", at) {
		t.Error("running changes a used claim")
	}
}

func TestReclaimGoesBackWhenItRuns(t *testing.T) {
	c := onNodes(Used, "n1")
	if c.reclaim(at) {
		t.Fatal("a used claim was reclaimed")
	}
	c.idle("n1", at)
	if !c.reclaim(at) {
		t.Fatal("an idle claim was not reclaimed")
	}
	wantState(t, c, Quarantined)
	if !c.runs("n1", at) {
		t.Fatal("running changed nothing")
	}
	wantState(t, c, Used)
	if c.Reclaimed || c.Reason != "" {
		t.Errorf("%+v", c)
	}
	c.quarantine(ReasonReleased, "x", at)
	if c.runs("n1", at) {
		t.Error("a released claim came back")
	}
}

func TestRelock(t *testing.T) {
	for _, s := range States() {
		c := onNodes(s, "n1")
		c.relock(at)
		want := s
		if s.held() {
			want = Locked
		}
		wantState(t, c, want)
	}
}

func TestTouchStampsTheFirstMoment(t *testing.T) {
	c := onNodes(Used, "n1")
	c.touch(Used, at)
	if !c.Since.IsZero() {
		t.Error("no change, but a new moment")
	}
	c.touch(Idle, at)
	if !c.Since.Equal(at) {
		t.Error("no moment")
	}
}

func TestReasonsAreClipped(t *testing.T) {
	c := onNodes(Used, "n1")
	c.quarantine(ReasonReleased, strings.Repeat("x", 5000), at)
	if len(c.Reason) != maxText {
		t.Errorf("reason of %d bytes", len(c.Reason))
	}
}

func TestCloneSharesNothing(t *testing.T) {
	c := onNodes(Used, "n1")
	d := c.clone()
	d.Nodes[0].Requesters[0].ID, d.Nodes[0].Requesters[0].Keep = "x", true
	if c.Nodes[0].Requesters[0].ID != "r-n1" || c.Nodes[0].kept() {
		t.Error("the clone shares")
	}
}

// TestClaimLife drives one claim by random events and holds the rules of binding
// after each.
func TestClaimLife(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := []string{"n1", "n2", "n3"}
		c := onNodes(Locked, "n1")
		t.Repeat(map[string]func(*rapid.T){
			"event": func(t *rapid.T) {
				before := c.clone()
				node := rapid.SampledFrom(nodes).Draw(t, "node")
				name := lifeEvent(t, c, node)
				checkLife(t, name, node, before, c)
			},
		})
	})
}

// lifeEvent applies one random event to the claim.
func lifeEvent(t *rapid.T, c *Claim, node string) string {
	name := rapid.SampledFrom([]string{"bind", "relock", "confirm", "keep", "release", "release all", "drop", "inquiry gone", "inquiry runs", "idle", "runs", "reclaim"}).Draw(t, "event")
	switch name {
	case "bind":
		_ = c.bind(node, "b", Requester{ID: fmt.Sprint("r", rapid.IntRange(0, 3).Draw(t, "r")), Hold: HoldPID})
	case "relock":
		if c.State.held() && c.bind(node, "b", Requester{ID: "again", Hold: HoldPID}) == nil {
			c.relock(at)
		}
	case "confirm", "keep":
		_ = c.confirm(node, "", name == "keep", at)
	case "release":
		c.release(node, byID(fmt.Sprint("r", rapid.IntRange(0, 3).Draw(t, "r"))), "x", at)
	case "release all":
		c.release(node, nil, "x", at)
	case "drop":
		c.drop(node, ReasonBoot, "x", at)
	case "inquiry gone", "inquiry runs":
		c.inquiry(node, name == "inquiry runs", "x", at)
	case "idle":
		c.idle(node, at)
	case "runs":
		c.runs(node, at)
	case "reclaim":
		c.reclaim(at)
	}
	return name
}

func checkLife(t *rapid.T, name, node string, before, c *Claim) {
	bound := func(c *Claim) bool { return slices.ContainsFunc(c.Nodes, func(p Presence) bool { return p.bound() }) }
	switch {
	case len(c.Nodes) == 0:
		t.Fatalf("%s: the claim names no node", name)
	case !before.State.held() && c.State.held() && (name != "runs" || !before.Reclaimed):
		t.Fatalf("%s: an ended claim came back: %+v -> %+v", name, before, c)
	case before.State.held() && !c.State.held() && name != "reclaim":
		for _, p := range c.Nodes {
			gone := before.On(p.Node).Idle || (name == "idle" && p.Node == node) // nobody there lives
			if p.kept() || (len(p.Requesters) > 0 && !gone) {
				t.Fatalf("%s: ended while %s is bound: %+v -> %+v", name, p.Node, before, c)
			}
		}
	case name == "reclaim" && before.State != c.State && bound(before):
		t.Fatalf("reclaimed while bound: %+v", before)
	case c.State == Locked && !bound(c):
		t.Fatalf("%s: locked for nobody: %+v", name, c)
	case c.State == Used && c.Released && !bound(c) && name != "runs":
		t.Fatalf("%s: released, nobody is bound, and it stays: %+v", name, c)
	case c.State == Idle && slices.ContainsFunc(c.Nodes, func(p Presence) bool { return !p.Idle || p.kept() }):
		t.Fatalf("%s: idle, but not on every node: %+v", name, c)
	}
	if _, err := decodeClaim(uid(1), encodeClaim(c)); err != nil {
		t.Fatalf("%s: not readable: %v", name, err)
	}
}

func TestRecordShrinksToItsEnd(t *testing.T) {
	r := &Record{Token: "t", IDs: []Ref{uid(1), uid(2)}}
	one := r.without(uid(1), at)
	if one.Ended || len(one.IDs) != 1 || len(r.IDs) != 2 {
		t.Fatalf("%+v, %+v", one, r)
	}
	none := one.without(uid(2), at)
	if !none.Ended || !none.Since.Equal(at) {
		t.Errorf("%+v", none)
	}
	if again := none.without(uid(2), at.Add(time.Hour)); !again.Since.Equal(at) {
		t.Errorf("ended twice: %+v", again)
	}
}

// TestAJoinersReleaseLeavesWhatIsConfirmed: the hand-over is over for all who are
// left.
func TestAJoinersReleaseLeavesWhatIsConfirmed(t *testing.T) {
	c := onNodes(Locked, "n1", "n2")
	c.Nodes[0].Confirmed = true
	c.release("n2", byID("r-n2"), "x", at)
	wantState(t, c, Used)
}
