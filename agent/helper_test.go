package agent_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to run a process under another uid")
	}
}

// helper is a process of ours, this test binary in another role.
type helper struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// spawn runs a helper, under uid and gid if they are not 0. It ends at the end of
// its input at the latest.
func spawn(t testing.TB, kind string, uid, gid uint32, groups []uint32, args ...string) *helper {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	if uid != 0 {
		exe, err := executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Path = exe
	}
	cmd.Env = []string{"IDPOOL_AGENT_TEST=" + kind}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if uid != 0 || gid != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: gid, Groups: groups}
	}
	var errs bytes.Buffer
	cmd.Stderr = &errs
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h := &helper{cmd, in, bufio.NewReader(out)}
	t.Cleanup(func() {
		h.end()
		if errs.Len() > 0 {
			t.Logf("helper %s: %s", kind, &errs)
		}
	})
	return h
}

// copyPath is where executable puts its copy.
var copyPath = filepath.Join(os.TempDir(), "idpool-agent-test-"+strconv.Itoa(os.Getpid()))

// executable is a copy of the test binary that every user may execute.
var executable = sync.OnceValues(func() (string, error) {
	data, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return "", err
	}
	return copyPath, os.WriteFile(copyPath, data, 0o755)
})

func (h *helper) line(t testing.TB) string {
	t.Helper()
	text, err := h.out.ReadString('\n')
	if err != nil {
		t.Fatalf("helper said %q: %v", text, err)
	}
	return strings.TrimSpace(text)
}

func (h *helper) end() {
	_ = h.in.Close()
	_ = h.cmd.Wait()
}

// kill ends it at once and reaps it.
func (h *helper) kill() {
	_ = h.cmd.Process.Kill()
	_ = h.cmd.Wait()
}

// helperMain is what helpers do.
func helperMain(kind string) int {
	switch kind {
	case "block": // says its pid, waits for the end of its input
		fmt.Println(os.Getpid())
		_, _ = io.Copy(io.Discard, os.Stdin)
	case "parent": // starts a child under the uid told on its input, in our session
		fmt.Println(os.Getpid())
		in := bufio.NewScanner(os.Stdin)
		for in.Scan() {
			uid, _ := strconv.ParseUint(in.Text(), 10, 32)
			child := exec.Command("/bin/sleep", "1000")
			child.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
			if err := child.Start(); err != nil {
				fmt.Println(err)
				return 1
			}
			fmt.Println(child.Process.Pid)
		}
	case "leave":
		return leaveBehind(os.Args[1])
	case "hold":
		return holdMain(os.Args[1], os.Args[2])
	case "close":
		return closeMain(os.Args[1])
	case "connect": // so many idle connections, until the end of its input
		return connectMain(os.Args[1], os.Args[2])
	case "call": // one call a line: METHOD PATH [IF-MATCH [BODY]]; answers STATUS and one line
		return helperCalls(os.Args[1])
	}
	return 0
}

func helperCalls(socket string) int {
	c := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		f := append(strings.SplitN(in.Text(), " ", 4), "", "")
		req, err := http.NewRequest(f[0], "http://agent"+f[1], strings.NewReader(f[3]))
		if err != nil {
			fmt.Println("0", err)
			continue
		}
		req.Header.Set("If-Match", f[2])
		req.Header.Set("Content-Type", "application/json")
		res, err := c.Do(req)
		if err != nil {
			fmt.Println("0", err)
			continue
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		fmt.Println(res.StatusCode, strings.ReplaceAll(string(body), "\n", " "))
	}
	return 0
}

// call sends one line to a "call" helper; a JSON answer goes into what is given.
func (h *helper) call(t testing.TB, into any, parts ...string) int {
	t.Helper()
	fmt.Fprintln(h.in, strings.Join(parts, " "))
	code, body, _ := strings.Cut(h.line(t), " ")
	status, err := strconv.Atoi(code)
	if err != nil || status == 0 {
		t.Fatalf("helper's call: %s %s", code, body)
	}
	if into != nil && strings.HasPrefix(body, "{") { // metrics are text
		if err := json.Unmarshal([]byte(body), into); err != nil {
			t.Fatalf("helper's answer %d %s: %v", status, body, err)
		}
	}
	return status
}

// begin runs a process under a uid.
func begin(t testing.TB, uid uint32) *helper {
	t.Helper()
	needRoot(t)
	h := spawn(t, "block", uid, uid, nil)
	h.line(t)
	return h
}

// endProcess kills a process that is no child of ours.
func endProcess(pid int) {
	if p, err := os.FindProcess(pid); err == nil {
		_ = p.Kill()
		_ = p.Release()
	}
}

// openFiles is how many files this process may have open.
func openFiles() uint64 {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0
	}
	return uint64(l.Cur)
}
