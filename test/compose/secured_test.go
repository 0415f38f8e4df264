package compose

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// as runs a program in the container that sees every certificate, with that of a name;
// none without one.
func (r *rig) as(name string, args ...string) result {
	r.t.Helper()
	env := []string{"exec", "-e", "IDPOOL_CA=/pki/ca.crt", "-e", "ETCDCTL_CACERT=/pki/ca.crt", "-e", "ETCDCTL_ENDPOINTS=https://etcd1:2379"}
	if name != "" {
		for _, e := range []string{"IDPOOL_CERT=", "ETCDCTL_CERT="} {
			env = append(env, "-e", e+"/pki/"+name+".crt")
		}
		for _, e := range []string{"IDPOOL_CERT_KEY=", "ETCDCTL_KEY="} {
			env = append(env, "-e", e+"/pki/"+name+".key")
		}
	}
	return r.command(append(append(append([]string{"docker"}, env...), r.container("probe")), args...)...)
}

// allowed and denied say what a certificate may.
func (r *rig) allowed(name string, args ...string) string {
	r.t.Helper()
	res := r.as(name, args...)
	if res.code != 0 {
		r.t.Errorf("%q may not %v: %s", name, args, res)
	}
	return res.out
}

func (r *rig) denied(name, says string, args ...string) {
	r.t.Helper()
	if res := r.as(name, args...); res.code == 0 || !strings.Contains(res.err+res.out, says) {
		r.t.Errorf("%q may %v, or is not told %q: %s", name, args, says, res)
	}
}

// certificates: without one nobody gets in; with one of our authority that has no
// role nobody gets at anything; each role may what it is for, and keys are where
// they belong.
func certificates(r *rig) {
	r.must("run", "--rm", "-T", "pki", "--agent=stranger", "--operator=olga", "--observer=otto")

	r.denied("", "certificate required", "/tenant", "get", "https://etcd1:2379/version")
	r.denied("", "certificate required", "/tenant", "get", "https://n1:7443/healthz")
	r.denied("", "", "/etcdctl", "--command-timeout=3s", "get", "--prefix", "/")

	for _, nobody := range []string{"stranger", "otto", "prometheus"} {
		r.denied(nobody, "permission denied", "/etcdctl", "get", "/idpool/meta")
		r.denied(nobody, "permission denied", "/etcdctl", "put", "/idpool/x", "1")
	}
	r.allowed("etcd1", "/etcdctl", "get", "/idpool/meta")
	r.denied("etcd1", "permission denied", "/etcdctl", "put", "/idpool/x", "1")
	r.docker("exec", "-d", r.container("probe"), "/poolagent", "--node=stranger", "--data=/tmp/stranger", "--socket=/tmp/stranger.sock", "--accept-pid-namespace",
		"--endpoints=https://etcd1:2379", "--etcd-ca=/pki/ca.crt", "--etcd-cert=/pki/stranger.crt", "--etcd-key=/pki/stranger.key")
	r.eventually("an agent without a role says so", func() error {
		if res := r.as("", "/poolctl", "--agent=unix:///tmp/stranger.sock", "status"); !strings.Contains(res.out, "permission denied") {
			return errors.New(res.String())
		}
		return nil
	})

	r.allowed("n1", "/etcdctl", "get", "/idpool/meta")
	r.denied("n1", "permission denied", "/etcdctl", "put", "/elsewhere", "1")
	r.denied("n1", "permission denied", "/etcdctl", "get", "--prefix", "/")
	r.denied("n1", "permission denied", "/etcdctl", "user", "list")
	r.denied("n1", "permission denied", "/etcdctl", "auth", "disable")
	r.allowed("root", "/etcdctl", "user", "list")

	// An agent is no member, though one authority signs both.
	res := r.command("docker", "exec", "-e", "IDPOOL_CERT=/pki/tls.crt", "-e", "IDPOOL_CERT_KEY=/pki/tls.key", "-e", "IDPOOL_CA=/pki/ca.crt",
		r.container("n1"), "/tenant", "get", "https://etcd1:2380/members")
	if res.code == 0 {
		r.t.Errorf("n1 is let in as a member: %s", res)
	}

	r.denied("n1", "names no role", "/poolctl", "--agent=https://n2:7443", "status")
	r.allowed("otto", "/poolctl", "--agent=https://n2:7443", "status")
	r.denied("otto", "takes the role operator", "/poolctl", "--agent=https://n2:7443", "uid", "pool", "set", "x", "90000")
	r.allowed("olga", "/poolctl", "--agent=https://n2:7443", "uid", "pool", "set", "olga", "90000")
	r.allowed("olga", "/poolctl", "--agent=https://n2:7443", "uid", "pool", "delete", "olga")

	for _, s := range slices.Concat(members, agents) {
		r.ownKey(s)
	}
}

