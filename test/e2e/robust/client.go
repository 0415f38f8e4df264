package robust

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/test/e2e/robust/record"
	"github.com/idpool/idpool/test/e2e/robust/rig"
)

// callLimit bounds a call of a client; what has not answered then never will.
const callLimit = 10 * time.Second

// limit is mostly callLimit; now and then a client has little patience.
func (c *client) limit() time.Duration {
	if c.chance(12) {
		return c.between(200, 1500)
	}
	return callLimit
}

// client makes one call after the other and writes each down. A call without an
// answer may still be under way, so whoever goes on after it has a new name.
type client struct {
	w    *world
	name string
	life int // names of this client so far
	n    int // calls under the present name
	keys int // keys made
	rnd  *rand.Rand
	// mend is what the client left undone, by name; it makes up for it later.
	mend map[string]*chore
}

// client makes a client with a stream of random numbers of its own.
func (w *world) client(name string, stream uint64) *client {
	return &client{w: w, name: name, rnd: rand.New(rand.NewPCG(uint64(w.o.Seed), stream)), mend: map[string]*chore{}}
}

// outcome tells what a caller knows after err. Every refusal says that nothing was
// done, but for an outcome called unknown and for an internal error.
func outcome(err error) record.Outcome {
	switch problem.CodeOf(err) {
	case "":
		return record.OK
	case problem.CodeOutcomeUnknown, problem.CodeInternal:
		return record.Unknown
	}
	return record.Refused
}

// call makes one call and records it; do completes what the answer tells.
func (c *client) call(ctx context.Context, op record.Op, do func(ctx context.Context, op *record.Op) error) error {
	ctx, cancel := context.WithTimeout(ctx, c.limit())
	defer cancel()
	c.n++
	op.Client, op.N = fmt.Sprintf("%s.%d", c.name, c.life), c.n
	op.Call = c.w.now()
	err := do(ctx, &op)
	back := c.w.now()
	op.Outcome = outcome(err)
	if err != nil {
		op.Code, op.Error = string(problem.CodeOf(err)), err.Error()
	}
	if op.Kind == record.Look && op.Outcome == record.Unknown {
		op.Outcome = record.Refused // a read that failed did nothing
	}
	if op.Outcome == record.Unknown {
		c.life++
		c.n = 0
	} else {
		op.Return = back
	}
	c.w.journal.op(op)
	return err
}

// settled repeats a call that may be repeated until its answer is certain, with
// pauses; it gives up after 20 tries, or when ctx ends.
func (c *client) settled(ctx context.Context, call func() error) error {
	for try := 1; ; try++ {
		err := call()
		if !again(err) || try == 20 {
			return err
		}
		if c.w.pause(ctx, c.between(100, 600)) != nil {
			return err
		}
	}
}

// again tells whether a call that may be repeated should be.
func again(err error) bool {
	switch problem.CodeOf(err) {
	case problem.CodeUnavailable, problem.CodeOutcomeUnknown, problem.CodeInternal, problem.CodeFrozen, problem.CodeFenced, problem.CodeNoProof:
		return true
	}
	return false
}

// key makes an allocation key, or a service's name, that nobody else makes.
func (c *client) key() string {
	c.keys++
	return fmt.Sprintf("%s-%d", c.name, c.keys)
}

func (c *client) between(from, to int) time.Duration {
	return time.Duration(from+c.rnd.IntN(to-from)) * time.Millisecond
}

// chance is true in percent of cases.
func (c *client) chance(percent int) bool { return c.rnd.IntN(100) < percent }

// node draws a node.
func (c *client) node() *rig.Node {
	all := c.w.rig.Nodes()
	return all[c.rnd.IntN(len(all))]
}

// other draws another node.
func (c *client) other(n *rig.Node) *rig.Node {
	for {
		if o := c.node(); o != n {
			return o
		}
	}
}

// chore is something to end that a client may have.
type chore struct {
	end   func(context.Context) error
	since time.Duration
	life  int // of the client when it began
	done  bool
}

const (
	// forgetful is how many chores a client leaves undone.
	forgetful = 3
	// inFlight is how long a call without an answer may still be done: then an end
	// that was certain is one.
	inFlight = 3 * time.Minute
)

// later leaves something to be ended later. The function that it returns says that
// it was, which is forgotten only if no answer was missed since: what has none may
// still be done.
func (c *client) later(name string, end func(context.Context) error) (done func()) {
	e := &chore{end: end, since: c.w.now(), life: c.life}
	c.mend[name] = e
	return func() { c.ended(name, e) }
}

func (c *client) ended(name string, e *chore) {
	e.done = true
	if c.mend[name] == e && (e.life == c.life || c.w.now()-e.since > inFlight) {
		delete(c.mend, name)
	}
}

// tidy ends the oldest chore if there are too many.
func (c *client) tidy(ctx context.Context) {
	open, oldest := 0, ""
	for _, name := range slices.Sorted(maps.Keys(c.mend)) {
		e := c.mend[name]
		if e.done && c.w.now()-e.since < inFlight {
			continue
		}
		if open++; oldest == "" || e.since < c.mend[oldest].since {
			oldest = name
		}
	}
	if open > forgetful {
		if e := c.mend[oldest]; e.end(ctx) == nil {
			c.ended(oldest, e)
		}
	}
}

func uidID(uid uint32) record.ID { return record.ID(fmt.Sprintf("uid/%d", uid)) }

func vlanID(inventory string, vid uint32) record.ID {
	return record.ID(fmt.Sprintf("vlan/%s/%d", inventory, vid))
}

func itemIDs(items []api.AllocationItem) []record.ID {
	var ids []record.ID
	for _, i := range items {
		if i.UID != nil {
			ids = append(ids, uidID(*i.UID))
		}
		if i.VID != nil {
			ids = append(ids, vlanID(i.Inventory, *i.VID))
		}
	}
	return ids
}
