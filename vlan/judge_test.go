package vlan_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/vlan"
)

// judge looks at what a test left behind, in etcd and in pool files, and at all
// that it ever wrote: nothing leaked, nothing twice, nothing half.
func (w *world) judge() {
	if w.t.Failed() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	services := map[string]*vlan.Service{}
	for key, value := range w.under(ctx, w.keys.ServicesPrefix()) {
		var s vlan.Service
		if err := json.Unmarshal([]byte(value), &s); err != nil || s.V != 1 {
			continue // a test of unreadable records
		}
		services[strings.TrimPrefix(key, w.keys.ServicesPrefix())] = &s
	}
	owners := w.judgeServices(services)
	for key, value := range w.under(ctx, w.keys.ClaimsPrefix()+"vlan/") {
		var c leases.Claim
		if err := json.Unmarshal([]byte(value), &c); err != nil {
			w.t.Errorf("claim %s: %v", key, err)
			continue
		}
		id := strings.TrimPrefix(key, w.keys.ClaimsPrefix()+"vlan/")
		if c.Service != "" && c.State == leases.Used && owners[id] != c.Service+" "+c.Token {
			w.t.Errorf("claim %s is of service %s, which does not list it", id, c.Service)
		}
		if owners[id] != "" && (c.State != leases.Used || owners[id] != c.Service+" "+c.Token) {
			w.t.Errorf("claim %s is %s and not of service %s", id, c.State, owners[id])
		}
		delete(owners, id)
	}
	for id, service := range owners {
		w.t.Errorf("service %s lists %s, which has no claim", service, id)
	}
	w.judgeFiles(services)
	w.judgeHistory(ctx)
}

// judgeServices returns which service and token each VLAN of etcd belongs to.
func (w *world) judgeServices(services map[string]*vlan.Service) map[string]string {
	owners, outside := map[string]string{}, map[string]string{}
	for name, s := range services {
		for _, at := range s.Attributes {
			if at.VID == nil {
				continue
			}
			into, id, owner := owners, fmt.Sprintf("%s/%010d", at.Inventory, *at.VID), name+" "+at.Token
			if at.Outside {
				into = outside
			}
			if before, twice := into[id]; twice {
				w.t.Errorf("VLAN %s is of %s and of %s", id, before, owner)
			}
			into[id] = owner
			if s.State == vlan.Failed {
				w.t.Errorf("service %s failed and still has %s", name, id)
			}
		}
	}
	return owners
}

// judgeFiles looks for VLANs in pool files that no service has.
func (w *world) judgeFiles(services map[string]*vlan.Service) {
	for inventory, path := range w.files {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // a test of missing files
		}
		p, err := vlan.ParsePoolFile(text)
		if err != nil || !p.Keyed() {
			continue // a test of broken files, or of files that do not tell
		}
		left := maps.Clone(p.Allocations())
		for _, s := range services {
			for _, at := range s.Attributes {
				if at.Inventory != inventory || at.VID == nil {
					continue
				}
				if vid, ok := left[at.Key]; ok && vid == *at.VID {
					delete(left, at.Key)
				}
			}
		}
		for key, vid := range left {
			if !strings.HasPrefix(key, "somebody") {
				w.t.Errorf("VLAN %d of %s leaked: it stands in the file under %s", vid, inventory, key)
			}
		}
	}
}

// judgeHistory goes through every record that was ever written: a service whose
// VLANs all come from etcd has all of them or none.
func (w *world) judgeHistory(ctx context.Context) {
	end := w.keys.Service("zzz-end")
	if _, err := w.client.Txn().Put(ctx, end, "end"); err != nil {
		w.t.Error(err)
		return
	}
	for resp := range w.client.Watch().Watch(ctx, w.keys.ServicesPrefix(), clientv3.WithPrefix(), clientv3.WithRev(1)) {
		if err := resp.Err(); err != nil {
			w.t.Errorf("history: %v", err)
			return
		}
		for _, e := range resp.Events {
			if string(e.Kv.Key) == end {
				return
			}
			var s vlan.Service
			if e.Type == clientv3.EventTypeDelete || json.Unmarshal(e.Kv.Value, &s) != nil || s.V != 1 {
				continue
			}
			got, outside := 0, false
			for _, at := range s.Attributes {
				outside = outside || at.Outside
				if at.VID != nil {
					got++
				}
			}
			if !outside && got != 0 && got != len(s.Attributes) {
				w.t.Errorf("revision %d shows %s with %d of %d VLANs (%s)", e.Kv.ModRevision, s.Name, got, len(s.Attributes), s.State)
			}
		}
	}
	w.t.Error("the history has no end")
}

func (w *world) under(ctx context.Context, prefix string) map[string]string {
	resp, err := w.client.Txn().Get(ctx, prefix, clientv3.WithPrefix())
	if err != nil {
		w.t.Error(err)
		return nil
	}
	all := map[string]string{}
	for _, kv := range resp.Kvs {
		all[string(kv.Key)] = string(kv.Value)
	}
	return all
}
