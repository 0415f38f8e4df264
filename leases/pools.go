package leases

import (
	"context"
	"fmt"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/problem"
)

// PoolInfo is a pool as it stands, with its ids counted by state.
type PoolInfo struct {
	Name string
	Pool
	ModRev int64
	// Size is how many grants it has room for: ids, or blocks.
	Size   uint64
	Counts map[string]uint64
	Low    bool
}

// Space is the space of the pool's ids for a node's requests.
func (p PoolInfo) Space(node string) cluster.Space {
	return poolEntry{name: p.Name, Stored: Stored[Pool]{Val: &p.Pool}}.space(node)
}

// Pools lists the uid pools by name.
func (a *Allocator) Pools() []PoolInfo { return a.poolsOf(poolEntry.ofUIDs) }

// Inventories lists the VLAN inventories by name, which is [VLANPool]'s.
func (a *Allocator) Inventories() []PoolInfo {
	return a.poolsOf(func(p poolEntry) bool { return !p.ofUIDs() })
}

func (a *Allocator) poolsOf(kind func(poolEntry) bool) []PoolInfo {
	var all []PoolInfo
	a.mirror.read(func(v *view) {
		for name, p := range v.pools {
			if kind(p) {
				all = append(all, a.info(v, name, p))
			}
		}
	})
	slices.SortFunc(all, func(x, y PoolInfo) int { return compareStrings(x.Name, y.Name) })
	return all
}

// Pool returns one pool; ErrNotFound names those there are.
func (a *Allocator) Pool(name string) (PoolInfo, error) {
	var info PoolInfo
	var err error
	a.mirror.read(func(v *view) {
		if p, ok := v.pools[name]; ok {
			info = a.info(v, name, p)
		} else {
			err = unknownPool(v, name)
		}
	})
	return info, err
}

func (a *Allocator) info(v *view, name string, p poolEntry) PoolInfo {
	t := a.tally(v, p, Want{Pool: name})
	return PoolInfo{Name: name, Pool: *p.Val, ModRev: p.ModRev, Size: t.size, Counts: t.counts, Low: p.Val.LowWater.Below(t.counts["free"], t.size)}
}

// tally is a pool's ids by state, and who its quarantined ones wait for.
type tally struct {
	size    uint64
	counts  map[string]uint64
	waits   []tallyWait
	cooling int
	coolest time.Duration
}

type tallyWait struct {
	node, why string
	count     int
	lastSeen  *time.Time
}

// tally counts under the mirror's lock: it costs what the pool's claims cost, not
// what its ranges do.
func (a *Allocator) tally(v *view, p poolEntry, w Want) tally {
	space := p.space(a.id.Node)
	firsts := p.firsts
	if w.Within != nil {
		firsts = firsts.Intersect(*w.Within)
	}
	t := tally{size: firsts.Count(), counts: map[string]uint64{}}
	for _, s := range States() {
		t.counts[s.String()] = 0
	}
	t.counts["free"] = firsts.CountWithout(v.takenIn(space))
	nodes := v.witnesses()
	waits := map[string]*tallyWait{}
	for ref, c := range v.claims {
		if ref.Space != space {
			continue
		}
		if !firsts.Contains(ref.ID) {
			if c.Val.Pool == w.Pool && w.Within == nil {
				t.counts["outside"]++
			}
			continue
		}
		t.counts[c.Val.State.String()]++
		if c.Val.State != Quarantined {
			continue
		}
		if left := v.cooling(ref, c.Val); left > 0 {
			t.cooling++
			t.coolest = max(t.coolest, left)
		}
		for _, wait := range v.weigh(ref, c).waits(nodes) {
			tw := waits[wait.Node]
			if tw == nil {
				tw = &tallyWait{node: wait.Node, why: wait.Why, lastSeen: v.seen(wait.Node)}
				waits[wait.Node] = tw
			}
			tw.count++
		}
	}
	for _, tw := range waits {
		t.waits = append(t.waits, *tw)
	}
	slices.SortFunc(t.waits, func(x, y tallyWait) int { return y.count - x.count })
	if len(t.waits) > 5 {
		t.waits = t.waits[:5]
	}
	return t
}

// seen is when a node was last heard of, as far as this mirror knows; nil while
// it is up or if it never was.
func (v *view) seen(node string) *time.Time {
	if _, up := v.alive[node]; up {
		return nil
	}
	if at, ok := v.lastSeen[node]; ok {
		return &at
	}
	return nil
}

