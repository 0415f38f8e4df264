package problem

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Sentinels for errors.Is. Package api and the trades re-export those that
// their callers meet.
var (
	// ErrExhausted is returned when at one etcd revision no id of the pool could be granted.
	ErrExhausted = errors.New("exhausted")
	// ErrHeld is returned when the id, key or name belongs to somebody else.
	ErrHeld = errors.New("held by another")
	// ErrNotHeld is returned when the caller names a grant that is not, or no longer, its own.
	ErrNotHeld = errors.New("not held")
	// ErrNotFound is returned when the named thing does not exist.
	ErrNotFound = errors.New("not found")
	// ErrOutsidePool is returned when an id is asked for that the pool does not contain.
	ErrOutsidePool = errors.New("outside the pool")
	// ErrInvalid is returned when the input can never be granted as it stands.
	ErrInvalid = errors.New("invalid")
	// ErrForbidden is returned when the caller may not do this.
	ErrForbidden = errors.New("forbidden")
	// ErrKeyConflict is returned when an allocation key already stands for another request.
	ErrKeyConflict = errors.New("allocation key stands for another request")
	// ErrKeyEnded is returned when the grant of an allocation key is over.
	ErrKeyEnded = errors.New("the grant of this allocation key has ended")
	// ErrLockLost is returned when a grant ended before it was confirmed.
	ErrLockLost = errors.New("lock lost")
	// ErrCompensated is returned when a service's VLANs were given back before the caller came to an end.
	ErrCompensated = errors.New("compensated")
	// ErrNotRunning is returned when a confirm finds no process under the uid.
	ErrNotRunning = errors.New("no process runs under the uid")
	// ErrFenced is returned when this node's identity is fenced, or used by another agent.
	ErrFenced = errors.New("fenced")
	// ErrFrozen is returned while nothing may be granted because etcd was restored.
	ErrFrozen = errors.New("frozen")
	// ErrNoProof is returned when this node cannot tell whether a uid is in use.
	ErrNoProof = errors.New("cannot prove ids unused")
	// ErrPrecondition is returned when the thing changed since the caller looked.
	ErrPrecondition = errors.New("changed meanwhile")
	// ErrPreconditionRequired is returned when a release names no grant.
	ErrPreconditionRequired = errors.New("the grant's token is required")
	// ErrUnavailable is returned when nothing was done because etcd or the agent did not answer.
	ErrUnavailable = errors.New("unavailable")
	// ErrOutcomeUnknown is returned when it cannot be told whether the operation was done.
	ErrOutcomeUnknown = errors.New("outcome unknown")
	// ErrInternal is returned for what should not happen.
	ErrInternal = errors.New("internal error")
)

// Code is the stable, machine-readable name of a fact: the "code" of problem
// JSON.
type Code string

// The codes, as they stand in problem JSON.
const (
	CodeExhausted            Code = "exhausted"
	CodeHeld                 Code = "held"
	CodeNotHeld              Code = "not_held"
	CodeNotFound             Code = "not_found"
	CodeOutsidePool          Code = "outside_pool"
	CodeInvalid              Code = "invalid"
	CodeForbidden            Code = "forbidden"
	CodeKeyConflict          Code = "key_conflict"
	CodeKeyEnded             Code = "key_ended"
	CodeLockLost             Code = "lock_lost"
	CodeCompensated          Code = "compensated"
	CodeNotRunning           Code = "not_running"
	CodeFenced               Code = "fenced"
	CodeFrozen               Code = "frozen"
	CodeNoProof              Code = "no_proof"
	CodePrecondition         Code = "precondition_failed"
	CodePreconditionRequired Code = "precondition_required"
	CodeUnavailable          Code = "unavailable"
	CodeOutcomeUnknown       Code = "outcome_unknown"
	CodeInternal             Code = "internal"
)

// facts ties each code to its sentinel, HTTP status and exit code of poolctl.
var facts = map[Code]struct {
	sentinel error
	status   int
	exit     int
}{
	CodeExhausted:            {ErrExhausted, 409, 4},
	CodeHeld:                 {ErrHeld, 409, 3},
	CodeNotHeld:              {ErrNotHeld, 412, 3},
	CodeNotFound:             {ErrNotFound, 404, 1},
	CodeOutsidePool:          {ErrOutsidePool, 422, 2},
	CodeInvalid:              {ErrInvalid, 422, 2},
	CodeForbidden:            {ErrForbidden, 403, 7},
	CodeKeyConflict:          {ErrKeyConflict, 422, 3},
	CodeKeyEnded:             {ErrKeyEnded, 409, 3},
	CodeLockLost:             {ErrLockLost, 412, 3},
	CodeCompensated:          {ErrCompensated, 409, 3},
	CodeNotRunning:           {ErrNotRunning, 409, 3},
	CodeFenced:               {ErrFenced, 503, 5},
	CodeFrozen:               {ErrFrozen, 503, 5},
	CodeNoProof:              {ErrNoProof, 503, 5},
	CodePrecondition:         {ErrPrecondition, 412, 3},
	CodePreconditionRequired: {ErrPreconditionRequired, 428, 2},
	CodeUnavailable:          {ErrUnavailable, 503, 5},
	CodeOutcomeUnknown:       {ErrOutcomeUnknown, 504, 6},
	CodeInternal:             {ErrInternal, 500, 1},
}

// Codes returns every code, for documentation and tests.
func Codes() []Code {
	all := make([]Code, 0, len(facts))
	for c := range facts {
		all = append(all, c)
	}
	return all
}

