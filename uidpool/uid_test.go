package uidpool_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/uidpool"
)

func TestParseUID(t *testing.T) {
	for text, want := range map[string]uidpool.UID{
		"0": 0, "5": 5, " 70000\n": 70000, "007": 7, "65534": 65534, "4294967295": uidpool.None,
	} {
		got, err := uidpool.ParseUID(text)
		if err != nil || got != want {
			t.Errorf("%q: got %d, %v; want %d", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"":           "is blank",
		"-5":         "has a sign",
		"+5":         "has a sign",
		"1_000":      "has an underscore",
		"5-6":        "has a sign",
		"alice":      `"alice" is not a decimal number`,
		"4294967296": "above the highest 32-bit number",
	} {
		got, err := uidpool.ParseUID(text)
		if !errors.Is(err, problem.ErrInvalid) || got != uidpool.None || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %d, %v; want %q", text, got, err, want)
		}
	}
}

func TestUIDValid(t *testing.T) {
	for u, want := range map[uidpool.UID]string{
		0:            "uid 0 can never be granted: it is root",
		65534:        "uid 65534 can never be granted: it is nobody",
		65535:        "uid 65535 can never be granted: it is the 16-bit -1",
		uidpool.None: `uid 4294967295 can never be granted: it is the kernel's "no change"`,
	} {
		if err := u.Valid(); !errors.Is(err, problem.ErrInvalid) || err.Error() != want {
			t.Errorf("%s: %v, want %s", u, err, want)
		}
	}
	for _, u := range []uidpool.UID{1, 1000, 65533, 65536, 4294967294} {
		if err := u.Valid(); err != nil {
			t.Errorf("%s: %v", u, err)
		}
	}
}
