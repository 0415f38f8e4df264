package judge

import (
	"cmp"
	"slices"

	"github.com/idpool/idpool/test/e2e/robust/record"
)

// running is the time in which a process certainly ran, and counts: not once an
// operator said that its node is off, and not into another boot of it.
type running struct {
	*record.Process
	from, until record.Instant
}

// counted cuts a process to the time in which it counts; false: it never does.
func (c *court) counted(p *record.Process) (running, bool) {
	r := running{p, p.From, p.Until}
	if r.until == 0 {
		r.until = never
	}
	for _, o := range c.outs[p.Node] {
		from, to := c.times[o.from].earliest, never
		if o.to != 0 {
			to = c.times[o.to].latest
		}
		if from <= r.from && r.from <= to {
			return r, false
		}
		if from > r.from {
			r.until = min(r.until, from)
		}
	}
	for _, rev := range c.boots[p.Node] { // its end was not seen: nothing survives a boot
		if at := c.times[rev]; p.Until == 0 && at.latest > r.from {
			r.until = min(r.until, max(at.earliest, r.from))
		}
	}
	return r, r.until >= r.from
}

// processes checks P1 and P2 on what really ran: never two grants' processes under
// one uid, and no uid granted while a process of an earlier grant runs.
func (c *court) processes() {
	byID := map[record.ID][]running{}
	for i := range c.run.Processes {
		if r, ok := c.counted(&c.run.Processes[i]); ok {
			byID[r.ID] = append(byID[r.ID], r)
		}
	}
	for _, id := range sortedIDs(byID) {
		c.checkOverlaps(id, byID[id])
	}
	for _, s := range c.spans {
		if !s.granted {
			continue
		}
		at := c.times[s.from]
		for _, r := range byID[s.id] {
			if r.Token != s.holder && r.from < at.earliest && r.until > at.latest {
				c.broke(P2, s.from, "%s was granted under token %s while a process of grant %s ran on %s (from %s to %s)", s.id, s.token, r.Token, r.Node, r.from, until(r))
			}
		}
	}
}

// checkOverlaps looks for two grants' processes at one moment.
func (c *court) checkOverlaps(id record.ID, all []running) {
	slices.SortStableFunc(all, func(a, b running) int { return cmp.Compare(a.from, b.from) })
	for i, a := range all {
		for _, b := range all[i+1:] {
			if b.from >= a.until {
				break
			}
			if a.Token != b.Token {
				c.broke(P1, 0, "%s: processes of grants %s (on %s, from %s to %s) and %s (on %s, from %s) ran at once", id, a.Token, a.Node, a.from, until(a), b.Token, b.Node, b.from)
				break
			}
		}
	}
}

// until is the end of a process in words.
func until(r running) string {
	if r.until == never {
		return "the end"
	}
	return r.until.String()
}

func sortedIDs[T any](m map[record.ID]T) []record.ID {
	all := make([]record.ID, 0, len(m))
	for id := range m {
		all = append(all, id)
	}
	slices.Sort(all)
	return all
}
