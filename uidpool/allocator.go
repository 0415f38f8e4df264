package uidpool

import (
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/problem"
)

// Bounds of a TTL hold.
const (
	DefaultTTL = 5 * time.Minute
	MinTTL     = time.Second
	MaxTTL     = 24 * time.Hour
)

// Hold is what keeps a grant locked until it is confirmed: a connection if
// Connection is set, the process Process or PID if one is not 0, else a TTL; the
// zero value is a TTL of [DefaultTTL].
//
// A connection hold ends when the requester is connected no longer (see
// [Prover.Connect]); Process, if known, is who has the other end. A TTL hold is the caller's word to start nothing after it. A process hold ends
// when the process is gone and with it whatever it started since in its session,
// unless that runs under the uid by then.
type Hold struct {
	TTL time.Duration
	PID int
	// Process is a process that was identified already, instead of PID.
	Process    ProcessRef
	Connection bool
}

func (h Hold) ttl() time.Duration {
	if h.TTL == 0 {
		return DefaultTTL
	}
	return h.TTL
}

// requester turns a hold into what a claim stores.
func (h Hold) requester() (leases.Requester, error) {
	kind := leases.HoldPID
	if h.Connection {
		kind = leases.HoldConn
	}
	if h.PID != 0 || h.Process.PID != 0 || h.Connection {
		ref := h.Process
		if h.PID != 0 {
			var err error
			if ref, err = Identify(h.PID); err != nil {
				return leases.Requester{}, problem.New(problem.CodeInvalid, "hold pid=%d: %v", h.PID, err)
			}
		}
		since, err := NowTicks()
		if err != nil {
			return leases.Requester{}, err
		}
		return leases.Requester{ID: leases.NewToken(), Hold: kind, PID: ref.PID, Start: ref.Start, PIDNS: ref.PIDNS, Session: ref.Session, Since: since}, nil
	}
	ttl := h.ttl()
	if ttl < MinTTL || ttl > MaxTTL {
		return leases.Requester{}, problem.New(problem.CodeInvalid, "hold ttl=%s: want %s to %s", ttl, MinTTL, MaxTTL)
	}
	return leases.Requester{ID: leases.NewToken(), Hold: leases.HoldTTL, Deadline: int64(leases.BootTime() + ttl), Until: time.Now().Add(ttl).UTC().Truncate(time.Millisecond)}, nil
}

// Request asks for uids of one pool.
type Request struct {
	// Caller is who asks, such as "unix:1000"; allocation keys are its own.
	Caller string
	Pool   string
	// From, if not nil, restricts the choice; UID, if not 0, is the one wanted.
	From *idset.Set
	UID  UID
	// Count uids are granted together or not at all, 1 to 60; 0 is 1.
	Count  int
	Key    string
	Holder string
	Hold   Hold
	// Requester names this request, so that sending it again binds nobody twice;
	// "" is a fresh name.
	Requester string
	// Wait is how long to wait when none is free.
	Wait time.Duration
}

// Allocator hands out uids on this node: the engine with this node's truth.
// Safe for concurrent use.
type Allocator struct {
	engine *leases.Allocator
	prover *Prover
}

// NewAllocator wraps an engine that was made with this prover.
func NewAllocator(engine *leases.Allocator, prover *Prover) *Allocator {
	return &Allocator{engine: engine, prover: prover}
}

// Engine is the allocator of ids beneath.
func (a *Allocator) Engine() *leases.Allocator { return a.engine }

// Prover is this node's truth.
func (a *Allocator) Prover() *Prover { return a.prover }

// LockedUID is a uid that is being handed over to the caller (Ganeti's class of
// that name).
type LockedUID struct {
	a     *Allocator
	held  leases.Held
	grant *leases.Grant
}

// UID is the number (Ganeti's GetUid).
func (l *LockedUID) UID() UID { return UID(l.held.ID) }

// String is the number in decimal (Ganeti's AsStr).
func (l *LockedUID) String() string { return l.UID().String() }

