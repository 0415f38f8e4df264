package uidpool

import (
	"strings"
	"testing"

	"github.com/idpool/idpool/idset"
)

// FuzzTexts reads anything as each of the small files and words that come from the
// system or a person: nothing panics, and what is read has the form that it must.
func FuzzTexts(f *testing.F) {
	for _, s := range []string{
		"", "0b5b0ea6-59c4-4b36-9d0c-3a8cbb5f1f6f\n", "6f0b5b0ea659c44b369d0c3a8cbb5f1f\n", "UID_MIN 1000\nUID_MAX\t60000\nSUB_UID_COUNT 99999999999", "root:x:0:0::/:/bin/sh\nx:x:4294967296:0\n::::",
		"u:100000:65536\nv:4294967295:4294967295\n:0:0", "70000", "-1", "4294967295", "123456", "\xff\x00",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if id, err := parseBootID(text); err == nil && (len(id) != 36 || strings.TrimSpace(text) != id) {
			t.Errorf("boot id %q of %q", id, text)
		}
		if id, err := parseMachineID(text); err == nil && (len(id) != 32 || strings.TrimSpace(text) != id) {
			t.Errorf("machine id %q of %q", id, text)
		}
		if u, err := ParseUID(text); err == nil && u.String() != strings.TrimLeft(strings.TrimSpace(text), "0") && u != 0 {
			t.Errorf("%q is read as %s", text, u)
		}
		_, _ = parseLastPID([]byte(text))
		for _, claims := range [][]claim{parseLoginDefs(text), parsePasswd(text), parseSubuid(text)} {
			for _, c := range claims {
				for _, r := range c.ranges() {
					if r.Lower > r.Higher {
						t.Errorf("%q claims %v", text, r)
					}
				}
				_ = c.namesIn(idset.Of(c.ranges()...))
			}
		}
	})
}
