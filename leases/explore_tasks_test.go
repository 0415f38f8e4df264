package leases

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/idpool/idpool/idset"

	"github.com/idpool/idpool/problem"
)

// kind is what an operation is.
type kind int8

const (
	kOpen kind = iota
	kLost
	kDoubt
	kAsk
	kJoin
	kConfirm
	kRelease
	kWhole
	kSweep
	kRelock
	kInspect
	kInquire
	kObserve
	kReport
	kElect
	kFree
	kDrop
	kReclaim
	kOrphans
	kLeave
	kFence
	kUnfence
	kRemove
	kPool
)

var kindWords = [...]string{
	"opens a session", "learns that its session is over", "audits etcd after the reconnect", "grant for", "join for", "confirm for", "release for",
	"operator's release of", "sweep of an earlier boot from", "lock put back beside", "look for the janitor", "inquiry on", "idle or running mark on",
	"report", "election of the reaper", "freeing of", "taking a node out of", "reclaim of", "settling of grants nobody was told of", "leave", "fence of", "unfence of", "removal of", "change of the pool",
}

func (t *task) String() string {
	what := kindWords[t.kind]
	switch t.kind {
	case kAsk, kJoin, kConfirm, kRelease:
		what += " " + partyName(t.party)
		if t.keep {
			what += " (keep)"
		}
	case kWhole, kSweep, kRelock, kInquire, kObserve, kFree, kReclaim:
		what += " " + t.ref.String()
	case kDrop:
		what += " " + t.ref.String() + " (" + t.other + ")"
	case kFence, kUnfence, kRemove:
		what += " " + t.other
	}
	if t.gone {
		what += ", its caller gone"
	}
	return fmt.Sprintf("%s: %s", hostName(t.node), what)
}

// held is a result of what hands ids out.
type held struct {
	token string
	refs  []Ref
	err   error
}

// do calls the engine.
func (x *explorer) do(ctx context.Context, a *Allocator, t *task) any {
	refs := []Ref{t.ref}
	switch t.kind {
	case kOpen:
		if err := a.session.open(ctx); err != nil {
			if terminal(err) || errors.Is(err, problem.ErrFrozen) {
				_ = a.session.fail(err)
			}
			return err
		}
		a.session.audit.note(ctx, nil, a.session.home.Epoch())
	case kLost:
		a.session.lost(a.session.guard, errUnknown)
	case kDoubt:
		a.session.settleDoubt(ctx)
	case kAsk:
		g, err := a.Grant(ctx, x.request(t))
		if err != nil {
			return held{err: err}
		}
		return held{g.Token, g.refs(), nil}
	case kJoin:
		p := x.env.party[t.party]
		_, err := a.Join(ctx, p.refs, p.token, x.requester(t.party))
		return held{p.token, p.refs, err}
	case kConfirm:
		return x.doConfirm(ctx, a, t)
	case kRelease:
		p := x.env.party[t.party]
		_, _, err := a.Release(ctx, Release{Refs: p.refs, Token: p.token, Requester: partyName(t.party), By: "itself"})
		return err
	case kWhole:
		_, _, err := a.Release(ctx, Release{Refs: a.Group(t.ref), Token: t.token, Whole: true, By: "an operator"})
		return err
	case kSweep:
		return a.sweepBoot(ctx, t.ref)
	case kRelock:
		return a.relock(ctx, t.ref)
	case kInspect:
		return x.doInspect(ctx, a)
	case kInquire:
		return a.inquire(ctx, t.ref, t.seen)
	case kObserve:
		return a.observe(ctx, t.ref, t.seen)
	case kReport:
		return a.publish(ctx, a.report(t.seen))
	case kElect:
		a.elect(ctx)
	case kFree:
		return a.freeOne(ctx, t.ref, t.rev, t.member)
	case kDrop:
		return a.dropNode(ctx, t.ref, t.other, t.member)
	case kReclaim:
		return a.reclaim(ctx, refs[0])
	case kOrphans:
		a.settleOrphans(ctx)
	default:
		return x.doOperator(ctx, a, t)
	}
	return nil
}

// doOperator is what people do.
func (x *explorer) doOperator(ctx context.Context, a *Allocator, t *task) any {
	switch t.kind {
	case kLeave:
		return a.Leave(ctx)
	case kFence:
		_, err := a.Fence(ctx, t.other, "off", "op", false, false)
		return err
	case kUnfence:
		return a.Unfence(ctx, t.other, "op")
	case kRemove:
		return a.Remove(ctx, t.other)
	}
	_, _, err := a.SetPool(ctx, "p", false, func(p *Pool, exists bool) error {
		p.Order = OrderLowest
		p.Ranges = idset.Of(idset.Range{Lower: 1000, Higher: 1000 + uint32(x.sc.uids) - 1})
		if t.keep { // without its first id
			p.Exclude = idset.Of(idset.Range{Lower: 1000, Higher: 1000})
		} else {
			p.Exclude = idset.Set{}
		}
		return nil
	})
	return err
}

// doInspect is the janitor's look, whose findings are acted on in steps.
func (x *explorer) doInspect(ctx context.Context, a *Allocator) any {
	c := a.chores()
	seen, err := a.observation(ctx)
	if err != nil {
		return err
	}
	slices.SortFunc(c.inquire, Ref.compare)
	slices.SortFunc(c.watch, Ref.compare)
	return &looked{seen, c.inquire, c.watch, c.report}
}

// doConfirm confirms each id of the party's grant, after a look at what runs.
func (x *explorer) doConfirm(ctx context.Context, a *Allocator, t *task) any {
	p := x.env.party[t.party]
	used, err := a.prover.InUse(ctx, 0)
	for _, ref := range p.refs {
		if err == nil {
			_, err = a.Confirm(ctx, ref, p.token, partyName(t.party), t.keep, used.Contains(ref.ID))
		}
	}
	return err
}

func (x *explorer) requester(i int) Requester {
	return Requester{ID: partyName(i), Hold: HoldPID, PID: 100 + i}
}

func (x *explorer) request(t *task) GrantRequest {
	spec := x.sc.parties[t.party]
	return GrantRequest{Caller: "t", Key: spec.key, Requester: x.requester(t.party), Wants: []Want{{Pool: "p", Count: max(1, spec.count)}}}
}

// finished puts a task's result into the scene being made.
func (x *explorer) finished(t *task) {
	s := x.now
	switch r := x.result.(type) {
	case *looked:
		m := *s.hosts[t.node].mind
		m.looked = r
		s.hosts[t.node].mind = &m
	case held:
		p := &s.party[t.party]
		switch {
		case p.dead && !p.fork:
		case p.stage != askingParty:
		case r.err == nil:
			p.stage, p.token, p.refs = heldParty, r.token, r.refs
		case t.kind == kJoin:
			p.stage = doneParty
		default:
			p.stage = idleParty
		}
	default:
		if t.kind == kConfirm && x.result == nil {
			s.party[t.party].settled = true
		}
		if t.kind == kLeave && x.result == nil {
			s.hosts[t.node].mind = nil
			s.tasks = slices.DeleteFunc(slices.Clone(s.tasks), func(o *task) bool { return o.node == t.node })
		}
	}
}
