package leases

import (
	"context"
	"errors"
	"maps"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/problem"
)

// recoverer audits each doubt, and brings this node from what etcd shows to writing
// in it: at once where it is as it was, by way of an assertion where an operator
// adopted a restore. It works until ctx ends.
func (a *Allocator) recoverer(ctx context.Context) error {
	tick := time.NewTicker(glance)
	defer tick.Stop()
	var wait cluster.Backoff
	for {
		fed := a.gate.changes()
		a.session.mu.Lock()
		changed := a.session.changed
		a.session.mu.Unlock()
		if err := a.recoverOnce(ctx); err != nil && ctx.Err() == nil {
			a.stuck(err)
			if !errors.Is(err, errMoved) && wait.Wait(ctx) != nil {
				return nil
			}
		} else {
			a.stuck(nil)
			wait = cluster.Backoff{}
		}
		select {
		case <-fed:
		case <-changed:
		case <-a.recheck():
		case <-ctx.Done():
			return nil
		}
		if !a.gate.isTrusted() {
			continue
		}
		select { // what is fed must not make this loop spin
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// recheck is how long nothing need change for another look: a doubt that could not
// be settled, or a look at the machine that failed.
func (a *Allocator) recheck() <-chan time.Time { return time.After(time.Second) }

// stuck remembers, and tells once, why this node cannot say what it holds.
func (a *Allocator) stuck(err error) {
	a.mu.Lock()
	was := a.stuckBy
	a.stuckBy = err
	a.mu.Unlock()
	if err != nil && (was == nil || was.Error() != err.Error()) {
		a.log.Warn("this node does not write yet", zap.String("node", a.id.Node), zap.Error(err))
	}
}

// recoverOnce does what is to be done now. nil means that it is done, or that
// something else must happen first.
func (a *Allocator) recoverOnce(ctx context.Context) error {
	if !a.sure(ctx) {
		return nil
	}
	var meta Stored[cluster.Meta]
	a.gate.now().read(func(v *view) { meta = v.meta })
	if meta.Val == nil {
		return nil
	}
	a.session.follow(*meta.Val, meta.Raw)
	mem := a.session.home.get()
	normal := meta.Val.State == cluster.StateNormal
	switch {
	case meta.Val.Epoch == mem.Epoch && normal:
		if a.gate.isTrusted() {
			return nil
		}
		return a.gate.open(false)
	case meta.Val.Epoch == mem.Epoch, !normal && !meta.Val.Adopted:
		return nil // frozen
	case normal && (mem.Spoke == meta.Val.Epoch || mem.Epoch == ""): // it has spoken, or has nothing to say
		return a.arrive(ctx, *meta.Val)
	}
	g := a.session.standing()
	if g == nil || g.epoch != meta.Val.Epoch {
		return nil
	}
	if !normal && a.hasSaid(*meta.Val) {
		return a.resume(ctx)
	}
	if err := a.assertAll(ctx, g, *meta.Val); err != nil {
		return err
	}
	if normal {
		return a.arrive(ctx, *meta.Val)
	}
	return nil
}

// sure tells whether what is fed comes from an audited etcd; it audits if need be.
func (a *Allocator) sure(ctx context.Context) bool {
	s := a.session
	state := func() (doubt, listed bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.audited != s.doubts, s.listed == s.doubts
	}
	doubt, listed := state()
	if doubt && listed {
		s.settleDoubt(ctx)
		doubt, _ = state()
	}
	return !doubt
}

// hasSaid tells whether this node's word stands, and is newer than everything that
// was asserted.
func (a *Allocator) hasSaid(meta cluster.Meta) bool {
	said := false
	a.gate.now().read(func(v *view) {
		r := v.recoveries[a.id.Node].Val
		said = r != nil && r.Epoch == meta.Epoch && r.Boot == a.id.Boot && r.Revision >= v.marked
	})
	return said && a.session.home.get().Spoke == meta.Epoch
}

// assertAll asserts, looks at what runs, writes down what nobody asserted, and says
// so where a recovery is under way.
func (a *Allocator) assertAll(ctx context.Context, g *guard, meta cluster.Meta) error {
	s := &asserting{a: a, g: g, meta: meta, late: meta.State == cluster.StateNormal}
	if err := s.pass(ctx, a.knownEntries(s.late)); err != nil {
		return err
	}
	now := a.gate.now()
	short, cancel := context.WithTimeout(ctx, a.client.Config().Budget)
	defer cancel()
	for now.wait(short, func(v *view) bool { return v.rev >= s.rev }) != nil {
		return problem.New(problem.CodeUnavailable, "etcd's watch does not catch up")
	}
	rev, stale := now.Revision()
	if stale != nil {
		return stale
	}
	foreign, err := s.look(ctx, now)
	if err != nil {
		return err
	}
	a.mu.Lock()
	a.late = nil
	if s.late {
		a.late = s.conflicts
	}
	a.mu.Unlock()
	a.log.Info("node has said what it holds", zap.String("node", a.id.Node), zap.Uint64("epoch", meta.Number), zap.Bool("late", s.late),
		zap.Int("known", s.known), zap.Int("asserted", s.asserted), zap.Int("foreign", foreign), zap.Int("conflicts", len(s.conflicts)))
	if s.late {
		return nil
	}
	if err := a.session.home.change(func(m *memory) { m.Spoke = meta.Epoch }); err != nil {
		return err
	}
	return s.say(ctx, s.settled(rev, foreign))
}

// look compares what runs here with what etcd shows after the assertion: an id of a
// pool that is in use and free becomes a foreign claim, which any journal's word
// beats; one that is another's, although this node's journal has it as granted here,
// is for an operator. A gateway runs nothing.
func (s *asserting) look(ctx context.Context, now *Mirror) (foreign int, err error) {
	a := s.a
	if a.id.Role == RoleGateway {
		return 0, nil
	}
	mine := s.grantedHere()
	live := map[Ref]bool{}
	for ref, c := range mine {
		live[ref] = a.mayStart(ref, c.claim.On(a.id.Node).Requesters)
	}
	used, err := a.prover.InUse(ctx, 0)
	if err != nil {
		return 0, problem.Wrap(problem.CodeNoProof, err, "node %s cannot say what runs on it", a.id.Node)
	}
	free := map[Ref]*Claim{}
	var lost []Ref
	runs := a.runsBy(used)
	now.read(func(v *view) {
		for name, p := range v.pools {
			if !p.ofUIDs() {
				continue
			}
			space := p.space(a.id.Node)
			for id := range used.Intersect(p.ids).All() {
				ref := Ref{space, id - id%p.Val.Block}
				if p.firsts.Contains(ref.ID) && !v.takenIn(space).Contains(ref.ID) {
					free[ref] = a.foreignClaim(name, p.Val.Block, s.meta.Epoch)
				}
			}
		}
		for ref, m := range mine {
			c := v.claims[ref].Val
			if c != nil && c.Token != m.claim.Token && c.State.held() && !a.sameMachine(v, c) && (live[ref] || runs(ref, m.claim.Count)) {
				lost = append(lost, ref)
			}
		}
	})
	for ref, c := range free {
		made, err := s.writeForeign(ctx, ref, c)
		if err != nil {
			return foreign, err
		}
		if made {
			foreign++
		}
	}
	return foreign, s.disputeLost(ctx, lost, mine)
}

// heldHere is a claim of the journal, and its entry.
type heldHere struct {
	claim *Claim
	entry jentry
}

// grantedHere are the uids that the journal has as held on this node in this boot.
func (s *asserting) grantedHere() map[Ref]heldHere {
	mine := map[Ref]heldHere{}
	for key, e := range s.a.journal.all() {
		ref, c := s.claimOf(key, e.Value)
		if c == nil || ref.vlan() || !c.State.held() {
			continue
		}
		if p := c.On(s.a.id.Node); p != nil && p.Boot == s.a.id.Boot {
			mine[ref] = heldHere{c, e}
		}
	}
	return mine
}

// disputeLost adds to the conflicts the ids that are in use here and another's,
// unless an operator has decided.
func (s *asserting) disputeLost(ctx context.Context, lost []Ref, mine map[Ref]heldHere) error {
	for _, ref := range lost {
		e := mine[ref].entry
		at, err := s.read(ctx, []jentry{e})
		if err != nil {
			return err
		}
		if m := at[0].mark; m != nil && m.Resolved != "" {
			continue
		}
		c := s.conflict(e, at[0], "it is in use, or about to be, on a node that lost it")
		c.Ours.Running = true
		s.conflicts = append(s.conflicts, c)
	}
	return nil
}

func (a *Allocator) foreignClaim(pool string, block uint32, epoch string) *Claim {
	c := a.ownClaim(step(Free, evSeenRunning).next, pool, block)
	c.Epoch, c.ReasonCode, c.Reason = epoch, ReasonForeign, "in use on "+a.id.Node+" although nobody was granted it"
	return c
}

// writeForeign creates a claim that keeps an id out of the pool, if it still is free.
func (s *asserting) writeForeign(ctx context.Context, ref Ref, c *Claim) (bool, error) {
	k := s.a.keys
	key := k.Claim(ref.Space, ref.ID)
	c.V, c.Of, c.Write = format, ref.String(), shortToken()
	puts := []clientv3.Op{clientv3.OpPut(key, string(cluster.Encode(c)))}
	if !s.late {
		m := Mark{V: format, In: s.meta.Epoch, Node: s.a.id.Node, Write: shortToken()} // older than anything
		puts = append(puts, clientv3.OpPut(k.Recovered(key), string(cluster.Encode(m))))
	}
	resp, err := s.a.client.Commit(ctx, append(s.g.compares(k, s.a.id.Node), clientv3.Compare(clientv3.CreateRevision(key), "=", 0)), puts, nil)
	if err != nil { // looked at anew: it may have been applied
		return false, problem.Wrap(problem.CodeUnavailable, err, "keep %s out of its pool", label(ref))
	}
	return resp.Succeeded, nil
}

// resume ends the recovery if everybody has spoken and nothing is disputed. Whoever
// sees it first does it; a round trip and a commit, and one to clear up.
func (a *Allocator) resume(ctx context.Context) error {
	short, cancel := a.budget(ctx)
	defer cancel()
	var cmps []clientv3.Cmp
	var put clientv3.Op
	a.gate.now().read(func(v *view) {
		if waits, conflicts := v.spoken(*v.meta.Val); len(waits)+len(conflicts) == 0 {
			cmps, put = resuming(a.keys, *v.meta.Val, v.meta.Raw, v.members.ModRev, v.rev, v.through(*v.meta.Val))
		}
	})
	if cmps == nil {
		return nil
	}
	resp, err := a.client.Commit(short, cmps, []clientv3.Op{put}, nil)
	if err == nil && resp.Succeeded {
		a.log.Info("granting resumes: every node has spoken, or is fenced", zap.String("node", a.id.Node))
	}
	return nil // else what is fed says what is to be done
}

// arrive lets this node write in an epoch: the mirror and the journal become what
// etcd shows, and what was decided before is void.
func (a *Allocator) arrive(ctx context.Context, meta cluster.Meta) error {
	sights, err := a.client.Look(ctx)
	if err != nil || len(sights) == 0 {
		return err
	}
	at := sights[0]
	if err := a.gate.open(true); err != nil {
		return err
	}
	if err := a.session.home.change(func(m *memory) { m.arrive(meta.Epoch, at.ClusterID, at.Index, at.Revision) }); err != nil {
		return err
	}
	a.mu.Lock()
	a.wrote = 0
	maps.DeleteFunc(a.flying, func(_ Ref, rev int64) bool { return rev != 0 })
	a.cleared, a.rotated = nil, map[string]uint32{}
	a.mu.Unlock()
	a.session.gen.Add(1)
	a.session.mu.Lock()
	a.session.tell()
	a.session.mu.Unlock()
	a.clearUp(ctx)
	a.wake()
	a.log.Info("node grants again", zap.String("node", a.id.Node), zap.Uint64("epoch", meta.Number))
	return nil
}

// clearUp deletes what a recovery that is over has left. An error leaves it to the
// next one.
func (a *Allocator) clearUp(ctx context.Context) {
	var raw []byte
	left := 0
	a.mirror.read(func(v *view) { raw, left = v.meta.Raw, len(v.marks)+len(v.recoveries) })
	if left == 0 {
		return
	}
	_, err := a.client.Commit(ctx, []clientv3.Cmp{clientv3.Compare(clientv3.Value(a.keys.Meta()), "=", string(raw))}, []clientv3.Op{
		clientv3.OpDelete(a.keys.RecoveredPrefix(), clientv3.WithPrefix()), clientv3.OpDelete(a.keys.RecoveryPrefix(), clientv3.WithPrefix()),
	}, nil)
	if err != nil {
		a.log.Debug("marks of the recovery not cleared up", errField(err))
	}
}
