package judge

import (
	"time"

	"github.com/idpool/idpool/test/e2e/robust/record"
)

// Counts is what the run consisted of.
type Counts struct {
	Ops       map[record.Kind]map[record.Outcome]int `json:"ops"`
	Codes     map[string]int                         `json:"codes"`               // of refusals
	Faults    map[string]int                         `json:"faults"`              // that were injected, by name
	NoFaults  map[string]int                         `json:"no_faults,omitempty"` // that could not be
	Grants    int                                    `json:"grants"`              // that clients were told of
	Services  int                                    `json:"services"`            // likewise
	Changes   int                                    `json:"changes"`
	Processes int                                    `json:"processes"`
	// Restores is how often etcd was restored; AfterSnapshot counts the grants, of those
	// told to clients, that the snapshots lacked, and Carried the ids of these that were
	// held then and when granting resumed.
	Restores      int `json:"restores,omitempty"`
	AfterSnapshot int `json:"after_snapshot,omitempty"`
	Carried       int `json:"carried,omitempty"`
	Left          int `json:"left"`      // keys that stood at the end
	Undecided     int `json:"undecided"` // ids that porcupine had no time for
}

// Total is how many operations ended in this way.
func (n *Counts) Total(o record.Outcome) int {
	total := 0
	for _, by := range n.Ops {
		total += by[o]
	}
	return total
}

// Limits says how much must have happened in a run, and what may stay open.
type Limits struct {
	// Before, During and After are the least numbers of operations that succeeded
	// before each fault, between its beginning and its healing, and after it.
	Before, During, After int
	// Brief is how long a fault must last for During to be asked of it.
	Brief time.Duration
	// Silent are the faults, by name, during which nothing can be expected to succeed.
	// Of two faults at a time nothing is expected either: together they may take a quorum.
	Silent map[string]bool
	// Faults is the least number of faults, Grants and Services of those told to
	// clients, Processes of those that ran under a uid; Kinds of successful
	// operations by kind.
	Faults, Grants, Services, Processes int
	Kinds                               map[record.Kind]int
	// AfterSnapshot is the least number of grants between a snapshot and its restore,
	// and Carried of ids, over all restores, that were granted there and held across.
	AfterSnapshot, Carried int
	// PerID bounds porcupine's time for one id, and Undecided is how many may exceed it.
	PerID     time.Duration
	Undecided int
}

// DefaultLimits is for runs from half a minute on.
func DefaultLimits() Limits {
	return Limits{
		Before: 3, During: 1, After: 3, Brief: 3 * time.Second, Faults: 1, Grants: 5, Services: 1, Processes: 5,
		Silent:        map[string]bool{"no-space": true, "session-storm": true},
		Kinds:         map[record.Kind]int{record.RequestUID: 3, record.ConfirmUID: 1, record.ReleaseUID: 1, record.CreateService: 1},
		AfterSnapshot: 10, Carried: 1,
		PerID: 2 * time.Second, Undecided: 3,
	}
}

// NoLimits asks for nothing: for a part of a run, or a history made by hand.
func NoLimits() Limits { return Limits{PerID: 2 * time.Second, Undecided: 3} }

func count(run *record.Run) Counts {
	n := Counts{
		Ops: map[record.Kind]map[record.Outcome]int{}, Codes: map[string]int{}, Faults: map[string]int{}, NoFaults: map[string]int{},
		Changes: len(run.Changes), Processes: len(run.Processes), Left: len(run.Left), Restores: len(run.Cuts),
	}
	for i := range run.Ops {
		op := &run.Ops[i]
		if n.Ops[op.Kind] == nil {
			n.Ops[op.Kind] = map[record.Outcome]int{}
		}
		n.Ops[op.Kind][op.Outcome]++
		if op.Outcome == record.Refused {
			n.Codes[op.Code]++
		}
		if grants(op) && !op.Same {
			n.Grants++
			if op.Kind == record.CreateService {
				n.Services++
			}
		}
	}
	for _, f := range run.Faults {
		if f.Error == "" {
			n.Faults[f.Name]++
		} else {
			n.NoFaults[f.Name]++
		}
	}
	return n
}

// vacuous says where too little happened.
func (c *court) vacuous(l Limits) {
	n := &c.v.Counts
	injected := 0
	for _, f := range c.run.Faults {
		if f.Error != "" {
			continue
		}
		injected++
		c.around(l, f)
	}
	least := func(what string, got, want int) {
		if got < want {
			c.broke(Vacuous, 0, "%d %s: a run needs %d", got, what, want)
		}
	}
	least("faults", injected, l.Faults)
	least("grants", n.Grants, l.Grants)
	least("services", n.Services, l.Services)
	least("processes", n.Processes, l.Processes)
	for kind, want := range l.Kinds {
		least("successful operations "+string(kind), n.Ops[kind][record.OK], want)
	}
	c.restores(l)
	if c.run.Left == nil && l.Faults > 0 {
		c.broke(Vacuous, 0, "nobody looked at what is left when all is quiet")
	}
	if n.Undecided > l.Undecided {
		c.broke(Vacuous, 0, "porcupine could not decide %d ids in %s each: at most %d may stay undecided", n.Undecided, l.PerID, l.Undecided)
	}
}

// restores counts what was granted between snapshots and restores: what only the
// nodes could know afterwards.
func (c *court) restores(l Limits) {
	for i, e := range c.histories {
		if e.keep == 0 {
			continue
		}
		made := map[string]bool{}
		for _, s := range c.spans {
			if s.from > e.keep && s.from < c.histories[i+1].first && c.told[s.holder] != nil {
				made[s.holder] = true
			}
		}
		c.v.Counts.AfterSnapshot += len(made)
		if len(made) < l.AfterSnapshot {
			c.broke(Vacuous, 0, "%d grants between the snapshot and the restore of etcd at %s: want %d", len(made), c.run.Cuts[i].Stopped, l.AfterSnapshot)
		}
	}
	if n := &c.v.Counts; n.Restores > 0 && n.Carried < l.Carried {
		c.broke(Vacuous, 0, "%d ids that no snapshot had were held across a restore of etcd: want %d", n.Carried, l.Carried)
	}
}

// around counts what succeeded before, during and after a fault.
func (c *court) around(l Limits, f record.Fault) {
	before, during, after := 0, 0, 0
	until := f.Until
	if until == 0 {
		until = never
	}
	for i := range c.run.Ops {
		switch op := &c.run.Ops[i]; {
		case op.Outcome != record.OK:
		case op.Return <= f.From:
			before++
		case op.Call >= until:
			after++
		case op.Call >= f.From && op.Return <= until:
			during++
		}
	}
	if before < l.Before {
		c.broke(Vacuous, 0, "%d operations succeeded before fault %s at %s: want %d", before, f.Name, f.From, l.Before)
	}
	if after < l.After {
		c.broke(Vacuous, 0, "%d operations succeeded after fault %s of %s to %s: want %d", after, f.Name, f.From, f.Until, l.After)
	}
	if during < l.During && until != never && until-f.From >= l.Brief && !l.Silent[f.Name] && !c.overlapped(f) {
		c.broke(Vacuous, 0, "%d operations succeeded during fault %s (%s to %s): want %d", during, f.Name, f.From, f.Until, l.During)
	}
}

// overlapped tells whether another fault was there during one.
func (c *court) overlapped(f record.Fault) bool {
	n := 0
	for _, o := range c.run.Faults {
		if o.Error == "" && o.From <= f.Until && (o.Until == 0 || o.Until >= f.From) {
			n++
		}
	}
	return n > 1
}