// HTTPStatus is the status an agent answers with; 500 for an unknown code.
func (c Code) HTTPStatus() int {
	if f, ok := facts[c]; ok {
		return f.status
	}
	return 500
}

// ExitCode is what poolctl exits with; 1 for an unknown code.
func (c Code) ExitCode() int {
	if f, ok := facts[c]; ok {
		return f.exit
	}
	return 1
}

// WaitsFor is a node whose word is still needed, and when it was last heard.
type WaitsFor struct {
	Node     string     `json:"node"`
	LastSeen *time.Time `json:"last_seen,omitempty"`
	Why      string     `json:"why,omitempty"`
}

// Holder says who has the thing that was refused.
type Holder struct {
	Caller string     `json:"caller,omitempty"`
	Holder string     `json:"holder,omitempty"`
	Key    string     `json:"key,omitempty"`
	Nodes  []string   `json:"nodes,omitempty"`
	Since  *time.Time `json:"since,omitempty"`
	State  string     `json:"state,omitempty"`
}

// String names the holder the way messages do: "slurm:c1:4802 (unix:1000, n12, since 14:02)".
func (h Holder) String() string {
	name := h.Holder
	if name == "" {
		name = h.Caller
	}
	if name == "" {
		name = "an unnamed holder"
	}
	var in []string
	if h.Caller != "" && h.Caller != name {
		in = append(in, h.Caller)
	}
	if len(h.Nodes) > 0 {
		in = append(in, strings.Join(h.Nodes, "+"))
	}
	if h.State != "" {
		in = append(in, h.State)
	}
	if h.Since != nil {
		in = append(in, "since "+Clock(*h.Since))
	}
	if len(in) == 0 {
		return name
	}
	return name + " (" + strings.Join(in, ", ") + ")"
}

// Clock formats a time for a message: the time of day within half a day of now,
// the date else.
func Clock(t time.Time) string {
	t = t.Local()
	if d := time.Until(t).Abs(); d < 12*time.Hour {
		return t.Format("15:04:05")
	}
	return t.Format("2006-01-02 15:04")
}

// Error is a refusal. Detail is one line, enough in a log; Notes are the lines
// below it; Try are commands that lead on.
type Error struct {
	Code     Code
	Detail   string
	Notes    []string
	Try      []Advice
	Holder   *Holder
	WaitsFor []WaitsFor
	// Counts are ids by state, where the refusal is about a pool.
	Counts map[string]uint64
	// Attribute names the part of a request that was refused, "" if there is only one.
	Attribute string
	// Revision is the etcd revision the refusal is true at, 0 if none.
	Revision int64
	// Cause is what lies beneath, if anything; it is not sent over the wire.
	Cause error
}

// Advice is one next step: when it applies, and the command to type.
type Advice struct {
	When    string `json:"when"`
	Command string `json:"command"`
}

// New returns a refusal whose Detail is formatted as by fmt.Sprintf.
func New(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Detail: fmt.Sprintf(format, args...)}
}

// Wrap returns a refusal with a cause beneath it; nil for a nil cause.
func Wrap(code Code, cause error, format string, args ...any) error {
	if cause == nil {
		return nil
	}
	return &Error{Code: code, Detail: fmt.Sprintf(format, args...) + ": " + cause.Error(), Cause: cause}
}

// Note adds a line below the first and returns the same refusal.
func (e *Error) Note(format string, args ...any) *Error {
	e.Notes = append(e.Notes, fmt.Sprintf(format, args...))
	return e
}

// Advise adds a next step and returns the same refusal.
func (e *Error) Advise(when, format string, args ...any) *Error {
	e.Try = append(e.Try, Advice{When: when, Command: fmt.Sprintf(format, args...)})
	return e
}

// By names the holder and returns the same refusal.
func (e *Error) By(h Holder) *Error {
	e.Holder = &h
	return e
}

// Error is the first line alone.
func (e *Error) Error() string { return e.Detail }

// Unwrap yields the code's sentinel and the cause.
func (e *Error) Unwrap() []error {
	var errs []error
	if f, ok := facts[e.Code]; ok {
		errs = append(errs, f.sentinel)
	}
	if e.Cause != nil {
		errs = append(errs, e.Cause)
	}
	return errs
}

// Text is the whole message for a terminal, without a trailing newline: the
// detail, the notes and the commands, indented by two.
func (e *Error) Text() string {
	var b strings.Builder
	b.WriteString(e.Detail)
	for _, n := range e.Notes {
		b.WriteString("\n  " + n)
	}
	width := 0
	for _, a := range e.Try {
		width = max(width, len(a.When))
	}
	for _, a := range e.Try {
		fmt.Fprintf(&b, "\n  %-*s  %s", width+1, a.When+":", a.Command)
	}
	return b.String()
}

// CodeOf returns the code of the outermost refusal in err, or of the sentinel
// it matches; [CodeInternal] for anything else and "" for nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	for c, f := range facts {
		if errors.Is(err, f.sentinel) {
			return c
		}
	}
	return CodeInternal
}

// Gather makes one refusal of several: the first, with the others as notes. It is
// nil of none, and [CodeInvalid] where the first has no code.
func Gather(errs []error) error {
	if len(errs) == 0 {
		return nil
	}
	first := &Error{Code: CodeInvalid, Detail: errs[0].Error()}
	var p *Error
	if errors.As(errs[0], &p) {
		copied := *p
		first = &copied
	}
	for _, err := range errs[1:] {
		first.Note("also: %s", err)
		if errors.As(err, &p) {
			first.Try = append(first.Try, p.Try...)
		}
	}
	return first
}
