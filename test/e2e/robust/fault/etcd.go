package fault

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/idpool/idpool/test/e2e/robust/rig"
)

// etcd are the faults of the cluster as a whole.
func etcd() []Fault {
	return []Fault{
		{"leader-move", "another etcd member is made the leader, and once more to heal", always, leaderMove},
		{"compact", "an agent loses its connections, and etcd the history that it has not seen", always, compactBehind},
		{"defragment", "every etcd member rewrites its database, one after the other", always, defragment},
		hit("no-space", "etcd has no space: it refuses what needs some, and may have done it", anyMember,
			func(ctx context.Context, r *rig.Rig, m *rig.Member) error { return r.RaiseNoSpace(ctx, m) },
			func(ctx context.Context, r *rig.Rig, m *rig.Member) error {
				return eventually(ctx, func(ctx context.Context) error { return r.EndNoSpace(ctx, m) })
			}),
		{"session-storm", "the sessions of all agents end at once", always, storm},
	}
}

func leaderMove(ctx context.Context, r *rig.Rig, rnd *rand.Rand) (string, func(context.Context) error, error) {
	to, back := pick(rnd, r.Members()), pick(rnd, r.Members())
	move := func(m *rig.Member) step {
		return func(ctx context.Context) error {
			// Whoever is to lead may be cut off or away: then there is nothing to move to.
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			return r.MoveLeader(ctx, m)
		}
	}
	err := move(to)(ctx)
	heal := func(ctx context.Context) error {
		_ = move(back)(ctx)
		return r.Working(ctx)
	}
	return fmt.Sprintf("to %s, then to %s (%v)", to.Name(), back.Name(), err), heal, nil
}

// compactBehind takes an agent's connections, so that it must ask for the history
// anew, and compacts before it can.
func compactBehind(ctx context.Context, r *rig.Rig, rnd *rand.Rand) (string, func(context.Context) error, error) {
	n, err := anyNode(ctx, r, rnd)
	if err != nil {
		return "", nil, err
	}
	undo := func() error { return nil }
	heal, err := inflict(ctx, r, []string{n.Name()}, func(context.Context) error {
		heal, err := r.Net().Isolate(n.Name())
		if err != nil {
			return err
		}
		undo = heal
		return r.Net().Break(n.Name())
	}, func(ctx context.Context) error {
		_, err := r.Compact(ctx)
		return errors.Join(undo(), err)
	})
	return n.Name(), heal, err
}

func defragment(ctx context.Context, r *rig.Rig, _ *rand.Rand) (string, func(context.Context) error, error) {
	var failed []error
	for _, m := range r.Members() {
		within, cancel := context.WithTimeout(ctx, 5*time.Second)
		if err := m.Defragment(within); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", m.Name(), err))
		}
		cancel()
	}
	// A member that is away is not rewritten; one of them must be.
	if len(failed) == len(r.Members()) {
		return "", nil, errors.Join(failed...)
	}
	return fmt.Sprintf("%d members", len(r.Members())-len(failed)), r.Working, nil
}

// storm ends all sessions at once: all agents paused or cut off beyond the TTL, or
// all leases revoked.
func storm(ctx context.Context, r *rig.Rig, rnd *rand.Rand) (string, func(context.Context) error, error) {
	all := r.Nodes()
	var began time.Duration
	var undo []func() error
	each := func(do func(n *rig.Node) (func() error, error)) step {
		return func(context.Context) error {
			began = r.Now()
			for _, n := range all {
				heal, err := do(n)
				if err != nil {
					return err
				}
				undo = append(undo, heal)
			}
			return nil
		}
	}
	late := func(ctx context.Context) error {
		err := sleep(ctx, began+beyondTTL(r)-r.Now())
		for _, u := range undo {
			err = errors.Join(err, u())
		}
		return err
	}
	how, begin, end := "", step(nil), step(late)
	switch rnd.IntN(3) {
	case 0:
		how = "paused"
		begin = each(func(n *rig.Node) (func() error, error) { return n.AgentResume, n.AgentPause() })
	case 1:
		how = "cut off"
		begin = each(func(n *rig.Node) (func() error, error) { return r.Net().Isolate(n.Name()) })
	default:
		how = "leases revoked"
		begin = func(ctx context.Context) error { _, err := r.RevokeLeases(ctx); return err }
		end = func(context.Context) error { return nil }
	}
	heal, err := inflict(ctx, r, names(all), begin, end)
	return how, heal, err
}
