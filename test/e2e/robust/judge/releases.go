package judge

import (
	"maps"
	"slices"

	"github.com/idpool/idpool/test/e2e/robust/record"
)

// Reason codes of an end that somebody asked for.
const (
	released   = "released"
	byOperator = "released_by_operator"
)

// releases checks P5: what ended as released was released by somebody who named
// that very grant, and who was told that a release is done finds it done.
func (c *court) releases() {
	if len(c.revs) == 0 {
		return
	}
	named, byKey := map[string][]*record.Op{}, map[string][]*record.Op{}
	for i := range c.run.Ops {
		op := &c.run.Ops[i]
		switch {
		case !ends(op.Kind) || op.Outcome == record.Refused:
		case op.Token != "":
			named[op.Token] = append(named[op.Token], op)
		default:
			byKey[op.Key] = append(byKey[op.Key], op)
		}
	}
	for _, token := range c.tokens {
		g := c.told[token]
		mine := slices.Clone(named[token])
		if g.key != "" {
			mine = append(mine, byKey[g.key]...)
		}
		for _, id := range g.ids {
			if s := c.span(token, id); s != nil {
				c.checkEnded(s, g, mine)
				c.checkDone(s, g, mine)
			}
		}
	}
}

// about tells whether an operation speaks of an id: of all that it may mean if it
// names none.
func about(op *record.Op, id record.ID) bool { return len(op.IDs) == 0 || slices.Contains(op.IDs, id) }

// checkEnded: an end that says that it was asked for was.
func (c *court) checkEnded(s *span, g *grant, ends []*record.Op) {
	if c.openRequests(g) {
		return // somebody's request was cut off, and its agent gave that part back
	}
	for i, rev := range s.turns {
		if code := s.codes[i]; i%2 == 1 || (code != released && code != byOperator && code != atOnce) || c.compensated[compensation{s.service, rev}] {
			continue
		}
		if !slices.ContainsFunc(ends, func(op *record.Op) bool { return about(op, s.id) && op.Call <= c.times[rev].latest }) {
			c.broke(P5, rev, "%s of grant %s ended (%s), and nobody had released that grant", s.id, s.token, s.codes[i])
		}
	}
}

// openRequests tells whether a request that may have met the grant has no answer.
func (c *court) openRequests(g *grant) bool {
	return slices.ContainsFunc(c.byKey[g.key], func(op *record.Op) bool { return op.Outcome == record.Unknown })
}

// checkDone: once all that were ever bound to a grant were told that their release
// is done, or the whole was ended, it is over.
func (c *court) checkDone(s *span, g *grant, ends []*record.Op) {
	done := c.allReleased(s, g, ends)
	if done == 0 {
		return
	}
	c.done[s] = true
	first := int64(0)
	if len(s.turns) > 0 {
		first = s.turns[0]
	}
	if first == 0 || c.times[first].earliest > done {
		c.broke(P5, first, "%s of grant %s was released at %s by all that were bound to it, and was still theirs", s.id, s.token, done)
	}
	c.checkNotBack(s, ends, done)
}

// checkNotBack: what was over, as all were told, is not held again after a restore
// of etcd to when it was; unless the node that was told is fenced, and nobody else
// need know.
func (c *court) checkNotBack(s *span, ends []*record.Op, done record.Instant) {
	r := c.back[s]
	if r == nil || done > r.cut.Stopped || slices.ContainsFunc(ends, func(op *record.Op) bool { return r.fenced[op.Node] }) {
		return
	}
	for i, rev := range s.turns {
		if i%2 == 1 && c.times[rev].earliest > done {
			c.broke(P5, rev, "%s of grant %s was released by all that were bound to it at %s, and is held again after the restore of etcd", s.id, s.token, done)
		}
	}
}

// allReleased is when the last of all that may be bound to a grant was told that its
// release is done; 0: not all were.
func (c *court) allReleased(s *span, g *grant, ends []*record.Op) (done record.Instant) {
	bound := maps.Clone(c.bound[g.token])
	for _, op := range c.byKey[g.key] {
		if op.Token == "" && op.Outcome == record.Unknown {
			bound[who(op)] = bind(op, bound[who(op)])
		}
	}
	for _, op := range ends {
		// Names of services are used again: who named no token meant what stood then.
		if op.Outcome != record.OK || !about(op, s.id) || (op.Token == "" && op.Call < c.times[s.from].latest) {
			continue
		}
		maps.DeleteFunc(bound, func(party string, b binding) bool {
			switch op.Kind {
			case record.ReleaseUID: // its own part, wherever it was bound
				return party == who(op) && op.Call >= b.until
			case record.Deallocate: // and that of its node
				return (party == who(op) || b.node == op.Node) && op.Call >= b.until
			}
			return true
		})
		if done = max(done, op.Return); len(bound) == 0 {
			return done
		}
	}
	return 0
}

// binding is one party's part in a grant.
type binding struct {
	node  string
	until record.Instant // not bound again from here on
}

// bind is a party's binding after one more request or join.
func bind(op *record.Op, b binding) binding {
	if op.Outcome == record.Unknown {
		return binding{op.Node, never}
	}
	return binding{op.Node, max(b.until, op.Return)}
}

// who is the party that an operation speaks for.
func who(op *record.Op) string {
	if op.Requester != "" {
		return op.Requester
	}
	return "client " + op.Client
}
