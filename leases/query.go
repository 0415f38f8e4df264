package leases

import (
	"context"
	"slices"
	"time"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/seam"
)

// ClaimInfo is one id as it stands, with what it waits for.
type ClaimInfo struct {
	Ref
	// Claim is nil for a free id, and for one whose claim cannot be read: Unread then
	// refuses what asks for more.
	Claim  *Claim
	Unread error
	ModRev int64
	// Pools are those that contain the id, by name.
	Pools []string
	// WaitsFor and NotBefore tell what a quarantined id waits for.
	WaitsFor  []NodeWait
	NotBefore *time.Time
	// InEtcd tells that the mirror which this comes from follows etcd.
	InEtcd bool
}

// NodeWait is a node whose word is missing.
type NodeWait struct {
	Wait
	LastSeen *time.Time
}

// Get returns one id, after this process's own writes are visible.
func (a *Allocator) Get(ctx context.Context, ref Ref) ClaimInfo {
	a.caught(ctx)
	var info ClaimInfo
	stale := a.staleNow()
	a.mirror.read(func(v *view) { info = a.claimInfo(v, ref, v.witnesses(), !stale) })
	return info
}

func (a *Allocator) staleNow() bool {
	_, err := a.mirror.Revision()
	return err != nil
}

// Sync waits until what Get and List show has everything that was in etcd when it
// was called. One round trip, no commit.
func (a *Allocator) Sync(ctx context.Context) error {
	ctx, cancel := a.budget(ctx)
	defer cancel()
	return a.linearize(ctx)
}

// List returns the claims that keep accepts, in order of space and id, from
// after on, at most limit of them (0: all). keep runs under the mirror's lock and
// must be quick.
func (a *Allocator) List(ctx context.Context, after *Ref, limit int, keep func(Ref, *Claim) bool) []ClaimInfo {
	a.caught(ctx)
	var all []ClaimInfo
	stale := a.staleNow()
	a.mirror.read(func(v *view) {
		var refs []Ref
		for ref, c := range v.claims {
			if (after == nil || ref.compare(*after) > 0) && keep(ref, c.Val) {
				refs = append(refs, ref)
			}
		}
		slices.SortFunc(refs, Ref.compare)
		if limit > 0 && len(refs) > limit {
			refs = refs[:limit]
		}
		nodes := v.witnesses()
		for _, ref := range refs {
			all = append(all, a.claimInfo(v, ref, nodes, !stale))
		}
	})
	return all
}

func (a *Allocator) claimInfo(v *view, ref Ref, nodes []witness, live bool) ClaimInfo {
	c := v.claims[ref]
	info := ClaimInfo{Ref: ref, Claim: c.Val, ModRev: c.ModRev, InEtcd: live}
	if why := v.unreadable[a.keys.Claim(ref.Space, ref.ID)]; c.Val == nil && why != nil {
		info.Unread = unreadableClaim(ref, why)
	}
	for name, p := range v.pools {
		space := p.space(a.id.Node)
		if _, scoped := ref.Space.Node(); scoped && p.ofUIDs() && p.Val.Scope == ScopeNode {
			space = ref.Space
		}
		if space == ref.Space && p.firsts.Contains(ref.ID) {
			info.Pools = append(info.Pools, name)
		}
	}
	slices.Sort(info.Pools)
	if c.Val == nil || c.Val.State != Quarantined {
		return info
	}
	for _, w := range v.weigh(ref, c).waits(nodes) {
		info.WaitsFor = append(info.WaitsFor, NodeWait{w, v.seen(w.Node)})
	}
	if left := v.cooling(ref, c.Val); left > 0 {
		at := time.Now().Add(left)
		info.NotBefore = &at
	}
	return info
}

// Spaces returns the spaces in which an id of a uid pool may be: the cluster's
// and this node's own.
func (a *Allocator) Spaces() []cluster.Space {
	return []cluster.Space{cluster.SpaceUID, cluster.NodeSpace(a.id.Node)}
}

// Overview is what status shows.
type Overview struct {
	Meta       cluster.Meta
	Revision   int64
	Stale      error
	Counts     map[string]uint64 // uids by state
	VLANs      map[string]uint64 // VLANs by state
	Unreadable []string
	Reaper     string
	NoProof    string
}

// Overview reads the mirror.
func (a *Allocator) Overview() Overview {
	rev, stale := a.mirror.Revision()
	o := Overview{Revision: rev, Stale: stale, Counts: map[string]uint64{}, VLANs: map[string]uint64{}, NoProof: a.session.noProofNow()}
	for _, s := range States()[1:] {
		o.Counts[s.String()] = 0
	}
	a.mirror.read(func(v *view) {
		if v.meta.Val != nil {
			o.Meta = *v.meta.Val
		}
		for ref, c := range v.claims {
			if ref.vlan() {
				o.VLANs[c.Val.State.String()]++
			} else {
				o.Counts[c.Val.State.String()]++
			}
		}
		for key := range v.unreadable {
			o.Unreadable = append(o.Unreadable, key)
		}
		o.Reaper = v.reaper
	})
	slices.Sort(o.Unreadable)
	return o
}

// Taken is the set of ids of a space that have a claim.
func (a *Allocator) Taken(space cluster.Space) idset.Set {
	var s idset.Set
	a.mirror.read(func(v *view) { t := v.takenIn(space); s = t.Clone() })
	return s
}

// WaitFor blocks until cond holds for an id, or ctx ends. cond runs under the
// mirror's lock; the claim is nil while the id is free.
func (a *Allocator) WaitFor(ctx context.Context, ref Ref, cond func(*Claim) bool) error {
	return a.mirror.wait(ctx, func(v *view) bool { return cond(v.claims[ref].Val) })
}

// Elected tells whether this node does what no other node is named for: it has
// the reaper's lock, and a live session.
func (a *Allocator) Elected() bool {
	elected := false
	a.mirror.read(func(v *view) { elected = v.reaper == a.id.Node })
	_, live := a.session.Live()
	return elected && live
}

// NodeUp tells whether a node is up, and which boot it registered with; known is
// false where its registration cannot be read, so that nobody can tell.
func (a *Allocator) NodeUp(name string) (boot string, up, known bool) {
	a.mirror.read(func(v *view) {
		_, strange := v.strange[name]
		known = !strange
		if n := v.nodes[name].Val; n != nil {
			boot = n.Boot
		}
		_, up = v.alive[name]
	})
	return boot, up, known
}

// Boot is the boot identity of this node.
func (a *Allocator) Boot() string { return a.id.Boot }

// LiveRequester tells whether a requester of this boot still is there: a TTL
// before its deadline, a process hold while that very process lives.
func (a *Allocator) LiveRequester(r Requester) bool {
	switch r.Hold {
	case HoldTTL:
		return int64(BootTime()) < r.Deadline
	case HoldPID:
		return a.prover.Alive(r)
	}
	return false
}

// Seam is where tests break what is done; see package seam.
func (a *Allocator) Seam() seam.Seam { return a.seam }
