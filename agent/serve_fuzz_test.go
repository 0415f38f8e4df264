package agent_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/cluster/clustertest"
	"github.com/idpool/idpool/problem"
)

// FuzzServe sends any request to the whole interface of an agent that serves:
// nothing panics, nothing that a caller sends is the agent's failure, every refusal
// is problem JSON with a code, and every answer is JSON.
func FuzzServe(f *testing.F) {
	n := start(f, config(f, "node-7f3a", clustertest.Start(f).Endpoints()...))
	if _, err := n.Pools().Put(context.Background(), api.Pool{Name: "p", Ranges: "3900070000-3900070099"}, api.WriteOptions{}); err != nil {
		f.Fatal(err)
	}
	for name, ranges := range map[string]string{"a": "100-109", "b": "200-209"} {
		if _, err := n.Inventories().Put(context.Background(), api.Inventory{Name: name, Ranges: ranges}, api.WriteOptions{}); err != nil {
			f.Fatal(err)
		}
	}
	names := strings.NewReplacer("{key}", "k", "{node}", "n9", "{pool}", "p", "{uid}", "3900070000", "{inventory}", "a", "{vid}", "100", "{service}", "s")
	for _, e := range endpoints {
		method, path, _ := strings.Cut(e, " ")
		for _, body := range []string{"", "{}", bodies[method+" "+path[:strings.LastIndexByte(path, '/')+1]], `{"count":-1,"ranges":"5-1"}`} {
			f.Add(method, names.Replace(path), body, "")
		}
	}
	f.Add("GET", "/v1/uids?limit=-1&cursor=%FF&state=x", "", `"`)
	f.Add("DELETE", "/v1/uids/3900070000", "", "*")
	f.Add("POST", "/v1/uid-pools/p/uids", `{"uid":4294967296,"hold":{"kind":"pid","pid":-5},"wait":"-1h"}`, "")
	f.Add("PUT", "/v1/vlan-services/s", `{"attributes":[{"name":"n","inventory":"a"},{"name":"s","inventory":"b"}],"same":true,"offset":9223372036854775807}`, "")
	f.Add("PUT", "/v1/allocations/k", `{"items":[{"pool":"p","count":1},{"inventory":"a","from":"1-4294967295"}]}`, "")
	f.Add("PUT", "/v1/uid-pools/x%2F", `{"ranges":"0-4294967295","block":16777216,"cooldown":"9999999h"}`, "")
	handler := n.agent.RootHandler()
	f.Fuzz(func(t *testing.T, method, target, body, match string) {
		u, err := url.ParseRequestURI(target)
		if err != nil || !strings.HasPrefix(u.Path, "/") || strings.Contains(target, "/leave") || strings.Contains(target, "node-7f3a") {
			t.Skip("no request of one agent's interface")
		}
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		defer cancel()
		r := httptest.NewRequestWithContext(ctx, "GET", "/", strings.NewReader(body))
		r.Method, r.URL, r.RequestURI = method, u, target
		r.Header = http.Header{"Content-Type": {"application/json"}, "If-Match": {match}}
		rec := httptest.NewRecorder()
		handler.ServeHTTP(rec, r)
		code, raw := rec.Code, rec.Body.Bytes()
		switch {
		case code >= 300 && code < 400:
		case code >= 400:
			var p api.ProblemBody
			if err := json.Unmarshal(raw, &p); err != nil || rec.Header().Get("Content-Type") != "application/problem+json" || p.Code == "" || p.Detail == "" || p.Status != code {
				t.Errorf("%s %q %q: %d %v %q", method, target, body, code, rec.Header(), raw)
			} else if p.Code == problem.CodeInternal || code == http.StatusInternalServerError {
				t.Errorf("%s %q %q is the agent's failure: %s", method, target, body, raw)
			}
		case len(raw) > 0 && strings.Contains(rec.Header().Get("Content-Type"), "json") && !json.Valid(raw):
			t.Errorf("%s %q: %d %q", method, target, code, raw)
		}
	})
}

// bodies are what requests below a path may carry.
var bodies = map[string]string{
	"PUT /v1/uid-pools/":                     `{"ranges":"3900070000-3900070099","cooldown":"1s","reclaim":"after=1h","low_water":"5%"}`,
	"PATCH /v1/uid-pools/":                   `{"add":"3900070100","remove":"3900070000"}`,
	"POST /v1/uid-pools/{pool}/":             `{"count":2,"key":"k","holder":"h","hold":{"kind":"ttl","ttl":"1m"},"wait":"1ms"}`,
	"POST /v1/uids/{uid}/":                   `{"keep":true,"ttl":"5m","holder":"h","requester":"r"}`,
	"PUT /v1/allocations/":                   `{"items":[{"pool":"p"},{"inventory":"a"}],"hold":{"kind":"ttl","ttl":"1m"}}`,
	"POST /v1/":                              `{"ranges":"3900070050-3900070051","reason":"x"}`,
	"POST /v1/nodes/{node}/":                 `{"reason":"x","force":true,"dry_run":true}`,
	"PUT /v1/vlan-inventories/":              `{"ranges":"100-109","cooldown":"1s"}`,
	"PATCH /v1/vlan-inventories/":            `{"add":"110"}`,
	"POST /v1/vlan-inventories/{inventory}/": `{"key":"x","vid":105,"from":"100-109","file":"/nothing"}`,
	"PUT /v1/vlan-services/":                 `{"attributes":[{"name":"n","inventory":"a"},{"name":"s","inventory":"b"}],"confirm_within":"1h"}`,
	"PATCH /v1/vlan-services/":               `{"add":[{"name":"m","inventory":"a"}],"drop":["n"]}`,
	"POST /v1/vlan-services/{service}/":      `{"reason":"x","for":"1h","attribute":"n"}`,
}
