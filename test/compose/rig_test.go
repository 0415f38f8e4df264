package compose

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/idpool/idpool/api"
)

const (
	// envCompose holds the compose command with project and files; the script run sets it.
	envCompose = "IDPOOL_COMPOSE"
	// patience bounds every wait; a lease lives 6 seconds here, a request at most 15.
	patience = 60 * time.Second
)

// rig is the cluster that runs.
type rig struct {
	t       *testing.T
	compose []string
	project string
	ids     map[string]string // containers by service; forget one that is made anew
}

// on is the rig under the test that asks.
func (r *rig) on(t *testing.T) *rig {
	there := *r
	there.t = t
	return &there
}

// bringUp starts the cluster; the script that started the test takes it down.
func bringUp(t *testing.T) *rig {
	t.Helper()
	words := strings.Fields(os.Getenv(envCompose))
	if len(words) == 0 {
		t.Skip("needs a Docker engine and images: make compose-test")
	}
	r := &rig{t: t, compose: words, ids: map[string]string{}}
	for i, w := range words {
		if w == "-p" {
			r.project = words[i+1]
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(r.output(append(r.compose, "ps")...))
			t.Log(r.output(append(r.compose, "logs", "--no-color", "--tail=25")...))
		}
	})
	r.must("up", "-d")
	for _, n := range agents {
		r.ready(n)
	}
	return r
}

// result is one finished command.
type result struct {
	code     int
	out, err string
}

func (r result) String() string { return fmt.Sprintf("exit %d\n%s%s", r.code, r.out, r.err) }

// command runs a program of this machine, for two minutes at most.
func (r *rig) command(args ...string) result {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = "../.."
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		r.t.Fatalf("%s: %v\n%s%s", strings.Join(args, " "), err, out.String(), errs.String())
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

func (r *rig) output(args ...string) string { return r.command(args...).String() }

// docker runs a docker command that must succeed.
func (r *rig) docker(args ...string) string {
	r.t.Helper()
	res := r.command(append([]string{"docker"}, args...)...)
	if res.code != 0 {
		r.t.Fatalf("docker %s: %s", strings.Join(args, " "), res)
	}
	return strings.TrimSpace(res.out)
}

// must runs a compose command that must succeed.
func (r *rig) must(args ...string) string {
	r.t.Helper()
	res := r.command(append(r.compose, args...)...)
	if res.code != 0 {
		r.t.Fatalf("compose %s: %s", strings.Join(args, " "), res)
	}
	return res.out
}

// container is the id of a service's container, running or not.
func (r *rig) container(service string) string {
	r.t.Helper()
	if id := r.ids[service]; id != "" {
		return id
	}
	id := r.docker("ps", "-aq", "--filter", "label=com.docker.compose.project="+r.project, "--filter", "label=com.docker.compose.service="+service,
		"--filter", "label=com.docker.compose.oneoff=False")
	if id == "" || strings.Contains(id, "\n") {
		r.t.Fatalf("containers of %s: %q", service, id)
	}
	r.ids[service] = id
	return id
}

// inside runs a program in a service's container.
func (r *rig) inside(service string, args ...string) result {
	r.t.Helper()
	return r.command(append([]string{"docker", "exec", r.container(service)}, args...)...)
}

// poolctl runs poolctl at a node; must fail the test unless it exits 0.
func (r *rig) poolctl(node string, args ...string) result {
	r.t.Helper()
	return r.inside(node, append([]string{"/poolctl"}, args...)...)
}

func (r *rig) ctl(node string, args ...string) string {
	r.t.Helper()
	res := r.poolctl(node, args...)
	if res.code != 0 {
		r.t.Fatalf("poolctl %s on %s: %s", strings.Join(args, " "), node, res)
	}
	return strings.TrimSpace(res.out)
}

// persist is ctl, again while the exit code says that nothing was done, or to repeat.
func (r *rig) persist(node string, args ...string) string {
	r.t.Helper()
	var res result
	r.eventually("poolctl "+strings.Join(args, " ")+" on "+node, func() error {
		if res = r.poolctl(node, args...); res.code == 5 || res.code == 6 {
			return errors.New(res.String())
		}
		return nil
	})
	if res.code != 0 {
		r.t.Fatalf("poolctl %s on %s: %s", strings.Join(args, " "), node, res)
	}
	return strings.TrimSpace(res.out)
}

// refused runs poolctl at a node, which must exit with code and say every text.
func (r *rig) refused(node string, code int, says []string, args ...string) {
	r.t.Helper()
	res := r.poolctl(node, args...)
	if res.code != code {
		r.t.Fatalf("poolctl %s on %s: want exit %d: %s", strings.Join(args, " "), node, code, res)
	}
	for _, text := range says {
		if !strings.Contains(res.err, text) {
			r.t.Errorf("poolctl %s on %s does not say %q: %s", strings.Join(args, " "), node, text, res)
		}
	}
}

// get reads poolctl's JSON; an answer that is none is an error.
func get[T any](r *rig, node string, args ...string) (T, error) {
	r.t.Helper()
	res := r.poolctl(node, append([]string{"-o", "json"}, args...)...)
	if res.code != 0 {
		var none T
		return none, fmt.Errorf("poolctl %s: %s", strings.Join(args, " "), res)
	}
	return decode[T](res.out)
}

// eventually waits until check returns nil.
func (r *rig) eventually(what string, check func() error) {
	r.t.Helper()
	limit := time.After(patience)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-limit:
			r.t.Fatalf("%s: not within %s: %v", what, patience, err)
		case <-tick.C:
		}
	}
}

