package metrics_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/idpool/idpool/agent/metrics"
	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/problem"
)

// gather is what a registry holds of ours, by name.
func gather(t *testing.T, m *metrics.Metrics) map[string]*dto.MetricFamily {
	t.Helper()
	all, err := m.Registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	ours := map[string]*dto.MetricFamily{}
	for _, f := range all {
		if strings.HasPrefix(f.GetName(), "idpool_") {
			ours[f.GetName()] = f
		}
	}
	return ours
}

func labels(f *dto.MetricFamily) string {
	var names []string
	for _, l := range f.Metric[0].Label {
		names = append(names, l.GetName())
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// TestDocumented: docs/metrics.md has every metric that there is, and no other one,
// with its type, unit and labels.
func TestDocumented(t *testing.T) {
	ours := gather(t, metrics.New("v", func() metrics.State { return metrics.State{} }))
	f, err := os.Open("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	seen := 0
	for in := bufio.NewScanner(f); in.Scan(); {
		cells := strings.Split(in.Text(), "|")
		if len(cells) != 7 || !strings.HasPrefix(cells[1], " `idpool_") {
			continue
		}
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		seen++
		name := strings.Trim(cells[1], "`")
		fam, ok := ours[name]
		if !ok {
			t.Errorf("%s is documented, and there is no such metric", name)
			continue
		}
		delete(ours, name)
		if kind := strings.ToLower(fam.GetType().String()); kind != cells[2] {
			t.Errorf("%s is a %s, documented as %s", name, kind, cells[2])
		}
		if cells[3] == "" || cells[5] == "" || strings.HasSuffix(name, "_timestamp_seconds") != (cells[3] == "Unix time") ||
			strings.HasSuffix(name, "_seconds") != (cells[3] == "seconds" || cells[3] == "Unix time") {
			t.Errorf("%s: unit %q, meaning %q", name, cells[3], cells[5])
		}
		documented := strings.Split(cells[4], ", ")
		slices.Sort(documented)
		if got := labels(fam); got != strings.Join(documented, ", ") {
			t.Errorf("%s has the labels %s, documented are %s", name, got, cells[4])
		}
	}
	for name := range ours {
		t.Errorf("%s is not documented", name)
	}
	if seen < 15 {
		t.Errorf("%d metrics documented: vacuous", seen)
	}
}

// TestBornAtZero: every series but the version's is there, at zero, before anything
// happened.
func TestBornAtZero(t *testing.T) {
	series := 0
	for name, f := range gather(t, metrics.New("v", func() metrics.State { return metrics.State{} })) {
		for _, m := range f.Metric {
			series++
			if v := m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount()); v != 0 && name != "idpool_build_info" {
				t.Errorf("%s %v is %v", name, m.Label, v)
			}
		}
	}
	if series < 60 {
		t.Errorf("%d series: vacuous", series)
	}
}

// TestCounted: what is told is counted once, under a label that exists.
func TestCounted(t *testing.T) {
	m := metrics.New("v", func() metrics.State { return metrics.State{} })
	before := gather(t, m)
	h := m.Hooks()
	h.Granted("uid", false, "", time.Second)
	h.Granted("uid", true, "", time.Second)
	h.Granted("uid", false, problem.CodeExhausted, time.Second)
	h.Granted("uid", false, problem.CodeLockLost, time.Second) // has no series of its own
	h.Committed(3, leases.CommitApplied, time.Second)
	h.SessionLost()
	h.Foreign(true)
	h.Foreign(false)
	m.Scanned(time.Second, 7, nil)
	m.Scanned(time.Second, 0, errors.New("x"))
	m.Compensated()
	m.Request()(200)
	m.Request()(299)
	m.Request() // under way
	sums := map[string]float64{}
	for name, f := range gather(t, m) {
		if len(f.Metric) != len(before[name].Metric) {
			t.Errorf("%s has %d series, had %d: cardinality grows", name, len(f.Metric), len(before[name].Metric))
		}
		for _, x := range f.Metric {
			sums[name] += x.GetCounter().GetValue() + x.GetGauge().GetValue() + float64(x.GetHistogram().GetSampleCount())
		}
	}
	for name, want := range map[string]float64{
		"idpool_grant_seconds": 4, "idpool_commits_total": 1, "idpool_commit_seconds": 1, "idpool_batch_operations": 1, "idpool_sessions_lost_total": 1,
		"idpool_foreign_use_total": 2, "idpool_scan_seconds": 2, "idpool_scanned_tasks_total": 7, "idpool_compensations_total": 1, "idpool_requests_total": 2,
		"idpool_requests_under_way": 1,
	} {
		if sums[name] != want {
			t.Errorf("%s adds up to %v, want %v", name, sums[name], want)
		}
	}
}

// TestBounded: thousands of pools and nodes make hundreds of series, and nothing of
// what they count is lost.
func TestBounded(t *testing.T) {
	s := metrics.State{Gauges: leases.Gauges{UIDs: map[string]map[string]uint64{}, Lag: map[string]time.Duration{}}}
	for i := range 3000 {
		s.Gauges.UIDs[fmt.Sprintf("p%d", i)] = map[string]uint64{"free": 2, "locked": 1}
		s.Gauges.Lag[fmt.Sprintf("n%d", i)] = time.Duration(i) * time.Second
	}
	ours := gather(t, metrics.New("v", func() metrics.State { return s }))
	sum := 0.0
	for _, x := range ours["idpool_ids"].Metric {
		sum += x.GetGauge().GetValue()
	}
	if n := len(ours["idpool_ids"].Metric); n > 1500 || sum != 9000 {
		t.Errorf("%d series of ids, together %v; want 9000", n, sum)
	}
	longest := 0.0
	for _, x := range ours["idpool_proof_lag_seconds"].Metric {
		longest = max(longest, x.GetGauge().GetValue())
	}
	if n := len(ours["idpool_proof_lag_seconds"].Metric); n != 501 || longest != 2999 {
		t.Errorf("%d series of nodes, the longest %v", n, longest)
	}
}
