package leases

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/problem"
)

// format1 is what the first version wrote, a key and its value a line. It is never
// written anew: what this format gains is added, and another format has another file.
const format1 = "testdata/format-1.txt"

// records reads a file of keys and values.
func records(t testing.TB, path string) []cluster.KV {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var all []cluster.KV
	for line := range strings.Lines(string(data)) {
		key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if !ok {
			t.Fatalf("%s: %q is no key and value", path, line)
		}
		all = append(all, cluster.KV{Key: key, Value: []byte(value), CreateRev: int64(len(all) + 1), ModRev: int64(len(all) + 1)})
	}
	if len(all) == 0 {
		t.Fatalf("%s is empty", path)
	}
	return all
}

// reread decodes a record and encodes it again; nil for what is a bare name.
func reread(at cluster.Key, raw []byte) (any, error) {
	ref := Ref{at.Space, at.ID}
	switch at.Kind {
	case cluster.KindMeta:
		return cluster.DecodeMeta(raw)
	case cluster.KindMembers:
		var m Members
		return &m, cluster.Decode(raw, format, &m)
	case cluster.KindNode:
		return decodeNode(at.Name, raw)
	case cluster.KindAlive:
		return decodeAlive(at.Name, raw)
	case cluster.KindProof:
		return decodeProof(at.Name, raw)
	case cluster.KindUIDPool:
		return decodePool(at.Name, raw)
	case cluster.KindVLANInventory:
		return decodePool(VLANPool(at.Name), raw)
	case cluster.KindClaim:
		return decodeClaim(ref, raw)
	case cluster.KindGrant:
		return decodeRecord(at.Caller, at.Name, raw)
	case cluster.KindRecovery:
		return decodeRecovery(at.Name, raw)
	case cluster.KindRecovered:
		return decodeMark(raw)
	}
	return nil, nil
}

// TestFormat1 reads the bytes of the first version's records, each kind in each of its
// states: nothing of them is lost, and they are written today as they were then.
func TestFormat1(t *testing.T) {
	t.Parallel()
	keys, err := cluster.NewKeys(cluster.DefaultRoot)
	if err != nil {
		t.Fatal(err)
	}
	all := records(t, format1)
	kinds, seen := map[cluster.Kind]bool{cluster.KindService: true}, map[reflect.Type]map[string]bool{} // services: package vlan
	words := ""
	for _, kv := range all {
		at, err := keys.Parse(kv.Key)
		if err != nil {
			t.Fatal(err)
		}
		kinds[at.Kind] = true
		words += string(kv.Value)
		record, err := reread(at, kv.Value)
		if err != nil {
			t.Errorf("%s: %v", kv.Key, err)
		} else if record != nil {
			if now := cluster.Encode(record); !bytes.Equal(now, kv.Value) {
				t.Errorf("%s\nthen %s\nnow  %s", kv.Key, kv.Value, now)
			}
			filled(reflect.ValueOf(record), seen)
		}
	}
	for _, kind := range cluster.Kinds() {
		if !kinds[kind] {
			t.Errorf("no %s: add one to %s", kind, format1)
		}
	}
	for of, fields := range seen {
		for i := range of.NumField() {
			if f := of.Field(i); f.IsExported() && !fields[f.Name] && f.Name != "Import" { // of a root that no agent reads
				t.Errorf("no record has %s.%s: add one that has to %s", of.Name(), f.Name, format1)
			}
		}
	}
	for _, state := range States() {
		if state != Free && !strings.Contains(words, `"state":"`+string(state)+`"`) {
			t.Errorf("no claim is %s", state)
		}
	}
	for _, hold := range []string{HoldTTL, HoldPID, HoldConn, HoldNone} {
		if !strings.Contains(words, `"hold":"`+hold+`"`) {
			t.Errorf("no requester has a hold %s", hold)
		}
	}

	m := NewMirror(keys, "n1", zap.NewNop())
	for i := range all {
		if at, _ := keys.Parse(all[i].Key); at.Kind.Leased() {
			all[i].Lease = 7
		}
	}
	m.Reset(100, all)
	for key, why := range m.unreadable {
		t.Errorf("%s cannot be read: %v", key, why)
	}
	if len(m.claims) < 15 || len(m.quarantined) < 5 || len(m.torn) != 0 {
		t.Errorf("%d claims, %d in quarantine, %d torn records", len(m.claims), len(m.quarantined), len(m.torn))
	}
}