// Token names the grant, for a release.
func (l *LockedUID) Token() string { return l.grant.Token }

// Claim is the uid's claim as it was when it was granted.
func (l *LockedUID) Claim() leases.Held { return l.held }

// Request asks for unused uids (Ganeti's RequestUnusedUid), all or none: first
// free ones, then, if the pool's policy allows, such whose process is gone.
// Nothing runs under them on this node when it returns. Errors: those of
// [leases.Allocator.Grant].
func (a *Allocator) Request(ctx context.Context, r Request) ([]*LockedUID, *leases.Grant, error) {
	if r.UID != 0 {
		if err := r.UID.Valid(); err != nil {
			return nil, nil, err
		}
	}
	requester, err := r.Hold.requester()
	if err != nil {
		return nil, nil, err
	}
	if r.Requester != "" {
		requester.ID = r.Requester
	}
	want := leases.Want{Pool: r.Pool, Count: r.Count, Within: r.From}
	if r.UID != 0 {
		id := uint32(r.UID)
		want.Exact = &id
	}
	g, err := a.engine.Grant(ctx, leases.GrantRequest{Caller: r.Caller, Key: r.Key, Holder: r.Holder, Requester: requester, TTL: r.Hold.ttl(), Wants: []leases.Want{want}, Wait: r.Wait})
	if err != nil {
		return nil, nil, err
	}
	locked := make([]*LockedUID, len(g.Held))
	for i, h := range g.Held {
		locked[i] = &LockedUID{a: a, held: h, grant: g}
	}
	return locked, g, nil
}

// running looks whether anything runs under the ids of a claim now. Real uids
// cost a system call; only if there is none /proc is scanned.
func (a *Allocator) running(ctx context.Context, ref leases.Ref, count uint32) (bool, error) {
	for i := uint32(0); i < min(count, 64); i++ {
		if a.prover.Suspect(ref.ID + i) {
			return true, nil
		}
	}
	used, err := a.prover.InUse(ctx, 0)
	if err != nil {
		return false, err
	}
	return !used.Intersect(idset.Of(idset.Range{Lower: ref.ID, Higher: ref.ID + count - 1})).IsEmpty(), nil
}

// Confirm ends the hand-over (Ganeti's Unlock): a process runs under the uid, or
// the caller keeps it without one; requester, if not "", says which of its
// requesters. Twice is a no-op.
func (a *Allocator) Confirm(ctx context.Context, ref leases.Ref, token, requester string, keep bool) (leases.Held, error) {
	count := uint32(1)
	if c := a.engine.Get(ctx, ref).Claim; c != nil {
		count = c.Count
	}
	runs, err := a.running(ctx, ref, count)
	if err != nil && !keep {
		return leases.Held{}, err
	}
	return a.engine.Confirm(ctx, ref, token, requester, keep, runs)
}

// Confirm confirms this uid; see [Allocator.Confirm].
func (l *LockedUID) Confirm(ctx context.Context) error {
	_, err := l.a.Confirm(ctx, l.held.Ref, l.grant.Token, l.grant.Requester, false)
	return err
}

// Keep confirms this uid although nothing may run under it; it stays taken until
// it is released.
func (l *LockedUID) Keep(ctx context.Context) error {
	_, err := l.a.Confirm(ctx, l.held.Ref, l.grant.Token, l.grant.Requester, true)
	return err
}

// Release gives the uid back (Ganeti's ReleaseUid). Once more is done and writes
// nothing.
func (l *LockedUID) Release(ctx context.Context) error {
	_, _, err := l.a.engine.Release(ctx, leases.Release{Refs: []leases.Ref{l.held.Ref}, Token: l.grant.Token, Requester: l.grant.Requester, By: l.held.Claim.Caller})
	return err
}

