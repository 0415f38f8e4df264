package clustertest

import (
	"context"
	"errors"
	"maps"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/cluster/embed"
)

// stressLimit bounds what an operator does to a member.
const stressLimit = 60 * time.Second

// KillMember ends one member as when its machine fails.
func (c *Cluster) KillMember(t testing.TB, i int) {
	t.Helper()
	if err := c.stop(i, (*embed.Server).Kill); err != nil {
		t.Errorf("kill etcd member %d: %v", i, err)
	}
}

// ReplaceMember ends one member for good, as when its machine is lost, removes it
// from the cluster and adds another with no data and an address of its own, which
// takes its index. Endpoints stay as they were.
func (c *Cluster) ReplaceMember(t testing.TB, i int) {
	t.Helper()
	old := uint64(c.members[i].Etcd().Server.MemberID())
	c.KillMember(t, i)
	other := c.members[(i+1)%len(c.members)].Etcd().Server
	cfg := c.configs[i]
	cfg.Dir, cfg.Name, cfg.ListenPeer, cfg.Join = cfg.Dir+"-new", cfg.Name+"-new", "http://"+freeAddress(t), true
	cfg.Members = maps.Clone(cfg.Members)
	delete(cfg.Members, c.configs[i].Name)
	cfg.Members[cfg.Name] = cfg.ListenPeer
	urls, err := types.NewURLs([]string{cfg.ListenPeer})
	if err != nil {
		t.Fatal(err)
	}
	repeat(t, "remove a member", func(ctx context.Context) error {
		_, err := other.RemoveMember(ctx, old)
		if errors.Is(err, membership.ErrIDRemoved) || errors.Is(err, membership.ErrIDNotFound) {
			return nil
		}
		return err
	})
	repeat(t, "add a member", func(ctx context.Context) error {
		_, err := other.AddMember(ctx, *membership.NewMember(cfg.Name, urls, "", nil))
		if errors.Is(err, membership.ErrIDExists) {
			return nil
		}
		return err
	})
	c.configs[i] = cfg
	c.Restart(t)
}

// repeat tries an operator's step while the cluster is still at the one before, each
// time for a moment: what a leader was told that is no more, nobody answers.
func repeat(t testing.TB, what string, f func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), stressLimit)
	defer cancel()
	var wait cluster.Backoff
	for {
		attempt, end := context.WithTimeout(ctx, 5*time.Second)
		err := f(attempt)
		end()
		if err == nil {
			return
		}
		if wait.Wait(ctx) != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// Compact forgets etcd's history up to now.
func (c *Cluster) Compact(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), stressLimit)
	defer cancel()
	s := c.members[0].Etcd().Server
	if _, err := s.Compact(ctx, &pb.CompactionRequest{Revision: s.KV().Rev(), Physical: true}); err != nil {
		t.Fatalf("compact: %v", err)
	}
}

// NoSpace raises the alarm that a member out of space raises: until EndNoSpace etcd
// takes no new data.
func (c *Cluster) NoSpace(t testing.TB) { c.alarm(t, pb.AlarmRequest_ACTIVATE) }

// EndNoSpace disarms it.
func (c *Cluster) EndNoSpace(t testing.TB) { c.alarm(t, pb.AlarmRequest_DEACTIVATE) }

func (c *Cluster) alarm(t testing.TB, action pb.AlarmRequest_AlarmAction) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), stressLimit)
	defer cancel()
	s := c.members[0].Etcd().Server
	if _, err := s.Alarm(ctx, &pb.AlarmRequest{Action: action, MemberID: uint64(s.MemberID()), Alarm: pb.AlarmType_NOSPACE}); err != nil {
		t.Fatalf("alarm %v: %v", action, err)
	}
}
