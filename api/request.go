package api

import (
	"context"
	"crypto/rand"
	"net/http"
	"time"

	"github.com/idpool/idpool/problem"
)

// MaxCount is the most ids of one grant.
const MaxCount = 60

// UIDRequest asks for a uid.
type UIDRequest struct {
	// Pool is the pool's name; required.
	Pool string
	// From restricts to ranges, "70000-70099,70200"; empty is the whole pool.
	From string
	// UID asks for this uid and no other; 0 is any.
	UID uint32
	// Count is how many uids are granted together, all or none, 1 to 60; 0 is 1.
	Count int
	// Key is the allocation key: the same request with the same key returns the
	// same grant. At most 256 bytes. A request without one is never repeated.
	Key string
	// Holder is free text shown to others, at most 256 bytes.
	Holder string
	// Hold keeps the grant locked until it is confirmed. The zero value is a
	// ttl of 5m.
	Hold Hold
	// Wait is how long to wait for a uid when none is free; 0 is not at all.
	Wait time.Duration
}

func (r UIDRequest) body() (UIDRequestBody, error) {
	switch {
	case r.Pool == "":
		return UIDRequestBody{}, problem.New(problem.CodeInvalid, "a uid request names no pool; nothing was done")
	case r.Count < 0 || r.Count > MaxCount:
		return UIDRequestBody{}, problem.New(problem.CodeInvalid, "%d uids were asked for at once; one grant has 1 to %d", r.Count, MaxCount)
	case r.Wait < 0:
		return UIDRequestBody{}, problem.New(problem.CodeInvalid, "the time to wait, %s, is below 0", r.Wait)
	}
	b := UIDRequestBody{Requester: rand.Text(), From: r.From, UID: r.UID, Count: uint32(r.Count), Key: r.Key, Holder: r.Holder}
	if r.Hold != (Hold{}) {
		h := r.Hold
		b.Hold = &h
	}
	if r.Wait > 0 {
		b.Wait = r.Wait.String()
	}
	return b, nil
}

// RequestUID asks the agent for one uid that no process of the cluster runs
// under and nobody holds. (Ganeti's RequestUnusedUid.) ErrExhausted: no uid of
// the pool could be granted at one revision. ErrOutcomeUnknown: the answer was
// lost; with a Key the same request may be sent again, and this call has done
// so once already. The caller must end what it got, with Release, or start its
// process and Confirm.
func (c *Client) RequestUID(ctx context.Context, r UIDRequest) (*LockedUID, error) {
	if r.Count > 1 {
		return nil, problem.New(problem.CodeInvalid, "RequestUID grants one uid, %d were asked for: use RequestUIDs", r.Count)
	}
	us, err := c.RequestUIDs(ctx, r)
	if err != nil {
		return nil, err
	}
	return us[0], nil
}

// RequestUIDs is RequestUID for r.Count uids under one token: all or none. They
// are in numeric order. Each is confirmed by itself; see [LockedUID.Release]
// for how they end.
//
// With a hold of kind [HoldConnection] the answer's connection stays open: ctx
// bounds the request alone, [LockedUID.Lost] is told over it at once, and the hold
// ends when all uids are released or the client is closed, or its program ends.
func (c *Client) RequestUIDs(ctx context.Context, r UIDRequest) ([]*LockedUID, error) {
	if r.Hold.Kind == HoldConnection {
		return c.requestHeld(ctx, r)
	}
	g, err := c.Grant(ctx, r)
	if err != nil {
		return nil, err
	}
	us := make([]*LockedUID, 0, len(g.Items))
	for _, item := range g.Items {
		us = append(us, c.lockedUID(item))
	}
	return us, nil
}

// Grant is RequestUIDs for callers that keep the answer rather than live with
// it, such as a command that prints it. Every item carries token, key and
// requester.
func (c *Client) Grant(ctx context.Context, r UIDRequest) (Grant, error) {
	if err := connectionOnly(r.Hold); err != nil {
		return Grant{}, err
	}
	b, err := r.body()
	if err != nil {
		return Grant{}, err
	}
	q := call{
		method: http.MethodPost, path: poolPath(r.Pool, "/uids"), body: b,
		what: "no uid of pool " + r.Pool + " granted", key: r.Key, grants: true, wait: r.Wait,
	}
	var g Grant
	if _, err := c.do(ctx, q, &g); err != nil {
		return Grant{}, err
	}
	if err := q.fits(g, r.Count); err != nil {
		return Grant{}, err
	}
	g.named()
	return g, nil
}

// JoinUID joins a grant from the agent's node, for a process that is about to
// start there under the uid; see [UIDsService.Join].
func (c *Client) JoinUID(ctx context.Context, uid uint32, ref Ref, hold Hold) (*LockedUID, error) {
	var body JoinBody
	if hold != (Hold{}) {
		body.Hold = &hold
	}
	u, err := c.UIDs().Join(ctx, uid, ref, body)
	if err != nil {
		return nil, err
	}
	if u.Token == "" {
		u.Token = ref.Token
	}
	return c.lockedUID(u), nil
}
