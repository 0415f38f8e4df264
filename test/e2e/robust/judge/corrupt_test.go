package judge

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/test/e2e/robust/record"
)

// corruption changes one thing of a good run; it tells which, or false where the run
// has nothing of the kind.
type corruption func(run *record.Run, draw func(n int) int) (string, bool)

// choose draws a change that fits, by its index.
func choose(run *record.Run, draw func(int) int, fits func(i int, c record.Change) bool) (int, bool) {
	var all []int
	for i, c := range run.Changes {
		if fits(i, c) {
			all = append(all, i)
		}
	}
	if len(all) == 0 {
		return 0, false
	}
	return all[draw(len(all))], true
}

// lose takes a change that fits out of the history.
func lose(fits func(run *record.Run, i int, c record.Change) bool) corruption {
	return func(run *record.Run, draw func(int) int) (string, bool) {
		i, ok := choose(run, draw, func(i int, c record.Change) bool { return fits(run, i, c) })
		if !ok {
			return "", false
		}
		what := run.Changes[i].Key
		run.Changes = slices.Delete(run.Changes, i, i+1)
		return what, true
	}
}

// bendClaim edits a claim's write that fits.
func bendClaim(fits func(c *claim) bool, edit func(*claim)) corruption {
	return func(run *record.Run, draw func(int) int) (string, bool) {
		i, ok := choose(run, draw, func(_ int, c record.Change) bool {
			var a claim
			return strings.HasPrefix(c.Key, "claims/") && c.Value != nil && json.Unmarshal(c.Value, &a) == nil && fits(&a)
		})
		if !ok {
			return "", false
		}
		var a claim
		_ = json.Unmarshal(run.Changes[i].Value, &a)
		edit(&a)
		run.Changes[i].Value = put("", a).Value
		return run.Changes[i].Key, true
	}
}

// bendProof edits the last report of n1 before a uid is freed.
func bendProof(edit func(p *proof, freed record.ID)) corruption {
	return func(run *record.Run, draw func(int) int) (string, bool) {
		free, ok := choose(run, draw, func(_ int, c record.Change) bool { return strings.HasPrefix(c.Key, "claims/uid/") && c.Value == nil })
		if !ok {
			return "", false
		}
		id, _ := idOf(strings.TrimPrefix(run.Changes[free].Key, "claims/"))
		for i := free; i >= 0; i-- {
			if c := &run.Changes[i]; c.Key == "proofs/n1" {
				var p proof
				_ = json.Unmarshal(c.Value, &p)
				edit(&p, id)
				c.Value = put("", p).Value
				return string(id), true
			}
		}
		return "", false
	}
}

// bendOp edits an operation that fits.
func bendOp(fits func(op *record.Op) bool, edit func(*record.Op)) corruption {
	return func(run *record.Run, draw func(int) int) (string, bool) {
		var all []*record.Op
		for i := range run.Ops {
			if fits(&run.Ops[i]) {
				all = append(all, &run.Ops[i])
			}
		}
		if len(all) == 0 {
			return "", false
		}
		op := all[draw(len(all))]
		edit(op)
		return string(op.Kind), true
	}
}

func isGrant(op *record.Op) bool { return grants(op) }

// later is whether the key is written again.
func later(run *record.Run, i int) bool {
	return slices.ContainsFunc(run.Changes[i+1:], func(c record.Change) bool { return c.Key == run.Changes[i].Key })
}

