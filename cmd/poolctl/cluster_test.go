package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/idpool/idpool/cluster/clustertest"
	"github.com/idpool/idpool/cluster/pki"
)

// said runs a command of the group on an etcd, with the certificate of that name, and
// returns its exit code and what it wrote.
func said(t *testing.T, etcd *clustertest.Secure, as string, args ...string) (code int, out, stderr string) {
	t.Helper()
	tls := etcd.TLS(as)
	args = append([]string{"cluster"}, args...)
	args = append(args, "--endpoints", strings.Join(etcd.Endpoints(), ","), "--etcd-ca", tls.CAFile, "--etcd-cert", tls.CertFile, "--etcd-key", tls.KeyFile)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var o, e bytes.Buffer
	code = run(ctx, args, Streams{In: strings.NewReader(""), Out: &o, Err: &e})
	return code, o.String(), e.String()
}

// TestClusterOnEtcd walks the setting up of a secured cluster.
func TestClusterOnEtcd(t *testing.T) {
	t.Parallel()
	etcd := clustertest.StartSecure(t, 1)
	etcd.Issue(t, pki.Wish{Specs: []pki.Spec{{Name: "n1", Kind: pki.Agent}, {Name: "eve", Kind: pki.Observer}, {Name: "other", Kind: pki.Operator}}})
	for _, step := range []struct {
		as, args string
		code     int
		out, err string // parts
	}{
		{"root", "init", 0, "made:    yes", ""},
		{"root", "init", 0, "made:    no", "there is a cluster below /idpool/ already; nothing was changed"},
		{"root", "auth --agent n1 --observer eve", 0, "etcdctl user grant-role n1 idpool-agent\n", ""},
		{"n1", "auth --agent n1 --apply", 7, "", `is the certificate of "n1"`},
		{"root", "auth --agent n1 --observer eve --apply", 0, "", "done: etcdctl auth enable\npoolctl: authentication is on\n"},
		{"root", "auth --agent n1 --observer eve --apply", 0, "", "etcd has all of it already"},
		{"root", "auth --agent n2", 0, "etcdctl user add --no-password n2\netcdctl user grant-role n2 idpool-agent\n", ""},
		{"root", "auth --observer n1 --apply", 3, "", "user n1 has role idpool-agent in etcd, which is another kind's"},
		{"n1", "auth --agent n2", 7, "", "permission denied"},
		{"n1", "init", 0, "made:    no", "nothing was changed"},
		{"eve", "init", 0, "made:    no", "nothing was changed"},
		{"eve", "init --root /other/", 7, "", "permission denied"},
		{"other", "init", 7, "", "permission denied"},
	} {
		code, out, stderr := said(t, etcd, step.as, strings.Fields(step.args)...)
		if code != step.code || !strings.Contains(out, step.out) || !strings.Contains(stderr, step.err) || step.err == "" && stderr != "" {
			t.Fatalf("%s, as %s: exit %d\n%s%s", step.args, step.as, code, out, stderr)
		}
	}
	client := etcd.OpenAs(t, "n1")
	if _, err := client.Txn().Put(t.Context(), client.Keys().Node("n7"), "{}"); err != nil {
		t.Fatal(err)
	}
	if _, _, stderr := said(t, etcd, "root", "auth"); !strings.Contains(stderr, "warning: no user of its name may write for node n7") {
		t.Errorf("a node without a user: %s", stderr)
	}
}
