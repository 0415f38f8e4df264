package leases

import (
	"time"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/idset"
)

// view is the content of a mirror. Its methods need the mirror's lock.
type view struct {
	rev         int64
	meta        Stored[cluster.Meta]
	members     Stored[Members]
	index       int64 // mod revision of pools/index
	nodes       map[string]Stored[Node]
	alive       map[string]Stored[Alive]
	proofs      map[string]Stored[Proof]
	pools       map[string]poolEntry
	claims      map[Ref]Stored[Claim]
	locks       map[Ref]lock
	records     map[string]Stored[Record]
	byKey       map[string][]string // allocation key: etcd keys of its records
	reaper      string
	taken       map[cluster.Space]*idset.Set
	quarantined map[Ref]time.Time    // since when this mirror saw that mod revision
	idle        map[Ref]time.Time    // likewise, of idle claims
	over        map[string]time.Time // likewise, of ended records
	mine        map[Ref]struct{}     // claims that name this node
	unreadable  map[string]error
	lostPools   map[string]error    // pools whose definitions cannot be read
	strange     map[string]struct{} // nodes whose registrations cannot be read
	lastSeen    map[string]time.Time
	// Of a recovery: what nodes said, the keys with marks, and the mod revision of the
	// newest mark.
	recoveries map[string]Stored[Recovery]
	marks      map[string]struct{}
	marked     int64
	// Of other trades' records, by name: what stands there, and who works on it.
	documents     map[string]Document
	documentLocks map[string]string
}

func newView() view {
	return view{
		nodes: map[string]Stored[Node]{}, alive: map[string]Stored[Alive]{}, proofs: map[string]Stored[Proof]{},
		pools: map[string]poolEntry{}, claims: map[Ref]Stored[Claim]{}, locks: map[Ref]lock{},
		records: map[string]Stored[Record]{}, byKey: map[string][]string{}, taken: map[cluster.Space]*idset.Set{},
		quarantined: map[Ref]time.Time{}, idle: map[Ref]time.Time{}, over: map[string]time.Time{}, mine: map[Ref]struct{}{}, unreadable: map[string]error{}, strange: map[string]struct{}{}, lostPools: map[string]error{},
		recoveries: map[string]Stored[Recovery]{}, marks: map[string]struct{}{},
		lastSeen: map[string]time.Time{}, documents: map[string]Document{}, documentLocks: map[string]string{},
	}
}

// lock is a key beside a claim: whose session's it is, and when it was written.
type lock struct{ lease, modRev int64 }

// epoch is the cluster's, "" while its record cannot be read.
func (v *view) epoch() string {
	if v.meta.Val == nil {
		return ""
	}
	return v.meta.Val.Epoch
}

// takenIn is the set of ids of a space that have a claim.
func (v *view) takenIn(space cluster.Space) idset.Set {
	if set := v.taken[space]; set != nil {
		return *set
	}
	return idset.Set{}
}

// witnesses are all nodes as a quarantined claim's weighing needs them.
func (v *view) witnesses() []witness {
	all := make([]witness, 0, len(v.nodes))
	for name, n := range v.nodes {
		w := witness{name: name, node: n.Val}
		if a, ok := v.alive[name]; ok {
			w.up, w.noProof = true, a.Val.NoProof
		}
		if p, ok := v.proofs[name]; ok {
			w.proof, w.proofRev = p.Val, p.ModRev
		}
		all = append(all, w)
	}
	for name, a := range v.alive {
		if _, ok := v.nodes[name]; !ok { // its registration cannot be read, or is missing
			all = append(all, witness{name: name, up: true, noProof: a.Val.NoProof})
		}
	}
	for name := range v.strange {
		if _, up := v.alive[name]; !up {
			all = append(all, witness{name: name, noProof: "its registration cannot be read"})
		}
	}
	return all
}

// weigh prepares a quarantined claim for a judgement.
func (v *view) weigh(ref Ref, c Stored[Claim]) weighing {
	var pool *Pool
	if p, ok := v.pools[c.Val.Pool]; ok {
		pool = p.Val
	}
	w := weighing{ref: ref, claim: c.Val, modRev: c.ModRev, policy: policyOf(ref.Space, pool)}
	if v.meta.Val != nil {
		w.epoch = v.meta.Val.Epoch
	}
	return w
}

// cooling is how long a quarantined claim's cooldown still lasts, counted on our
// own clock from the moment we saw it (rule 14).
func (v *view) cooling(ref Ref, c *Claim) time.Duration {
	p, ok := v.pools[c.Pool]
	if !ok || p.Val.Cooldown == 0 {
		return 0
	}
	return max(0, p.Val.Cooldown-time.Since(v.quarantined[ref]))
}
