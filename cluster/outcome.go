package cluster

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/status"

	"github.com/idpool/idpool/problem"
)

// Outcome is what is known about a mutation.
type Outcome int

const (
	// Applied: etcd answered that the transaction's compares held.
	Applied Outcome = iota
	// Refused: etcd answered that they did not; nothing was written.
	Refused
	// NotDone: the last attempt failed and wrote nothing. After an earlier
	// unknown attempt the operation stays unknown.
	NotDone
	// Unknown: it may have been applied, may not, or may be applied later.
	Unknown
)

// String names the outcome as metrics and messages do.
func (o Outcome) String() string {
	switch o {
	case Applied:
		return "applied"
	case Refused:
		return "refused"
	case NotDone:
		return "not done"
	}
	return "unknown"
}

// notDone are the errors that etcd returns for a mutation it has certainly not
// applied. ErrNoSpace is missing on purpose: the alarm is raised for a request
// that may already be in the log.
var notDone = []error{
	rpctypes.ErrNoLeader, rpctypes.ErrTooManyRequests, rpctypes.ErrRequestTooLarge,
	rpctypes.ErrTooManyOps, rpctypes.ErrDuplicateKey, rpctypes.ErrEmptyKey,
	rpctypes.ErrLeaseNotFound, rpctypes.ErrKeyNotFound, rpctypes.ErrCompacted,
	rpctypes.ErrFutureRev, rpctypes.ErrCorrupt,
	// Users or roles changed while the request was on its way: it says nothing about
	// ours, and the next try is judged by what they are now.
	rpctypes.ErrAuthOldRevision,
}

// denied are the errors of authentication and of permissions.
var denied = []error{
	rpctypes.ErrPermissionDenied, rpctypes.ErrRootUserNotExist, rpctypes.ErrRootRoleNotExist,
	rpctypes.ErrUserEmpty, rpctypes.ErrUserNotFound, rpctypes.ErrRoleNotFound, rpctypes.ErrRoleEmpty,
	rpctypes.ErrAuthFailed, rpctypes.ErrRoleNotGranted, rpctypes.ErrPermissionNotGranted,
	rpctypes.ErrAuthNotEnabled, rpctypes.ErrInvalidAuthToken, rpctypes.ErrInvalidAuthMgmt,
}

// Classify says what is known about a mutation that returned err: [Applied] for
// nil (whether its compares held is in the response), [NotDone] for the errors
// that etcd gives before it writes, [Unknown] for all else, deadlines, every
// kind of "unavailable" and a full database included. An [*OutcomeError] says it
// itself.
func Classify(err error) Outcome {
	var told *OutcomeError
	if errors.As(err, &told) {
		return told.Outcome
	}
	switch {
	case err == nil:
		return Applied
	case matches(err, notDone), matches(err, denied):
		return NotDone
	}
	return Unknown
}

// IsLeaseNotFound reports whether a transaction was rejected because it names a
// lease that is gone; the whole batch is then rejected.
func IsLeaseNotFound(err error) bool { return matches(err, []error{rpctypes.ErrLeaseNotFound}) }

// IsPermissionDenied reports whether etcd rejected the whole transaction
// because of who we are or of a key we may not touch.
func IsPermissionDenied(err error) bool { return matches(err, denied) }

func matches(err error, list []error) bool {
	err = etcdError(err)
	for _, e := range list {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// etcdError finds etcd's error in a chain, also where it is still a bare gRPC
// status, and returns err itself where there is none.
func etcdError(err error) error {
	var typed rpctypes.EtcdError
	if errors.As(err, &typed) {
		return typed
	}
	var bare interface{ GRPCStatus() *status.Status }
	if errors.As(err, &bare) {
		if typed, ok := rpctypes.Error(bare.GRPCStatus().Err()).(rpctypes.EtcdError); ok {
			return typed
		}
	}
	return err
}

// OutcomeError is a mutation that returned no answer: what is known about it,
// which step it was, and etcd's error. errors.Is finds
// [problem.ErrOutcomeUnknown] when it is [Unknown], [problem.ErrUnavailable]
// when it is [NotDone], and the cause.
type OutcomeError struct {
	Outcome Outcome
	Op      string
	Err     error
}

// Error is the step, what is known, and the cause.
func (e *OutcomeError) Error() string {
	return fmt.Sprintf("%s: outcome %s: %v", e.Op, e.Outcome, e.Err)
}

// Unwrap yields the sentinel of the outcome and the cause.
func (e *OutcomeError) Unwrap() []error {
	switch e.Outcome {
	case Unknown:
		return []error{problem.ErrOutcomeUnknown, e.Err}
	case NotDone:
		return []error{problem.ErrUnavailable, e.Err}
	}
	return []error{e.Err}
}

// cause returns why ctx ended where that is why err came about, else err.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil && context.Cause(ctx) != ctx.Err() {
		return fmt.Errorf("%w (%w)", err, context.Cause(ctx))
	}
	return err
}
