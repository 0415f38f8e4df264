package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/idpool/idpool/problem"
)

// The sentinels that callers of this package meet, for errors.Is. They are
// those of package problem: an error decoded from an answer matches the same
// one that the agent refused with.
var (
	ErrExhausted            = problem.ErrExhausted
	ErrHeld                 = problem.ErrHeld
	ErrNotHeld              = problem.ErrNotHeld
	ErrNotFound             = problem.ErrNotFound
	ErrOutsidePool          = problem.ErrOutsidePool
	ErrInvalid              = problem.ErrInvalid
	ErrForbidden            = problem.ErrForbidden
	ErrKeyConflict          = problem.ErrKeyConflict
	ErrKeyEnded             = problem.ErrKeyEnded
	ErrLockLost             = problem.ErrLockLost
	ErrCompensated          = problem.ErrCompensated
	ErrNotRunning           = problem.ErrNotRunning
	ErrFenced               = problem.ErrFenced
	ErrFrozen               = problem.ErrFrozen
	ErrNoProof              = problem.ErrNoProof
	ErrPrecondition         = problem.ErrPrecondition
	ErrPreconditionRequired = problem.ErrPreconditionRequired
	ErrUnavailable          = problem.ErrUnavailable
	ErrOutcomeUnknown       = problem.ErrOutcomeUnknown
	ErrInternal             = problem.ErrInternal
)

// ProblemType is what the "type" of a problem body begins with; the code follows.
const ProblemType = "urn:idpool:problem:"

// NewProblemBody writes err as problem JSON: every field of a refusal, or an
// internal error that carries the text of anything else. err must not be nil.
func NewProblemBody(err error) ProblemBody {
	code := problem.CodeOf(err)
	body := ProblemBody{
		Type:   ProblemType + string(code),
		Title:  strings.ReplaceAll(string(code), "_", " "),
		Status: code.HTTPStatus(),
		Code:   code,
		Detail: err.Error(),
	}
	var p *problem.Error
	if errors.As(err, &p) {
		body.Detail = p.Detail
		body.Notes = p.Notes
		body.Holder = p.Holder
		body.WaitsFor = p.WaitsFor
		body.Counts = p.Counts
		body.Attribute = p.Attribute
		body.Revision = p.Revision
		body.Try = p.Try
	}
	return body
}

// Err is the refusal that the body describes.
func (b ProblemBody) Err() *problem.Error {
	return &problem.Error{
		Code: b.Code, Detail: b.Detail, Notes: b.Notes, Try: b.Try, Holder: b.Holder,
		WaitsFor: b.WaitsFor, Counts: b.Counts, Attribute: b.Attribute, Revision: b.Revision,
	}
}

// statusCodes are the facts that a status alone stands for, where an answer
// carries no problem body of ours (a proxy's, say).
var statusCodes = map[int]problem.Code{
	http.StatusBadRequest:           problem.CodeInvalid,
	http.StatusUnauthorized:         problem.CodeForbidden,
	http.StatusForbidden:            problem.CodeForbidden,
	http.StatusNotFound:             problem.CodeNotFound,
	http.StatusMethodNotAllowed:     problem.CodeNotFound,
	http.StatusConflict:             problem.CodeHeld,
	http.StatusPreconditionFailed:   problem.CodeNotHeld,
	http.StatusUnprocessableEntity:  problem.CodeInvalid,
	http.StatusPreconditionRequired: problem.CodePreconditionRequired,
	http.StatusTooManyRequests:      problem.CodeUnavailable,
	http.StatusServiceUnavailable:   problem.CodeUnavailable,
}

// decodeProblem turns the body of an answer outside 2xx into a refusal.
func decodeProblem(status int, contentType string, body []byte, mutating bool) *problem.Error {
	var b ProblemBody
	if err := json.Unmarshal(body, &b); err == nil && b.Code != "" {
		if b.Detail == "" {
			b.Detail = "the agent refused with " + string(b.Code)
		}
		return b.Err()
	}
	code, ok := statusCodes[status]
	switch {
	case ok:
	case mutating && (status == http.StatusBadGateway || status == http.StatusGatewayTimeout):
		// A proxy passed the request on and lost the answer.
		code = problem.CodeOutcomeUnknown
	case status == http.StatusBadGateway || status == http.StatusGatewayTimeout:
		code = problem.CodeUnavailable
	default:
		code = problem.CodeInternal
	}
	e := problem.New(code, "the agent answered %d %s without saying why", status, http.StatusText(status))
	if text := firstLine(contentType, body); text != "" {
		return e.Note("it sent: %s", text)
	}
	return e
}

// firstLine is what a foreign error body begins with, cut to a line's length.
func firstLine(contentType string, body []byte) string {
	if strings.Contains(contentType, "html") {
		return ""
	}
	text, _, _ := strings.Cut(strings.TrimSpace(string(body)), "\n")
	if r := []rune(text); len(r) > 200 {
		return string(r[:200]) + "…"
	}
	return text
}
