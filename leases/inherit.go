package leases

import (
	"context"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// inheritance is the lease of the session that ours replaced: of the agent before
// this one in the same boot, or of our own session before it was lost. Nobody
// renews it. What of its locks still stands for somebody is put under our lease
// first, so that no lock is missing in between; then it is revoked.
type inheritance struct {
	lease clientv3.LeaseID
	until time.Duration // of BootTime: not waited for any longer
}

// inherit notes the lease of the presence that was taken over.
func (s *Session) inherit(lease clientv3.LeaseID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heir = inheritance{lease, BootTime() + s.client.Config().LeaseTTL}
}

// inherited tells whether a lease is the one before ours.
func (s *Session) inherited(lease int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.heir.lease != 0 && int64(s.heir.lease) == lease
}

// settleInheritance revokes the lease before ours once no claim's lock is under it,
// or its TTL is over. One round trip, once a session.
func (a *Allocator) settleInheritance(ctx context.Context) {
	s := a.session
	s.mu.Lock()
	old := s.heir
	s.mu.Unlock()
	if old.lease == 0 {
		return
	}
	if BootTime() < old.until {
		waits := false
		a.mirror.read(func(v *view) {
			for _, l := range v.locks {
				waits = waits || l.lease == int64(old.lease)
			}
		})
		if waits {
			return
		}
	}
	s.revoke(ctx, old.lease)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.heir == old {
		s.heir = inheritance{}
	}
}
