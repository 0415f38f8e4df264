package judge

import (
	"maps"
	"slices"

	"github.com/idpool/idpool/test/e2e/robust/record"
)

// grant is what clients were told of one token.
type grant struct {
	token   string
	answers []*record.Op // those that name it, in the order of their calls
	ids     []record.ID
	service bool
	key     string
}

// makes tells whether operations of a kind ask for ids.
func makes(k record.Kind) bool {
	return k == record.RequestUID || k == record.Allocate || k == record.CreateService
}

// ends tells whether operations of a kind end grants.
func ends(k record.Kind) bool {
	switch k {
	case record.ReleaseUID, record.ReleaseByOperator, record.Deallocate, record.FailService, record.DeleteService:
		return true
	}
	return false
}

// indexOps sorts the clients' requests by token and by key.
func (c *court) indexOps() {
	c.bound, c.told, c.byKey = map[string]map[string]binding{}, map[string]*grant{}, map[string][]*record.Op{}
	for i := range c.run.Ops {
		op := &c.run.Ops[i]
		if op.Key != "" && makes(op.Kind) && op.Kind != record.CreateService {
			c.byKey[op.Key] = append(c.byKey[op.Key], op)
		}
		if op.Token != "" && op.Outcome != record.Refused && (makes(op.Kind) || op.Kind == record.JoinUID) {
			if c.bound[op.Token] == nil {
				c.bound[op.Token] = map[string]binding{}
			}
			c.bound[op.Token][who(op)] = bind(op, c.bound[op.Token][who(op)])
		}
		if !grants(op) {
			continue
		}
		g := c.told[op.Token]
		if g == nil {
			g = &grant{token: op.Token, ids: op.IDs, service: op.Kind == record.CreateService, key: op.Key}
			c.told[op.Token] = g
			c.tokens = append(c.tokens, op.Token)
		}
		g.answers = append(g.answers, op)
	}
	for _, g := range c.told {
		slices.SortStableFunc(g.answers, func(a, b *record.Op) int { return int(a.Call - b.Call) })
	}
}

// answers holds what clients were told against etcd's history: a grant that was
// answered stands there, whole, under that token, at some moment of the call.
func (c *court) answers() {
	if len(c.revs) == 0 {
		return
	}
	byToken := map[string]int{}
	for _, s := range c.spans {
		byToken[s.token]++
	}
	for _, token := range c.tokens {
		g := c.told[token]
		for _, op := range g.answers {
			c.checkAnswer(op)
		}
		if n := byToken[token]; !g.service && n > len(g.ids) {
			c.broke(P3, 0, "grant %s holds %d ids in etcd and its caller was told of %d (%v)", token, n, len(g.ids), g.ids)
		}
	}
}

func (c *court) checkAnswer(op *record.Op) {
	first, last := c.current(op.Call, op.Return)
	made := map[int64]bool{}
	for _, id := range op.IDs {
		s := c.span(op.Token, id)
		if s == nil {
			c.broke(P1, 0, "%s %d of %s was answered with %s under token %s, and etcd never had that grant", op.Kind, op.N, op.Client, id, op.Token)
			continue
		}
		made[s.from] = true
		if last < 0 || !s.heldWithin(c.revs[max(first, 0)], c.revs[last]) {
			promise := P1
			if op.Same {
				promise = P4
			}
			c.broke(promise, s.from, "%s %d of %s was answered with %s under token %s, which did not stand at any moment of the call", op.Kind, op.N, op.Client, id, op.Token)
		}
	}
	if len(made) > 1 && op.Kind != record.CreateService {
		c.broke(P3, 0, "the ids of grant %s (%v) were granted at %d revisions", op.Token, op.IDs, len(made))
	}
}

// keys checks P3 and P4 among the answers alone: all that was asked for or nothing;
// and one key of one caller is one request, and one grant for ever.
func (c *court) keys() {
	for _, token := range c.tokens {
		g := c.told[token]
		for _, op := range g.answers {
			want := 0
			for _, w := range op.Wants {
				want += max(w.Count, 1)
			}
			if want != 0 && len(op.IDs) != want {
				c.broke(P3, 0, "%s %d of %s was answered with %d ids (%v), %d were asked for", op.Kind, op.N, op.Client, len(op.IDs), op.IDs, want)
			}
		}
		for _, op := range g.answers[1:] {
			if !sameIDs(op.IDs, g.ids) {
				c.broke(P4, 0, "grant %s was answered with %v and then with %v", token, g.ids, op.IDs)
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(c.byKey)) {
		first := map[string]*record.Op{} // by caller
		for _, op := range c.byKey[key] {
			if !grants(op) {
				continue
			}
			caller := ""
			if len(op.IDs) > 0 {
				if s := c.span(op.Token, op.IDs[0]); s != nil {
					caller = s.caller
				}
			}
			f := first[caller]
			switch {
			case f == nil:
				first[caller] = op
			case f.Token != op.Token:
				c.broke(P4, 0, "key %s was answered with grant %s (%v) and with grant %s (%v)", key, f.Token, f.IDs, op.Token, op.IDs)
			case !sameWants(f.Wants, op.Wants):
				c.broke(P4, 0, "key %s was answered with grant %s to another request than it was made for (%v, then %v)", key, op.Token, f.Wants, op.Wants)
			}
		}
	}
}

func sameIDs(a, b []record.ID) bool {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return slices.Equal(a, b)
}

func sameWants(a, b []record.Want) bool {
	sum := map[record.Want]int{}
	for _, w := range a {
		sum[record.Want{Pool: w.Pool, Inventory: w.Inventory}] += max(w.Count, 1)
	}
	for _, w := range b {
		sum[record.Want{Pool: w.Pool, Inventory: w.Inventory}] -= max(w.Count, 1)
	}
	for _, n := range sum {
		if n != 0 {
			return false
		}
	}
	return true
}
