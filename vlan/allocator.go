package vlan

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/problem"
)

// Bounds of waiting.
const (
	// DefaultWait is how long a request waits for the nodes that keep outside
	// inventories.
	DefaultWait = 10 * time.Second
	// patience bounds a change that others' changes refuse again and again.
	patience = 30 * time.Second
)

// Options configure an [Allocator].
type Options struct {
	Engine *leases.Allocator
	Log    *zap.Logger
	// Open makes the inventory that a definition describes, on the node that keeps
	// it; nil is [NewFileInventory]. It is called once a definition.
	Open func(inventory string, def leases.Outside) (Inventory, error)
	// Compensated, if set, is told that a service's VLANs begin to be given back
	// because something failed, nobody confirmed, or somebody crashed.
	Compensated func()
	// Self names this process, for [Allocator.Exec]; nil: the service's hold is
	// ConfirmWithin, which Exec extends while it works.
	Self func() (leases.Requester, error)
}

// Allocator grants VLANs to services and takes them back. Make it with
// [NewAllocator] on an engine that runs, and run it with [Allocator.Run]: on the
// node that keeps an outside inventory nothing is allocated from it else, and
// no hold ends. Safe for concurrent use.
//
// A call that changes a service is one round trip and one commit, one more of
// each where somebody else changed it meanwhile; one that finds nothing to do,
// or is refused, is one round trip and no commit. Errors beside those named:
// ErrInvalid, ErrForbidden (another caller's service), ErrNotHeld (another life
// of the service than the token's), ErrPrecondition (its state does not take the
// change), ErrCompensated, ErrFrozen, ErrFenced, ErrUnavailable,
// ErrOutcomeUnknown (repeat the same call).
type Allocator struct {
	engine *leases.Allocator
	log    *zap.Logger
	open   func(string, leases.Outside) (Inventory, error)
	self   func() (leases.Requester, error)
	// compensated may be nil.
	compensated func()
	mine        string // what this process writes into a service's lock

	mu    sync.Mutex        // guards the fields below
	files map[string]opened // outside inventories, by name
}

// opened is an outside inventory and the definition that it was opened by.
type opened struct {
	def leases.Outside
	inv Inventory
}

// NewAllocator prepares an allocator; nothing runs yet.
func NewAllocator(o Options) *Allocator {
	a := &Allocator{engine: o.Engine, log: o.Log, open: o.Open, self: o.Self, compensated: o.Compensated, files: map[string]opened{}}
	if a.log == nil {
		a.log = zap.NewNop()
	}
	if a.open == nil {
		a.open = func(inventory string, def leases.Outside) (Inventory, error) {
			return NewFileInventory(def.File, FileOptions{Name: inventory, Seam: o.Engine.Seam()})
		}
	}
	a.mine = a.engine.Node() + " " + leases.NewToken()
	return a
}

// By is who asks.
type By struct {
	Caller string
	// Operator may change any caller's services.
	Operator bool
}

// Want is one attribute of a service and the inventory that feeds it.
type Want struct {
	Name, Inventory string
	// Key is the VLAN's own allocation key; "" is SERVICE/NAME.
	Key string
}

// Request asks for a service.
type Request struct {
	Name   string
	By     By
	Holder string
	// Attributes are got in this order, 1 to [MaxAttributes] of them.
	Attributes []Want
	Selection
	// OnPartial is what becomes of what was got when an outside inventory refuses
	// a later attribute: [OnPartialRelease] (also "") or [OnPartialKeep].
	OnPartial string
	// ConfirmWithin is how long the service stays allocated without a confirm or
	// begin: 1 s to 366 days, 0 is [DefaultConfirmWithin].
	ConfirmWithin time.Duration
	// Hold, if not nil, is a process of this node that the service is allocated
	// for: its end ends it, instead of ConfirmWithin.
	Hold *leases.Requester
	// DryRun answers with what would be granted now, and writes nothing.
	DryRun bool
	// Wait is how long to wait for the nodes that keep outside inventories; 0 is
	// [DefaultWait]. The context's end ends it as well.
	Wait time.Duration
}

