package vlan

import (
	"time"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/problem"
)

// The functions of this file are the decisions on a service's record: each edits
// a private copy, does no I/O and reads no clock.

// place is the node that a decision is made on, and when.
type place struct {
	node, boot string
	now        time.Time
	boottime   time.Duration // CLOCK_BOOTTIME at that moment
}

// ending is what a decision gives back in its transaction: VLANs of etcd.
type ending = []leases.TokenRef

// draft is the record that a request asks for; nothing is got yet. outside tells
// of every inventory whether it is one.
func (r *Request) draft(outside map[string]bool, now time.Time) (*Service, error) {
	if text := len(r.Exclude.String()); text > maxExclude {
		return nil, problem.New(problem.CodeInvalid, "service %s: its exclusions take %d bytes: at most %d", r.Name, text, maxExclude)
	}
	s := &Service{
		Name: r.Name, State: Allocating, Token: leases.NewToken(), Caller: r.By.Caller, Holder: r.Holder, Selection: r.Selection,
		OnPartial: r.OnPartial, ConfirmWithin: r.ConfirmWithin, CreatedAt: now, Since: now,
	}
	if s.OnPartial == "" {
		s.OnPartial = OnPartialRelease
	}
	if s.ConfirmWithin == 0 {
		s.ConfirmWithin = DefaultConfirmWithin
	}
	for _, w := range r.Attributes {
		s.Attributes = append(s.Attributes, w.attribute(r.Name, outside[w.Inventory]))
	}
	return s, s.Selection.valid(s.Attributes, 0)
}

func (w Want) attribute(service string, outside bool) Attribute {
	at := Attribute{Name: w.Name, Inventory: w.Inventory, Outside: outside, Key: w.Key}
	if at.Key == "" {
		at.Key = service + "/" + w.Name
	}
	return at
}

// valid refuses a request that can never be met, whatever the inventories have.
func (r *Request) valid() error {
	if err := checkName(r.Name); err != nil {
		return err
	}
	switch {
	case r.By.Caller == "" || len(r.By.Caller) > maxText:
		return problem.New(problem.CodeInvalid, "service %s: the request has no caller", r.Name)
	case len(r.Holder) > 256:
		return problem.New(problem.CodeInvalid, "service %s: the holder takes at most 256 bytes", r.Name)
	case r.OnPartial != "" && r.OnPartial != OnPartialKeep && r.OnPartial != OnPartialRelease:
		return problem.New(problem.CodeInvalid, "service %s: on-partial %.20q: want %s or %s", r.Name, r.OnPartial, OnPartialRelease, OnPartialKeep)
	case r.ConfirmWithin != 0 && (r.ConfirmWithin < MinConfirmWithin || r.ConfirmWithin > MaxConfirmWithin):
		return problem.New(problem.CodeInvalid, "service %s: confirm-within %s: want %s to %s", r.Name, r.ConfirmWithin, MinConfirmWithin, MaxConfirmWithin)
	case r.Hold != nil && r.Hold.Hold != leases.HoldPID:
		return problem.New(problem.CodeInvalid, "service %s: a hold by %.20q: want a process, or none for confirm-within", r.Name, r.Hold.Hold)
	case len(r.Attributes) == 0:
		return problem.New(problem.CodeInvalid, "service %s: the request asks for no VLAN", r.Name).
			Advise("name inventories", "poolctl vlan service create %s --north INVENTORY --south INVENTORY", r.Name)
	}
	return validWants(r.Name, r.Attributes)
}

func validWants(service string, wants []Want) error {
	if len(wants) > MaxAttributes {
		return problem.New(problem.CodeInvalid, "service %s: %d attributes: at most %d", service, len(wants), MaxAttributes)
	}
	seen := map[string]bool{}
	for _, w := range wants {
		if err := cluster.ValidName(w.Name); err != nil {
			return problem.Wrap(problem.CodeInvalid, err, "service %s, attribute", service)
		}
		if err := cluster.ValidName(w.Inventory); err != nil {
			return problem.Wrap(problem.CodeInvalid, err, "service %s, inventory of %s", service, w.Name)
		}
		if w.Key != "" {
			if err := validOutsideKey(w.Key); err != nil {
				return problem.Wrap(problem.CodeInvalid, err, "service %s, key of %s", service, w.Name)
			}
		}
		if seen[w.Name] {
			return problem.New(problem.CodeInvalid, "service %s: attribute %s is asked for twice", service, w.Name)
		}
		seen[w.Name] = true
	}
	return nil
}

// holdFor is the hold of a service that is allocated now: the process that the
// request named, else ConfirmWithin.
func (s *Service) holdFor(p place) *Hold {
	if s.Hold != nil && s.Hold.Requester.Hold == leases.HoldPID {
		return s.Hold
	}
	return p.hold(s.ConfirmWithin)
}

