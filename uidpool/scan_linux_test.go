package uidpool

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/idpool/idpool/problem"
)

// pidsMade counts the tasks that were made since boot.
func pidsMade(t testing.TB) int {
	t.Helper()
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for field, rest := "", string(text); rest != ""; {
		field, rest, _ = cutLine(rest)
		if len(field) > 10 && field[:10] == "processes " {
			n, err = strconv.Atoi(field[10:])
		}
	}
	if n == 0 || err != nil {
		t.Fatalf("/proc/stat tells no number of processes: %v", err)
	}
	return n
}

func cutLine(s string) (line, rest string, found bool) {
	for i := range len(s) {
		if s[i] == '\n' {
			return s[:i], s[i+1:], true
		}
	}
	return s, "", false
}

// TestForkStorm looks for a uid whose one process lives on by forking and
// exiting all the time: nobody may miss it, not once.
func TestForkStorm(t *testing.T) {
	needRoot(t)
	r := needView(t)
	rows := []struct {
		name string
		uids func(uint32) [4]uint32
		real bool
	}{{"all four", allFour, true}, {"effective only", effective, false}}
	for i, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			u := 3_900_002_000 + uint32(i)
			storm := startStorm(t, row.uids(u))
			made, scans, asked, missed, missedQuick, plain := pidsMade(t), 0, 0, 0, 0, 0
			for end := time.Now().Add(1500 * time.Millisecond); time.Now().Before(end); scans++ {
				s, err := r.Scan(t.Context())
				if err != nil {
					t.Fatalf("scan %d: %v", scans, err)
				}
				if !s.Used.Contains(u) {
					missed++
				}
				if !plainScan(t, u) {
					plain++
				}
				for range 10 {
					asked++
					held, err := Quick(UID(u))
					if err != nil {
						t.Fatal(err)
					}
					if held != row.real {
						missedQuick++
					}
				}
			}
			made = pidsMade(t) - made
			t.Logf("%d scans, %d missed (a plain one: %d); getpriority wrong in %d of %d; %d processes made", scans, missed, plain, missedQuick, asked, made)
			if missed > 0 || missedQuick > 0 {
				t.Errorf("%d of %d scans and %d of %d quick answers were wrong", missed, scans, missedQuick, asked)
			}
			if made < 500 || scans < 20 {
				t.Errorf("%d processes in %d scans are no storm: the test proves nothing", made, scans)
			}
			storm.end()
			waitFree(t, r, UID(u))
		})
	}
}

// plainScan is what the exact scan is measured against: list, then read.
func plainScan(t testing.TB, u uint32) bool {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	seen := false
	for _, e := range entries {
		if !isPID([]byte(e.Name())) {
			continue
		}
		text, err := os.ReadFile("/proc/" + e.Name() + "/status")
		if err != nil {
			continue
		}
		if st, err := parseStatus(text); err == nil && contains(st.uids[:], u) {
			seen = true
		}
	}
	return seen
}

// TestScanSeesEverybody compares a scan with what the kernel counts.
func TestScanSeesEverybody(t *testing.T) {
	r := needView(t)
	s, err := r.Scan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	boot, err := BootID()
	if err != nil {
		t.Fatal(err)
	}
	if s.Boot != boot || s.Ended.Before(s.Began) {
		t.Errorf("snapshot of boot %q, %v to %v", s.Boot, s.Began, s.Ended)
	}
	if !s.Used.Contains(0) || len(s.Who[0]) == 0 || len(s.Who[0]) > MaxHolders || s.Who[0][0].PID != 1 {
		t.Errorf("root's processes: %v", s.Who[0])
	}
	if s.Tasks < 3 || s.Used.Count() != uint64(len(s.Who)) {
		t.Errorf("%d tasks, %d uids, %d shown", s.Tasks, s.Used.Count(), len(s.Who))
	}
}

// TestScanThreadChurn: a uid that is handed from thread to thread of one
// process must neither be missed nor keep scans from ending.
func TestScanThreadChurn(t *testing.T) {
	needRoot(t)
	r := needView(t)
	const u = 3_900_003_000
	startHelper(t, helperTask{Kind: "churn", UIDs: effective(u)})
	made := pidsMade(t)
	const scans = 200
	for n := range scans {
		s, err := r.Scan(t.Context())
		if err != nil {
			t.Fatalf("scan %d: %v", n, err)
		}
		if !s.Used.Contains(u) {
			t.Fatalf("scan %d of %d missed the threads", n, scans)
		}
	}
	if made = pidsMade(t) - made; made < scans {
		t.Errorf("%d threads in %d scans are no churn: the test proves nothing", made, scans)
	}
}

