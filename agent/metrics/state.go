package metrics

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/idpool/idpool/leases"
)

const (
	// maxPools and maxNodes bound how many are told apart.
	maxPools = 200
	maxNodes = 500
)

// State is what is read of an agent at a gathering.
type State struct {
	// Ready tells that a uid request would be served, Session that the session with
	// etcd stands.
	Ready, Session bool
	// Gauges are the engine's; empty while there is none.
	Gauges leases.Gauges
	// Certificates are when the agent's own end, by use: "etcd", "listen".
	Certificates map[string]time.Time
}

// stateCollector turns a [State] into metrics.
type stateCollector struct {
	state                            func() State
	ready, session, ids, oldest, lag *prometheus.Desc
	certificate                      *prometheus.Desc
}

func newStateCollector(state func() State) *stateCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("idpool_"+name, help, labels, nil)
	}
	return &stateCollector{
		state:       state,
		ready:       desc("ready", "1 if a uid request would be served, else 0; /readyz says why."),
		session:     desc("session_live", "1 if the session with etcd stands, else 0."),
		ids:         desc("ids", "Ids (blocks, where the pool grants blocks) by state, in the whole cluster as this agent sees it.", "kind", "pool", "state"),
		oldest:      desc("quarantine_oldest_seconds", "How long the longest quarantine has lasted while this agent looked; 0 if there is none.", "kind"),
		lag:         desc("proof_lag_seconds", "How long the longest quarantined id has waited for the node's word; 0 if none waits for it.", "node"),
		certificate: desc("certificate_end_timestamp_seconds", "When the agent's certificate ends, in seconds of Unix time: towards etcd, or on its TCP port; 0 without one.", "use"),
	}
}

// Describe implements prometheus.Collector.
func (c *stateCollector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.ready, c.session, c.ids, c.oldest, c.lag, c.certificate} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (c *stateCollector) Collect(to chan<- prometheus.Metric) {
	s := c.state()
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	gauge(c.ready, number(s.Ready))
	gauge(c.session, number(s.Session))
	gauge(c.oldest, s.Gauges.OldestUID.Seconds(), "uid")
	gauge(c.oldest, s.Gauges.OldestVLAN.Seconds(), "vlan")
	for kind, pools := range map[string]map[string]map[string]uint64{"uid": s.Gauges.UIDs, "vlan": s.Gauges.VLANs} {
		for pool, counts := range bounded(pools) {
			for state, n := range counts {
				gauge(c.ids, float64(n), kind, pool, state)
			}
		}
	}
	for _, use := range []string{"etcd", "listen"} {
		end := 0.0
		if ends := s.Certificates[use]; !ends.IsZero() {
			end = float64(ends.Unix())
		}
		gauge(c.certificate, end, use)
	}
	for node, lag := range longest(s.Gauges.Lag) {
		gauge(c.lag, lag.Seconds(), node)
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// bounded counts the pools after the first maxPools, by name, together. "other" is
// always there, so that no series comes into being late.
func bounded(pools map[string]map[string]uint64) map[string]map[string]uint64 {
	out := map[string]map[string]uint64{}
	rest := map[string]uint64{}
	for _, s := range leases.States() {
		rest[s.String()] = 0
	}
	for i, name := range slices.Sorted(maps.Keys(pools)) {
		if i < maxPools && name != other {
			out[name] = pools[name]
			continue
		}
		for state, n := range pools[name] {
			rest[state] += n
		}
	}
	out[other] = rest
	return out
}

// longest keeps the maxNodes nodes that are waited for the longest; of the others
// the longest wait.
func longest(lag map[string]time.Duration) map[string]time.Duration {
	out := map[string]time.Duration{other: 0}
	names := slices.SortedFunc(maps.Keys(lag), func(x, y string) int { return cmp.Or(cmp.Compare(lag[y], lag[x]), cmp.Compare(x, y)) })
	for i, name := range names {
		if i < maxNodes && name != other {
			out[name] = lag[name]
		} else {
			out[other] = max(out[other], lag[name])
		}
	}
	return out
}
