package leases

import "strings"

// missing says what of this node's own the etcd that is followed lacks although
// nobody can have ended it: a claim of this boot that is held needs this node's proof.
func (a *Allocator) missing() (string, []byte) {
	known := a.journal.all()
	mem := a.session.home.get()
	var why string
	var meta []byte
	a.gate.now().read(func(v *view) {
		meta = v.meta.Raw
		n := v.nodes[a.id.Node].Val
		if v.epoch() != mem.Epoch || n == nil || n.State != nodeActive || n.Boot != a.id.Boot || n.Secret != a.session.home.SecretHash() {
			return
		}
		held, gone, example := 0, 0, ""
		for key, e := range known {
			ref, mine := (&asserting{a: a}).claimOf(key, e.Value)
			if mine == nil || e.Epoch != mem.Epoch || e.Rev > v.rev || ref.vlan() || !mine.State.held() {
				continue
			}
			if p := mine.On(a.id.Node); p == nil || p.Boot != a.id.Boot {
				continue
			}
			held++
			raw, _, readable := v.held(a.keys, key)
			_, there := (&asserting{a: a}).claimOf(key, raw)
			pool := v.pools[mine.Pool].Val
			if !readable || (there != nil && there.Token == mine.Token) || policyOf(ref.Space, pool) == ProofNone {
				continue
			}
			if gone++; example == "" || label(ref) < example {
				example = label(ref)
			}
		}
		if gone > 0 {
			why = "this node holds " + counted(held, "grant", "grants") + ", and " + counted(gone, "is", "are") + " missing in etcd, " + example + " first"
		}
	})
	return why, meta
}

// written adds what an applied child wrote to what goes into the journal.
func (b *batcher) written(all []jentry, c *child, r childResult, g *guard) []jentry {
	if b.journal == nil {
		return nil
	}
	for _, p := range c.puts {
		key := strings.TrimPrefix(p.key, b.client.Keys().Root())
		if p.leased || !mayBeHeld(key) {
			continue
		}
		e := jentry{Key: key, Value: p.value, Rev: r.revision, Epoch: g.epoch, Number: g.number}
		if kv, ok := r.found[p.key]; ok && p.value != nil { // by an earlier attempt
			e.Rev = kv.ModRev
		}
		all = append(all, e)
	}
	return all
}
