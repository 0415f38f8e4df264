package vlan

import (
	"encoding/json"
	"testing"

	"github.com/idpool/idpool/idset"
)

// TestPoolFileEdit: an id taken or freed changes the file where it must, in the
// way the file is set, and nowhere else.
func TestPoolFileEdit(t *testing.T) {
	type op struct {
		id  uint32
		key string
		out bool
	}
	take := func(id uint32, key string) op { return op{id: id, key: key} }
	free := func(id uint32) op { return op{id: id, out: true} }
	for _, row := range []struct {
		name, before string
		op           op
		after        string
	}{
		{"compact, first", `{"range":{"from":1,"to":9}}`, take(1, ""), `{"range":{"from":1,"to":9},"used":[1],"version":1}`},
		{"compact, next", `{"version":9,"used":[8,3],"range":{"to":9}}`, take(1, ""), `{"version":10,"used":[8,3,1],"range":{"to":9}}`},
		{"blanks, one", `{"version": 0, "range": {"to": 9}, "used": [8]}` + "\n", take(1, ""), `{"version": 1, "range": {"to": 9}, "used": [8, 1]}` + "\n"},
		{"blanks, empty", `{"used": [ ], "range": {"to": 9}}`, take(1, ""), `{"used": [1], "range": {"to": 9}, "version": 1}`},
		{"lines, none", "{\n  \"range\": {\"to\": 9}\n}\n", take(1, ""), "{\n  \"range\": {\"to\": 9},\n  \"used\": [\n    1\n  ],\n  \"version\": 1\n}\n"},
		{"lines, empty", "{\n\t\"used\": [],\n\t\"version\": 0\n}", take(1, ""), "{\n\t\"used\": [\n\t\t1\n\t],\n\t\"version\": 1\n}"},
		{"lines, one", "{\n \"used\": [\n  4\n ]\n}", take(1, ""), "{\n \"used\": [\n  4,\n  1\n ],\n \"version\": 1\n}"},
		{"lines, list in one", "{\n \"used\": [4]\n}", take(1, ""), "{\n \"used\": [4, 1],\n \"version\": 1\n}"},
		{"CRLF", "{\r\n  \"used\": []\r\n}\r\n", take(1, ""), "{\r\n  \"used\": [\r\n    1\r\n  ],\r\n  \"version\": 1\r\n}\r\n"},
		{"keyed, empty", "{\n  \"allocations\": {}, \"version\": 3}", take(1, `a"b<é`), "{\n  \"allocations\": {\n    \"a\\\"b<é\": 1\n  }, \"version\": 4}"},
		{"keyed, next", `{"allocations":{"a":7, "b":3},"used":[4]}`, take(1, "c"), `{"allocations":{"a":7, "b":3, "c":1},"used":[4],"version":1}`},
		{"irregular", "{ \"x\" :[ 1 ,2] ,\"used\":[ 5 ,6\t,  7 ] , \"version\" : 1 }", take(1, ""), "{ \"x\" :[ 1 ,2] ,\"used\":[ 5 ,6\t,  7,  1 ] , \"version\" : 2 }"},
		{"unknown kept", `{"z":1.50e+3,"range":{"y":"\u0041","to":9},"a":{"a":1,"a":2},"used":[]}`, take(0, ""),
			`{"z":1.50e+3,"range":{"y":"\u0041","to":9},"a":{"a":1,"a":2},"used":[0],"version":1}`},
		{"free first", `{"used":[ 5, 6, 7 ],"version":1}`, free(5), `{"used":[ 6, 7 ],"version":2}`},
		{"free middle", `{"used":[ 5, 6, 7 ],"version":1}`, free(6), `{"used":[ 5, 7 ],"version":2}`},
		{"free last", `{"used":[ 5, 6, 7 ],"version":1}`, free(7), `{"used":[ 5, 6 ],"version":2}`},
		{"free only", "{\"used\":[\n 0\n],\"version\":1}", free(0), `{"used":[],"version":2}`},
		{"free keyed", `{"allocations":{"a":7,"\u0062":3},"used":[4],"version":1}`, free(3), `{"allocations":{"a":7},"used":[4],"version":2}`},
		{"free of a keyed one without key", `{"allocations":{"a":7},"used":[4],"version":1}`, free(4), `{"allocations":{"a":7},"used":[],"version":2}`},
		{"free last key", `{"allocations":{"a":7},"version":1}`, free(7), `{"allocations":{},"version":2}`},
	} {
		t.Run(row.name, func(t *testing.T) {
			p, err := readPoolFile([]byte(row.before))
			if err != nil {
				t.Fatal(err)
			}
			change := func() (*PoolFile, error) { return p.withID(row.op.id, row.op.key) }
			if row.op.out {
				change = func() (*PoolFile, error) { return p.withoutID(row.op.id) }
			}
			next, err := change()
			if err != nil {
				t.Fatal(err)
			}
			if got := string(next.Encode()); got != row.after {
				t.Errorf("got  %q\nwant %q", got, row.after)
			}
			if string(p.Encode()) != row.before {
				t.Errorf("the first one became %q", p.Encode())
			}
		})
	}
}

func TestPoolFileEditRefuses(t *testing.T) {
	full, err := readPoolFile([]byte(`{"version":9007199254740991,"range":{"to":9},"used":[1]}`))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := full.withID(0, ""); err == nil {
		t.Error("the version went on past the highest")
	}
	if _, err := full.withoutID(2); err == nil {
		t.Error("freed what is not there")
	}
}

func FuzzPoolFile(f *testing.F) {
	for _, text := range []string{
		`{}`, `{"version":0,"range":{"from":0,"to":0},"used":[]}`, `{"range":{"from":100,"to":102},"used":[100],"x":{"y":[]}}`,
		"{\n  \"range\": {\n    \"to\": 3\n  },\n  \"allocations\": {\n    \"a\": 1\n  }\n}\n", `{"allocations":{"\ud800":1},"range":{"to":9}}`,
		` { "used" : [ 0 , 4294967295 ] , "range":{"to":4294967295} } `, `{"used":[1`, `[[[[`, `{"a":"\"]}"}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := readPoolFile(data)
		if err != nil {
			return
		}
		if string(p.Encode()) != string(data) || !json.Valid(data) {
			t.Fatalf("%q comes back as %q", data, p.Encode())
		}
		key := ""
		for p.Keyed() && (key == "" || p.allocations[key] != 0) {
			key += "k"
		}
		id, ok := Choice{}.lowest(p.pool(), p.taken)
		if _, there := p.allocations[key]; !ok || there || p.version == maxPoolVersion {
			return
		}
		next, err := p.withID(id, key)
		if err != nil {
			t.Fatalf("%q: take %d: %v", data, id, err)
		}
		if !next.taken.Equal(p.taken.Add(idset.New(id))) || next.Entry(id).Key != key {
			t.Fatalf("%q: take %d: %q", data, id, next.Encode())
		}
		back, err := next.withoutID(id)
		if err != nil || !back.taken.Equal(p.taken) || len(back.allocations) != len(p.allocations) {
			t.Fatalf("%q: free %d: %q, %v", next.Encode(), id, back.Encode(), err)
		}
		// All else is as it was, byte for byte, in the order it had.
		for i, m := range p.top {
			is := back.top[i]
			same := string(back.data[is.value.from:is.value.to]) == string(data[m.value.from:m.value.to])
			changed := m.name == poolVersion || m.name == poolUsed || m.name == poolAllocations
			if is.name != m.name || !same && !changed {
				t.Fatalf("%q became %q", data, back.Encode())
			}
		}
	})
}
