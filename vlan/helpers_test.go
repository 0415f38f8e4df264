package vlan_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/vlan"
)

// inventory defines an inventory of etcd, without a cooldown unless change says so.
func (a *agent) inventory(name, ranges string, change ...func(*leases.Pool)) {
	a.w.t.Helper()
	set, err := idset.Parse(ranges)
	if err != nil {
		a.w.t.Fatal(err)
	}
	a.define(name, append([]func(*leases.Pool){func(p *leases.Pool) { p.Ranges, p.Cooldown = set, 0 }}, change...)...)
}

func (a *agent) define(name string, change ...func(*leases.Pool)) {
	a.w.t.Helper()
	_, _, err := a.engine.SetPool(a.w.ctx(), leases.VLANPool(name), false, func(p *leases.Pool, _ bool) error {
		for _, f := range change {
			f(p)
		}
		return nil
	})
	if err != nil {
		a.w.t.Fatal(err)
	}
}

// file defines an inventory in a pool file that node on keeps, and returns its
// path.
func (a *agent) file(name, on, text string) string {
	a.w.t.Helper()
	path := poolAt(a.w.t, text)
	a.w.files[name] = path
	a.define(name, func(p *leases.Pool) { p.Outside = &leases.Outside{File: path, On: on, Settle: 50 * time.Millisecond} })
	return path
}

// keyed is a pool file with allocation keys and this range, its end not inside.
func keyed(from, to int) string {
	return fmt.Sprintf(`{"version": 0, "range": {"from": %d, "to": %d}, "used": [], "allocations": {}}`, from, to)
}

var (
	tenant = vlan.By{Caller: "unix:7"}
	other  = vlan.By{Caller: "unix:8"}
	root   = vlan.By{Caller: "unix:0", Operator: true}
)

// northSouth asks for a north and a south VLAN.
func northSouth(name, north, south string, change ...func(*vlan.Request)) vlan.Request {
	r := vlan.Request{Name: name, By: tenant, Attributes: []vlan.Want{{Name: "north_vlan_id", Inventory: north}, {Name: "south_vlan_id", Inventory: south}}}
	for _, f := range change {
		f(&r)
	}
	return r
}

func keep(r *vlan.Request) { r.OnPartial = vlan.OnPartialKeep }

// create is Allocate that must succeed.
func (a *agent) create(r vlan.Request) *vlan.Service {
	a.w.t.Helper()
	s, _, err := a.Allocate(a.w.ctx(), r)
	if err != nil {
		a.w.t.Fatalf("create %s on %s: %v", r.Name, a.engine.Node(), err)
	}
	return s
}

func of(s *vlan.Service, by ...vlan.By) vlan.Change {
	by = append(by, tenant)
	return vlan.Change{Name: s.Name, Token: s.Token, By: by[0]}
}

// becomes waits until a service is in a state.
func (a *agent) becomes(name string, state vlan.State) *vlan.Service {
	a.w.t.Helper()
	var last *vlan.Service
	s, err := a.Wait(a.w.ctx(), name, func(s *vlan.Service) bool {
		last = s
		if s == nil {
			return state == vlan.Gone
		}
		return s.State == state
	})
	if err != nil {
		a.w.t.Fatalf("service %s is %+v, want %s: %v", name, last, state, err)
	}
	return s
}

// goes deletes a service and waits until it is gone.
func (a *agent) goes(name string) {
	a.w.t.Helper()
	if _, _, err := a.Delete(a.w.ctx(), vlan.Change{Name: name, By: tenant}, false); err != nil {
		a.w.t.Fatalf("delete %s: %v", name, err)
	}
	a.becomes(name, vlan.Gone)
}

func has(t testing.TB, s *vlan.Service, attribute string, want uint32) {
	t.Helper()
	if got, ok := s.VID(attribute); !ok || got != want {
		t.Fatalf("%s of %s is %d, %v; want %d", attribute, s.Name, got, ok, want)
	}
}

func mustErr(t testing.TB, err, want error, parts ...string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Fatalf("error %q does not say %q", err, p)
		}
	}
}

// await fails the test if the channel is not closed in time.
func (w *world) await(what string, c <-chan struct{}) {
	w.t.Helper()
	select {
	case <-c:
	case <-w.ctx().Done():
		w.t.Fatalf("waited too long: %s", what)
	}
}

// inFile is what a pool file says is allocated: VLANs by key.
func (w *world) inFile(path string) map[string]uint32 {
	w.t.Helper()
	p, err := vlan.ParsePoolFile([]byte(fileText(w.t, path)))
	if err != nil {
		w.t.Fatal(err)
	}
	all := p.Allocations()
	if !p.Keyed() {
		all = map[string]uint32{}
		for id := range p.Used().All() {
			all[fmt.Sprint(id)] = id
		}
	}
	return all
}

// claim is the claim of a VLAN in etcd, nil if it is free.
func (w *world) claim(inventory string, vid uint32) *leases.Claim {
	w.t.Helper()
	resp, err := w.client.Txn().Get(w.ctx(), w.keys.Claim(cluster.VLANSpace(inventory), vid))
	if err != nil {
		w.t.Fatal(err)
	}
	if len(resp.Kvs) == 0 {
		return nil
	}
	var c leases.Claim
	if err := json.Unmarshal(resp.Kvs[0].Value, &c); err != nil {
		w.t.Fatal(err)
	}
	return &c
}
