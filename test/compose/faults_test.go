package compose

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"

	"github.com/idpool/idpool/api"
)

// cutOff: a node out of the network, whose process runs on, keeps its uid, released
// by an operator or not, until it has reported and nothing runs any more.
func cutOff(r *rig) {
	r.ctl("n1", "uid", "pool", "set", "cut", "73000")
	r.resident("n2", "--pool", "cut", "--key", "cut")
	r.uid("n1", "73000", "is used", func(u api.UID) bool { return u.State == "used" })
	r.cut("n2")
	r.seen("n1", "n2", "absent")
	r.refused("n1", 4, []string{"exhausted"}, "uid", "request", "--pool", "cut")
	r.ctl("n1", "uid", "release", "--key", "cut")
	r.uid("n3", "73000", "waits for n2", waitsFor("n2"))
	r.refused("n1", 4, []string{"exhausted", "n2"}, "uid", "request", "--pool", "cut")
	if n := len(r.residents("n2")); n != 1 {
		r.t.Errorf("%d processes run on the node that was cut off", n)
	}
	r.mend("n2")
	r.ready("n2")
	r.uid("n1", "73000", "is known to run on n2", func(u api.UID) bool {
		return u.State == "quarantined" && len(u.WaitsFor) == 1 && strings.Contains(u.WaitsFor[0].Why, "in use there")
	})
	r.refused("n3", 4, []string{"exhausted"}, "uid", "request", "--pool", "cut")
	r.end("n2")
	r.uid("n3", "73000", "is free", isFree)
	if got := r.ctl("n3", "uid", "request", "--pool", "cut", "--key", "after", "-q"); got != "73000" {
		r.t.Errorf("n3 got %s", got)
	}
	r.ctl("n3", "uid", "release", "--key", "after")
}

func waitsFor(node string) func(api.UID) bool {
	return func(u api.UID) bool {
		for _, w := range u.WaitsFor {
			if w.Node == node {
				return u.State == "quarantined"
			}
		}
		return false
	}
}

// killMember ends a member of etcd for good; start brings it back and waits for it.
func (r *rig) killMember(names ...string) {
	r.t.Helper()
	for _, n := range names {
		r.docker("kill", r.container(n))
	}
}

func (r *rig) startMember(names ...string) {
	r.t.Helper()
	for _, n := range names {
		r.docker("start", r.container(n))
	}
	for _, n := range names {
		r.eventually(n+" is healthy", func() error {
			if res := r.inside(n, "/usr/local/bin/etcdctl", "endpoint", "health"); res.code != 0 {
				return errors.New(res.String())
			}
			return nil
		})
	}
}

// oneMember: two of three members are enough, whichever is gone; an agent that was
// connected to it says for a moment that nothing was done.
func oneMember(r *rig) {
	leader := r.leader()
	for _, gone := range []string{leader, members[(slices.Index(members, leader)+1)%len(members)]} {
		r.killMember(gone)
		for _, n := range agents {
			uid := r.persist(n, "uid", "request", "--pool", "jobs", "--key", "without-"+gone+n, "-q")
			r.persist(n, "uid", "release", uid)
		}
		r.allFree("jobs")
		r.startMember(gone)
	}
}

// leader is the member that leads now.
func (r *rig) leader() string {
	r.t.Helper()
	type status []struct {
		Endpoint string
		Status   struct {
			Header struct {
				MemberID uint64 `json:"member_id"`
			}
			Leader uint64
		}
	}
	out := r.allowed("root", "/etcdctl", "-w=json", "endpoint", "status", "--cluster")
	all, err := decode[status](out)
	if err != nil {
		r.t.Fatal(err, out)
	}
	for _, s := range all {
		if s.Status.Header.MemberID == s.Status.Leader {
			return strings.TrimSuffix(strings.TrimPrefix(s.Endpoint, "https://"), ":2379")
		}
	}
	r.t.Fatal("nobody leads: ", out)
	return ""
}

// twoMembers: without a quorum requests are refused in time and processes are not
// touched; with it all goes on, and nobody was restarted.
func twoMembers(r *rig) {
	r.ctl("n1", "uid", "pool", "set", "calm", "76000-76009")
	r.resident("n3", "--pool", "calm", "--key", "calm")
	r.eventually("its uid is used", func() error {
		if used := r.ctl("n1", "uid", "list", "--pool", "calm", "--state", "used", "-q"); used == "" {
			return errors.New("none is")
		}
		return nil
	})
	pids, lives := r.residents("n3"), r.lives(agents...)
	r.killMember("etcd1", "etcd2")
	for _, n := range agents {
		r.eventually(n+" says that it serves nobody", func() error {
			st, err := get[api.Status](r, n, "status")
			if err == nil && st.Ready {
				err = errors.New("it is ready")
			}
			return err
		})
		r.refused(n, 5, []string{"etcd"}, "uid", "request", "--pool", "calm")
	}
	if now := r.residents("n3"); !slices.Equal(now, pids) {
		r.t.Errorf("processes on n3: %v, were %v", now, pids)
	}
	r.startMember("etcd1", "etcd2")
	for _, n := range agents {
		r.ready(n)
		uid := r.ctl(n, "uid", "request", "--pool", "calm", "--key", "again-"+n, "-q")
		r.ctl(n, "uid", "release", uid)
	}
	if now := r.lives(agents...); now != lives {
		r.t.Errorf("agents were restarted: %s, were %s", now, lives)
	}
	if now := r.residents("n3"); !slices.Equal(now, pids) {
		r.t.Errorf("processes on n3: %v, were %v", now, pids)
	}
	r.end("n3")
	r.allFree("calm")
}

