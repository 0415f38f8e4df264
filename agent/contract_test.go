package agent_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"mime"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.uber.org/zap"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/cluster/clustertest"
)

// ask is one request.
type ask struct {
	path, body string
	match      string // If-Match: a token, or ":NAME" for one kept
}

// contractRow is a success and a refusal of an operation. The rows of a table are
// sent in order, each stands on those before.
type contractRow struct {
	id     string // of the operation
	ok     ask
	status int // of ok
	keep   string
	// bad is refused with that status, and changes nothing: it is sent first.
	bad     ask
	refusal int
	on      int // the agent asked: 0 is n1
}

// served is the document that an agent serves, and its schemas.
type served struct {
	ops     map[string]operation
	schemas *jsonschema.Compiler
}

func (n *node) served(t *testing.T) served {
	t.Helper()
	_, _, raw := n.raw(t, "GET", "/openapi.json", "")
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	s := served{map[string]operation{}, jsonschema.NewCompiler()}
	if err := s.schemas.AddResource("file:///openapi.json", doc); err != nil {
		t.Fatal(err)
	}
	for _, op := range n.operations(t) {
		s.ops[op.ID] = op
	}
	return s
}

var escapePointer = strings.NewReplacer("/", "~1", "{", "%7B", "}", "%7D", "~", "~0")

// fits checks an answer against its schema in the document.
func (s served) fits(t *testing.T, op operation, status int, contentType string, raw []byte) {
	t.Helper()
	kind, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		t.Errorf("%s %s: %d with the content type %q: %v", op.Method, op.Path, status, contentType, err)
		return
	}
	under := fmt.Sprint(status)
	if _, ok := op.Responses[under]; !ok {
		under = "default"
	}
	media, ok := op.Responses[under].Content[kind]
	if !ok || len(media.Schema) == 0 {
		t.Errorf("%s %s: the document has no %d with %s", op.Method, op.Path, status, kind)
		return
	}
	var values [][]byte
	switch kind {
	case "application/json", "application/problem+json":
		values = [][]byte{raw}
	case "text/event-stream":
		for line := range bytes.Lines(raw) {
			if data, ok := bytes.CutPrefix(line, []byte("data: ")); ok {
				values = append(values, data)
			}
		}
	default: // text
		return
	}
	schema, err := s.schemas.Compile(fmt.Sprintf("file:///openapi.json#/paths/%s/%s/responses/%s/content/%s/schema",
		escapePointer.Replace(op.Path), strings.ToLower(op.Method), under, escapePointer.Replace(kind)))
	if err != nil {
		t.Errorf("%s %s: %v", op.Method, op.Path, err)
		return
	}
	for _, raw := range values {
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
		if err == nil {
			err = schema.Validate(value)
		}
		if err != nil {
			t.Errorf("%s %s: %d %s does not fit: %v", op.Method, op.Path, status, raw, err)
		}
	}
	if len(values) == 0 {
		t.Errorf("%s %s: %d without a value: %q", op.Method, op.Path, status, raw)
	}
}

// TestContract: every operation of the served document succeeds once and refuses
// once, and both answers fit its schemas.
func TestContract(t *testing.T) {
	needRoot(t)
	t.Parallel()
	endpoints := clustertest.Start(t).Endpoints()
	cfg := config(t, "n1", endpoints...)
	level := zap.NewAtomicLevel()
	cfg.Level, cfg.Settings = &level, settingsOf(cfg)
	n1 := start(t, cfg)
	n1.pool(t, api.Pool{Name: "p", Ranges: "3900064000-3900064009"})
	foreign := begin(t, contractForeign)
	n1.until(t, contractForeign, api.StateQuarantined)
	c := contract{served: n1.served(t), nodes: []*node{n1}, tokens: map[string]string{}, seen: map[string]bool{}}
	c.rows(t, contractRows)
	foreign.end() // the other nodes are of this machine too
	c.nodes = append(c.nodes, start(t, config(t, "n2", endpoints...)), start(t, config(t, "n3", endpoints...)))
	c.rows(t, contractNodeRows)
	for id := range c.ops {
		if !c.seen[id] {
			t.Errorf("operation %s has no success and refusal in the table", id)
		}
	}
}

// contract is a run of the table.
type contract struct {
	served
	nodes  []*node
	tokens map[string]string // by the name that they are kept under
	seen   map[string]bool   // operations that have refused and succeeded
}

func (c *contract) rows(t *testing.T, all []contractRow) {
	t.Helper()
	for _, row := range all {
		if row.bad != (ask{}) {
			c.send(t, row, row.bad, row.refusal)
			c.seen[row.id] = true
		}
		c.send(t, row, row.ok, row.status)
	}
}

// send asks, and checks status and schema of the answer.
func (c *contract) send(t *testing.T, row contractRow, a ask, want int) {
	t.Helper()
	op, ok := c.ops[row.id]
	if !ok {
		t.Fatalf("there is no operation %s", row.id)
	}
	var header []string
	if name, ok := strings.CutPrefix(a.match, ":"); ok {
		a.match = c.tokens[name]
	}
	if a.match != "" {
		header = []string{"If-Match", a.match}
	}
	code, h, raw := c.nodes[row.on].raw(t, op.Method, a.path, a.body, header...)
	if code != want {
		t.Errorf("%s: %s %s %s: %d %.500s; want %d", row.id, op.Method, a.path, a.body, code, raw, want)
		return
	}
	if code == 204 {
		if _, ok := op.Responses["204"]; !ok || len(raw) > 0 {
			t.Errorf("%s: 204 with %q, which the document has: %v", row.id, raw, ok)
		}
		return
	}
	c.fits(t, op, code, h.Get("Content-Type"), raw)
	var granted struct{ Token string }
	if err := json.Unmarshal(raw, &granted); err == nil && row.keep != "" && granted.Token != "" {
		c.tokens[row.keep] = granted.Token
	}
}
