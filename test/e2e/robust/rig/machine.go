package rig

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// machine is a set of namespaces with the init that holds them. The init ends when
// its control socket closes, and then all that runs on the machine.
type machine struct {
	name string
	conn *net.UnixConn
	// cmd is the init where this process started it: then pid is of our namespace.
	cmd *exec.Cmd
	// outer started the init where cmd is nil.
	outer *machine
	self  *process
	// told is closed when the last report was taken, after the end.
	told chan struct{}

	mu sync.Mutex // guards the fields below
	// last numbers the orders; waits are those without an answer.
	last  int
	waits map[int]chan Report
	procs map[int]*process
	// early are ends that were told before the answer to the spawn was seen.
	early map[int]uint32
	over  bool
}

// process runs on a machine.
type process struct {
	m      *machine
	pid    int // on its machine
	done   chan struct{}
	status syscall.WaitStatus // once done is closed
}

// orderTimeout bounds an order: an init is never paused.
const orderTimeout = 10 * time.Second

var errMachineOver = errors.New("the machine is off")

// controlPair makes a control socket: ours, and the init's.
func controlPair() (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("control socket: %w", err)
	}
	mine, theirs := os.NewFile(uintptr(fds[0]), "control"), os.NewFile(uintptr(fds[1]), "control of init")
	defer mine.Close()
	c, err := net.FileConn(mine)
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("control socket: %w", err)
	}
	return c.(*net.UnixConn), theirs, nil
}

// startMachine starts an init as a child of this process, in new namespaces.
func startMachine(name string, flags uintptr, log *os.File, argv ...string) (*machine, error) {
	conn, theirs, err := controlPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Setsid: true}
	if err := cmd.Start(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("machine %s: %w", name, err)
	}
	m := newMachine(name, conn)
	m.cmd = cmd
	return m, m.greeted()
}

// inner starts an init below this machine's, in a pid and mount namespace of its
// own: what a reboot ends.
func (m *machine) inner(name string, log *os.File, argv ...string) (*machine, error) {
	conn, theirs, err := controlPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		conn.Close()
		return nil, err
	}
	defer null.Close()
	p, err := m.start(Order{Argv: argv, Env: os.Environ(), Inner: true}, null, log, log, theirs)
	if err != nil {
		conn.Close()
		return nil, err
	}
	in := newMachine(name, conn)
	in.outer, in.self = m, p
	return in, in.greeted()
}

func newMachine(name string, conn *net.UnixConn) *machine {
	m := &machine{name: name, conn: conn, waits: map[int]chan Report{}, procs: map[int]*process{}, early: map[int]uint32{}, told: make(chan struct{})}
	go m.listen()
	return m
}

// greeted waits until the init has made its mounts and takes orders.
func (m *machine) greeted() error {
	r, err := m.order(Order{Op: OpSignal, PID: 0}) // names no process: Gone
	if err == nil && !r.Gone {
		err = errors.New("init answers strangely")
	}
	if err != nil {
		m.off()
		return fmt.Errorf("machine %s: %w", m.name, err)
	}
	return nil
}

// listen takes reports until the init ends.
func (m *machine) listen() {
	defer close(m.told)
	buf := make([]byte, maxMessage)
	for {
		n, err := m.conn.Read(buf)
		if err != nil || n == 0 {
			break
		}
		var r Report
		if json.Unmarshal(buf[:n], &r) != nil {
			break
		}
		m.take(r)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.over = true
	for _, w := range m.waits {
		close(w)
	}
	m.waits = nil
	for pid, p := range m.procs {
		m.ended(pid, p, uint32(syscall.SIGKILL))
	}
}

func (m *machine) take(r Report) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r.ID != 0 {
		if w := m.waits[r.ID]; w != nil {
			delete(m.waits, r.ID)
			w <- r
		}
		return
	}
	if p := m.procs[r.PID]; p != nil {
		m.ended(r.PID, p, r.Status)
	} else {
		m.early[r.PID] = r.Status
	}
}

// ended notes the end of a process; mu is held.
func (m *machine) ended(pid int, p *process, status uint32) {
	delete(m.procs, pid)
	p.status = syscall.WaitStatus(status)
	close(p.done)
}

