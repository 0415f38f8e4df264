package vlan_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/seam"
	"github.com/idpool/idpool/seam/fault"
	"github.com/idpool/idpool/vlan"
)

// poolAt writes a pool file of its own directory.
func poolAt(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fabric.json")
	writeFile(t, path, text)
	return path
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func fileText(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func openPool(t *testing.T, path string, at func(string)) *vlan.FileInventory {
	t.Helper()
	var s seam.Seam
	if at != nil {
		s = fault.At(at)
	}
	f, err := vlan.NewFileInventory(path, vlan.FileOptions{Name: "fabric-a", Seam: s})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// allocates is one VLAN that must be had.
func allocates(t *testing.T, f *vlan.FileInventory, key string, c vlan.Choice, want uint32) {
	t.Helper()
	if got, err := f.Allocate(t.Context(), key, c); err != nil || got != want {
		t.Errorf("allocate for %q %+v: %d, %v; want %d", key, c, got, err, want)
	}
}

// refused checks an error and that its first line says something.
func refused(t *testing.T, err error, is error, says ...string) {
	t.Helper()
	if !errors.Is(err, is) {
		t.Errorf("%v is not: %v", err, is)
		return
	}
	for _, s := range says {
		if !strings.Contains(err.Error(), s) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q does not say %q in one line", err, s)
		}
	}
}

// untouched notes a file and returns the check that nobody wrote it since.
func untouched(t *testing.T, path string) func(after string) {
	t.Helper()
	text := fileText(t, path)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return func(after string) {
		t.Helper()
		now, err := os.Stat(path)
		if err != nil || !os.SameFile(info, now) || !now.ModTime().Equal(info.ModTime()) || fileText(t, path) != text {
			t.Errorf("%s: the file was written: %q, %v", after, fileText(t, path), err)
		}
	}
}

// alone checks that a directory has the pool file and its lock file, no more.
func alone(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) == 0 {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	for _, e := range entries {
		if e.Name() != filepath.Base(path) && e.Name() != filepath.Base(path)+".lock" {
			t.Errorf("%s was left behind", e.Name())
		}
	}
}

func vid(n uint32) *uint32 { return &n }

func TestFileLowestFreeFirst(t *testing.T) {
	path := poolAt(t, `{"range":{"from":100,"to":110},"used":[100,102]}`)
	f := openPool(t, path, nil)
	allocates(t, f, "", vlan.Choice{}, 101)
	allocates(t, f, "", vlan.Choice{Parity: "odd"}, 103)
	allocates(t, f, "", vlan.Choice{Parity: "even", Exclude: idset.Of(idset.Range{Lower: 0, Higher: 105})}, 106)
	allocates(t, f, "", vlan.Choice{VID: vid(109), Parity: "odd"}, 109)
	allocates(t, f, "", vlan.Choice{}, 104)
	if want := `{"range":{"from":100,"to":110},"used":[100,102,101,103,106,109,104],"version":5}`; fileText(t, path) != want {
		t.Errorf("%s, want %s", fileText(t, path), want)
	}
	alone(t, path)
}

// TestFileToIsExclusive and without a range: as in Inmanta's pool file.
func TestFileToIsExclusive(t *testing.T) {
	path := poolAt(t, `{"version":0,"range":{"from":100,"to":101},"used":[]}`)
	f := openPool(t, path, nil)
	_, err := f.Allocate(t.Context(), "", vlan.Choice{VID: vid(101)})
	refused(t, err, problem.ErrOutsidePool, "VLAN 101 is not in inventory fabric-a (100)")
	allocates(t, f, "", vlan.Choice{}, 100)
	_, err = f.Allocate(t.Context(), "", vlan.Choice{})
	refused(t, err, problem.ErrExhausted, "inventory fabric-a is exhausted: 0 of 1 VLANs free")
	var e *problem.Error
	if !errors.As(err, &e) || e.Counts["free"] != 0 || e.Counts["used"] != 1 {
		t.Errorf("counts %v", e.Counts)
	}
}

func TestFileWithoutRange(t *testing.T) {
	for _, text := range []string{`{}`, `{"used":[1]}`, `{"range":{"from":0,"to":0}}`, `{"range":{},"allocations":{}}`} {
		path := poolAt(t, text)
		check := untouched(t, path)
		for _, c := range []vlan.Choice{{}, {VID: vid(0)}} {
			_, err := openPool(t, path, nil).Allocate(t.Context(), "k", c)
			refused(t, err, problem.ErrExhausted, "no VLAN can be allocated from fabric-a: its range is empty")
		}
		check(text)
		alone(t, path)
	}
}

// TestFileRefusedReservationLeavesBytes: nor does one that is done already write.
func TestFileRefusedReservationLeavesBytes(t *testing.T) {
	path := poolAt(t, "{ \"range\" : {\"from\":100,\"to\":102},\n\"used\":[101], \"allocations\":{\"a\":100}}\n\n")
	check := untouched(t, path)
	f := openPool(t, path, func(point string) {
		if point == "file:pool:create:before" {
			t.Errorf("a save came to %s", point)
		}
	})
	for _, row := range []struct {
		key  string
		c    vlan.Choice
		is   error
		says string
	}{
		{"b", vlan.Choice{}, problem.ErrExhausted, "0 of 2 VLANs free"},
		{"b", vlan.Choice{VID: vid(100)}, problem.ErrHeld, "VLAN 100 of inventory fabric-a is held by key a"},
		{"b", vlan.Choice{VID: vid(101)}, problem.ErrHeld, "VLAN 101 of inventory fabric-a is in use"},
		{"b", vlan.Choice{VID: vid(102)}, problem.ErrOutsidePool, "VLAN 102 is not in inventory fabric-a (100-101)"},
		{"a", vlan.Choice{VID: vid(101)}, problem.ErrKeyConflict, "key a already stands for VLAN 100 of inventory fabric-a; this request asks for VLAN 101"},
		{"a", vlan.Choice{Parity: "odd"}, problem.ErrKeyConflict, "asks for an odd VLAN"},
		{"", vlan.Choice{}, problem.ErrInvalid, "allocation key is empty"},
		{"\xff", vlan.Choice{}, problem.ErrInvalid, "is not UTF-8"},
		{strings.Repeat("k", 257), vlan.Choice{}, problem.ErrInvalid, "257 bytes"},
		{"b", vlan.Choice{Parity: "Odd"}, problem.ErrInvalid, `parity "Odd"`},
		{"b", vlan.Choice{VID: vid(100), Parity: "odd"}, problem.ErrInvalid, "VLAN 100 is asked for and is not odd"},
		{"b", vlan.Choice{VID: vid(100), Exclude: idset.New(100)}, problem.ErrInvalid, "VLAN 100 is asked for and excluded"},
	} {
		_, err := f.Allocate(t.Context(), row.key, row.c)
		refused(t, err, row.is, row.says)
		check(row.says)
	}
	allocates(t, f, "a", vlan.Choice{}, 100)
	check("the same key again")
	for _, r := range []struct {
		vid uint32
		key string
	}{{100, "b"}, {100, ""}, {101, "b"}, {102, "a"}, {102, ""}} {
		if err := f.Release(t.Context(), r.vid, r.key); err != nil {
			t.Errorf("release %+v: %v", r, err)
		}
		check("another's")
	}
	alone(t, path)
}

func TestFileNoneFits(t *testing.T) {
	path := poolAt(t, `{"range":{"from":100,"to":104},"used":[101]}`)
	f := openPool(t, path, nil)
	_, err := f.Allocate(t.Context(), "", vlan.Choice{Parity: "odd", Exclude: idset.New(103)})
	refused(t, err, problem.ErrExhausted, "inventory fabric-a has no odd VLAN outside of 103 left: 3 of 4 VLANs free")
}

func TestFileUsedOutsideRangeStays(t *testing.T) {
	path := poolAt(t, `{"range":{"from":100,"to":103},"used":[4000,99,101]}`)
	f := openPool(t, path, nil)
	allocates(t, f, "", vlan.Choice{}, 100)
	if e, err := f.Read(t.Context(), 4000); err != nil || !e.Allocated || e.Keyed {
		t.Errorf("%+v, %v", e, err)
	}
	allocates(t, f, "", vlan.Choice{}, 102)
	if want := `{"range":{"from":100,"to":103},"used":[4000,99,101,100,102],"version":2}`; fileText(t, path) != want {
		t.Errorf("%s, want %s", fileText(t, path), want)
	}
}

func TestFileZeroIsAValue(t *testing.T) {
	path := poolAt(t, `{"range":{"from":0,"to":2},"allocations":{}}`)
	f := openPool(t, path, nil)
	allocates(t, f, "a", vlan.Choice{}, 0)
	allocates(t, f, "a", vlan.Choice{VID: vid(0)}, 0)
	_, err := f.Allocate(t.Context(), "b", vlan.Choice{VID: vid(0)})
	refused(t, err, problem.ErrHeld, "VLAN 0 of inventory fabric-a is held by key a")
	if got, found, err := f.Find(t.Context(), "a"); got != 0 || !found || err != nil {
		t.Errorf("find: %d, %v, %v", got, found, err)
	}
	if e, err := f.Read(t.Context(), 0); err != nil || e != (vlan.Entry{Allocated: true, Key: "a", Keyed: true}) {
		t.Errorf("%+v, %v", e, err)
	}
	if err := f.Release(t.Context(), 0, "a"); err != nil {
		t.Error(err)
	}
	if e, err := f.Read(t.Context(), 0); err != nil || e.Allocated {
		t.Errorf("%+v, %v", e, err)
	}
}

// TestFileAlreadyFreed: a repeated deallocation writes nothing and cannot free
// what somebody else has by now.
func TestFileAlreadyFreed(t *testing.T) {
	ctx := t.Context()
	path := poolAt(t, `{"range":{"from":100,"to":102},"allocations":{}}`)
	f := openPool(t, path, nil)
	allocates(t, f, "a", vlan.Choice{}, 100)
	if err := f.Release(ctx, 100, "a"); err != nil {
		t.Fatal(err)
	}
	check := untouched(t, path)
	if err := f.Release(ctx, 100, "a"); err != nil {
		t.Error(err)
	}
	check("freed already")
	allocates(t, f, "b", vlan.Choice{}, 100)
	check = untouched(t, path)
	if err := f.Release(ctx, 100, "a"); err != nil {
		t.Error(err)
	}
	check("another's by now")
	if got, found, err := f.Find(ctx, "b"); got != 100 || !found || err != nil {
		t.Errorf("find b: %d, %v, %v", got, found, err)
	}
	if _, found, err := f.Find(ctx, "a"); found || err != nil {
		t.Errorf("find a: %v, %v", found, err)
	}
}

func TestFileWithoutKeys(t *testing.T) {
	path := poolAt(t, `{"range":{"from":100,"to":102}}`)
	f := openPool(t, path, nil)
	allocates(t, f, "a", vlan.Choice{}, 100)
	allocates(t, f, "a", vlan.Choice{}, 101)
	_, _, err := f.Find(t.Context(), "a")
	refused(t, err, vlan.ErrNoKeys, "fabric-a")
	if e, err := f.Read(t.Context(), 100); err != nil || e != (vlan.Entry{VID: 100, Allocated: true}) {
		t.Errorf("%+v, %v", e, err)
	}
	if err := f.Release(t.Context(), 100, "a"); err != nil {
		t.Error(err)
	}
	if want := `{"range":{"from":100,"to":102},"used":[101],"version":3}`; fileText(t, path) != want {
		t.Errorf("%s, want %s", fileText(t, path), want)
	}
}
