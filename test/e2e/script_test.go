package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/cluster/clustertest"
)

// patience bounds every wait of a script.
const patience = 2 * time.Minute

// TestScripts runs every script below testdata/script, each with an etcd and
// agents of its own. Beside testscript's commands they have:
//
//	agent [-nowait] [-in WRAPPER] NAME [FLAG…]   start an agent and talk to it from here on; WRAPPER is a command in front of it
//	on NAME                                      talk to that agent from here on
//	stop NAME, crash NAME                        end it with SIGTERM or SIGKILL and wait for its end
//	log NAME REGEXP                              wait until the agent's log has it
//	etcd stop|start|wipe                         an outage, its end, another cluster at the same address
//	put KEY FILE, unput KEY                      write or delete below the root, behind the agents' backs
//	exits CODE COMMAND…                          the command must end with that code
//	until CODE REGEXP COMMAND…                   repeat it until it ends with that code and one of its streams matches
//	fill FILE TEXT COUNT                         a file of COUNT times TEXT
//
// $U is the first eight digits of a hundred uids that nobody else has.
func TestScripts(t *testing.T) {
	if testing.Short() {
		t.Skip("starts real processes; left out with -short")
	}
	files := scripts(t)
	// Other users run the binaries too.
	if err := os.Chmod(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	var number atomic.Int32
	testscript.Run(t, testscript.Params{
		Files:               files,
		RequireExplicitExec: true,
		Setup:               func(env *testscript.Env) error { return setStage(env, int(number.Add(1))) },
		Condition:           condition,
		Deadline:            time.Now().Add(90 * time.Second),
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"agent": with((*stage).startAgent), "on": with((*stage).talkTo),
			"stop": with((*stage).stop), "crash": with((*stage).crash), "log": with((*stage).awaitLog),
			"etcd": with((*stage).etcdDo), "put": with((*stage).put), "unput": with((*stage).unput),
			"exits": exits, "until": until, "fill": fill,
		},
	})
}

func scripts(t *testing.T) []string {
	t.Helper()
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
	return files
}

// condition adds [root] and [unshare]: may we make namespaces, and mount a
// procfs of our own in them without touching the machine's.
func condition(cond string) (bool, error) {
	switch cond {
	case "root":
		return os.Geteuid() == 0, nil
	case "unshare":
		if runtime.GOOS != "linux" || os.Geteuid() != 0 {
			return false, nil
		}
		script := `mkdir "$0" && mount -t proc -o hidepid=2 proc "$0" && ! grep -q "^proc /proc .*hidepid" /proc/mounts`
		return exec.Command("unshare", "--mount", "--pid", "--fork", "sh", "-c", script, filepath.Join(bin, "probe"+strconv.Itoa(int(probes.Add(1))))).Run() == nil, nil
	}
	return false, fmt.Errorf("unknown condition %q", cond)
}

var probes atomic.Int32

// stage is what one script plays on.
type stage struct {
	tb     testing.TB
	etcd   *clustertest.Cluster
	dir    string
	agents map[string]*scriptAgent
}

type scriptAgent struct {
	cmd    *exec.Cmd
	socket string
	log    *syncBuffer
	exited chan struct{}
}

type stageKey struct{}

func setStage(env *testscript.Env, number int) error {
	tb, ok := env.T().(testing.TB)
	if !ok {
		return errors.New("testscript does not run on package testing")
	}
	// Short, for the sockets, and open, for other users.
	dir, err := os.MkdirTemp("", "ids")
	if err != nil {
		return err
	}
	env.Defer(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	s := &stage{tb: tb, etcd: clustertest.Start(tb), dir: dir, agents: map[string]*scriptAgent{}}
	env.Defer(s.close)
	env.Values[stageKey{}] = s
	env.Setenv("D", dir)
	env.Setenv("ETCD", strings.Join(s.etcd.Endpoints(), ","))
	env.Setenv("U", strconv.Itoa(13_000_000+os.Getpid()%10_000*100+number))
	env.Setenv("PATH", bin+string(os.PathListSeparator)+env.Getenv("PATH"))
	env.Setenv("IDPOOL_AGENT", "unix://"+filepath.Join(dir, "none.sock"))
	env.Setenv("TERM", "dumb")
	return nil
}

func (s *stage) close() {
	for name, a := range s.agents {
		_ = a.cmd.Process.Kill()
		<-a.exited
		if s.tb.Failed() {
			s.tb.Logf("log of %s:\n%s", name, tail(a.log.String(), 3000))
		}
	}
}

// with makes a command of a script out of a method of its stage.
func with(do func(*stage, *testscript.TestScript, []string)) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg {
			ts.Fatalf("there is no ! of this command")
		}
		do(ts.Value(stageKey{}).(*stage), ts, args)
	}
}

