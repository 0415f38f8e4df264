package judge

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/idpool/idpool/test/e2e/robust/record"
)

// world is what stands in etcd at one revision.
type world struct {
	rev        int64
	meta       *meta
	members    int64 // mod revision
	nodes      map[string]*node
	alive      map[string]*alive
	proofs     map[string]*proof
	past       map[string][]*proof // every proof of a node since it was registered, as written
	pools      map[string]*pool    // NAME, or vlan/INVENTORY
	poolsPast  map[string][]*poolSince
	claims     map[record.ID]*claim
	locks      map[record.ID]*lock
	grants     map[string]*grantRecord // by key
	services   map[string]*service
	numberSeen uint64 // the highest number of an epoch
}

// poolSince is a pool's definition and the revision that made it; nil: deleted.
type poolSince struct {
	rev int64
	*pool
}

func newWorld() *world {
	return &world{
		nodes: map[string]*node{}, alive: map[string]*alive{}, proofs: map[string]*proof{}, past: map[string][]*proof{},
		pools: map[string]*pool{}, poolsPast: map[string][]*poolSince{}, claims: map[record.ID]*claim{}, locks: map[record.ID]*lock{},
		grants: map[string]*grantRecord{}, services: map[string]*service{},
	}
}

// edit is what one revision does to one key: nil is absent.
type edit[K comparable, T any] struct {
	key           K
	before, after *T
}

// txn is one revision, by what its keys stand for.
type txn struct {
	rev      int64
	claims   []edit[record.ID, claim]
	locks    []edit[record.ID, lock]
	nodes    []edit[string, node]
	alive    []edit[string, alive]
	proofs   []edit[string, proof]
	pools    []edit[string, pool]
	grants   []edit[string, grantRecord]
	services []edit[string, service]
	meta     *edit[string, meta]
	members  bool
}

// replay walks etcd's history revision by revision and checks each against what
// stood before and after it.
func (c *court) replay() {
	c.w, c.lives, c.services = newWorld(), map[life]*span{}, map[string][]*span{}
	c.outs, c.boots = map[string][]out{}, map[string][]int64{}
	c.done = map[*span]bool{}
	c.compensated, c.rejected = map[compensation]bool{}, map[string][]out{}
	c.watchPools()
	c.values, c.known, c.late, c.back = map[string][]byte{}, map[string]bool{}, map[life]bool{}, map[*span]*recovery{}
	c.revived = map[*lock]bool{}
	c.histories = c.eras()
	var kept *keptState
	for i := range c.histories {
		e := &c.histories[i]
		if e.cut != nil {
			c.restored(e, kept)
		}
		kept = c.replayEra(e)
	}
	if c.recovery != nil {
		c.broke(Vacuous, 0, "etcd was restored at %s, and granting never resumed", c.recovery.cut.Stopped)
	}
}

// replayEra replays one history, and keeps what the next one begins with.
func (c *court) replayEra(e *era) (kept *keptState) {
	c.shift = e.shift
	changes := e.changes
	if !slices.IsSortedFunc(changes, func(a, b record.Change) int { return int(a.Revision - b.Revision) }) {
		c.broke(History, 0, "the changes are not in the order of their revisions")
		slices.SortStableFunc(changes, func(a, b record.Change) int { return int(a.Revision - b.Revision) })
	}
	for len(changes) > 0 {
		n := 1
		for n < len(changes) && changes[n].Revision == changes[0].Revision {
			n++
		}
		if kept == nil && e.keep != 0 && changes[0].Revision > e.keep {
			kept = c.snapshot()
		}
		t := c.read(changes[:n])
		c.revs = append(c.revs, t.rev)
		switch {
		case c.recovery != nil:
			c.checkRecovery(t)
			c.w.apply(t)
			if c.resumes(t) {
				c.resume(t)
				c.countFree(t)
			}
		case c.speaksLate(t):
			c.putBack(t)
			c.w.apply(t)
			c.countFree(t)
		default:
			c.checkRevision(t)
		}
		c.remember(t, changes[:n])
		changes = changes[n:]
	}
	if kept == nil {
		kept = c.snapshot()
	}
	return kept
}

// checkRevision judges a revision while granting is allowed.
func (c *court) checkRevision(t *txn) {
	c.checkEpoch(t)
	c.checkNodes(t)
	c.checkSession(t)
	c.checkClaims(t)
	c.checkEnds(t)
	c.live(t)
	c.w.apply(t)
	c.checkLocks(t)
	c.checkGroups(t)
	c.checkServices(t)
	c.countFree(t)
}

// remember notes what stands now, and whose it is.
func (c *court) remember(t *txn, changes []record.Change) {
	for _, ch := range changes {
		if ch.Value == nil {
			delete(c.values, ch.Key)
		} else {
			c.values[ch.Key] = ch.Value
		}
	}
	for _, e := range t.claims {
		if e.after != nil {
			c.known[e.after.Token] = true
		}
	}
	for _, e := range t.grants {
		c.known[tokenOf(e.after)] = true
	}
	for _, e := range t.services {
		if e.after != nil {
			c.known[e.after.Token] = true
		}
	}
}

