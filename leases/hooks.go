package leases

import (
	"errors"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/problem"
)

// Hooks are told what the engine does, for metrics. Each is called by whoever did
// it and must be quick; what is nil is left out, and so is all of a nil Hooks.
type Hooks struct {
	// Granted tells that a request was answered: kind is uid, vlan or mixed; code is
	// "" for a grant, else the refusal's.
	Granted func(kind string, same bool, code problem.Code, took time.Duration)
	// Committed tells that a transaction of so many operations was sent, and whether
	// etcd applied it, refused its guard, or did not say.
	Committed func(operations int, outcome string, took time.Duration)
	// SessionLost tells that the session ended otherwise than by our own close.
	SessionLost func()
	// Foreign tells that an id was found in use: nobody's, which is written down; or
	// elsewhere than where it was granted, told at each scan that sees it.
	Foreign func(elsewhere bool)
}

// What Hooks.Committed says.
const (
	CommitApplied = "applied"
	CommitRefused = "refused"
	CommitUnknown = "unknown"
)

var errClosed = errors.New("closed")

func (h *Hooks) granted(req GrantRequest, g *Grant, err error, took time.Duration) {
	if h == nil || h.Granted == nil || req.Dry {
		return
	}
	kind := "uid"
	if slices.ContainsFunc(req.Wants, func(w Want) bool { return !(poolEntry{name: w.Pool}).ofUIDs() }) {
		kind = "vlan"
		if req.uids() {
			kind = "mixed"
		}
	}
	h.Granted(kind, g != nil && g.Same, problem.CodeOf(err), took)
}

func (h *Hooks) committed(operations int, resp *clientv3.TxnResponse, err error, took time.Duration) {
	if h == nil || h.Committed == nil {
		return
	}
	outcome := CommitApplied
	switch {
	case err != nil:
		outcome = CommitUnknown
	case !resp.Succeeded:
		outcome = CommitRefused
	}
	h.Committed(operations, outcome, took)
}

func (h *Hooks) lost(why error) {
	if h != nil && h.SessionLost != nil && !errors.Is(why, errClosed) {
		h.SessionLost()
	}
}

func (h *Hooks) foreign(elsewhere bool) {
	if h != nil && h.Foreign != nil {
		h.Foreign(elsewhere)
	}
}

// Gauges are the mirror's state at one moment, for metrics.
type Gauges struct {
	// UIDs and VLANs are claims by pool and state, "free" too: a grant of a block is
	// one.
	UIDs, VLANs map[string]map[string]uint64
	// OldestUID and OldestVLAN are how long this mirror has seen the longest
	// quarantine last; 0 if there is none.
	OldestUID, OldestVLAN time.Duration
	// Lag is by node how long the longest quarantine has waited for its word.
	Lag map[string]time.Duration
}

// Gauges reads the mirror once: it costs what the claims cost, and the quarantined
// ones by the nodes.
func (a *Allocator) Gauges() Gauges {
	g := Gauges{UIDs: map[string]map[string]uint64{}, VLANs: map[string]map[string]uint64{}, Lag: map[string]time.Duration{}}
	a.mirror.read(func(v *view) {
		for name, p := range v.pools {
			g.of(p.ofUIDs())[bareName(name)] = emptyCounts(p.firsts.CountWithout(v.takenIn(p.space(a.id.Node))))
		}
		for ref, c := range v.claims {
			if counts, ok := g.of(!ref.vlan())[bareName(c.Val.Pool)]; ok {
				counts[c.Val.State.String()]++
			}
		}
		nodes := v.witnesses()
		for _, n := range nodes {
			g.Lag[n.name] = 0
		}
		for ref, since := range v.quarantined {
			age := time.Since(since)
			if ref.vlan() {
				g.OldestVLAN = max(g.OldestVLAN, age)
				continue
			}
			g.OldestUID = max(g.OldestUID, age)
			for _, w := range v.weigh(ref, v.claims[ref]).waits(nodes) {
				g.Lag[w.Node] = max(g.Lag[w.Node], age)
			}
		}
	})
	return g
}

func (g *Gauges) of(uids bool) map[string]map[string]uint64 {
	if uids {
		return g.UIDs
	}
	return g.VLANs
}

func bareName(pool string) string {
	_, bare := tradeOf(pool)
	return bare
}

func emptyCounts(free uint64) map[string]uint64 {
	counts := map[string]uint64{}
	for _, s := range States() {
		counts[s.String()] = 0
	}
	counts[Free.String()] = free
	return counts
}
