// Package judge says whether a recorded run kept the promises P1 to P8: pure
// functions over a [record.Run], which share no code with the engine they judge.
//
// Three views are judged, each by itself and against the others: what clients were
// told (a model of every id, by porcupine), what stood in etcd at every revision
// (replay and its checks), and which processes really ran. Whatever the record
// cannot decide counts as kept: a violation is certain, or it is not reported. A
// run in which too little happened is a violation too.
//
// Nothing is promised about runs whose record is wrong itself; gaps in etcd's
// history are found and reported under [History]. All functions may be called by
// any number of goroutines at a time, and change nothing they are given.
package judge

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/idpool/idpool/test/e2e/robust/record"
)

// The promises, and what else a verdict may rest on.
const (
	P1      = "P1"      // one holder
	P2      = "P2"      // proven unused
	P3      = "P3"      // all or nothing
	P4      = "P4"      // repeatable
	P5      = "P5"      // exact release
	P6      = "P6"      // no leak
	P7      = "P7"      // honest refusal
	P8      = "P8"      // time travel is noticed
	Vacuous = "vacuous" // too little happened to say anything
	History = "history" // the record itself has gaps, or cannot be read
)

// Violation is a promise that was broken.
type Violation struct {
	Promise  string `json:"promise"`
	Text     string `json:"text"`               // what happened, and to which id
	Revision int64  `json:"revision,omitempty"` // of etcd's history; 0: none in particular
	// Era is how often etcd had been restored then. In Text, revisions of later eras
	// are counted on from those of earlier ones.
	Era int `json:"era,omitempty"`
}

// Verdict is what the judge found.
type Verdict struct {
	Violations []Violation `json:"violations"`
	Counts     Counts      `json:"counts"`
}

// shown bounds how many violations an error spells out.
const shown = 20

// Err is nil if no promise was broken; else it names the violations, the first
// twenty in full.
func (v *Verdict) Err() error {
	var all []error
	for i, b := range v.Violations {
		if i == shown {
			all = append(all, fmt.Errorf("and %d more", len(v.Violations)-i))
			break
		}
		all = append(all, errors.New(b.String()))
	}
	return errors.Join(all...)
}

// String is the violation in one line.
func (b Violation) String() string {
	if b.Revision == 0 {
		return b.Promise + ": " + b.Text
	}
	if b.Era > 0 {
		return fmt.Sprintf("%s: %s (revision %d after restore %d)", b.Promise, b.Text, b.Revision, b.Era)
	}
	return fmt.Sprintf("%s: %s (revision %d)", b.Promise, b.Text, b.Revision)
}

// Judge judges a run with the default limits.
func Judge(run *record.Run) *Verdict { return DefaultLimits().Judge(run) }

// Judge judges a run; l says how much must have happened in it.
func (l Limits) Judge(run *record.Run) *Verdict {
	c := &court{run: run, v: &Verdict{Counts: count(run)}}
	c.indexOps()
	c.replay()
	c.readTimes()
	c.processes()
	c.answers()
	c.keys()
	c.releases()
	c.exhausted()
	c.left()
	c.linearizable(l)
	c.vacuous(l)
	slices.SortStableFunc(c.v.Violations, func(a, b Violation) int {
		return cmp.Or(cmp.Compare(a.Promise, b.Promise), cmp.Compare(a.Revision, b.Revision))
	})
	for i := range c.v.Violations {
		if b := &c.v.Violations[i]; b.Revision != 0 {
			b.Era, b.Revision = c.own(b.Revision)
		}
	}
	return c.v
}

// court is one judgement under way: the run, what was derived from it, and the
// verdict so far.
type court struct {
	run *record.Run
	v   *Verdict

	// Of the clients' operations.
	told   map[string]*grant // by token: what clients were told of it
	byKey  map[string][]*record.Op
	bound  map[string]map[string]binding // by token: the parties bound to it
	tokens []string                      // of told, in the order of their first call

	// Of etcd's history, whose revisions are counted on over restores: see era.
	histories []era
	changes   []record.Change
	shift     int64             // of the era that is replayed
	values    map[string][]byte // what stands at every key
	w         *world
	// recovery is the restore that nobody has adopted yet; nil: none.
	recovery  *recovery
	known     map[string]bool // tokens that ever stood in etcd
	late      map[life]bool   // what a node that was fenced in an adoption may put back
	back      map[*span]*recovery
	revived   map[*lock]bool // locks that a restore brought back: they end with their leases
	recount   bool           // the free ids of pools are to be counted anew
	lives     map[life]*span
	spans     []*span // of lives, by first revision
	frees     map[poolAt]*series
	cooldowns []cooldown
	done      map[*span]bool   // all that were bound were told that it is over
	rejected  map[string][]out // by service: when its record said that it was
	// compensated are services that were given back because nobody confirmed.
	compensated map[compensation]bool
	revs        []int64 // every revision, ascending
	times       map[int64]bounds
	outs        map[string][]out   // by node: when it was fenced or removed
	boots       map[string][]int64 // by node: revisions at which it came with another boot
	// services lists, by the service's token, the VLANs of that life.
	services map[string][]*span
}

// broke notes a violation at a revision; 0 for none in particular.
func (c *court) broke(promise string, rev int64, format string, args ...any) {
	c.v.Violations = append(c.v.Violations, Violation{Promise: promise, Text: fmt.Sprintf(format, args...), Revision: rev})
}
