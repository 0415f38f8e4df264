package fault

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/idpool/idpool/test/e2e/robust/rig"
)

// machines are the faults of a machine's parts: its clock, its disk, its power.
func machines() []Fault {
	return []Fault{
		clock("clock-agent", "the wall clock of an agent's process jumps, and back", anyNode, (*rig.Node).WallClock),
		clock("clock-member", "the wall clock of an etcd member's process jumps, and back", anyMember, (*rig.Member).WallClock),
		hit("disk-full", "no space for the agent's data", anyNode,
			func(_ context.Context, _ *rig.Rig, n *rig.Node) error { return n.DiskFull() }, healDisk),
		hit("disk-read-only", "the agent's data cannot be written", anyNode,
			func(_ context.Context, _ *rig.Rig, n *rig.Node) error { return n.DiskReadOnly() }, healDisk),
		hit("reboot", "a machine loses its power; it boots with another boot id", anyNode,
			func(_ context.Context, _ *rig.Rig, n *rig.Node) error { n.PowerOff(); return nil }, boot),
	}
}

// healDisk also starts the agent where the disk was the end of it, or is about to be.
func healDisk(ctx context.Context, _ *rig.Rig, n *rig.Node) error {
	if err := n.DiskHeal(); err != nil {
		return err
	}
	return n.Supervise(ctx)
}

func boot(ctx context.Context, _ *rig.Rig, n *rig.Node) error {
	if err := n.PowerOn(); err != nil {
		return err
	}
	return n.AgentStart(ctx)
}

// clock is a fault that moves a wall clock by seconds to years.
func clock[T interface{ Name() string }](name, about string, draw func(context.Context, *rig.Rig, *rand.Rand) (T, error), set func(T, time.Duration) error) Fault {
	return Fault{name, about, always, func(ctx context.Context, r *rig.Rig, rnd *rand.Rand) (string, func(context.Context) error, error) {
		t, err := draw(ctx, r, rnd)
		if err != nil {
			return "", nil, err
		}
		jump := pick(rnd, []time.Duration{5 * time.Second, time.Minute, time.Hour, 30 * 24 * time.Hour, 10 * 365 * 24 * time.Hour})
		if rnd.IntN(2) == 0 {
			jump = -jump
		}
		heal, err := inflict(ctx, r, []string{t.Name()},
			func(context.Context) error { return set(t, jump) },
			func(context.Context) error { return set(t, 0) })
		return fmt.Sprintf("%s by %v", t.Name(), jump), heal, err
	}}
}