// filled notes by type which fields have a value somewhere.
func filled(v reflect.Value, seen map[reflect.Type]map[string]bool) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			filled(v.Elem(), seen)
		}
	case reflect.Slice:
		for i := range v.Len() {
			filled(v.Index(i), seen)
		}
	case reflect.Struct:
		if !strings.HasPrefix(v.Type().PkgPath(), "github.com/idpool/idpool/") || v.Type().Name() == "Set" {
			return
		}
		if seen[v.Type()] == nil {
			seen[v.Type()] = map[string]bool{}
		}
		for i := range v.NumField() {
			if !v.Field(i).IsZero() {
				seen[v.Type()][v.Type().Field(i).Name] = true
			}
			filled(v.Field(i), seen)
		}
	}
}

// TestFormat1OnDisk reads an agent's memory as the first version wrote it.
func TestFormat1OnDisk(t *testing.T) {
	t.Parallel()
	then, err := os.ReadFile("testdata/agent-1.json")
	if err != nil {
		t.Fatal(err)
	}
	then = bytes.TrimSpace(then)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "agent.json"), then, 0o600); err != nil {
		t.Fatal(err)
	}
	h, err := OpenHome(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if now := cluster.Encode(h.mem); !bytes.Equal(now, then) {
		t.Errorf("then %s\nnow  %s", then, now)
	}
	for i, v := 0, reflect.ValueOf(h.mem); i < v.NumField(); i++ {
		if v.Field(i).IsZero() {
			t.Errorf("testdata/agent-1.json has no %s: add it", v.Type().Field(i).Name)
		}
	}
	later := bytes.Replace(then, []byte(`"v":1`), []byte(`"v":2`), 1)
	if err := os.WriteFile(filepath.Join(dir, "agent.json"), later, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = OpenHome(dir, nil)
	mustErr(t, err, problem.ErrInvalid, "format 2", "upgrade")
	if left, err := os.ReadFile(filepath.Join(dir, "agent.json")); err != nil || !bytes.Equal(left, later) {
		t.Errorf("a later version's memory became %s, %v", left, err)
	}
}

// TestLaterFormat: each record of a later version is refused, says so, and still keeps
// what it stands for from being given away.
func TestLaterFormat(t *testing.T) {
	t.Parallel()
	keys, err := cluster.NewKeys(cluster.DefaultRoot)
	if err != nil {
		t.Fatal(err)
	}
	all := records(t, format1)
	later := slices.Clone(all)
	numbered := 0
	for i, kv := range later {
		if bytes.HasPrefix(kv.Value, []byte(`{"v":1`)) {
			later[i].Value = bytes.Replace(kv.Value, []byte(`{"v":1`), []byte(`{"v":2,"news":[1]`), 1)
			numbered++
			at, err := keys.Parse(kv.Key)
			if err != nil {
				t.Fatal(err)
			}
			if record, err := reread(at, later[i].Value); record != nil {
				mustErr(t, err, problem.ErrInvalid, "record of format 2, this version reads 1: upgrade")
			}
		}
	}
	m, now := NewMirror(keys, "n1", zap.NewNop()), NewMirror(keys, "n1", zap.NewNop())
	m.Reset(100, later)
	now.Reset(100, all)
	for i, kv := range later {
		if bytes.HasPrefix(kv.Value, []byte(`{"v":2`)) && m.unreadable[kv.Key] == nil {
			t.Errorf("%s of format 2 is not listed as unreadable", later[i].Key)
		}
	}
	for space, taken := range now.taken {
		if got := m.takenIn(space); !got.Equal(*taken) {
			t.Errorf("%s: %s are taken, and by claims of format 2 %s", space, taken, got)
		}
	}
	if len(m.claims)+len(m.pools)+len(m.records)+len(m.nodes) != 0 || numbered < 40 {
		t.Errorf("of %d records of format 2, %d claims, %d pools, %d grants and %d nodes are believed", numbered, len(m.claims), len(m.pools), len(m.records), len(m.nodes))
	}
}
