package leases

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/idpool/idpool/seam/fault"
)

// site is a world that a walk goes through, case by case: an agent whose every step
// can be broken, and another one, with a grant that nothing may touch.
type site struct {
	t   *testing.T // of the case
	top *testing.T
	w   *world
	inj *fault.Injector
	a   *agent // stands under faults; nil after its end
	b   *agent
	m   *machine
	// life ends with the agent of the moment, as what a client asks of it does.
	life      context.Context
	bystander string // the claim's bytes
	stands    Ref
	held      []*Grant // what clients were told of, to be given back
	n         int      // of the case, for names
}

func newSite(t *testing.T) *site {
	w := newWorld(t)
	s := &site{t: t, top: t, w: w, b: w.node("n2"), m: newMachine("n1")}
	s.b.pool("p", "1000-1039")
	s.b.pool("one", "2000")
	s.b.pool("spare", "4000-4009")
	s.b.pool("own", "3000-3009", func(p *Pool) { p.Scope = ScopeNode })
	s.b.pair("100-139", "200-239", noCooldown)
	g := s.b.get(s.b.m.born("bystander"))
	s.b.confirm(g, true, false)
	s.stands = g.ref()
	s.bystander = s.raw(s.stands)
	home := t.TempDir()
	s.start("n1", home)
	return s
}

func (s *site) raw(ref Ref) string {
	key := s.w.keys.Claim(ref.Space, ref.ID)
	return s.w.stored(key)[key]
}

// ctx is a client's.
func (s *site) ctx() context.Context {
	ctx, cancel := context.WithTimeout(s.life, limit)
	s.t.Cleanup(cancel)
	return ctx
}

// start runs the agent until it is ready, as often as it takes.
func (s *site) start(name, home string) {
	s.t.Helper()
	s.inj = &fault.Injector{}
	for range 20 {
		if s.open(name, home) == nil {
			return
		}
	}
	s.t.Fatalf("agent %s does not start: %v", name, s.open(name, home))
}

// open is one start, under the injector as it is armed.
func (s *site) open(name, home string) error {
	if s.a != nil {
		s.stop(s.a)
	}
	if s.inj.Dead() {
		s.inj = &fault.Injector{}
	}
	life, end := context.WithCancel(context.Background())
	s.inj.Crash = end
	s.life = life
	s.w.t = s.top // the agent outlives the case
	a, err := s.w.try(life, name, home, s.m, false, s.inj.Seam)
	s.w.t = s.t
	if err != nil {
		end()
		return err
	}
	go func() {
		<-a.done
		end()
	}()
	select {
	case <-a.Ready():
		s.a = a
		return nil
	case <-life.Done():
	case <-time.After(limit):
	}
	s.stop(a)
	return fmt.Errorf("not ready: %w", errors.Join(a.err, errors.New("it died")))
}

// stop ends an agent as a crash does: from now on nothing of it reaches the world.
func (s *site) stop(a *agent) {
	a.crash()
	_ = a.client.Close()
}

// again starts the agent anew if it has died, or ended by itself.
func (s *site) again() {
	s.t.Helper()
	switch left := s.a.session.hasLeft(); {
	case s.life.Err() != nil || left:
	case s.a.session.Err() == nil:
		return
	default: // then it ends by itself
		<-s.life.Done()
	}
	s.stop(s.a)
	s.start(s.a.id.Node, s.a.home)
}

// seen brings the agent's mirror up to now, through an event: worlds share an etcd,
// whose revision runs ahead of a world's own.
func (a *agent) seen(ctx context.Context) error {
	resp, err := a.w.client.Txn().Put(ctx, a.w.keys.Root()+"tick", "")
	if err != nil {
		return err
	}
	if !a.reach(ctx, resp.Header.Revision, limit) {
		return errNotYet
	}
	return nil
}

// turn is one round of janitor and reaper.
func (a *agent) turn(ctx context.Context) error {
	if err := a.seen(ctx); err != nil {
		return err
	}
	a.settleOrphans(ctx)
	c := a.chores()
	a.each(ctx, c.sweep, a.sweepBoot)
	a.each(ctx, c.relock, a.relock)
	a.each(ctx, c.lapse, a.lapse)
	a.inspect(ctx, c, true)
	if err := a.seen(ctx); err != nil {
		return err
	}
	d := a.duties()
	if d.elect {
		a.elect(ctx)
		if err := a.seen(ctx); err != nil {
			return err
		}
		d = a.duties()
	}
	a.each(ctx, d.free, func(ctx context.Context, ref Ref) error { return a.freeOne(ctx, ref, d.weighed[ref], d.members) })
	for ref, node := range d.drop {
		if err := a.dropNode(ctx, ref, node, d.members); err != nil {
			return err
		}
	}
	a.each(ctx, d.reclaim, a.reclaim)
	return a.seen(ctx)
}

