package api

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/idpool/idpool/problem"
)

// LockedUID is a uid that was handed to this program. (Ganeti's LockedUid.) It
// is safe for concurrent use.
//
// Nothing is given back when a LockedUID is dropped: call Release, or Confirm
// once the process runs. A grant whose program died ends with its hold.
type LockedUID struct {
	c         *Client
	uid       uint32
	token     string
	requester string
	key       string
	lost      chan struct{}
	held      *held // the connection of its hold; nil for other holds

	mu        sync.Mutex // guards the fields below; not held during calls
	info      UID
	confirmed bool
	released  bool
	// ending counts releases under way: what a watch sees then is our doing.
	ending  int
	isLost  bool
	watched bool
}

func (c *Client) lockedUID(info UID) *LockedUID {
	return &LockedUID{
		c: c, uid: info.UID, token: info.Token, requester: info.Requester, key: info.Key,
		info: info, lost: make(chan struct{}),
	}
}

// UID is the number. (Ganeti's GetUid.)
func (u *LockedUID) UID() uint32 { return u.uid }

// String is the number in decimal. (Ganeti's AsStr.)
func (u *LockedUID) String() string { return strconv.FormatUint(uint64(u.uid), 10) }

// Token names the grant. Whoever has it may end the grant, so it is kept from logs.
func (u *LockedUID) Token() string { return u.token }

// Info is the uid as the agent last showed it to this object.
func (u *LockedUID) Info() UID {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.info
}

// Confirm ends the hand-over: the process runs, the uid stays taken until it is
// released or, as the pool's policy says, until its process is gone. With
// nothing running it is ErrNotRunning and the grant is as before; after the end
// of the hold ErrLockLost. Once confirmed it is a no-op. (Ganeti's Unlock.)
func (u *LockedUID) Confirm(ctx context.Context) error { return u.confirm(ctx, false) }

// Unlock is Confirm under Ganeti's name.
func (u *LockedUID) Unlock(ctx context.Context) error { return u.confirm(ctx, false) }

// Keep confirms although nothing may run under the uid. It then stays taken
// until somebody releases it: it is never reclaimed. It is sent also after a
// Confirm, to that end.
func (u *LockedUID) Keep(ctx context.Context) error { return u.confirm(ctx, true) }

func (u *LockedUID) confirm(ctx context.Context, keep bool) error {
	if u.isConfirmed() && !keep {
		return nil
	}
	info, err := u.c.UIDs().Confirm(ctx, u.uid, Ref{Token: u.token}, ConfirmBody{Keep: keep, Requester: u.requester})
	if err != nil {
		return u.noted(err)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.confirmed = true
	u.info = info
	return nil
}

// Renew moves the end of a ttl hold to ttl from now; 0 means 5m. It is for
// holders that need longer until they confirm. ErrLockLost after the hold ended.
func (u *LockedUID) Renew(ctx context.Context, ttl time.Duration) error {
	body := RenewBody{Requester: u.requester}
	if ttl > 0 {
		body.TTL = ttl.String()
	}
	info, err := u.c.UIDs().Renew(ctx, u.uid, Ref{Token: u.token}, body)
	if err != nil {
		return u.noted(err)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.info = info
	return nil
}

// Release gives the uid back, confirmed or not: the caller's promise that it
// starts nothing more under it. The uid is granted again only after it is
// proven unused. Of a grant that other requesters joined, only this one's part
// ends. Twice, or after the grant was lost, is a no-op. (Ganeti's ReleaseUid.)
func (u *LockedUID) Release(ctx context.Context) error {
	if u.beginRelease() {
		return nil
	}
	r, err := u.c.UIDs().Release(ctx, u.uid, u.token, u.requester)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.ending--
	if err != nil && !errors.Is(err, ErrNotHeld) && !errors.Is(err, ErrLockLost) {
		return err
	}
	if !u.released {
		u.released = true
		u.held.released()
	}
	for _, item := range r.Items {
		if item.UID == u.uid {
			u.info = item
		}
	}
	return nil
}

// beginRelease reports whether the grant was released already.
func (u *LockedUID) beginRelease() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.released {
		u.ending++
	}
	return u.released
}

// Lost is closed when the grant has ended without this object's doing: its hold
// ran out, or an operator released it. Nothing may be started under the uid
// then, and what runs should end. A silent agent loses nothing.
//
// With a connection hold the agent says so over the connection. Else the first call begins to look at the grant every [Options.WatchInterval], in
// a goroutine that ends with the grant or with [Client.Close].
func (u *LockedUID) Lost() <-chan struct{} {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.watched && !u.isLost && !u.released {
		u.watched = true
		// Not under the caller's context, which ends before the grant does.
		go func() { _ = u.watch(context.Background(), u.c.closed) }()
	}
	return u.lost
}

// noted closes Lost where a refusal says that the grant is over.
func (u *LockedUID) noted(err error) error {
	if errors.Is(err, ErrLockLost) || errors.Is(err, ErrNotHeld) {
		u.markLost()
	}
	return err
}

func (u *LockedUID) markLost() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.isLost || u.released || u.ending > 0 {
		return
	}
	u.isLost = true
	close(u.lost)
}

func (u *LockedUID) isConfirmed() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.confirmed
}

func (u *LockedUID) isReleased() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.released
}

// Watch looks at the grant every [Options.WatchInterval] until it is lost, and
// then returns an error that is ErrLockLost; nil once it is released through
// this object; the context's cause when ctx ends first.
func (u *LockedUID) Watch(ctx context.Context) error { return u.watch(ctx, nil) }

func (u *LockedUID) watch(ctx context.Context, closed <-chan struct{}) error {
	tick := time.NewTicker(u.c.interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-closed:
			return nil
		case <-u.lost:
			return u.lostError()
		case <-tick.C:
		}
		if u.look(ctx) {
			u.markLost()
		}
		if u.isReleased() {
			return nil
		}
	}
}

// look reports whether the agent says that the uid is this grant's no longer.
// No answer, or a refusal to say, is not such a word.
func (u *LockedUID) look(ctx context.Context) bool {
	info, err := u.c.UIDs().Get(ctx, u.uid)
	if err != nil {
		return errors.Is(err, ErrNotFound) && problem.CodeOf(err) == problem.CodeNotFound
	}
	if info.Token != u.token {
		return true
	}
	switch info.State {
	case StateLocked, StateUsed, StateIdle:
		u.mu.Lock()
		u.info = info
		u.mu.Unlock()
		return false
	}
	return true
}

func (u *LockedUID) lostError() error {
	return problem.New(problem.CodeLockLost, "the grant of uid %d has ended before its holder did", u.uid).
		Note("its hold ran out or it was released by another; nothing may be started under the uid").
		Advise("who has it now", "poolctl uid show %d", u.uid).
		Advise("a longer hold", "poolctl uid request --hold ttl=30m …")
}
