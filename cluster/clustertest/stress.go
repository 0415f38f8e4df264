package clustertest

import (
	"context"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// stressLimit bounds what an operator does to a member.
const stressLimit = 20 * time.Second

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
