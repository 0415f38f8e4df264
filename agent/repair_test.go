package agent_test

import (
	"net/http"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/problem"
)

// TestRepair: the plan writes nothing, what is not in it is not touched, and what
// is goes while it stands as it was found.
func TestRepair(t *testing.T) {
	w := newPoisoned(t)
	n := w.n1
	lease, err := w.client.Renew().Grant(t.Context(), 3600)
	if err != nil {
		t.Fatal(err)
	}
	lock := w.keys.Lock("uid", 4000000)
	if _, err := w.client.Txn().Put(t.Context(), lock, leases.NewToken(), clientv3.WithLease(lease.ID)); err != nil {
		t.Fatal(err)
	}
	var plan []api.Repair
	eventually(t, "the lock is in the plan", func() (bool, any) {
		plan, err = n.RepairPlan(t.Context())
		return err == nil && len(plan) == 1 && plan[0].Key == lock, plan
	})
	found, err := n.Check(t.Context())
	if err != nil || len(found) != 1 || found[0].Kind != leases.FindLockWithoutClaim || found[0].Key != lock {
		t.Errorf("%+v, %v", found, err)
	}
	foreign := []api.Repair{{Key: w.keys.Meta(), Revision: 1}, {Key: lock, Revision: plan[0].Revision - 1}}
	done, err := n.Repair(t.Context(), foreign)
	if err != nil || done[0].Done || done[1].Done || done[0].Why == "" {
		t.Errorf("%+v, %v", done, err)
	}
	done, err = n.Repair(t.Context(), plan)
	if err != nil || len(done) != 1 || !done[0].Done {
		t.Errorf("%+v, %v", done, err)
	}
	if found, err = n.Check(t.Context()); err != nil || len(found) != 0 {
		t.Errorf("%+v, %v", found, err)
	}
	// Without a body too, it is the plan; the audit tells a plan from a change.
	if status, _, body := n.raw(t, http.MethodPost, "/v1/repair", ""); status != http.StatusOK || string(body) != "{\"items\":[]}\n" {
		t.Errorf("%d %s", status, body)
	}
	var plans, changes int
	for _, e := range n.all(t, api.EventFilter{Recent: true, Types: []string{"audit"}}) {
		switch {
		case e.Audit == nil || e.Audit.Operation != "repair":
		case e.Audit.DryRun:
			plans++
		default:
			changes++
		}
	}
	if plans < 2 || changes != 2 {
		t.Errorf("%d plans and %d changes in the audit", plans, changes)
	}
	status, _, body := n.raw(t, http.MethodPost, "/v1/repair", `{"items":[{"key":1}]}`)
	if status != problem.CodeInvalid.HTTPStatus() {
		t.Errorf("%d %s", status, body)
	}
}
