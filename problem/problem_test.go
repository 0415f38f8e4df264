package problem

import (
	"errors"
	"fmt"
	"regexp"
	"testing"
	"time"
)

// TestEveryCode: each code has a sentinel, a refusing status, and an exit code.
func TestEveryCode(t *testing.T) {
	if len(Codes()) < 15 {
		t.Fatalf("%d codes", len(Codes()))
	}
	seen := map[error]Code{}
	for _, c := range Codes() {
		f := facts[c]
		if other, twice := seen[f.sentinel]; twice {
			t.Errorf("%s and %s share a sentinel", c, other)
		}
		seen[f.sentinel] = c
		err := fmt.Errorf("step: %w", New(c, "x"))
		if !errors.Is(err, f.sentinel) || CodeOf(err) != c || CodeOf(f.sentinel) != c {
			t.Errorf("%s is not itself when wrapped", c)
		}
		if c.HTTPStatus() < 400 || c.ExitCode() < 1 || c.ExitCode() > 7 {
			t.Errorf("%s: status %d, exit %d", c, c.HTTPStatus(), c.ExitCode())
		}
	}
	if CodeOf(errors.New("x")) != CodeInternal || CodeOf(nil) != "" || Code("x").HTTPStatus() != 500 || Code("x").ExitCode() != 1 {
		t.Error("what is unknown is internal")
	}
}

func TestText(t *testing.T) {
	e := New(CodeHeld, "uid %d is held", 5).Note("since %s", "noon").Advise("look", "poolctl uid show 5").Advise("or wait", "poolctl x")
	want := "uid 5 is held\n  since noon\n  look:     poolctl uid show 5\n  or wait:  poolctl x"
	if got := e.Text(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if e.Error() != "uid 5 is held" {
		t.Errorf("the first line alone is %q", e.Error())
	}
}

func TestWrap(t *testing.T) {
	cause := errors.New("cause")
	if err := Wrap(CodeUnavailable, cause, "read"); !errors.Is(err, cause) || !errors.Is(err, ErrUnavailable) || err.Error() != "read: cause" {
		t.Errorf("%v", err)
	}
	if err := Wrap(CodeUnavailable, nil, "read"); err != nil {
		t.Errorf("nil wrapped is %v", err)
	}
}

// TestClock: a time near now is a time of day, on both sides of midnight too.
func TestClock(t *testing.T) {
	day := regexp.MustCompile(`^\d\d:\d\d:\d\d$`)
	for _, d := range []time.Duration{-11 * time.Hour, 0, 11 * time.Hour} {
		if got := Clock(time.Now().Add(d)); !day.MatchString(got) {
			t.Errorf("%v from now is %q", d, got)
		}
	}
	if got := Clock(time.Now().Add(-48 * time.Hour)); !regexp.MustCompile(`^\d{4}-\d\d-\d\d \d\d:\d\d$`).MatchString(got) {
		t.Errorf("two days ago is %q", got)
	}
}

func TestHolder(t *testing.T) {
	for want, h := range map[string]Holder{
		"an unnamed holder":                {},
		"unix:7":                           {Caller: "unix:7"},
		"slurm:4802 (unix:7, n1+n2, used)": {Caller: "unix:7", Holder: "slurm:4802", Nodes: []string{"n1", "n2"}, State: "used"},
	} {
		if got := h.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
