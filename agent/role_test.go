package agent_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/cluster/clustertest"
	"github.com/idpool/idpool/problem"
)

// Groups of these tests; nobody has them.
const operators, requesters, observers uint32 = 3900031011, 3900031012, 3900031013

// operation is one of the served document.
type operation struct {
	Method, Path string
	ID           string `json:"operationId"`
	Role         string `json:"x-idpool-role"`
	DryRole      string `json:"x-idpool-role-dry-run"`
	Description  string `json:"description"`
	Responses    map[string]struct {
		Content map[string]struct {
			Schema json.RawMessage `json:"schema"`
		} `json:"content"`
	} `json:"responses"`
}

// operations are those of the document that the agent serves, in order.
func (n *node) operations(t testing.TB) []operation {
	t.Helper()
	var doc struct {
		Paths map[string]map[string]operation `json:"paths"`
	}
	n.get(t, "/openapi.json", &doc)
	var all []operation
	for path, methods := range doc.Paths {
		for method, op := range methods {
			op.Method, op.Path = strings.ToUpper(method), path
			all = append(all, op)
		}
	}
	slices.SortFunc(all, func(a, b operation) int { return strings.Compare(a.Path+a.Method, b.Path+b.Method) })
	if len(all) < 50 {
		t.Fatalf("%d operations in the document", len(all))
	}
	return all
}

// nowhere is the operation's path, of things that are not there.
func (op operation) nowhere() string {
	return strings.NewReplacer("{key}", "none", "{node}", "n9", "{pool}", "none", "{uid}", "3900032009", "{inventory}", "none", "{vid}", "9", "{service}", "none").Replace(op.Path)
}

var roleRanks = map[string]int{"anybody": 0, "observer": 1, "requester": 2, "operator": 3}

// TestEveryOperationHasARole sends every operation of the served document as a
// caller of every role: one with less gets 403 and the code forbidden, whatever
// the request is about; one with enough does not.
func TestEveryOperationHasARole(t *testing.T) {
	needRoot(t)
	t.Parallel()
	c := config(t, "n1", clustertest.Start(t).Endpoints()...)
	c.OperatorGroups, c.Groups, c.ObserverGroups = []string{fmt.Sprint(operators)}, []string{fmt.Sprint(requesters)}, []string{fmt.Sprint(observers)}
	n := start(t, c)
	n.pool(t, api.Pool{Name: "p", Ranges: "3900032000-3900032009"})
	callers := map[string]*helper{}
	for name, gid := range map[string]uint32{"anybody": stranger, "observer": observers, "requester": requesters, "operator": operators} {
		callers[name] = spawn(t, "call", stranger, gid, nil, c.Socket)
	}
	refused := 0
	for _, op := range n.operations(t) {
		least, ok := roleRanks[op.Role]
		if !ok || !strings.Contains(op.Description, "Least role: "+op.Role) {
			t.Errorf("%s %s: role %q, described as %q", op.Method, op.Path, op.Role, op.Description)
			continue
		}
		if op.ID == "stream-events" && op.Role == "observer" {
			least = roleRanks["operator"] + 1 // those who may would listen for ever; TestEvents does
		}
		for name, rank := range roleRanks {
			if least > roleRanks["operator"] && rank >= roleRanks["observer"] {
				continue
			}
			var b, dry body
			code := callers[name].call(t, &b, op.Method, op.nowhere(), "-", `{}`)
			if forbidden := code == 403 && b.Code == problem.CodeForbidden; forbidden != (rank < least) {
				t.Errorf("%s %s as %s, which takes %s: %d %+v", op.Method, op.Path, name, op.Role, code, b)
			}
			if rank < least {
				refused++
			}
			if op.DryRole != "" {
				code := callers[name].call(t, &dry, op.Method, op.nowhere()+"?dry_run=true", "-", `{"ranges":"5"}`)
				if (code == 403) != (rank < roleRanks[op.DryRole]) {
					t.Errorf("%s %s?dry_run=true as %s, which takes %s: %d %+v", op.Method, op.Path, name, op.DryRole, code, dry)
				}
			}
		}
	}
	if refused < 70 {
		t.Errorf("%d refusals seen", refused)
	}
	// What looks like a dry run and is none takes the full role.
	for _, query := range []string{"?dry_run=false", "?dry_run=false&dry_run=true", "?dry_run=", "?dry_run=yes"} {
		if code := callers["requester"].call(t, nil, "PATCH", "/v1/uid-pools/p"+query, "-", `{"add":"3900032010"}`); code != 403 {
			t.Errorf("a requester's PATCH %s: %d", query, code)
		}
	}
	// Groups of several roles: the highest counts.
	if code := spawn(t, "call", second, observers, []uint32{requesters}, c.Socket).call(t, nil, "POST", "/v1/uid-pools/p/uids", "-", `{}`); code != 201 {
		t.Errorf("an observer who is a requester too: %d", code)
	}
}

// TestAnothersUID: whoever else has a uid, its number is all that can be known;
// tokens are neither shown nor guessed, and what they would do is not done.
func TestAnothersUID(t *testing.T) {
	t.Parallel()
	n := guarded(t)
	me := spawn(t, "call", member, group, nil, n.cfg.Socket)
	other := spawn(t, "call", second, group, nil, n.cfg.Socket)
	var mine api.Grant
	if code := me.call(t, &mine, "POST", "/v1/uid-pools/p/uids", "-", `{"key":"k","holder":"me"}`); code != 201 {
		t.Fatalf("request: %d", code)
	}
	path := fmt.Sprintf("/v1/uids/%d", mine.Items[0].UID)
	guesses := []string{"A", `"` + mine.Token[:len(mine.Token)-1] + `"`, `"` + strings.ToLower(mine.Token) + `"`, `"*"`, "*,*"}
	for _, guess := range guesses {
		for _, line := range [][]string{{"DELETE", path}, {"POST", path + "/confirm"}, {"POST", path + "/renew"}, {"POST", path + "/nodes"}} {
			var raw json.RawMessage
			code := other.call(t, &raw, line[0], line[1], guess, `{}`)
			if line[0] == "DELETE" && code == 204 { // over for whoever names it so, P5
				if len(raw) > 0 {
					t.Errorf("released by a guess: %s", raw)
				}
			} else if code != 403 && code != 404 && code != 409 && code != 412 {
				t.Errorf("%v with %s: %d %s", line, guess, code, raw)
			}
			if strings.Contains(string(raw), mine.Token) {
				t.Errorf("%v with %s tells the token: %s", line, guess, raw)
			}
		}
	}
	for _, look := range []string{path, "/v1/uids", "/v1/uids?key=k", "/v1/allocations", "/v1/allocations/k", "/v1/check", "/v1/status", "/v1/nodes"} {
		var raw json.RawMessage
		other.call(t, &raw, "GET", look)
		if strings.Contains(string(raw), mine.Token) {
			t.Errorf("%s tells another's token: %s", look, raw)
		}
	}
	if now := n.show(t, mine.Items[0].UID); now.State != api.StateLocked || now.Token != mine.Token || len(now.Nodes) != 1 {
		t.Errorf("after all that: %+v", now)
	}
}
