package leases

import (
	"slices"
	"strconv"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/idset"
)

// scene is one state of an explored world. It is never changed once it is made:
// a step copies it, and shares what stays.
type scene struct {
	store *simStore
	saved *simStore // the snapshot that a restore brings back
	hosts [2]host
	party []party
	tasks []*task
	late  []sent // on their way, whoever sent them has given up
	left  faults
	over  []string // tokens whose claim was deleted, while something under way names them
	seq   int64
}

// host is a machine with its agent.
type host struct {
	boot int
	// procs run here; shadow ran here before another machine took the name.
	procs, shadow []proc
	home          memory
	mind          *mind // the agent's memory, nil while it is down
	mirror        *simStore
	cut           bool // etcd went away and the mirror has not followed since
	alien         bool // another machine under the name
}

type proc struct {
	id    uint32
	token string
}

// mind is what an agent's process remembers between two steps.
type mind struct {
	guard           *guard
	alive           Alive
	fatal           error
	left, doubt     bool
	noProof         string
	wrote           int64
	flying          map[Ref]int64
	keys            []string
	orphans         []orphan
	leaving, paused bool
	active          int
	looked          *looked
}

// looked is what the janitor's last look is still to be acted on.
type looked struct {
	seen    *observation
	inquire []Ref
	watch   []Ref
	report  bool
}

// sent is a transaction on its way, and whose it was.
type sent struct {
	commit *pb.TxnRequest
	by     *task
}

// stage is where a requester stands.
type stage int8

const (
	idleParty stage = iota
	askingParty
	heldParty // it was told its ids and may start
	doneParty // it has promised to start nothing more
)

// party is a requester: a process that asks, starts, confirms, releases and dies.
type party struct {
	stage   stage
	dead    bool
	fork    bool // a child of it will become the uid, and keeps the hold
	started bool
	settled bool // it has confirmed
	token   string
	refs    []Ref
	asks    int8
}

func (s *scene) copy() *scene {
	n := *s
	n.party = slices.Clone(s.party)
	return &n
}

func (s *scene) task(id int64) *task {
	for _, t := range s.tasks {
		if t.id == id {
			return t
		}
	}
	return nil
}

func (s *scene) drop(id int64) {
	s.tasks = slices.DeleteFunc(slices.Clone(s.tasks), func(t *task) bool { return t.id == id })
}

// keep puts a task where its earlier self was, or behind the others.
func (s *scene) keep(t *task) {
	s.tasks = slices.Clone(s.tasks)
	for i := range s.tasks {
		if s.tasks[i].id == t.id {
			s.tasks[i] = t
			return
		}
	}
	s.tasks = append(s.tasks, t)
}

func (s *scene) crash(n int) {
	s.tasks = slices.DeleteFunc(slices.Clone(s.tasks), func(t *task) bool { return t.node == n })
	s.hosts[n].mind = nil
}

// follow brings mirrors up that do not lag.
func (s *scene) follow(lag bool) {
	for n := range s.hosts {
		if h := &s.hosts[n]; !h.cut && h.mind != nil && !lag {
			h.mirror = s.store
		}
	}
}

func bootName(n, boot int) string { return "boot-" + strconv.Itoa(n) + "-" + strconv.Itoa(boot) }

func partyName(i int) string { return "r" + strconv.Itoa(i) }

// partyIndex is the party behind a requester, -1 for none.
func partyIndex(id string) int {
	if len(id) != 2 || id[0] != 'r' {
		return -1
	}
	return int(id[1] - '0')
}

// mayStart tells the truth of a requester: it lives, or what it left behind does.
func (s *scene) mayStart(i int) bool {
	p := &s.party[i]
	return !p.dead || p.fork
}

// used are the ids that run on a host.
func (h *host) used() idset.Set {
	var set idset.Set
	for _, p := range h.procs {
		set.Insert(p.id)
	}
	return set
}

// saw is used in short, for comparing operations under way.
func (h *host) saw() byte {
	var b byte = 1
	for _, p := range h.procs {
		b |= 2 << (p.id - 1000)
	}
	return b
}

// faults are how often each may still happen.
type faults struct {
	crash, expire, late, lose, twice, reboot, fence, lie, remove, alien, restore, pool, operator, leave, lag, reclaim, stranger int8
}

var exploreKeys = func() cluster.Keys {
	k, err := cluster.NewKeys("/x/")
	if err != nil {
		panic(err)
	}
	return k
}()

// node is a host's registration as etcd has it, nil if there is none.
func (s *scene) node(n int) *Node { return s.store.viewOf(0).nodes[hostName(n)].Val }
