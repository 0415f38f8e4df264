package leases

import (
	"context"
	"maps"
	"slices"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/problem"
)

// Import writes claims for VLANs that are in use without a grant of ours, such as
// those of a pool file: used, held by caller, with a holder's name each. Ids outside
// the inventory's ranges are held as well, and visible as outside. What has a claim
// already, readable or not, is left alone, so a second import changes nothing. It
// tells which are new; progress, if not nil, is told how many are done.
//
// One round trip and one commit for each [MaxGroup] ids; an earlier part stands if a
// later one fails. ErrInvalid: no VLAN that can be granted, or an inventory that is
// kept in a file.
func (a *Allocator) Import(ctx context.Context, pool string, holders map[uint32]string, caller string, progress func(done int)) (idset.Set, error) {
	var added idset.Set
	ids := slices.Sorted(maps.Keys(holders))
	if n := len(ids); n > 0 && (ids[0] < minVLAN || ids[n-1] > maxVLAN) {
		return added, problem.New(problem.CodeInvalid, "nothing imported: ids from %d to %d are not all VLANs that can be granted (%d to %d)", ids[0], ids[n-1], minVLAN, maxVLAN)
	}
	for done := 0; done < len(ids); {
		part := ids[done:min(done+MaxGroup, len(ids))]
		fresh, err := a.importPart(ctx, pool, part, holders, caller)
		if err != nil {
			return added, err
		}
		added = added.Add(fresh)
		if done += len(part); progress != nil {
			progress(done)
		}
	}
	return added, nil
}

// importPart imports what fits one transaction, if the inventory is as it was seen.
func (a *Allocator) importPart(ctx context.Context, pool string, ids []uint32, holders map[uint32]string, caller string) (idset.Set, error) {
	ctx, cancel := a.budget(ctx)
	defer cancel()
	if err := a.linearize(ctx); err != nil {
		return idset.Set{}, err
	}
	var refs []Ref
	a.mirror.read(func(v *view) {
		for _, id := range ids { // what cannot be read is taken already
			if ref := (Ref{cluster.Space(pool), id}); v.unreadable[a.keys.Claim(ref.Space, id)] == nil {
				refs = append(refs, ref)
			}
		}
	})
	var fresh idset.Set
	_, err := a.update(ctx, "import", refs, func(s *snap) (*plan, error) {
		p := &plan{}
		fresh = idset.Set{}
		var rev int64
		var taken idset.Set
		var err error
		a.mirror.read(func(v *view) {
			entry, ok := v.pools[pool]
			switch {
			case !ok:
				err = unknownPool(v, pool)
			case entry.ofUIDs():
				err = problem.New(problem.CodeInvalid, "pool %s is no VLAN inventory: nothing imported", pool)
			case entry.Val.Outside != nil:
				err = keptOutside(entry)
			}
			unread := v.takenIn(cluster.Space(pool))
			rev, taken = entry.ModRev, unread.Clone()
		})
		if err != nil {
			return nil, err
		}
		for _, ref := range refs {
			if s.claims[ref].Val == nil && !taken.Contains(ref.ID) {
				c := a.ownClaim(Used, pool, 1)
				c.Nodes, c.Caller, c.Holder = nil, caller, clip(holders[ref.ID])
				p.edits = append(p.edits, edit{ref: ref, after: c, lock: lockKeep, pool: pool, poolRev: rev})
				fresh.Insert(ref.ID)
			}
		}
		return p, nil
	})
	return fresh, err
}
