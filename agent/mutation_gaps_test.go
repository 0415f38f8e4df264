package agent

import (
	"context"
	"errors"
	"testing"

	"github.com/idpool/idpool/problem"
)

// TestRule23CallerByTheKernelsWord: a caller that the kernel does not name is nobody,
// not the uid 0 that an empty answer looks like.
func TestRule23CallerByTheKernelsWord(t *testing.T) {
	ctx := context.WithValue(context.Background(), peerKey{}, peer{err: errors.New("no credentials")})
	if c, err := (gate{}).admit(ctx); !errors.Is(err, problem.ErrForbidden) {
		t.Errorf("admitted as %+v (%v)", c, err)
	}
}
