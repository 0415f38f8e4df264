package rig

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/idpool/idpool/api"
)

// Node is a machine with an agent, or the spare one without.
type Node struct {
	r       *Rig
	name    string
	address string
	dir     string
	m       *machine // holds its network and its disk
	clock   *clock
	client  *api.Client

	mu     sync.Mutex // guards the fields below
	system *machine   // what runs, nil while the node is off
	boot   int
	agent  *process
	procs  []*Proc
	shut   bool // its data is read-only
}

// dataSize is that of the file system of the agent's data.
const dataSize = "4m"

// Name is n1, n2, …; spare for the spare machine.
func (n *Node) Name() string { return n.name }

// Socket is the path of the agent's socket, the same inside and outside.
func (n *Node) Socket() string { return filepath.Join(n.dir, "s") }

// LogPath is the file with what agents and programs of the node wrote.
func (n *Node) LogPath() string { return filepath.Join(n.dir, "log") }

// API is a client of the agent, which asks from outside of the node as root.
func (n *Node) API() *api.Client { return n.client }

func (n *Node) disk() string { return filepath.Join(n.dir, "disk") }

// data is the agent's data directory.
func (n *Node) data() string { return filepath.Join(n.disk(), "agent") }

// fromOutside is a path of the node's file systems as this process reaches it.
func (n *Node) fromOutside(path string) string {
	return fmt.Sprintf("/proc/%d/root%s", n.m.hostPID(), path)
}

// newNode starts the machine, which has no network yet and is off.
func (r *Rig) newNode(name, address string) (*Node, error) {
	n := &Node{r: r, name: name, address: address, dir: filepath.Join(r.o.Dir, name)}
	n.client = api.New(api.Options{Agent: "unix://" + n.Socket()})
	if err := os.MkdirAll(n.disk(), 0o755); err != nil {
		return n, err
	}
	var err error
	if n.clock, err = newClock(filepath.Join(n.dir, "clock")); err != nil {
		return n, err
	}
	if err = os.WriteFile(n.machineID(), []byte(randomHex(16)+"\n"), 0o444); err != nil {
		return n, err
	}
	log, err := n.log()
	if err != nil {
		return n, err
	}
	defer log.Close()
	n.m, err = startMachine(name, machineFlags, log, r.resident(), "init", "-proc", "-host", name, "-tmpfs", n.disk()+"="+dataSize)
	return n, err
}

// GoroutinesFile is where the agent of a node of the rig in dir tells how many
// goroutines it has.
func GoroutinesFile(dir, node string) string { return filepath.Join(dir, node, "goroutines") }

func (n *Node) machineID() string { return filepath.Join(n.dir, "machine-id") }
func (n *Node) bootID() string    { return filepath.Join(n.dir, "boot-id") }

func (n *Node) log() (*os.File, error) {
	return os.OpenFile(n.LogPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
}

func randomHex(bytes int) string {
	raw := make([]byte, bytes)
	_, _ = rand.Read(raw) // never fails
	return hex.EncodeToString(raw)
}

// PowerOn boots the node, with another boot id than before; it starts no agent. On
// already is no error.
func (n *Node) PowerOn() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.system != nil {
		return nil
	}
	h := randomHex(16)
	id := strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-")
	if err := os.WriteFile(n.bootID(), []byte(id+"\n"), 0o644); err != nil {
		return err
	}
	log, err := n.log()
	if err != nil {
		return err
	}
	defer log.Close()
	argv := []string{n.r.resident(), "init", "-proc", "-bind", n.bootID() + "=/proc/sys/kernel/random/boot_id"}
	// Where the host has no machine id the agent keeps one beside its data.
	if _, err := os.Stat("/etc/machine-id"); err == nil {
		argv = append(argv, "-bind", n.machineID()+"=/etc/machine-id")
	}
	system, err := n.m.inner(n.name, log, argv...)
	if err != nil {
		return err
	}
	n.system, n.agent, n.procs, n.shut = system, nil, nil, false
	n.boot++
	n.r.say("%s: boot %d", n.name, n.boot)
	return nil
}

// PowerOff ends everything that runs on the node, at once. Its data stays. Off
// already is no error.
func (n *Node) PowerOff() {
	n.mu.Lock()
	system := n.system
	n.system = nil
	n.mu.Unlock()
	if system != nil {
		n.r.say("%s: power off", n.name)
		system.off()
	}
}

// Reboot ends everything that runs on the node and boots it with another boot id,
// its agent too, which need not be ready at once.
func (n *Node) Reboot(ctx context.Context) error {
	n.PowerOff()
	if err := n.PowerOn(); err != nil {
		return err
	}
	return n.AgentStart(ctx)
}

// Boot counts the node's boots, from 1: what was spawned in an earlier one is dead.
func (n *Node) Boot() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.boot
}

func (n *Node) running() (*machine, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.system == nil {
		return nil, fmt.Errorf("node %s: %w", n.name, errMachineOver)
	}
	return n.system, nil
}

func (n *Node) agentProcess() *process {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.agent
}

// AgentAlive tells whether the agent's process runs, paused or not.
func (n *Node) AgentAlive() bool { return n.agentProcess().alive() }

// AgentKill ends the agent with SIGKILL; none is no error.
func (n *Node) AgentKill() error {
	n.r.say("%s: agent killed", n.name)
	return n.agentProcess().kill()
}

// AgentStop ends the agent cleanly, with SIGTERM, and waits for its end.
func (n *Node) AgentStop(ctx context.Context) error {
	n.r.say("%s: agent stopped", n.name)
	if err := n.agentProcess().signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return n.AgentWait(ctx)
}

