package leases

import (
	"context"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/cluster"
)

// network stands between a batcher and etcd: it loses answers, keeps attempts
// back, and lets a test look.
type network struct {
	client *cluster.Client

	mu     sync.Mutex // guards the fields below
	lose   int        // so many answers are lost although applied
	keep   int        // so many attempts are kept back: not applied, answer lost
	fail   int        // so many fail before they are sent
	ghosts []attempt
	sent   int
	before func() // runs before each attempt, without the lock
}

// attempt is one transaction as it was on its way.
type attempt struct {
	cmps      []clientv3.Cmp
	then, els []clientv3.Op
}

func (n *network) send(ctx context.Context, cmps []clientv3.Cmp, then, els []clientv3.Op) (*clientv3.TxnResponse, error) {
	n.mu.Lock()
	before := n.before
	n.mu.Unlock()
	if before != nil {
		before()
	}
	n.mu.Lock()
	n.sent++
	lose, keep, fail := n.lose > 0, n.keep > 0, n.fail > 0
	switch {
	case fail:
		n.fail--
	case keep:
		n.keep--
		n.ghosts = append(n.ghosts, attempt{cmps, then, els})
	case lose:
		n.lose--
	}
	n.mu.Unlock()
	switch {
	case fail:
		return nil, &cluster.OutcomeError{Outcome: cluster.NotDone, Op: "commit", Err: context.DeadlineExceeded}
	case keep:
		return nil, &cluster.OutcomeError{Outcome: cluster.Unknown, Op: "commit", Err: context.DeadlineExceeded}
	}
	resp, err := n.client.Commit(ctx, cmps, then, els)
	if lose {
		return nil, &cluster.OutcomeError{Outcome: cluster.Unknown, Op: "commit", Err: context.DeadlineExceeded}
	}
	return resp, err
}

func (n *network) set(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
}

// deliver lets every attempt that was kept back arrive now; it tells how many of
// their outer compares held.
func (n *network) deliver(w *world) int {
	w.t.Helper()
	n.mu.Lock()
	ghosts := n.ghosts
	n.ghosts = nil
	n.mu.Unlock()
	applied := 0
	for _, g := range ghosts {
		resp, err := w.client.Commit(w.ctx(), g.cmps, g.then, g.els)
		if err != nil && !cluster.IsLeaseNotFound(err) {
			w.t.Fatal(err)
		}
		if err == nil && resp.Succeeded {
			applied++
		}
	}
	return applied
}
