package compose

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/idpool/idpool/api"
)

// TestCluster: what users see of the cluster of docker-compose.yml while it is
// disturbed. Each scenario leaves it whole.
func TestCluster(t *testing.T) {
	r := bringUp(t)
	for _, s := range []struct {
		name string
		run  func(*rig)
	}{
		{"distinct uids, exhausted", distinct},
		{"certificates and roles", certificates},
		{"metrics for Prometheus", scraped},
		{"one uid on two nodes", joined},
		{"agent killed", killed},
		{"node cut off", cutOff},
		{"one member killed", oneMember},
		{"two members killed", twoMembers},
		{"certificates renewed", renewed},
		{"node stopped, fenced, back", fenced},
		{"rolling restart under load", rolling},
		{"up again", upAgain},
	} {
		if !t.Run(s.name, func(t *testing.T) { s.run(r.on(t)) }) {
			return // what follows would meet what was left
		}
	}
}

// distinct: three nodes get three uids, a fourth request is refused, and what is
// released is proven unused by all.
func distinct(r *rig) {
	r.ctl("n1", "uid", "pool", "set", "jobs", "70000-70002")
	var uids []string
	for _, n := range agents {
		uids = append(uids, r.ctl(n, "uid", "request", "--pool", "jobs", "--key", "job-"+n, "-q"))
	}
	if slices.Sort(uids); !slices.Equal(uids, []string{"70000", "70001", "70002"}) {
		r.t.Errorf("three nodes got %v", uids)
	}
	if again := r.ctl("n2", "uid", "request", "--pool", "jobs", "--key", "job-n2", "-q"); !slices.Contains(uids, again) {
		r.t.Errorf("the same request again got %s", again)
	}
	r.refused("n1", 4, []string{"pool jobs is exhausted: 0 of 3"}, "uid", "request", "--pool", "jobs")
	for _, n := range agents {
		r.ctl(n, "uid", "release", "--key", "job-"+n)
	}
	r.allFree("jobs")
	if code := r.poolctl("n3", "uid", "exec", "--pool", "jobs", "--ipc", "host", "--", "/poolctl", "version").code; code != 0 {
		r.t.Errorf("a command under a uid: exit %d", code)
	}
	r.allFree("jobs")
}

// allFree waits until nothing of a pool is held, as every node sees it.
func (r *rig) allFree(pool string) {
	r.t.Helper()
	for _, n := range agents {
		r.eventually("all of "+pool+" is free for "+n, func() error {
			if held := r.ctl(n, "uid", "list", "--pool", pool, "-q"); held != "" {
				return fmt.Errorf("held: %s", strings.Fields(held))
			}
			return nil
		})
	}
}

// joined: a uid that runs on two nodes is free when both have proven it unused.
func joined(r *rig) {
	r.ctl("n1", "uid", "pool", "set", "ranks", "71000")
	r.resident("n1", "--pool", "ranks", "--key", "mpi")
	r.resident("n2", "--join", "--key", "mpi")
	u := r.uid("n3", "71000", "runs on two nodes", func(u api.UID) bool { return u.State == "used" && len(u.Nodes) == 2 })
	if slices.Sort(u.Nodes); !slices.Equal(u.Nodes, []string{"n1", "n2"}) {
		r.t.Errorf("it runs on %v", u.Nodes)
	}
	r.end("n1")
	r.uid("n1", "71000", "does not run on n1", func(u api.UID) bool { return !u.Running })
	r.refused("n3", 4, []string{"exhausted"}, "uid", "request", "--pool", "ranks")
	r.end("n2")
	r.uid("n3", "71000", "is free", isFree)
}

// killed: kill -9 of an agent, and with it of everything in its container. Nothing of
// its uids is given away before it is back, which the restart policy sees to. Then an
// inquiry ends what a process held that is gone, uids and VLANs.
func killed(r *rig) {
	r.ctl("n1", "uid", "pool", "set", "frail", "72000-72001")
	r.ctl("n1", "vlan", "inventory", "set", "frail-north", "100", "--cooldown", "0s")
	r.ctl("n1", "vlan", "inventory", "set", "frail-south", "200", "--cooldown", "0s")
	r.resident("n1", "--pool", "frail", "--key", "runs")
	holder := "pid=" + r.residents("n1")[0]
	r.ctl("n1", "uid", "request", "--pool", "frail", "--key", "handed", "--hold", holder)
	r.ctl("n1", "vlan", "service", "create", "edge", "--north", "frail-north", "--south", "frail-south", "--hold", holder)
	before := r.lives("n1")
	if res := r.inside("n1", "/tenant", "kill", "poolagent"); res.code != 0 && res.code != 137 {
		r.t.Fatal(res)
	}
	r.refused("n2", 4, []string{"exhausted"}, "uid", "request", "--pool", "frail")
	r.eventually("n1 is started again", func() error {
		if r.lives("n1") == before {
			return errors.New("the same container still")
		}
		return nil
	})
	r.ready("n1")
	// Confirmed, it is its holder's until it is released, though nothing runs; the other
	// was being handed over to a process that is gone.
	r.ctl("n1", "uid", "release", "--key", "runs")
	r.allFree("frail")
	r.eventually("the service's VLANs are given back", func() error {
		v, err := get[api.Service](r, "n2", "vlan", "service", "show", "edge")
		if err == nil && v.State != "failed" {
			err = fmt.Errorf("it is %s", v.State)
		}
		return err
	})
	r.ctl("n3", "vlan", "service", "create", "edge-2", "--north", "frail-north", "--south", "frail-south")
	r.ctl("n3", "vlan", "service", "confirm", "edge-2")
	r.ctl("n2", "vlan", "service", "delete", "edge-2")
	r.ctl("n2", "vlan", "service", "delete", "edge")
}
