package leases

import (
	"context"

	"github.com/idpool/idpool/idset"
)

// observation is one look at this node, taken in the order of its fields: a
// revision, who of the claims known then may still start something, what runs. In
// that order nothing slips through: whoever is gone before the scan has started
// all that it ever will, and a claim newer than the revision is not judged.
type observation struct {
	rev   int64
	stale error
	live  map[Ref]bool // a requester here may still start something
	used  idset.Set
	runs  func(Ref, uint32) bool
}

// observation looks at this node: one scan. The error means "cannot tell".
func (a *Allocator) observation(ctx context.Context) (*observation, error) {
	o := &observation{}
	o.rev, o.stale = a.mirror.Revision()
	o.live = a.starters()
	used, err := a.prover.InUse(ctx, 0)
	if err != nil {
		return nil, err
	}
	o.used, o.runs = used, a.runsBy(used)
	return o, nil
}

// starters are the claims of this boot whose requesters here may still start
// something.
func (a *Allocator) starters() map[Ref]bool {
	requesters := map[Ref][]Requester{}
	a.mirror.read(func(v *view) {
		for ref := range v.mine {
			if p := v.claims[ref].Val.On(a.id.Node); p.Boot == a.id.Boot {
				requesters[ref] = p.Requesters
			}
		}
	})
	live := map[Ref]bool{}
	for ref, rs := range requesters {
		if a.mayStart(ref, rs) {
			live[ref] = true
		}
	}
	return live
}

// manySuspects is the block size from which the cheap look asks only for the
// first ids.
const manySuspects = 1024

// runsBy tells whether something runs under a claim's ids: by a scan's result,
// and by the cheap look behind it (a process may have come by its real uid since).
func (a *Allocator) runsBy(used idset.Set) func(Ref, uint32) bool {
	return func(ref Ref, count uint32) bool {
		if !used.Intersect(idset.Of(ref.span(count))).IsEmpty() {
			return true
		}
		for i := range min(count, manySuspects) {
			if a.prover.Suspect(ref.ID + i) {
				return true
			}
		}
		return false
	}
}
