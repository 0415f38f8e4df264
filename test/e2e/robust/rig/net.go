package rig

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Net drops and slows what members and nodes, called by their names, send each
// other. Disturbances add up; each is healed by what began it.
type Net struct {
	hub   *machine // its network namespace has the bridge
	ports []port

	mu sync.Mutex // guards the fields below, and the bridge's rules
	// last numbers the disturbances; rules are those that stand.
	last  int
	rules map[int][]string
}

// port is a machine's place at the bridge.
type port struct {
	name, address string
	pid           int // of its init
}

// bridgeBits is the length of the network's prefix.
const bridgeBits = 24

func memberAddress(i int) string { return fmt.Sprintf("10.77.0.%d", 10+i) }
func nodeAddress(i int) string   { return fmt.Sprintf("10.77.0.%d", 100+i) }

// startNet makes the bridge and connects the ports.
func startNet(hub *machine, ports []port) (*Net, error) {
	n := &Net{hub: hub, ports: ports, rules: map[int][]string{}}
	var b strings.Builder
	fmt.Fprintln(&b, "link add br0 type bridge stp_state 0 forward_delay 0\nlink set br0 up")
	for _, p := range ports {
		fmt.Fprintf(&b, "link add %s type veth peer name eth0 netns %d\nlink set %s master br0 up\n", p.name, p.pid, p.name)
	}
	if err := inNet(hub.hostPID(), b.String(), "ip", "-batch", "-"); err != nil {
		return nil, err
	}
	for _, p := range ports {
		script := fmt.Sprintf("link set lo up\naddr add %s/%d dev eth0\nlink set eth0 up\n", p.address, bridgeBits)
		if err := inNet(p.pid, script, "ip", "-batch", "-"); err != nil {
			return nil, err
		}
	}
	return n, n.apply()
}

// inNet runs a tool in the network namespace of a process, and only there: its
// /proc and file system are ours.
func inNet(pid int, stdin string, argv ...string) error {
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread is in another namespace and ends with us.
		runtime.LockOSThread()
		done <- func() error {
			ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
			if err != nil {
				return err
			}
			defer ns.Close()
			if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("enter a network: %w", err)
			}
			cmd := exec.Command(argv[0], argv[1:]...)
			cmd.Stdin = strings.NewReader(stdin)
			cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("%v: %w: %s", argv, err, out)
			}
			return nil
		}()
	}()
	return <-done
}

func (n *Net) port(name string) (port, error) {
	i := slices.IndexFunc(n.ports, func(p port) bool { return p.name == name })
	if i < 0 {
		return port{}, fmt.Errorf("the network knows no %q", name)
	}
	return n.ports[i], nil
}

// apply makes the bridge's rules those that stand; mu is held.
func (n *Net) apply() error {
	var b strings.Builder
	b.WriteString("table bridge rig\ndelete table bridge rig\ntable bridge rig {\nchain c {\ntype filter hook forward priority 0\n")
	for _, rules := range n.rules {
		for _, rule := range rules {
			b.WriteString(rule + " drop\n")
		}
	}
	b.WriteString("}\n}\n")
	return inNet(n.hub.hostPID(), b.String(), "nft", "-f", "-")
}

// drop adds rules about ports, by their names; heal removes them again.
func (n *Net) drop(names []string, rules []string) (heal func() error, err error) {
	for _, name := range names {
		if _, err := n.port(name); err != nil {
			return nil, err
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.last++
	id := n.last
	n.rules[id] = rules
	heal = func() error {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.rules, id)
		return n.apply()
	}
	if err := n.apply(); err != nil {
		delete(n.rules, id)
		return nil, err
	}
	return heal, nil
}

// Cut drops all that any of from sends to any of to, in this direction alone.
func (n *Net) Cut(from, to []string) (heal func() error, err error) {
	var rules []string
	for _, f := range from {
		for _, t := range to {
			rules = append(rules, fmt.Sprintf("iifname %q oifname %q", f, t))
		}
	}
	return n.drop(slices.Concat(from, to), rules)
}

// Isolate drops all that one sends and all that is sent to it.
func (n *Net) Isolate(name string) (heal func() error, err error) {
	return n.drop([]string{name}, []string{fmt.Sprintf("iifname %q", name), fmt.Sprintf("oifname %q", name)})
}

// Lossy drops a percentage, 1 to 99, of the packets that one sends, and as much of
// those that are sent to it.
func (n *Net) Lossy(name string, percent int) (heal func() error, err error) {
	if percent < 1 || percent > 99 {
		return nil, fmt.Errorf("a link that loses %d %% is no lossy link", percent)
	}
	some := fmt.Sprintf("numgen random mod 100 < %d", percent)
	return n.drop([]string{name}, []string{fmt.Sprintf("iifname %q %s", name, some), fmt.Sprintf("oifname %q %s", name, some)})
}

// Slow limits what one sends, and what is sent to it, to a rate in bytes a second;
// what had to wait for longer than latency is dropped.
func (n *Net) Slow(name string, rate int, latency time.Duration) (heal func() error, err error) {
	p, err := n.port(name)
	if err != nil {
		return nil, err
	}
	shape := func(args ...string) error {
		return errors.Join(
			inNet(n.hub.hostPID(), "", slices.Concat([]string{"tc", "qdisc", args[0], "dev", name, "root"}, args[1:])...),
			inNet(p.pid, "", slices.Concat([]string{"tc", "qdisc", args[0], "dev", "eth0", "root"}, args[1:])...))
	}
	heal = func() error { return shape("del") }
	err = shape("replace", "tbf", "rate", fmt.Sprintf("%dbps", rate), "burst", "3000", "latency", fmt.Sprintf("%dms", latency.Milliseconds()))
	if err != nil {
		return nil, errors.Join(err, heal())
	}
	return heal, nil
}

// Break ends all connections of a node or member at once, as far as it knows
// itself; its peers learn of it by the packets that the network lets through.
func (n *Net) Break(name string) error {
	p, err := n.port(name)
	if err != nil {
		return err
	}
	return inNet(p.pid, "", "ss", "-K", "-t", "state", "established")
}
