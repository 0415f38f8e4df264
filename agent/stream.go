package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"reflect"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"golang.org/x/sync/errgroup"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/leases"
)

const (
	// lineTimeout bounds the writing of one line to a client that does not read.
	lineTimeout = 10 * time.Second
)

// grantOut is a grant, or the stream of a grant with a connection hold.
type grantOut struct {
	Body  func(huma.Context)
	grant api.Grant
}

// grantResponses document both.
func (s *server) grantResponses() map[string]*huma.Response {
	schema := func(of any) *huma.Schema {
		return s.api.OpenAPI().Components.Schemas.Schema(reflect.TypeOf(of), true, "")
	}
	content := map[string]*huma.MediaType{
		"application/json": {Schema: schema(api.Grant{})},
		api.StreamType:     {Schema: schema(api.StreamEvent{})},
	}
	return map[string]*huma.Response{
		"200": {Description: "The same grant as before", Content: content},
		"default": {Description: "Error", Content: map[string]*huma.MediaType{
			"application/problem+json": {Schema: s.api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[problemJSON](), true, "Error")},
		}},
		"201": {Description: "Granted; with a connection hold one event a line until the connection ends", Content: content},
	}
}

// granted shows a grant.
func (c *core) granted(ctx context.Context, who caller, g *leases.Grant) (int, api.Grant) {
	out := api.Grant{Token: g.Token, Key: g.Key, Requester: g.Requester, Same: g.Same}
	slices.SortFunc(g.Held, func(x, y leases.Held) int { return cmp.Compare(x.ID, y.ID) })
	u := c.uses(ctx)
	for _, h := range g.Held {
		out.Items = append(out.Items, c.heldView(ctx, who, u, h, g.Requester))
	}
	if g.Same {
		return http.StatusOK, out
	}
	return http.StatusCreated, out
}

// once answers with a grant.
func once(status int, g api.Grant) *grantOut {
	return &grantOut{grant: g, Body: func(h huma.Context) {
		h.SetHeader("Content-Type", "application/json")
		h.SetStatus(status)
		_ = json.NewEncoder(h.BodyWriter()).Encode(g)
	}}
}

// stream answers with a grant and what becomes of it, until the connection ends or
// nothing of the grant is left.
func (c *core) stream(status int, g api.Grant, held []leases.Held) *grantOut {
	return &grantOut{grant: g, Body: func(h huma.Context) {
		h.SetHeader("Content-Type", api.StreamType)
		h.SetStatus(status)
		changed(h.Context(), status)
		_, w := humago.Unwrap(h)
		ctx, cancel := context.WithCancel(h.Context())
		defer cancel()
		news := make(chan api.StreamEvent)
		var watch errgroup.Group
		for _, one := range held {
			watch.Go(func() error { return c.tellLoss(ctx, one, g.Token, news) })
		}
		tellAll(ctx, w, g, news)
		cancel()
		_ = watch.Wait()
	}}
}

// tellLoss waits until a uid is the grant's no longer, and says so.
func (c *core) tellLoss(ctx context.Context, h leases.Held, token string, news chan<- api.StreamEvent) error {
	e := api.StreamEvent{Event: api.EventLost, UID: h.ID}
	err := c.engine.WaitFor(ctx, h.Ref, func(now *leases.Claim) bool {
		if now != nil && now.Token == token {
			e.Reason, e.ReasonCode = now.Reason, now.ReasonCode
			return now.State == leases.Quarantined
		}
		return true
	})
	if err != nil {
		return err
	}
	select {
	case news <- e:
	case <-ctx.Done():
	}
	return nil
}

func tellAll(ctx context.Context, w http.ResponseWriter, g api.Grant, news <-chan api.StreamEvent) {
	control := http.NewResponseController(w)
	lines := json.NewEncoder(w)
	tell := func(e api.StreamEvent) bool {
		_ = control.SetWriteDeadline(time.Now().Add(lineTimeout))
		return lines.Encode(e) == nil && control.Flush() == nil
	}
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	ok := tell(api.StreamEvent{Event: api.EventGranted, Grant: &g})
	for left := len(g.Items); ok && left > 0; {
		select {
		case e := <-news:
			left--
			ok = tell(e)
		case <-beat.C:
			ok = tell(api.StreamEvent{Event: api.EventAlive})
		case <-ctx.Done():
			return
		}
	}
}
