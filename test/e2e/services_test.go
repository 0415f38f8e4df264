package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/api"
)

// storm is many clients of VLAN services, and what kills agents under them.
type storm struct {
	w     *world
	nodes []*node
	seed  uint64
	mu    sync.Mutex
	keep  map[string]bool // services that must be up at the end
	lost  atomic.Int64    // clients that went away without a word
	fails atomic.Int64
	kills atomic.Int64
	full  atomic.Int64
}

// again repeats a call at one agent after the other until it has a certain answer.
func (s *storm) again(ctx context.Context, r *rand.Rand, call func(*api.ServicesService) error) error {
	for {
		err := call(s.nodes[r.IntN(len(s.nodes))].client.Services())
		if !errors.Is(err, api.ErrUnavailable) && !errors.Is(err, api.ErrOutcomeUnknown) {
			return err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}

// life is one service's: created; then confirmed, failed or forgotten by a client
// that dies; then deleted, but for a few that stay up.
func (s *storm) life(ctx context.Context, name string, r *rand.Rand) error {
	var v api.Service
	req := api.ServiceRequest{Name: name, ConfirmWithin: "1s", Attributes: []api.ServiceWant{
		{Name: api.NorthVLAN, Inventory: "fabric-a"}, {Name: api.SouthVLAN, Inventory: "fabric-b"},
	}}
	fate := r.IntN(100)
	if fate < 70 {
		req.ConfirmWithin = "10m"
	}
	for {
		err := s.again(ctx, r, func(c *api.ServicesService) (err error) {
			v, err = c.Create(ctx, req, api.WriteOptions{})
			return err
		})
		if errors.Is(err, api.ErrExhausted) { // rejected: others hold all; wait for them
			s.full.Add(1)
			err = s.again(ctx, r, func(c *api.ServicesService) error {
				_, err := c.Delete(ctx, name, "", false)
				return err
			})
			if err == nil {
				continue
			}
		}
		if err != nil && fate >= 70 && strings.Contains(err.Error(), "nobody confirmed it") { // its answer was lost for too long
			s.lost.Add(1)
			return nil
		}
		if err != nil {
			return fmt.Errorf("create: %w", err)
		}
		break
	}
	north, n := v.VID(api.NorthVLAN)
	south, m := v.VID(api.SouthVLAN)
	if v.State == api.ServiceAllocated && (!n || !m || north < 100 || north > 199 || south < 300 || south > 399) {
		return fmt.Errorf("allocated with %v", v.Values)
	}
	act := func(call func(*api.ServicesService) (api.Service, error)) error {
		return s.again(ctx, r, func(c *api.ServicesService) error {
			_, err := call(c)
			return err
		})
	}
	switch {
	case fate >= 90: // gone without a word
		s.lost.Add(1)
		return nil
	case fate >= 50:
		s.fails.Add(1)
		if err := act(func(c *api.ServicesService) (api.Service, error) {
			return c.Fail(ctx, name, v.Token, "a device said no")
		}); err != nil {
			return fmt.Errorf("fail: %w", err)
		}
	default:
		if err := act(func(c *api.ServicesService) (api.Service, error) { return c.Confirm(ctx, name, v.Token) }); err != nil {
			return fmt.Errorf("confirm: %w", err)
		}
		if fate < 1 {
			s.mu.Lock()
			s.keep[name] = true
			s.mu.Unlock()
			return nil
		}
	}
	return act(func(c *api.ServicesService) (api.Service, error) { return c.Delete(ctx, name, "", false) })
}

// killer kills an agent now and then, and starts it again, until ctx ends.
func (s *storm) killer(ctx context.Context, r *rand.Rand) {
	for {
		select {
		case <-time.After(time.Duration(100+r.IntN(400)) * time.Millisecond):
		case <-ctx.Done():
			return
		}
		n := s.nodes[r.IntN(len(s.nodes))]
		n.kill()
		n.start()
		s.kills.Add(1)
	}
}

// TestServicesStorm: 32 clients, 2,000 services over two inventories of 100, random
// failures, clients that vanish, agents killed. At the end every service is up or
// gone, no VLAN is held by nobody and none by two; and at no revision of etcd's
// history did a service have one VLAN of two.
func TestServicesStorm(t *testing.T) {
	const clients, services = 32, 2000
	w := newWorld(t)
	s := &storm{w: w, nodes: w.up(3), seed: rand.Uint64(), keep: map[string]bool{}}
	t.Logf("seed %d", s.seed)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for name, ranges := range map[string]string{"fabric-a": "100-199", "fabric-b": "300-399"} {
		i := api.Inventory{Name: name, Ranges: ranges, InventoryPolicy: api.InventoryPolicy{Cooldown: "0s"}}
		if _, err := s.nodes[0].client.Inventories().Put(ctx, i, api.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	killing, stop := context.WithCancel(ctx)
	var killers sync.WaitGroup
	killers.Go(func() { s.killer(killing, rand.New(rand.NewPCG(s.seed, 0))) })
	var next atomic.Int64
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(s.seed, uint64(c)+1))
			for i := next.Add(1); i <= services; i = next.Add(1) {
				if err := s.life(ctx, fmt.Sprintf("s-%d", i), r); err != nil {
					t.Errorf("service s-%d: %v", i, err)
					return
				}
			}
		})
	}
	wg.Wait()
	stop()
	killers.Wait()
	for _, n := range s.nodes {
		n.ready()
	}
	t.Logf("%d failed by their caller, %d left alone, %d refused as exhausted, %d agents killed", s.fails.Load(), s.lost.Load(), s.full.Load(), s.kills.Load())
	if s.kills.Load() == 0 || s.lost.Load() == 0 {
		t.Error("nothing was killed: vacuous")
	}

	// What its client left alone is given back by somebody; its record stays as
	// failed until it is deleted.
	any := s.nodes[0].client
	w.eventually("every service is up, failed or gone", time.Minute, func(ctx context.Context) error {
		for v, err := range any.Services().List(ctx, api.ServiceFilter{}) {
			switch {
			case err != nil:
				return err
			case v.State == api.ServiceFailed:
				if _, err := any.Services().Delete(ctx, v.Name, "", false); err != nil {
					return err
				}
			case v.State != api.ServiceUp:
				return fmt.Errorf("%s is %s", v.Name, v.State)
			}
		}
		return nil
	})
	up := map[string]bool{}
	for v, err := range any.Services().List(ctx, api.ServiceFilter{}) {
		if err != nil {
			t.Fatal(err)
		}
		up[v.Name] = v.State == api.ServiceUp
	}
	for name := range s.keep {
		if !up[name] {
			t.Errorf("%s was confirmed and never deleted, and is not up", name)
		}
	}
	if got, want := len(w.keys("claims/vlan/")), 2*len(s.keep); len(up) != len(s.keep) || got != want {
		t.Errorf("%d services are up and %d VLANs held, want %d and %d", len(up), got, len(s.keep), want)
	}
	if found, err := any.Check(ctx); err != nil || len(found) > 0 {
		t.Errorf("check finds %v (%v)", found, err)
	}
	if revisions := w.judgeServices(); revisions < services {
		t.Errorf("the history has %d revisions of services: vacuous", revisions)
	}
	if err := judge(w.history()); err != nil {
		t.Error(err)
	}
}

