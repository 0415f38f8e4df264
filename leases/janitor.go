package leases

import (
	"context"
	"slices"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/idset"
)

const (
	// glance is how often the node looks whether something needs a scan.
	glance = 200 * time.Millisecond
	// parallel is how many claims one round works on at a time: a batch's worth.
	parallel = 2 * maxChildren
)

// chores are what one look at the mirror finds to do on this node.
type chores struct {
	inquire []Ref // locked, and no requester of ours may start anything
	lapse   []Ref // likewise, of VLANs: no scan decides
	relock  []Ref // locked, a requester lives, and the lock is gone or under the lease before ours
	sweep   []Ref // name us with an earlier boot
	watch   []Ref // used, idle or reclaimed: compare with what runs
	report  bool  // a quarantined claim waits for our proof
	again   bool  // and only because our last one found it in use
}

// janitor keeps this node's claims true until ctx ends: inquiries, re-locks, the
// sweep of an earlier boot, idle marks, foreign uses, proofs, and grants that
// nobody was told of. It looks at every glance, when woken, and scans when there
// is a reason or the last scan is a while ago.
func (a *Allocator) janitor(ctx context.Context) error {
	tick := time.NewTicker(glance)
	defer tick.Stop()
	var scanned, reported time.Duration
	ctx, stop := a.janitorPulse.begin(ctx)
	defer stop()
	for {
		beat(ctx)
		a.settleOrphans(ctx)
		c := a.chores()
		a.each(ctx, c.sweep, a.sweepBoot)
		a.each(ctx, c.relock, a.relock)
		a.each(ctx, c.lapse, a.lapse)
		a.settleInheritance(ctx)
		due := BootTime()-scanned > time.Duration(a.scan.Load())
		gap := a.reportGap()
		if c.again {
			gap += time.Second
		}
		if c.report && BootTime()-reported < gap {
			c.report = false
		}
		if due || c.report || len(c.inquire) > 0 {
			if due { // a scan for a report alone does not look for strangers
				scanned = BootTime()
			}
			if a.inspect(ctx, c, due) {
				reported = BootTime()
			}
		}
		select {
		case <-tick.C:
		case <-a.nudge:
		case <-ctx.Done():
			return nil
		}
	}
}

// reportGap is the least time between two reports: it grows with the cluster.
func (a *Allocator) reportGap() time.Duration {
	n := 0
	a.mirror.read(func(v *view) { n = len(v.nodes) })
	return time.Duration(n) * time.Second / 200
}

// chores reads the mirror; it writes nothing and looks at no process but the
// requesters'.
func (a *Allocator) chores() chores {
	var c chores
	var locked []Ref
	requesters := map[Ref][]Requester{}
	open := map[Ref]bool{} // a hand-over here is not over
	a.mirror.read(func(v *view) {
		for ref := range v.mine {
			claim := v.claims[ref].Val
			p := claim.On(a.id.Node)
			switch {
			case p.Boot != a.id.Boot:
				if claim.State.held() {
					c.sweep = append(c.sweep, ref)
				}
			case claim.State == Locked:
				locked = append(locked, ref)
				requesters[ref] = p.Requesters
				open[ref] = p.starters() || (p.kept() && !p.Confirmed)
			case ref.vlan():
			case claim.State == Used || claim.State == Idle || (claim.State == Quarantined && claim.Reclaimed):
				c.watch = append(c.watch, ref)
			}
		}
		c.report, c.again = v.reportDue(a.id.Node, a.id.Boot)
	})
	for _, ref := range locked {
		if a.mayStart(ref, requesters[ref]) {
			a.mirror.read(func(v *view) {
				if l, ok := v.locks[ref]; !ok || a.session.inherited(l.lease) {
					c.relock = append(c.relock, ref)
				}
			})
		} else if ref.vlan() {
			c.lapse = append(c.lapse, ref)
		} else if open[ref] {
			c.inquire = append(c.inquire, ref)
		}
	}
	return c
}

// reportDue tells whether some quarantined claim needs a word of this node that
// its last proof does not say (rule 10), and whether that proof said "in use" of
// all of them.
func (v *view) reportDue(self, boot string) (due, again bool) {
	p := v.proofs[self].Val
	for ref := range v.quarantined {
		if !reportable(ref, self) {
			continue
		}
		c := v.claims[ref]
		if p == nil || p.Boot != boot || v.meta.Val == nil || p.Epoch != v.meta.Val.Epoch || p.Revision < c.ModRev {
			return true, false
		}
		again = again || p.lists(ref, c.Val.Count)
	}
	return again, again
}