// fenced: a stopped node's uid waits, and says for whom; an operator's word frees it;
// the node comes back under its name only with nothing of what it was.
func fenced(r *rig) {
	r.ctl("n1", "uid", "pool", "set", "lost", "74000")
	r.resident("n3", "--pool", "lost", "--key", "lost")
	r.uid("n1", "74000", "is used", func(u api.UID) bool { return u.State == "used" })
	r.docker("kill", r.container("n3"))
	r.seen("n1", "n3", "absent")
	r.ctl("n1", "uid", "release", "--key", "lost")
	r.uid("n2", "74000", "waits for n3", waitsFor("n3"))
	r.refused("n2", 4, []string{"exhausted", "n3", "poolctl node fence n3"}, "uid", "request", "--pool", "lost")
	r.refused("n2", 2, []string{"say why with --reason"}, "node", "fence", "n3")
	if dry := r.poolctl("n2", "node", "fence", "n3", "--reason", "power supply dead", "--dry-run"); dry.code != 0 || !strings.Contains(dry.String(), "74000") {
		r.t.Errorf("the dry run does not name the uid: %s", dry)
	}
	r.ctl("n2", "node", "fence", "n3", "--reason", "power supply dead")
	r.uid("n2", "74000", "is free", isFree)
	if got := r.ctl("n2", "uid", "request", "--pool", "lost", "--key", "found", "-q"); got != "74000" {
		r.t.Errorf("n2 got %s", got)
	}
	r.ctl("n2", "uid", "release", "--key", "found")

	r.docker("start", r.container("n3"))
	r.eventually("n3 is refused", func() error {
		if logs := r.output("docker", "logs", "--tail=20", r.container("n3")); !strings.Contains(logs, "power supply dead") {
			return errors.New(logs)
		}
		return nil
	})
	r.must("rm", "-s", "-f", "n3")
	delete(r.ids, "n3")
	r.docker("volume", "rm", r.project+"_n3")
	r.ctl("n1", "node", "remove", "n3")
	r.must("up", "-d", "--no-deps", "n3")
	r.ready("n3")
	r.seen("n1", "n3", "active")
}

// loadReport is what the traffic tells at its end.
type loadReport struct {
	Services, UIDs, Repeats int
	Twice, Errors           []string
}

// rolling: every agent is restarted while all have traffic. Nothing that was asked
// fails, nothing is granted twice, nothing stays.
func rolling(r *rig) {
	r.ctl("n1", "uid", "pool", "set", "load", "75000-75199")
	for _, inv := range []string{"load-north", "load-south"} {
		r.ctl("n1", "vlan", "inventory", "set", inv, "100-199", "--cooldown", "0s")
	}
	args := []string{"exec", "-i"}
	for _, e := range []string{"IDPOOL_CERT=/pki/olga.crt", "IDPOOL_CERT_KEY=/pki/olga.key", "IDPOOL_CA=/pki/ca.crt"} {
		args = append(args, "-e", e)
	}
	cmd := exec.Command("docker", append(append(args, r.container("probe"), "/tenant", "load"), agents...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	stop, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		r.t.Fatal(err)
	}
	for _, n := range agents {
		r.docker("restart", r.container(n))
		r.ready(n)
	}
	stop.Close()
	err = cmd.Wait()
	var report loadReport
	if bad := json.Unmarshal(out.Bytes(), &report); err != nil || bad != nil {
		r.t.Fatalf("traffic: %v, %v\n%s%s", err, bad, out.String(), errs.String())
	}
	r.t.Logf("%d services, %d uids; %d steps taken again", report.Services, report.UIDs, report.Repeats)
	if len(report.Errors)+len(report.Twice) > 0 || report.Services < 20 || report.UIDs < 20 {
		r.t.Errorf("%+v", report)
	}
	r.allFree("load")
	r.eventually("no VLAN is left", func() error {
		for _, inv := range []string{"load-north", "load-south"} {
			if left := r.ctl("n2", "vlan", "list", inv, "-q"); left != "" {
				return fmt.Errorf("%s: %s", inv, strings.Fields(left))
			}
		}
		return nil
	})
	if found := r.poolctl("n1", "check"); found.code != 0 {
		r.t.Errorf("what needs a person: %s", found)
	}
}

// upAgain: another `up` makes nothing new, and starts nobody again.
func upAgain(r *rig) {
	all := slices.Concat(members, agents)
	before := r.lives(all...)
	r.must("up", "-d")
	if now := r.lives(all...); now != before {
		r.t.Errorf("restarted: %s, were %s", now, before)
	}
}
