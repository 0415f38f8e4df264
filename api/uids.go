package api

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
)

// UIDsService reads and changes uids by number. Programs that ask for a uid for
// themselves use [Client.RequestUID] instead.
type UIDsService struct{ c *Client }

// UIDs returns the service of uids and reservations.
func (c *Client) UIDs() *UIDsService { return &UIDsService{c} }

// Ref names the grant that a change of a uid is meant for: by its token, or by
// the allocation key of the caller. With neither the agent refuses with
// ErrPreconditionRequired. Operators may give "*" as token.
type Ref struct {
	Token string
	Key   string
}

func (r Ref) query() url.Values {
	if r.Key == "" || r.Token != "" {
		return nil
	}
	return url.Values{"key": {r.Key}}
}

func uidPath(uid uint32, rest string) string {
	return "/v1/uids/" + strconv.FormatUint(uint64(uid), 10) + rest
}

func (f UIDFilter) query() url.Values {
	q := url.Values{}
	for name, value := range map[string]string{
		"state": f.State, "node": f.Node, "pool": f.Pool, "holder": f.Holder, "key": f.Key, "uids": f.UIDs,
	} {
		if value != "" {
			q.Set(name, value)
		}
	}
	if f.PID != 0 {
		q.Set("pid", strconv.Itoa(f.PID))
	}
	return q
}

// List walks the uids that the filter selects, in numeric order, page by page.
// Free uids are left out unless the filter's State is free. Each page is true
// at a revision of its own. An error ends the walk, beside a zero UID.
func (s *UIDsService) List(ctx context.Context, f UIDFilter) iter.Seq2[UID, error] {
	return paged[UID](ctx, s.c, "/v1/uids", "uids not listed", f.query())
}

// Page is one page of List: at most limit items (0: the agent's choice) from
// cursor on, which is the Next of the page before, "" at first.
func (s *UIDsService) Page(ctx context.Context, f UIDFilter, limit int, cursor string) (List[UID], error) {
	return onePage[UID](ctx, s.c, "/v1/uids", "uids not listed", f.query(), limit, cursor)
}

// Get returns one uid. A uid of a pool that nobody holds has the state free; a
// uid outside every pool that nobody holds is ErrNotFound. Its token is shown
// to its caller and to operators.
func (s *UIDsService) Get(ctx context.Context, uid uint32) (UID, error) {
	var u UID
	_, err := s.c.do(ctx, call{method: http.MethodGet, path: uidPath(uid, ""), what: fmt.Sprintf("uid %d not shown", uid)}, &u)
	return u, err
}

// Confirm ends the hand-over of a uid, see [LockedUID.Confirm].
func (s *UIDsService) Confirm(ctx context.Context, uid uint32, ref Ref, body ConfirmBody) (UID, error) {
	return s.post(ctx, uid, "/confirm", "not confirmed", ref, body)
}

// Renew moves the end of a ttl hold, see [LockedUID.Renew].
func (s *UIDsService) Renew(ctx context.Context, uid uint32, ref Ref, body RenewBody) (UID, error) {
	return s.post(ctx, uid, "/renew", "not renewed", ref, body)
}

// Join adds the agent's node, and the caller as a requester, to a grant. It
// must have returned before anything runs under the uid on that node. The
// answer's Requester names the caller in a later release.
func (s *UIDsService) Join(ctx context.Context, uid uint32, ref Ref, body JoinBody) (UID, error) {
	return s.post(ctx, uid, "/nodes", "not joined", ref, body)
}

// Adopt makes a grant of a uid that runs although nobody was granted it.
func (s *UIDsService) Adopt(ctx context.Context, uid uint32, body AdoptBody) (UID, error) {
	return s.post(ctx, uid, "/adopt", "not adopted", Ref{Key: body.Key}, body)
}

func (s *UIDsService) post(ctx context.Context, uid uint32, rest, not string, ref Ref, body any) (UID, error) {
	q := call{
		method: http.MethodPost, path: uidPath(uid, rest), query: ref.query(), body: body,
		token: ref.Token, key: ref.Key, what: fmt.Sprintf("uid %d %s", uid, not),
	}
	if rest == "/adopt" {
		q.query = nil
	}
	var u UID
	_, err := s.c.do(ctx, q, &u)
	return u, err
}

// Release ends the grant named by token, or with a requester only that
// requester's part in it: the grant ends with its last. It is the caller's
// promise to start nothing more under the uid; the agent looks for processes
// after it. Releasing a grant that is over already succeeds with Changed false,
// whoever has the uid now. (Ganeti's ReleaseUid, which releases by number.)
func (s *UIDsService) Release(ctx context.Context, uid uint32, token, requester string) (Released, error) {
	var query url.Values
	if requester != "" {
		query = url.Values{"requester": {requester}}
	}
	return s.release(ctx, call{path: uidPath(uid, ""), query: query, token: token, what: fmt.Sprintf("uid %d not released", uid)})
}

// ReleaseKey ends the grant of an allocation key of the caller.
func (s *UIDsService) ReleaseKey(ctx context.Context, key string) (Released, error) {
	return s.release(ctx, call{path: "/v1/uids", query: url.Values{"key": {key}}, key: key, what: "key " + key + " not released"})
}

// ReleasePID ends what a process of the agent's node was granted.
func (s *UIDsService) ReleasePID(ctx context.Context, pid int) (Released, error) {
	p := strconv.Itoa(pid)
	return s.release(ctx, call{path: "/v1/uids", query: url.Values{"pid": {p}}, what: "the uids of process " + p + " not released"})
}

func (s *UIDsService) release(ctx context.Context, q call) (Released, error) {
	q.method = http.MethodDelete
	r := Released{Items: []UID{}} // which is all of a 204
	_, err := s.c.do(ctx, q, &r)
	return r, err
}

// Reserve keeps ranges out of every hand-out, for a reason shown to others.
// Ids that are held are ErrHeld, and then nothing is reserved.
func (s *UIDsService) Reserve(ctx context.Context, ranges, reason string) (ReservationResult, error) {
	var r ReservationResult
	_, err := s.c.do(ctx, call{
		method: http.MethodPost, path: "/v1/reservations", body: Reservation{Ranges: ranges, Reason: reason},
		what: "uids " + ranges + " not reserved",
	}, &r)
	return r, err
}

// Unreserve gives reserved ranges back; they are free once proven unused.
func (s *UIDsService) Unreserve(ctx context.Context, ranges string) (ReservationResult, error) {
	var r ReservationResult
	_, err := s.c.do(ctx, call{
		method: http.MethodDelete, path: "/v1/reservations", query: url.Values{"ranges": {ranges}},
		what: "reservation of " + ranges + " not ended",
	}, &r)
	return r, err
}

// Reservations walks the reserved uids.
func (s *UIDsService) Reservations(ctx context.Context) iter.Seq2[UID, error] {
	return paged[UID](ctx, s.c, "/v1/reservations", "reservations not listed", nil)
}
