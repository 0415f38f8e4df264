package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
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
	w := newWorld(t)
	nodes := w.up(2)
	n1, n2 := nodes[0], nodes[1]
	n1.must("uid", "pool", "set", "p", ownRange(20))
	n1.must("uid", "pool", "set", "own", "1600000000-1600000019", "--scope", "node")
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

var _ = clustertest.Start
