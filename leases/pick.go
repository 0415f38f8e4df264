package leases

import (
	"cmp"
	"slices"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/problem"
)

// Want is one part of a group: Count ids of a pool.
type Want struct {
	Pool  string
	Count int
	// Within, if not nil, restricts the choice.
	Within *idset.Set
	// Exact, if not nil, is the one id wanted; Count is 1 then.
	Exact *uint32
	// Offset, if not nil, ties the id to that of the request's first want: it is
	// that number plus Offset. VLANs only; Count is 1 then.
	Offset *int64
	// Label is what a refusal, and the answer, call the id: "north_vlan_id".
	Label string
	// Key is the id's own allocation key in its claim; "" is the request's.
	Key string
}

// picked is a candidate that the mirror suggests.
type picked struct {
	ref     Ref
	pool    string
	poolRev int64
	policy  Policy
	label   string
	key     string
}

// pick chooses candidates for all wants and marks them as flying, so that no
// other request of this process chooses them. nil without an error means that
// the mirror shows too few free ids.
func (a *Allocator) pick(wants []Want) ([]picked, error) {
	if _, stale := a.mirror.Revision(); stale != nil {
		return nil, stale
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []picked
	var err error
	a.mirror.read(func(v *view) {
		a.landLocked(v.rev)
		var tied bool
		if wants, tied, err = a.tie(v, wants); err != nil || !tied {
			return
		}
		named := exacts(v, wants, a.id.Node)
		each := make([][]picked, len(wants))
		for _, i := range narrowest(wants) {
			w := wants[i]
			var some []picked
			if some, err = a.pickLocked(v, w, slices.Concat(slices.Concat(each...), named)); err != nil || some == nil {
				err = labelled(err, w.Label)
				return
			}
			for j := range some {
				some[j].label, some[j].key = w.Label, w.Key
			}
			each[i] = some
		}
		all = slices.Concat(each...)
	})
	for _, p := range all {
		a.flying[p.ref] = 0
	}
	return all, err
}

// narrowest orders wants such that those with the least choice choose first: the
// others then leave them what they need.
func narrowest(wants []Want) []int {
	choice := func(w Want) uint64 {
		switch {
		case w.Exact != nil:
			return 0
		case w.Within != nil:
			return w.Within.Count()
		}
		return 1 << 32
	}
	order := make([]int, len(wants))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(choice(wants[i]), choice(wants[j])) })
	return order
}

// exacts are the ids that wants name; their siblings must not pick them.
func exacts(v *view, wants []Want, node string) []picked {
	var named []picked
	for _, w := range wants {
		if p, ok := v.pools[w.Pool]; ok && w.Exact != nil {
			named = append(named, picked{ref: Ref{p.space(node), *w.Exact}})
		}
	}
	return named
}

func (a *Allocator) pickLocked(v *view, w Want, already []picked) ([]picked, error) {
	p, ok := v.pools[w.Pool]
	if !ok {
		return nil, unknownPool(v, w.Pool)
	}
	if p.Val.Outside != nil {
		return nil, keptOutside(p)
	}
	space := p.space(a.id.Node)
	firsts := p.firsts
	if w.Within != nil {
		firsts = firsts.Intersect(*w.Within)
		if firsts.IsEmpty() {
			t, bare := tradeOf(w.Pool)
			return nil, problem.New(problem.CodeOutsidePool, "%s %s has none of %s (it is %s)", t.pool, bare, w.Within, clipRanges(p.Val.Ranges)).
				Advise("look", "%s %s", t.show, bare)
		}
	}
	if w.Exact != nil {
		return a.pickExact(v, w, p, space)
	}
	some := make([]picked, 0, w.Count)
	barred := func(id uint32) bool {
		ref := Ref{space, id}
		if _, flying := a.flying[ref]; flying {
			return true
		}
		same := func(x picked) bool { return x.ref == ref }
		return slices.ContainsFunc(already, same) || slices.ContainsFunc(some, same)
	}
	for len(some) < w.Count {
		id, ok := a.next(p, w.Pool, firsts, v.takenIn(space), barred)
		if !ok {
			return nil, nil
		}
		some = append(some, picked{ref: Ref{space, id}, pool: w.Pool, poolRev: p.ModRev, policy: p.Val.Policy})
	}
	return some, nil
}

// pickExact is the one id asked for, or a refusal that names who has it.
func (a *Allocator) pickExact(v *view, w Want, p poolEntry, space cluster.Space) ([]picked, error) {
	ref := Ref{space, *w.Exact}
	if !p.firsts.Contains(ref.ID) {
		return nil, outsidePool(p, ref.ID)
	}
	if w.Within != nil && !w.Within.Contains(ref.ID) {
		return nil, excludedByItself(ref)
	}
	if c, ok := v.claims[ref]; ok {
		return nil, heldBy(ref, c.Val)
	}
	if _, flying := a.flying[ref]; flying || v.takenIn(space).Contains(ref.ID) {
		return nil, nil
	}
	return []picked{{ref: ref, pool: w.Pool, poolRev: p.ModRev, policy: p.Val.Policy}}, nil
}

// randomTries is how often a random pick may hit an id that flies before the
// search becomes systematic.
const randomTries = 8

// next finds a free id in the pool's order. Microseconds, whatever the pool's size.
func (a *Allocator) next(p poolEntry, name string, firsts, taken idset.Set, barred func(uint32) bool) (uint32, bool) {
	if p.Val.Order == OrderRandom {
		for range randomTries {
			id, ok := firsts.RandomWithout(taken, nil)
			if !ok {
				return 0, false
			}
			if !barred(id) {
				return id, true
			}
		}
	}
	from := uint32(0)
	if p.Val.Order == OrderRotate {
		from = a.rotated[name]
	}
	for _, start := range []uint32{from, 0} {
		for at := start; ; {
			id, ok := firsts.NextWithout(taken, at)
			if !ok {
				break
			}
			if !barred(id) {
				a.rotated[name] = id + 1
				return id, true
			}
			if id == ^uint32(0) {
				break
			}
			at = id + 1
		}
	}
	return 0, false
}

// land lets candidates go: at once where rev is 0, else once the mirror shows rev.
func (a *Allocator) land(picks []picked, rev int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range picks {
		if rev == 0 {
			delete(a.flying, p.ref)
		} else {
			a.flying[p.ref] = rev
		}
	}
	close(a.landed)
	a.landed = make(chan struct{})
}

// landLocked forgets candidates that the mirror shows by now.
func (a *Allocator) landLocked(rev int64) {
	for ref, at := range a.flying {
		if at != 0 && at <= rev {
			delete(a.flying, ref)
		}
	}
}

// airborne tells whether candidates of these spaces are undecided, or newer than
// the mirror at rev, and gives a channel that tells when that changes.
func (a *Allocator) airborne(spaces []cluster.Space, rev int64) (bool, <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.landLocked(rev)
	for ref := range a.flying {
		if slices.Contains(spaces, ref.Space) {
			return true, a.landed
		}
	}
	return false, a.landed
}
