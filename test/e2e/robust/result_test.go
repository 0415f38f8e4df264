package robust

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/test/e2e/robust/record"
)

// TestSavedRun: what is saved is judged again as it was.
func TestSavedRun(t *testing.T) {
	run := &record.Run{
		Seed: 7, Commit: "abc", Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Quiet: 9, Left: map[string][]byte{"claims/uid/0000000001": []byte("{}")},
		Ops:       []record.Op{{Client: "c", N: 1, Kind: record.RequestUID, Outcome: record.Unknown, Call: 3}},
		Processes: []record.Process{{Node: "n1", ID: "uid/1", Token: "T", From: 1, Until: 2}},
		Faults:    []record.Fault{{Name: "cut", From: 1, Until: 2}},
		Changes:   []record.Change{{Revision: 5, Key: "meta", Value: []byte("{}"), Lease: 4, Seen: 6}, {Revision: 6, Key: "meta", Seen: 7}},
	}
	dir := t.TempDir()
	if err := Save(dir, run, &Result{Seed: 7, Error: "x"}); err != nil {
		t.Fatal(err)
	}
	got, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(run, got); diff != "" {
		t.Error(diff)
	}
	if r, err := LoadResult(dir); err != nil || r.Error != "x" || r.Kept() {
		t.Errorf("the result is %+v (%v)", r, err)
	}
}

// TestRebootEndsProcesses: a process is certain to have run only until its node
// began to start anew; one whose end nobody saw, when it had been started.
func TestRebootEndsProcesses(t *testing.T) {
	now := 10 * time.Second
	j := newJournal(func() time.Duration { return now })
	on := func(node string) *running { return j.started(record.Process{Node: node, ID: "uid/1"}) }
	ended, lost, rebooted, elsewhere := on("n1"), on("n1"), on("n2"), on("n3")
	_ = lost
	now = 12 * time.Second
	f := j.fault("reboot")
	now = 14 * time.Second
	j.healed(f, "n2", nil, []string{"n2"})
	for _, r := range []*running{ended, rebooted, elsewhere} {
		j.ran(r, now)
	}
	run := &record.Run{}
	j.into(run)
	var got []time.Duration
	for _, p := range run.Processes {
		got = append(got, p.Until/time.Second)
	}
	if diff := cmp.Diff([]time.Duration{14, 10, 12, 14}, got); diff != "" {
		t.Error(diff)
	}
}

// TestTrends: what only goes up is a leak; what comes down, or stays, is none.
func TestTrends(t *testing.T) {
	var samples []Sample
	for i := range int64(60) {
		samples = append(samples, Sample{Counts: map[string]int64{"leak": i, "saw": i % 10, "flat": 100}})
	}
	grows := map[string]bool{}
	for _, trend := range Trends(samples) {
		grows[trend.Name] = trend.Grows
	}
	if diff := cmp.Diff(map[string]bool{"leak": true, "saw": false, "flat": false}, grows); diff != "" {
		t.Error(diff)
	}
	if Trends(samples[:8]) != nil {
		t.Error("eight samples are enough")
	}
}

// TestOutcome: only a refusal that says so counts as not done.
func TestOutcome(t *testing.T) {
	for _, c := range problem.Codes() {
		want := record.Refused
		if c == problem.CodeOutcomeUnknown || c == problem.CodeInternal {
			want = record.Unknown
		}
		if got := outcome(problem.New(c, "x")); got != want {
			t.Errorf("%s is %s, want %s", c, got, want)
		}
	}
	if got := outcome(os.ErrClosed); got != record.Unknown {
		t.Errorf("an error without a code is %s", got)
	}
}

// TestSplice: only what stands between the markers is replaced.
func TestSplice(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.md")
	if err := os.WriteFile(path, []byte("a\n<!-- t -->\nold\n<!-- /t -->\nb\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Splice(path, "t", "new\n"); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(path); string(got) != "a\n<!-- t -->\nnew\n<!-- /t -->\nb\n" {
		t.Errorf("got %q", got)
	}
	if Splice(path, "other", "new") == nil {
		t.Error("a marker that is missing is no error")
	}
}
