package vlan_test

import (
	"os"
	"testing"

	"github.com/idpool/idpool/vlan"
)

// A service refused by a file that is unreadable for a moment, while a delete comes.
func TestRegressionAskFileMissingThenDelete(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.node("n1")
	path := a.file("outside", "n1", keyed(100, 110))
	died := a.dieAt("service:intent:after")
	go func() { _, _, _ = a.Allocate(w.ctx(), one("edge-7", "outside")) }()
	w.await("death", died)
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	b := a.again()
	if _, err := b.Wait(w.ctx(), "edge-7", func(s *vlan.Service) bool { return s != nil && s.Attributes[0].Reason != "" }); err != nil {
		t.Fatal(err)
	}
	s, changed, err := b.Delete(w.ctx(), vlan.Change{Name: "edge-7", By: tenant}, false)
	t.Logf("%+v %v %v", s, changed, err)
	_, err = b.Wait(w.ctx(), "edge-7", func(s *vlan.Service) bool { return s != nil && s.State == vlan.Deallocating })
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
	b.becomes("edge-7", vlan.Gone)
}
