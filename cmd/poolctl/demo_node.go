package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/problem"
)

// demoNode is one node of the tour: an agent's process, and what runs there.
type demoNode struct {
	d       *demo
	name    string
	socket  string
	logFile string
	client  *api.Client
	agent   *exec.Cmd
	started []*exec.Cmd
}

func newDemoNode(d *demo, name string) *demoNode {
	n := &demoNode{d: d, name: name, socket: filepath.Join(d.dir, name+".sock"), logFile: filepath.Join(d.dir, name+".log")}
	n.client = api.New(api.Options{Agent: "unix://" + n.socket, Timeout: 30 * time.Second})
	return n
}

// start runs the node's agent: this program again.
func (n *demoNode) start() error {
	self, err := os.Executable()
	if err != nil {
		return problem.Wrap(problem.CodeInternal, err, "find this program")
	}
	log, err := os.OpenFile(n.logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return problem.Wrap(problem.CodeInternal, err, "log of agent %s", n.name)
	}
	defer log.Close()
	n.agent = exec.Command(self, "demo", "agent", "--node", n.name, "--endpoints", strings.Join(n.d.etcd.Endpoints(), ","), "--data", filepath.Join(n.d.dir, n.name), "--socket", n.socket)
	n.agent.Stdout, n.agent.Stderr = log, log
	if err := n.agent.Start(); err != nil {
		return problem.Wrap(problem.CodeInternal, err, "start agent %s", n.name)
	}
	return nil
}

// ready waits until the agent may grant.
func (n *demoNode) ready(ctx context.Context) error {
	return n.d.until(ctx, "agent "+n.name+" is ready", func() (bool, error) {
		st, err := n.client.Status(ctx)
		if err == nil && !st.Ready {
			err = fmt.Errorf("it says: %s", strings.Join(st.NotReady, "; "))
		}
		return err == nil, err
	})
}

// kill ends the agent as a crash would.
func (n *demoNode) kill() {
	if n.agent != nil {
		_ = n.agent.Process.Kill()
		_ = n.agent.Wait()
		n.agent = nil
	}
}

func (n *demoNode) stopAll() {
	for _, c := range n.started {
		stop(c)
	}
	n.kill()
}

func stop(c *exec.Cmd) {
	_ = c.Process.Kill()
	_ = c.Wait()
}

// run starts a process under a uid; as root only.
func (n *demoNode) run(uid uint32) (*exec.Cmd, error) {
	c := exec.Command("sleep", "600")
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	c.Dir, c.Env = "/", []string{"PATH=/usr/bin:/bin"}
	if err := c.Start(); err != nil {
		return nil, problem.Wrap(problem.CodeInternal, err, "start a process under uid %d", uid)
	}
	n.started = append(n.started, c)
	return c, nil
}

// requester starts a process that gets a uid bound to itself, and returns both.
func (n *demoNode) requester() (*exec.Cmd, uint32, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, 0, problem.Wrap(problem.CodeInternal, err, "find this program")
	}
	c := exec.Command(self, "--agent", "unix://"+n.socket, "demo", "requester")
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		return nil, 0, problem.Wrap(problem.CodeInternal, err, "start a requester")
	}
	n.started = append(n.started, c)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, 0, problem.Wrap(problem.CodeInternal, err, "the requester said nothing")
	}
	uid, err := strconv.ParseUint(strings.TrimSpace(line), 10, 32)
	if err != nil {
		return nil, 0, problem.Wrap(problem.CodeInternal, err, "the requester said %q", line)
	}
	return c, uint32(uid), nil
}

// until waits for a condition; at most half a minute.
func (d *demo) until(ctx context.Context, what string, ok func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		done, err := ok()
		if done {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if err == nil {
				err = context.Cause(ctx)
			}
			return problem.Wrap(problem.CodeUnavailable, err, "waited in vain until %s", what)
		}
	}
}

// becomes waits until a uid has one of the states, as the node shows it.
func (d *demo) becomes(ctx context.Context, n *demoNode, uid uint32, states ...string) (api.UID, error) {
	var last api.UID
	err := d.until(ctx, fmt.Sprintf("uid %d is %s", uid, strings.Join(states, " or ")), func() (bool, error) {
		u, err := n.client.UIDs().Get(ctx, uid)
		if err != nil {
			return false, err
		}
		last = u
		for _, s := range states {
			if u.State == s {
				return true, nil
			}
		}
		return false, fmt.Errorf("it is %s", u.State)
	})
	return last, err
}
