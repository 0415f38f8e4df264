package vlan

import (
	"context"
	"errors"
	"time"

	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/problem"
)

// Allocate gets a service's VLANs: those of etcd in one transaction with its
// record, then those of outside inventories one by one, in order, each written
// down before the next. The same request by the same caller again returns the
// service as it stands, and changed false.
//
// A service that could not be got is left as rejected, and returned beside its
// refusal, [Service.Refusal]. One that waits for a node which keeps an outside
// inventory is returned in state allocating, without an error, once the wait is
// over ([Allocator.WaitsFor] names the nodes).
//
// Errors: ErrExhausted, ErrHeld (the VLAN asked for; or the name is another
// caller's), ErrOutsidePool, ErrNotFound (inventory), ErrKeyConflict (the name
// stands for another request), ErrKeyEnded (it stands, and was given back).
func (a *Allocator) Allocate(ctx context.Context, r Request) (*Service, bool, error) {
	if err := r.valid(); err != nil {
		return nil, false, err
	}
	s, changed, err := a.create(ctx, &r)
	if err != nil || r.DryRun || !s.underWay() {
		return s, changed, err
	}
	return a.settle(ctx, s, changed, r.Wait)
}

// underWay tells whether the answer to a request is still to come.
func (s *Service) underWay() bool {
	return s.State == Allocating || (s.State == Deallocating && s.Then == Rejected)
}

// settle waits until the answer to a request is there.
func (a *Allocator) settle(ctx context.Context, s *Service, changed bool, wait time.Duration) (*Service, bool, error) {
	if wait <= 0 {
		wait = DefaultWait
	}
	short, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	if err := a.engine.Sync(short); err != nil { // or the mirror may not have it yet
		return s, changed, nil
	}
	now, err := a.Wait(short, s.Name, func(n *Service) bool { return n == nil || n.Token != s.Token || !n.underWay() })
	switch {
	case err != nil && now == nil: // it cannot be read
		return nil, changed, err
	case now == nil || now.Token != s.Token:
		return nil, changed, problem.New(problem.CodeKeyEnded, "service %s was deleted while it was being allocated", s.Name)
	case now.Then == Gone || now.State == Failed:
		return now, changed, problem.New(problem.CodeKeyEnded, "service %s was given back before it was answered: %s", s.Name, now.why())
	}
	return now, changed, now.Refusal()
}

// create writes the record, or finds it.
func (a *Allocator) create(ctx context.Context, r *Request) (*Service, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	sure := false
	for {
		d, ok := a.engine.Document(ctx, r.Name)
		old, err := read(d, ok)
		var draft *Service
		if err == nil {
			draft, err = a.draft(r)
		}
		if err == nil && old != nil {
			err = old.answers(draft)
		}
		if (err != nil || old != nil) && !sure {
			if err := a.engine.Sync(ctx); err != nil {
				return nil, false, err
			}
			sure = true
			continue
		}
		if err != nil {
			return nil, false, err
		}
		if old != nil {
			return old, false, old.Refusal()
		}
		s, err := a.acquire(ctx, &acquisition{point: "service:create", draft: draft, missing: draft.missing(false), selection: draft.Selection, dry: r.DryRun})
		if err == nil || !errors.Is(err, leases.ErrChanged) {
			return s, s != nil && !r.DryRun, err
		}
		if err := retryable(ctx, r.Name, err); err != nil {
			return nil, false, err
		}
	}
}

// draft is the record of a request, with the node's own hold.
func (a *Allocator) draft(r *Request) (*Service, error) {
	outside, err := a.outside(r.Attributes)
	if err != nil {
		return nil, err
	}
	p := a.place()
	s, err := r.draft(outside, p.now)
	if err != nil {
		return nil, err
	}
	s.want()
	s.Epoch = a.engine.Overview().Meta.Epoch
	if r.Hold != nil {
		s.Hold = &Hold{Node: p.node, Boot: p.boot, Requester: *r.Hold}
	}
	return s, nil
}

// answers refuses a request for a name that stands already, unless it is the
// same request by the same caller and can be answered with what stands.
func (s *Service) answers(draft *Service) error {
	h := problem.Holder{Caller: s.Caller, Holder: s.Holder, State: string(s.State), Since: &s.Since}
	switch v := step(s.State, evCreate).v; {
	case s.Caller != draft.Caller:
		return problem.New(problem.CodeHeld, "service %s not created: the name is held by %s", s.Name, h).By(h)
	case !sameDefinition(s, draft):
		return problem.New(problem.CodeKeyConflict, "service %s not created: it stands already, with another definition (%s)", s.Name, s.State).
			Advise("end it first", "poolctl vlan service delete %s --wait", s.Name).
			Advise("or, once it is up, change it", "poolctl vlan service patch %s …", s.Name)
	case v != vSame && !s.underWay():
		return s.refusedState("created", v)
	}
	return nil
}

