package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"go.uber.org/zap"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/problem"
)

const (
	maxBody      = 1 << 20
	maxHeader    = 64 << 10
	idleTimeout  = 2 * time.Minute
	retryAfter   = "1" // seconds
	graceForAll  = time.Second
	graceForLast = 5 * time.Second
)

// patience is how long a client may take for its part: to send a request's head and
// its body, to read the answer, and to read what a stream of events sends at once.
type patience struct{ head, body, answer, event time.Duration }

var defaultPatience = patience{head: 10 * time.Second, body: 10 * time.Second, answer: 30 * time.Second, event: 10 * time.Second}

var errStopping = problem.New(problem.CodeUnavailable, "the agent is stopping; nothing was done")

// server is the agent's HTTP interface.
type server struct {
	a    *Agent
	api  huma.API
	http *http.Server
	// creds are for callers over TCP; nil without a port.
	creds *credentials
	// listeners is the number of streams; stopping closes when they must end.
	listeners atomic.Int64
	stopping  chan struct{}
	// end ends all requests that still wait.
	end context.CancelCauseFunc
}

// newServer builds the interface; base is what its requests live under.
func (a *Agent) newServer(base context.Context, creds *credentials) *server {
	base, end := context.WithCancelCause(base)
	mux := http.NewServeMux()
	s := &server{a: a, end: end, creds: creds, stopping: make(chan struct{})}
	s.api = humago.New(mux, s.openAPI())
	s.routes()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeProblem(w, problem.New(problem.CodeNotFound, "the agent has no %s %.200s", r.Method, r.URL.Path).Advise("what there is", "GET /openapi.json"))
	})
	stdLog, _ := zap.NewStdLogAt(a.log.Named("http"), zap.DebugLevel)
	// A request may wait a day for a uid: guard takes the WriteTimeout away when it
	// begins, and sets it again when the answer does.
	s.http = &http.Server{
		Handler: s.guard(s.certified(mux)), ConnContext: withPeer, BaseContext: func(net.Listener) context.Context { return base },
		ReadHeaderTimeout: a.patience.head, WriteTimeout: a.patience.answer, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader, ErrorLog: stdLog,
	}
	s.http.RegisterOnShutdown(sync.OnceFunc(func() { close(s.stopping) }))
	return s
}

// openAPI is the document's frame. Nothing is added to what package api names:
// no links to schemas, no page that loads scripts from elsewhere.
func (s *server) openAPI() huma.Config {
	problemErrors()
	c := huma.DefaultConfig("idpool agent", s.a.cfg.Version)
	c.Info.Description = "One node's agent: uids that a whole cluster agrees on. Refusals are RFC 9457 problem JSON with a stable code."
	c.CreateHooks, c.Transformers = nil, nil
	c.DocsPath, c.SchemasPath = "", ""
	c.RejectUnknownQueryParameters = true
	return c
}

// serve answers on the listener until shutdown.
func (s *server) serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return problem.Wrap(problem.CodeInternal, err, "serve on %s", l.Addr())
	}
	return nil
}

// shutdown lets requests end by themselves for a moment, then ends those that
// wait, then the connections.
func (s *server) shutdown() {
	first, cancel := context.WithTimeout(context.Background(), graceForAll)
	defer cancel()
	err := s.http.Shutdown(first)
	s.end(errStopping)
	if err == nil {
		return
	}
	last, cancel := context.WithTimeout(context.Background(), graceForLast)
	defer cancel()
	if s.http.Shutdown(last) != nil {
		_ = s.http.Close()
	}
}

// guard reads the body, bounded in size and time, bounds the writing of the answer,
// and answers a panic.
func (s *server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		counted := &countedWriter{ResponseWriter: w, status: http.StatusOK, patience: s.a.patience.answer}
		defer counted.begin() // for what the server itself still writes
		answered := s.a.metrics.Request()
		defer func() { answered(counted.status) }()
		defer func() {
			if v := recover(); v != nil {
				s.a.log.Error("request panicked", zap.String("path", r.URL.Path), zap.Any("panic", v), zap.Stack("stack"))
				writeProblem(counted, problem.New(problem.CodeInternal, "bug: the agent failed at %s %s; its log says where", r.Method, r.URL.Path))
			}
		}()
		if err := bounded(w, r, s.a.patience.body); err != nil {
			writeProblem(counted, err)
			return
		}
		_ = http.NewResponseController(w).SetWriteDeadline(time.Time{})
		next.ServeHTTP(counted, r)
	})
}

// bounded replaces the body by its bytes. The deadline must be gone before a
// request waits: the server watches the connection for its end by reading. After a
// fault it stays: the server reads what is left of the body before it goes on.
func bounded(w http.ResponseWriter, r *http.Request, within time.Duration) error {
	if r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(within))
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var long *http.MaxBytesError
	switch {
	case errors.As(err, &long):
		return problem.New(problem.CodeInvalid, "the request's body is longer than %d bytes", maxBody)
	case err != nil:
		return problem.New(problem.CodeInvalid, "the request's body was not read: %v", err)
	}
	_ = control.SetReadDeadline(time.Time{})
	r.Body = io.NopCloser(bytes.NewReader(raw))
	return nil
}

