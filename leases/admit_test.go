package leases

import (
	"strings"
	"testing"
	"time"

	"github.com/idpool/idpool/problem"
)

func TestAdmit(t *testing.T) {
	id := Identity{Node: "n", Role: RoleNode, Machine: "m", Boot: "b2", PIDNS: 7}
	mem := memory{Nonce: "now", Counter: 4, PriorNonce: "prior", PriorCounter: 2}
	node := func(change func(*Node)) *Node {
		n := &Node{State: nodeActive, Role: RoleNode, Machine: "m", Boot: "b2", PIDNS: 7, Secret: "s"}
		change(n)
		return n
	}
	same := func(*Node) {}
	alive := func(change func(*Alive)) *Alive {
		a := &Alive{Nonce: "now", Counter: 4, Machine: "m", Secret: "s"}
		change(a)
		return a
	}
	mine := func(*Alive) {}
	for _, c := range []struct {
		name                     string
		node                     *Node
		alive                    *Alive
		register, takeOver, wait bool
		refused                  string
	}{
		{"a new node", nil, nil, true, false, false, ""},
		{"known, nobody there", node(same), nil, false, false, false, ""},
		{"own ghost", node(same), alive(mine), false, true, false, ""},
		{"own ghost before a raise that was not written", node(same), alive(func(a *Alive) { a.Counter = 3 }), false, true, false, ""},
		{"own ghost before an entry that was not written", node(same), alive(func(a *Alive) { a.Nonce, a.Counter = "prior", 2 }), false, true, false, ""},
		{"the prior session ahead of us", node(same), alive(func(a *Alive) { a.Nonce, a.Counter = "prior", 3 }), false, false, false, "cloned or rolled back"},
		{"ahead of us", node(same), alive(func(a *Alive) { a.Counter = 5 }), false, false, false, "cloned or rolled back"},
		{"another session of our secret", node(same), alive(func(a *Alive) { a.Nonce = "x" }), false, false, false, "cloned or rolled back"},
		{"another's presence, other secret", node(same), alive(func(a *Alive) { a.Secret = "x" }), false, false, true, "run by another agent"},
		{"another's presence, other machine", nil, alive(func(a *Alive) { a.Machine = "x" }), false, false, true, "run by another agent"},
		{"fenced", node(func(n *Node) { n.State = nodeFenced }), nil, false, false, false, "is fenced"},
		{"unfenced in the fenced boot", node(func(n *Node) { n.State, n.FencedBoot = nodeLeft, "b2" }), nil, false, false, false, "reboot"},
		{"unfenced and rebooted", node(func(n *Node) { n.State, n.FencedBoot, n.Boot = nodeLeft, "b1", "b1" }), nil, true, false, false, ""},
		{"left and back", node(func(n *Node) { n.State = nodeLeft }), nil, true, false, false, ""},
		{"left, another machine takes the name", node(func(n *Node) { n.State, n.Machine, n.Secret = nodeLeft, "x", "x" }), nil, true, false, false, ""},
		{"another machine", node(func(n *Node) { n.Machine = "x" }), nil, false, false, false, "another machine"},
		{"another data directory", node(func(n *Node) { n.Secret = "x" }), nil, false, false, false, "another machine or data directory"},
		{"rebooted", node(func(n *Node) { n.Boot = "b1" }), nil, true, false, false, ""},
		{"rebooted before the lease ended, or a copy beside the original", node(func(n *Node) { n.Boot = "b1" }), alive(mine), false, false, true, "one of the two is a copy"},
		{"the same in another pid namespace", node(func(n *Node) { n.PIDNS = 8 }), alive(mine), false, false, true, "one of the two is a copy"},
		{"another pid namespace", node(func(n *Node) { n.PIDNS = 8 }), nil, true, false, false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := admit(id, "s", mem, c.node, c.alive, time.Unix(0, 0))
			if (a.register != nil) != c.register || a.takeOver != c.takeOver || (a.wait > 0) != c.wait {
				t.Errorf("register %v, takeOver %v, wait %v; want %v, %v, %v", a.register != nil, a.takeOver, a.wait > 0, c.register, c.takeOver, c.wait)
			}
			text := ""
			if a.err != nil {
				mustErr(t, a.err, problem.ErrFenced)
				for _, adv := range a.err.(*problem.Error).Try {
					text += adv.When + " " + adv.Command + " "
				}
				text = a.err.Error() + " " + text
			}
			if (a.err != nil) != (c.refused != "") || !strings.Contains(text, c.refused) {
				t.Errorf("refusal %q, want %q", text, c.refused)
			}
		})
	}
}

// TestAdmitARemovedNode: removed in this boot without having left, it stays away
// (rule 13); after a reboot, or if it had left, it is a new node.
func TestAdmitARemovedNode(t *testing.T) {
	id := Identity{Node: "n", Role: RoleNode, Machine: "m", Boot: "b2"}
	for _, c := range []struct {
		name    string
		mem     memory
		refused bool
	}{
		{"removed in this boot", memory{Boot: "b2"}, true},
		{"removed, then rebooted", memory{Boot: "b1"}, false},
		{"left, then removed", memory{Boot: "b2", Left: true}, false},
		{"never registered", memory{}, false},
	} {
		a := admit(id, "s", c.mem, nil, nil, time.Unix(0, 0))
		if (a.err != nil) != c.refused || (a.register == nil) != c.refused {
			t.Errorf("%s: %+v, want refused %v", c.name, a, c.refused)
		}
		if c.refused {
			mustErr(t, a.err, problem.ErrFenced)
		}
	}
}

func TestAdmitRegistersWhatItIs(t *testing.T) {
	id := Identity{Node: "n", Role: RoleGateway, Machine: "m", Boot: "b", PIDNS: 7}
	n := admit(id, "s", memory{}, nil, nil, time.Unix(5, 0)).register
	if n == nil || n.State != nodeActive || n.Role != RoleGateway || n.Machine != "m" || n.Boot != "b" || n.PIDNS != 7 || n.Secret != "s" || n.FencedBoot != "" {
		t.Errorf("registers %+v", n)
	}
}
