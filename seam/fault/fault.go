// Package fault breaks steps at a [seam.Seam]: a walk through an operation takes
// each of its points in each mode, see [Recorder] and [Injector]. It is for tests and
// for the poolagent that is built for them.
package fault

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/seam"
)

// Mode is what happens to a step.
type Mode string

// The modes.
const (
	Before      Mode = "before"       // it fails and is not done
	Lost        Mode = "lost"         // it is done and reported as failed
	CrashBefore Mode = "crash-before" // the process dies, and it is not done
	CrashAfter  Mode = "crash-after"  // it is done, and the process dies
)

// Modes lists all modes.
func Modes() []Mode { return []Mode{Before, Lost, CrashBefore, CrashAfter} }

// Crash tells whether the process dies of it.
func (m Mode) Crash() bool { return m == CrashBefore || m == CrashAfter }

// Case is one fault: the N-th passing of a point, from 1.
type Case struct {
	Mode  Mode
	Point string
	N     int
}

// String is the case as [Parse] reads it: MODE:POINT#N.
func (c Case) String() string { return fmt.Sprintf("%s:%s#%d", c.Mode, c.Point, c.N) }

// Parse reads MODE:POINT or MODE:POINT#N.
func Parse(text string) (Case, error) {
	mode, point, _ := strings.Cut(text, ":")
	point, n, numbered := strings.Cut(point, "#")
	c := Case{Mode: Mode(mode), Point: point, N: 1}
	var err error
	if numbered {
		c.N, err = strconv.Atoi(n)
	}
	if err != nil || c.N < 1 || point == "" || !slices.Contains(Modes(), c.Mode) {
		return Case{}, fmt.Errorf("fault %q: want MODE:POINT[#N] with a mode of %v", text, Modes())
	}
	return c, nil
}

// ErrDead is what every step of a dead process returns, in case it asks.
var ErrDead = errors.New("the process is dead")

// At is a seam that calls f with POINT:before and POINT:after around each step.
func At(f func(point string)) seam.Seam {
	return func(point string, do func() error) error {
		f(point + ":before")
		err := do()
		f(point + ":after")
		return err
	}
}

// Injector is a seam with at most one fault at a time. Safe for concurrent use.
type Injector struct {
	// Crash ends the process, or is told that it is dead: then no step is done any
	// more, and each fails.
	Crash func()

	mu     sync.Mutex // guards the fields below
	armed  *Case
	fired  bool
	dead   bool
	passed map[string]int // since the last Arm or Record
}

// Record forgets what was passed, and breaks nothing.
func (i *Injector) Record() { i.set(nil) }

// Arm breaks one step.
func (i *Injector) Arm(c Case) { i.set(&c) }

func (i *Injector) set(c *Case) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.armed, i.fired, i.passed = c, false, map[string]int{}
}

// Fired tells whether the fault has come about, and Dead whether it was a crash.
func (i *Injector) Fired() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.fired
}

// Dead tells whether the process has died.
func (i *Injector) Dead() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.dead
}

// Cases lists every case of what was passed since the last Record, in order.
func (i *Injector) Cases() []Case {
	i.mu.Lock()
	defer i.mu.Unlock()
	return Cases(i.passed)
}

// Cases lists every case of points that were passed so many times.
func Cases(passed map[string]int) []Case {
	var all []Case
	for point, times := range passed {
		for n := 1; n <= times; n++ {
			for _, m := range Modes() {
				all = append(all, Case{m, point, n})
			}
		}
	}
	slices.SortFunc(all, func(x, y Case) int { return strings.Compare(x.String(), y.String()) })
	return all
}

// Everything tells that walks are to be exhaustive: IDPOOL_WALK is all.
func Everything() bool { return os.Getenv("IDPOOL_WALK") == "all" }

// Seed chooses what [Sample] leaves out: IDPOOL_WALK_SEED, or another one in each
// process. Tests that sample print it.
func Seed() (uint64, error) {
	env := os.Getenv("IDPOOL_WALK_SEED")
	if env == "" {
		return seed, nil
	}
	n, err := strconv.ParseUint(env, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("IDPOOL_WALK_SEED=%q: want a number: %w", env, err)
	}
	return n, nil
}

var seed = rand.Uint64()

// Sample is all cases if Everything is asked for, else about a sixth of them, by the
// seed and a case's name alone: a walk of all takes minutes.
func Sample(all []Case, seed uint64) []Case {
	if Everything() {
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), func(c Case) bool {
		h := fnv.New64a()
		_, _ = fmt.Fprintf(h, "%d %s", seed, c)
		return h.Sum64()%6 != 0
	})
}

// Seam carries out a step, or breaks it.
func (i *Injector) Seam(point string, do func() error) error {
	mode, dead := i.pass(point)
	if dead {
		return fmt.Errorf("at %s: %w", point, ErrDead)
	}
	switch mode {
	case Before:
		return failure(point, false)
	case CrashBefore:
		i.die()
		return ErrDead
	case Lost:
		if err := do(); err != nil {
			return err
		}
		return failure(point, true)
	case CrashAfter:
		_ = do()
		i.die()
		return ErrDead
	}
	return do()
}

func (i *Injector) pass(point string) (mode Mode, dead bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.dead {
		return "", true
	}
	if i.passed == nil {
		i.passed = map[string]int{}
	}
	i.passed[point]++
	if i.armed == nil || i.fired || i.armed.Point != point || i.armed.N != i.passed[point] {
		return "", false
	}
	i.fired = true
	return i.armed.Mode, false
}

func (i *Injector) die() {
	i.mu.Lock()
	i.dead = true
	i.mu.Unlock()
	i.Crash()
}

// failure is the error that such a step has in the world: the connection broke, the
// disk failed, or etcd did not answer in time.
func failure(point string, done bool) error {
	kind, _, _ := strings.Cut(point, ":")
	switch {
	case kind == "etcd":
		return status.Errorf(codes.Unavailable, "injected at %s", point)
	case kind == "file":
		return fmt.Errorf("injected at %s: %w", point, syscall.EIO)
	case done:
		return problem.New(problem.CodeOutcomeUnknown, "injected at %s", point)
	}
	return problem.New(problem.CodeUnavailable, "injected at %s", point)
}
