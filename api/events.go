package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/idpool/idpool/problem"
)

// Types of events that are about the stream itself. The others are the kind of
// thing and what became of it, as in "uid.locked", "vlan.free", "pool.stored",
// "service.up", "node.absent"; and "audit" for a request to the answering agent.
const (
	// EventBegin comes first in a stream that resumes nothing.
	EventBegin = "begin"
	// EventReset says that what happened since the event before cannot be told: list again.
	EventReset = "reset"
	// EventDropped ends a stream whose reader is too slow; Reason says how.
	EventDropped = "dropped"
	// EventAudit is a request that changed something, or was refused.
	EventAudit = "audit"
)

// Event is something that happened. The fields say how the thing is since then.
type Event struct {
	ID      string `json:"id" doc:"resume after it with Last-Event-ID"`
	Type    string `json:"type" example:"uid.locked"`
	Subject string `json:"subject,omitempty" example:"uid/70012"`
	// Revision is the etcd revision of the change.
	Revision   int64      `json:"revision"`
	Time       *time.Time `json:"time,omitempty"`
	UID        *uint32    `json:"uid,omitempty"`
	VID        *uint32    `json:"vid,omitempty"`
	Pool       string     `json:"pool,omitempty" doc:"uid pool or VLAN inventory"`
	State      string     `json:"state,omitempty"`
	Nodes      []string   `json:"nodes,omitempty"`
	Caller     string     `json:"caller,omitempty"`
	Holder     string     `json:"holder,omitempty"`
	Key        string     `json:"key,omitempty"`
	ReasonCode string     `json:"reason_code,omitempty"`
	Reason     string     `json:"reason,omitempty"`
	Audit      *Audit     `json:"audit,omitempty"`
}

// Audit is who asked an agent for a change, and what came of it.
type Audit struct {
	Node      string   `json:"node"`
	Caller    string   `json:"caller"`
	Role      string   `json:"role"`
	Operation string   `json:"operation" doc:"operationId of the OpenAPI document"`
	Subjects  []string `json:"subjects"`
	Token     string   `json:"token_sha256,omitempty" doc:"first 16 digits of the SHA-256 of the grant's token"`
	Outcome   string   `json:"outcome" doc:"ok, or the problem's code"`
	Status    int      `json:"status"`
	DryRun    bool     `json:"dry_run,omitempty"`
	RequestID string   `json:"request_id"`
}

// EventFilter selects events; empty fields select all.
type EventFilter struct {
	// Types are whole types or what stands before the dot: "uid", "uid.free".
	Types []string
	// Subjects are things: "uid/70012", "vlan/fabric-a/100", "service/edge-7".
	Subjects []string
	// After is the id of the event to resume after.
	After string
	// Recent begins with what the agent remembers, where After is empty.
	Recent bool
	// Once ends with what has happened so far.
	Once bool
}

func (f EventFilter) query() url.Values {
	q := url.Values{}
	for name, v := range map[string]string{"type": strings.Join(f.Types, ","), "subject": strings.Join(f.Subjects, ",")} {
		if v != "" {
			q.Set(name, v)
		}
	}
	if f.Recent {
		q.Set("recent", "true")
	}
	if f.Once {
		q.Set("once", "true")
	}
	return q
}

const (
	// silence is how long a stream may say nothing, heartbeats included.
	silence = time.Minute
	// maxEvent bounds one line of a stream.
	maxEvent = 1 << 20
)

// Events listens to what happens in the cluster until ctx ends. A stream that
// breaks is resumed after the last event, whatever broke it, so that nothing is
// missed or told twice; where that cannot be, an event of type reset says so. Only
// the first connection's failure, and a refusal, end it with an error. Breaking off
// the loop closes the stream.
func (c *Client) Events(ctx context.Context, which ...EventFilter) iter.Seq2[Event, error] {
	var f EventFilter
	if len(which) > 0 {
		f = which[0]
	}
	return func(yield func(Event, error) bool) {
		pause := 100 * time.Millisecond
		for connected := false; ; {
			more := true
			got, err := c.stream(ctx, f, func(e Event) bool {
				f.After = e.ID
				connected = true
				more = yield(e, nil)
				return more
			})
			switch {
			case !more || (err == nil && f.Once):
				return
			case ctx.Err() != nil:
				yield(Event{}, cause(ctx, context.Cause(ctx)))
				return
			case err != nil && (!connected || !errors.Is(err, ErrUnavailable)):
				yield(Event{}, err)
				return
			}
			if got {
				pause = 100 * time.Millisecond
			}
			select {
			case <-time.After(pause/2 + rand.N(pause)):
			case <-ctx.Done():
			}
			pause = min(2*pause, 10*time.Second)
		}
	}
}

// stream is one connection. got tells that something came; nil is its orderly end.
func (c *Client) stream(ctx context.Context, f EventFilter, tell func(Event) bool) (got bool, err error) {
	if c.address.err != nil {
		return false, c.address.err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	q := call{method: http.MethodGet, path: "/v1/events", query: f.query(), what: "events not told"}
	req, err := c.request(ctx, q)
	if err != nil {
		return false, err
	}
	req.Header.Set("Accept", "text/event-stream, application/problem+json")
	if f.After != "" {
		req.Header.Set("Last-Event-ID", f.After)
	}
	quiet := time.AfterFunc(silence, func() { cancel(errors.New("the agent has been silent for too long")) })
	defer quiet.Stop()
	res, err := c.http.Do(req)
	if err != nil {
		return false, c.unreachable(ctx, err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		raw, _ := io.ReadAll(io.LimitReader(res.Body, maxProblem))
		return false, decodeProblem(res.StatusCode, res.Header.Get("Content-Type"), raw, false)
	}
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, maxEvent)
	for lines.Scan() {
		quiet.Reset(silence)
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		var e Event
		if err := json.Unmarshal([]byte(data), &e); err != nil {
			return got, q.unreadable(err)
		}
		if e.Type == EventDropped {
			return true, problem.New(problem.CodeUnavailable, "the agent ended the stream: %s", e.Reason)
		}
		if got = true; !tell(e) {
			return got, nil
		}
	}
	if err := lines.Err(); err != nil {
		return got, c.lost(ctx, q, err)
	}
	return got, nil
}
