package uidpool

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The tests run real processes: this test binary again, told by this variable
// what to become. A helper prints one line when it is ready and ends when its
// standard input does.
const helperEnv = "IDPOOL_PROC_HELPER"

// helperTask is what a helper is told.
type helperTask struct {
	Kind string
	// UIDs are real, effective, saved and filesystem uid of the task to make.
	UIDs [4]uint32
	// Clone are further flags of the child that is made.
	Clone       uintptr
	NonDumpable bool
	Exit        bool
	Root        string
	Accept      bool
}

func init() {
	text := os.Getenv(helperEnv)
	if text == "" {
		return
	}
	var task helperTask
	if err := json.Unmarshal([]byte(text), &task); err != nil {
		helperFails(err)
	}
	kinds := map[string]func(helperTask){
		"process": helpProcess, "thread": helpThread, "leader": helpLeader,
		"block": func(helperTask) { helperReady(os.Getpid()); awaitEOF() },
		"storm": helpStorm, "churn": helpChurn, "container": helpContainer, "view": helpView, "orphan": helpOrphan,
	}
	kinds[task.Kind](task)
	os.Exit(0)
}

func helperFails(err error) {
	fmt.Println("failed:", err)
	os.Exit(1)
}

func helperReady(id int) { fmt.Println(id) }

func awaitEOF() { _, _ = io.Copy(io.Discard, os.Stdin) }

// become gives the calling thread alone the uids. It and the functions that
// call it in a fork use nothing of the runtime.
//
//go:norace
//go:nosplit
func become(uids *[4]uint32) {
	syscall.RawSyscall(syscall.SYS_SETRESUID, uintptr(uids[0]), uintptr(uids[1]), uintptr(uids[2]))
	syscall.RawSyscall(syscall.SYS_SETFSUID, uintptr(uids[3]), 0, 0)
}

// rawChild is the whole life of a forked child.
//
//go:norace
//go:nosplit
func rawChild(task *helperTask, ready int, line *[1]byte) {
	become(&task.UIDs)
	if task.NonDumpable {
		syscall.RawSyscall(syscall.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0, 0)
	}
	syscall.RawSyscall(syscall.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0)
	rawWrite(ready, line)
	for !task.Exit {
		syscall.RawSyscall6(syscall.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
	}
	syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
}

func helpProcess(task helperTask) {
	runtime.LockOSThread()
	var pipe [2]int
	if err := unix.Pipe(pipe[:]); err != nil {
		helperFails(err)
	}
	var line [1]byte
	pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD)|task.Clone, 0, 0, 0, 0, 0)
	if errno != 0 {
		helperFails(errno)
	}
	if pid == 0 {
		rawChild(&task, pipe[1], &line)
	}
	_, _ = unix.Read(pipe[0], line[:])
	if task.Exit {
		// Wait for the zombie, and leave it.
		if err := unix.Waitid(unix.P_PID, int(pid), nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
			helperFails(err)
		}
	}
	helperReady(int(pid))
	awaitEOF()
	_ = unix.Kill(int(pid), unix.SIGKILL)
	_, _ = unix.Wait4(int(pid), nil, 0, nil)
}

func helpThread(task helperTask) {
	ready := make(chan int)
	go func() {
		runtime.LockOSThread()
		become(&task.UIDs)
		ready <- unix.Gettid()
		select {}
	}()
	helperReady(<-ready)
	awaitEOF()
}

// helpChurn hands the uids from thread to thread: each one that has them ends
// when the next one has them too. A goroutine that ends with its thread locked
// takes the thread along.
func helpChurn(task helperTask) {
	links := 0
	ready := make(chan struct{})
	var link func(arrived chan<- struct{})
	link = func(arrived chan<- struct{}) {
		runtime.LockOSThread()
		become(&task.UIDs)
		arrived <- struct{}{}
		if links++; links == 20 {
			close(ready)
		}
		next := make(chan struct{})
		go link(next)
		<-next
	}
	first := make(chan struct{})
	go link(first)
	<-first
	<-ready
	helperReady(os.Getpid())
	awaitEOF()
}

// helpLeader lets the leader exit while a thread with the uids lives.
func helpLeader(task helperTask) {
	runtime.LockOSThread() // init runs on the leader
	ready := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		become(&task.UIDs)
		close(ready)
		var buf [1]byte
		syscall.RawSyscall(syscall.SYS_READ, 0, addr(&buf), 1)
		syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
	}()
	<-ready
	helperReady(os.Getpid())
	syscall.RawSyscall(syscall.SYS_EXIT, 0, 0, 0)
}

// helpStorm keeps one process under the uids that lives on by forking: each
// child forks and its parent exits, until standard input ends.
func helpStorm(task helperTask) {
	runtime.LockOSThread()
	signal.Ignore(syscall.SIGCHLD) // orphans come to us and leave no zombie
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		helperFails(err)
	}
	if err := unix.SetNonblock(0, true); err != nil {
		helperFails(err)
	}
	var pipe [2]int
	if err := unix.Pipe(pipe[:]); err != nil {
		helperFails(err)
	}
	var line [1]byte
	pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		helperFails(errno)
	}
	if pid == 0 {
		rawStorm(&task.UIDs, pipe[1], &line)
	}
	_, _ = unix.Read(pipe[0], line[:])
	helperReady(int(pid))
	// Ends when no descendant is left.
	for err := error(nil); err != unix.ECHILD; {
		_, err = unix.Wait4(-1, nil, 0, nil)
	}
}

