package rig

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// Leader is the member that leads, by the word of any that answers.
func (r *Rig) Leader(ctx context.Context) (*Member, error) {
	var found *Member
	err := eventually(ctx, "etcd has a leader", func(ctx context.Context) error {
		var all []error
		for _, m := range r.members {
			if !m.Alive() {
				continue
			}
			if id, leader, err := m.status(ctx); err != nil {
				all = append(all, err)
			} else if id == leader {
				found = m
				return nil
			}
		}
		return errors.Join(append(all, errors.New("no member says that it leads"))...)
	})
	return found, err
}

// MoveLeader makes another member the leader.
func (r *Rig) MoveLeader(ctx context.Context, to *Member) error {
	from, err := r.Leader(ctx)
	if err != nil || from == to {
		return err
	}
	id, _, err := to.status(ctx)
	if err != nil {
		return err
	}
	db, err := from.client(ctx)
	if err != nil {
		return err
	}
	r.say("leader moves from %s to %s", from.name, to.name)
	_, err = db.Txn().MoveLeader(ctx, id)
	return err
}

// SetCompactLimit says how far Compact may go: the revision up to which the
// history is known to whoever needs it. Without a limit nothing is compacted.
func (r *Rig) SetCompactLimit(f func() int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.limit = f
}

// Compact compacts etcd's history as far as the limit allows, with a proposal
// through one member, and returns the revision, 0 for nothing to do.
func (r *Rig) Compact(ctx context.Context) (int64, error) {
	r.mu.Lock()
	limit := r.limit
	r.mu.Unlock()
	if limit == nil {
		return 0, nil
	}
	rev := limit()
	if rev <= 1 {
		return 0, nil
	}
	m, err := r.Leader(ctx)
	if err != nil {
		return 0, err
	}
	db, err := m.client(ctx)
	if err != nil {
		return 0, err
	}
	r.say("history compacted to %d", rev)
	if _, err = db.Txn().Compact(ctx, rev); errors.Is(err, rpctypes.ErrCompacted) {
		return 0, nil // a restore marked it so
	}
	return rev, err
}

// RaiseNoSpace makes etcd refuse what takes space, as a member out of its quota
// does; EndNoSpace ends it.
func (r *Rig) RaiseNoSpace(ctx context.Context, m *Member) error {
	return r.alarm(ctx, m, "ACTIVATE")
}

// EndNoSpace disarms the alarm of a member.
func (r *Rig) EndNoSpace(ctx context.Context, m *Member) error {
	return r.alarm(ctx, m, "DEACTIVATE")
}

func (r *Rig) alarm(ctx context.Context, m *Member, action string) error {
	id, _, err := m.status(ctx)
	if err != nil {
		return err
	}
	r.say("%s: alarm NOSPACE %s", m.name, action)
	return m.post(ctx, "/v3/maintenance/alarm", fmt.Sprintf(`{"action":%q,"memberID":"%d","alarm":"NOSPACE"}`, action, id))
}

// RevokeLeases ends all leases of etcd at once, as if all had expired, and returns
// how many.
func (r *Rig) RevokeLeases(ctx context.Context) (int, error) {
	db, err := r.Client(ctx)
	if err != nil {
		return 0, err
	}
	defer db.Close()
	all, err := db.Renew().Leases(ctx)
	if err != nil {
		return 0, err
	}
	r.say("%d leases revoked", len(all.Leases))
	for i, l := range all.Leases {
		if _, err := db.Renew().Revoke(ctx, l.ID); err != nil {
			return i, err
		}
	}
	return len(all.Leases), nil
}
