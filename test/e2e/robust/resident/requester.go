package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/test/e2e/robust/rig"
)

// callTimeout bounds one call of the agent.
const callTimeout = 30 * time.Second

// requester asks the agent of its node.
type requester struct {
	client *api.Client
	procs  map[int]*sleeper
}

// sleeper is a process under a uid. It has the reading end of a pipe whose other
// end is ours alone: so it learns of our end.
type sleeper struct {
	cmd  *exec.Cmd
	life *os.File
}

// requesterMain does what it reads, a line each, until the input ends.
func requesterMain() error {
	q := &requester{client: api.New(api.Options{Timeout: callTimeout}), procs: map[int]*sleeper{}}
	defer q.client.Close()
	lines, out := bufio.NewScanner(os.Stdin), json.NewEncoder(os.Stdout)
	for lines.Scan() {
		var ask rig.Ask
		if err := json.Unmarshal(lines.Bytes(), &ask); err != nil {
			return fmt.Errorf("what was asked: %w", err)
		}
		if ask.Op == rig.AskExit {
			return nil
		}
		a, err := q.do(context.Background(), ask)
		if err != nil {
			body := api.NewProblemBody(err)
			a = rig.Answer{Problem: &body}
		}
		if err := out.Encode(a); err != nil {
			return err
		}
	}
	return lines.Err()
}

func (q *requester) do(ctx context.Context, ask rig.Ask) (a rig.Answer, err error) {
	ref := api.Ref{Token: ask.Token}
	switch ask.Op {
	case rig.AskRequest:
		if ask.Request == nil {
			return a, problem.New(problem.CodeInvalid, "a request of nothing")
		}
		r := *ask.Request
		own(&r.Hold)
		a.Grant, err = some(q.client.Grant(ctx, r))
	case rig.AskJoin:
		hold := ask.Hold
		if hold != nil {
			own(hold)
		}
		a.UID, err = some(q.client.UIDs().Join(ctx, ask.UID, ref, api.JoinBody{Hold: hold}))
	case rig.AskConfirm:
		a.UID, err = some(q.client.UIDs().Confirm(ctx, ask.UID, ref, api.ConfirmBody{Keep: ask.Keep, Requester: ask.Requester}))
	case rig.AskRenew:
		body := api.RenewBody{Requester: ask.Requester}
		if ask.For > 0 {
			body.TTL = ask.For.String()
		}
		a.UID, err = some(q.client.UIDs().Renew(ctx, ask.UID, ref, body))
	case rig.AskRelease:
		if ask.UID == 0 {
			a.Released, err = some(q.client.UIDs().ReleaseKey(ctx, ask.Key))
			break
		}
		a.Released, err = some(q.client.UIDs().Release(ctx, ask.UID, ask.Token, ask.Requester))
	case rig.AskAllocate:
		if ask.Allocation == nil {
			return a, problem.New(problem.CodeInvalid, "an allocation of nothing")
		}
		r := *ask.Allocation
		r.Key = ask.Key
		a.Allocation, err = some(q.client.Allocations().Create(ctx, r))
	case rig.AskDeallocate:
		a.Allocation, err = some(q.client.Allocations().Delete(ctx, ask.Key))
	case rig.AskStart:
		a.PID, err = q.start(ask.UID, ask.For)
	case rig.AskEnd:
		err = q.end(ask.PID)
	default:
		err = problem.New(problem.CodeInvalid, "a requester does not know %q", ask.Op)
	}
	return a, err
}

func some[T any](v T, err error) (*T, error) {
	if err != nil {
		return nil, err
	}
	return &v, nil
}

// own makes a pid hold without a pid ours.
func own(h *api.Hold) {
	if h.Kind == api.HoldPID && h.PID == 0 {
		h.PID = os.Getpid()
	}
}

// start starts a process under a uid; when it returns, the process runs.
func (q *requester) start(uid uint32, outlives time.Duration) (int, error) {
	if uid == 0 || uid == ^uint32(0) {
		return 0, problem.New(problem.CodeInvalid, "uid %d is nobody's to run under", uid)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	// This file, without the way to it, which may be closed to the uid.
	cmd := exec.Command("/proc/self/exe", "sleeper", outlives.String())
	cmd.Stdin = r
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	if err := cmd.Start(); err != nil {
		w.Close()
		return 0, fmt.Errorf("start a process under uid %d: %w", uid, err)
	}
	q.procs[cmd.Process.Pid] = &sleeper{cmd, w}
	return cmd.Process.Pid, nil
}

// end ends a process that start started, and waits for its end.
func (q *requester) end(pid int) error {
	s := q.procs[pid]
	if s == nil {
		return problem.New(problem.CodeNotFound, "process %d is none of this requester's", pid)
	}
	delete(q.procs, pid)
	defer s.life.Close()
	if err := s.cmd.Process.Kill(); err != nil {
		return err
	}
	_ = s.cmd.Wait() // it was killed
	return nil
}

// sleeperMain runs until its requester has ended, and for some time more.
func sleeperMain(outlives string) error {
	d, err := time.ParseDuration(outlives)
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	time.Sleep(d)
	return nil
}