func (p place) hold(d time.Duration) *Hold {
	return &Hold{Node: p.node, Boot: p.boot, For: d, Requester: leases.Requester{
		ID: leases.NewToken(), Hold: leases.HoldTTL, Deadline: int64(p.boottime + d), Until: p.now.Add(d).UTC().Truncate(time.Millisecond),
	}}
}

// fill writes down what the engine granted, and what follows from it.
func (s *Service) fill(g *leases.Grant, p place) *Service {
	s = s.clone()
	for _, h := range g.Held {
		if at := s.attribute(h.Label); at != nil {
			vid := h.ID
			at.clear()
			at.VID, at.Token = &vid, g.Token
		}
		if h.Claim != nil {
			s.Epoch = h.Claim.Epoch
		}
	}
	s.gotten(p)
	return s
}

// gotten moves an allocating service on, once nothing is missing and nobody wants
// it gone.
func (s *Service) gotten(p place) {
	if s.State != Allocating || s.Delete {
		return
	}
	for _, at := range s.Attributes {
		if at.VID == nil || at.Step != "" {
			return
		}
	}
	s.move(step(s.State, evGot).next, p.now)
	s.because("", "")
	s.Hold = s.holdFor(p)
}

// want marks the attributes of outside inventories that are missing as wanted.
func (s *Service) want() {
	for _, i := range s.missing(true) {
		s.Attributes[i].clear()
		s.Attributes[i].Step = StepWanted
	}
}

// again is the record of a retry: what is missing is asked for, and nothing else.
// After a failure it is a life of its own, with a token of its own.
func (s *Service) again(p place) {
	if s.State == Failed {
		s.Token = leases.NewToken()
	}
	s.move(step(s.State, evRetry).next, p.now)
	s.because("", "")
	s.Then, s.Delete, s.HoldIDs, s.Hold = "", false, false, nil
	for i := range s.Attributes {
		s.Attributes[i].Reason = ""
	}
	s.want()
}

// reject writes down that an attribute could not be got. What is held is kept,
// or given back, as the service's policy says.
func (s *Service) reject(attribute, code, reason string, p place) ending {
	for i := range s.Attributes {
		if at := &s.Attributes[i]; at.VID == nil && at.Step == StepWanted {
			at.Step = ""
		}
	}
	if at := s.attribute(attribute); at != nil {
		at.Step, at.Reason = "", clip(reason)
	}
	s.because(code, reason)
	if s.OnPartial == OnPartialKeep {
		s.move(step(s.State, evRefused).next, p.now)
		s.Hold = nil
		return nil
	}
	return s.compensate(Rejected, p)
}

// compensate begins to give everything back: VLANs of etcd at once and together,
// those of outside inventories by the nodes that keep them. then is what follows.
func (s *Service) compensate(then State, p place) ending {
	var ends ending
	for i := range s.Attributes {
		at := &s.Attributes[i]
		switch {
		case at.Outside && at.Step == StepWanted:
			at.Step = ""
		case at.Outside:
		case at.VID != nil:
			ends = append(ends, at.ref())
			at.VID, at.Token = nil, ""
		}
	}
	s.move(Deallocating, p.now)
	s.Then, s.HoldIDs = then, false
	if s.Delete {
		s.Then = Gone
	}
	s.finish(p)
	return ends
}

// stop is compensate of a service whose deletion was asked for while somebody
// worked on it.
func (s *Service) stop(p place) ending {
	s.because(ReasonDeleted, "deleted while it was being allocated")
	return s.compensate(Gone, p)
}

// finish goes on to what follows, once no outside inventory has anything left.
func (s *Service) finish(p place) bool {
	if s.State != Deallocating || s.HoldIDs {
		return false
	}
	for i := range s.Attributes {
		if s.Attributes[i].pending() {
			return false
		}
	}
	if s.Delete {
		s.Then = Gone
	}
	s.move(s.Then, p.now)
	s.Then, s.Delete, s.Hold = "", false, nil
	return true
}

// remove begins the end of a service. With hold, VLANs that devices may carry
// stay until the caller says that they are clean.
func (s *Service) remove(hold bool, by string, p place) ending {
	provisioned := s.State == Allocated || s.State == Provisioning || s.State == Up
	s.because(ReasonDeleted, "deleted by "+by)
	if hold && provisioned {
		s.move(Deallocating, p.now)
		s.Then, s.HoldIDs, s.Hold = Gone, true, nil
		return nil
	}
	return s.compensate(Gone, p)
}

// drop takes an attribute out of the record; its VLAN, of etcd, ends.
func (s *Service) drop(name string) ending {
	i := s.index(name)
	if i < 0 {
		return nil
	}
	var ends ending
	if at := &s.Attributes[i]; at.VID != nil {
		ends = ending{at.ref()}
	}
	s.Attributes = append(s.Attributes[:i:i], s.Attributes[i+1:]...)
	return ends
}
