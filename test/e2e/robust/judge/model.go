package judge

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"

	"github.com/anishathalye/porcupine"

	"github.com/idpool/idpool/test/e2e/robust/record"
)

// The model of one id, by which porcupine looks for an order of all that clients did
// with it, and of what ran under it, that explains every answer:
//
//	           free          held by T                         held by another
//	grant T    held by T     –                                 held by T, once the other may be over and nothing of it runs
//	release T  –             may be over                       nothing
//	end T      –             over: etcd's history shows it     –
//	revive T   –             held again: a reclaim undone      –
//	use T      –             as it was, if not over            –
//	start T    –             one process more                  –
//	stop T     –             one process less                  –
//
// "–" is impossible: an answer that needs it is a violation. A release whose outcome
// is unknown may be done at any time after its call, or never; that it only may be
// over covers both. Requests without an answer granted nothing that anybody knows of,
// unless a later answer under the same key names their grant.
type verb int

const (
	doGrant verb = iota
	doRelease
	doEnd
	doRevive
	doUse
	doStart
	doStop
)

var verbs = [...]string{"grant", "release", "end", "revive", "use", "start", "stop"}

// step is an operation of the model.
type step struct {
	verb  verb
	token string
}

// standing is the state of an id; the zero value is free.
type standing struct {
	holder    string
	may, over bool // its grant may be over; is over
	running   int
}

func (s standing) next(do step) (standing, bool) {
	mine := s.holder == do.token
	switch do.verb {
	case doGrant:
		ok := !mine && (s.holder == "" || ((s.may || s.over) && s.running == 0))
		return standing{holder: do.token}, ok
	case doRelease:
		s.may = s.may || mine
		return s, true
	case doEnd:
		s.over = true
		return s, mine
	case doRevive:
		was := s.over
		s.over, s.may = false, false
		return s, mine && was
	case doUse:
		return s, mine && !s.over
	case doStart:
		s.running++
		return s, mine
	default:
		s.running--
		return s, mine && s.running >= 0
	}
}

var model = porcupine.Model{
	Init: func() any { return standing{} },
	Step: func(state, input, _ any) (bool, any) {
		s, ok := state.(standing).next(input.(step))
		return ok, s
	},
	DescribeOperation: func(input, _ any) string {
		do := input.(step)
		return verbs[do.verb] + " " + do.token
	},
}

// linearizable asks porcupine about every id, each by itself.
func (c *court) linearizable(l Limits) {
	all := c.steps()
	ids := sortedIDs(all)
	results := make([]porcupine.CheckResult, len(ids))
	queue := make(chan int)
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for i := range queue {
				results[i] = porcupine.CheckOperationsTimeout(model, all[ids[i]], l.PerID)
			}
		})
	}
	for i := range ids {
		queue <- i
	}
	close(queue)
	workers.Wait()
	for i, id := range ids {
		switch results[i] {
		case porcupine.Illegal:
			c.broke(P1, 0, "%s: no order of what clients were told, and of what ran, explains it: %s", id, stuck(all[id], l))
		case porcupine.Unknown:
			c.v.Counts.Undecided++
		}
	}
}

// stuck names the first operation that the longest possible order has no place for.
func stuck(ops []porcupine.Operation, l Limits) string {
	_, info := porcupine.CheckOperationsVerbose(model, ops, l.PerID)
	longest := []int{}
	for _, partial := range info.PartialLinearizations()[0] {
		if len(partial) > len(longest) {
			longest = partial
		}
	}
	first := -1
	for i := range ops {
		if !slices.Contains(longest, i) && (first < 0 || ops[i].Return < ops[first].Return) {
			first = i
		}
	}
	if first < 0 {
		return "nothing fits"
	}
	s := standing{}
	for _, i := range longest {
		s, _ = s.next(ops[i].Input.(step))
	}
	return fmt.Sprintf("%q at %s to %s does not fit, where it is held by %q (may be over: %v, over: %v, %d processes)",
		model.DescribeOperation(ops[first].Input, nil), record.Instant(ops[first].Call), record.Instant(ops[first].Return), s.holder, s.may || s.over, s.over, s.running)
}

// steps are the operations on every id that clients were told of.
func (c *court) steps() map[record.ID][]porcupine.Operation {
	all := map[record.ID][]porcupine.Operation{}
	add := func(id record.ID, v verb, token string, call, ret record.Instant) {
		if v != doGrant && (c.told[token] == nil || !slices.Contains(c.told[token].ids, id)) {
			return // of a grant that no client knows of
		}
		all[id] = append(all[id], porcupine.Operation{Input: step{v, token}, Call: int64(call), Return: int64(ret)})
	}
	for _, token := range c.tokens {
		g := c.told[token]
		made, call, ret := c.madeBy(g)
		for _, id := range g.ids {
			add(id, doGrant, token, call, ret)
		}
		for _, op := range g.answers {
			for _, id := range op.IDs {
				if op != made {
					add(id, doUse, token, op.Call, op.Return)
				}
			}
		}
	}
	for i := range c.run.Ops {
		op := &c.run.Ops[i]
		v, ret := doUse, op.Return
		switch op.Kind {
		case record.JoinUID, record.ConfirmUID, record.RenewUID, record.ConfirmService, record.ProvisionService:
			if op.Outcome != record.OK {
				continue
			}
		default:
			if !ends(op.Kind) || op.Outcome == record.Refused {
				continue
			}
			v = doRelease
			if op.Outcome == record.Unknown {
				ret = math.MaxInt64
			}
		}
		for _, token := range c.meant(op) {
			for _, id := range c.told[token].ids {
				if about(op, id) {
					add(id, v, token, op.Call, ret)
				}
			}
		}
	}
	for _, s := range c.spans {
		for i, rev := range s.turns {
			v := doEnd
			if i%2 == 1 {
				v = doRevive
			}
			add(s.id, v, s.holder, c.times[rev].earliest, c.times[rev].latest)
		}
	}
	for i := range c.run.Processes {
		if r, ok := c.counted(&c.run.Processes[i]); ok {
			add(r.ID, doStart, r.Token, r.from, r.from)
			if r.until != never {
				add(r.ID, doStop, r.Token, r.until, r.until)
			}
		}
	}
	return all
}

// madeBy is the answer that tells of the grant being made, and when it may have
// been; where all answers say that the key had it already, it was by one of the
// earlier requests under that key, and no answer is returned.
func (c *court) madeBy(g *grant) (op *record.Op, call, ret record.Instant) {
	for _, op := range g.answers {
		if !op.Same {
			return op, op.Call, op.Return
		}
	}
	call, ret = g.answers[0].Call, never
	for _, op := range g.answers {
		ret = min(ret, op.Return)
	}
	for i := range c.run.Ops {
		if op := &c.run.Ops[i]; makes(op.Kind) && op.Key == g.key && (op.Kind == record.CreateService) == g.service {
			call = min(call, op.Call)
		}
	}
	return nil, call, ret
}

// meant are the tokens that an operation speaks of: its own, or what clients were
// told under its key.
func (c *court) meant(op *record.Op) []string {
	if op.Token != "" || op.Key == "" {
		if c.told[op.Token] == nil {
			return nil
		}
		return []string{op.Token}
	}
	var all []string
	for _, token := range c.tokens {
		if g := c.told[token]; g.key == op.Key {
			all = append(all, token)
		}
	}
	return all
}