// place is where and when a decision is made.
func (a *Allocator) place() place {
	return place{node: a.engine.Node(), boot: a.engine.Boot(), now: time.Now().UTC(), boottime: leases.BootTime()}
}

// read decodes a document; nil without an error if there is none.
func read(d leases.Document, ok bool) (*Service, error) {
	if !ok {
		return nil, nil
	}
	s, err := decode(d.Name, d.Raw)
	if err != nil {
		return nil, problem.Wrap(problem.CodeInvalid, err, "service %s cannot be read", d.Name)
	}
	return s, nil
}

// decision is what becomes of a service: the new record, nil to delete it, and
// the VLANs that end with it.
type decision struct {
	after  *Service
	ends   ending
	lock   leases.LockChange
	reason string
}

// change reads a service, decides on a private copy and writes the decision,
// until what was decided on is what stands. decide gets nil if there is none, and
// returns nil for nothing to write; that, and a refusal, is answered only after a
// linearizable read. It returns the service as it stands then, nil if it is gone,
// and whether anything was written.
func (a *Allocator) change(ctx context.Context, point, name string, decide func(*Service, leases.Document) (*decision, error)) (*Service, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	sure := false
	for {
		s, d, do, err := decided(ctx, a, name, &sure, decide)
		if err != nil || do == nil {
			return s, false, err
		}
		if err = a.write(ctx, point, d, s != nil, do); err == nil {
			return do.after, true, nil
		}
		if err = retryable(ctx, name, err); err != nil {
			return nil, false, err
		}
	}
}

// decided reads a service and lets decide have a private copy. A refusal, or nothing
// to do, is decided anew after a linearizable read, unless one was made: sure.
func decided[T any](ctx context.Context, a *Allocator, name string, sure *bool, decide func(*Service, leases.Document) (*T, error)) (*Service, leases.Document, *T, error) {
	for {
		d, ok := a.engine.Document(ctx, name)
		s, err := read(d, ok)
		var do *T
		if err == nil {
			c := s
			if s != nil {
				c = s.clone()
			}
			do, err = decide(c, d)
		}
		if *sure || (err == nil && do != nil) {
			return s, d, do, err
		}
		if err := a.engine.Sync(ctx); err != nil {
			return nil, d, nil, err
		}
		*sure = true
	}
}

// retryable is nil where a decision was overtaken and can be made anew.
func retryable(ctx context.Context, name string, err error) error {
	switch {
	case !errors.Is(err, leases.ErrChanged):
		return err
	case ctx.Err() != nil:
		return problem.Wrap(problem.CodeUnavailable, context.Cause(ctx), "service %s kept changing; nothing was done", name)
	}
	return nil
}

// write carries out a decision on a document as it was read.
func (a *Allocator) write(ctx context.Context, point string, d leases.Document, ok bool, do *decision) error {
	ch := leases.DocumentChange{Name: d.Name, Lock: do.lock, Release: do.ends, Reason: do.reason}
	if ok {
		ch.Before = d.Raw
	}
	if do.after != nil && do.after.State == Gone {
		do.after = nil
	}
	if do.after != nil {
		ch.After = do.after.encode()
		if err := do.after.readable(ch.After); err != nil {
			return err
		}
	}
	_, err := a.engine.ChangeDocument(ctx, point, ch)
	if err == nil && a.compensated != nil {
		if was, e := read(d, ok); e == nil && compensates(was, do) {
			a.compensated()
		}
	}
	return err
}

// compensates tells whether a change begins a compensation; a deletion is none.
func compensates(was *Service, do *decision) bool {
	s := do.after
	if s == nil || was != nil && was.State == Deallocating {
		return false
	}
	switch s.State {
	case Deallocating:
		return s.Then == Failed || s.Then == Rejected
	case Failed, Rejected:
		return len(do.ends) > 0
	}
	return false
}

