package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/idpool/idpool/uidpool"
)

// ptyLimit bounds each wait of a terminal test.
const ptyLimit = 20 * time.Second

// screenTest is a terminal with a shell in it, as a person has one.
type screenTest struct {
	t      *testing.T
	master *os.File
	dir    string

	mu   sync.Mutex // guards the field below
	seen bytes.Buffer
}

// atTerminal starts argv in a new session on a new terminal.
func atTerminal(t *testing.T, argv ...string) *screenTest {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can start a process under another uid")
	}
	s := &screenTest{t: t, dir: programDir(t)}
	outer, err := openOuter()
	if err != nil {
		t.Fatal(err)
	}
	s.master = os.NewFile(uintptr(outer.master), "master")
	slave := os.NewFile(uintptr(outer.slave), "slave")
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.Env = []string{"PATH=" + s.dir + ":/usr/bin:/bin", "PS1=outer> ", "TERM=dumb", "HOME=/"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = slave.Close()
	done := make(chan struct{})
	go func() { // ends with the terminal
		defer close(done)
		buf := make([]byte, 4096)
		for {
			n, err := s.master.Read(buf)
			s.mu.Lock()
			s.seen.Write(buf[:n])
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = s.master.Close()
		<-done
	})
	return s
}

// openOuter makes a terminal pair whose master a goroutine may read.
func openOuter() (*pty, error) {
	p := &pty{}
	var err error
	if p.master, err = unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0); err != nil {
		return nil, err
	}
	if err := unix.IoctlSetPointerInt(p.master, unix.TIOCSPTLCK, 0); err != nil {
		return nil, err
	}
	n, err := unix.IoctlGetInt(p.master, unix.TIOCGPTN)
	if err != nil {
		return nil, err
	}
	p.slave, err = unix.Open("/dev/pts/"+strconv.Itoa(n), unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	return p, err
}

// programDir has this test's binary under the names of its programs, for everybody.
func programDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "poolctl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	data, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "runas"), data, 0o755)
	}
	if err == nil {
		err = os.Link(filepath.Join(dir, "runas"), filepath.Join(dir, "typein"))
	}
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func (s *screenTest) types(text string) {
	s.t.Helper()
	if _, err := s.master.WriteString(text); err != nil {
		s.t.Fatal(err)
	}
}

// shows waits for what the terminal shows since the last call, and takes it.
func (s *screenTest) shows(pattern string) string {
	s.t.Helper()
	re := regexp.MustCompile(pattern)
	var found string
	s.waits("the terminal shows "+pattern, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		at := re.FindIndex(s.seen.Bytes())
		if at == nil {
			return false
		}
		found = string(s.seen.Next(at[1])[at[0]:])
		return true
	})
	return found
}

func (s *screenTest) waits(what string, cond func() bool) {
	s.t.Helper()
	end := time.NewTimer(ptyLimit)
	defer end.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-end.C:
			s.mu.Lock()
			defer s.mu.Unlock()
			s.t.Fatalf("never: %s; it shows\n%s", what, s.seen.String())
		}
	}
}

// runs waits until a command runs under the uid in that state.
func (s *screenTest) runs(uid uint32, comm, state string) {
	s.t.Helper()
	s.t.Cleanup(func() { // the next test under the uid must not find it
		if usage, err := uidpool.Probe(uidpool.UID(uid)); err == nil {
			for _, p := range usage.By {
				_ = unix.Kill(p.PID, unix.SIGKILL)
			}
		}
	})
	s.waits(comm+" runs under the uid in state "+state, func() bool {
		usage, err := uidpool.Probe(uidpool.UID(uid))
		if err != nil {
			return false
		}
		for _, p := range usage.By {
			stat, _ := os.ReadFile("/proc/" + strconv.Itoa(p.PID) + "/stat")
			if strings.Contains(string(stat), "("+comm+") "+state+" ") {
				return true
			}
		}
		return false
	})
}

func needBash(t *testing.T) {
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("no bash, whose job control this needs")
	}
}

