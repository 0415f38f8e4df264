package leases

import (
	"slices"
	"strings"
)

// Residuer is what a [Prover] is, too, that looks for what outlives processes.
type Residuer interface {
	// Residue tells what is left of ids under which nothing runs, in words; ids that
	// left nothing are not in the answer. It removes what it was told to, and then
	// tells what still is left. Doubt is something left.
	Residue(ids []Leftover) map[Ref]string
}

// Leftover asks what is left of the ids of one claim.
type Leftover struct {
	Ref
	Count uint32
	// RemoveIPC and ClearKeyring say what to remove.
	RemoveIPC, ClearKeyring bool
	// ClearsKeyring says that to their pool a user keyring is something left even if
	// it is empty.
	ClearsKeyring bool
}

const (
	// maxLeft bounds what a proof says in words: that something is left of an id is
	// said of all.
	maxLeft     = 100
	maxLeftText = 300
	// whyLeft begins the reason of a wait for what is left behind.
	whyLeft = "left behind there: "
)

// ReasonResidue is the reason code of a quarantined id that waits because its
// processes left something behind.
const ReasonResidue = "residue"

// Residue is what the node found left behind, "" if it waits for another reason.
func (w Wait) Residue() string {
	left, ok := strings.CutPrefix(w.Why, whyLeft)
	if !ok {
		return ""
	}
	return left
}

// Covers tells whether a number is one of the ids asked about.
func (l Leftover) Covers(id uint32) bool { return id >= l.ID && id-l.ID < l.Count }

// residue asks the prover, if it can tell.
func (a *Allocator) residue(ids []Leftover) map[Ref]string {
	r, ok := a.prover.(Residuer)
	if !ok || len(ids) == 0 {
		return nil
	}
	return r.Residue(ids)
}

// leftovers are the quarantined claims that the node is about to say are unused:
// what they left speaks against that like a process. Beside them their mod revisions.
func (a *Allocator) leftovers(seen *observation, p *Proof) ([]Leftover, map[Ref]int64) {
	var ids []Leftover
	revs := map[Ref]int64{}
	a.mu.Lock()
	cleared := a.cleared
	a.mu.Unlock()
	a.mirror.read(func(v *view) {
		own := v.proofs[a.id.Node].Val
		for ref := range v.quarantined {
			c := v.claims[ref]
			if !reportable(ref, a.id.Node) || p.lists(ref, c.Val.Count) {
				continue
			}
			l := Leftover{Ref: ref, Count: c.Val.Count}
			pool := v.pools[c.Val.Pool].Val
			l.ClearsKeyring = pool != nil && pool.ClearKeyring
			said := cleared[ref] == c.ModRev || (own != nil && own.Revision >= c.ModRev && !own.lists(ref, c.Val.Count))
			if pool != nil && !said && a.mayClean(c, pool, seen) {
				l.RemoveIPC, l.ClearKeyring = pool.RemoveIPC, pool.ClearKeyring
			}
			ids, revs[ref] = append(ids, l), c.ModRev
		}
	})
	return ids, revs
}

// mayClean tells whether what a claim's processes left here is nobody else's by
// now: it waits for this node's word, and was seen in quarantine before the look
// began. Once the word was given (leftovers' said) it may be free and granted again
// before we see that, so nothing is removed any more.
func (a *Allocator) mayClean(c Stored[Claim], pool *Pool, seen *observation) bool {
	return c.Val.On(a.id.Node) != nil && c.ModRev <= seen.rev && pool.Proof != ProofNone && c.Val.ReasonCode != ReasonForeign
}

// inspectLeft looks for what is left of what a proof is about to say is unused, and
// notes for which claims it ever said that nothing was.
func (a *Allocator) inspectLeft(seen *observation, p *Proof) {
	ids, revs := a.leftovers(seen, p)
	left := a.residue(ids)
	a.mu.Lock()
	cleared := map[Ref]int64{}
	for ref, rev := range revs {
		if left[ref] == "" || a.cleared[ref] == rev {
			cleared[ref] = rev
		}
	}
	a.cleared = cleared
	a.mu.Unlock()
	p.addLeft(left)
}

// leavesSomething tells whether one of the ids that a plan ends left something
// behind: then it goes through quarantine, where it is told, or removed.
func (a *Allocator) leavesSomething(p *plan) bool {
	var ids []Leftover
	a.mirror.read(func(v *view) {
		for _, e := range p.edits {
			if !e.ref.vlan() {
				pool := v.pools[e.after.Pool].Val
				ids = append(ids, Leftover{Ref: e.ref, Count: e.after.Count, ClearsKeyring: pool != nil && pool.ClearKeyring})
			}
		}
	})
	return len(a.residue(ids)) > 0
}

// addLeft makes a proof speak against what left something behind.
func (p *Proof) addLeft(left map[Ref]string) {
	refs := make([]Ref, 0, len(left))
	for ref := range left {
		refs = append(refs, ref)
	}
	slices.SortFunc(refs, func(x, y Ref) int { return strings.Compare(x.String(), y.String()) })
	for _, ref := range refs {
		set := p.InUse[ref.Space]
		set.Insert(ref.ID)
		p.InUse[ref.Space] = set
		if len(p.Left) < maxLeft {
			if p.Left == nil {
				p.Left = map[string]string{}
			}
			text := left[ref]
			p.Left[ref.String()] = strings.ToValidUTF8(text[:min(len(text), maxLeftText)], "")
		}
	}
}

// why says why a proof lists an id.
func (p *Proof) why(ref Ref) string {
	if left := p.Left[ref.String()]; left != "" {
		return whyLeft + left
	}
	return "in use there, or a requester there has not given up"
}