// reportable tells whether a node's proofs speak of a space: cluster-scoped uids
// and its own.
func reportable(ref Ref, self string) bool {
	node, scoped := ref.Space.Node()
	return ref.Space == cluster.SpaceUID || (scoped && node == self)
}

// inspect scans once and acts on what it saw. It tells whether it reported.
func (a *Allocator) inspect(ctx context.Context, c chores, all bool) bool {
	seen, err := a.observation(ctx)
	why := ""
	if err != nil {
		why = clip(err.Error())
	}
	if ctx.Err() != nil {
		return false
	}
	if e := a.session.tellNoProof(ctx, why); e != nil {
		a.log.Debug("presence not updated", zap.Error(e))
	}
	if err != nil {
		return false
	}
	a.each(ctx, c.inquire, func(ctx context.Context, ref Ref) error { return a.inquire(ctx, ref, seen) })
	a.each(ctx, c.watch, func(ctx context.Context, ref Ref) error { return a.observe(ctx, ref, seen) })
	if all {
		a.strangers(ctx, seen.used)
	}
	if !c.report || seen.stale != nil {
		return false
	}
	if err := a.publish(ctx, a.report(seen)); err != nil {
		a.log.Debug("proof not written", zap.Error(err))
	}
	return true
}

// each runs f for all refs, so many at a time that they share transactions.
func (a *Allocator) each(ctx context.Context, refs []Ref, f func(context.Context, Ref) error) {
	one := func(ref Ref) {
		defer beat(ctx)
		short, cancel := a.budget(ctx)
		defer cancel()
		if err := f(short, ref); err != nil && ctx.Err() == nil {
			a.log.Debug("chore", refField(ref), errField(err))
		}
	}
	if len(refs) == 1 {
		one(refs[0])
		return
	}
	var g errgroup.Group
	g.SetLimit(parallel)
	for _, ref := range refs {
		g.Go(func() error {
			one(ref)
			return nil
		})
	}
	_ = g.Wait()
}

// inquire decides on a locked claim whose requesters here are gone: by a scan
// that began after that was seen (rules 1 to 3).
func (a *Allocator) inquire(ctx context.Context, ref Ref, seen *observation) error {
	_, err := a.update(ctx, "inquiry", []Ref{ref}, func(s *snap) (*plan, error) {
		c := s.claims[ref].Val
		if c == nil || s.claims[ref].ModRev > seen.rev {
			return nil, nil
		}
		p := c.On(a.id.Node)
		if p == nil || p.Boot != a.id.Boot || seen.live[ref] {
			return nil, nil
		}
		c = c.clone()
		if !c.inquiry(a.id.Node, seen.runs(ref, c.Count), "its hold ended and nothing ran under it on "+a.id.Node, time.Now().UTC()) {
			return nil, nil
		}
		return &plan{edits: []edit{{ref: ref, after: c, lock: lockFor(c)}}}, nil
	})
	return err
}

// lapse ends a VLAN whose hold is over before it was confirmed. Where it was
// granted with uids it goes their way: their inquiry comes first, and what is in use
// keeps it.
func (a *Allocator) lapse(ctx context.Context, ref Ref) error {
	refs := a.Group(ref)
	_, err := a.update(ctx, "lapse", refs, func(s *snap) (*plan, error) {
		c := s.claims[ref].Val
		if c == nil || c.State != Locked {
			return nil, nil
		}
		if p := c.On(a.id.Node); p == nil || p.Boot != a.id.Boot || a.mayStart(ref, p.Requesters) {
			return nil, nil
		}
		for _, o := range refs {
			u := s.claims[o].Val
			if o.vlan() || u == nil || u.Token != c.Token || !u.State.held() {
				continue
			}
			if u.State == Locked {
				return nil, nil
			}
			c = c.clone()
			c.touch(Used, time.Now().UTC())
			c.Nodes = nil
			return &plan{edits: []edit{{ref: ref, after: c, lock: lockDrop}}}, nil
		}
		c = c.clone()
		if !c.inquiry(a.id.Node, false, "its hold ended before it was confirmed", time.Now().UTC()) {
			return nil, nil
		}
		return &plan{edits: []edit{{ref: ref, after: c, lock: lockFor(c)}}}, nil
	})
	return err
}

func lockFor(c *Claim) lockEdit {
	if c.State == Locked {
		return lockKeep
	}
	return lockDrop
}

