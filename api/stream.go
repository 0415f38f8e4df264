package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/idpool/idpool/problem"
)

// held is the connection that a grant is held by.
type held struct {
	cancel context.CancelCauseFunc
	uids   []*LockedUID

	mu   sync.Mutex // guards the field below
	left int        // uids that are not released
}

// requestHeld is RequestUIDs with a connection hold: ctx bounds the request alone,
// the connection stands until all uids are released or the client is closed.
func (c *Client) requestHeld(ctx context.Context, r UIDRequest) ([]*LockedUID, error) {
	b, err := r.body()
	if err != nil {
		return nil, err
	}
	q := call{
		method: http.MethodPost, path: poolPath(r.Pool, "/uids"), body: b,
		what: "no uid of pool " + r.Pool + " granted", key: r.Key, grants: true, wait: r.Wait,
	}
	long, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	asked := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
	if c.timeout > 0 {
		late := time.AfterFunc(c.timeout+q.wait, func() { cancel(context.DeadlineExceeded) })
		defer late.Stop()
	}
	lines, g, err := c.openStream(long, q)
	if err == nil && (!asked() || long.Err() != nil) {
		err = c.lost(long, q, context.Cause(long))
	}
	if err == nil {
		err = q.fits(g, r.Count)
	}
	if err != nil {
		cancel(err)
		return nil, err
	}
	h := &held{cancel: cancel, left: len(g.Items)}
	for _, item := range g.named() {
		u := c.lockedUID(item)
		u.held, u.watched = h, true
		h.uids = append(h.uids, u)
	}
	go h.follow(long, c, lines) // ends with the connection, and then with the grant or [Client.Close]
	return h.uids, nil
}

// openStream sends the request and reads the grant, the stream's first line.
func (c *Client) openStream(ctx context.Context, q call) (*bufio.Reader, Grant, error) {
	res, err := c.send(ctx, q)
	if err != nil {
		return nil, Grant{}, err
	}
	var e StreamEvent
	switch {
	case res.StatusCode > 299:
		_, err = c.answer(ctx, q, res, nil)
	case !strings.HasPrefix(res.Header.Get("Content-Type"), StreamType):
		err = q.unreadable(errors.New("it is no stream: does this agent know connection holds?"))
	default:
		lines := bufio.NewReader(res.Body)
		if err = readLine(lines, &e); err == nil && e.Event == EventGranted && e.Grant != nil {
			context.AfterFunc(ctx, func() { _ = res.Body.Close() })
			return lines, *e.Grant, nil
		}
		if err != nil {
			err = c.lost(ctx, q, err)
		} else {
			err = q.unreadable(fmt.Errorf("its first event is %q", e.Event))
		}
	}
	_ = res.Body.Close()
	return nil, Grant{}, err
}

// readLine reads one event, of bounded length.
func readLine(from *bufio.Reader, e *StreamEvent) error {
	var line []byte
	for {
		part, more, err := from.ReadLine()
		line = append(line, part...)
		switch {
		case err != nil:
			return err
		case len(line) > maxProblem:
			return fmt.Errorf("a line is longer than %d bytes", maxProblem)
		case !more:
			return json.Unmarshal(line, e)
		}
	}
}

// follow marks what is lost until the connection ends. After that the uids are
// looked at: the hold is over, which the confirmed ones survive.
func (h *held) follow(ctx context.Context, c *Client, lines *bufio.Reader) {
	ended := make(chan struct{})
	go func() { // ends with the reading below
		select {
		case <-c.closed:
			h.cancel(errors.New("the client was closed"))
		case <-ended:
		}
	}()
	for {
		var e StreamEvent
		if readLine(lines, &e) != nil {
			break
		}
		for _, u := range h.uids {
			if e.Event == EventLost && u.uid == e.UID {
				u.markLost()
			}
		}
	}
	close(ended)
	h.cancel(nil)
	var watches sync.WaitGroup
	for _, u := range h.uids {
		watches.Go(func() { _ = u.watch(context.Background(), c.closed) })
	}
	watches.Wait()
}

// released ends the connection with the last uid.
func (h *held) released() {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.left--; h.left == 0 {
		h.cancel(errors.New("all uids are released"))
	}
}

// fits refuses a grant that is not what was asked for.
func (q call) fits(g Grant, count int) error {
	if want := max(1, count); len(g.Items) != want || g.Token == "" {
		return q.unreadable(fmt.Errorf("it has %d of %d uids, token %q", len(g.Items), want, g.Token))
	}
	return nil
}

// named are the items, each with the names of the grant.
func (g Grant) named() []UID {
	for i := range g.Items {
		g.Items[i].Token, g.Items[i].Requester = g.Token, g.Requester
		if g.Key != "" {
			g.Items[i].Key = g.Key
		}
	}
	return g.Items
}

// connectionOnly refuses a connection hold where nobody keeps the connection.
func connectionOnly(h Hold) error {
	if h.Kind != HoldConnection {
		return nil
	}
	return problem.New(problem.CodeInvalid, "a connection hold lives with the LockedUID that has it: use RequestUID or RequestUIDs")
}
