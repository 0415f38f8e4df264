package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/idpool/idpool/test/e2e/robust/rig"
)

// list is a flag that may be given several times.
type list []string

func (l *list) String() string     { return strings.Join(*l, " ") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

// initMain is a machine's init: it makes the mounts, then starts and signals
// processes as it is told, reaps and reports their ends.
func initMain(args []string) error {
	flags := flag.NewFlagSet("init", flag.ContinueOnError)
	var tmpfs, binds list
	host := flags.String("host", "", "host name of the machine")
	proc := flags.Bool("proc", false, "mount /proc anew, for a pid namespace of our own")
	flags.Var(&tmpfs, "tmpfs", "DIR=SIZE: mount a tmpfs")
	flags.Var(&binds, "bind", "FILE=OVER: mount a file over another")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *proc || len(tmpfs)+len(binds) > 0 {
		if err := mounts(*proc, tmpfs, binds); err != nil {
			return err
		}
	}
	if *host != "" {
		if err := unix.Sethostname([]byte(*host)); err != nil {
			return fmt.Errorf("set the host name: %w", err)
		}
	}
	unix.CloseOnExec(rig.ControlFD)
	file := os.NewFile(rig.ControlFD, "control")
	conn, err := net.FileConn(file)
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	file.Close()
	return (&server{conn: conn.(*net.UnixConn), children: map[int]bool{}}).serve()
}

func mounts(proc bool, tmpfs, binds []string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	if proc {
		if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
			return fmt.Errorf("mount /proc: %w", err)
		}
	}
	for _, one := range tmpfs {
		dir, size, _ := strings.Cut(one, "=")
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0700,size="+size); err != nil {
			return fmt.Errorf("mount a tmpfs at %s: %w", dir, err)
		}
	}
	for _, one := range binds {
		from, over, _ := strings.Cut(one, "=")
		if err := unix.Mount(from, over, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s over %s: %w", from, over, err)
		}
	}
	return nil
}

type server struct {
	conn *net.UnixConn
	// mu is held while a process is started, signalled or reaped: so a pid in
	// children is always the child's own.
	mu       sync.Mutex
	children map[int]bool
}

// serve takes orders until the socket closes.
func (s *server) serve() error {
	died := make(chan os.Signal, 1)
	signal.Notify(died, syscall.SIGCHLD)
	// A machine has no end but its socket's.
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	go func() {
		for range died {
			s.reap()
		}
	}()
	buf, oob := make([]byte, 64<<10), make([]byte, unix.CmsgSpace(4*rig.MaxFiles))
	for {
		n, on, _, _, err := s.conn.ReadMsgUnix(buf, oob)
		if err != nil || n == 0 {
			return nil
		}
		files, err := received(oob[:on])
		var o rig.Order
		if err == nil {
			err = json.Unmarshal(buf[:n], &o)
		}
		r := rig.Report{}
		switch {
		case err != nil:
			r.Error = err.Error()
		case o.Op == rig.OpSpawn:
			r = s.spawn(o, files)
		case o.Op == rig.OpSignal:
			r = s.signal(o)
		default:
			r.Error = "unknown order " + o.Op
		}
		for _, f := range files {
			f.Close()
		}
		r.ID = o.ID
		if err := s.tell(r); err != nil {
			return nil
		}
	}
}

func (s *server) tell(r rig.Report) error {
	raw, err := json.Marshal(r)
	if err == nil {
		_, err = s.conn.Write(raw)
	}
	return err
}

// received are the files that came with a message.
func received(oob []byte) ([]*os.File, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return nil, err
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files, nil
}

func (s *server) spawn(o rig.Order, files []*os.File) rig.Report {
	if len(o.Argv) == 0 {
		return rig.Report{Error: "nothing to start"}
	}
	attr := &os.ProcAttr{Env: o.Env, Dir: "/", Files: files, Sys: &syscall.SysProcAttr{Setsid: true}}
	if o.Inner {
		attr.Sys.Cloneflags = syscall.CLONE_NEWPID | syscall.CLONE_NEWNS
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := os.StartProcess(o.Argv[0], o.Argv, attr)
	if err != nil {
		return rig.Report{Error: err.Error()}
	}
	defer func() { _ = p.Release() }()
	s.children[p.Pid] = true
	return rig.Report{PID: p.Pid}
}

func (s *server) signal(o rig.Order) rig.Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.children[o.PID] {
		return rig.Report{Gone: true}
	}
	if err := syscall.Kill(o.PID, syscall.Signal(o.Signal)); err != nil {
		return rig.Report{Error: err.Error()}
	}
	return rig.Report{PID: o.PID}
}

// reap takes what has ended: our children, and orphans that came to us.
func (s *server) reap() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid == 0 {
			return
		}
		if s.children[pid] {
			delete(s.children, pid)
			_ = s.tell(rig.Report{PID: pid, Status: uint32(status)})
		}
	}
}
