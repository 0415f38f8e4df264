package rig

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"time"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/problem"
)

// What a requester is asked to do.
const (
	AskRequest    = "request"    // Request: uids of a pool
	AskJoin       = "join"       // UID, Token, Hold: the node joins a grant
	AskConfirm    = "confirm"    // UID, Token, Requester, Keep
	AskRenew      = "renew"      // UID, Token, Requester, For
	AskRelease    = "release"    // UID, Token, Requester; without UID, Key
	AskStart      = "start"      // UID, For: a process under the uid
	AskEnd        = "end"        // PID: that process, and wait for its end
	AskAllocate   = "allocate"   // Allocation, under Key
	AskDeallocate = "deallocate" // Key
	AskExit       = "exit"       // the requester's own end, without an answer
)

// Ask is one line of a requester's input: an operation and what it needs.
type Ask struct {
	Op         string                 `json:"op"`
	Request    *api.UIDRequest        `json:"request,omitempty"` // a pid hold without PID is the requester's own
	Allocation *api.AllocationRequest `json:"allocation,omitempty"`
	Hold       *api.Hold              `json:"hold,omitempty"`
	UID        uint32                 `json:"uid,omitempty"`
	Token      string                 `json:"token,omitempty"`
	Requester  string                 `json:"requester,omitempty"`
	Key        string                 `json:"key,omitempty"`
	Keep       bool                   `json:"keep,omitempty"`
	PID        int                    `json:"pid,omitempty"`
	// For is the ttl of a renewal; of a process, for how long it outlives its
	// requester: it never runs longer.
	For time.Duration `json:"for,omitempty"`
}

// Answer is one line of a requester's output.
type Answer struct {
	Problem    *api.ProblemBody `json:"problem,omitempty"` // nil: it was done
	Grant      *api.Grant       `json:"grant,omitempty"`
	UID        *api.UID         `json:"uid,omitempty"`
	Released   *api.Released    `json:"released,omitempty"`
	Allocation *api.Allocation  `json:"allocation,omitempty"`
	PID        int              `json:"pid,omitempty"` // in the node
}

// Requester is a process in a node that asks its agent for ids, as programs do:
// its holds, its children and its end are real. It does one thing after the other.
type Requester struct {
	*Proc

	mu      sync.Mutex // held while an answer is waited for
	answers chan Answer
	lost    bool
}

// Requester starts one.
func (n *Node) Requester(ctx context.Context) (*Requester, error) {
	p, err := n.Spawn(ctx, "resident", "requester")
	if err != nil {
		return nil, err
	}
	q := &Requester{Proc: p, answers: make(chan Answer, 1)}
	go q.read()
	return q, nil
}

// read ends with the process's output.
func (q *Requester) read() {
	defer q.Stdout.Close()
	defer close(q.answers)
	lines := bufio.NewScanner(q.Stdout)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var a Answer
		if json.Unmarshal(lines.Bytes(), &a) != nil {
			return
		}
		q.answers <- a
	}
}

var errNoAnswer = errors.New("the requester has not answered an earlier call")

// Ask does one thing. The error is the agent's refusal, as a [problem.Error], or an
// outcome unknown where the requester did not answer before ctx ended, for whatever
// reason; then it can be asked no more.
func (q *Requester) Ask(ctx context.Context, ask Ask) (Answer, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	unknown := func(err error) (Answer, error) {
		q.lost = true
		return Answer{}, problem.Wrap(problem.CodeOutcomeUnknown, err, "requester %d of %s: %s", q.PID(), q.Node().Name(), ask.Op)
	}
	if q.lost {
		return unknown(errNoAnswer)
	}
	// A line is shorter than a pipe, which is empty when the answer before came.
	if _, err := q.Stdin.Write(append(encode(ask), '\n')); err != nil {
		return unknown(err)
	}
	select {
	case a, ok := <-q.answers:
		switch {
		case !ok:
			return unknown(fmt.Errorf("it has ended: %w", io.ErrUnexpectedEOF))
		case a.Problem != nil:
			return a, a.Problem.Err()
		}
		return a, nil
	case <-ctx.Done():
		return unknown(context.Cause(ctx))
	}
}

// Close ends it with SIGKILL.
func (q *Requester) Close() {
	_ = q.Stdin.Close()
	_ = q.Signal(syscall.SIGKILL)
}
