package judge

import (
	"maps"
	"slices"

	"github.com/idpool/idpool/test/e2e/robust/record"
)

// A restore of etcd begins another history, an era, whose revisions may be those of
// the one before once more. The judge counts them on: in each era every revision is
// higher than the last one of the era before, and Violation names etcd's own.

// era is one of etcd's histories.
type era struct {
	changes []record.Change // with revisions that are counted on
	shift   int64           // by how much they are higher than etcd's
	first   int64           // every revision of it is higher
	// cut began it, nil for the first. keep is the revision, counted on, whose state
	// the next era takes over; 0 for the last.
	cut  *record.Cut
	keep int64
}

// eras splits the changes by the restores between them.
func (c *court) eras() []era {
	all := make([]era, len(c.run.Cuts)+1)
	for _, ch := range c.run.Changes {
		if ch.Era < 0 || ch.Era >= len(all) {
			c.broke(History, 0, "a change of %s is of era %d, and etcd was restored %d times", ch.Key, ch.Era, len(c.run.Cuts))
			continue
		}
		all[ch.Era].changes = append(all[ch.Era].changes, ch)
	}
	last := int64(0)
	for i := range all {
		e := &all[i]
		if i > 0 {
			e.cut = &c.run.Cuts[i-1]
			e.first = last + 1
			e.shift = e.first - e.cut.Begins
		}
		for n := range e.changes {
			e.changes[n].Revision += e.shift
			last = max(last, e.changes[n].Revision)
		}
		last = max(last, e.first)
		if i < len(c.run.Cuts) {
			e.keep = c.run.Cuts[i].Snapshot + e.shift
			last = max(last, e.keep)
		}
		c.changes = append(c.changes, e.changes...)
	}
	return all
}

// own translates a revision that is counted on: the era, and etcd's own number.
func (c *court) own(rev int64) (n int, revision int64) {
	for i, e := range c.histories {
		if rev > e.first || i == 0 {
			n, revision = i, rev-e.shift
		}
	}
	return n, revision
}

// keptState is what a snapshot holds.
type keptState struct {
	w      *world
	values map[string][]byte
}

func (c *court) snapshot() *keptState { return &keptState{c.w.clone(), maps.Clone(c.values)} }

// clone copies a world whose records nobody changes.
func (w *world) clone() *world {
	n := *w
	n.nodes, n.alive, n.proofs = maps.Clone(w.nodes), maps.Clone(w.alive), maps.Clone(w.proofs)
	n.pools, n.claims, n.locks = maps.Clone(w.pools), maps.Clone(w.claims), maps.Clone(w.locks)
	n.grants, n.services = maps.Clone(w.grants), maps.Clone(w.services)
	n.past, n.poolsPast = clipped(w.past), clipped(w.poolsPast)
	return &n
}

// clipped copies a map of slices: what is appended to either is not seen in the other.
func clipped[T any](m map[string][]T) map[string][]T {
	n := maps.Clone(m)
	for k, s := range n {
		n[k] = slices.Clip(s)
	}
	return n
}