var corruptions = map[string]corruption{
	"a deletion is lost": lose(func(run *record.Run, i int, c record.Change) bool {
		return strings.HasPrefix(c.Key, "claims/") && c.Value == nil
	}),
	"a claim's first write is lost": lose(func(run *record.Run, i int, c record.Change) bool {
		return strings.HasPrefix(c.Key, "claims/") && !slices.ContainsFunc(run.Changes[:i], func(o record.Change) bool { return o.Key == c.Key })
	}),
	"a lock's write is lost": lose(func(run *record.Run, i int, c record.Change) bool {
		return strings.HasPrefix(c.Key, "locks/") && c.Value != nil
	}),
	"a lock's deletion is lost": lose(func(run *record.Run, i int, c record.Change) bool {
		return strings.HasPrefix(c.Key, "locks/") && c.Value == nil
	}),
	"a record's write is lost": lose(func(run *record.Run, i int, c record.Change) bool { return strings.HasPrefix(c.Key, "grants/") }),
	"a service's write is lost": lose(func(run *record.Run, i int, c record.Change) bool {
		return strings.HasPrefix(c.Key, "services/") && !up(c)
	}),
	"the members are lost":      lose(func(run *record.Run, i int, c record.Change) bool { return c.Key == "members" }),
	"another token":             bendClaim(func(c *claim) bool { return true }, func(c *claim) { c.Token += "x" }),
	"another epoch":             bendClaim(func(c *claim) bool { return true }, func(c *claim) { c.Epoch = "e0" }),
	"another caller":            bendClaim(func(c *claim) bool { return c.State == quarantined || c.State == used }, func(c *claim) { c.Caller = "unix:9" }),
	"locked instead of ended":   bendClaim(func(c *claim) bool { return c.State == quarantined }, func(c *claim) { c.State = locked }),
	"used instead of locked":    bendClaim(func(c *claim) bool { return c.State == locked && len(c.Nodes[0].Requesters) == 1 }, func(c *claim) { c.State = used }),
	"reserved instead of ended": bendClaim(func(c *claim) bool { return c.State == quarantined }, func(c *claim) { c.State = reserved }),
	"granted in another boot":   bendClaim(func(c *claim) bool { return c.State == locked && len(c.Nodes[0].Requesters) == 1 }, func(c *claim) { c.Nodes[0].Boot = "boot0" }),
	"a node never heard of":     bendClaim(func(c *claim) bool { return c.State == quarantined && len(c.Nodes) == 1 }, func(c *claim) { c.Nodes[0].Node = "n9" }),
	"a report of another boot":  bendProof(func(p *proof, _ record.ID) { p.Boot = "boot0" }),
	"a report of another epoch": bendProof(func(p *proof, _ record.ID) { p.Epoch = "e0" }),
	"a report that is too old":  bendProof(func(p *proof, _ record.ID) { p.Revision = 1 }),
	"a report that lists it": bendProof(func(p *proof, id record.ID) {
		_, n := split(id)
		p.InUse = map[string]idset.Set{"uid": idset.New(n)}
	}),
	"answered with another token": bendOp(isGrant, func(op *record.Op) { op.Token += "x" }),
	"answered with another id":    bendOp(isGrant, func(op *record.Op) { op.IDs = append([]record.ID{"uid/999"}, op.IDs[1:]...) }),
	"answered with an id less":    bendOp(func(op *record.Op) bool { return isGrant(op) && len(op.IDs) > 1 }, func(op *record.Op) { op.IDs = op.IDs[1:] }),
	"answered an hour later":      bendOp(isGrant, func(op *record.Op) { op.Call += time.Hour; op.Return += time.Hour }),
	"exhausted while all is free": func(run *record.Run, _ func(int) int) (string, bool) {
		before := run.Ops[0].Call - 1
		run.Ops = append(run.Ops, record.Op{Kind: record.RequestUID, Node: "n1", Wants: []record.Want{{Pool: "p", Count: 1}}, Outcome: record.Refused, Code: "exhausted", Call: before, Return: before})
		return "", true
	},
	"a release by another token": bendOp(func(op *record.Op) bool { return op.Kind == record.ReleaseUID }, func(op *record.Op) { op.Token += "x" }),
	"a release was refused":      bendOp(func(op *record.Op) bool { return op.Kind == record.ReleaseUID }, func(op *record.Op) { op.Outcome, op.Code = record.Refused, "held" }),
	"a service's deletion was refused": bendOp(func(op *record.Op) bool { return op.Kind == record.DeleteService }, func(op *record.Op) {
		op.Outcome, op.Code = record.Refused, "held"
	}),
	"a key of another grant": func(run *record.Run, draw func(int) int) (string, bool) {
		var keyed []*record.Op
		for i := range run.Ops {
			if op := &run.Ops[i]; op.Kind == record.RequestUID && op.Key != "" && isGrant(op) && !op.Same {
				keyed = append(keyed, op)
			}
		}
		if len(keyed) < 2 {
			return "", false
		}
		i := draw(len(keyed) - 1)
		keyed[i+1].Key = keyed[i].Key
		return keyed[i].Key, true
	},
	"a process that goes on": func(run *record.Run, draw func(int) int) (string, bool) {
		for i := range run.Processes {
			p := &run.Processes[i]
			for _, op := range run.Ops {
				if isGrant(&op) && op.Token != p.Token && slices.Contains(op.IDs, p.ID) && op.Call > p.Until {
					p.Until = op.Return + 1
					return string(p.ID), true
				}
			}
		}
		return "", false
	},
	"a lock that is left": func(run *record.Run, draw func(int) int) (string, bool) {
		run.Left["locks/uid/0000001000"] = []byte("t")
		return "", true
	},
	"two revisions at once": func(run *record.Run, draw func(int) int) (string, bool) {
		i, ok := choose(run, draw, func(i int, c record.Change) bool {
			return strings.HasPrefix(c.Key, "claims/") && c.Value == nil && later(run, i)
		})
		if !ok {
			return "", false
		}
		for j := i + 1; j < len(run.Changes); j++ {
			if run.Changes[j].Key == run.Changes[i].Key {
				rev := run.Changes[i].Revision
				for n := i + 1; n <= j; n++ {
					run.Changes[n].Revision = rev
				}
				return run.Changes[i].Key, true
			}
		}
		return "", false
	},
}

// up tells whether a change only says that a service is up: nothing rests on it.
func up(c record.Change) bool { return bytes.Contains(c.Value, []byte(`"state":"up"`)) }
