package leases

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/idpool/idpool/problem"
)

// journaled is a node whose writes to its journal pass at.
func journaled(t *testing.T, at func(point string) error) (*world, *agent) {
	w := newWorld(t)
	a, err := w.try(context.Background(), "n1", t.TempDir(), newMachine("n1"), false, func(point string, do func() error) error {
		if strings.HasPrefix(point, "file:journal") {
			if err := at(point); err != nil {
				return err
			}
		}
		return do()
	})
	if err != nil {
		t.Fatal(err)
	}
	until(t, "it is ready", func() bool {
		select {
		case <-a.Ready():
			return true
		default:
			return false
		}
	})
	a.vlanPool("a", "100-299")
	return w, a
}

func (a *agent) askVLAN() (*Grant, error) {
	return a.ask(Requester{}, withKey("v-"+NewToken()), wants(Want{Pool: VLANPool("a"), Count: 1}))
}

// TestJournalBeforeTheAnswer: whoever is told of a grant finds it in the journal, and
// a VLAN's on the disk itself.
func TestJournalBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	var armed, synced atomic.Bool
	written, on := make(chan struct{}), make(chan struct{})
	once := sync.OnceFunc(func() { close(written) })
	_, a := journaled(t, func(point string) error {
		if point == "file:journal:sync" && armed.Load() {
			synced.Store(true)
		}
		if point == "file:journal:write" && armed.Load() {
			once()
			<-on
		}
		return nil
	})
	armed.Store(true)
	told := make(chan error, 1)
	go func() {
		_, err := a.askVLAN()
		told <- err
	}()
	open := sync.OnceFunc(func() { close(on) })
	defer open()
	select {
	case <-written:
	case err := <-told:
		t.Fatalf("told before it is written: %v", err)
	}
	select {
	case err := <-told:
		t.Fatalf("told while it is written: %v", err)
	case <-closedSoon():
	}
	open()
	if err := <-told; err != nil || !synced.Load() {
		t.Errorf("%v, synced %t", err, synced.Load())
	}
	vlans := 0
	for key := range a.journal.all() {
		if strings.HasPrefix(key, "claims/vlan/") {
			vlans++
		}
	}
	if vlans != 1 {
		t.Errorf("%d VLANs in the journal", vlans)
	}
}

// TestJournalCannotBeWritten: nothing more is granted until it can be.
func TestJournalCannotBeWritten(t *testing.T) {
	t.Parallel()
	var full atomic.Bool
	w, a := journaled(t, func(string) error {
		if full.Load() {
			return errors.New("no space")
		}
		return nil
	})
	full.Store(true)
	if _, err := a.askVLAN(); err != nil {
		t.Fatal(err)
	}
	_, err := a.askVLAN()
	mustErr(t, err, problem.ErrUnavailable, "cannot write down")
	if n := len(w.stored(w.keys.ClaimsPrefix())); n != 1 {
		t.Errorf("%d claims", n)
	}
}
