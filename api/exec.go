package api

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/idpool/idpool/problem"
)

// releaseTimeout bounds the giving back after a failure, whose context may
// have ended already.
const releaseTimeout = 30 * time.Second

// ExecWithUID requests a uid, bound to this process, and calls fn with it.
// (Ganeti's ExecWithUnusedUid.)
//
// When fn returns an error or panics, the uid is released and the error or
// panic passed on; an error of that release is joined to it. When fn returns
// nil, the uid is confirmed with keep: it stays taken until it is released. If
// that confirmation fails its error is returned and the uid is not released,
// since fn's work may go on under it. What fn itself confirmed or released is
// left as it is.
//
// While fn runs the grant is looked at every [Options.WatchInterval]; if it is
// lost, fn's context is cancelled with a cause that is ErrLockLost. r.Hold must
// be left zero.
func (c *Client) ExecWithUID(ctx context.Context, r UIDRequest, fn func(ctx context.Context, u *LockedUID) error) error {
	if r.Hold != (Hold{}) {
		return problem.New(problem.CodeInvalid, "ExecWithUID binds the uid to its process; another hold was given")
	}
	r.Hold = Hold{Kind: HoldPID, PID: os.Getpid()}
	u, err := c.RequestUID(ctx, r)
	if err != nil {
		return err
	}
	if err := u.watchDuring(ctx, fn); err != nil {
		return err
	}
	if u.isConfirmed() || u.isReleased() {
		return nil
	}
	if err := u.Keep(ctx); err != nil {
		return fmt.Errorf("keep uid %s: %w", u, err)
	}
	return nil
}

// watchDuring calls fn in the caller's goroutine while another watches.
func (u *LockedUID) watchDuring(ctx context.Context, fn func(ctx context.Context, u *LockedUID) error) (err error) {
	fnCtx, cancel := context.WithCancelCause(ctx)
	watchCtx, stop := context.WithCancel(ctx)
	var g errgroup.Group
	g.Go(func() error {
		if lost := u.Watch(watchCtx); errors.Is(lost, ErrLockLost) {
			cancel(lost)
		}
		return nil
	})
	succeeded := false
	// Deferred, so that a panic (or runtime.Goexit) of fn counts as a failure
	// and goes on its way with its stack untouched.
	defer func() {
		stop()
		_ = g.Wait()
		cancel(nil)
		if succeeded {
			return
		}
		if undone := u.releaseAfter(ctx); undone != nil {
			err = errors.Join(err, undone)
		}
	}()
	err = fn(fnCtx, u)
	succeeded = err == nil
	if lost := context.Cause(fnCtx); err != nil && errors.Is(lost, ErrLockLost) && !errors.Is(err, ErrLockLost) {
		err = errors.Join(err, lost)
	}
	return err
}

func (u *LockedUID) releaseAfter(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	if err := u.Release(ctx); err != nil {
		return fmt.Errorf("release uid %s: %w", u, err)
	}
	return nil
}