// observe writes down that a used claim is idle here, or an idle one runs again.
func (a *Allocator) observe(ctx context.Context, ref Ref, seen *observation) error {
	_, err := a.update(ctx, "observe", []Ref{ref}, func(s *snap) (*plan, error) {
		c := s.claims[ref].Val
		if c == nil || s.claims[ref].ModRev > seen.rev {
			return nil, nil
		}
		p := c.On(a.id.Node)
		if p == nil || p.Boot != a.id.Boot {
			return nil, nil
		}
		c = c.clone()
		changed := false
		if seen.runs(ref, c.Count) {
			changed = c.runs(a.id.Node, time.Now().UTC())
		} else if !seen.live[ref] {
			changed = c.idle(a.id.Node, time.Now().UTC())
		}
		if !changed {
			return nil, nil
		}
		return &plan{edits: []edit{{ref: ref, after: c, lock: lockKeep}}}, nil
	})
	return err
}

// relock puts the lock beside a claim again, after a lost session. The guarded
// write refuses what changed meanwhile (rule 6).
func (a *Allocator) relock(ctx context.Context, ref Ref) error {
	_, err := a.update(ctx, "relock", []Ref{ref}, func(s *snap) (*plan, error) {
		c := s.claims[ref].Val
		if c == nil || c.State != Locked || c.On(a.id.Node) == nil {
			return nil, nil
		}
		return &plan{edits: []edit{{ref: ref, after: c.clone(), lock: lockPut}}}, nil
	})
	return err
}

// sweepBoot takes this node's earlier boot out of a claim: nothing of it survived.
func (a *Allocator) sweepBoot(ctx context.Context, ref Ref) error {
	_, err := a.update(ctx, "sweep", []Ref{ref}, func(s *snap) (*plan, error) {
		c := s.claims[ref].Val
		if c == nil || !c.State.held() {
			return nil, nil
		}
		if p := c.On(a.id.Node); p == nil || p.Boot == a.id.Boot {
			return nil, nil
		}
		c = c.clone()
		c.drop(a.id.Node, ReasonBoot, "node "+a.id.Node+" was rebooted: nothing survived", time.Now().UTC())
		return &plan{edits: []edit{{ref: ref, after: c, lock: lockFor(c)}}}, nil
	})
	return err
}

// strangers writes down uids of our pools that run here although nobody was
// granted them, and says where somebody else's grant runs on this machine.
func (a *Allocator) strangers(ctx context.Context, used idset.Set) {
	type stranger struct {
		pool  string
		block uint32
	}
	found := map[Ref]stranger{}
	a.mirror.read(func(v *view) {
		for name, p := range v.pools {
			if !p.ofUIDs() {
				continue
			}
			space := p.space(a.id.Node)
			for id := range used.Intersect(p.ids).All() {
				ref := Ref{space, id - id%p.Val.Block}
				if !p.firsts.Contains(ref.ID) {
					continue
				}
				if !v.takenIn(space).Contains(ref.ID) {
					found[ref] = stranger{name, p.Val.Block}
				} else if c := v.claims[ref].Val; c != nil && c.State.held() && !a.sameMachine(v, c) {
					a.hooks.foreign(true)
					a.log.Warn("foreign use: a granted uid runs on a node that it was not granted to", refField(ref), zap.Strings("granted_to", c.NodeNames()), zap.String("runs_on", a.id.Node))
				}
			}
		}
	})
	if len(found) == 0 {
		return
	}
	again, err := a.prover.InUse(ctx, 0) // an id may have been freed since the scan
	if err != nil {
		return
	}
	var refs []Ref
	runs := a.runsBy(again)
	for ref, s := range found {
		if runs(ref, s.block) {
			refs = append(refs, ref)
		}
	}
	a.each(ctx, refs, func(ctx context.Context, ref Ref) error {
		if a.isFlying(ref) {
			return nil
		}
		return a.foreign(ctx, ref, found[ref].pool, found[ref].block)
	})
}

// sameMachine tells whether one of the claim's nodes runs in this boot: several
// agents on one machine see each other's processes (rule 16).
func (a *Allocator) sameMachine(v *view, c *Claim) bool {
	return slices.ContainsFunc(c.Nodes, func(p Presence) bool {
		n := v.nodes[p.Node].Val
		return p.Node == a.id.Node || (n != nil && n.Boot == a.id.Boot && n.PIDNS == a.id.PIDNS)
	})
}

func (a *Allocator) isFlying(ref Ref) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	rev, ok := a.flying[ref]
	return ok && rev == 0
}

func refField(ref Ref) zap.Field   { return zap.Stringer("id", ref) }
func errField(err error) zap.Field { return zap.Error(err) }