func (m *machine) order(o Order, files ...*os.File) (Report, error) {
	m.mu.Lock()
	if m.over {
		m.mu.Unlock()
		return Report{}, errMachineOver
	}
	m.last++
	o.ID = m.last
	wait := make(chan Report, 1)
	m.waits[o.ID] = wait
	m.mu.Unlock()
	var rights []byte
	if len(files) > 0 {
		var fds []int
		for _, f := range files {
			fds = append(fds, int(f.Fd()))
		}
		rights = unix.UnixRights(fds...)
	}
	if _, _, err := m.conn.WriteMsgUnix(encode(o), rights, nil); err != nil {
		return Report{}, fmt.Errorf("%w: %v", errMachineOver, err)
	}
	late := time.NewTimer(orderTimeout)
	defer late.Stop()
	select {
	case r, ok := <-wait:
		switch {
		case !ok:
			return Report{}, errMachineOver
		case r.Error != "":
			return r, fmt.Errorf("machine %s: %s", m.name, r.Error)
		}
		return r, nil
	case <-late.C:
		return Report{}, fmt.Errorf("machine %s did not answer within %v", m.name, orderTimeout)
	}
}

// start starts a process; files are its descriptors from 0 on.
func (m *machine) start(o Order, files ...*os.File) (*process, error) {
	o.Op = OpSpawn
	r, err := m.order(o, files...)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", o.Argv[0], err)
	}
	p := &process{m: m, pid: r.PID, done: make(chan struct{})}
	m.mu.Lock()
	defer m.mu.Unlock()
	if status, ok := m.early[r.PID]; ok {
		delete(m.early, r.PID)
		m.ended(r.PID, p, status)
	} else if m.over {
		m.ended(r.PID, p, uint32(syscall.SIGKILL))
	} else {
		m.procs[r.PID] = p
	}
	return p, nil
}

// daemon starts a process without input whose output goes to a log.
func (m *machine) daemon(log *os.File, env []string, argv ...string) (*process, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	return m.start(Order{Argv: argv, Env: env}, null, log, log)
}

// run runs a short command to its end.
func (m *machine) run(argv ...string) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	p, err := m.daemon(w, os.Environ(), argv...)
	w.Close()
	if err != nil {
		return err
	}
	text, _ := io.ReadAll(io.LimitReader(r, 4096))
	<-p.done
	if p.status != 0 {
		return fmt.Errorf("on %s, %v: %v: %s", m.name, argv, exitText(p.status), text)
	}
	return nil
}

// off ends the machine and all that runs on it, and waits for its end.
func (m *machine) off() {
	if m.outer != nil {
		_ = m.self.signal(syscall.SIGKILL)
		<-m.self.done
	} else if m.cmd != nil {
		_ = m.cmd.Process.Kill()
		_ = m.cmd.Wait()
	}
	_ = m.conn.Close()
	<-m.told
}

// hostPID is the init's pid in this process's namespace.
func (m *machine) hostPID() int { return m.cmd.Process.Pid }

// signal sends a signal; [os.ErrProcessDone] if the process has ended.
func (p *process) signal(s syscall.Signal) error {
	if !p.alive() {
		return os.ErrProcessDone
	}
	r, err := p.m.order(Order{Op: OpSignal, PID: p.pid, Signal: int(s)})
	if errors.Is(err, errMachineOver) || r.Gone {
		return os.ErrProcessDone
	}
	return err
}

func (p *process) alive() bool {
	if p == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// wait waits for the end; the error tells any exit code but 0.
func (p *process) wait(ctx context.Context) error {
	select {
	case <-p.done:
	case <-ctx.Done():
		return fmt.Errorf("process %d of %s has not ended: %w", p.pid, p.m.name, context.Cause(ctx))
	}
	if p.status != 0 {
		return errors.New(exitText(p.status))
	}
	return nil
}

// kill ends it with SIGKILL and waits for its end; none is no error.
func (p *process) kill() error {
	if p == nil {
		return nil
	}
	if err := p.signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-p.done
	return nil
}

func exitText(s syscall.WaitStatus) string {
	if s.Signaled() {
		return "ended by " + s.Signal().String()
	}
	return fmt.Sprintf("exit code %d", s.ExitStatus())
}