// add registers an endpoint for those that have its role.
func add[I, O any](s *server, op huma.Operation, f func(context.Context, caller, *I) (*O, error)) {
	op.Middlewares = append(op.Middlewares, s.audited(&op), s.admit(accessOf(&op)))
	register(s, op, func(ctx context.Context, in *I) (*O, error) {
		return f(ctx, ctx.Value(callerKey{}).(caller), in)
	})
}

type callerKey struct{}

// admit lets those pass who may, before anything of the request's body is understood.
func (s *server) admit(row access) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		who, err := s.a.now.Load().gate.admit(ctx.Context())
		rec := auditOf(ctx.Context())
		if rec != nil {
			rec.Caller, rec.Role = who.name, who.role.String()
			rec.DryRun = row.dry != anybody && row.needs(ctx) == row.dry
		}
		if err == nil {
			url := ctx.URL()
			err = who.must(row.needs(ctx), fmt.Sprintf("%s %.200s refused", ctx.Method(), url.Path))
		}
		if err != nil {
			if rec != nil {
				rec.Outcome = string(problem.CodeOf(err))
			}
			body := bodyOf(err)
			ctx.SetStatus(body.Status)
			ctx.SetHeader("Content-Type", "application/problem+json")
			_ = json.NewEncoder(ctx.BodyWriter()).Encode(body)
			return
		}
		next(huma.WithValue(ctx, callerKey{}, who))
	}
}

// open registers an endpoint for everybody who can connect.
func open[I, O any](s *server, op huma.Operation, f func(context.Context, *I) (*O, error)) {
	if accessOf(&op).least != anybody {
		panic("bug: operation " + op.OperationID + " is open, and its row in the table of roles says otherwise")
	}
	register(s, op, f)
}

func register[I, O any](s *server, op huma.Operation, f func(context.Context, *I) (*O, error)) {
	op.BodyReadTimeout, op.MaxBodyBytes = -1, maxBody
	if op.Responses == nil {
		op.Responses = map[string]*huma.Response{}
	}
	defer document(op)
	huma.Register(s.api, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := f(ctx, in)
		rec := auditOf(ctx)
		if err != nil {
			err = unserved(s.a.cfg.Node, s.a.trouble(), err)
			if rec != nil {
				rec.Outcome = string(problem.CodeOf(err))
			}
			return nil, refuse(err)
		}
		if rec != nil {
			answered(rec, out)
		}
		return out, nil
	})
}

// problemJSON is a refusal as huma writes it.
type problemJSON struct{ api.ProblemBody }

func (p *problemJSON) Error() string             { return p.Detail }
func (p *problemJSON) GetStatus() int            { return p.Status }
func (p *problemJSON) ContentType(string) string { return "application/problem+json" }

// refuse makes any error an answer.
func refuse(err error) error {
	p := &problemJSON{bodyOf(err)}
	if p.Status == http.StatusServiceUnavailable {
		return huma.ErrorWithHeaders(p, http.Header{"Retry-After": {retryAfter}})
	}
	return p
}

// bodyOf is err as problem JSON. An error that only passes a refusal on adds its
// step to the detail.
func bodyOf(err error) api.ProblemBody {
	b := api.NewProblemBody(err)
	b.Detail = strings.ReplaceAll(err.Error(), "\n", "; ")
	return b
}

// writeProblem answers outside of huma.
func writeProblem(w http.ResponseWriter, err error) {
	body := bodyOf(err)
	w.Header().Set("Content-Type", "application/problem+json")
	if body.Status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", retryAfter)
	}
	w.WriteHeader(body.Status)
	_ = json.NewEncoder(w).Encode(body)
}

// problemErrors makes huma's own refusals, mostly of what does not fit the
// schema, problems of ours. huma has one such function for the whole process.
var problemErrors = sync.OnceFunc(func() {
	huma.NewError = func(status int, msg string, errs ...error) huma.StatusError {
		code := problem.CodeInternal
		switch {
		case status == http.StatusNotFound || status == http.StatusMethodNotAllowed:
			code = problem.CodeNotFound
		case status >= 400 && status < 500:
			code = problem.CodeInvalid
		}
		e := problem.New(code, "%s", msg)
		var notes []string
		for _, err := range errs {
			if err != nil {
				notes = append(notes, faultText(err))
			}
		}
		if len(notes) > 0 {
			e.Detail, e.Notes = "the request cannot be read: "+notes[0], notes[1:]
		}
		return &problemJSON{api.NewProblemBody(e)}
	}
})

// faultText is where a request does not fit, and how.
func faultText(err error) string {
	var d *huma.ErrorDetail
	if !errors.As(err, &d) || d.Location == "" {
		return err.Error()
	}
	text := d.Location + ": " + d.Message
	switch v := d.Value.(type) {
	case string, float64, bool:
		if raw, err := json.Marshal(v); err == nil && len(raw) < 200 && !strings.Contains(d.Message, string(raw)) {
			text += " (not " + string(raw) + ")"
		}
	}
	return text
}

// token is the grant named by If-Match: quoted or bare, "" if none.
func token(ifMatch string) string {
	t := strings.TrimSpace(ifMatch)
	if unquoted, err := strconv.Unquote(t); err == nil {
		return unquoted
	}
	return t
}
