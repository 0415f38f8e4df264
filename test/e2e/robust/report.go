package robust

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/idpool/idpool/test/e2e/robust/record"
)

// Sums are the calls and faults of a run, or of several.
type Sums struct{ OK, Refused, Unknown, Faults int }

// Sum counts a judged run.
func Sum(r *Result) Sums {
	c := r.Verdict.Counts
	s := Sums{OK: c.Total(record.OK), Refused: c.Total(record.Refused), Unknown: c.Total(record.Unknown)}
	for _, n := range c.Faults {
		s.Faults += n
	}
	return s
}

// Results reads all results below a directory of runs, by seed.
func Results(dir string) ([]*Result, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "seed-*", fileVerdict))
	if err != nil {
		return nil, err
	}
	var all []*Result
	for _, path := range paths {
		r, err := LoadResult(filepath.Dir(path))
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b *Result) int { return int(a.Seed - b.Seed) })
	return all, nil
}

// total is what the runs of a campaign sum up to.
type total struct {
	Sums
	runs, kept, none            int // runs: judged; none: without verdict
	changes, processes, grants  int
	lasted                      time.Duration
	ops                         map[record.Kind]map[record.Outcome]int
	faults, refused             map[string]int
	commits                     map[string]int
	broken                      []*Result
	violations                  int
	first, last                 time.Time
	undecided, left, noFaultsIn int
	restores, after, carried    int
}

func sumUp(all []*Result) *total {
	t := &total{ops: map[record.Kind]map[record.Outcome]int{}, faults: map[string]int{}, refused: map[string]int{}, commits: map[string]int{}}
	for _, r := range all {
		if r.Verdict == nil {
			t.none++
			t.broken = append(t.broken, r)
			continue
		}
		t.runs++
		t.commits[r.Commit]++
		t.lasted += r.Duration
		if t.first.IsZero() || r.Started.Before(t.first) {
			t.first = r.Started
		}
		if r.Started.After(t.last) {
			t.last = r.Started
		}
		if r.Kept() {
			t.kept++
		} else {
			t.broken = append(t.broken, r)
			t.violations += len(r.Verdict.Violations)
		}
		s, c := Sum(r), r.Verdict.Counts
		t.OK, t.Refused, t.Unknown, t.Faults = t.OK+s.OK, t.Refused+s.Refused, t.Unknown+s.Unknown, t.Faults+s.Faults
		t.changes, t.processes, t.grants = t.changes+c.Changes, t.processes+c.Processes, t.grants+c.Grants
		t.undecided, t.left = t.undecided+c.Undecided, t.left+c.Left
		t.restores, t.after, t.carried = t.restores+c.Restores, t.after+c.AfterSnapshot, t.carried+c.Carried
		for kind, by := range c.Ops {
			if t.ops[kind] == nil {
				t.ops[kind] = map[record.Outcome]int{}
			}
			for o, n := range by {
				t.ops[kind][o] += n
			}
		}
		add(t.faults, c.Faults)
		add(t.refused, c.Codes)
		for _, n := range c.NoFaults {
			t.noFaultsIn += n
		}
	}
	return t
}

func add(to, from map[string]int) {
	for k, n := range from {
		to[k] += n
	}
}

// Table is the campaign's part of docs/reliability.md.
func Table(all []*Result) string {
	t := sumUp(all)
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("| runs judged | all promises kept | violations | traffic | calls ok | refused | unknown | faults | grants | processes | changes in etcd |")
	line("|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
	line("| %d | %d | %d | %s | %d | %d | %d | %d | %d | %d | %d |", t.runs, t.kept, t.violations, t.lasted, t.OK, t.Refused, t.Unknown, t.Faults, t.grants, t.processes, t.changes)
	line("")
	line("From %s to %s; built from %s. Keys left at the end: %d. Ids that porcupine had no time for: %d. Faults that could not be injected: %d. Runs without a verdict: %d.",
		day(t.first), day(t.last), strings.Join(slices.Sorted(maps.Keys(t.commits)), ", "), t.left, t.undecided, t.noFaultsIn, t.none)
	if t.restores > 0 {
		line("")
		line("Restores of etcd: %d. Grants that their snapshots lacked: %d; ids of these that were held then, and again after the adoption: %d.", t.restores, t.after, t.carried)
	}
	line("")
	line("| call | ok | refused | unknown |")
	line("|---|--:|--:|--:|")
	for _, kind := range slices.Sorted(maps.Keys(t.ops)) {
		line("| %s | %d | %d | %d |", kind, t.ops[kind][record.OK], t.ops[kind][record.Refused], t.ops[kind][record.Unknown])
	}
	line("")
	line("| refused as | calls |")
	line("|---|--:|")
	for _, code := range slices.Sorted(maps.Keys(t.refused)) {
		line("| %s | %d |", code, t.refused[code])
	}
	line("")
	line("| fault | times |")
	line("|---|--:|")
	for _, name := range slices.Sorted(maps.Keys(t.faults)) {
		line("| %s | %d |", name, t.faults[name])
	}
	if len(t.broken) > 0 {
		line("")
		line("| seed | what |")
		line("|--:|---|")
		for _, r := range t.broken {
			line("| %d | %s |", r.Seed, strings.ReplaceAll(what(r), "|", "\\|"))
		}
	}
	return b.String()
}

// what is why a run is not fine, in one line.
func what(r *Result) string {
	if r.Verdict == nil {
		return "no verdict: " + strings.ReplaceAll(r.Error, "\n", "; ")
	}
	return fmt.Sprintf("%d violations, the first: %s", len(r.Verdict.Violations), r.Verdict.Violations[0])
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// Splice replaces what stands between the markers <!-- NAME --> and <!-- /NAME -->
// of a file.
func Splice(path, name, text string) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	open, end := "<!-- "+name+" -->", "<!-- /"+name+" -->"
	head, rest, ok := strings.Cut(string(raw), open)
	_, tail, found := strings.Cut(rest, end)
	if !ok || !found {
		return fmt.Errorf("%s has no markers %s and %s", path, open, end)
	}
	return os.WriteFile(path, []byte(head+open+"\n"+strings.TrimSpace(text)+"\n"+end+tail), 0o644)
}
