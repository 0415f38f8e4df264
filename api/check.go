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
}

// Check returns what is wrong in the cluster and heals by nobody's doing; none is
// a good sign.
func (c *Client) Check(ctx context.Context) ([]Finding, error) {
	var page List[Finding]
	_, err := c.do(ctx, call{method: http.MethodGet, path: "/v1/check", what: "nothing checked"}, &page)
	return page.Items, err
}