//go:norace
//go:nosplit
func rawStorm(uids *[4]uint32, ready int, line *[1]byte) {
	become(uids)
	rawWrite(ready, line)
	for range 5_000_000 {
		// End of file on the non-blocking pipe is 0; else it is EAGAIN.
		if n, _, errno := syscall.RawSyscall(syscall.SYS_READ, 0, addr(line), 1); n == 0 && errno == 0 {
			break
		}
		pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
		if pid != 0 && errno == 0 {
			break
		}
	}
	syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
}

// helpOrphan prints its own identity, forks a child into its session and exits
// at end of input; the child stays until its own copy of input ends too.
func helpOrphan(helperTask) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), helperEnv+`={"Kind":"block"}`)
	cmd.Stdin = os.NewFile(3, "input of the child")
	out, err := cmd.StdoutPipe()
	if err != nil {
		helperFails(err)
	}
	if err := cmd.Start(); err != nil {
		helperFails(err)
	}
	line, _ := bufio.NewReader(out).ReadString('\n')
	fmt.Print(line)
	awaitEOF()
}

func helpView(task helperTask) {
	r, err := NewReader(ReaderOptions{Root: task.Root, AcceptPIDNamespace: task.Accept})
	if err != nil {
		helperFails(err)
	}
	answer := "ok"
	if err := r.View(); err != nil {
		answer = err.Error()
	}
	fmt.Println(answer)
	awaitEOF()
}

// helper is a running helper.
type helper struct {
	cmd   *exec.Cmd
	stdin io.Closer
	line  string
}

// id is the number that the helper printed.
func (h *helper) id(t testing.TB) int {
	t.Helper()
	n, err := strconv.Atoi(h.line)
	if err != nil {
		t.Fatalf("helper says %q", h.line)
	}
	return n
}

// end lets the helper exit and waits for that.
func (h *helper) end() {
	_ = h.stdin.Close()
	_ = h.cmd.Wait()
}

// startHelper starts a helper and waits until it is ready.
func startHelper(t testing.TB, task helperTask, adjust ...func(*exec.Cmd)) *helper {
	t.Helper()
	text, err := json.Marshal(task)
	if err != nil {
		t.Fatal(err)
	}
	// A thread in a raw system call stops for no garbage collection, which would
	// wait for it for ever: there is none. Should a helper hang all the same before
	// it is ready, another try does not.
	for range helperTries {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), helperEnv+"="+string(text), "GOMAXPROCS=4", "GOGC=off")
		if h := tryCommand(t, cmd, adjust...); h != nil {
			return h
		}
	}
	t.Fatalf("helper %s was not ready in %d tries", task.Kind, helperTries)
	return nil
}

const (
	helperTries = 5
	readyWithin = 10 * time.Second
)

// startStorm starts the storm: the C program where there is a compiler, since
// it forks ten times as often, else a helper.
func startStorm(t testing.TB, uids [4]uint32) *helper {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "storm")
	out, err := exec.Command("cc", "-O1", "-o", binary, "testdata/storm.c").CombinedOutput()
	if err != nil {
		t.Logf("no C compiler, the storm is milder: %v %s", err, out)
		return startHelper(t, helperTask{Kind: "storm", UIDs: uids})
	}
	cmd := exec.Command(binary)
	for _, u := range uids {
		cmd.Args = append(cmd.Args, strconv.FormatUint(uint64(u), 10))
	}
	return startCommand(t, cmd)
}

func startCommand(t testing.TB, cmd *exec.Cmd, adjust ...func(*exec.Cmd)) *helper {
	t.Helper()
	h := tryCommand(t, cmd, adjust...)
	if h == nil {
		t.Fatalf("%v was not ready in time", cmd)
	}
	return h
}

// tryCommand starts a command and waits until it says that it is ready; nil if it
// hangs, and then it is ended.
func tryCommand(t testing.TB, cmd *exec.Cmd, adjust ...func(*exec.Cmd)) *helper {
	t.Helper()
	cmd.Stderr = os.Stderr
	for _, f := range adjust {
		f(cmd)
	}
	h := &helper{cmd: cmd}
	var err error
	if h.stdin, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %v: %v", cmd, err)
	}
	hung := time.AfterFunc(readyWithin, func() { _ = cmd.Process.Kill() })
	h.line, err = bufio.NewReader(out).ReadString('\n')
	if !hung.Stop() {
		h.end()
		return nil
	}
	t.Cleanup(h.end)
	h.line = strings.TrimSpace(h.line)
	if err != nil || strings.HasPrefix(h.line, "failed") {
		t.Fatalf("%v says %q, %v", cmd, h.line, err)
	}
	return h
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: starts processes under other uids")
	}
}

// needView skips where this machine cannot prove anything.
func needView(t testing.TB) *Reader {
	t.Helper()
	r, err := NewReader(ReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.View(); err != nil {
		t.Skipf("this environment does not see the machine's processes: %v", err)
	}
	return r
}
