package api

import (
	"context"
	"errors"
	"time"

	"github.com/idpool/idpool/problem"
)

// The pause between two attempts grows from the first to the last.
const (
	firstPause = 20 * time.Millisecond
	lastPause  = 500 * time.Millisecond
)

// do sends the call as often as Options.Retry lets it: while nothing was done, or
// what was done does not matter.
func (c *Client) do(ctx context.Context, q call, out any) (status int, err error) {
	until := time.Now().Add(c.retry)
	status, err = c.twice(ctx, q, out)
	for pause := firstPause; q.again(err) && time.Now().Add(pause).Before(until); pause = min(2*pause, lastPause) {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return status, err
		}
		next, repeated := c.twice(ctx, q, out)
		if errors.Is(err, ErrOutcomeUnknown) && !settles(next, repeated) {
			continue // the first attempt is as unknown as it was
		}
		status, err = next, repeated
	}
	return status, err
}

// again tells whether the call may be sent again after an error.
func (q call) again(err error) bool {
	switch problem.CodeOf(err) {
	case problem.CodeUnavailable:
		return true // nothing was done
	case problem.CodeOutcomeUnknown:
		return q.key != "" || q.repeats || !q.mutating()
	}
	return false
}
