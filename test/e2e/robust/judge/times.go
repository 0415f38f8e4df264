package judge

import (
	"math"
	"slices"
	"sort"

	"github.com/idpool/idpool/test/e2e/robust/record"
)

// never is after everything.
const never = record.Instant(math.MaxInt64)

// bounds is when a revision was written, as far as the record tells: not before
// the call that asked for it, or for an earlier one; not after the watch showed it,
// or its caller was answered, or either of a later one.
type bounds struct{ earliest, latest record.Instant }

// readTimes bounds the moment of every revision.
func (c *court) readTimes() {
	c.times = map[int64]bounds{}
	for _, ch := range c.changes {
		b, ok := c.times[ch.Revision]
		if !ok || ch.Seen < b.latest {
			b.latest = ch.Seen
		}
		c.times[ch.Revision] = b
	}
	for i := range c.run.Ops {
		op := &c.run.Ops[i]
		if !grants(op) || op.Same {
			continue
		}
		for _, id := range op.IDs {
			if s := c.span(op.Token, id); s != nil {
				b := c.times[s.from]
				b.earliest, b.latest = max(b.earliest, op.Call), min(b.latest, max(op.Return, op.Call))
				c.times[s.from] = b
			}
		}
	}
	for i := range c.histories { // a restore lies between two of them
		e := &c.histories[i]
		if n := len(e.changes); e.keep != 0 && n > 0 {
			b := c.times[e.changes[n-1].Revision]
			b.latest = min(b.latest, c.run.Cuts[i].Stopped)
			c.times[e.changes[n-1].Revision] = b
		}
		if e.cut != nil && len(e.changes) > 0 {
			b := c.times[e.changes[0].Revision]
			b.earliest = max(b.earliest, e.cut.Stopped)
			c.times[e.changes[0].Revision] = b
		}
	}
	earliest := record.Instant(0)
	for _, rev := range c.revs {
		b := c.times[rev]
		earliest = max(earliest, b.earliest)
		b.earliest = earliest
		c.times[rev] = b
	}
	latest := never
	for _, rev := range slices.Backward(c.revs) {
		b := c.times[rev]
		latest = min(latest, b.latest)
		b.latest = latest
		c.times[rev] = b
	}
	c.checkCooldowns()
}

// current yields the indexes, in revs, of the first and the last revision that may
// have been the newest one at some moment of a call; -1: perhaps before the first.
func (c *court) current(call, ret record.Instant) (first, last int) {
	// The first: it may still have been current at call, so its successor may have
	// been written after call.
	first = sort.Search(len(c.revs), func(i int) bool { return c.times[c.revs[i]].latest >= call }) - 1
	last = sort.Search(len(c.revs), func(i int) bool { return c.times[c.revs[i]].earliest > ret }) - 1
	return first, max(first, last)
}

// span is the life that a client's token and an id name; that of a service, by the
// service's token, is the one of that id.
func (c *court) span(token string, id record.ID) *span {
	if s := c.lives[life{token, id}]; s != nil {
		return s
	}
	for _, s := range c.services[token] {
		if s.id == id {
			return s
		}
	}
	return nil
}

// grants tells whether an operation was answered with a grant.
func grants(op *record.Op) bool {
	switch op.Kind {
	case record.RequestUID, record.Allocate, record.CreateService:
		return op.Outcome == record.OK && op.Token != ""
	}
	return false
}