// Lost waits until the claim no longer carries this grant, or ctx ends. It is
// nil when the grant was lost. A lost lease alone is no loss (rule 6).
func (l *LockedUID) Lost(ctx context.Context) error {
	return l.a.engine.WaitFor(ctx, l.held.Ref, func(c *leases.Claim) bool {
		return c == nil || c.Token != l.grant.Token || c.State == leases.Quarantined
	})
}

// Renew lets the TTL hold of a grant end ttl from now.
func (a *Allocator) Renew(ctx context.Context, ref leases.Ref, token, requester string, ttl time.Duration) (leases.Held, error) {
	r, err := Hold{TTL: ttl}.requester()
	if err != nil {
		return leases.Held{}, err
	}
	r.ID = requester
	return a.engine.Renew(ctx, ref, token, r)
}

// Join adds this node, and a requester on it, to a live grant: before anything
// runs here under its uids.
func (a *Allocator) Join(ctx context.Context, refs []leases.Ref, token string, hold Hold) ([]leases.Held, string, error) {
	r, err := hold.requester()
	if err != nil {
		return nil, "", err
	}
	held, err := a.engine.Join(ctx, refs, token, r)
	return held, r.ID, err
}

// Adopt makes a foreign use a grant of the caller.
func (a *Allocator) Adopt(ctx context.Context, ref leases.Ref, caller, holder string) (leases.Held, error) {
	return a.engine.Adopt(ctx, ref, caller, holder, leases.Requester{ID: leases.NewToken(), Hold: leases.HoldNone})
}

// BoundTo tells requesters of a process from those of an earlier one of the same
// pid. A process that has gone is told by its pid alone.
func BoundTo(pid int) func(leases.Requester) bool {
	now, err := Identify(pid)
	return func(r leases.Requester) bool {
		return r.Hold == leases.HoldPID && r.PID == pid && (err != nil || r.Start == now.Start)
	}
}

// ReleaseByPID gives back what a process of this node was granted.
func (a *Allocator) ReleaseByPID(ctx context.Context, pid int, may func(*leases.Claim) bool, by string) ([]leases.Held, bool, error) {
	node := a.engine.Node()
	is := BoundTo(pid)
	bound := func(c *leases.Claim) bool {
		p := c.On(node)
		return p != nil && slices.ContainsFunc(p.Requesters, is)
	}
	var all []leases.Held
	changed := false
	for _, info := range a.engine.List(ctx, nil, 0, func(_ leases.Ref, c *leases.Claim) bool { return bound(c) && may(c) }) {
		held, did, err := a.engine.Release(ctx, leases.Release{
			Refs: []leases.Ref{info.Ref}, Token: info.Claim.Token, By: by,
			Match: is,
		})
		if err != nil {
			return all, changed, err
		}
		all, changed = append(all, held...), changed || did
	}
	return all, changed, nil
}

// Exec requests a uid, calls fn with it and gives it back if fn fails: an error
// or a panic, which are passed on (Ganeti's ExecWithUnusedUid). If fn succeeds
// the uid is confirmed with keep and stays taken. fn's context is cancelled with
// [problem.ErrLockLost] as its cause when the grant is lost meanwhile.
func (a *Allocator) Exec(ctx context.Context, r Request, fn func(context.Context, *LockedUID) error) (err error) {
	r.Count = 1
	if r.Hold == (Hold{}) {
		r.Hold.PID = os.Getpid()
	}
	locked, _, err := a.Request(ctx, r)
	if err != nil {
		return err
	}
	u := locked[0]
	inner, cancel := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() { // ends with inner, which the deferred function below cancels
		defer close(watched)
		if u.Lost(inner) == nil {
			cancel(problem.ErrLockLost)
		}
	}()
	done := false
	defer func() {
		cancel(nil)
		<-watched
		if done {
			return
		}
		undo, stop := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer stop()
		if e := u.Release(undo); e != nil {
			err = errors.Join(err, e)
		}
	}()
	if err := fn(inner, u); err != nil {
		return err
	}
	done = true // from here what fn started may live on, whatever Keep says
	return u.Keep(ctx)
}
