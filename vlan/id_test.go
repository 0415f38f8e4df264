package vlan

import (
	"errors"
	"testing"

	"github.com/idpool/idpool/problem"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]ID{"0": 0, "1": 1, "4094": 4094, "4095": 4095, "007": 7} {
		if got, err := Parse(text); err != nil || got != want || (text != "007" && got.String() != text) {
			t.Errorf("Parse(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", " ", "-1", "+1", "4096", "65536", "1.0", "１", "0x10", "1 "} {
		if got, err := Parse(text); !errors.Is(err, problem.ErrInvalid) {
			t.Errorf("Parse(%q) = %v, %v; want an error", text, got, err)
		}
	}
}

func TestValid(t *testing.T) {
	for id, ok := range map[ID]bool{0: false, 1: true, 100: true, 4094: true, 4095: false, 4096: false} {
		if err := id.Valid(); (err == nil) != ok || (!ok && !errors.Is(err, problem.ErrInvalid)) {
			t.Errorf("ID(%d).Valid() = %v, want ok %v", id, err, ok)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("100")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		id, err := Parse(text)
		if err != nil {
			return
		}
		if again, err := Parse(id.String()); err != nil || again != id {
			t.Errorf("Parse(%q) = %d, which does not read back: %v", text, id, err)
		}
	})
}