// ownKey: a container has its own key, for its owner alone, and nobody else's.
func (r *rig) ownKey(service string) {
	r.t.Helper()
	res := r.command("docker", "cp", r.container(service)+":/pki", "-")
	want := map[string]string{"ca.crt": "-rw-r--r-- 0", "tls.crt": "-rw-r--r-- 0", "tls.key": "-rw------- 0"}
	for in := tar.NewReader(bytes.NewBufferString(res.out)); ; {
		h, err := in.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			r.t.Fatal(service, err)
		}
		name := strings.TrimPrefix(h.Name, "pki/")
		if got := fmt.Sprintf("%s %d", h.FileInfo().Mode(), h.Uid); name != "" && got != want[name] {
			r.t.Errorf("%s: %s is %s, want %s", service, h.Name, got, want[name])
		}
		delete(want, name)
	}
	if len(want) != 0 {
		r.t.Errorf("%s lacks %v", service, want)
	}
}

// scraped: what Prometheus gets with its own certificate.
func scraped(r *rig) {
	for _, n := range agents {
		body := r.allowed("prometheus", "/tenant", "get", "https://"+n+":7443/metrics")
		for _, text := range []string{"200\n", "\nidpool_ready 1\n", "\nidpool_session_live 1\n", `idpool_proof_lag_seconds{node="other"}`} {
			if !strings.Contains(body, text) {
				r.t.Errorf("the metrics of %s lack %q: %.300s", n, text, body)
			}
		}
	}
	for _, m := range members {
		if body := r.allowed("prometheus", "/tenant", "get", "https://"+m+":2379/metrics"); !strings.Contains(body, "\netcd_server_has_leader 1\n") {
			r.t.Errorf("the metrics of %s: %.300s", m, body)
		}
	}
	r.denied("prometheus", "takes the role", "/poolctl", "--agent=https://n1:7443", "uid", "request", "--pool", "jobs")
}

// renewed: new certificates for an agent and a member are taken up without a restart,
// by those who serve with them and those who connect with them.
func renewed(r *rig) {
	serving := func(url string) string {
		out := strings.SplitN(r.allowed("prometheus", "/tenant", "get", url), "\n", 3)
		return out[1]
	}
	urls := []string{"https://n1:7443/healthz", "https://etcd1:2379/version"}
	var before []string
	for _, url := range urls {
		before = append(before, serving(url))
	}
	lives := r.lives(slices.Concat(members, agents)...)
	r.must("run", "--rm", "-T", "pki", "--renew=n1,etcd1")
	for i, url := range urls {
		r.eventually("a new certificate at "+url, func() error {
			if now := serving(url); now == before[i] {
				return fmt.Errorf("it is %s still", now)
			}
			return nil
		})
	}
	// Connections that are open need no new one: these are new.
	r.cut("n1")
	r.mend("n1")
	r.ready("n1")
	r.ctl("n1", "uid", "request", "--pool", "jobs", "--key", "renewed", "-q")
	r.ctl("n1", "uid", "release", "--key", "renewed")
	if now := r.lives(slices.Concat(members, agents)...); now != lives {
		r.t.Errorf("restarted: %s, were %s", now, lives)
	}
}
