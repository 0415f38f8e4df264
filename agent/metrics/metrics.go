package metrics

import (
	"bytes"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/common/expfmt"

	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/problem"
)

// ContentType is that of what [Metrics.Text] returns.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// Metrics are an agent's counters. Make them with [New].
type Metrics struct {
	registry     *prometheus.Registry
	grants       *prometheus.HistogramVec
	commits      *prometheus.CounterVec
	commitTime   prometheus.Histogram
	batch        prometheus.Histogram
	scans        *prometheus.HistogramVec
	tasks        prometheus.Counter
	sessionsLost prometheus.Counter
	compensated  prometheus.Counter
	foreign      *prometheus.CounterVec
	requests     *prometheus.CounterVec
	underWay     prometheus.Gauge
}

// The values of labels; what is none of them is "other".
var (
	kinds    = []string{"uid", "vlan", "mixed"}
	outcomes = []string{leases.CommitApplied, leases.CommitRefused, leases.CommitUnknown}
	// Results of a grant: the refusals that have a meaning for whoever watches.
	results = []string{
		resultGranted, resultSame, string(problem.CodeExhausted), string(problem.CodeHeld), string(problem.CodeInvalid), string(problem.CodeNoProof),
		string(problem.CodeUnavailable), string(problem.CodeOutcomeUnknown), string(problem.CodeFenced), string(problem.CodeFrozen), other,
	}
	statuses = []string{"200", "201", "204", "403", "404", "409", "412", "422", "428", "500", "503", "504", other}
)

const (
	resultGranted = "granted"
	resultSame    = "same"
	other         = "other"
)

func known(all []string, value string) string {
	for _, v := range all {
		if v == value {
			return v
		}
	}
	return other
}

// New makes the metrics of an agent of a version. state is read at each gathering.
func New(version string, state func() State) *Metrics {
	waits := []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}
	short := []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
	histogram := func(name, help string, buckets []float64) prometheus.HistogramOpts {
		return prometheus.HistogramOpts{Namespace: "idpool", Name: name, Help: help, Buckets: buckets}
	}
	counter := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Namespace: "idpool", Name: name, Help: help}
	}
	m := &Metrics{
		registry:     prometheus.NewRegistry(),
		grants:       prometheus.NewHistogramVec(histogram("grant_seconds", "Time until a request for ids was answered, what it waited for a free id included.", waits), []string{"kind", "result"}),
		commits:      prometheus.NewCounterVec(counter("commits_total", "Transactions sent to etcd."), []string{"outcome"}),
		commitTime:   prometheus.NewHistogram(histogram("commit_seconds", "Time until etcd answered a transaction.", short)),
		batch:        prometheus.NewHistogram(histogram("batch_operations", "Operations that shared a transaction.", []float64{1, 2, 4, 8, 16, 32, 64})),
		scans:        prometheus.NewHistogramVec(histogram("scan_seconds", "Time that an exact scan of the node's processes took.", short), []string{"result"}),
		tasks:        prometheus.NewCounter(counter("scanned_tasks_total", "Processes and threads that scans read.")),
		sessionsLost: prometheus.NewCounter(counter("sessions_lost_total", "Sessions with etcd that ended otherwise than by the agent's own stop.")),
		compensated:  prometheus.NewCounter(counter("compensations_total", "Services whose VLANs were given back because something failed, nobody confirmed, or somebody crashed.")),
		foreign:      prometheus.NewCounterVec(counter("foreign_use_total", "Ids found in use that were granted to nobody, or elsewhere; the latter at each scan that sees them."), []string{"granted"}),
		requests:     prometheus.NewCounterVec(counter("requests_total", "HTTP requests answered."), []string{"code"}),
		underWay:     prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "idpool", Name: "requests_under_way", Help: "HTTP requests not answered yet."}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "idpool", Name: "build_info", Help: "1, with the agent's version.", ConstLabels: prometheus.Labels{"version": version}})
	build.Set(1)
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		m.grants, m.commits, m.commitTime, m.batch, m.scans, m.tasks, m.sessionsLost, m.compensated, m.foreign, m.requests, m.underWay, build, newStateCollector(state))
	m.zero()
	return m
}

// zero makes every series exist.
func (m *Metrics) zero() {
	for _, k := range kinds {
		for _, r := range results {
			m.grants.WithLabelValues(k, r)
		}
	}
	for _, o := range outcomes {
		m.commits.WithLabelValues(o)
	}
	for _, r := range []string{"ok", "failed"} {
		m.scans.WithLabelValues(r)
	}
	for _, g := range []string{"nobody", "elsewhere"} {
		m.foreign.WithLabelValues(g)
	}
	for _, c := range statuses {
		m.requests.WithLabelValues(c)
	}
}

// Hooks are for the engine.
func (m *Metrics) Hooks() *leases.Hooks {
	return &leases.Hooks{
		Granted: func(kind string, same bool, code problem.Code, took time.Duration) {
			result := resultGranted
			switch {
			case code != "":
				result = known(results, string(code))
			case same:
				result = resultSame
			}
			m.grants.WithLabelValues(kind, result).Observe(took.Seconds())
		},
		Committed: func(operations int, outcome string, took time.Duration) {
			m.commits.WithLabelValues(outcome).Inc()
			m.batch.Observe(float64(operations))
			m.commitTime.Observe(took.Seconds())
		},
		SessionLost: m.sessionsLost.Inc,
		Foreign: func(elsewhere bool) {
			granted := "nobody"
			if elsewhere {
				granted = "elsewhere"
			}
			m.foreign.WithLabelValues(granted).Inc()
		},
	}
}

// Scanned counts a scan.
func (m *Metrics) Scanned(took time.Duration, tasks int, err error) {
	result := "ok"
	if err != nil {
		result = "failed"
	}
	m.scans.WithLabelValues(result).Observe(took.Seconds())
	m.tasks.Add(float64(tasks))
}

// Compensated counts a compensation.
func (m *Metrics) Compensated() { m.compensated.Inc() }

// Request counts a request that begins; answered its end with a status.
func (m *Metrics) Request() (answered func(status int)) {
	m.underWay.Inc()
	return func(status int) {
		m.underWay.Dec()
		m.requests.WithLabelValues(known(statuses, strconv.Itoa(status))).Inc()
	}
}

// Registry is what they are registered with.
func (m *Metrics) Registry() *prometheus.Registry { return m.registry }

// Text gathers everything in Prometheus' text format.
func (m *Metrics) Text() ([]byte, error) {
	all, err := m.registry.Gather()
	if err != nil {
		return nil, problem.Wrap(problem.CodeInternal, err, "gather the metrics")
	}
	var b bytes.Buffer
	for _, f := range all {
		if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
			return nil, problem.Wrap(problem.CodeInternal, err, "write the metrics")
		}
	}
	return b.Bytes(), nil
}
