package idset_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/problem"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"":                        "",
		"0":                       "0",
		"4294967295":              "4294967295",
		"0-4294967295":            "0-4294967295",
		"1-100,200":               "1-100,200",
		"200,1-100":               "1-100,200",
		"1-5,3-9,10":              "1-10",
		"7-7":                     "7",
		"16777215,16777216":       "16777215-16777216",
		"0-9,10-19,4294967295,20": "0-20,4294967295",
	} {
		got, err := idset.Parse(text)
		if err != nil || got.String() != want {
			t.Errorf("%q: got %q, %v; want %q", text, got, err, want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for text, want := range map[string]string{
		" ":                               `element 1, " ", is not a decimal id`,
		",":                               `element 1, "", is not`,
		"1,":                              `element 2, "", is not`,
		"1,,2":                            `element 2, "", is not`,
		"1, 2":                            `element 2, " 2", is not`,
		"1-":                              `"1-", is not`,
		"-1":                              `"-1", is not`,
		"1-2-3":                           `"1-2-3", is not`,
		"+5":                              `"+5", is not`,
		"1_000":                           `"1_000", is not`,
		"0x10":                            `"0x10", is not`,
		"٣":                               `"٣", is not`,
		"007":                             `"007", has a leading zero`,
		"1,9-3":                           `element 2, "9-3", has its lower bound above the higher; 3-9 would do`,
		"4294967296":                      `"4294967296", is above the highest id`,
		"0-99999999999999999999":          `is above the highest id`,
		"5," + strings.Repeat("x", 1<<20): `element 2, "` + strings.Repeat("x", 40) + `"… (1048576 bytes), is not`,
	} {
		got, err := idset.Parse(text)
		if err == nil {
			t.Errorf("%.50q: accepted as %q", text, got)
			continue
		}
		if !errors.Is(err, problem.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.50q: got %q, want %q", text, err, want)
		}
		if len(err.Error()) > 250 {
			t.Errorf("%.50q: message of %d bytes", text, len(err.Error()))
		}
	}
}

func TestJSON(t *testing.T) {
	type doc struct {
		A idset.Set            `json:"a"`
		B idset.Set            `json:"b,omitzero"`
		C map[string]idset.Set `json:"c"`
	}
	in := doc{A: parse(t, "1-3,4294967295"), C: map[string]idset.Set{"x": idset.New(5)}}
	text, err := json.Marshal(in)
	if want := `{"a":"1-3,4294967295","c":{"x":"5"}}`; err != nil || string(text) != want {
		t.Fatalf("got %s, %v; want %s", text, err, want)
	}
	var out doc
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatal(err)
	}
	if !out.A.Equal(in.A) || !out.B.IsEmpty() || !out.C["x"].Equal(in.C["x"]) {
		t.Errorf("read back: %v", out)
	}
	if err := json.Unmarshal([]byte(`{"a":"3-"}`), &out); !errors.Is(err, problem.ErrInvalid) {
		t.Errorf("bad text: %v", err)
	}
	if !out.A.Equal(in.A) {
		t.Errorf("a failed read changed the set to %s", out.A)
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"", "0", "1-100,200", "0-4294967295", "4294967295,0", "9-3", "1,,2", " 1", "1-2-3", "007", "4294967296", "٣", "16777215-16777216,1",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := idset.Parse(text)
		if err != nil {
			if !errors.Is(err, problem.ErrInvalid) {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		canonical := s.String()
		back, err := idset.Parse(canonical)
		if err != nil || !back.Equal(s) || back.String() != canonical {
			t.Fatalf("%q: printed %q, read back %q, %v", text, canonical, back, err)
		}
		if len(canonical) > len(text) {
			t.Fatalf("%q: the printed form %q is longer", text, canonical)
		}
	})
}
