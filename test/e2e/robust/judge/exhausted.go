package judge

import (
	"slices"
	"sort"

	"github.com/idpool/idpool/test/e2e/robust/record"
)

// poolAt is a pool as requests at one node see it.
type poolAt struct{ pool, node string }

// space is the space that the pool's ids are of there.
func (p poolAt) space(def *pool) string {
	switch {
	case len(p.pool) > 5 && p.pool[:5] == "vlan/":
		return p.pool
	case def.Scope == "node":
		return "uid@" + p.node
	}
	return "uid"
}

// series is how many ids of a pool were free, by revision. Absent: -1.
type series struct {
	revs []int64
	free []int64
}

// least is the lowest count at any revision of a range, both ends included.
func (s *series) least(from, to int64) int64 {
	i := max(sort.Search(len(s.revs), func(i int) bool { return s.revs[i] > from })-1, 0)
	low := int64(-1)
	for n := i; n < len(s.revs) && (n == i || s.revs[n] <= to); n++ {
		if s.revs[n] > from && n == i {
			return -1 // the pool came later
		}
		if n == i || s.free[n] < low {
			low = s.free[n]
		}
	}
	return low
}

// needs is what a request asks for, by pool.
func needs(op *record.Op) map[poolAt]int64 {
	all := map[poolAt]int64{}
	for _, w := range op.Wants {
		name := w.Pool
		if w.Inventory != "" {
			name = "vlan/" + w.Inventory
		}
		all[poolAt{name, op.Node}] += int64(max(w.Count, 1))
	}
	return all
}

func refusedAsExhausted(op *record.Op) bool {
	return makes(op.Kind) && op.Outcome == record.Refused && op.Code == "exhausted" && op.Return > 0
}

// watchPools notes which pools were ever said to be exhausted: only theirs are counted.
func (c *court) watchPools() {
	c.frees = map[poolAt]*series{}
	for i := range c.run.Ops {
		if op := &c.run.Ops[i]; refusedAsExhausted(op) {
			for p := range needs(op) {
				c.frees[p] = &series{}
			}
		}
	}
}

// countFree keeps their counts after a revision.
func (c *court) countFree(t *txn) {
	for p, s := range c.frees {
		def := c.w.pools[p.pool]
		n := int64(-1)
		switch redefined := slices.ContainsFunc(t.pools, func(e edit[string, pool]) bool { return e.key == p.pool }); {
		case def == nil:
		case redefined || c.recount:
			n = int64(def.firsts.Count())
			for id := range c.w.claims {
				if space, num := split(id); space == p.space(def) && def.firsts.Contains(num) {
					n--
				}
			}
		case len(s.free) > 0:
			n = s.free[len(s.free)-1]
			for _, e := range t.claims {
				space, num := split(e.key)
				if space != p.space(def) || !def.firsts.Contains(num) {
					continue
				}
				if e.before == nil {
					n--
				} else if e.after == nil {
					n++
				}
			}
		}
		if len(s.free) == 0 || s.free[len(s.free)-1] != n {
			s.revs, s.free = append(s.revs, t.rev), append(s.free, n)
		}
	}
	c.recount = false
}

// exhausted checks P7: of every request refused as exhausted, that at some revision
// which may have been current during the call its pools had too few ids.
func (c *court) exhausted() {
	for i := range c.run.Ops {
		op := &c.run.Ops[i]
		if !refusedAsExhausted(op) || len(op.Wants) == 0 || len(c.revs) == 0 {
			continue
		}
		first, last := c.current(op.Call, op.Return)
		if last < 0 {
			continue
		}
		need := needs(op)
		if c.shared(need) { // they may each have enough, and together not
			continue
		}
		if op.Kind == record.CreateService && c.rejectedBefore(op.Key, c.revs[max(first, 0)], c.revs[last]) {
			continue // it was answered with the refusal that its record holds
		}
		honest := false
		var least int64
		for p, n := range need {
			least = c.frees[p].least(c.revs[max(first, 0)], c.revs[last])
			honest = honest || least < n
		}
		if !honest {
			c.broke(P7, c.revs[last], "%s %d of %s was refused as exhausted (%v), and its pools had enough at every revision from %d to %d (at least %d free)",
				op.Kind, op.N, op.Client, op.Wants, c.revs[max(first, 0)], c.revs[last], least)
		}
	}
}

// shared tells whether pools that a request asks for ever had ids in common.
func (c *court) shared(need map[poolAt]int64) bool {
	for p := range need {
		for q := range need {
			if p.pool >= q.pool {
				continue
			}
			for _, a := range c.w.poolsPast[p.pool] {
				for _, b := range c.w.poolsPast[q.pool] {
					if a.pool != nil && b.pool != nil && p.space(a.pool) == q.space(b.pool) && !a.firsts.Intersect(b.firsts).IsEmpty() {
						return true
					}
				}
			}
		}
	}
	return false
}

// rejectedBefore tells whether a service's record said that it was rejected at some
// revision of a range, and not for the first time within it.
func (c *court) rejectedBefore(name string, from, to int64) bool {
	return slices.ContainsFunc(c.rejected[serviceKey(name)], func(o out) bool { return o.from <= from && (o.to == 0 || o.to > from) && o.from <= to })
}
