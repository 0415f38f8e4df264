package robust

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/idpool/idpool/test/e2e/robust/judge"
	"github.com/idpool/idpool/test/e2e/robust/record"
)

// The files of a run's directory; its logs are kept beside them only where a
// promise was broken.
const (
	fileRun       = "run.json"
	fileOps       = "ops.jsonl"
	fileProcesses = "processes.jsonl"
	fileFaults    = "faults.jsonl"
	fileHistory   = "history.jsonl.gz"
	fileVerdict   = "verdict.json"
)

// Result is what a run came to: the file verdict.json.
type Result struct {
	Seed     int64         `json:"seed"`
	Commit   string        `json:"commit"`
	Started  time.Time     `json:"started"`
	Duration time.Duration `json:"duration"` // of traffic and faults, in nanoseconds
	// Unknown counts the calls that never got an answer.
	Unknown int `json:"unknown"`
	// Reproduce is the command that runs it again.
	Reproduce string         `json:"reproduce"`
	Verdict   *judge.Verdict `json:"verdict,omitempty"`
	// Error is why there is no verdict.
	Error string `json:"error,omitempty"`
}

// Kept tells whether the run was judged, and no promise broken.
func (r *Result) Kept() bool { return r.Verdict != nil && len(r.Verdict.Violations) == 0 }

// NewResult sums a judged run up.
func NewResult(run *record.Run, v *judge.Verdict, lasted time.Duration) *Result {
	r := &Result{Seed: run.Seed, Commit: run.Commit, Started: run.Started, Duration: lasted, Verdict: v,
		Reproduce: fmt.Sprintf("make robust SEED=%d FOR=%s", run.Seed, lasted)}
	if len(run.Only) > 0 {
		r.Reproduce += " FAULTS=" + strings.Join(run.Only, ",")
	}
	for _, byOutcome := range v.Counts.Ops {
		r.Unknown += byOutcome[record.Unknown]
	}
	return r
}

// Save writes a judged run into a directory, which it makes. verdict.json comes
// last: a directory with it is complete.
func Save(dir string, run *record.Run, result *Result) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return errors.Join(
		saveJSON(filepath.Join(dir, fileRun), run),
		saveLines(filepath.Join(dir, fileOps), run.Ops),
		saveLines(filepath.Join(dir, fileProcesses), run.Processes),
		saveLines(filepath.Join(dir, fileFaults), run.Faults),
		saveLines(filepath.Join(dir, fileHistory), run.Changes),
		SaveResult(dir, result),
	)
}

// SaveResult writes the file verdict.json alone.
func SaveResult(dir string, result *Result) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return saveJSON(filepath.Join(dir, fileVerdict), result)
}

// LoadResult reads a directory's verdict.json.
func LoadResult(dir string) (*Result, error) {
	raw, err := os.ReadFile(filepath.Join(dir, fileVerdict))
	if err != nil {
		return nil, err
	}
	var r Result
	if err := json.Unmarshal(raw, &r); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, fileVerdict), err)
	}
	return &r, nil
}

// Load reads what [Save] wrote, to be judged again.
func Load(dir string) (*record.Run, error) {
	raw, err := os.ReadFile(filepath.Join(dir, fileRun))
	if err != nil {
		return nil, err
	}
	run := &record.Run{}
	if err := json.Unmarshal(raw, run); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, fileRun), err)
	}
	return run, errors.Join(
		loadLines(filepath.Join(dir, fileOps), &run.Ops),
		loadLines(filepath.Join(dir, fileProcesses), &run.Processes),
		loadLines(filepath.Join(dir, fileFaults), &run.Faults),
		loadLines(filepath.Join(dir, fileHistory), &run.Changes),
	)
}

func saveJSON(path string, v any) error {
	raw, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	next := path + ".next"
	if err := os.WriteFile(next, append(raw, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(next, path)
}

func saveLines[T any](path string, all []T) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var w io.Writer = f
	if filepath.Ext(path) == ".gz" {
		z := gzip.NewWriter(f)
		defer func() { err = errors.Join(err, z.Close()) }()
		w = z
	}
	buffered := bufio.NewWriter(w)
	out := json.NewEncoder(buffered)
	for i := range all {
		if err := out.Encode(&all[i]); err != nil {
			return err
		}
	}
	return buffered.Flush()
}

func loadLines[T any](path string, all *[]T) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	var r io.Reader = bufio.NewReader(f)
	if filepath.Ext(path) == ".gz" {
		z, err := gzip.NewReader(r)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		defer z.Close()
		r = z
	}
	in := json.NewDecoder(r)
	for {
		var one T
		switch err := in.Decode(&one); {
		case err == io.EOF:
			return nil
		case err != nil:
			return fmt.Errorf("%s: %w", path, err)
		}
		*all = append(*all, one)
	}
}
