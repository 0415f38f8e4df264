package leases

import (
	"context"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/cluster"
)

// recordsKept is how long an ended grant's record still answers its key.
const recordsKept = 24 * time.Hour

// duties are what one look at the mirror finds to do for the whole cluster.
type duties struct {
	members int64
	free    []Ref          // proven unused
	weighed map[Ref]int64  // mod revisions that were proven
	drop    map[Ref]string // held, and name a node that was fenced or left
	reclaim []Ref
	forget  []string // records
	torn    []string // records that list what is gone
	elect   bool     // nobody holds the reaper's lock
}

// reap frees what is proven unused and takes fenced and left nodes out of claims,
// until ctx ends. A claim's own node does it; where none of its nodes is up, the
// holder of the reaper's lock.
func (a *Allocator) reap(ctx context.Context) error {
	tick := time.NewTicker(glance)
	defer tick.Stop()
	ctx, stop := a.reaperPulse.begin(ctx)
	defer stop()
	for {
		beat(ctx)
		d := a.duties()
		if d.elect {
			a.elect(ctx)
		}
		a.each(ctx, d.free, func(ctx context.Context, ref Ref) error { return a.freeOne(ctx, ref, d.weighed[ref], d.members) })
		var drops []Ref
		for ref := range d.drop {
			drops = append(drops, ref)
		}
		a.each(ctx, drops, func(ctx context.Context, ref Ref) error { return a.dropNode(ctx, ref, d.drop[ref], d.members) })
		a.each(ctx, d.reclaim, a.reclaim)
		for _, key := range d.forget {
			a.forget(ctx, key)
		}
		for _, key := range d.torn {
			a.mendRecord(ctx, key)
		}
		changes := a.mirror.Changes()
		if len(d.free) > 0 { // look again at once: more may have come
			changes = closedChan
		}
		select {
		case <-changes:
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		select { // a busy mirror must not make this loop spin
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

var closedChan = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// duties reads the mirror and judges; it writes nothing.
func (a *Allocator) duties() duties {
	d := duties{drop: map[Ref]string{}, weighed: map[Ref]int64{}}
	a.mirror.read(func(v *view) {
		d.members = v.members.ModRev
		elected := v.reaper == a.id.Node
		d.elect = v.reaper == ""
		nodes := v.witnesses()
		for ref := range v.quarantined {
			c := v.claims[ref]
			if a.frees(v, c.Val, elected) && v.unreadable[poolKey(a.keys, c.Val.Pool)] == nil && v.cooling(ref, c.Val) == 0 && len(v.weigh(ref, c).waits(nodes)) == 0 {
				d.free = append(d.free, ref)
				d.weighed[ref] = c.ModRev
			}
		}
		if !elected {
			return
		}
		for _, n := range nodes {
			if n.node == nil || n.node.State == nodeActive {
				continue
			}
			for ref, c := range v.claims {
				if gone(c.Val, n) {
					d.drop[ref] = n.name
				}
			}
		}
		for ref, since := range v.idle {
			c := v.claims[ref].Val
			if p, ok := v.pools[c.Pool]; ok && p.Val.Reclaim.After > 0 && time.Since(since) > p.Val.Reclaim.After && c.reclaimable() && groupIdle(v, a.keys, c) {
				d.reclaim = append(d.reclaim, ref)
			}
		}
		for key := range v.torn {
			if len(v.missing(key)) > 0 {
				d.torn = append(d.torn, key)
			}
		}
		for key, since := range v.over {
			if time.Since(since) > recordsKept {
				d.forget = append(d.forget, key)
			}
		}
	})
	return d
}

// gone tells whether a node that is fenced or left must be taken out of a claim
// (rules 13 and 39).
func gone(c *Claim, n witness) bool {
	if c.On(n.name) == nil || !c.State.held() {
		return false
	}
	return n.node.State == nodeFenced || c.State == Locked || len(c.Nodes) > 1
}

// frees tells whether it is for this node to free a claim: the first by name of
// its nodes that are up, else the elected one.
func (a *Allocator) frees(v *view, c *Claim, elected bool) bool {
	var up []string
	for _, n := range c.NodeNames() {
		if _, ok := v.alive[n]; ok {
			up = append(up, n)
		}
	}
	if len(up) == 0 {
		return elected
	}
	return slices.Min(up) == a.id.Node
}

// elect tries to take the reaper's lock, under the session's lease. One commit.
func (a *Allocator) elect(ctx context.Context) {
	ctx, cancel := a.budget(ctx)
	defer cancel()
	key := a.keys.ReaperLock()
	r := a.submit(ctx, "elect", &child{
		cmps: []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(key), "=", 0)},
		puts: []put{{key: key, value: []byte(a.id.Node), leased: true}},
		gets: []string{key},
	})
	if r.err != nil {
		a.log.Debug("reaper not elected", errField(r.err))
		return
	}
	a.reach(ctx, r.revision, time.Second)
}

// freeOne deletes a claim that is proven unused: if it and the node list are what
// the proofs were computed on (rule 9). One round trip and one commit, shared.
func (a *Allocator) freeOne(ctx context.Context, ref Ref, weighed, members int64) error {
	tried := false
	_, err := a.update(ctx, "free", []Ref{ref}, func(s *snap) (*plan, error) {
		c := s.claims[ref]
		if tried || c.Val == nil || c.ModRev != weighed || step(c.Val.State, evProofComplete).next != Free {
			return nil, nil // it changed: weigh it anew
		}
		tried = true
		return &plan{edits: []edit{{ref: ref, after: nil, lock: lockDrop}}, members: &members}, nil
	})
	return err
}

// dropNode takes a fenced or left node out of a claim, if the node list is the
// one seen.
func (a *Allocator) dropNode(ctx context.Context, ref Ref, node string, members int64) error {
	code := ReasonLeft
	a.mirror.read(func(v *view) {
		if n := v.nodes[node].Val; n != nil && n.State == nodeFenced {
			code = ReasonFenced
		}
	})
	tried := false
	_, err := a.update(ctx, "drop", []Ref{ref}, func(s *snap) (*plan, error) {
		c := s.claims[ref].Val
		if tried || c == nil || !c.State.held() || c.On(node) == nil {
			return nil, nil
		}
		tried = true
		c = c.clone()
		c.drop(node, code, "node "+node+" is "+code, time.Now().UTC())
		return &plan{edits: []edit{{ref: ref, after: c, lock: lockFor(c)}}, members: &members}, nil
	})
	return err
}

// forget deletes an ended grant's record.
func (a *Allocator) forget(ctx context.Context, key string) {
	ctx, cancel := a.budget(ctx)
	defer cancel()
	var raw []byte
	a.mirror.read(func(v *view) { raw = v.records[key].Raw })
	if raw == nil {
		return
	}
	a.submit(ctx, "forget", &child{
		cmps: []clientv3.Cmp{clientv3.Compare(clientv3.Value(key), "=", string(raw))},
		puts: []put{{key: key}},
		gets: []string{key},
	})
}

var _ cluster.Follower = (*Mirror)(nil)
