package leases

import (
	"context"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/idset"
)

// simProver is what a host tells of itself.
type simProver struct {
	x *explorer
	n int
}

func (p simProver) InUse(context.Context, time.Duration) (idset.Set, error) {
	if _, ok := p.x.replayed(); !ok {
		p.x.suspend(pause{look: true})
	}
	used := p.x.env.hosts[p.n].used()
	if p.x.sc.split { // it takes its time
		if _, ok := p.x.replayed(); !ok {
			p.x.suspend(pause{look: true})
		}
	}
	return used, nil
}

func (p simProver) Suspect(uint32) bool { return false }

func (p simProver) MayStart(_ uint32, r Requester) bool {
	i := partyIndex(r.ID)
	return i >= 0 && !p.x.env.hosts[p.n].alien && p.x.env.mayStart(i)
}

func (p simProver) Alive(r Requester) bool { return p.MayStart(0, r) }

// simLease grants and revokes at once.
type simLease struct {
	clientv3.Lease
	x *explorer
}

func (l simLease) Grant(_ context.Context, ttl int64) (*clientv3.LeaseGrantResponse, error) {
	e, ok := l.x.replayed()
	if !ok {
		e.value = l.x.now.seq<<8 + int64(len(l.x.now.store.leases)) + int64(len(l.x.fresh))<<4
		l.x.now.store = l.x.now.store.grantLease(e.value)
		l.x.note(e)
	}
	return &clientv3.LeaseGrantResponse{ResponseHeader: l.x.now.store.header(), ID: clientv3.LeaseID(e.value), TTL: ttl}, nil
}

func (l simLease) Revoke(_ context.Context, id clientv3.LeaseID) (*clientv3.LeaseRevokeResponse, error) {
	if _, ok := l.x.replayed(); !ok {
		if slices.Contains(l.x.now.store.leases, int64(id)) {
			l.x.now.store = l.x.now.store.expire(int64(id))
		}
		l.x.note(entry{})
	}
	return &clientv3.LeaseRevokeResponse{}, nil
}

// simStatus tells how far etcd is. It takes a minute, so that who asks until his time
// is up asks a few times and not a thousand.
type simStatus struct {
	clientv3.Maintenance
	x *explorer
}

func (m simStatus) Status(context.Context, string) (*clientv3.StatusResponse, error) {
	e, ok := m.x.replayed()
	<-time.After(time.Minute)
	if !ok {
		e.value = int64(m.x.now.store.index)
		e.resp = &pb.TxnResponse{Header: m.x.now.store.header()}
		m.x.note(e)
	}
	return &clientv3.StatusResponse{Header: e.resp.Header, RaftAppliedIndex: uint64(e.value)}, nil
}
