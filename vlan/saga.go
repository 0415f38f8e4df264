package vlan

import (
	"time"

	"github.com/idpool/idpool/leases"
)

// forgetAfter is how long a failed service's record is kept.
const forgetAfter = 24 * time.Hour

// task is what a node can do for a service.
type task int

const (
	taskNone     task = iota
	taskAllocate      // write the intent, then ask the outside inventory
	taskAsk           // an intent without result: ask the outside inventory by key
	taskRelease       // write that it is released, read it back, release it
	taskReread        // a release without result: read it back
	taskEnd           // deletion was asked for while somebody worked
	taskFinish        // nothing is left to give back: what follows
	taskGotten        // nothing is left to get: allocated
	taskHold          // nobody confirmed: compensate
	taskMark          // nobody confirmed, but devices may be configured: say so
	taskForget        // failed a day ago
	taskUnlock        // nothing to do here any more: give the lock up
)

// todo is a node's task for a service: now, or once wait is over.
type todo struct {
	task      task
	attribute int
	wait      time.Duration
}

// situation is what a node sees around a service's record.
type situation struct {
	node, boot string
	// lock is who works on the service, "" for nobody; mine is what this process
	// writes there.
	lock, mine string
	// seen is for how long this process has seen the record as it is, and unlocked
	// for how long without a lock too.
	seen, unlocked time.Duration
	// elected: this node does what no other node is named for.
	elected bool
	// over tells whether a hold of this node, of this boot, has ended.
	over func(leases.Requester) bool
	// peer tells how another node is.
	peer func(name string) peer
	// keeper tells which node keeps an outside inventory, "" if nobody does, and
	// how long after a lock is lost its word is believed.
	keeper func(inventory string) (node string, settle time.Duration)
}

// peer is how another node is.
type peer struct {
	up   bool
	boot string
	off  bool // fenced or left: nothing of it runs
	// unknown: its registration cannot be read, so its boot may be any.
	unknown bool
}

// next is what a node does for a service, if anything: pure. Two nodes, or one
// twice, that come to the same answer do no harm: each step compares the record.
func next(s *Service, x situation) todo {
	if x.lock != "" && x.lock != x.mine {
		return todo{}
	}
	t := x.task(s)
	if x.lock != "" && (t.task == taskNone || t.wait > 0) {
		return todo{task: taskUnlock} // another may have a step to do
	}
	return t
}

func (x situation) task(s *Service) todo {
	if s.Delete && s.State != Deallocating {
		return x.anybody(taskEnd)
	}
	switch s.State {
	case Allocating:
		return nextAllocating(s, x)
	case Deallocating:
		return nextDeallocating(s, x)
	case Allocated, Provisioning:
		return nextHold(s, x)
	case Failed:
		if x.elected {
			return todo{task: taskForget, wait: forgetAfter - x.seen}.due()
		}
	}
	return todo{}
}

// due is t with a wait that is over taken off.
func (t todo) due() todo {
	t.wait = max(t.wait, 0)
	return t
}

// nextAllocating goes through the attributes in their order: the first that is
// not at rest is worked on by its keeper, or waited for.
func nextAllocating(s *Service, x situation) todo {
	for i := range s.Attributes {
		at := &s.Attributes[i]
		if at.Step == "" {
			continue
		}
		node, settle := x.keeper(at.Inventory)
		if node != x.node {
			return todo{}
		}
		switch at.Step {
		case StepWanted:
			return todo{task: taskAllocate, attribute: i}
		case StepAllocating:
			return todo{task: taskAsk, attribute: i, wait: x.settled(at, settle)}
		}
		return todo{}
	}
	if len(s.missing(true))+len(s.missing(false)) == 0 {
		return x.anybody(taskGotten)
	}
	return todo{}
}

// nextDeallocating gives back what this node keeps, in whatever order nodes are
// there.
func nextDeallocating(s *Service, x situation) todo {
	if s.HoldIDs {
		return todo{}
	}
	left := false
	var later todo
	for i := range s.Attributes {
		at := &s.Attributes[i]
		if !at.pending() {
			continue
		}
		left = true
		node, settle := x.keeper(at.Inventory)
		if node != x.node || at.Step == StepUnknown {
			continue
		}
		t := todo{task: taskRelease, attribute: i}
		switch at.Step {
		case StepAllocating:
			t = todo{task: taskAsk, attribute: i, wait: x.settled(at, settle)}
		case StepReleasing:
			t = todo{task: taskReread, attribute: i, wait: x.settled(at, settle)}
		}
		if t.wait == 0 {
			return t
		}
		if later.task == taskNone || t.wait < later.wait {
			later = t
		}
	}
	if !left {
		return x.anybody(taskFinish)
	}
	return later
}

// anybody is a task that needs no inventory: whoever has the lock does it, else
// the elected node.
func (x situation) anybody(t task) todo {
	if x.elected || x.lock == x.mine {
		return todo{task: t}
	}
	return todo{}
}

// lasts is how long a hold lasts by the clock of one who sees its record.
func (h *Hold) lasts(otherwise time.Duration) time.Duration {
	if h.For > 0 {
		return h.For
	}
	return otherwise
}

// settled is how long the result of a step, whose executor is gone, must still
// be waited for (rule 27). The executor itself is not at it, and waits for nobody.
func (x situation) settled(at *Attribute, settle time.Duration) time.Duration {
	if at.By == x.mine {
		return 0
	}
	return max(0, settle-x.unlocked)
}

// nextHold tells who ends an allocated service's hold, and when. In provisioning
// the end of the hold is only noted, once (rule 24).
func nextHold(s *Service, x situation) todo {
	t := todo{task: taskHold}
	if step(s.State, evHoldLost).v == vMark {
		t.task = taskMark
		if s.ReasonCode == ReasonOutcomeUnknown {
			return todo{}
		}
	}
	if s.Hold == nil {
		return todo{}
	}
	if s.Hold.Node == x.node && s.Hold.Boot == x.boot {
		if x.over(s.Hold.Requester) {
			return t
		}
		return todo{}
	}
	p := x.peer(s.Hold.Node)
	if s.Hold.Node == x.node {
		p = peer{up: true, boot: x.boot}
	}
	if !x.elected || p.unknown || (p.up && p.boot == s.Hold.Boot) {
		return todo{}
	}
	if s.Hold.Requester.Hold == leases.HoldPID && (p.up || p.off) {
		return t
	}
	t.wait = s.Hold.lasts(s.ConfirmWithin) - x.seen
	return t.due()
}
