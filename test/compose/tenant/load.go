package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/idpool/idpool/api"
)

const (
	// workers is how many tenants an agent has.
	workers = 3
	// patience is how long one step may take, restarts included.
	patience = 90 * time.Second
)

// Inventories and the pool that the traffic uses.
const (
	north, south, pool = "load-north", "load-south", "load"
)

// report is what came of the traffic.
type report struct {
	// Services and UIDs count whole lives: got, used, given back.
	Services, UIDs int
	// Repeats count answers after which the step was taken again.
	Repeats int
	// Twice names what two had at the same time, Errors what was refused for good.
	Twice, Errors []string
}

// book says who has what at this moment.
type book struct {
	mu  sync.Mutex        // guards the fields below
	has map[string]string // by VLAN
	report
}

// take writes down that somebody has a VLAN, after the answer; give, before the
// release: so that what overlaps here was granted twice.
func (b *book) take(vlan, who string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if other, ok := b.has[vlan]; ok {
		b.Twice = append(b.Twice, fmt.Sprintf("%s: %s and %s", vlan, other, who))
	}
	b.has[vlan] = who
}

func (b *book) give(vlans ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, v := range vlans {
		delete(b.has, v)
	}
}

func (b *book) count(add func(*report)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	add(&b.report)
}

// load is traffic on the agents of the hosts until in ends.
func load(ctx context.Context, hosts []string, in io.Reader, out io.Writer) error {
	ending := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, in)
		close(ending)
	}()
	b := &book{has: map[string]string{}}
	var g errgroup.Group
	for _, host := range hosts {
		client := api.New(api.Options{Agent: "https://" + host + ":7443", Timeout: 10 * time.Second, Retry: patience})
		defer client.Close()
		for i := range workers {
			t := &tenant{b: b, c: client, name: fmt.Sprintf("%s-%d", host, i)}
			g.Go(func() error { t.live(ctx, ending); return nil })
		}
	}
	_ = g.Wait()
	return json.NewEncoder(out).Encode(b.report)
}

// tenant asks one agent, one thing after another.
type tenant struct {
	b    *book
	c    *api.Client
	name string
}

func (t *tenant) live(ctx context.Context, ending <-chan struct{}) {
	for i := 0; ; i++ {
		select {
		case <-ending:
			return
		case <-ctx.Done():
			return
		default:
		}
		name := fmt.Sprintf("%s-%d", t.name, i)
		for _, life := range []func(context.Context, string) error{t.service, t.uid} {
			if err := life(ctx, name); err != nil {
				t.b.count(func(r *report) { r.Errors = append(r.Errors, err.Error()) })
				return
			}
		}
	}
}

// service makes one, confirms it and deletes it.
func (t *tenant) service(ctx context.Context, name string) error {
	want := api.ServiceRequest{Name: name, Attributes: []api.ServiceWant{{Name: api.NorthVLAN, Inventory: north}, {Name: api.SouthVLAN, Inventory: south}}}
	var v api.Service
	err := t.until(ctx, "create "+name, func(ctx context.Context) (err error) {
		v, err = t.c.Services().Create(ctx, want, api.WriteOptions{})
		return err
	})
	if err != nil {
		return err
	}
	var vlans []string
	for attribute, inventory := range map[string]string{api.NorthVLAN: north, api.SouthVLAN: south} {
		vid, ok := v.VID(attribute)
		if !ok {
			return fmt.Errorf("service %s has no %s: %s", name, attribute, v.State)
		}
		vlans = append(vlans, fmt.Sprintf("%s/%d", inventory, vid))
		t.b.take(vlans[len(vlans)-1], name)
	}
	err = t.until(ctx, "confirm "+name, func(ctx context.Context) error {
		_, err := t.c.Services().Confirm(ctx, name, v.Token)
		return err
	})
	if err != nil {
		return err
	}
	t.b.give(vlans...)
	err = t.until(ctx, "delete "+name, func(ctx context.Context) error {
		_, err := t.c.Services().Delete(ctx, name, v.Token, false)
		return err
	})
	if err == nil || errors.Is(err, api.ErrNotFound) {
		t.b.count(func(r *report) { r.Services++ })
		return nil
	}
	return err
}

// uid asks for one and gives it back. A container that restarts is a new boot of its
// node, which ends what was held there: that is no error.
func (t *tenant) uid(ctx context.Context, name string) error {
	var u *api.LockedUID
	err := t.until(ctx, "request "+name, func(ctx context.Context) (err error) {
		u, err = t.c.RequestUID(ctx, api.UIDRequest{Pool: pool, Key: name, Wait: 30 * time.Second})
		return err
	})
	if errors.Is(err, api.ErrKeyEnded) {
		return nil
	}
	if err != nil {
		return err
	}
	err = t.until(ctx, "release "+name, u.Release)
	if err == nil || errors.Is(err, api.ErrNotHeld) || errors.Is(err, api.ErrNotFound) {
		t.b.count(func(r *report) { r.UIDs++ })
		return nil
	}
	return err
}

// until takes a step again while its outcome is unknown, or nothing was done.
func (t *tenant) until(ctx context.Context, what string, step func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := step(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || !errors.Is(err, api.ErrOutcomeUnknown) && !errors.Is(err, api.ErrUnavailable) {
			return fmt.Errorf("%s: %w", what, err)
		}
		t.b.count(func(r *report) { r.Repeats++ })
	}
}