// AgentWait waits for the agent's end; the error tells any exit code but 0.
func (n *Node) AgentWait(ctx context.Context) error {
	p := n.agentProcess()
	if p == nil {
		return nil
	}
	return p.wait(ctx)
}

// AgentStart starts the agent, if none runs; it need not be ready at once.
func (n *Node) AgentStart(ctx context.Context) error { return n.AgentStartAs(ctx, n.name) }

// AgentStartAs starts the agent under a name, with the data that is on the node's
// disk.
func (n *Node) AgentStartAs(_ context.Context, name string) error {
	if n.AgentAlive() {
		return nil
	}
	system, err := n.running()
	if err != nil {
		return err
	}
	log, err := n.log()
	if err != nil {
		return err
	}
	defer log.Close()
	p, err := system.daemon(log, append(n.r.environ(), n.clock.env(), "IDPOOL_GOROUTINES="+GoroutinesFile(n.r.o.Dir, n.name)), filepath.Join(n.r.o.Bin, "poolagent"),
		"--node", name, "--endpoints", n.r.endpoints(), "--data", n.data(), "--socket", n.Socket(),
		"--lease-ttl", n.r.o.LeaseTTL.String(), "--scan-every", "300ms", "--accept-pid-namespace")
	if err != nil {
		return err
	}
	n.r.say("%s: agent started as %s", n.name, name)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.agent = p
	return nil
}

// AgentPause stops the agent's process with SIGSTOP.
func (n *Node) AgentPause() error {
	n.r.say("%s: agent paused", n.name)
	return n.agentProcess().signal(syscall.SIGSTOP)
}

// AgentResume lets it go on.
func (n *Node) AgentResume() error {
	n.r.say("%s: agent resumed", n.name)
	return n.agentProcess().signal(syscall.SIGCONT)
}

// Ready waits until the agent may grant: also for one that has ended, since
// somebody may start it.
func (n *Node) Ready(ctx context.Context) error {
	return eventually(ctx, "agent of "+n.name+" is ready", n.ready)
}

// Supervise is [Node.Ready] that starts the agent whenever it has ended, as a
// supervisor does.
func (n *Node) Supervise(ctx context.Context) error {
	return eventually(ctx, "agent of "+n.name+" is ready", func(ctx context.Context) error {
		return cmp.Or(n.AgentStart(ctx), n.ready(ctx))
	})
}

func (n *Node) ready(ctx context.Context) error {
	if !n.AgentAlive() {
		return fmt.Errorf("no agent runs (%v): %s", n.AgentWait(ctx), n.lastWords())
	}
	st, err := n.client.Status(ctx)
	if err == nil && !st.Ready {
		err = fmt.Errorf("not ready: %v", st.NotReady)
	}
	return err
}

// lastWords is the end of the node's log.
func (n *Node) lastWords() string {
	raw, err := os.ReadFile(n.LogPath())
	if err != nil {
		return err.Error()
	}
	return string(raw[max(0, len(raw)-600):])
}

// Spawn starts a program in the node, as root. One without a slash is of
// Options.Bin. Its environment has IDPOOL_AGENT, its stderr goes to the node's log.
func (n *Node) Spawn(_ context.Context, argv ...string) (*Proc, error) {
	system, err := n.running()
	if err != nil {
		return nil, err
	}
	argv = slices.Clone(argv)
	if !strings.Contains(argv[0], "/") {
		argv[0] = filepath.Join(n.r.o.Bin, argv[0])
	}
	log, err := n.log()
	if err != nil {
		return nil, err
	}
	defer log.Close()
	inR, inW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer inR.Close()
	outR, outW, err := os.Pipe()
	if err != nil {
		inW.Close()
		return nil, err
	}
	defer outW.Close()
	p, err := system.start(Order{Argv: argv, Env: append(n.r.environ(), "IDPOOL_AGENT=unix://"+n.Socket())}, inR, outW, log)
	if err != nil {
		inW.Close()
		outR.Close()
		return nil, err
	}
	proc := &Proc{Stdin: inW, Stdout: outR, node: n, process: p}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.procs = append(slices.DeleteFunc(n.procs, func(p *Proc) bool { return !p.Alive() }), proc)
	return proc, nil
}

// Procs are the living processes that Spawn started, the oldest first: the
// requesters.
func (n *Node) Procs() []*Proc {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.procs = slices.DeleteFunc(n.procs, func(p *Proc) bool { return !p.Alive() })
	return slices.Clone(n.procs)
}

// Proc is a process that Spawn started.
type Proc struct {
	// Stdin and Stdout are the process's; the caller closes them.
	Stdin  io.WriteCloser
	Stdout io.ReadCloser

	node    *Node
	process *process
}

// Node is where it runs.
func (p *Proc) Node() *Node { return p.node }

// PID is its pid in the node.
func (p *Proc) PID() int { return p.process.pid }

// Signal sends it a signal; [os.ErrProcessDone] if it has ended.
func (p *Proc) Signal(s syscall.Signal) error { return p.process.signal(s) }

// Done is closed when the process has ended.
func (p *Proc) Done() <-chan struct{} { return p.process.done }

// Wait waits for its end; the error tells any exit code but 0.
func (p *Proc) Wait(ctx context.Context) error { return p.process.wait(ctx) }

// Alive tells whether it has not ended.
func (p *Proc) Alive() bool { return p.process.alive() }
