package vlan_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/seam/fault"
	"github.com/idpool/idpool/vlan"
)

// The tests run real processes: this test binary again, told by this variable
// what to do.
const fileHelperEnv = "IDPOOL_FILE_HELPER"

type fileTask struct {
	Kind, Path, Point string
	// Keys are allocated in turn; the VLANs are printed, one a line.
	Keys []string
	// VID is released under the first key.
	VID uint32
}

func init() {
	text := os.Getenv(fileHelperEnv)
	if text == "" {
		return
	}
	var task fileTask
	err := json.Unmarshal([]byte(text), &task)
	if err == nil {
		err = map[string]func() error{
			"allocate": task.allocate, "release": task.release, "unwritable": task.unwritable, "full": task.full,
		}[task.Kind]()
	}
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// fault ends the process at the point, or with a '+' before the point's name waits
// there for the end of the standard input.
func (task fileTask) fault(point string) {
	switch task.Point {
	case point:
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "+" + point:
		fmt.Println("waiting")
		_, _ = io.Copy(io.Discard, os.Stdin)
	}
}

func (task fileTask) open() (*vlan.FileInventory, error) {
	return vlan.NewFileInventory(task.Path, vlan.FileOptions{Name: "fabric-a", Seam: fault.At(task.fault)})
}

func (task fileTask) allocate() error {
	f, err := task.open()
	if err != nil {
		return err
	}
	for _, key := range task.Keys {
		got, err := f.Allocate(context.Background(), key, vlan.Choice{})
		if err != nil {
			return err
		}
		fmt.Println(got)
	}
	return nil
}

func (task fileTask) release() error {
	f, err := task.open()
	if err != nil {
		return err
	}
	return f.Release(context.Background(), task.VID, task.Keys[0])
}

// unwritable is a user who may read the file alone.
func (task fileTask) unwritable() error {
	if os.Geteuid() == 0 {
		if err := syscall.Setuid(65534); err != nil {
			return err
		}
	}
	f, err := task.open()
	if err != nil {
		return err
	}
	_, err = f.Allocate(context.Background(), "k", vlan.Choice{})
	if !errors.Is(err, problem.ErrUnavailable) || !errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("allocate: %w", err)
	}
	fmt.Println(err)
	_, err = f.Contents(context.Background())
	return err
}

// full works on a file system of its own that has no room left.
func (task fileTask) full() error {
	dir := filepath.Dir(task.Path)
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		return err
	}
	const text = `{"range":{"from":100,"to":102},"allocations":{"a":100}}`
	if err := os.WriteFile(task.Path, []byte(text), 0o600); err != nil {
		return err
	}
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 1<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("not full: %w", err)
	}
	f, err := task.open()
	if err != nil {
		return err
	}
	_, err = f.Allocate(context.Background(), "b", vlan.Choice{})
	if !errors.Is(err, problem.ErrUnavailable) || !errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("allocate: %w", err)
	}
	if err := f.Release(context.Background(), 100, "a"); !errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("release: %w", err)
	}
	if is, err := os.ReadFile(task.Path); err != nil || string(is) != text {
		return fmt.Errorf("the file became %q, %w", is, err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 3 {
		return fmt.Errorf("left behind: %v, %w", entries, err)
	}
	if err := os.Remove(ballast); err != nil {
		return err
	}
	if got, err := f.Allocate(context.Background(), "b", vlan.Choice{}); err != nil || got != 101 {
		return fmt.Errorf("with room again: %d, %w", got, err)
	}
	return nil
}

// fileHelper is a helper that has been started, its output and how to end its
// input.
type fileHelper struct {
	cmd *exec.Cmd
	in  io.Closer
	out *bufio.Scanner
}

func startFileHelper(t *testing.T, task fileTask, attr *syscall.SysProcAttr) *fileHelper {
	t.Helper()
	text, err := json.Marshal(task)
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), fileHelperEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = attr
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
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return &fileHelper{cmd, in, bufio.NewScanner(out)}
}

// end reads what is left of the output and how the helper ended.
func (h *fileHelper) end() (lines []string, err error) {
	for h.out.Scan() {
		lines = append(lines, h.out.Text())
	}
	return lines, h.cmd.Wait()
}

// TestFileKilled: at every point of a save the file is the one of before or the
// one of after, and the next call finds its way.
func TestFileKilled(t *testing.T) {
	const plain, keyed = `{"range":{"from":100,"to":103},"used":[101]}`, `{"range":{"from":100,"to":103},"allocations":{"b":101}}`
	for _, row := range []struct {
		point, before, after string
		task                 fileTask
		next                 uint32 // what the same request gets when it comes again
	}{
		{"file:pool:create:before", plain, plain, fileTask{Kind: "allocate", Keys: []string{"a"}}, 100},
		{"file:pool:sync:after", plain, plain, fileTask{Kind: "allocate", Keys: []string{"a"}}, 100},
		{"file:pool:rename:after", plain, `{"range":{"from":100,"to":103},"used":[101,100],"version":1}`, fileTask{Kind: "allocate", Keys: []string{"a"}}, 102},
		{"file:pool:create:before", keyed, keyed, fileTask{Kind: "allocate", Keys: []string{"a"}}, 100},
		{"file:pool:sync:after", keyed, keyed, fileTask{Kind: "allocate", Keys: []string{"a"}}, 100},
		{"file:pool:rename:after", keyed, `{"range":{"from":100,"to":103},"allocations":{"b":101,"a":100},"version":1}`, fileTask{Kind: "allocate", Keys: []string{"a"}}, 100},
		{"file:pool:create:before", keyed, keyed, fileTask{Kind: "release", Keys: []string{"b"}, VID: 101}, 100},
		{"file:pool:sync:after", keyed, keyed, fileTask{Kind: "release", Keys: []string{"b"}, VID: 101}, 100},
		{"file:pool:rename:after", keyed, `{"range":{"from":100,"to":103},"allocations":{},"version":1}`, fileTask{Kind: "release", Keys: []string{"b"}, VID: 101}, 100},
	} {
		t.Run(fmt.Sprintf("%s %s %.30s", row.task.Kind, row.point, row.before[29:]), func(t *testing.T) {
			path := poolAt(t, row.before)
			row.task.Path, row.task.Point = path, row.point
			lines, err := startFileHelper(t, row.task, nil).end()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("the helper ended with %v: %q", err, lines)
			}
			if fileText(t, path) != row.after {
				t.Errorf("%s, want %s", fileText(t, path), row.after)
			}
			f := openPool(t, path, nil)
			if row.task.Kind == "release" {
				if err := f.Release(t.Context(), 101, "b"); err != nil {
					t.Error(err)
				}
				if p, err := f.Contents(t.Context()); err != nil || !p.Used().IsEmpty() || p.Version() != 1 {
					t.Errorf("%s, %v", fileText(t, path), err)
				}
			} else {
				allocates(t, f, "a", vlan.Choice{}, row.next)
			}
			alone(t, path)
		})
	}
}

