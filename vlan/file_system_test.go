package vlan_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/seam/fault"
	"github.com/idpool/idpool/vlan"
)

// TestFileTwoWritersOfOneVersion: one that ignores the lock saves between our load
// and our save.
func TestFileTwoWritersOfOneVersion(t *testing.T) {
	for _, point := range []string{"file:pool:create:before", "file:pool:sync:after"} {
		path := poolAt(t, `{"version":4,"range":{"from":100,"to":103},"used":[]}`)
		other := `{"version":5,"range":{"from":100,"to":103},"used":[100]}`
		once := sync.OnceFunc(func() { writeFile(t, path, other) })
		f := openPool(t, path, func(at string) {
			if at == point {
				once()
			}
		})
		allocates(t, f, "", vlan.Choice{}, 101)
		if want := `{"version":6,"range":{"from":100,"to":103},"used":[100,101]}`; fileText(t, path) != want {
			t.Errorf("%s: %s, want %s", point, fileText(t, path), want)
		}

		version, last := 6, ""
		f = openPool(t, path, func(at string) {
			if at == point {
				version++
				last = fmt.Sprintf(`{"version":%d,"range":{"from":100,"to":103},"used":[]}`, version)
				writeFile(t, path, last)
			}
		})
		_, err := f.Allocate(t.Context(), "", vlan.Choice{})
		refused(t, err, problem.ErrPrecondition, "was changed by another writer between load and save: nothing was written")
		if fileText(t, path) != last {
			t.Errorf("%s: %s, want %s", point, fileText(t, path), last)
		}
		alone(t, path)
	}
}

func TestFileTorn(t *testing.T) {
	for _, text := range []string{"", "{\"range\":{\"from\":100,\"to\":102},\"used\":[10", "[]", `{"used":null}`} {
		path := poolAt(t, `{"range":{"from":100,"to":102},"used":[100],"allocations":{}}`)
		f := openPool(t, path, nil)
		writeFile(t, path, text)
		check := untouched(t, path)
		_, err := f.Allocate(t.Context(), "a", vlan.Choice{})
		refused(t, err, problem.ErrInvalid, "inventory fabric-a: pool file "+path+" not read: ")
		refused(t, f.Release(t.Context(), 100, "a"), problem.ErrInvalid)
		_, err = f.Read(t.Context(), 100)
		refused(t, err, problem.ErrInvalid)
		_, _, err = f.Find(t.Context(), "a")
		refused(t, err, problem.ErrInvalid)
		_, err = f.Contents(t.Context())
		refused(t, err, problem.ErrInvalid)
		_, err = vlan.NewFileInventory(path, vlan.FileOptions{})
		refused(t, err, problem.ErrInvalid, "inventory fabric.json: pool file")
		check(text)
	}
}

func TestFileMissing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "it's.json")
	_, err := vlan.NewFileInventory(path, vlan.FileOptions{Name: "fabric-a"})
	refused(t, err, problem.ErrNotFound, "inventory fabric-a: there is no pool file "+path)
	var e *problem.Error
	if !errors.As(err, &e) || len(e.Try) != 1 || !strings.Contains(e.Try[0].Command, `'\''`) {
		t.Errorf("%v does not say how to make one", err)
	}
	_, err = vlan.NewFileInventory(filepath.Join(dir, "no", "x.json"), vlan.FileOptions{})
	refused(t, err, problem.ErrNotFound, "there is no directory "+filepath.Join(dir, "no"))
	_, err = vlan.NewFileInventory(dir, vlan.FileOptions{})
	refused(t, err, problem.ErrInvalid, "is no regular file")
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = vlan.NewFileInventory(fifo, vlan.FileOptions{})
	refused(t, err, problem.ErrInvalid, "is no regular file")

	gone := poolAt(t, `{"range":{"to":2}}`)
	f := openPool(t, gone, func(at string) {
		if at == "file:pool:create:before" {
			_ = os.Remove(gone)
		}
	})
	_, err = f.Allocate(t.Context(), "", vlan.Choice{})
	refused(t, err, problem.ErrNotFound, "there is no pool file")
	_, err = f.Allocate(t.Context(), "", vlan.Choice{})
	refused(t, err, problem.ErrNotFound, "there is no pool file")
	entries, err := os.ReadDir(filepath.Dir(gone))
	if err != nil || len(entries) != 1 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

