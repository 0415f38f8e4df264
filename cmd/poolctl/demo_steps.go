package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/problem"
)

// demoPool is the pool of the tour: eleven uids.
const demoPool = "70000-70009,70020"

func (d *demo) pool(ctx context.Context) error {
	d.title("An operator defines a pool, once for the cluster.")
	d.command("poolctl uid pool set demo %s", demoPool)
	p, err := d.nodes[0].client.Pools().Put(ctx, api.Pool{Name: "demo", Ranges: demoPool}, api.WriteOptions{})
	if err != nil {
		return err
	}
	d.result("pool demo: %s: %d uids, %d free", p.Ranges, p.Size, p.Counts[api.StateFree])
	return nil
}

func (d *demo) requests(ctx context.Context) error {
	d.title("Every node asks its own agent. One etcd transaction a grant; no two get the same.")
	for i, n := range d.nodes {
		key := fmt.Sprintf("job-%d", i+1)
		d.command("poolctl uid request --pool demo --key %s      # on %s", key, n.name)
		u, err := n.client.RequestUID(ctx, api.UIDRequest{Pool: "demo", Key: key, Holder: "the tour's job " + key})
		if err != nil {
			return err
		}
		d.result("%s", u)
	}
	d.say("   The same request under the same key gets the same uid, however often it is sent:")
	d.command("poolctl uid request --pool demo --key job-1      # on n1, again")
	u, err := d.nodes[0].client.RequestUID(ctx, api.UIDRequest{Pool: "demo", Key: "job-1", Holder: "the tour's job job-1"})
	if err != nil {
		return err
	}
	d.result("%s", u)
	return d.table(ctx)
}

// job is the uid of a job's key, as its node shows it.
func (d *demo) job(ctx context.Context, i int) (api.UID, error) {
	key := fmt.Sprintf("job-%d", i+1)
	for u, err := range d.nodes[i].client.UIDs().List(ctx, api.UIDFilter{Key: key}) {
		return u, err
	}
	return api.UID{}, problem.New(problem.CodeNotFound, "no uid has the key %s", key)
}

func (d *demo) process(ctx context.Context) error {
	u, err := d.job(ctx, 1)
	if err != nil {
		return err
	}
	n := d.nodes[1]
	if os.Getuid() != 0 {
		d.title("On %s the uid is confirmed. (As root a process would run under %d; here it is kept without one.)", n.name, u.UID)
		d.command("poolctl uid confirm %d --keep", u.UID)
		u, err = n.client.UIDs().Confirm(ctx, u.UID, api.Ref{Token: u.Token}, api.ConfirmBody{Keep: true})
	} else {
		d.title("On %s a process starts under uid %d, and the hand-over is confirmed.", n.name, u.UID)
		c, e := n.run(u.UID)
		if e != nil {
			return e
		}
		d.command("setpriv --reuid %d --regid %d --clear-groups sleep 600 &     # pid %d", u.UID, u.UID, c.Process.Pid)
		d.command("grep Uid /proc/%d/status", c.Process.Pid)
		d.result("%s", statusLine(c.Process.Pid, "Uid:"))
		d.command("poolctl uid confirm %d", u.UID)
		u, err = n.client.UIDs().Confirm(ctx, u.UID, api.Ref{Token: u.Token}, api.ConfirmBody{})
	}
	if err != nil {
		return err
	}
	d.result("uid %d is %s", u.UID, u.State)
	return nil
}

// statusLine is one line of a process's status.
func statusLine(pid int, prefix string) string {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if strings.HasPrefix(s.Text(), prefix) {
			return s.Text()
		}
	}
	return "no line " + prefix
}

func (d *demo) requesterDies(ctx context.Context) error {
	n := d.nodes[2]
	d.title("On %s a requester gets a uid, bound to its own process, and is killed before it starts anything.", n.name)
	c, uid, err := n.requester()
	if err != nil {
		return err
	}
	d.command("poolctl uid request --pool demo --hold pid=%d", c.Process.Pid)
	d.result("%d", uid)
	d.command("kill -9 %d", c.Process.Pid)
	stop(c)
	u, err := d.becomes(ctx, n, uid, api.StateQuarantined, api.StateFree)
	if err != nil {
		return err
	}
	if u.State == api.StateQuarantined {
		d.result("uid %d is quarantined: %s", uid, u.Reason)
	}
	if _, err := d.becomes(ctx, n, uid, api.StateFree); err != nil {
		return err
	}
	d.result("uid %d is free again: every node reported from a look at /proc that nothing runs under it", uid)
	return nil
}

func (d *demo) agentDies(ctx context.Context) error {
	n := d.nodes[1]
	u, err := d.job(ctx, 1)
	if err != nil {
		return err
	}
	d.title("The agent of %s is killed. Its claims stay in etcd; what runs is not touched.", n.name)
	d.command("kill -9 %d", n.agent.Process.Pid)
	n.kill()
	seen, err := d.nodes[0].client.UIDs().Get(ctx, u.UID)
	if err != nil {
		return err
	}
	d.result("n1 says: uid %d is %s on %s%s", u.UID, seen.State, strings.Join(seen.Nodes, "+"), d.stillRuns(n))
	d.command("systemctl start idpool-agent      # on %s", n.name)
	if err := n.start(); err != nil {
		return err
	}
	if err := n.ready(ctx); err != nil {
		return err
	}
	again, err := n.client.UIDs().Get(ctx, u.UID)
	if err != nil {
		return err
	}
	if again.State != seen.State || again.Token != u.Token {
		return problem.New(problem.CodeInternal, "uid %d changed while its agent was away: it is %s now", u.UID, again.State)
	}
	d.result("%s is back, took its own place over, and still holds uid %d (%s)", n.name, u.UID, again.State)
	return nil
}