// SetPool makes or changes a pool: edit gets the pool as it stands (a new one
// with the default policy, and exists false) and changes it. Ids that fall
// outside stay held and visible. Overlap rules are checked in the same
// transaction (rule 22). It tells whether the pool is new; with dry it writes
// nothing. One round trip and one commit.
func (a *Allocator) SetPool(ctx context.Context, name string, dry bool, edit func(p *Pool, exists bool) error) (PoolInfo, bool, error) {
	if _, bare := tradeOf(name); cluster.ValidName(bare) != nil {
		return PoolInfo{}, false, cluster.ValidName(bare)
	}
	ctx, cancel := a.budget(ctx)
	defer cancel()
	for {
		a.caught(ctx)
		rev, _ := a.mirror.Revision()
		p, old, index, err := a.planPool(name, edit)
		if err != nil {
			return PoolInfo{}, false, err
		}
		created := old.Val == nil
		if dry || (!created && samePool(p, old.Val)) {
			return a.preview(name, p, old.ModRev), created, nil
		}
		p.Of, p.Write, p.Since = name, shortToken(), time.Now().UTC()
		key := poolKey(a.keys, name)
		cmps := []clientv3.Cmp{sameValue(key, old.Raw), clientv3.Compare(clientv3.ModRevision(a.keys.PoolIndex()), "=", index)}
		if !created && (p.Scope != old.Val.Scope || p.Block != old.Val.Block || (p.Outside == nil) != (old.Val.Outside == nil)) {
			cmps = append(cmps, a.unwritten(name, old.Val, rev)) // they rest on nobody holding an id
		}
		r := a.submit(ctx, "pool", &child{
			alone: true,
			cmps:  cmps,
			puts:  []put{{key: key, value: cluster.Encode(p)}, {key: a.keys.PoolIndex(), value: cluster.Encode(map[string]any{"v": format, "w": shortToken()})}},
			gets:  []string{key, a.keys.PoolIndex()},
		})
		if r.err != nil {
			return PoolInfo{}, false, r.err
		}
		a.reach(ctx, r.revision, time.Second)
		if r.applied {
			return a.preview(name, p, r.revision), created, nil
		}
		if ctx.Err() != nil {
			return PoolInfo{}, false, problem.Wrap(problem.CodeUnavailable, context.Cause(ctx), "%s not stored: the pools kept changing", name)
		}
	}
}

// planPool reads the pool, edits it and checks it against the others.
func (a *Allocator) planPool(name string, edit func(*Pool, bool) error) (p *Pool, old Stored[Pool], index int64, err error) {
	a.mirror.read(func(v *view) {
		old, index = v.pools[name].Stored, v.index
		next := Pool{V: format, Policy: defaultsOf(name)}
		if old.Val != nil {
			next = *old.Val
			if o := old.Val.Outside; o != nil {
				own := *o
				next.Outside = &own
			}
		}
		if err = edit(&next, old.Val != nil); err != nil {
			return
		}
		if err = next.check(name); err != nil {
			return
		}
		if err = readable(v, name, &next); err != nil {
			return
		}
		if old.Val != nil && (old.Val.Outside == nil) != (next.Outside == nil) {
			if err = a.holdersOf(v, name, "not stored"); err != nil {
				return
			}
		}
		for other, o := range v.pools {
			if other != name && next.Outside != nil && o.Val.Outside != nil && next.Outside.sameFile(o.Val.Outside) {
				_, bare := tradeOf(name)
				_, first := tradeOf(other)
				err = problem.New(problem.CodeInvalid, "inventory %s not stored: file %s on node %s is inventory %s already", bare, next.Outside.File, next.Outside.On, first)
				return
			}
			if other != name && o.ofUIDs() && (poolEntry{name: name}).ofUIDs() {
				if err = clash(name, &next, other, o.Val); err != nil {
					return
				}
			}
		}
		if old.Val != nil && (old.Val.Scope != next.Scope || old.Val.Block != next.Block) {
			if n := a.claimsOf(v, name); n > 0 {
				err = problem.New(problem.CodeInvalid, "pool %s: scope and block are fixed while ids are held (%d are)", name, n)
				return
			}
		}
		if err = a.misfit(v, name, &next); err != nil {
			return
		}
		p = &next
	})
	return p, old, index, err
}

// misfit refuses ranges in which a claim stands that a pool of another scope or
// block made, perhaps one that has been shrunk since: as long as it is held, its
// ids would have two holders.
func (a *Allocator) misfit(v *view, name string, p *Pool) error {
	ids := p.IDs()
	if _, vlans := InventoryOf(name); vlans {
		return nil // a space of its own
	}
	for ref, c := range v.claims {
		_, scoped := ref.Space.Node()
		if ref.Space != cluster.SpaceUID && !scoped {
			continue
		}
		span := idset.Of(ref.span(c.Val.Count))
		if (c.Val.Count != p.Block || scoped != (p.Scope == ScopeNode)) && !span.Intersect(ids).IsEmpty() {
			return problem.New(problem.CodeHeld, "pool %s not stored: %s is %s, granted with block %d%s, and lies in its ranges", name, label(ref), c.Val.State, c.Val.Count, scopeWord(scoped)).
				Advise("until it is free", "poolctl uid pool set %s … --exclude %s", name, idset.Of(ref.span(c.Val.Count)))
		}
	}
	return a.hidden(v, name, p, "not stored")
}

func scopeWord(scoped bool) string {
	if scoped {
		return " for one node"
	}
	return ""
}

func (a *Allocator) claimsOf(v *view, pool string) int {
	n := 0
	for _, c := range v.claims {
		if c.Val.Pool == pool {
			n++
		}
	}
	return n
}

func samePool(a, b *Pool) bool {
	same := a.Outside == b.Outside || (a.Outside != nil && b.Outside != nil && *a.Outside == *b.Outside)
	return same && a.Ranges.Equal(b.Ranges) && a.Exclude.Equal(b.Exclude) && a.Policy == b.Policy
}

func (a *Allocator) preview(name string, p *Pool, rev int64) PoolInfo {
	var info PoolInfo
	a.mirror.read(func(v *view) {
		info = a.info(v, name, newPoolEntry(name, Stored[Pool]{Val: p, ModRev: rev}))
	})
	return info
}

func compareStrings(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// String names the pool's policy in words, for messages.
func (p Policy) String() string {
	return fmt.Sprintf("scope %s, order %s, proof %s, cooldown %s, reclaim %s, block %d", p.Scope, p.Order, p.Proof, p.Cooldown, p.Reclaim, p.Block)
}
