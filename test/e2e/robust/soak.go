package robust

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/idpool/idpool/test/e2e/robust/judge"
	"github.com/idpool/idpool/test/e2e/robust/record"
	"github.com/idpool/idpool/test/e2e/robust/rig"
)

// Leaks is what a soak came to.
type Leaks struct {
	Result  *Result  `json:"result"`
	Samples []Sample `json:"samples"`
	Trends  []Trend  `json:"trends"`
}

// Soak is one long run with few faults, sampled every minute (a sixtieth of it, if
// it lasts less than an hour).
func Soak(ctx context.Context, o Options) (*record.Run, *Leaks, error) {
	o.defaults()
	o.Lasts, o.Between = 20*time.Second, min(5*time.Minute, o.For/8)
	if o.Scratch == "" {
		dir, err := os.MkdirTemp("", "idpsoak")
		if err != nil {
			return nil, nil, err
		}
		defer os.RemoveAll(dir)
		o.Scratch = dir
	}
	began := time.Now()
	a := &audit{dir: o.Scratch, every: min(time.Minute, o.For/60), logf: func(format string, args ...any) {
		fmt.Fprintf(o.Log, "%9.3fs %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}}
	o.Audit = func(ctx context.Context, r *rig.Rig) error { return a.run(ctx, r) }
	run, v, err := Run(ctx, o)
	if err != nil {
		return run, nil, err
	}
	l := &Leaks{Samples: a.samples, Trends: Trends(a.samples)}
	if len(l.Trends) == 0 {
		v.Violations = append(v.Violations, judge.Violation{Promise: judge.Vacuous, Text: fmt.Sprintf("%d samples say nothing of leaks", len(a.samples))})
	}
	for _, t := range l.Trends {
		if t.Grows {
			v.Violations = append(v.Violations, judge.Violation{Promise: judge.P6, Text: fmt.Sprintf("%s grows: at least %d in the middle third, %d in the last", t.Name, t.Middle, t.Last)})
		}
	}
	l.Result = NewResult(run, v, o.For)
	l.Result.Reproduce = fmt.Sprintf("make soak HOURS=%g SEED=%d", o.For.Hours(), o.Seed)
	return run, l, nil
}

// SaveLeaks writes what a soak came to beside its run.
func SaveLeaks(path string, l *Leaks) error { return saveJSON(path, l) }

// SoakTable is the soak's part of docs/reliability.md.
func SoakTable(l *Leaks) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	s, c := Sum(l.Result), l.Result.Verdict.Counts
	line("%s of traffic on %s, seed %d, built from %s: %d calls ok, %d refused, %d unknown; %d faults; %d grants, %d processes, %d changes in etcd; %d keys left at the end; %d violations.",
		l.Result.Duration, day(l.Result.Started), l.Result.Seed, l.Result.Commit, s.OK, s.Refused, s.Unknown, s.Faults, c.Grants, c.Processes, c.Changes, c.Left, len(l.Result.Verdict.Violations))
	for _, v := range l.Result.Verdict.Violations {
		line("- %s", v)
	}
	line("")
	line("%d samples. The least of the last third may not be above that of the middle third by more than a quarter and the slack.", len(l.Samples))
	line("")
	line("| measured | least, middle third | least, last third | highest | at the end | slack | grows |")
	line("|---|--:|--:|--:|--:|--:|---|")
	for _, t := range l.Trends {
		line("| %s | %d | %d | %d | %d | %s | %s |", t.Name, t.Middle, t.Last, t.Highest, t.Final, slackText(t.Slack), yes(t.Grows))
	}
	line("")
	line("Faults: %s.", faultList(c.Faults))
	return b.String()
}

func slackText(n int64) string {
	if n >= 1<<40 {
		return "not judged"
	}
	return fmt.Sprint(n)
}

func yes(b bool) string {
	if b {
		return "**yes**"
	}
	return "no"
}

func faultList(faults map[string]int) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(faults)) {
		all = append(all, fmt.Sprintf("%s %d", name, faults[name]))
	}
	return strings.Join(all, ", ")
}