func (d *demo) stillRuns(n *demoNode) string {
	for _, c := range n.started {
		if c.ProcessState == nil && statusLine(c.Process.Pid, "Uid:") != "" {
			return fmt.Sprintf("; its process %d runs on", c.Process.Pid)
		}
	}
	return ""
}

func (d *demo) exhausted(ctx context.Context) error {
	d.title("A pool that is empty says so, and why.")
	free := 0
	pool, err := d.nodes[0].client.Pools().Get(ctx, "demo")
	if err != nil {
		return err
	}
	free = int(pool.Counts[api.StateFree])
	d.command("poolctl uid request --pool demo --count %d --key rest", free)
	if _, err := d.nodes[0].client.RequestUIDs(ctx, api.UIDRequest{Pool: "demo", Count: free, Key: "rest", Holder: "the tour, all the rest"}); err != nil {
		return err
	}
	d.result("%d uids, all in one transaction", free)
	d.command("poolctl uid request --pool demo      # on n3")
	_, err = d.nodes[2].client.RequestUID(ctx, api.UIDRequest{Pool: "demo"})
	var refusal *problem.Error
	if !errors.As(err, &refusal) || refusal.Code != problem.CodeExhausted {
		return problem.New(problem.CodeInternal, "an empty pool answered %v", err)
	}
	for _, line := range strings.Split("poolctl: "+refusal.Text(), "\n") {
		d.result("%s", line)
	}
	return nil
}

func (d *demo) release(ctx context.Context) error {
	n := d.nodes[1]
	u, err := d.job(ctx, 1)
	if err != nil {
		return err
	}
	d.title("Release. A uid comes back only when every node has proven it unused.")
	d.command("poolctl uid release --key job-2      # on %s", n.name)
	if _, err := n.client.UIDs().ReleaseKey(ctx, "job-2"); err != nil {
		return err
	}
	if len(n.started) > 0 {
		if err := d.lingers(ctx, n, u.UID); err != nil {
			return err
		}
	}
	if _, err := d.becomes(ctx, n, u.UID, api.StateFree); err != nil {
		return err
	}
	d.result("uid %d is free: proven by n1, n2 and n3", u.UID)
	for i, key := range []string{"job-1", "job-3", "rest"} {
		n := d.nodes[[]int{0, 2, 0}[i]]
		d.command("poolctl uid release --key %s", key)
		if _, err := n.client.UIDs().ReleaseKey(ctx, key); err != nil {
			return err
		}
	}
	return d.until(ctx, "all uids are free", func() (bool, error) {
		p, err := n.client.Pools().Get(ctx, "demo")
		return err == nil && p.Counts[api.StateFree] == p.Size, err
	})
}

// lingers shows that a released uid waits for its process.
func (d *demo) lingers(ctx context.Context, n *demoNode, uid uint32) error {
	err := d.until(ctx, "a node says that the uid is in use", func() (bool, error) {
		u, err := n.client.UIDs().Get(ctx, uid)
		return err == nil && u.State == api.StateQuarantined && slices.ContainsFunc(u.WaitsFor, func(w problem.WaitsFor) bool { return strings.Contains(w.Why, "in use") }), err
	})
	if err != nil {
		return err
	}
	d.result("uid %d is quarantined: its process still runs, and every node that sees it says so", uid)
	d.command("kill %d", n.started[0].Process.Pid)
	stop(n.started[0])
	n.started = n.started[1:]
	return nil
}

// table shows who has what.
func (d *demo) table(ctx context.Context) error {
	d.command("poolctl uid list")
	w := tabwriter.NewWriter(d.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "     UID\tSTATE\tNODES\tKEY\tHOLDER")
	for u, err := range d.nodes[0].client.UIDs().List(ctx, api.UIDFilter{}) {
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "     %d\t%s\t%s\t%s\t%s\n", u.UID, u.State, strings.Join(u.Nodes, "+"), u.Key, u.Holder)
	}
	return w.Flush()
}

func (d *demo) summary(ctx context.Context) error {
	st, err := d.nodes[0].client.Status(ctx)
	if err != nil {
		return err
	}
	left := uint64(0)
	for state, n := range st.Counts {
		if state != api.StateFree {
			left += n
		}
	}
	d.say("\nThat was: a pool, requests from three nodes, a process, a dead requester, a dead agent, an")
	d.say("empty pool, a release with proof; pairs of VLANs, an empty south, a failure, a dead program, a")
	d.say("deletion. etcd is at revision %d and holds %d claims; %.1f s.", st.Revision, left, time.Since(d.began).Seconds())
	for _, note := range d.notes {
		d.say("Note: %s.", note)
	}
	d.say("Next: poolagent --embedded &  poolctl uid pool set jobs 70000-70999  poolctl uid exec -- id")
	if left != 0 {
		return problem.New(problem.CodeInternal, "%d claims are left", left)
	}
	return nil
}