// acquisition is what a decision asks of the engine: a new record, with the
// VLANs of etcd that it misses.
type acquisition struct {
	point     string
	before    []byte   // nil: there is no record
	draft     *Service // with everything but those VLANs
	missing   []int    // attributes, all of etcd
	selection Selection
	named     int    // the attribute that selection.VID speaks of
	ends      ending // VLANs that end in the same transaction
	dry       bool
	strict    bool // a refusal is the caller's alone: no record of it
}

// acquire carries an acquisition out. A refusal is written down as a rejected
// service, which is returned beside it.
func (a *Allocator) acquire(ctx context.Context, q *acquisition) (*Service, error) {
	wants, err := q.selection.wants(q.draft.Attributes, q.missing, q.named)
	if err != nil {
		return nil, err
	}
	s := q.draft
	if err := s.clone().couldBeRead(); err != nil {
		return nil, err
	}
	if len(wants) == 0 {
		if q.dry {
			return s.preview(), nil
		}
		s = s.clone()
		s.gotten(a.place())
		_, err := a.engine.ChangeDocument(ctx, q.point, leases.DocumentChange{Name: s.Name, Before: q.before, After: s.encode(), Release: q.ends, Reason: patched(s)})
		return s, err
	}
	doc := &leases.DocumentGrant{Name: s.Name, Before: q.before, After: func(g *leases.Grant) []byte {
		s = q.draft.fill(g, a.place())
		return s.encode()
	}}
	req := leases.GrantRequest{Caller: s.Caller, Holder: s.Holder, Service: s.Name, Wants: wants, Document: doc, Drop: q.ends, DropReason: patched(s), Dry: q.dry}
	var g *leases.Grant
	err = a.engine.Seam().Do(q.point, func() (err error) {
		g, err = a.engine.Grant(ctx, req)
		return err
	})
	switch {
	case err == nil && q.dry:
		return q.draft.fill(g, a.place()).preview(), nil
	case err == nil:
		return s, nil
	case q.dry || q.strict || !refusal(err):
		return nil, err
	}
	return a.reject(ctx, q, err)
}

// couldBeRead refuses a draft whose record would be too large, or holds what a
// reader refuses, before anything is granted for it.
func (s *Service) couldBeRead() error { return s.readable(s.encode()) }

// patched is the reason of VLANs that a record goes on without.
func patched(s *Service) string { return "service " + s.Name + " goes on without it" }

// preview is a service that would be: it has no token.
func (s *Service) preview() *Service {
	s = s.clone()
	s.Token, s.Hold = "", nil
	for i := range s.Attributes {
		s.Attributes[i].Token = ""
	}
	return s
}

// refusal tells whether an error says that an attribute cannot be got now, which
// a record can say as well.
func refusal(err error) bool {
	var e *problem.Error
	return errors.As(err, &e) && (e.Code == problem.CodeExhausted || (e.Code == problem.CodeHeld && e.Attribute != ""))
}

// reject writes down that VLANs of etcd could not be got.
func (a *Allocator) reject(ctx context.Context, q *acquisition, err error) (*Service, error) {
	var e *problem.Error
	errors.As(err, &e)
	s := q.draft.clone()
	inventory := ""
	if at := s.attribute(e.Attribute); at != nil {
		inventory = at.Inventory
	}
	reason := refusalText(e.Attribute, inventory, err, a.cooling(ctx, inventory))
	ends := s.reject(e.Attribute, string(e.Code), reason, a.place())
	if _, err := a.engine.ChangeDocument(ctx, "service:rejected", leases.DocumentChange{Name: s.Name, Before: q.before, After: s.encode(), Release: append(ends, q.ends...)}); err != nil {
		return nil, err
	}
	var told *problem.Error
	if !errors.As(s.Refusal(), &told) { // outside VLANs are still to be given back
		told = problem.New(e.Code, "service %s rejected: %s", s.Name, s.Reason)
	}
	told.Counts, told.Revision, told.Attribute, told.Holder = e.Counts, e.Revision, e.Attribute, e.Holder
	return s, told
}

// cooling is until when the VLANs of an inventory cool down; nil if none does.
func (a *Allocator) cooling(ctx context.Context, inventory string) *time.Time {
	var last *time.Time
	for _, info := range a.engine.List(ctx, nil, 0, func(ref leases.Ref, c *leases.Claim) bool {
		inv, ok := ref.Space.Inventory()
		return ok && inv == inventory && c.State == leases.Quarantined
	}) {
		if info.NotBefore != nil && (last == nil || info.NotBefore.After(*last)) {
			last = info.NotBefore
		}
	}
	return last
}