// TestFileTwoProcesses never get one VLAN twice, and for one key always the same.
func TestFileTwoProcesses(t *testing.T) {
	const each = 25
	for name, text := range map[string]string{"plain": `{"range":{"from":0,"to":4095}}`, "keyed": `{"range":{"from":0,"to":4095},"allocations":{}}`} {
		t.Run(name, func(t *testing.T) {
			path := poolAt(t, text)
			keys := [2][]string{}
			for i := range each {
				// In the keyed file, every second key is both processes' own.
				keys[0] = append(keys[0], "k"+strconv.Itoa(i))
				keys[1] = append(keys[1], "k"+strconv.Itoa(i*2))
			}
			var helpers []*fileHelper
			for _, k := range keys {
				helpers = append(helpers, startFileHelper(t, fileTask{Kind: "allocate", Path: path, Keys: k}, nil))
			}
			holder := map[string]string{}
			for i, h := range helpers {
				lines, err := h.end()
				if err != nil || len(lines) != each {
					t.Fatalf("%v: %q", err, lines)
				}
				for j, id := range lines {
					who := keys[i][j]
					if name == "plain" {
						who = fmt.Sprintf("%d of process %d", j, i)
					}
					if other, twice := holder[id]; twice && other != who {
						t.Errorf("VLAN %s went to %s and to %s", id, other, who)
					}
					holder[id] = who
				}
			}
			p, err := openPool(t, path, nil).Contents(t.Context())
			if err != nil || p.Used().Count() != uint64(len(holder)) || p.Version() != uint64(len(holder)) {
				t.Errorf("%d VLANs were given, %d are taken, version %d, %v", len(holder), p.Used().Count(), p.Version(), err)
			}
			if want := map[string]int{"plain": 2 * each, "keyed": 2*each - 13}[name]; len(holder) != want {
				t.Errorf("%d VLANs, want %d", len(holder), want)
			}
			alone(t, path)
		})
	}
}

// TestFileLocked: who waits for the lock is told who has it, and gets it when that
// one ends.
func TestFileLocked(t *testing.T) {
	path := poolAt(t, `{"range":{"from":100,"to":103}}`)
	h := startFileHelper(t, fileTask{Kind: "allocate", Path: path, Point: "+file:pool:sync:after", Keys: []string{""}}, nil)
	if !h.out.Scan() || h.out.Text() != "waiting" {
		t.Fatalf("the helper says %q", h.out.Text())
	}
	f := openPool(t, path, nil)
	check := untouched(t, path)
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := f.Allocate(short, "", vlan.Choice{})
	refused(t, err, problem.ErrUnavailable, fmt.Sprintf("pool file %s is locked by pid %d (", path, h.cmd.Process.Pid))
	refused(t, err, context.DeadlineExceeded)
	if p, err := f.Contents(t.Context()); err != nil || p.Free() != 3 {
		t.Errorf("a look at the file takes no lock: %v", err)
	}
	check("locked")
	if err := h.in.Close(); err != nil {
		t.Fatal(err)
	}
	allocates(t, f, "", vlan.Choice{}, 101)
	if lines, err := h.end(); err != nil || len(lines) != 1 || lines[0] != "100" {
		t.Errorf("the helper got %q, %v", lines, err)
	}
}

// TestFileUnwritable: by a user who may not write the directory, with and without
// a lock file there that he may.
func TestFileUnwritable(t *testing.T) {
	dir, err := os.MkdirTemp("", "idpool-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "fabric.json")
	writeFile(t, path, `{"range":{"to":2},"allocations":{}}`)
	for _, says := range []string{"it cannot be locked", "it is not written"} {
		for name, mode := range map[string]fs.FileMode{path: 0o444, dir: 0o555} {
			if err := os.Chmod(name, mode); err != nil {
				t.Fatal(err)
			}
		}
		check := untouched(t, path)
		lines, err := startFileHelper(t, fileTask{Kind: "unwritable", Path: path}, nil).end()
		if err != nil || len(lines) != 1 || !strings.Contains(lines[0], says) {
			t.Errorf("%q, %v; want %q", lines, err, says)
		}
		check(says)
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		writeFile(t, path+".lock", "")
		if err := os.Chmod(path+".lock", 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFileDiskFull(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a file system")
	}
	task := fileTask{Kind: "full", Path: filepath.Join(t.TempDir(), "fabric.json")}
	if lines, err := startFileHelper(t, task, &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}).end(); err != nil {
		t.Errorf("%v: %q", err, lines)
	}
}
