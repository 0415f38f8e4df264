package robust

import (
	"sync"
	"time"

	"github.com/idpool/idpool/test/e2e/robust/record"
)

// journal collects what clients and faults did. It is safe for concurrent use.
type journal struct {
	now func() time.Duration

	mu        sync.Mutex // guards the fields below
	ops       []record.Op
	processes []*running
	faults    []*record.Fault
	boots     []boot
	counts    map[record.Outcome]int
}

// running is a process of the journal that may not have ended.
type running struct{ record.Process }

// boot is a time in which a node started anew: what ran there before was gone at
// some moment of it.
type boot struct {
	node        string
	from, until time.Duration
}

func newJournal(now func() time.Duration) *journal {
	return &journal{now: now, counts: map[record.Outcome]int{}}
}

func (j *journal) op(o record.Op) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.ops = append(j.ops, o)
	j.counts[o.Outcome]++
}

// started writes down a process that runs now.
func (j *journal) started(p record.Process) *running {
	j.mu.Lock()
	defer j.mu.Unlock()
	p.From = j.now()
	r := &running{Process: p}
	j.processes = append(j.processes, r)
	return r
}

// ran says that the process ran at least until then.
func (j *journal) ran(r *running, until time.Duration) {
	j.mu.Lock()
	defer j.mu.Unlock()
	r.Until = max(r.From, until)
}

func (j *journal) fault(name string) *record.Fault {
	j.mu.Lock()
	defer j.mu.Unlock()
	f := &record.Fault{Name: name, From: j.now()}
	j.faults = append(j.faults, f)
	return f
}

// healed ends a fault; boots are those nodes that started anew meanwhile.
func (j *journal) healed(f *record.Fault, detail string, err error, boots []string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	f.Until, f.Detail = j.now(), detail
	if err != nil {
		f.Error = err.Error()
	}
	for _, n := range boots {
		j.boots = append(j.boots, boot{n, f.From, f.Until})
	}
}

// into fills the run. A process whose end nobody saw is certain to have run when it
// had been started, and no longer; one on a node that started anew, until that began.
func (j *journal) into(run *record.Run) {
	j.mu.Lock()
	defer j.mu.Unlock()
	run.Ops = append(run.Ops, j.ops...)
	for _, f := range j.faults {
		run.Faults = append(run.Faults, *f)
	}
	for _, r := range j.processes {
		p := r.Process
		p.Until = max(p.Until, p.From)
		for _, b := range j.boots {
			if b.node == p.Node && p.From < b.until && p.Until > b.from {
				p.Until = max(p.From, b.from)
			}
		}
		run.Processes = append(run.Processes, p)
	}
}

// summary counts the ops so far by outcome.
func (j *journal) summary() (ok, refused, unknown, faults int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.counts[record.OK], j.counts[record.Refused], j.counts[record.Unknown], len(j.faults)
}
