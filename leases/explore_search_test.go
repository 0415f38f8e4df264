package leases

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/idpool/idpool/cluster"
)

// scenario is a small world and what may go wrong in it.
type scenario struct {
	name    string
	uids    int
	parties []spec
	left    faults
	slow    []kind // whose parts are steps of their own; those of others come at once
	tasks   int    // operations under way at a time
	depth   int    // of a random walk
	walk    bool   // too large for breadth first
	leaks   int    // one state of so many is brought to rest
	split   bool   // a look at what runs takes its time
	bump    bool   // the restored etcd's revision is bumped
	absent  bool   // node 1 is registered and absent at first
	late1   bool   // node 1 is not registered at first
}

// spec is what a requester wants.
type spec struct {
	host      int
	joins     int // one more than the requester whose grant it joins
	key       string
	count     int
	fork      bool // it starts by way of a child
	restart   bool // it starts again what has ended
	keep      bool // it confirms with keep
	early     bool // it may confirm before it starts
	noConfirm bool
	mortal    bool // it may die before it asks
	blind     bool // it is told the grant by the other and starts without a word
	stays     bool // it does not release
}

// root is the world at its start: two registered nodes, a pool, nothing granted.
func (x *explorer) root() *scene {
	s := &scene{store: &simStore{rev: 1, index: 100}, party: make([]party, len(x.sc.parties))}
	s.store = s.store.next()
	s.store.put(exploreKeys.Meta(), cluster.Encode(cluster.Meta{V: 1, Epoch: "6ba7b810-9dad-11d1-80b4-00c04fd430c8", Number: 1, State: cluster.StateNormal}), 0)
	for n := range s.hosts {
		s.hosts[n] = host{home: memory{V: format, Secret: "secret-" + hostName(n)}, mirror: s.store}
	}
	for n := range s.hosts {
		if n == 1 && x.sc.late1 {
			continue
		}
		s.hosts[n].mind = &mind{}
		s.follow(false)
		s = x.answered(x.begin(s, task{node: n, kind: kOpen, party: -1}))
	}
	s = x.answered(x.begin(s, task{node: 0, kind: kPool, party: -1}))
	s = x.answered(x.begin(s, task{node: 0, kind: kElect, party: -1}))
	if x.sc.absent {
		x.down(s, 1)
		s.store = s.store.expire(s.presence(1).lease)
		s.follow(false)
	}
	s.left = x.sc.left
	return s
}

// outcome is what a search has found.
type outcome struct {
	states, steps, depth int
	whole                bool // nothing is left to be looked at
	why                  string
	trace                []string
	took                 time.Duration
}

func (o outcome) String() string {
	how := "bounded"
	if o.whole {
		how = "exhausted"
	}
	return fmt.Sprintf("%s: %d states, %d steps, depth %d, %.1fs, %.0f steps/s", how, o.states, o.steps, o.depth, o.took.Seconds(), float64(o.steps)/max(0.001, o.took.Seconds()))
}

// seen is a state that was reached: from where, and by which of its moves.
type reached struct {
	from int32
	move int16
}

// breadth looks at every state, the nearest first, so that a trace is a shortest
// one; at most limit of them.
func (x *explorer) breadth(limit int) (o outcome) {
	began := time.Now()
	root := x.root()
	x.steps = 0
	known := map[uint64]struct{}{x.hash(root): {}}
	order := []reached{{-1, 0}}
	level, ids := []*scene{root}, []int32{0}
	defer func() { o.states, o.steps, o.took = len(order), x.steps, time.Since(began) }()
	for len(level) > 0 {
		var next []*scene
		var nextIDs []int32
		for i, s := range level {
			level[i] = nil
			for j, m := range slices.Clone(x.moves(s)) {
				n := x.step(m)
				h := x.hash(n)
				if _, ok := known[h]; ok {
					continue
				}
				known[h] = struct{}{}
				order = append(order, reached{ids[i], int16(j)})
				why := x.judge(s, n)
				if why == "" && x.sc.leaks > 0 && len(order)%x.sc.leaks == 0 {
					why = x.leak(n)
				}
				if why != "" {
					o.why, o.trace = why, x.trace(root, order)
					return o
				}
				next, nextIDs = append(next, n), append(nextIDs, int32(len(order)-1))
			}
			if len(order) >= limit {
				return o
			}
		}
		o.depth++
		level, ids = next, nextIDs
	}
	o.whole = true
	return o
}

func (x *explorer) step(m move) *scene {
	x.by, x.cut = nil, false
	return m.to()
}

// trace is the way to the last state reached, in words.
func (x *explorer) trace(s *scene, order []reached) []string {
	var path []int16
	for i := int32(len(order) - 1); i > 0; i = order[i].from {
		path = append(path, order[i].move)
	}
	slices.Reverse(path)
	var words []string
	for i, j := range path {
		moves := x.moves(s)
		if int(j) >= len(moves) {
			return append(words, fmt.Sprintf("%3d. the way cannot be gone again from here: move %d of %d", i+1, j, len(moves)))
		}
		m := moves[j]
		words = append(words, fmt.Sprintf("%3d. %s", i+1, m))
		s = x.step(m)
		words = append(words, s.words(x)...)
	}
	return words
}

// words are the claims as they stand, where a trace wants them.
func (s *scene) words(x *explorer) []string {
	var all []string
	for id := range uint32(x.sc.uids) {
		c := s.store.claims()[uidRef(1000+id)]
		if c.Val == nil {
			continue
		}
		var on []string
		for _, p := range c.Val.Nodes {
			var who []string
			for _, r := range p.Requesters {
				who = append(who, r.ID)
			}
			on = append(on, p.Node+"["+strings.Join(who, " ")+"]")
		}
		all = append(all, fmt.Sprintf("       uid %d %s %.4s@%d %s", 1000+id, c.Val.State, c.Val.Token, c.ModRev, strings.Join(on, " ")))
	}
	return all
}

// walks goes at random from the start, again and again, until so many steps are
// done. Each walk's end is brought to rest.
func (x *explorer) walks(seed uint64, limit int) (o outcome) {
	began := time.Now()
	root := x.root()
	x.steps = 0
	known := map[uint64]struct{}{}
	defer func() { o.states, o.steps, o.took = len(known), x.steps, time.Since(began) }()
	for walk := uint64(0); len(known) < limit && x.steps < 4*limit; walk++ {
		r := rand.New(rand.NewPCG(seed, walk))
		s := root
		var words []string
		for i := range x.sc.depth {
			all := x.moves(s)
			if len(all) == 0 {
				break
			}
			m := all[r.IntN(len(all))]
			n := x.step(m)
			words = append(words, fmt.Sprintf("%3d. %s", i+1, m))
			words = append(words, n.words(x)...)
			if o.why = x.judge(s, n); o.why != "" {
				o.trace = words
				return o
			}
			known[x.hash(n)] = struct{}{}
			s = n
			o.depth = max(o.depth, i+1)
		}
		if o.why = x.leak(s); o.why != "" {
			o.trace = words
			return o
		}
	}
	return o
}
