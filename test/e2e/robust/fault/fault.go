// Package fault disturbs a rig: each fault is injected, lasts for as long as the
// run lets it, and is healed with the means that an operator has.
package fault

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/idpool/idpool/test/e2e/robust/rig"
)

// Fault is one kind of disturbance.
type Fault struct {
	// Name is short and stable, such as agent-kill.
	Name string
	// About says what it does.
	About string
	// Available is nil where it can be had, else why not.
	Available func(*rig.Rig) error
	// Inject begins it. Whom it hits is drawn from rnd alone, so that one seed gives
	// one sequence; it waits for those whom another fault hits. Detail says who it
	// was. Heal ends it and waits until the whole cluster works again: give it a
	// bounded context. After an error there is nothing to heal.
	Inject func(ctx context.Context, r *rig.Rig, rnd *rand.Rand) (detail string, heal func(context.Context) error, err error)
}

// All are the faults, in a fixed order.
func All() []Fault {
	return slices.Concat(processes(), network(), etcd(), machines(), identity(), restores())
}

// Quick are those of All that are healed within some seconds.
func Quick() []Fault {
	names := []string{"agent-kill", "requester-kill", "member-kill", "cut-agent", "lossy-link", "leader-move", "disk-read-only"}
	return slices.DeleteFunc(All(), func(f Fault) bool { return !slices.Contains(names, f.Name) })
}

func always(*rig.Rig) error { return nil }

// step begins or ends a disturbance.
type step func(ctx context.Context) error

// inflict reserves whom a fault hits, begins it and makes its heal: end, then a
// wait until the cluster works. End is called after a begin that failed, too.
func inflict(ctx context.Context, r *rig.Rig, names []string, begin, end step) (heal func(context.Context) error, err error) {
	free, err := r.Reserve(ctx, names...)
	if err != nil {
		return nil, err
	}
	if err := begin(ctx); err != nil {
		err = errors.Join(err, end(ctx))
		free()
		return nil, err
	}
	return func(ctx context.Context) error {
		defer free()
		if err := end(ctx); err != nil {
			return err
		}
		return r.Working(ctx)
	}, nil
}

// hit makes a fault of a begin and an end that speak of one node or member.
func hit[T interface{ Name() string }](name, about string, draw func(ctx context.Context, r *rig.Rig, rnd *rand.Rand) (T, error), begin, end func(context.Context, *rig.Rig, T) error) Fault {
	return Fault{name, about, always, func(ctx context.Context, r *rig.Rig, rnd *rand.Rand) (string, func(context.Context) error, error) {
		t, err := draw(ctx, r, rnd)
		if err != nil {
			return "", nil, err
		}
		heal, err := inflict(ctx, r, []string{t.Name()},
			func(ctx context.Context) error { return begin(ctx, r, t) },
			func(ctx context.Context) error { return end(ctx, r, t) })
		return t.Name(), heal, err
	}}
}

func anyNode(_ context.Context, r *rig.Rig, rnd *rand.Rand) (*rig.Node, error) {
	return pick(rnd, r.Nodes()), nil
}

func anyMember(_ context.Context, r *rig.Rig, rnd *rand.Rand) (*rig.Member, error) {
	return pick(rnd, r.Members()), nil
}

// theLeader is drawn by etcd.
func theLeader(ctx context.Context, r *rig.Rig, _ *rand.Rand) (*rig.Member, error) {
	return r.Leader(ctx)
}

func pick[T any](rnd *rand.Rand, all []T) T { return all[rnd.IntN(len(all))] }

func names[T interface{ Name() string }](all []T) []string {
	var out []string
	for _, one := range all {
		out = append(out, one.Name())
	}
	return out
}

// other is a node but not that one.
func other(r *rig.Rig, not *rig.Node) *rig.Node {
	all := r.Nodes()
	return all[(slices.Index(all, not)+1)%len(all)]
}

// beyondTTL is how long a pause lasts at least: an agent's session is over then.
func beyondTTL(r *rig.Rig) time.Duration { return r.LeaseTTL() + time.Second }

// sleep waits for d, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// eventually waits until check returns nil.
func eventually(ctx context.Context, check step) error {
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		if over := sleep(ctx, 100*time.Millisecond); over != nil {
			return errors.Join(over, err)
		}
	}
}