// TestFileKeepsModeAndOwner, and a symbolic link stays one.
func TestFileKeepsModeAndOwner(t *testing.T) {
	path := poolAt(t, `{"range":{"to":9}}`)
	if err := os.Chmod(path, 0o664); err != nil {
		t.Fatal(err)
	}
	owner := os.Getuid()
	if owner == 0 {
		owner = 65534
		if err := os.Chown(path, owner, owner); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(t.TempDir(), "link.json")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	allocates(t, openPool(t, link, nil), "", vlan.Choice{}, 0)
	allocates(t, openPool(t, path, nil), "", vlan.Choice{}, 1)
	for name, mode := range map[string]fs.FileMode{path: 0o664, path + ".lock": 0o660} {
		info, err := os.Stat(name)
		if err != nil || info.Mode().Perm() != mode || int(info.Sys().(*syscall.Stat_t).Uid) != owner {
			t.Errorf("%s: %v %+v, %v", name, info.Mode(), info.Sys(), err)
		}
	}
	if target, err := os.Readlink(link); err != nil || target != path {
		t.Errorf("the link is %s, %v", target, err)
	}
	if _, err := os.Stat(link + ".lock"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the lock of a link is its target's: %v", err)
	}
}

func TestFileHardLink(t *testing.T) {
	path := poolAt(t, `{"range":{"to":9}}`)
	if err := os.Link(path, filepath.Join(filepath.Dir(path), "second")); err != nil {
		t.Fatal(err)
	}
	check := untouched(t, path)
	_, err := openPool(t, path, nil).Allocate(t.Context(), "", vlan.Choice{})
	refused(t, err, problem.ErrInvalid, "has 2 names (hard links)")
	check("two names")
}

// TestFileHugeRange: neither a huge range nor all of one parity costs.
func TestFileHugeRange(t *testing.T) {
	path := poolAt(t, `{"range":{"from":0,"to":4294967295},"used":[0,2,4294967295]}`)
	f := openPool(t, path, nil)
	allocates(t, f, "", vlan.Choice{Parity: "even", Exclude: idset.Of(idset.Range{Lower: 3, Higher: 4294967292})}, 4294967294)
	_, err := f.Allocate(t.Context(), "", vlan.Choice{Parity: "even", Exclude: idset.Of(idset.Range{Lower: 4, Higher: 1<<32 - 1})})
	refused(t, err, problem.ErrExhausted, "4294967292 of 4294967295 VLANs free")
	_, err = f.Allocate(t.Context(), "", vlan.Choice{Exclude: idset.Of(idset.Range{Lower: 0, Higher: 1<<32 - 1})})
	refused(t, err, problem.ErrExhausted)
}

func TestFileContextIsOver(t *testing.T) {
	path := poolAt(t, `{"range":{"to":9}}`)
	check := untouched(t, path)
	f := openPool(t, path, nil)
	cause := errors.New("the caller hung up")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	_, err := f.Allocate(ctx, "", vlan.Choice{})
	refused(t, err, problem.ErrUnavailable)
	refused(t, err, cause)
	_, err = f.Contents(ctx)
	refused(t, err, cause)
	check("cancelled")
}

// TestFileReadersNeverSeeHalf: readers without a lock, while several writers go.
func TestFileReadersNeverSeeHalf(t *testing.T) {
	const writers, each = 3, 20
	path := poolAt(t, `{"range":{"from":0,"to":4095},"allocations":{"`+strings.Repeat("x", 200)+`":4000}}`)
	reader := openPool(t, path, nil)
	var wg sync.WaitGroup
	for w := range writers {
		f := reader
		if w > 0 {
			f = openPool(t, path, nil)
		}
		wg.Go(func() {
			for i := range each {
				key := fmt.Sprintf("%d/%d", w, i)
				got, err := f.Allocate(t.Context(), key, vlan.Choice{})
				if err == nil && i%2 == 1 {
					err = f.Release(t.Context(), got, key)
				}
				if err != nil {
					t.Errorf("%s: %v", key, err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	last, reads := uint64(0), 0
	for over := false; !over; reads++ {
		select {
		case <-done:
			over = true
		default:
		}
		p, err := reader.Contents(t.Context())
		if err != nil || p.Version() < last || !p.Used().Contains(4000) {
			t.Fatalf("read %d after version %d: %v", reads, last, err)
		}
		last = p.Version()
	}
	if p, err := reader.Contents(t.Context()); err != nil || last != writers*each*3/2 || len(p.Allocations()) != 1+writers*each/2 || reads < 2 {
		t.Errorf("version %d, %d reads, %v", last, reads, err)
	}
	alone(t, path)
}

// TestFileRenamedWithoutAnswer: the new file is in its place although the system
// reported a failure; that must not be told as "nothing was changed".
func TestFileRenamedWithoutAnswer(t *testing.T) {
	for mode, code := range map[fault.Mode]error{fault.Lost: problem.ErrOutcomeUnknown, fault.Before: problem.ErrUnavailable} {
		path := poolAt(t, `{"version":4,"range":{"from":100,"to":103},"allocations":{}}`)
		i := &fault.Injector{}
		i.Arm(fault.Case{Mode: mode, Point: "file:pool:rename", N: 1})
		f, err := vlan.NewFileInventory(path, vlan.FileOptions{Name: "fabric-a", Seam: i.Seam})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Allocate(t.Context(), "k", vlan.Choice{}); !errors.Is(err, code) {
			t.Errorf("%s: %v, want %v", mode, err, code)
		}
		allocates(t, f, "k", vlan.Choice{}, 100)
	}
}