// record is what the judge reads of a service's record.
type record struct {
	Name, State string
	Attributes  []struct {
		Name, Inventory, Token string
		Outside                bool
		VID                    *uint32
	}
}

// judgeServices replays etcd's history of services and VLAN claims. After every
// revision: a service has all of its VLANs from etcd or none; each VLAN it lists is
// claimed for it under its token; each VLAN claimed for a service is listed by it.
// It returns how many revisions it judged.
func (w *world) judgeServices() int {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	root := w.db.Keys().Root()
	now, err := w.db.Read(ctx, clientv3.OpGet(w.db.Keys().Meta()))
	if err != nil {
		w.t.Fatal(err)
	}
	until := now.Header.Revision
	mark := w.db.Keys().Service("mark-of-the-judge")
	if _, err := w.db.Txn().Put(ctx, mark, "mark"); err != nil {
		w.t.Fatal(err)
	}
	defer func() { _, _ = w.db.Txn().Delete(context.Background(), mark) }()
	services := map[string]record{}
	claims := map[string]map[string]string{} // "fabric-a/100": service, token
	judged, last := 0, int64(0)
	check := func() {
		if last == 0 {
			return
		}
		judged++
		if err := consistent(services, claims); err != nil {
			w.t.Fatalf("at revision %d: %v", last, err)
		}
	}
	for resp := range w.db.Watch().Watch(ctx, root, clientv3.WithPrefix(), clientv3.WithRev(1)) {
		if err := resp.Err(); err != nil {
			w.t.Fatal(err)
		}
		for _, e := range resp.Events {
			if e.Kv.ModRevision > until {
				check()
				return judged
			}
			key := strings.TrimPrefix(string(e.Kv.Key), root)
			name, isService := strings.CutPrefix(key, "services/")
			id, isClaim := strings.CutPrefix(key, "claims/vlan/")
			if !isService && !isClaim {
				continue
			}
			if e.Kv.ModRevision != last {
				check()
				last = e.Kv.ModRevision
			}
			switch {
			case isService && e.Type == clientv3.EventTypePut:
				var r record
				if err := json.Unmarshal(e.Kv.Value, &r); err != nil {
					w.t.Fatalf("%s: %v", key, err)
				}
				services[name] = r
			case isService:
				delete(services, name)
			case e.Type == clientv3.EventTypePut:
				var c struct{ Service, Token, State string }
				if err := json.Unmarshal(e.Kv.Value, &c); err != nil {
					w.t.Fatalf("%s: %v", key, err)
				}
				claims[id] = map[string]string{"service": c.Service, "token": c.Token, "state": c.State}
			default:
				delete(claims, id)
			}
		}
	}
	w.t.Fatal("the history ended before its mark")
	return 0
}

// consistent judges one revision.
func consistent(services map[string]record, claims map[string]map[string]string) error {
	listed := map[string]string{}
	for name, r := range services {
		got, missing := 0, 0
		for _, at := range r.Attributes {
			switch {
			case at.Outside:
			case at.VID == nil:
				missing++
			default:
				got++
				id := fmt.Sprintf("%s/%010d", at.Inventory, *at.VID)
				if other, twice := listed[id]; twice {
					return fmt.Errorf("VLAN %s is of %s and of %s", id, other, name)
				}
				listed[id] = name
				if c := claims[id]; c == nil || c["service"] != name || c["token"] != at.Token || c["state"] != "used" {
					return fmt.Errorf("%s (%s) lists VLAN %s with token %s, whose claim says %v", name, r.State, id, at.Token, c)
				}
			}
		}
		if got > 0 && missing > 0 {
			return fmt.Errorf("%s (%s) has %d VLANs of %d", name, r.State, got, got+missing)
		}
	}
	for id, c := range claims {
		if c["state"] == "used" && c["service"] != "" && listed[id] != c["service"] {
			return fmt.Errorf("VLAN %s is held for %s, which does not list it", id, c["service"])
		}
	}
	return nil
}
