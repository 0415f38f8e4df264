package api

import (
	"context"
	"net/http"

	"github.com/idpool/idpool/problem"
)

// Finding is something that a person should look at.
type Finding struct {
	// Kind is a stable word for programs, such as unreadable.
	Kind string `json:"kind"`
	// Subject is the thing: a key, or "service edge-7".
	Subject string           `json:"subject"`
	Detail  string           `json:"detail"`
	Try     []problem.Advice `json:"try"`
	// Key is the key that a repair would delete; see [Client.RepairPlan].
	Key string `json:"key,omitempty"`
}

// Repair is a write that mends what nothing rests on.
type Repair struct {
	Key string `json:"key" maxLength:"4096"`
	// Revision is etcd's, of the key: what has changed since is left alone.
	Revision int64  `json:"revision"`
	Action   string `json:"action,omitempty" doc:"delete"`
	Why      string `json:"why,omitempty"`
	Done     bool   `json:"done,omitempty"`
}

// RepairRequest is the body of POST /v1/repair. Without items nothing is written.
type RepairRequest struct {
	Items []Repair `json:"items,omitempty" maxItems:"1000"`
}

// Check returns what is wrong in the cluster and heals by nobody's doing; none is
// a good sign.
func (c *Client) Check(ctx context.Context) ([]Finding, error) {
	var page List[Finding]
	_, err := c.do(ctx, call{method: http.MethodGet, path: "/v1/check", what: "nothing checked"}, &page)
	return page.Items, err
}

// RepairPlan returns what [Client.Repair] would do now. It writes nothing.
func (c *Client) RepairPlan(ctx context.Context) ([]Repair, error) {
	var page List[Repair]
	_, err := c.do(ctx, call{method: http.MethodPost, path: "/v1/repair", body: RepairRequest{}, what: "no plan made"}, &page)
	return page.Items, err
}

// Repair does items of a plan, each only while it stands as the plan says; what
// was not done says why. For operators.
func (c *Client) Repair(ctx context.Context, plan []Repair) ([]Repair, error) {
	if len(plan) == 0 {
		return nil, nil
	}
	var page List[Repair]
	_, err := c.do(ctx, call{method: http.MethodPost, path: "/v1/repair", body: RepairRequest{Items: plan}, what: "nothing repaired"}, &page)
	return page.Items, err
}
