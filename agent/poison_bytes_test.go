package agent_test

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/idpool/idpool/agent"
	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/cluster"
)

// poisons are what is put at a key of a kind, by name.
func (w *poisoned) poisons(kind cluster.Kind) map[string][]byte {
	key := w.places[kind]
	noise := make([]byte, 64)
	for i := range noise {
		noise[i] = byte(rand.IntN(256))
	}
	all := map[string][]byte{
		"empty": {}, "noise": append([]byte{0}, noise...), "1 MiB": bytes.Repeat([]byte("x"), 1<<20), "null": []byte("null"), "an array": []byte(`[1]`),
		"a number": []byte("7"), "an empty object": []byte("{}"), "only a format": []byte(`{"v":1}`), "deep": []byte(`{"v":1,"a":` + strings.Repeat("[", 50_000)),
		"deep and whole": []byte(`{"v":1,"token":` + strings.Repeat("[", 9000) + strings.Repeat("]", 9000) + "}"), "a newer format": []byte(`{"v":2}`),
		"a huge format": []byte(`{"v":99999999999999999999}`), "a negative format": []byte(`{"v":-1}`), "bad UTF-8": []byte("{\"v\":1,\"state\":\"\xff\xfe\"}"),
		"strange words": []byte(`{"v":1,"state":"molten","scope":"all","token":"t","count":3,"nonce":"n","epoch":"e","name":"\n"}`),
	}
	for name, with := range map[string]any{"negative": -1, "huge": 1e30, "texts for numbers": "5"} {
		if raw := replaceNumbers(w.good[key].Value, with); raw != nil {
			all[name] = raw
		}
	}
	if kind == cluster.KindMembers || kind == cluster.KindPoolIndex {
		delete(all, "only a format") // nobody reads more of them
		delete(all, "strange words")
		delete(all, "bad UTF-8")
		delete(all, "deep and whole")
		return all
	}
	for other, at := range w.places {
		if other != kind && len(w.good[at].Value) > 0 {
			all["the record "+other.String()] = w.good[at].Value
		}
	}
	for other, kv := range w.good {
		if parsed, err := w.keys.Parse(other); err == nil && parsed.Kind == kind && other != key {
			all["another's of its kind"] = kv.Value
		}
	}
	return all
}

// replaceNumbers puts another value in place of every number but the format; nil if
// there is none.
func replaceNumbers(raw []byte, with any) []byte {
	var v map[string]any
	if json.Unmarshal(raw, &v) != nil {
		return nil
	}
	changed := false
	var walk func(x any) any
	walk = func(x any) any {
		switch x := x.(type) {
		case float64:
			changed = true
			return with
		case map[string]any:
			for k := range x {
				x[k] = walk(x[k])
			}
		case []any:
			for i := range x {
				x[i] = walk(x[i])
			}
		}
		return x
	}
	for k := range v {
		if k != "v" {
			v[k] = walk(v[k])
		}
	}
	if !changed {
		return nil
	}
	out, _ := json.Marshal(v)
	return out
}

// strangeKeys puts keys that nobody builds at every place of the root.
func (w *poisoned) strangeKeys() int {
	w.t.Helper()
	root := w.keys.Root()
	var all []string
	for _, below := range []string{
		"", "x", "x/y/z", "meta/", "meta/x", "members/n1", "nodes/", "nodes/a/b", "nodes/a\nb", "nodes/..", "nodes/%2E%2E", "nodes/\x00\xff\x1b[31m", "alive/..", "alive/-a",
		"proofs/a b", "proofs/" + strings.Repeat("n", 64), "pools/", "pools/x", "pools/uid/", "pools/uid/../meta", "pools/vlan/a/b", "pools/index/x",
		"claims/", "claims/uid", "claims/uid/", "claims/uid/0", "claims/uid/5", "claims/uid/00000000005", "claims/uid/4294967296", "claims/uid/-000000001",
		"claims/uid/000000000x", "claims/uid@/0000000001", "claims/uid@a/b/0000000001", "claims/vlan/0000000100", "claims/gid/0000000001", "claims/vlan/a/0000000000",
		"claims/vlan/a/4294967295", "locks/", "locks/uid/1", "locks/reaper/x", "locks/service/", "locks/service/%zz", "grants/", "grants/a", "grants/a/b/c", "grants/%2f/%2f",
		"services/", "services/a/b", "services/%", strings.Repeat("k", 4000), "nodes/" + strings.Repeat("n/", 4000), "'\"$(x)`\\",
	} {
		all = append(all, root+below)
	}
	for i, key := range all {
		w.put(key, []byte([]string{"", "x", `{"v":1}`}[i%3]))
	}
	// These are keys of ours: uid 0 and the last one stay taken, as anything else.
	for _, id := range []uint32{0, 4294967295} {
		key := w.keys.Claim(cluster.SpaceUID, id)
		all = append(all, key)
		w.put(key, []byte(`{"v":1,"state":"used","token":"t","count":4294967295}`))
	}
	found, err := w.n1.Check(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, key := range all {
		f := slices.IndexFunc(found, func(f api.Finding) bool { return f.Subject == agent.ShowKey(key) })
		if f < 0 {
			w.t.Errorf("check does not name %.80q", key)
		} else if strings.ContainsAny(found[f].Subject+found[f].Detail, "\n\x1b\x00") || len(found[f].Subject) > 2000 {
			w.t.Errorf("%q is shown as %q", key, found[f])
		}
	}
	w.serves("strange keys", w.n1)
	for _, key := range all {
		w.mend(key)
	}
	w.heals("strange keys")
	return len(all)
}
