package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"go.uber.org/zap"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/problem"
)

const (
	// maxListeners bounds the streams of one agent.
	maxListeners = 4096
	// heartbeat is how often a stream without news says that it is there.
	heartbeat = 15 * time.Second
)

type eventsIn struct {
	LastEventID string   `header:"Last-Event-ID" maxLength:"80" doc:"id of the event to resume after"`
	Type        []string `query:"type" maxItems:"32" doc:"only these: whole types, or what stands before the dot"`
	Subject     []string `query:"subject" maxItems:"32" doc:"only what is about these, e.g. uid/70012"`
	Recent      bool     `query:"recent" doc:"begin with what the agent remembers"`
	Once        bool     `query:"once" doc:"end with what has happened so far"`
}

func (s *server) eventRoutes() {
	schema := s.api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[api.Event](), true, "Event")
	add(s, huma.Operation{
		OperationID: "stream-events", Method: http.MethodGet, Path: "/v1/events", Summary: "What happens, as server-sent events", Tags: []string{"events"},
		Description: "Each event has an id; sent back as Last-Event-ID, the stream goes on after it. An event of type reset says that what happened in between cannot be told.",
		Responses:   map[string]*huma.Response{"200": {Description: "a stream; the data of each event is this", Content: map[string]*huma.MediaType{"text/event-stream": {Schema: schema}}}},
	}, s.streamEvents)
}

func (s *server) streamEvents(_ context.Context, who caller, in *eventsIn) (*huma.StreamResponse, error) {
	if _, ok := readPlace(in.LastEventID); in.LastEventID != "" && !ok {
		return nil, problem.New(problem.CodeInvalid, "Last-Event-ID %q is no id of an event", in.LastEventID)
	}
	if s.listeners.Add(1) > maxListeners {
		s.listeners.Add(-1)
		return nil, problem.New(problem.CodeUnavailable, "%d programs listen already, which is all this agent takes; nothing was done", maxListeners)
	}
	return &huma.StreamResponse{Body: func(ctx huma.Context) {
		defer s.listeners.Add(-1)
		_, w := humago.Unwrap(ctx)
		l := listener{s: s, in: in, control: http.NewResponseController(w), w: w}
		if why := l.run(ctx.Context()); why != "" {
			s.a.log.Info("listener dropped", zap.String("caller", who.name), zap.String("why", why))
		}
	}}, nil
}

// listener is one stream.
type listener struct {
	s       *server
	in      *eventsIn
	w       http.ResponseWriter
	control *http.ResponseController
}

// run sends until the client goes, or is too slow, which it returns, or the agent
// stops.
func (l *listener) run(ctx context.Context) string {
	l.w.Header().Set("Content-Type", "text/event-stream")
	l.w.Header().Set("Cache-Control", "no-store")
	h := l.s.a.events
	cur, at, whole := h.begin(l.in.LastEventID, l.in.Recent)
	first := api.Event{ID: at.String(), Revision: at.rev, Type: api.EventBegin}
	if !whole {
		first.Type, first.Reason = api.EventReset, "what happened after "+l.in.LastEventID+" is not remembered here"
	}
	if !whole || l.in.LastEventID == "" {
		if !l.say(first) {
			return ""
		}
	}
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		some, at, gap, behind, wake := h.take(&cur)
		switch {
		case gap:
			if !l.say(api.Event{ID: at.String(), Revision: at.rev, Type: api.EventReset, Reason: "etcd was read anew"}) {
				return ""
			}
			continue
		case behind > 0:
			why := fmt.Sprintf("too slow: %d events were let go unread", behind)
			l.say(api.Event{ID: at.String(), Revision: at.rev, Type: api.EventDropped, Reason: why})
			return why
		case len(some) > 0:
			if !l.send(some) {
				return fmt.Sprintf("nothing was read for %v", l.s.a.patience.event)
			}
			continue
		case l.in.Once:
			return ""
		}
		select {
		case <-wake:
		case <-beat.C:
			if !l.write([]byte(": heartbeat\n\n")) {
				return ""
			}
		case <-l.s.stopping:
			return ""
		case <-ctx.Done():
			return ""
		}
	}
}

func (l *listener) say(e api.Event) bool {
	data, err := json.Marshal(e)
	return err == nil && l.write(frame(e.ID, e.Type, data))
}

func (l *listener) send(some []occurrence) bool {
	var out []byte
	for _, o := range some {
		if o.wanted(l.in.Type, l.in.Subject) {
			out = append(out, frame(o.at.String(), o.kind, o.data)...)
		}
	}
	return len(out) == 0 || l.write(out)
}

// frame is one event on the wire; JSON has no line ends.
func frame(id, kind string, data []byte) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "id: %s\nevent: %s\ndata: %s\n\n", id, kind, data)
	return []byte(b.String())
}

func (l *listener) write(data []byte) bool {
	_ = l.control.SetWriteDeadline(time.Now().Add(l.s.a.patience.event))
	if _, err := l.w.Write(data); err != nil {
		return false
	}
	return l.control.Flush() == nil
}
