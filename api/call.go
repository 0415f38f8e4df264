package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/idpool/idpool/problem"
)

const (
	// maxAnswer bounds what is read of an answer; a page of a list is far below.
	maxAnswer = 32 << 20
	// maxProblem bounds what is read of a refusal.
	maxProblem = 1 << 20
)

// call is one request to the agent.
type call struct {
	method string
	path   string
	query  url.Values
	body   any
	// token goes into If-Match; empty sends none.
	token string
	// what names the operation in messages: "uid 70012 not released".
	what string
	// key is the allocation key that makes a repetition harmless; empty if none.
	key string
	// grants tells that a repetition without a key could grant twice.
	grants bool
	// repeats tells that sent twice it is as sent once, without a key too.
	repeats bool
	// wait is how long the agent was asked to take.
	wait time.Duration
}

func (q call) mutating() bool { return q.method != http.MethodGet }

// twice sends the call and decodes its answer into out (nil: none is wanted).
// status is the answer's, 0 without one. A call with a key, or that repeats,
// whose answer was lost is sent once more: both are the same request. Unless the
// repetition settles what became of the first, it stays unknown.
func (c *Client) twice(ctx context.Context, q call, out any) (status int, err error) {
	status, err = c.once(ctx, q, out)
	if (q.key != "" || q.repeats) && status == 0 && errors.Is(err, ErrOutcomeUnknown) && ctx.Err() == nil {
		again, repeated := c.once(ctx, q, out)
		if settles(again, repeated) {
			return again, repeated
		}
	}
	return status, err
}

// settles tells whether the answer to a repetition holds for the first sending
// too. A refusal to serve at all says nothing of what was done before.
func settles(status int, err error) bool {
	switch problem.CodeOf(err) {
	case problem.CodeUnavailable, problem.CodeNoProof, problem.CodeFenced, problem.CodeFrozen, problem.CodeForbidden, problem.CodeInternal, problem.CodeOutcomeUnknown:
		return false
	}
	return err == nil || status != 0
}

func (c *Client) once(ctx context.Context, q call, out any) (int, error) {
	if c.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout+q.wait)
		defer cancel()
	}
	res, err := c.send(ctx, q)
	if err != nil {
		return 0, err
	}
	defer func() { _ = res.Body.Close() }()
	return c.answer(ctx, q, res, out)
}

// send sends the request and returns the answer's head.
func (c *Client) send(ctx context.Context, q call) (*http.Response, error) {
	if c.address.err != nil {
		return nil, c.address.err
	}
	var connected atomic.Bool
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { connected.Store(true) },
	})
	req, err := c.request(traced, q)
	if err != nil {
		return nil, err
	}
	res, err := c.http.Do(req)
	if err != nil {
		var alert tls.AlertError
		if connected.Load() && !errors.As(err, &alert) {
			return nil, c.lost(ctx, q, err)
		}
		return nil, c.unreachable(ctx, err)
	}
	return res, nil
}

func (c *Client) request(ctx context.Context, q call) (*http.Request, error) {
	if err := q.check(); err != nil {
		return nil, err
	}
	var body io.Reader
	if q.body != nil {
		raw, err := json.Marshal(q.body)
		if err != nil {
			return nil, problem.Wrap(problem.CodeInternal, err, "encode the request")
		}
		body = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, q.method, c.address.url(q.path, q.query), body)
	if err != nil {
		return nil, problem.Wrap(problem.CodeInvalid, err, "the request cannot be made")
	}
	req.Header.Set("Accept", "application/json, application/problem+json")
	req.Header.Set("User-Agent", c.userAgent)
	if q.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if q.token == "*" {
		req.Header.Set("If-Match", "*")
	} else if q.token != "" {
		req.Header.Set("If-Match", `"`+q.token+`"`)
	}
	return req, nil
}

// check refuses what cannot be said in a request's line and headers: a name that
// would make another path, a token that would make another header.
func (q call) check() error {
	for name := range strings.SplitSeq(strings.TrimPrefix(q.path, "/"), "/") {
		if name == "" || name == "." || name == ".." {
			return problem.New(problem.CodeInvalid, "%s: %q is no name; nothing was done", q.what, name)
		}
	}
	for _, c := range q.token {
		if c <= ' ' || c > '~' || c == '"' {
			return problem.New(problem.CodeInvalid, "%s: that is no token; nothing was done", q.what).
				Note("a token stands in the answer to the request, and there are no blanks or quotes in it")
		}
	}
	return nil
}