func (s *stage) startAgent(ts *testscript.TestScript, args []string) {
	wait := true
	var wrapper []string
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		switch {
		case args[0] == "-nowait":
			wait = false
		case args[0] == "-in" && len(args) > 1:
			wrapper, args = strings.Fields(args[1]), args[1:]
		}
		args = args[1:]
	}
	if len(args) == 0 {
		ts.Fatalf("usage: agent [-nowait] [-in WRAPPER] NAME [FLAG…]")
	}
	name := args[0]
	if s.agents[name] != nil {
		ts.Fatalf("agent %s runs already", name)
	}
	a := &scriptAgent{socket: filepath.Join(s.dir, name+".sock"), log: &syncBuffer{}, exited: make(chan struct{})}
	line := append(wrapper, filepath.Join(bin, "poolagent"), "--node", name, "--endpoints", ts.Getenv("ETCD"),
		"--data", filepath.Join(s.dir, name), "--socket", a.socket, "--lease-ttl", "3s", "--scan-every", "300ms")
	if wrapper == nil {
		// Where the tests run in a container, that is the node.
		line = append(line, "--accept-pid-namespace")
	}
	a.cmd = exec.Command(line[0], append(line[1:], args[1:]...)...)
	a.cmd.Stdout, a.cmd.Stderr = a.log, a.log
	ts.Check(a.cmd.Start())
	go func() { _ = a.cmd.Wait(); close(a.exited) }()
	s.agents[name] = a
	s.talkTo(ts, []string{name})
	client := api.New(api.Options{Agent: "unix://" + a.socket})
	defer client.Close()
	eventually(ts, "agent "+name, func(ctx context.Context) error {
		st, err := client.Status(ctx)
		if err == nil && wait && !st.Ready {
			err = fmt.Errorf("not ready: %v", st.NotReady)
		}
		select {
		case <-a.exited:
			ts.Fatalf("agent %s ended:\n%s", name, a.log.String())
		default:
		}
		return err
	})
}

func (s *stage) talkTo(ts *testscript.TestScript, args []string) {
	ts.Setenv("IDPOOL_AGENT", "unix://"+s.agent(ts, args).socket)
}

// agent is the one that the first word names.
func (s *stage) agent(ts *testscript.TestScript, args []string) *scriptAgent {
	if len(args) == 0 || s.agents[args[0]] == nil {
		ts.Fatalf("which agent? %v", args)
	}
	return s.agents[args[0]]
}

func (s *stage) stop(ts *testscript.TestScript, args []string)  { s.end(ts, args, syscall.SIGTERM) }
func (s *stage) crash(ts *testscript.TestScript, args []string) { s.end(ts, args, syscall.SIGKILL) }

func (s *stage) end(ts *testscript.TestScript, args []string, sig syscall.Signal) {
	a := s.agent(ts, args)
	ts.Check(a.cmd.Process.Signal(sig))
	select {
	case <-a.exited:
	case <-time.After(patience):
		ts.Fatalf("agent %s did not end", args[0])
	}
	delete(s.agents, args[0])
}

func (s *stage) awaitLog(ts *testscript.TestScript, args []string) {
	a := s.agent(ts, args)
	want := regexp.MustCompile("(?m)" + args[1])
	eventually(ts, "the log of "+args[0]+" has "+args[1], func(context.Context) error {
		if !want.MatchString(a.log.String()) {
			return errors.New(tail(a.log.String(), 1000))
		}
		return nil
	})
}

func (s *stage) etcdDo(ts *testscript.TestScript, args []string) {
	switch strings.Join(args, " ") {
	case "stop":
		s.etcd.Stop(s.tb)
	case "start":
		s.etcd.Restart(s.tb)
	case "wipe":
		s.etcd.Wipe(s.tb)
	default:
		ts.Fatalf("usage: etcd stop|start|wipe")
	}
}

func (s *stage) put(ts *testscript.TestScript, args []string) {
	s.write(ts, func(root string) clientv3.Op {
		return clientv3.OpPut(root+args[0], strings.TrimSpace(ts.ReadFile(args[1])))
	})
}

func (s *stage) unput(ts *testscript.TestScript, args []string) {
	s.write(ts, func(root string) clientv3.Op { return clientv3.OpDelete(root + args[0]) })
}

func (s *stage) write(ts *testscript.TestScript, op func(root string) clientv3.Op) {
	db := s.etcd.Open(s.tb)
	raw, err := clientv3.New(clientv3.Config{Endpoints: s.etcd.Endpoints(), DialTimeout: patience})
	ts.Check(err)
	defer raw.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err = raw.Do(ctx, op(db.Keys().Root()))
	ts.Check(err)
}

func eventually(ts *testscript.TestScript, what string, check func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check(ctx)
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			ts.Fatalf("%s: not within %s: %v", what, patience, err)
		}
	}
}

// code runs a command, which leaves its output for stdout and stderr.
func code(ts *testscript.TestScript, line []string) int {
	var exit *exec.ExitError
	if err := ts.Exec(line[0], line[1:]...); errors.As(err, &exit) {
		return exit.ExitCode()
	} else {
		ts.Check(err)
	}
	return 0
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND…")
	}
	got := code(ts, args[1:])
	ts.Logf("%s%s", ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("%s ended with code %d, want %s", strings.Join(args[1:], " "), got, args[0])
	}
}

func until(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: until CODE REGEXP COMMAND…")
	}
	want := regexp.MustCompile("(?m)" + args[1])
	eventually(ts, strings.Join(args, " "), func(context.Context) error {
		got := code(ts, args[2:])
		out := ts.ReadFile("stdout") + ts.ReadFile("stderr")
		if strconv.Itoa(got) != args[0] || !want.MatchString(out) {
			return fmt.Errorf("exit %d: %s", got, out)
		}
		return nil
	})
}

func fill(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: fill FILE TEXT COUNT")
	}
	n, err := strconv.Atoi(args[2])
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.Repeat(args[1], n)), 0o600))
}
