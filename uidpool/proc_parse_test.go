package uidpool

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const statusText = "Name:\tkworker/0:0\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t812\nNgid:\t0\nPid:\t813\nPPid:\t2\n" +
	"TracerPid:\t0\nUid:\t0\t61003\t4294967295\t1000\nGid:\t0\t0\t0\t0\nGroups:\t0 4 27 \nNSpid:\t813\nThreads:\t4\nSigQ:\t0/1\n"

func TestParseStatus(t *testing.T) {
	st, err := parseStatus([]byte(statusText))
	if err != nil {
		t.Fatal(err)
	}
	want := taskStatus{name: []byte("kworker/0:0"), state: []byte("S (sleeping)"), tgid: 812, pid: 813, ppid: 2,
		threads: 4, uids: [4]uint32{0, 61003, math.MaxUint32, 1000}}
	if diff := cmp.Diff(want, st, cmp.AllowUnexported(taskStatus{})); diff != "" {
		t.Error(diff)
	}
	// A program may call itself anything; the kernel escapes line breaks.
	tricky := strings.Replace(statusText, "kworker/0:0", `Uid:	7	7	7	7\nUid:`, 1)
	if st, err := parseStatus([]byte(tricky)); err != nil || st.uids != want.uids {
		t.Errorf("tricky name: %+v, %v", st, err)
	}
}

func TestParseStatusRefuses(t *testing.T) {
	for name, change := range map[string][2]string{
		"no uid":            {"Uid:", "Xid:"},
		"three uids":        {"\t1000\n", "\n"},
		"five uids":         {"\t1000\n", "\t1000\t1\n"},
		"uid too large":     {"4294967295", "4294967296"},
		"uid far too large": {"4294967295", "18446744073709551616"},
		"negative uid":      {"\t1000\n", "\t-1\n"},
		"uid in hex":        {"\t1000\n", "\t0x1\n"},
		"empty uid":         {"\t61003\t", "\t\t"},
		"blanks":            {"\t61003\t", " 61003 "},
		"pid no number":     {"Pid:\t813", "Pid:\t?"},
		"threads missing":   {"Threads", "Treads"},
		"twice":             {"Gid:", "Uid:"},
		"state empty":       {"S (sleeping)", ""},
		"no end":            {"Threads:\t4\nSigQ:\t0/1\n", "Threads:\t4"},
	} {
		text := strings.Replace(statusText, change[0], change[1], 1)
		if text == statusText {
			t.Fatalf("%s: nothing changed", name)
		}
		if st, err := parseStatus([]byte(text)); err == nil {
			t.Errorf("%s: %+v", name, st)
		}
	}
	for i := range strings.Index(statusText, "SigQ") {
		if _, err := parseStatus([]byte(statusText[:i])); err == nil {
			t.Fatalf("cut at %d: no error", i)
		}
	}
	if _, err := parseStatus(nil); !errors.Is(err, errCutShort) {
		t.Errorf("empty: %v", err)
	}
}

const statText = "7253 (a) R (b) S 7234 7234 6500 0 -1 4194304 100 0 0 0 0 0 0 0 20 0 3 0 56601 3133440 413 18446744073709551615 0 0\n"

func TestParseStat(t *testing.T) {
	st, err := parseStat([]byte(statText))
	want := taskStat{pid: 7253, state: 'S', session: 6500, threads: 3, start: 56601}
	if diff := cmp.Diff(want, st, cmp.AllowUnexported(taskStat{})); diff != "" || err != nil {
		t.Error(diff, err)
	}
	for _, text := range []string{"", "1", "1 (", "1 )(", "() S 1", "x (a) S 1 1 1", "1 (a) S 1 1 1 1",
		strings.Replace(statText, "6500", "-6500", 1), strings.Replace(statText, "56601", "5660l", 1),
		strings.Replace(statText, ") S", ") SS", 1), strings.Replace(statText, " 3 0 ", " -3 0 ", 1)} {
		if st, err := parseStat([]byte(text)); err == nil {
			t.Errorf("%q: %+v", text, st)
		}
	}
	for _, c := range []struct {
		st   taskStat
		dead bool
	}{{taskStat{state: 'Z', threads: 1}, true}, {taskStat{state: 'Z', threads: 2}, false},
		{taskStat{state: 'X', threads: 2}, true}, {taskStat{state: 'D', threads: 1}, false}} {
		if c.st.dead() != c.dead {
			t.Errorf("%+v: dead %v", c.st, !c.dead)
		}
	}
}

func TestParseLoad(t *testing.T) {
	got, err := parseLoadavg([]byte("0.20 0.18 0.12 1/80 11206\n"))
	if err != nil || got != (load{tasks: 80, last: 11206}) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, text := range []string{"", "0.20 0.18 0.12 1/80", "0.2 0.1 0.1 80 11206", "0.2 0.1 0.1 1/x 11206", "0.2 0.1 0.1 1/80 -1", "1 2 3 1/80 5 6"} {
		if got, err := parseLoadavg([]byte(text)); err == nil {
			t.Errorf("%q: %+v", text, got)
		}
	}
	if got, err := parseLastPID([]byte("12107\n")); err != nil || got != (load{tasks: -1, last: 12107}) {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := parseLastPID([]byte("\n")); err == nil {
		t.Errorf("empty: %+v", got)
	}
}

func FuzzParseStatus(f *testing.F) {
	f.Add([]byte(statusText))
	f.Add([]byte("Name:\t\nState:\tZ\nTgid:\t1\nPid:\t1\nPPid:\t0\nUid:\t0\t0\t0\t0\nThreads:\t1\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		st, err := parseStatus(text)
		if err == nil && (st.pid < 0 || st.threads < 0 || len(st.state) == 0) {
			t.Errorf("%+v", st)
		}
		// What follows the last field that is needed changes nothing.
		if err == nil {
			if again, err := parseStatus(append(text, "Uid:\t9\n"...)); err != nil || again.uids != st.uids {
				t.Errorf("%+v, then %+v, %v", st, again, err)
			}
		}
	})
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte(statText))
	f.Fuzz(func(t *testing.T, text []byte) {
		if st, err := parseStat(text); err == nil && (st.pid < 0 || st.session < 0 || st.threads < 0) {
			t.Errorf("%+v", st)
		}
	})
}

func FuzzParseLoadavg(f *testing.F) {
	f.Add([]byte("0.20 0.18 0.12 1/80 11206\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if l, err := parseLoadavg(text); err == nil && (l.last < 0 || l.tasks < 0) {
			t.Errorf("%+v", l)
		}
	})
}