func TestScanRefuses(t *testing.T) {
	r := needView(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the caller went away")
	cancel(why)
	many := 0
	err := r.exact(ctx, func(s *scanner, _ int) (bool, error) {
		many++
		return false, nil
	}, func(*scanner) { t.Error("a scan that was cancelled is done") })
	if err == nil || !errors.Is(err, why) {
		t.Errorf("cancelled scan: %v; want the cause", err)
	}
	// Each row spoils one thing of a scan that is good otherwise.
	rows := []struct {
		want  string
		spoil func(s *scanner) (gone bool, err error)
	}{
		{"lacks pid 1 or our own", func(s *scanner) (bool, error) { s.own = -1; return false, nil }},
		{"permission denied", func(*scanner) (bool, error) { return false, unix.EACCES }},
		{"come and go faster", func(*scanner) (bool, error) { return true, nil }},
		{"the kernel counts", func(s *scanner) (bool, error) { s.tally.tasks = -1 << 20; return false, nil }},
		{"pids started anew", func(s *scanner) (bool, error) { s.now.last = 1 << 30; return false, nil }},
		{"held up", func(s *scanner) (bool, error) { s.lookedAt = time.Time{}; return false, nil }},
	}
	for _, row := range rows {
		err := r.exact(t.Context(), func(s *scanner, pid int) (bool, error) {
			if gone, err := row.spoil(s); gone || err != nil {
				return gone, err
			}
			return s.readStatus(pid)
		}, func(*scanner) { t.Errorf("%s: the scan is done", row.want) })
		if !errors.Is(err, problem.ErrNoProof) || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%v; want %v: %s", err, problem.ErrNoProof, row.want)
		}
	}
	// Pids that wrap once cost one more pass.
	passes := 0
	err = r.exact(t.Context(), func(s *scanner, pid int) (bool, error) {
		if pid == 1 {
			passes++
		}
		if passes == 1 {
			s.now.last = 1 << 30
		}
		return s.readStatus(pid)
	}, func(*scanner) {})
	if err != nil || passes < 2 {
		t.Errorf("pids wrapped once: %d passes, %v", passes, err)
	}
}

// TestDirEntries reads a folder with names that the small buffer has no room for.
func TestDirEntries(t *testing.T) {
	dir := t.TempDir()
	want := map[string]bool{".": true, "..": true}
	for i := range 30 {
		name := strconv.Itoa(i)
		if i%3 == 0 {
			name += "-a-name-that-does-not-fit-into-forty-bytes"
		}
		want[name] = true
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	d := dirEntries{fd: fd, buf: make([]byte, oneEntry)}
	for {
		name, pos, err := d.next()
		if err != nil {
			t.Fatal(err)
		}
		if name == nil {
			break
		}
		got := string(name)
		if err := d.alone(pos); err != nil {
			t.Fatal(err)
		}
		if !want[got] {
			t.Errorf("%q comes twice or is not there", got)
		}
		delete(want, got)
	}
	if len(want) > 0 {
		t.Errorf("missing: %v", want)
	}
}

func BenchmarkScan(b *testing.B) {
	r, err := NewReader(ReaderOptions{})
	if err != nil {
		b.Fatal(err)
	}
	if err := r.View(); err != nil {
		b.Skip(err)
	}
	b.Run("exact", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s, err := r.Scan(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(s.Tasks), "tasks")
		}
	})
	b.Run("plain", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			plainScan(b, 1)
		}
	})
	b.Run("stat", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			entries, err := os.ReadDir("/proc")
			if err != nil {
				b.Fatal(err)
			}
			for _, e := range entries {
				var st syscall.Stat_t
				_ = syscall.Stat("/proc/"+e.Name(), &st)
			}
		}
	})
	b.Run("quick", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if held, err := Quick(3_900_004_000); held || err != nil {
				b.Fatal(held, err)
			}
		}
	})
}

// TestScanGoesBack: what was gone when it was read is looked for again from
// the place before it.
func TestScanGoesBack(t *testing.T) {
	r := needView(t)
	tried, met := map[int]bool{}, map[int]bool{}
	err := r.exact(t.Context(), func(s *scanner, pid int) (bool, error) {
		if !tried[pid] {
			tried[pid] = true
			return true, nil
		}
		gone, err := s.readStatus(pid)
		met[pid] = err == nil && !gone
		return gone, err
	}, func(*scanner) {})
	if err != nil {
		t.Fatal(err)
	}
	if !met[1] || !met[os.Getpid()] || len(tried) < 2 {
		t.Errorf("tried %d, met %d processes", len(tried), len(met))
	}
}
