package leases

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/idpool/idpool/problem"
)

func openJournal(t testing.TB, dir string) *Journal {
	t.Helper()
	j, err := OpenJournal(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j
}

func entryAt(id int, rev int64, value string) jentry {
	e := jentry{Key: fmt.Sprintf("claims/uid/%010d", id), Rev: rev, Epoch: "e", Number: 1}
	if value != "" {
		e.Value = []byte(value)
	}
	return e
}

// TestJournalRemembers: the newest write of each key, deletions too, over a restart.
func TestJournalRemembers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := openJournal(t, dir)
	for _, e := range []jentry{entryAt(1, 5, "a"), entryAt(1, 7, "b"), entryAt(1, 6, "late"), entryAt(2, 8, "c"), entryAt(2, 9, "")} {
		if err := j.note([]jentry{e}); err != nil {
			t.Fatal(err)
		}
	}
	all := openJournal(t, dir).all()
	one, two := all["claims/uid/0000000001"], all["claims/uid/0000000002"]
	if len(all) != 2 || string(one.Value) != "b" || one.Rev != 7 || two.Value != nil || two.Rev != 9 || two.Gone == 0 {
		t.Errorf("%+v", all)
	}
	if j.furthest("e") != 9 || j.furthest("other") != 0 {
		t.Errorf("furthest %d", j.furthest("e"))
	}
}

// TestJournalTornAndDamaged: what a crash left at the end goes; a damage before other
// lines is refused.
func TestJournalTornAndDamaged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := openJournal(t, dir)
	if err := j.note([]jentry{entryAt(1, 5, "a"), entryAt(2, 6, "b"), entryAt(3, 7, "c")}); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(filepath.Join(dir, journalName))
	if err != nil {
		t.Fatal(err)
	}
	last := bytes.LastIndexByte(whole[:len(whole)-1], '\n') + 1
	for cut := range whole {
		all, err := decodeJournal(whole[:cut])
		if want := bytes.Count(whole[:cut], []byte("\n")) - 1; err != nil || len(all) != max(0, want) {
			t.Fatalf("cut at %d: %d entries, %v", cut, len(all), err)
		}
	}
	if all, err := decodeJournal(append(bytes.Clone(whole[:last]), make([]byte, 300)...)); err != nil || len(all) != 2 {
		t.Errorf("zeros at the end: %d, %v", len(all), err)
	}
	for at := range last - 1 { // without the last line's own beginning
		bad := bytes.Clone(whole)
		bad[at] ^= 1
		if _, err := decodeJournal(bad); err == nil {
			t.Errorf("a changed byte %d goes unnoticed", at)
		}
	}
	bad := bytes.Clone(whole)
	bad[len(journalHead)+5] ^= 1
	if err := os.WriteFile(filepath.Join(dir, journalName), bad, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = OpenJournal(dir, nil)
	mustErr(t, err, problem.ErrInvalid, "line 2 is damaged")
}

// TestJournalStaysSmall: the file is made anew before it is much larger than what it
// says, and old deletions are forgotten.
func TestJournalStaysSmall(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := openJournal(t, dir)
	for i := range 3 * slackLines {
		if err := j.note([]jentry{entryAt(i%5, int64(i+1), "v")}); err != nil {
			t.Fatal(err)
		}
	}
	j.mu.Lock()
	lines := j.lines
	old := j.entries["claims/uid/0000000004"]
	old.Value, old.Gone = nil, time.Now().Add(-tombstoneAge-time.Hour).Unix()
	j.entries[old.Key] = old
	j.mu.Unlock()
	if lines > slackLines+10 {
		t.Errorf("%d lines for 5 keys", lines)
	}
	if n := len(openJournal(t, dir).all()); n != 5 {
		t.Errorf("%d entries", n)
	}
	if err := j.renew(func() (all []jentry) {
		for _, e := range j.all() {
			all = append(all, e)
		}
		return all
	}()); err != nil || len(j.all()) != 4 {
		t.Errorf("%d entries, %v", len(j.all()), err)
	}
}

// TestJournalMendsItself: after a write that failed the file is made anew, and until
// then it says so.
func TestJournalMendsItself(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	full := false
	j, err := OpenJournal(dir, func(point string, do func() error) error {
		if full && point == "file:journal:write" {
			return errors.New("no space")
		}
		return do()
	})
	if err != nil {
		t.Fatal(err)
	}
	full = true
	if err := j.note([]jentry{entryAt(1, 5, "a")}); err == nil || j.fault() == nil {
		t.Error("a failed write is no fault")
	}
	full = false
	if err := j.note([]jentry{entryAt(2, 6, "b")}); err != nil || j.fault() != nil {
		t.Errorf("%v, %v", err, j.fault())
	}
	if n := len(openJournal(t, dir).all()); n != 2 {
		t.Errorf("%d entries", n)
	}
}

func FuzzDecodeJournal(f *testing.F) {
	f.Add([]byte(journalHead + "\n" + string(entryAt(1, 5, "a").line(nil)) + string(entryAt(2, 6, "b").line(nil))))
	f.Add([]byte(journalHead + "\n"))
	f.Add([]byte("idpool"))
	f.Fuzz(func(t *testing.T, data []byte) {
		all, err := decodeJournal(data)
		if err != nil {
			return
		}
		for k, e := range all {
			if e.Key != k || e.Rev < 1 || !heldKey(k) {
				t.Errorf("%q: %+v", k, e)
			}
			if back, err := decodeLine(bytes.TrimSuffix(e.line(nil), []byte("\n"))); err != nil || back.Key != e.Key {
				t.Errorf("%q does not come back: %v", k, err)
			}
		}
	})
}
