package leases

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/idset"
)

// report makes this node's proof: of every quarantined claim it speaks for, at a
// revision that the mirror had before the scan began, whether something runs
// under it here or a requester here has not given up (rules 10 and 34).
func (a *Allocator) report(seen *observation) *Proof {
	counts := map[Ref]uint32{}
	epoch := ""
	a.mirror.read(func(v *view) {
		if v.meta.Val != nil {
			epoch = v.meta.Val.Epoch
		}
		for ref := range v.quarantined {
			if !reportable(ref, a.id.Node) {
				continue
			}
			counts[ref] = v.claims[ref].Val.Count
		}
	})
	p := &Proof{V: format, Of: a.id.Node, Epoch: epoch, Boot: a.id.Boot, Machine: a.id.Machine, Revision: seen.rev, InUse: map[cluster.Space]idset.Set{}, Write: shortToken()}
	for ref, count := range counts {
		if seen.runs(ref, count) || seen.live[ref] {
			set := p.InUse[ref.Space]
			set.Insert(ref.ID)
			p.InUse[ref.Space] = set
		}
	}
	a.inspectLeft(seen, p)
	return p
}

// publish writes a proof, if the one it replaces is the one seen. One commit.
func (a *Allocator) publish(ctx context.Context, p *Proof) error {
	ctx, cancel := a.budget(ctx)
	defer cancel()
	key := a.keys.Proof(a.id.Node)
	var seen int64
	a.mirror.read(func(v *view) { seen = v.proofs[a.id.Node].ModRev })
	return a.submit(ctx, "proof", &child{
		cmps: []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "=", seen)},
		puts: []put{{key: key, value: cluster.Encode(p)}},
		gets: []string{key},
	}).err
}

// firstProof is what registering writes, so that a new node stalls nobody; nil
// if this node cannot tell.
func (a *Allocator) firstProof(ctx context.Context) *Proof {
	seen, err := a.observation(ctx)
	if err != nil {
		a.session.mu.Lock()
		a.session.noProof = clip(err.Error())
		a.session.mu.Unlock()
		return nil
	}
	if seen.stale != nil {
		return nil
	}
	return a.report(seen)
}

// noProofNow says why this node cannot prove ids unused, "" if it can.
func (s *Session) noProofNow() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.noProof
}
