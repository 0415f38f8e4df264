package fault

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/test/e2e/robust/rig"
)

const (
	// forgotten is how many grants etcd forgets by a restore, if they come within
	// forgottenWait; 10 must.
	forgotten, forgottenLeast = 100, 10
	forgottenWait             = 15 * time.Second
	// stays is for how long an adoption is watched to wait for a node that is away.
	stays = 2 * time.Second
)

func restores() []Fault {
	return []Fault{{"restore", "etcd is restored from a snapshot, and an operator adopts that", always, restored}}
}

// restoring is one restore: what is drawn for it, and how far it has come.
type restoring struct {
	o    rig.RestoreOptions
	from *rig.Member
	// away is off while etcd is restored and adopted: by its agent's end or its power's.
	// It is waited for, or fenced. nil: nobody.
	away         *rig.Node
	power, fence bool
	done         bool
}

func restored(ctx context.Context, r *rig.Rig, rnd *rand.Rand) (string, func(context.Context) error, error) {
	s := &restoring{from: pick(rnd, r.Members())}
	s.o.NewToken = rnd.IntN(2) == 0
	if bump := pick(rnd, []int64{1000, 1_000_000_000}); rnd.IntN(2) == 0 {
		s.o.Bump = bump
	}
	n := pick(rnd, r.Nodes())
	s.power = rnd.IntN(2) == 0
	detail := fmt.Sprintf("new token: %v, raised by %d", s.o.NewToken, s.o.Bump)
	switch rnd.IntN(3) {
	case 0:
		s.away = n
		detail += fmt.Sprintf(", %s away (power off: %v) and waited for", n.Name(), s.power)
	case 1:
		s.away, s.power, s.fence = n, true, true
		detail += ", " + n.Name() + " off and fenced"
	}
	heal, err := inflict(ctx, r, append(names(r.Nodes()), names(r.Members())...),
		func(ctx context.Context) error { return s.goBack(ctx, r) },
		func(ctx context.Context) error { return s.adopt(ctx, r) })
	return detail, heal, err
}

// goBack restores etcd to before grants that were answered.
func (s *restoring) goBack(ctx context.Context, r *rig.Rig) error {
	snapshot, err := r.Snapshot(ctx, s.from)
	if err != nil {
		return err
	}
	if err := grantsSince(ctx, r, snapshot.Revision); err != nil {
		return err
	}
	switch {
	case s.away == nil:
	case s.power:
		s.away.PowerOff()
	default:
		if err := s.away.AgentKill(); err != nil {
			return err
		}
	}
	s.done = true
	return r.Restore(ctx, snapshot, s.o)
}

// grantsSince waits until so much was granted behind a revision, or for a while.
func grantsSince(ctx context.Context, r *rig.Rig, revision int64) error {
	db, err := r.Client(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	within, cancel := context.WithTimeout(ctx, forgottenWait)
	defer cancel()
	seen := 0
	for resp := range db.Watch().Watch(clientv3.WithRequireLeader(within), db.Keys().ClaimsPrefix(), clientv3.WithPrefix(), clientv3.WithRev(revision+1)) {
		if err := resp.Err(); err != nil {
			return fmt.Errorf("watch grants: %w", err)
		}
		for _, e := range resp.Events {
			if e.IsCreate() {
				seen++
			}
		}
		if seen >= forgotten {
			break
		}
	}
	if seen < forgottenLeast {
		return errors.Join(fmt.Errorf("%d ids were granted in %v after the snapshot", seen, forgottenWait), context.Cause(ctx))
	}
	return nil
}

// adopt is what an operator does about it. Who is away comes back: when the adoption
// is seen to wait for it or, fenced, when the others grant again.
func (s *restoring) adopt(ctx context.Context, r *rig.Rig) error {
	if !s.done {
		return nil
	}
	args := []string{"adopt-restore", "--yes", "--reason", "restored from a snapshot"}
	if s.fence {
		args = append(args, "--fence", s.away.Name())
	}
	if s.away == nil || s.fence {
		if err := s.command(ctx, r, args); err != nil || s.away == nil {
			return err
		}
		return errors.Join(letIn(ctx, r, s.away), boot(ctx, r, s.away))
	}
	adopting := make(chan error, 1)
	go func() { adopting <- s.command(ctx, r, args) }()
	if err := s.waits(ctx, r); err != nil {
		return err
	}
	if err := boot(ctx, r, s.away); err != nil {
		return err
	}
	return <-adopting
}

// command is given again until it is taken: a node that was there a moment ago may
// not be fenced yet.
func (s *restoring) command(ctx context.Context, r *rig.Rig, args []string) error {
	for {
		out, err := r.Operate(ctx, args...)
		if err == nil {
			return nil
		}
		err = fmt.Errorf("poolctl cluster %v: %w: %s", args, err, out)
		if over := sleep(ctx, time.Second); over != nil {
			return errors.Join(over, err)
		}
	}
}

// waits makes sure that the adoption waits for the node that is away, after all
// others have spoken.
func (s *restoring) waits(ctx context.Context, r *rig.Rig) error {
	db, err := r.Client(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	err = eventually(ctx, func(ctx context.Context) error {
		for _, n := range r.Nodes() {
			got, err := db.Read(ctx, clientv3.OpGet(db.Keys().Recovery(n.Name())))
			if err != nil {
				return err
			}
			if n != s.away && len(got.Responses[0].GetResponseRange().Kvs) == 0 {
				return fmt.Errorf("%s has not said what it holds", n.Name())
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	within, cancel := context.WithTimeout(ctx, stays)
	defer cancel()
	for {
		meta, _, err := db.ReadMeta(ctx)
		if err != nil {
			return err
		}
		if meta.State == cluster.StateNormal {
			return fmt.Errorf("granting resumed in epoch %d without %s, which had not spoken", meta.Number, s.away.Name())
		}
		if sleep(within, 100*time.Millisecond) != nil {
			return context.Cause(ctx)
		}
	}
}
