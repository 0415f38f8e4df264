package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/problem"
)

func TestClassify(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want cluster.Outcome
	}{
		{nil, cluster.Applied},
		{context.DeadlineExceeded, cluster.Unknown},
		{context.Canceled, cluster.Unknown},
		{rpctypes.ErrGRPCDeadlineExceeded, cluster.Unknown},
		{rpctypes.ErrGRPCCanceled, cluster.Unknown},
		{status.Error(codes.DeadlineExceeded, "x"), cluster.Unknown},
		{status.Error(codes.Canceled, "x"), cluster.Unknown},
		{status.Error(codes.Unavailable, "transport is closing"), cluster.Unknown},
		{rpctypes.ErrLeaderChanged, cluster.Unknown},
		{rpctypes.ErrUnhealthy, cluster.Unknown},
		{rpctypes.ErrTimeout, cluster.Unknown},
		{rpctypes.ErrTimeoutDueToLeaderFail, cluster.Unknown},
		{rpctypes.ErrTimeoutDueToConnectionLost, cluster.Unknown},
		{rpctypes.ErrTimeoutWaitAppliedIndex, cluster.Unknown},
		{rpctypes.ErrStopped, cluster.Unknown},
		{io.EOF, cluster.Unknown},
		{rpctypes.ErrNoSpace, cluster.Unknown},
		{status.Error(codes.Internal, "x"), cluster.Unknown},
		{status.Error(codes.Unknown, "x"), cluster.Unknown},
		{status.Error(codes.DataLoss, "x"), cluster.Unknown},
		{rpctypes.ErrNotLeader, cluster.Unknown},
		{errors.New("anything else"), cluster.Unknown},
		{rpctypes.ErrNoLeader, cluster.NotDone},
		{rpctypes.ErrTooManyRequests, cluster.NotDone},
		{rpctypes.ErrRequestTooLarge, cluster.NotDone},
		{rpctypes.ErrTooManyOps, cluster.NotDone},
		{rpctypes.ErrDuplicateKey, cluster.NotDone},
		{rpctypes.ErrEmptyKey, cluster.NotDone},
		{rpctypes.ErrLeaseNotFound, cluster.NotDone},
		{rpctypes.ErrKeyNotFound, cluster.NotDone},
		{rpctypes.ErrPermissionDenied, cluster.NotDone},
		{rpctypes.ErrAuthFailed, cluster.NotDone},
		{rpctypes.ErrInvalidAuthToken, cluster.NotDone},
		{rpctypes.ErrAuthOldRevision, cluster.NotDone},
		{rpctypes.ErrUserEmpty, cluster.NotDone},
		{rpctypes.ErrCompacted, cluster.NotDone},
		{rpctypes.ErrFutureRev, cluster.NotDone},
		{rpctypes.ErrCorrupt, cluster.NotDone},
		{rpctypes.ErrGRPCNoLeader, cluster.NotDone},
		{rpctypes.ErrGRPCLeaseNotFound, cluster.NotDone},
		{rpctypes.ErrGRPCNoSpace, cluster.Unknown},
	} {
		t.Run(fmt.Sprint(tt.err), func(t *testing.T) {
			if got := cluster.Classify(tt.err); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
			if tt.err == nil {
				return
			}
			wrapped := fmt.Errorf("step: %w", tt.err)
			if got := cluster.Classify(wrapped); got != tt.want {
				t.Errorf("wrapped: got %v, want %v", got, tt.want)
			}
			told := error(&cluster.OutcomeError{Outcome: tt.want, Op: "commit", Err: tt.err})
			if errors.Is(told, problem.ErrOutcomeUnknown) != (tt.want == cluster.Unknown) ||
				errors.Is(told, problem.ErrUnavailable) != (tt.want == cluster.NotDone) || !errors.Is(told, tt.err) {
				t.Errorf("errors.Is does not find the outcome and cause of %v", told)
			}
			if got := cluster.Classify(fmt.Errorf("step: %w", told)); got != tt.want {
				t.Errorf("classified twice: %v, want %v", got, tt.want)
			}
		})
	}
}

func TestRejectionsAreFound(t *testing.T) {
	for _, err := range []error{rpctypes.ErrLeaseNotFound, rpctypes.ErrGRPCLeaseNotFound, fmt.Errorf("x: %w", rpctypes.ErrGRPCLeaseNotFound)} {
		if !cluster.IsLeaseNotFound(err) || cluster.IsPermissionDenied(err) {
			t.Errorf("%v is no lease not found", err)
		}
	}
	for _, err := range []error{rpctypes.ErrPermissionDenied, rpctypes.ErrGRPCPermissionDenied, rpctypes.ErrAuthFailed} {
		if !cluster.IsPermissionDenied(err) || cluster.IsLeaseNotFound(err) {
			t.Errorf("%v is no permission denied", err)
		}
	}
	if cluster.IsPermissionDenied(rpctypes.ErrAuthOldRevision) {
		t.Error("a change of users meanwhile is no word about our own rights")
	}
	if cluster.IsLeaseNotFound(nil) || cluster.IsPermissionDenied(nil) {
		t.Error("nil is a rejection")
	}
}

func TestBackoffEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(context.Background())
	why := errors.New("why")
	cancel(why)
	var b cluster.Backoff
	if err := b.Wait(ctx); err != why {
		t.Errorf("got %v, want the cause", err)
	}
	if err := b.Wait(context.Background()); err != nil {
		t.Errorf("got %v", err)
	}
}
