package clustertest_test

import (
	"context"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/cluster/clustertest"
)

func TestDataSurvivesAnOutage(t *testing.T) {
	c := clustertest.Start(t)
	client := c.Open(t)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if _, err := client.Commit(ctx, nil, []clientv3.Op{clientv3.OpPut("/k", "v")}, nil); err != nil {
		t.Fatal(err)
	}
	c.Stop(t)
	c.Restart(t)
	resp, err := client.Read(ctx, clientv3.OpGet("/k"))
	if err != nil {
		t.Fatal(err)
	}
	if kvs := resp.Responses[0].GetResponseRange().Kvs; len(kvs) != 1 || string(kvs[0].Value) != "v" {
		t.Fatalf("after the restart: %v", kvs)
	}
}

func TestThreeMembersSurviveOne(t *testing.T) {
	c := clustertest.StartN(t, 3)
	client := c.Open(t)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if _, _, err := client.EnsureMeta(ctx); err != nil {
		t.Fatal(err)
	}
	c.StopMember(t, 0)
	if _, _, err := client.ReadMeta(ctx); err != nil {
		t.Fatalf("with two of three members: %v", err)
	}
	c.Restart(t)
	if c.Member(0) == nil {
		t.Fatal("the stopped member did not come back")
	}
}