// TestSuspendAndResume: in a person's shell a command under a uid is a job like
// another: ^Z, bg, fg, ^C.
func TestSuspendAndResume(t *testing.T) {
	needBash(t)
	s := atTerminal(t, "bash", "--norc", "--noediting", "-i")
	s.shows("outer> ")
	s.types("runas 71010 sleep 1000\n")
	s.runs(71010, "sleep", "S")
	s.types("\x1a")
	s.shows("Stopped")
	s.runs(71010, "sleep", "T")
	s.types("echo at the pr''ompt; stty -a | grep -c ' icanon'\n")
	s.shows("at the prompt\r\n1\r\n")
	s.types("bg\n")
	s.runs(71010, "sleep", "S")
	s.types("echo prompt ag''ain\n")
	s.shows("prompt again\r\n")
	s.types("fg\n")
	s.shows("runas 71010")
	s.waits("it reads the keys", func() bool {
		modes, err := unix.IoctlGetTermios(int(s.master.Fd()), unix.TCGETS)
		return err == nil && modes.Lflag&unix.ISIG == 0
	})
	s.types("\x03")
	s.shows("code 130, left false")
	s.types("echo code $?; stty -a | grep -c '^isig icanon'\n")
	s.shows("code 130\r\n1\r\n")
}

// TestInteractiveShell: a shell under a uid has job control on its own terminal.
func TestInteractiveShell(t *testing.T) {
	needBash(t)
	s := atTerminal(t, "bash", "--norc", "--noediting", "-i")
	s.shows("outer> ")
	s.types("tty\n")
	ours := strings.TrimSpace(s.shows("/dev/pts/[0-9]+\r\n"))
	s.types("runas --env PS1='inner> ' 71012 bash --norc --noediting -i\n")
	s.shows("\ninner> ")
	s.types("id -u; tty; cat /dev/null >/dev/tty && echo opens\n")
	s.shows("71012\r\n")
	if theirs := strings.TrimSpace(s.shows("/dev/pts/[0-9]+\r\n")); theirs == ours {
		t.Errorf("the command has our terminal %s", ours)
	}
	s.shows("opens\r\n")
	if err := unix.IoctlSetWinsize(int(s.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: 99}); err != nil {
		t.Fatal(err)
	}
	s.waits("the size arrives", func() bool {
		s.types("stty size\n")
		return strings.HasPrefix(s.shows("[0-9]+ [0-9]+\r\n"), "33 99")
	})
	s.types("sleep 1000\n")
	s.runs(71012, "sleep", "S")
	s.types("\x1a")
	s.shows("Stopped")
	s.runs(71012, "sleep", "T")
	s.types("fg\n")
	s.runs(71012, "sleep", "S")
	s.types("\x03")
	s.shows("inner> ")
	s.types("exit 5\n")
	s.shows("code 5, left false")
	s.shows("outer> ")
}

// TestTerminalIsNotTypedInto: a command cannot leave something behind that our
// shell takes for typed (TIOCSTI); that the attack works at all is shown first.
func TestTerminalIsNotTypedInto(t *testing.T) {
	s := atTerminal(t, "sh", "-i")
	s.shows("outer> ")
	s.types("typein\n")
	if !strings.Contains(s.shows("0 (<nil>|.*)\r\n"), "<nil>") {
		t.Skip("the kernel lets nobody type in (dev.tty.legacy_tiocsti)")
	}
	s.shows("injected: not found")
	s.types("echo all o''ver\n")
	s.shows("all over\r\n")
	for _, how := range []string{"", " <&-", " </dev/null 2>/dev/null", " </dev/null 2>/dev/null | cat"} {
		s.types("runas 71014 " + s.dir + "/typein" + how + "; echo its e''nd\n")
		s.shows("its end\r\n")
		s.types("echo all q''uiet\n")
		if shown := s.shows("(?s).*all quiet\r\n"); strings.Contains(shown, "not found") {
			t.Errorf("runas%s: typed into our shell: %q", how, shown)
		}
	}
	s.types("runas 71014 " + s.dir + "/typein </dev/null >/tmp/typein-$$ 2>&1; cat /tmp/typein-$$; rm /tmp/typein-$$; echo its e''nd\n")
	if shown := s.shows("(?s).*its end\r\n"); !strings.Contains(shown, "/dev/tty no such device") {
		t.Errorf("without a terminal it has one: %q", shown)
	}
}

// TestShownToTheEnd: what a command writes last is shown.
func TestShownToTheEnd(t *testing.T) {
	s := atTerminal(t, "sh", "-i")
	s.shows("outer> ")
	s.types("runas 71016 sh -c 'seq 20000; echo th''e end'\n")
	s.shows("\r\n20000\r\nthe end\r\n")
	s.shows("code 0, left false\r\nouter> ")
	s.types("echo pi''ped | runas 71016 cat; seq 3 | runas 71016 sh -c 'cat >/dev/tty'\n")
	s.shows("piped\r\n")
	s.shows("1\r+\n2\r+\n3\r+\n")
}
