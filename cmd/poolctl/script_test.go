package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, programs)
}

// TestScripts runs every script below testdata/script. None needs an agent.
func TestScripts(t *testing.T) {
	var files []string
	err := filepath.WalkDir(filepath.Join("testdata", "script"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && filepath.Ext(path) == ".txtar" {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatal("no scripts: the test would check nothing")
	}
	testscript.Run(t, testscript.Params{
		Files: files,
		Cmds:  map[string]func(ts *testscript.TestScript, neg bool, args []string){"exits": exits, "modes": modes},
		Condition: func(cond string) (bool, error) {
			if cond == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Setup: func(env *testscript.Env) error {
			// Nobody listens there, whatever the machine runs.
			env.Setenv("IDPOOL_AGENT", "unix://"+filepath.Join(env.WorkDir, "agent.sock"))
			env.Setenv("TERM", "dumb")
			return publicDir(env)
		},
		// A command that hangs fails the test soon, not when go test gives up.
		Deadline: time.Now().Add(time.Minute),
	})
}

// publicDir makes $PUBLIC, where other users may write: $WORK is the owner's.
func publicDir(env *testscript.Env) error {
	dir, err := os.MkdirTemp("", "poolctl")
	if err != nil {
		return err
	}
	env.Defer(func() { _ = os.RemoveAll(dir) })
	env.Setenv("PUBLIC", dir)
	return os.Chmod(dir, 0o777)
}

// exits is "exits CODE COMMAND…": the command must end with that very code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	ts.Logf("%s%s", ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	if got != want {
		ts.Fatalf("%s ended with code %d, want %d", strings.Join(args[1:], " "), got, want)
	}
}

// modes is "modes DIR": keys are for their owner alone, certificates for everybody,
// and nothing else lies about.
func modes(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: modes DIR")
	}
	entries, err := os.ReadDir(ts.MkAbs(args[0]))
	ts.Check(err)
	keys := 0
	for _, e := range entries {
		info, err := e.Info()
		ts.Check(err)
		want, ok := map[string]fs.FileMode{".key": 0o600, ".crt": 0o644}[filepath.Ext(e.Name())]
		if !ok || info.Mode() != want {
			ts.Fatalf("%s has mode %v", e.Name(), info.Mode())
		}
		if want == 0o600 {
			keys++
		}
	}
	if keys == 0 {
		ts.Fatalf("%s holds no key", args[0])
	}
}