// outside tells of each inventory whether it is kept in a file. ErrNotFound
// names those there are.
func (a *Allocator) outside(wants []Want) (map[string]bool, error) {
	kinds := map[string]bool{}
	for _, w := range wants {
		if _, known := kinds[w.Inventory]; known {
			continue
		}
		info, err := a.engine.Pool(leases.VLANPool(w.Inventory))
		if err != nil {
			return nil, err
		}
		kinds[w.Inventory] = info.Outside != nil
	}
	return kinds, nil
}

// inventory opens an outside inventory, once a definition.
func (a *Allocator) inventory(name string) (Inventory, error) {
	info, err := a.engine.Pool(leases.VLANPool(name))
	if err != nil {
		return nil, err
	}
	if info.Outside == nil {
		return nil, problem.New(problem.CodeInvalid, "inventory %s is not kept in a file any more", name)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if o, ok := a.files[name]; ok && o.def == *info.Outside {
		return o.inv, nil
	}
	inv, err := a.open(name, *info.Outside)
	if err != nil {
		return nil, err
	}
	a.files[name] = opened{*info.Outside, inv}
	return inv, nil
}

// Get returns a service as it stands. One round trip. ErrNotFound.
func (a *Allocator) Get(ctx context.Context, name string) (*Service, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	if err := a.engine.Sync(ctx); err != nil {
		return nil, err
	}
	s, err := read(a.engine.Document(ctx, name))
	if s == nil && err == nil {
		err = missing(name)
	}
	return s, err
}

// List returns all services by name, as this process's mirror shows them; those
// whose records cannot be read are left to [Allocator.Findings].
func (a *Allocator) List(ctx context.Context) []Service {
	var all []Service
	for _, d := range a.engine.Documents(ctx) {
		if s, err := read(d, true); err == nil {
			all = append(all, *s)
		}
	}
	return all
}

// Wait blocks until cond holds for a service, and returns it as it is then; nil
// once it is gone, which cond is asked about as well. cond must be quick. The
// error is the context's cause, or that the record cannot be read.
func (a *Allocator) Wait(ctx context.Context, name string, cond func(*Service) bool) (*Service, error) {
	var s *Service
	var unreadable error
	a.engine.Document(ctx, name) // waits for our own writes
	err := a.engine.WaitDocument(ctx, name, func(d leases.Document, ok bool) bool {
		s, unreadable = read(d, ok)
		return unreadable != nil || cond(s)
	})
	if unreadable != nil {
		return nil, unreadable
	}
	return s, err
}

// WaitsFor names the nodes that a service waits for: those that keep its outside
// inventories, while something is to be got from them or given back.
func (a *Allocator) WaitsFor(s *Service) []problem.WaitsFor {
	var all []problem.WaitsFor
	for i := range s.Attributes {
		at := &s.Attributes[i]
		busy := (s.State == Allocating && at.Step != "") || (s.State == Deallocating && at.pending() && !s.HoldIDs)
		if !busy {
			continue
		}
		node, _ := a.keeper(at.Inventory)
		w := problem.WaitsFor{Node: node, Why: at.Name + " of inventory " + at.Inventory}
		if _, up, _ := a.engine.NodeUp(node); !up {
			w.Why += ", whose node is not up"
			if info, err := a.engine.NodeNamed(node); err == nil {
				w.LastSeen = info.LastSeen
			}
		}
		if at.Reason != "" {
			w.Why += ": " + at.Reason
		}
		all = append(all, w)
	}
	return all
}

// keeper is the node that keeps an outside inventory, "" if it is none, and how
// long its word is waited for.
func (a *Allocator) keeper(inventory string) (string, time.Duration) {
	info, err := a.engine.Pool(leases.VLANPool(inventory))
	if err != nil || info.Outside == nil {
		return "", 0
	}
	return info.Outside.On, info.Outside.Settle
}

func (a *Allocator) keeperOf(inventory string) string {
	node, _ := a.keeper(inventory)
	return node
}

// keeperIsOff tells whether no node will ever ask an outside inventory: it is not
// defined as one any more, or its node is fenced, left or removed.
func (a *Allocator) keeperIsOff(inventory string) bool {
	node := a.keeperOf(inventory)
	return node == "" || a.peer(node).off
}
