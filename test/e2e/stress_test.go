package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/cluster/clustertest"
)

// readyz is what the node's health check is told.
func (n *node) readyz() (int, string) {
	t := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", n.socket)
	}}
	defer t.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent/readyz", nil)
	if err != nil {
		return 0, err.Error()
	}
	resp, err := t.RoundTrip(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body)
}

// saysReady waits until /readyz answers with the code, and its body has the words.
func (n *node) saysReady(code int, words ...string) {
	n.w.t.Helper()
	n.w.eventually(fmt.Sprintf("/readyz of %s is %d %q", n.name, code, words), time.Minute, func(context.Context) error {
		got, body := n.readyz()
		for _, w := range words {
			if !strings.Contains(body, w) {
				return fmt.Errorf("%d %s", got, body)
			}
		}
		if got != code {
			return fmt.Errorf("%d %s", got, body)
		}
		return nil
	})
}

// refused wants poolctl to exit with the code and to say all the words.
func (n *node) refused(code int, args []string, words ...string) {
	n.w.t.Helper()
	r := n.poolctl(args...)
	if r.code != code {
		n.w.t.Errorf("poolctl %s: exit %d, want %d\n%s%s", strings.Join(args, " "), r.code, code, r.stdout, r.stderr)
		return
	}
	for _, w := range words {
		if !strings.Contains(r.stderr, w) {
			n.w.t.Errorf("poolctl %s does not say %q:\n%s", strings.Join(args, " "), w, r.stderr)
		}
	}
	n.w.t.Logf("poolctl %s: exit %d\n%s", strings.Join(args, " "), r.code, r.stderr)
}

// TestNoSpace: while etcd has no space nothing new is granted, and it is said so at
// once; what needs no space goes on; all is well when there is space again.
func TestNoSpace(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	nodes := w.up(2)
	n1, n2 := nodes[0], nodes[1]
	n1.must("uid", "pool", "set", "p", apart(0, 20))
	n1.must("uid", "pool", "set", "own", apart(9, 20), "--scope", "node")
	grant := func(r api.UIDRequest) api.Grant {
		g, err := n1.client.Grant(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	plain := grant(api.UIDRequest{Pool: "own"})
	grant(api.UIDRequest{Pool: "own", Count: 3, Key: "group"})
	kept := grant(api.UIDRequest{Pool: "p", Key: "kept"})
	n1.must("uid", "confirm", fmt.Sprint(kept.Items[0].UID), "--token", kept.Token, "--keep")
	claims := len(w.keys("claims/"))
	w.etcd.NoSpace(t)

	const full = "etcd has no space left"
	n1.refused(5, []string{"uid", "request", "--pool", "p"}, full, "nothing was done", "alarm disarm")
	n1.refused(5, []string{"uid", "pool", "set", "q", "1000-1010"}, full)
	n1.saysReady(503, full)
	n2.saysReady(503, full) // nobody asked it anything
	n1.must("uid", "show", fmt.Sprint(kept.Items[0].UID))
	n1.must("uid", "release", fmt.Sprint(plain.Items[0].UID), "--token", plain.Token)
	n1.must("uid", "release", "--key", "group")
	n1.must("uid", "release", "--key", "group") // again, and nothing is left to do
	if left := w.keys("claims/"); len(left) != claims-4 {
		t.Errorf("claims after the releases: %v", left)
	}
	again := []string{"uid", "request", "--pool", "own", "--key", "group", "--count", "3"}
	n1.refused(3, again, "has ended")
	n1.refused(5, []string{"uid", "release", "--key", "kept"}, full, "nothing was done", "waits for others")

	w.etcd.EndNoSpace(t)
	for _, n := range nodes {
		n.saysReady(200)
	}
	n1.must("uid", "release", "--key", "kept")
	n1.refused(3, again, "has ended")
	w.eventually("the records have ended", time.Minute, func(context.Context) error {
		for key, value := range w.keys("grants/") {
			if !strings.Contains(value, `"ended":true`) {
				return fmt.Errorf("%s = %s", key, value)
			}
		}
		return nil
	})
	if found, err := n1.client.Check(t.Context()); err != nil || len(found) > 0 {
		t.Errorf("check: %+v, %v", found, err)
	}
	n2.must("uid", "request", "--pool", "p")
}

// worldOf is a world on an etcd of several members.
func worldOf(t *testing.T, members int) *world {
	w := newWorldOn(t, func() *clustertest.Cluster { return clustertest.StartN(t, members) })
	return w
}

// running is a process under a uid, and its grant as it was at first.
type running struct {
	n   *node
	cmd *exec.Cmd
	was api.UID
}

// occupies runs a process under a uid of a pool that nobody else uses.
func (n *node) occupies(pool string) *running {
	n.w.t.Helper()
	r := &running{n: n, cmd: exec.Command(filepath.Join(bin, "poolctl"), "--agent", "unix://"+n.socket, "uid", "exec", "--pool", pool, "--", "/bin/sleep", "600")}
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := r.cmd.Start(); err != nil {
		n.w.t.Fatal(err)
	}
	n.w.t.Cleanup(func() {
		_ = syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL)
		_ = r.cmd.Wait()
	})
	n.w.eventually("a process runs", time.Minute, func(ctx context.Context) error {
		all, err := n.client.UIDs().Page(ctx, api.UIDFilter{Pool: pool, State: api.StateUsed}, 0, "")
		if err == nil && len(all.Items) != 1 {
			err = fmt.Errorf("%d uids are used", len(all.Items))
		}
		if err == nil {
			r.was = all.Items[0]
		}
		return err
	})
	return r
}

// goesOn wants the process, and the grant that it runs under, as they were.
func (r *running) goesOn() {
	t := r.n.w.t
	t.Helper()
	if err := r.cmd.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the process under uid %d: %v", r.was.UID, err)
	}
	now, err := r.n.client.UIDs().Get(t.Context(), r.was.UID)
	if err != nil || now.State != api.StateUsed || now.Token != r.was.Token {
		t.Errorf("uid %d: %+v, %v", r.was.UID, now, err)
	}
}

