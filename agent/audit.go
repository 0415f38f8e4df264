package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/problem"
)

// requestID is the header that names a request, the caller's own word or ours.
const requestID = "X-Request-Id"

var ownRequestID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

type (
	auditKey struct{}
	tellKey  struct{}
)

// audited makes one line of the log, and one event, of every request that would
// change something, refused ones too. What it tells of a token is a digest: the
// log is read by more people than may end grants.
func (s *server) audited(op *huma.Operation) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		id := ctx.Header(requestID)
		if !ownRequestID.MatchString(id) {
			id = uuid.NewString()
		}
		ctx.SetHeader(requestID, id)
		if op.Method == http.MethodGet {
			next(ctx)
			return
		}
		rec := &api.Audit{Operation: op.OperationID, RequestID: id, Subjects: subjectsAsked(ctx, op)}
		if t := token(ctx.Header("If-Match")); t == "*" {
			rec.Token = t
		} else if t != "" {
			rec.Token = tokenDigest(t)
		}
		told := false
		tell := func(status int) {
			if !told {
				told = true
				s.tellChange(rec, status)
			}
		}
		next(huma.WithValue(huma.WithValue(ctx, auditKey{}, rec), tellKey{}, tell))
		tell(ctx.Status())
	}
}

func (s *server) tellChange(rec *api.Audit, status int) {
	rec.Status = status
	if rec.Outcome == "" {
		rec.Outcome = outcomeOf(status)
	}
	s.a.log.Named("audit").Info("change", zap.String("caller", rec.Caller), zap.String("role", rec.Role), zap.String("operation", rec.Operation),
		zap.Strings("subjects", rec.Subjects), zap.String("token_sha256", rec.Token), zap.String("outcome", rec.Outcome), zap.Int("status", rec.Status),
		zap.Bool("dry_run", rec.DryRun), zap.String("request_id", rec.RequestID))
	s.a.events.audit(s.a.cfg.Node, rec)
}

// changed tells of the request's change now: its answer may last for hours.
func changed(ctx context.Context, status int) {
	if tell, ok := ctx.Value(tellKey{}).(func(int)); ok {
		tell(status)
	}
}

// audit is the record of this request, nil where it changes nothing.
func auditOf(ctx context.Context) *api.Audit {
	rec, _ := ctx.Value(auditKey{}).(*api.Audit)
	return rec
}

// tokenDigest tells grants apart and ends none.
func tokenDigest(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:8])
}

func outcomeOf(status int) string {
	if status < 300 {
		return "ok"
	}
	return string(problem.CodeInvalid) // refused before the operation began: it did not fit the schema
}

// subjectsAsked are the things that the request's line names.
func subjectsAsked(ctx huma.Context, op *huma.Operation) []string {
	all := []string{}
	named := func(param, prefix string) {
		if v := ctx.Param(param); v != "" && strings.Contains(op.Path, "{"+param+"}") {
			all = append(all, fmt.Sprintf("%s%.100s", prefix, v))
		}
	}
	named("pool", "pool/")
	named("uid", "uid/")
	named("service", "service/")
	named("node", "node/")
	named("key", "key/")
	if inv, vid := ctx.Param("inventory"), ctx.Param("vid"); vid != "" {
		all = append(all, fmt.Sprintf("vlan/%.100s/%.20s", inv, vid))
	} else {
		named("inventory", "inventory/")
	}
	for _, q := range []string{"key", "pid", "ranges"} {
		if v := ctx.Query(q); v != "" {
			all = append(all, fmt.Sprintf("%s/%.100s", q, v))
		}
	}
	return all
}

// maxSubjects bounds what one line names.
const maxSubjects = 64

// answered adds what an answer says of ids and token.
func answered(rec *api.Audit, body any) {
	note := func(token string, subjects ...string) {
		if token != "" && rec.Token == "" {
			rec.Token = tokenDigest(token)
		}
		for _, subject := range subjects {
			if len(rec.Subjects) < maxSubjects && !slices.Contains(rec.Subjects, subject) {
				rec.Subjects = append(rec.Subjects, subject)
			}
		}
	}
	uids := func(token string, items []api.UID) {
		for _, u := range items {
			note(token, uidSubject(u.UID))
		}
	}
	switch b := body.(type) {
	case *grantOut:
		uids(b.grant.Token, b.grant.Items)
	case *releasedOut:
		uids("", b.Body.Items)
	case *uidOut:
		note("", uidSubject(b.Body.UID))
	case *reservedOut:
		note("", "uids/"+b.Body.Ranges)
	case *serviceOut:
		for _, at := range b.Body.Attributes {
			if at.VID != nil {
				note(b.Body.Token, vlanSubject(at.Inventory, *at.VID))
			}
		}
	case *allocationOut:
		for _, item := range b.Body.Items {
			if item.UID != nil {
				note(b.Body.Token, uidSubject(*item.UID))
			} else if item.VID != nil {
				note(b.Body.Token, vlanSubject(item.Inventory, *item.VID))
			}
		}
	case *vlanOut:
		note(b.Body.Token, vlanSubject(b.Body.Inventory, b.Body.VID))
	}
}

func uidSubject(uid uint32) string { return fmt.Sprintf("%s/%d", cluster.SpaceUID, uid) }

func vlanSubject(inventory string, vid uint32) string {
	return fmt.Sprintf("vlan/%s/%d", inventory, vid)
}