var errNotYet = errors.New("not yet")

// until lets both agents work until cond holds, for some turns.
func (s *site) until(what string, cond func() bool) error {
	for range 5 {
		if cond() {
			return nil
		}
		for _, a := range []*agent{s.a, s.b} {
			if err := a.turn(s.ctx()); err != nil {
				return err
			}
		}
	}
	if cond() {
		return nil
	}
	return fmt.Errorf("%s: %w", what, errNotYet)
}

// walked counts the cases of all operations.
var walked, missed atomic.Int64

// TestWalk takes every operation through every point that it passes, in every mode:
// the step is broken, the client asks again, and in the end nothing is twice, half or
// left.
func TestWalk(t *testing.T) {
	seed, err := fault.Seed()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("IDPOOL_WALK_SEED=%d", seed)
	t.Run("operations", func(t *testing.T) {
		for _, op := range operations {
			t.Run(op.name, func(t *testing.T) {
				t.Parallel()
				walk(t, op, seed)
			})
		}
	})
	t.Logf("walked %d cases of %d operations; %d more did not come to their point again", walked.Load(), len(operations), missed.Load())
	if n := walked.Load(); n < 100 || missed.Load() > n/4 {
		t.Errorf("%d cases walked, %d missed: vacuous", n, missed.Load())
	}
}

// operation is what a walk breaks: prepare sets the scene, without faults, and
// returns what a client, or the agent's own loops, do until it succeeds.
type operation struct {
	name    string
	prepare func(s *site) (run func() error)
}

func walk(t *testing.T, op operation, seed uint64) {
	s := newSite(t)
	cases := s.pass(t, op, nil)
	if len(cases) == 0 {
		t.Fatal("it passes no point")
	}
	for _, c := range fault.Sample(cases, seed) {
		ok := t.Run(c.String(), func(t *testing.T) {
			s.pass(t, op, &c)
			walked.Add(1)
		})
		if !ok { // what is left of it would spoil the next
			s = newSite(t)
		}
	}
	s.t = t
	s.w.t = t
	s.w.judge()
}

// pass takes an operation through one case, nil for none; it returns the cases of
// what was passed.
func (s *site) pass(t *testing.T, op operation, c *fault.Case) []fault.Case {
	s.n++
	s.t, s.held = t, nil
	outer := s.w.t
	s.w.t = t
	defer func() { s.w.t = outer }()
	run := op.prepare(s)
	inj := s.inj
	inj.Record()
	if c != nil {
		inj.Arm(*c)
	}
	err := errNotYet
	for try := 0; err != nil; try++ {
		if try == 20 {
			t.Fatalf("it does not succeed: %v", err)
		}
		err = run()
		s.again()
	}
	passed := inj.Cases()
	if c != nil && !inj.Fired() {
		missed.Add(1)
	}
	inj.Record()
	s.quiet()
	return passed
}

// quiet ends everything that clients had, and nothing may be left (P6) but the
// bystander's, which nobody touched (P5).
func (s *site) quiet() {
	s.t.Helper()
	s.m.set(func() { s.m.live, s.m.procs = map[string]bool{}, map[uint32]bool{} })
	s.b.m.set(func() { s.b.m.live = map[string]bool{"bystander": true} })
	for _, g := range s.held {
		if _, _, err := s.b.Release(s.ctx(), Release{Refs: g.refs(), Token: g.Token, Whole: true, By: "the walk"}); err != nil {
			s.t.Fatalf("release: %v", err)
		}
	}
	var left map[string]string
	err, bound := errNotYet, s.ctx0()
	for err != nil && bound.Err() == nil { // a hold by time may still last
		err = s.until("nothing is left", func() bool {
			left = s.left()
			return len(left) == 0
		})
	}
	if err != nil {
		s.t.Fatalf("%v: %v", err, left)
	}
	if now := s.raw(s.stands); now != s.bystander {
		s.t.Fatalf("the bystander's claim was touched:\n%s\n%s", s.bystander, now)
	}
}

func (s *site) left() map[string]string {
	all := s.w.stored(s.w.keys.Root())
	left := map[string]string{}
	for key, value := range all {
		part, _, _ := strings.Cut(strings.TrimPrefix(key, s.w.keys.Root()), "/")
		var r Record
		switch {
		case key == s.w.keys.Claim(s.stands.Space, s.stands.ID), key == s.w.keys.ReaperLock():
		case part == "claims", part == "locks", part == "services":
			left[key] = value
		case part == "grants" && (json.Unmarshal([]byte(value), &r) != nil || !r.Ended):
			left[key] = value
		}
	}
	return left
}
