package vlan

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/leases"
)

// Kinds of a finding.
const (
	// FindUnknown: whether an outside inventory has a VLAN cannot be told.
	FindUnknown = "unknown"
	// FindWaiting: a node that keeps an outside inventory is not up, or cannot.
	FindWaiting = "waiting"
	// FindOverdue: provisioning was neither confirmed nor reported as failed.
	FindOverdue = "overdue"
	// FindOrphan: a claim names a service that does not exist, or does not list it.
	FindOrphan = "orphan"
	// FindLost: a service lists a VLAN whose claim is gone or another grant's.
	FindLost = "lost"
	// FindUnreadable: a service's record cannot be read.
	FindUnreadable = "unreadable"
)

// Finding is one thing about services that a person should look at.
type Finding struct {
	Kind, Service, Attribute, Inventory string
	VID                                 *uint32
	Detail                              string
	// Try is the command to type next.
	Try string
}

// Findings lists what is wrong with services and their VLANs, or waits for
// somebody, by service. Services and claims are not read at one revision, so what
// does not fit together counts only if it is found twice. Two round trips at most,
// no commit.
func (a *Allocator) Findings(ctx context.Context) ([]Finding, error) {
	first, err := a.findings(ctx)
	if err != nil || !slices.ContainsFunc(first, Finding.misfit) {
		return first, err
	}
	again, err := a.findings(ctx)
	return slices.DeleteFunc(again, func(f Finding) bool {
		return f.misfit() && !slices.ContainsFunc(first, func(o Finding) bool { return o.same(f) })
	}), err
}

func (f Finding) misfit() bool { return f.Kind == FindOrphan || f.Kind == FindLost }

func (f Finding) same(o Finding) bool {
	return f.Kind == o.Kind && f.Service == o.Service && f.Attribute == o.Attribute && f.Inventory == o.Inventory && samePtr(f.VID, o.VID)
}

func (a *Allocator) findings(ctx context.Context) ([]Finding, error) {
	if err := a.engine.Sync(ctx); err != nil {
		return nil, err
	}
	var all []Finding
	services := map[string]*Service{}
	for _, d := range a.engine.Documents(ctx) {
		s, err := read(d, true)
		services[d.Name] = s
		if err != nil {
			all = append(all, Finding{Kind: FindUnreadable, Service: d.Name, Detail: err.Error(), Try: "poolctl version"})
			continue
		}
		all = append(all, a.findingsOf(ctx, s)...)
	}
	for _, info := range a.engine.List(ctx, nil, 0, func(_ leases.Ref, c *leases.Claim) bool {
		return c.Service != "" && live(c)
	}) {
		s, known := services[info.Claim.Service]
		inv, _ := info.Space.Inventory()
		if (known && s == nil) || (known && s.lists(inv, info.ID, info.Claim.Token)) {
			continue
		}
		vid := info.ID
		f := Finding{Kind: FindOrphan, Service: info.Claim.Service, Inventory: inv, VID: &vid, Try: fmt.Sprintf("poolctl vlan show %s %d", inv, vid)}
		f.Detail = fmt.Sprintf("VLAN %d of %s says that it is of service %s, which does not exist", vid, inv, f.Service)
		if known {
			f.Detail = fmt.Sprintf("VLAN %d of %s says that it is of service %s, which does not list it", vid, inv, f.Service)
		}
		all = append(all, f)
	}
	slices.SortStableFunc(all, func(x, y Finding) int {
		return cmp.Or(cmp.Compare(x.Service, y.Service), cmp.Compare(x.Attribute, y.Attribute), cmp.Compare(x.Kind, y.Kind))
	})
	return all, nil
}

// live tells whether a claim belongs to a grant that is not over.
func live(c *leases.Claim) bool {
	return c.State == leases.Locked || c.State == leases.Used || c.State == leases.Idle
}

// lists tells whether an attribute has this VLAN by this grant.
func (s *Service) lists(inventory string, vid uint32, token string) bool {
	return slices.ContainsFunc(s.Attributes, func(at Attribute) bool {
		return !at.Outside && at.Inventory == inventory && at.VID != nil && *at.VID == vid && at.Token == token
	})
}

func (a *Allocator) findingsOf(ctx context.Context, s *Service) []Finding {
	var all []Finding
	if s.State == Provisioning && s.ReasonCode == ReasonOutcomeUnknown {
		all = append(all, Finding{Kind: FindOverdue, Service: s.Name, Detail: "service " + s.Name + ": " + s.Reason, Try: "poolctl vlan service confirm " + s.Name + "   or: fail, delete"})
	}
	for i := range s.Attributes {
		at := &s.Attributes[i]
		f := Finding{Service: s.Name, Attribute: at.Name, Inventory: at.Inventory, VID: at.VID}
		switch {
		case at.Step == StepUnknown:
			f.Kind, f.Detail = FindUnknown, fmt.Sprintf("service %s, %s: %s", s.Name, at.Name, at.Reason)
			f.Try = fmt.Sprintf("look into inventory %s, then: poolctl vlan service removed %s --attribute %s", at.Inventory, s.Name, at.Name)
		case at.Outside && (at.Step != "" || (s.State == Deallocating && at.pending() && !s.HoldIDs)):
			f.Kind, f.Detail = FindWaiting, a.waiting(at)
			if f.Detail == "" {
				continue
			}
			f.Detail, f.Try = fmt.Sprintf("service %s, %s: %s", s.Name, at.Name, f.Detail), "poolctl vlan inventory show "+at.Inventory
		case !at.Outside && at.VID != nil:
			c := a.engine.Get(ctx, leases.Ref{Space: cluster.VLANSpace(at.Inventory), ID: *at.VID}).Claim
			if c != nil && live(c) && c.Token == at.Token {
				continue
			}
			f.Kind = FindLost
			f.Detail = fmt.Sprintf("service %s, %s: VLAN %d of %s is not its any more", s.Name, at.Name, *at.VID, at.Inventory)
			f.Try = "poolctl vlan service delete " + s.Name
		default:
			continue
		}
		all = append(all, f)
	}
	return all
}

// waiting says what an attribute of an outside inventory waits for that does not
// come by itself; "" while somebody is at it.
func (a *Allocator) waiting(at *Attribute) string {
	node, _ := a.keeper(at.Inventory)
	if node == "" {
		return "inventory " + at.Inventory + " is not defined as kept in a file, so nobody can ask it"
	}
	if _, up, _ := a.engine.NodeUp(node); !up {
		return "waits for node " + node + ", which keeps inventory " + at.Inventory + " and is not up"
	}
	return at.Reason
}