// TestQuorumLost: with two of three members gone requests are refused as unavailable,
// and nothing happens to what runs; all goes on by itself once they are back.
func TestQuorumLost(t *testing.T) {
	t.Parallel()
	w := worldOf(t, 3)
	n := w.up(1)[0]
	n.must("uid", "pool", "set", "p", apart(1, 20))
	job := n.occupies("p")
	w.etcd.KillMember(t, 0)
	w.etcd.KillMember(t, 1)
	if r := n.poolctl("uid", "request", "--pool", "p"); r.code != 5 && r.code != 6 { // in the middle of it
		t.Errorf("at once: exit %d %s%s", r.code, r.stdout, r.stderr)
	}
	n.saysReady(503, "no leader") // until then a write may still be on its way
	n.refused(5, []string{"uid", "request", "--pool", "p"}, "nothing was done")
	n.refused(5, []string{"uid", "release", fmt.Sprint(job.was.UID), "--token", job.was.Token}, "nothing was done")
	job.goesOn()
	_, body := n.readyz()
	t.Logf("/readyz: %s", body)
	w.etcd.Restart(t)
	n.saysReady(200)
	n.must("uid", "request", "--pool", "p")
	job.goesOn()
}

// TestMemberReplaced: agents whose endpoints name a member that is no more go on, also
// when another of them fails and the new member, of which they do not know, counts.
func TestMemberReplaced(t *testing.T) {
	t.Parallel()
	w := worldOf(t, 3)
	n := w.up(1)[0]
	n.must("uid", "pool", "set", "p", apart(2, 20))
	n.must("uid", "request", "--pool", "p", "--key", "before", "--hold", "ttl=1h")
	w.etcd.ReplaceMember(t, 0)
	n.saysReady(200)
	n.must("uid", "request", "--pool", "p")
	w.etcd.KillMember(t, 1)
	n.saysReady(200)
	n.must("uid", "request", "--pool", "p")
	n.must("uid", "release", "--key", "before")

	n.terminate() // one that starts now knows of one member that there is
	n.start()
	n.saysReady(200)
	n.must("uid", "request", "--pool", "p")
	if found, err := n.client.Check(t.Context()); err != nil || len(found) > 0 {
		t.Errorf("check: %+v, %v", found, err)
	}
}
