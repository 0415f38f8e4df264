package agent

import (
	"time"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/problem"
)

// certificate is one of the agent's own, as it stands in its file now.
type certificate struct {
	// use is "etcd" or "listen".
	use  string
	ends time.Time
	// warning is "" until it ends soon.
	warning string
}

// certificates are those in use: towards etcd, and on the TCP port.
func (a *Agent) certificates() []certificate {
	a.mu.Lock()
	core, door := a.core, a.creds
	a.mu.Unlock()
	var all []certificate
	if core != nil {
		if ends, warning := core.client.Certificate(); !ends.IsZero() {
			all = append(all, certificate{"etcd", ends, warning})
		}
	}
	if door != nil {
		all = append(all, certificate{"listen", door.Ends(), door.Ending(time.Now())})
	}
	return all
}

// warnings are what will refuse requests one day, and does not yet.
func (a *Agent) warnings() []string {
	var all []string
	for _, c := range a.certificates() {
		if c.warning != "" {
			all = append(all, c.warning)
		}
	}
	return all
}

// certificateFindings are the warnings as something for a person.
func (a *Agent) certificateFindings() []api.Finding {
	var all []api.Finding
	for _, w := range a.warnings() {
		all = append(all, api.Finding{
			Kind: "certificate", Subject: "node " + a.cfg.Node, Detail: w,
			Try: []problem.Advice{{When: "it was made by poolctl cluster init", Command: "poolctl cluster init --pki DIR --renew NAME"}},
		})
	}
	return all
}
