package vlan_test

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/vlan"
)

func parsePool(t *testing.T, text string) *vlan.PoolFile {
	t.Helper()
	p, err := vlan.ParsePoolFile([]byte(text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	if got := string(p.Encode()); got != text {
		t.Fatalf("comes back as %q, want %q", got, text)
	}
	return p
}

func TestParsePoolFile(t *testing.T) {
	for _, row := range []struct {
		name, text     string
		version        uint64
		from, to       uint32
		free           uint64
		used           idset.Set
		allocations    map[string]uint32
		allocatedByKey map[uint32]string
	}{
		{name: "everything missing", text: `{}`},
		{name: "no range is empty", text: `{"version":7,"used":[5]}`, version: 7, used: idset.New(5)},
		{name: "to is exclusive", text: `{"range":{"from":100,"to":102}}`, from: 100, to: 102, free: 2},
		{name: "from alone missing", text: `{"range":{"to":2}}`, to: 2, free: 2},
		{name: "used outside of the range stays", text: `{"range":{"from":100,"to":102},"used":[101,4095,0]}`, from: 100, to: 102, free: 1, used: idset.New(0, 101, 4095)},
		{name: "keyed", text: ` {"allocations":{"a/north":100,"a/south":0},"used":[101],"range":{"from":100,"to":103}} ` + "\n",
			from: 100, to: 103, free: 1, used: idset.New(0, 100, 101), allocations: map[string]uint32{"a/north": 100, "a/south": 0},
			allocatedByKey: map[uint32]string{100: "a/north", 0: "a/south", 101: "", 102: ""}},
		{name: "keyed and empty", text: `{"allocations":{}}`, allocations: map[string]uint32{}},
		{name: "unknown keys", text: `{"x":[1.5e3,null,{"used":"x"}],"Used":null,"range":{"step":"a","to":1}}`, to: 1, free: 1},
		{name: "all there is", text: `{"range":{"from":0,"to":4294967295},"used":[4294967295]}`, to: 1<<32 - 1, free: 1<<32 - 1, used: idset.New(1<<32 - 1)},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := parsePool(t, row.text)
			from, to := p.Range()
			if p.Version() != row.version || from != row.from || to != row.to || p.Free() != row.free || p.Size() != uint64(row.to-row.from) {
				t.Errorf("version %d, range [%d:%d[, %d of %d free", p.Version(), from, to, p.Free(), p.Size())
			}
			if !p.Used().Equal(row.used) || !maps.Equal(p.Allocations(), row.allocations) || p.Keyed() != (row.allocations != nil) {
				t.Errorf("used %s, allocations %v, keyed %v", p.Used(), p.Allocations(), p.Keyed())
			}
			for id, key := range row.allocatedByKey {
				if e := p.Entry(id); e.Key != key || e.Allocated != row.used.Contains(id) || !e.Keyed || e.VID != id {
					t.Errorf("%d: %+v", id, e)
				}
			}
		})
	}
}

