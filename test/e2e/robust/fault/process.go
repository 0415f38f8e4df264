package fault

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"syscall"
	"time"

	"github.com/idpool/idpool/test/e2e/robust/rig"
)

// processes are the faults that end and pause them.
func processes() []Fault {
	return []Fault{
		hit("agent-kill", "SIGKILL of an agent; it is started again", anyNode,
			func(_ context.Context, _ *rig.Rig, n *rig.Node) error { return n.AgentKill() },
			startAgent),
		hit("agent-stop", "SIGTERM of an agent, which leaves if nothing keeps its node; it is started again", anyNode,
			func(ctx context.Context, _ *rig.Rig, n *rig.Node) error { return n.AgentStop(ctx) },
			startAgent),
		paused("agent-pause", "SIGSTOP of an agent beyond its session's TTL", anyNode, (*rig.Node).AgentPause, (*rig.Node).AgentResume),
		requesterFault("requester-kill", "SIGKILL of a requester", syscall.SIGKILL, 0),
		requesterFault("requester-pause", "SIGSTOP of a requester", syscall.SIGSTOP, syscall.SIGCONT),
		hit("member-kill", "SIGKILL of an etcd member; it is started again", anyMember, killMember, startMember),
		hit("leader-kill", "SIGKILL of the etcd member that leads; it is started again", theLeader, killMember, startMember),
		paused("member-pause", "SIGSTOP of an etcd member beyond the sessions' TTL", anyMember, (*rig.Member).Pause, (*rig.Member).Resume),
		paused("leader-pause", "SIGSTOP of the etcd member that leads, beyond the sessions' TTL", theLeader, (*rig.Member).Pause, (*rig.Member).Resume),
	}
}

func startAgent(ctx context.Context, _ *rig.Rig, n *rig.Node) error { return n.AgentStart(ctx) }

func killMember(_ context.Context, _ *rig.Rig, m *rig.Member) error { return m.Kill() }

// startMember does not wait: another fault may keep the quorum away.
func startMember(_ context.Context, _ *rig.Rig, m *rig.Member) error { return m.Launch() }

// paused is a fault that pauses and resumes, not before the TTL has passed.
func paused[T interface{ Name() string }](name, about string, draw func(context.Context, *rig.Rig, *rand.Rand) (T, error), pause, resume func(T) error) Fault {
	return Fault{name, about, always, func(ctx context.Context, r *rig.Rig, rnd *rand.Rand) (string, func(context.Context) error, error) {
		t, err := draw(ctx, r, rnd)
		if err != nil {
			return "", nil, err
		}
		var began time.Duration
		heal, err := inflict(ctx, r, []string{t.Name()},
			func(context.Context) error { began = r.Now(); return pause(t) },
			func(ctx context.Context) error {
				late := sleep(ctx, began+beyondTTL(r)-r.Now())
				return errors.Join(resume(t), late)
			})
		return t.Name(), heal, err
	}}
}

// requesterWait is how long a fault of a requester waits for one to appear.
const requesterWait = 10 * time.Second

// requesterFault signals a requester, and once more to heal.
func requesterFault(name, about string, now, later syscall.Signal) Fault {
	return Fault{name, about, always, func(ctx context.Context, r *rig.Rig, rnd *rand.Rand) (string, func(context.Context) error, error) {
		seed := rnd.Uint64()
		var p *rig.Proc
		within, cancel := context.WithTimeout(ctx, requesterWait)
		defer cancel()
		err := eventually(within, func(context.Context) error {
			var all []*rig.Proc
			for _, n := range r.Nodes() {
				all = append(all, n.Procs()...)
			}
			if len(all) == 0 {
				return errors.New("no requester runs")
			}
			p = all[seed%uint64(len(all))]
			return p.Signal(now)
		})
		if err != nil {
			return "", nil, err
		}
		heal := func(ctx context.Context) error {
			if later != 0 {
				if err := p.Signal(later); err != nil && !errors.Is(err, os.ErrProcessDone) {
					return err
				}
			}
			return r.Working(ctx)
		}
		return fmt.Sprintf("process %d of %s", p.PID(), p.Node().Name()), heal, nil
	}}
}