// read sorts a revision's changes by what their keys stand for.
func (c *court) read(changes []record.Change) *txn {
	t := &txn{rev: changes[0].Revision}
	seen := map[string]bool{}
	for _, ch := range changes {
		if seen[ch.Key] {
			c.broke(History, t.rev, "%s is written twice in one revision", ch.Key)
			continue
		}
		seen[ch.Key] = true
		kind, rest, _ := strings.Cut(ch.Key, "/")
		switch kind {
		case "claims":
			if id, ok := idOf(rest); ok {
				e := decode(c, ch, id, c.w.claims[id])
				if e.after != nil {
					e.after.rev = t.rev
				}
				t.claims = append(t.claims, e)
				continue
			}
		case "locks":
			if id, ok := idOf(rest); ok {
				e := edit[record.ID, lock]{key: id, before: c.w.locks[id]}
				if ch.Value != nil {
					e.after = &lock{token: string(ch.Value), lease: ch.Lease}
				}
				t.locks = append(t.locks, e)
			}
			continue // the reaper's and the services' locks only tell others that somebody is at work
		case "nodes":
			t.nodes = append(t.nodes, decode(c, ch, rest, c.w.nodes[rest]))
			continue
		case "alive":
			e := decode(c, ch, rest, c.w.alive[rest])
			if e.after != nil {
				e.after.lease = ch.Lease
			}
			t.alive = append(t.alive, e)
			continue
		case "proofs":
			e := decode(c, ch, rest, c.w.proofs[rest])
			if e.after != nil {
				e.after.rev = t.rev
				e.after.Revision += c.shift
			}
			t.proofs = append(t.proofs, e)
			continue
		case "pools":
			if rest != "index" {
				t.pools = append(t.pools, c.readPool(ch, rest))
			}
			continue
		case "grants":
			t.grants = append(t.grants, decode(c, ch, ch.Key, c.w.grants[ch.Key]))
			continue
		case "services":
			t.services = append(t.services, decode(c, ch, rest, c.w.services[rest]))
			continue
		case "members":
			t.members = true
			continue
		case "meta":
			e := decode(c, ch, "meta", c.w.meta)
			t.meta = &e
			continue
		}
		if kind != "recovery" && kind != "recovered" { // what nodes say after a restore
			c.broke(History, t.rev, "%s is no key of idpool's", ch.Key)
		}
	}
	return t
}

// decode reads one value; what cannot be read is a violation, and counts as absent.
func decode[K comparable, T any](c *court, ch record.Change, key K, before *T) edit[K, T] {
	e := edit[K, T]{key: key, before: before}
	switch {
	case ch.Value != nil:
		e.after = new(T)
		if err := json.Unmarshal(ch.Value, e.after); err != nil {
			c.broke(History, ch.Revision, "%s cannot be read: %v", ch.Key, err)
			e.after = nil
		}
	case before == nil:
		c.broke(History, ch.Revision, "%s is deleted, and was not there: something before it is missing", ch.Key)
	}
	return e
}

func (c *court) readPool(ch record.Change, rest string) edit[string, pool] {
	kind, name, _ := strings.Cut(rest, "/")
	if kind == "vlan" {
		name = rest
	}
	e := decode(c, ch, name, c.w.pools[name])
	if e.after != nil {
		e.after.Block = max(e.after.Block, 1)
		e.after.firsts = e.after.Ranges.Remove(e.after.Exclude).Blocks(e.after.Block)
	}
	return e
}

// apply makes the world what it is after a revision.
func (w *world) apply(t *txn) {
	w.rev = t.rev
	set(w.claims, t.claims)
	set(w.locks, t.locks)
	set(w.nodes, t.nodes)
	set(w.alive, t.alive)
	set(w.proofs, t.proofs)
	set(w.pools, t.pools)
	set(w.grants, t.grants)
	set(w.services, t.services)
	for _, e := range t.proofs {
		if e.after == nil {
			delete(w.past, e.key)
		} else {
			w.past[e.key] = append(w.past[e.key], e.after)
		}
	}
	for _, e := range t.pools {
		w.poolsPast[e.key] = append(w.poolsPast[e.key], &poolSince{t.rev, e.after})
	}
	if t.members {
		w.members = t.rev
	}
	if t.meta != nil {
		w.meta = t.meta.after
		if w.meta != nil {
			w.numberSeen = max(w.numberSeen, w.meta.Number)
		}
	}
}

func set[K comparable, T any](m map[K]*T, edits []edit[K, T]) {
	for _, e := range edits {
		if e.after == nil {
			delete(m, e.key)
		} else {
			m[e.key] = e.after
		}
	}
}