// ready waits until a node's agent would grant.
func (r *rig) ready(node string) {
	r.t.Helper()
	r.eventually(node+" is ready", func() error {
		st, err := get[api.Status](r, node, "status")
		if err == nil && !st.Ready {
			err = fmt.Errorf("not ready: %v", st.NotReady)
		}
		return err
	})
}

// seen waits until a node sees another in a state.
func (r *rig) seen(by, node, state string) {
	r.t.Helper()
	r.eventually(by+" sees "+node+" as "+state, func() error {
		n, err := get[api.Node](r, by, "node", "show", node)
		if err == nil && n.State != state {
			err = fmt.Errorf("it is %s", n.State)
		}
		return err
	})
}

// uid waits until what a node sees of a uid is as wanted.
func (r *rig) uid(by, uid, what string, wanted func(api.UID) bool) api.UID {
	r.t.Helper()
	var u api.UID
	r.eventually("uid "+uid+" "+what, func() (err error) {
		if u, err = get[api.UID](r, by, "uid", "show", uid); err == nil && !wanted(u) {
			err = fmt.Errorf("it is %s on %v, running here: %v, reason %q, waits for %v", u.State, u.Nodes, u.Running, u.Reason, u.WaitsFor)
		}
		return err
	})
	return u
}

func isFree(u api.UID) bool { return u.State == "free" }

// resident starts a process under a uid of a pool at a node and waits until it runs.
// Further arguments are those of uid exec.
func (r *rig) resident(node string, args ...string) {
	r.t.Helper()
	before := len(r.residents(node))
	exec := append([]string{"exec", "-d", r.container(node), "/poolctl", "uid", "exec", "--ipc", "host"}, args...)
	r.docker(append(exec, "--", "/tenant", "stay")...)
	r.eventually("a process runs on "+node, func() error {
		if len(r.residents(node)) == before {
			return errors.New("no process")
		}
		return nil
	})
}

// residents are the pids of a node's residents, as its container counts.
func (r *rig) residents(node string) []string {
	r.t.Helper()
	res := r.inside(node, "/tenant", "find", "tenant")
	if res.code != 0 {
		r.t.Fatal(res)
	}
	return strings.Fields(res.out)
}

// end kills the residents of a node.
func (r *rig) end(node string) {
	r.t.Helper()
	if res := r.inside(node, "/tenant", "kill", "tenant"); res.code != 0 {
		r.t.Fatal(res)
	}
}

// lives tells which life of a container runs: another after each restart.
func (r *rig) lives(services ...string) string {
	r.t.Helper()
	var all []string
	for _, s := range services {
		all = append(all, r.docker("inspect", "-f", "{{.State.StartedAt}} {{.RestartCount}}", r.container(s)))
	}
	return strings.Join(all, ", ")
}

func (r *rig) network() string { return r.project + "_idpool" }

// cut takes a container out of the network; mend puts it back under its name.
func (r *rig) cut(service string) {
	r.t.Helper()
	r.docker("network", "disconnect", r.network(), r.container(service))
}

func (r *rig) mend(service string) {
	r.t.Helper()
	r.docker("network", "connect", "--alias", service, r.network(), r.container(service))
}

func decode[T any](text string) (T, error) {
	var v T
	return v, json.Unmarshal([]byte(text), &v)
}