func TestParsePoolFileRefuses(t *testing.T) {
	for text, says := range map[string]string{
		``:                                       "it is empty",
		" \n\t":                                  "it is empty",
		`{"used":[100,`:                          "it is torn: it ends after 13 bytes",
		`{"range":{"from":1,"to":9},"used":[`:    "it is torn",
		`{"used":"10`:                            "it is torn",
		"{\n \"used\": [1,]}":                    "line 2, column 13",
		`{} {}`:                                  "line 1, column 4: more follows",
		"{}\n\x00":                               "line 2, column 1: more follows",
		`[]`:                                     "it is a list, want an object",
		`null`:                                   "it is null, want an object",
		`5`:                                      "it is a number, want an object",
		"{\"a\":\"\xff\"}":                       "not UTF-8",
		`{"used":null}`:                          "used: is null, want a list",
		`{"used":{}}`:                            "used: is an object, want a list",
		`{"used":[1,2,3,"7"]}`:                   `used[3]: "7" is a string, want a number`,
		`{"used":[null]}`:                        "used[0]: is null, want a number",
		`{"used":[true]}`:                        "used[0]: true is a boolean, want a number",
		`{"used":[[1]]}`:                         "used[0]: is a list, want a number",
		`{"used":[-1]}`:                          "used[0]: -1 is negative",
		`{"used":[-0]}`:                          "used[0]: -0 is negative",
		`{"used":[1.0]}`:                         "used[0]: 1.0 is not a whole number",
		`{"used":[1e2]}`:                         "used[0]: 1e2 is not a whole number",
		`{"used":[0,4294967296]}`:                "used[1]: 4294967296 is above 4294967295",
		`{"used":[1,2,3,2]}`:                     "used[3]: 2 is there already, as used[1]",
		`{"used":[1],"used":[2]}`:                `key "used" is there twice`,
		`{"used":[1],"\u0075sed":[2]}`:           `key "used" is there twice`,
		`{"x":1,"x":1}`:                          `key "x" is there twice`,
		`{"range":{"to":1,"to":2}}`:              `range: key "to" is there twice`,
		`{"allocations":{"a":1,"a":2}}`:          `allocations: key "a" is there twice`,
		`{"range":null}`:                         "range: is null, want an object",
		`{"range":[1,2]}`:                        "range: is a list, want an object",
		`{"range":{"from":"1"}}`:                 `range.from: "1" is a string, want a number`,
		`{"range":{"from":3,"to":2}}`:            "range: from 3 is above to 2",
		`{"range":{"from":3}}`:                   "range: from 3 is above to 0",
		`{"range":{"to":4294967296}}`:            "range.to: 4294967296 is above",
		`{"version":null}`:                       "version: is null, want a number",
		`{"version":-1}`:                         "version: -1 is negative",
		`{"version":9007199254740992}`:           "version: 9007199254740992 is above",
		`{"allocations":null}`:                   "allocations: is null, want an object",
		`{"allocations":{"a":"1"}}`:              `allocations["a"]: "1" is a string, want a number`,
		`{"allocations":{"a":1,"b":1}}`:          `allocations["b"]: 1 belongs to "a" already`,
		`{"allocations":{"a":2},"used":[1,2]}`:   `allocations["a"]: 2 stands in used as well, at used[1]`,
		`{"allocations":{"":2}}`:                 "an allocation key is empty",
		strings.Repeat("[", 1<<20):               "exceeded max depth",
		`{"x":` + strings.Repeat(`{"a":`, 1<<20): "exceeded max depth",
		`{"x":"` + strings.Repeat("x", 16<<20) + `"}`:  "want at most 16777216",
		`{"used":["` + strings.Repeat("€", 99) + `"]}`: "… (299 bytes) is a string",
	} {
		p, err := vlan.ParsePoolFile([]byte(text))
		if p != nil || !errors.Is(err, problem.ErrInvalid) || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%.60s: %v; want one line with %q", text, err, says)
		}
	}
}

func TestNewPoolFile(t *testing.T) {
	p, err := vlan.NewPoolFile(100, 200, []uint32{101, 7}, map[string]uint32{"b": 103, `a"\<é`: 150, "c": 0})
	if err != nil {
		t.Fatal(err)
	}
	want := `{
  "version": 0,
  "range": {"from": 100, "to": 200},
  "used": [101, 7],
  "allocations": {
    "c": 0,
    "b": 103,
    "a\"\\<é": 150
  }
}
`
	if got := string(p.Encode()); got != want {
		t.Errorf("got %s", got)
	}
	again := parsePool(t, want)
	if !again.Used().Equal(idset.New(0, 7, 101, 103, 150)) || again.Free() != 97 || again.Allocations()[`a"\<é`] != 150 {
		t.Errorf("used %s, %v", again.Used(), again.Allocations())
	}

	for _, row := range []struct {
		from, to    uint32
		used        []uint32
		allocations map[string]uint32
	}{
		{from: 2, to: 1},
		{used: []uint32{1, 1}},
		{allocations: map[string]uint32{"": 1}},
		{allocations: map[string]uint32{"\xff": 1}},
		{allocations: map[string]uint32{"a": 1, "b": 1}},
		{used: []uint32{1}, allocations: map[string]uint32{"a": 1}},
	} {
		if p, err := vlan.NewPoolFile(row.from, row.to, row.used, row.allocations); p != nil || !errors.Is(err, problem.ErrInvalid) {
			t.Errorf("%+v: %v", row, err)
		}
	}
	if p, err := vlan.NewPoolFile(0, 0, nil, nil); err != nil || p.Keyed() || p.Size() != 0 {
		t.Errorf("empty: %v", err)
	}
}

// TestPoolFileIsImmutable: what it gives out and what it was made of is not it.
func TestPoolFileIsImmutable(t *testing.T) {
	data := []byte(`{"range":{"to":9},"used":[1],"allocations":{"a":2}}`)
	p, err := vlan.ParsePoolFile(data)
	if err != nil {
		t.Fatal(err)
	}
	want := slices.Clone(data)
	clear(data)
	clear(p.Encode())
	delete(p.Allocations(), "a")
	used := p.Used()
	used.Insert(5)
	if !slices.Equal(p.Encode(), want) || p.Allocations()["a"] != 2 || p.Used().Count() != 2 {
		t.Errorf("%s, %v, %s", p.Encode(), p.Allocations(), p.Used())
	}
}