// answer reads a response: refusals become errors, anything too long or
// unreadable an error that says whether something may have been done.
func (c *Client) answer(ctx context.Context, q call, res *http.Response, out any) (int, error) {
	if res.StatusCode < 200 || res.StatusCode > 299 {
		raw, _ := io.ReadAll(io.LimitReader(res.Body, maxProblem))
		return res.StatusCode, decodeProblem(res.StatusCode, res.Header.Get("Content-Type"), raw, q.mutating())
	}
	if out == nil || res.StatusCode == http.StatusNoContent {
		return res.StatusCode, nil
	}
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil {
		return 0, c.lost(ctx, q, err)
	}
	if len(raw) > maxAnswer {
		return res.StatusCode, q.unreadable(fmt.Errorf("it is longer than %d MiB", maxAnswer>>20))
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return res.StatusCode, q.unreadable(err)
	}
	return res.StatusCode, nil
}

// unreadable is for an answer that came but says nothing: what was asked for
// was done, but with which result cannot be told.
func (q call) unreadable(cause error) error {
	code := problem.CodeInternal
	if q.mutating() {
		code = problem.CodeOutcomeUnknown
	}
	return &problem.Error{Code: code, Cause: cause,
		Detail: fmt.Sprintf("%s: the agent's answer cannot be read: %v", q.what, cause),
		Notes:  []string{"is the agent of another version, or something else behind the address?"}}
}

// lost is for a request that was on its way when the connection or the time
// ended. A read did nothing; anything else may have been done.
func (c *Client) lost(ctx context.Context, q call, err error) error {
	why := reason(ctx, err)
	if !q.mutating() {
		return &problem.Error{Code: problem.CodeUnavailable, Cause: cause(ctx, err),
			Detail: fmt.Sprintf("%s: the agent on %s did not answer (%s); nothing was done", q.what, c.address, why)}
	}
	e := &problem.Error{Code: problem.CodeOutcomeUnknown, Cause: cause(ctx, err),
		Detail: fmt.Sprintf("%s: the agent on %s did not say whether it was done (%s)", q.what, c.address, why)}
	switch {
	case !q.grants:
		return e.Note("run the same command again: done twice it is as done once")
	case q.key != "":
		return e.Note("run the same command again with --key %s: it returns this grant or makes it, never two", q.key)
	}
	return e.Note("nothing is lost: the agent settles it and releases at the end of its hold what nobody confirms").
		Note("give requests a key (--key KEY): sent again with the same key they return the same grant, never two")
}

// unreachable is for a call that never reached an agent.
func (c *Client) unreachable(ctx context.Context, err error) error {
	if errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM) {
		e := problem.New(problem.CodeForbidden, "your uid %d may not open %s; nothing was done", os.Geteuid(), c.address)
		e.Cause = err
		return e.Advise("join its group", "usermod -aG idpool USER   (then log in again)").
			Advise("or as root", "sudo poolctl …")
	}
	var alert tls.AlertError
	if errors.As(err, &alert) {
		e := &problem.Error{Code: problem.CodeForbidden, Cause: err,
			Detail: fmt.Sprintf("the agent on %s refused the TLS connection (%v); nothing was done", c.address, alert)}
		return e.Note("it asks for a client certificate signed by the cluster's CA")
	}
	e := &problem.Error{Code: problem.CodeUnavailable, Cause: cause(ctx, err),
		Detail: fmt.Sprintf("no agent answers on %s (%s); nothing was done", c.address, reason(ctx, err))}
	if c.address.socket == "" {
		return e.Advise("is it there", "curl --cert CERT --key KEY --cacert CA %s/healthz", c.address).
			Advise("this machine's agent", "poolctl --agent unix://%s …", DefaultSocket)
	}
	return e.Advise("start it", "systemctl start idpool-agent").
		Advise("elsewhere", "poolctl --agent https://HOST:PORT …")
}

// cause keeps why the context ended findable by errors.Is, beside the error.
func cause(ctx context.Context, err error) error {
	if why := context.Cause(ctx); why != nil {
		return errors.Join(why, err)
	}
	return err
}

// reason says in words why a connection failed or broke.
func reason(ctx context.Context, err error) string {
	var errno syscall.Errno
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return "out of time"
	case ctx.Err() != nil:
		return "interrupted"
	case errors.Is(err, fs.ErrNotExist):
		return "the socket does not exist"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens there"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "the connection was closed"
	case errors.As(err, &errno):
		return errno.Error()
	}
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err.Error()
	}
	return err.Error()
}
