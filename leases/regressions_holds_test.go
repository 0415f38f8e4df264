package leases

import (
	"fmt"
	"testing"
	"time"
)

func TestAGiveBackLeavesNothingLocked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n1, n2 := w.node("n1"), w.node("n2")
	n1.pool("p", "100-100")
	scanFails(n1, func() { _, err := n1.ask(n1.m.born("r0"), withKey("k")); t.Log("first:", err) })
	n2.sync()
	g := n2.get(n2.m.born("r1"), withKey("k"))
	if _, err := n2.Confirm(w.ctx(), g.ref(), g.Token, "r1", true, false); err != nil {
		t.Fatal(err)
	}
	n2.get(n2.m.born("r2"), withKey("k"))
	n2.release(g, "r2")
	n2.m.die("r1")
	t.Log(w.state(g.ref()))
	n1.settleOrphans(w.ctx())
	n1.m.die("r0")
	rounds(n1, n2)
	c := w.claim(g.ref())
	if c != nil && c.State == Locked {
		t.Errorf("locked for ever: %+v", c.Nodes)
	}
}

func TestEveryHoldEndsFree(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n1, n2 := w.node("n1"), w.node("n2")
	n1.pool("p", "100-999")
	n2.sync()
	type item struct {
		name string
		g    *Grant
		two  bool
	}
	var all []item
	dl := int64(BootTime() + 6*time.Second)
	for _, h1 := range []string{"ttl", "pid"} {
		for _, c1 := range []string{"none", "confirm", "keep"} {
			for _, h2 := range []string{"", "ttl", "pid"} {
				for _, c2 := range []string{"none", "confirm", "keep"} {
					for _, rel := range []string{"none", "r1named", "r2named", "bothmatch", "whole1"} {
						if h2 == "" && c2 != "none" {
							continue
						}
						name := fmt.Sprint(h1, c1, h2, c2, rel)
						mk := func(n *agent, h, id string) Requester {
							if h == "ttl" {
								return Requester{ID: id, Hold: HoldTTL, Deadline: dl}
							}
							return n.m.born(id)
						}
						g := n1.get(mk(n1, h1, "a"+name), withKey(name))
						id := g.ref().ID
						if c1 != "none" {
							n1.m.start(id)
							if _, err := n1.Confirm(w.ctx(), g.ref(), g.Token, "a"+name, c1 == "keep", true); err != nil {
								t.Fatal(name, err)
							}
						}
						if h2 != "" {
							if _, err := n2.Join(w.ctx(), g.refs(), g.Token, mk(n2, h2, "b"+name)); err != nil {
								t.Fatal(name, err)
							}
							if c2 != "none" {
								n2.m.start(id)
								if _, err := n2.Confirm(w.ctx(), g.ref(), g.Token, "b"+name, c2 == "keep", true); err != nil {
									t.Fatal(name, err)
								}
							}
						}
						r := Release{Refs: g.refs(), Token: g.Token, By: "t"}
						switch rel {
						case "r1named":
							r.Requester = "a" + name
							n1.Release(w.ctx(), r)
						case "r2named":
							r.Requester = "b" + name
							n2.Release(w.ctx(), r)
						case "bothmatch":
							n1.Release(w.ctx(), r)
							if h2 != "" {
								n2.Release(w.ctx(), r)
							}
						case "whole1":
							r.Whole = true
							n1.Release(w.ctx(), r)
						}
						all = append(all, item{name, g, h2 != ""})
					}
				}
			}
		}
	}
	for _, n := range []*agent{n1, n2} {
		n.m.set(func() { n.m.live, n.m.procs = map[string]bool{}, map[uint32]bool{} })
	}
	until(t, "ttl", func() bool { return int64(BootTime()) > dl })
	rounds(n1, n2)
	rounds(n1, n2)
	n := map[string][]string{}
	for _, i := range all {
		s := w.state(i.g.ref()).String()
		if s == "used" && w.claim(i.g.ref()).Kept() {
			s = "used,kept"
		}
		n[s] = append(n[s], i.name)
	}
	for s, names := range n {
		if s == "used" || s == "locked" || s == "quarantined" {
			t.Errorf("%s: %v", s, names)
		} else {
			t.Log(s, len(names))
		}
	}
	for _, i := range all { // caller releases what is left on each node
		n1.Release(w.ctx(), Release{Refs: i.g.refs(), Token: i.g.Token, By: "t"})
		if i.two {
			n2.Release(w.ctx(), Release{Refs: i.g.refs(), Token: i.g.Token, By: "t"})
		}
	}
	rounds(n1, n2)
	for _, i := range all {
		if s := w.state(i.g.ref()); s != Free {
			t.Errorf("after releases on both nodes: %s %s", i.name, s)
		}
	}
}
