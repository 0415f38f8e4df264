package leases

import (
	"bytes"
	"strings"
	"sync"

	"github.com/idpool/idpool/cluster"
)

// gate stands between etcd's watch and the mirror. What a new list shows goes into
// another mirror beside it until an audit has passed and this node may write in the
// epoch that it shows: what the list lacks may be lost, not free, and whoever
// watches a grant must not hear that it is gone. What is let in it puts into the
// journal too, before the mirror has it.
type gate struct {
	session *Session
	journal *Journal
	keys    cluster.Keys
	self    string

	mu   sync.Mutex // guards the fields below, and orders what is fed
	live *Mirror
	// aside is fed instead of live while that is not trusted; nil else.
	aside  *Mirror
	filled bool
	// proven: live was let in once, so while aside is fed it is what etcd was before.
	proven bool
	// trusted: what is fed is of the epoch that the journal is of.
	trusted bool
	changed chan struct{} // closed and replaced after each feeding
}

func newGate(live *Mirror, s *Session, j *Journal) *gate {
	return &gate{session: s, journal: j, keys: live.keys, self: live.self, live: live, changed: make(chan struct{})}
}

func (g *gate) told() {
	close(g.changed)
	g.changed = make(chan struct{})
}

// changes is closed at the next feeding.
func (g *gate) changes() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.changed
}

// now is the mirror of what etcd shows, trusted or not.
func (g *gate) now() *Mirror {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.aside != nil {
		return g.aside
	}
	return g.live
}

// Reset replaces everything (cluster.Follower).
func (g *gate) Reset(rev int64, kvs []cluster.KV) {
	g.mu.Lock()
	defer g.mu.Unlock()
	defer g.told()
	g.trusted = false
	if g.filled {
		g.session.doubt()
		if g.aside == nil {
			g.aside = NewMirror(g.keys, g.self, g.live.log)
		}
		g.aside.Reset(rev, kvs)
	} else {
		g.live.Reset(rev, kvs)
	}
	g.filled = true
	g.session.listing()
}

// Apply takes changes in order (cluster.Follower).
func (g *gate) Apply(rev int64, events []cluster.Event) {
	g.mu.Lock()
	defer g.mu.Unlock()
	defer g.told()
	for _, e := range events {
		if e.Key == g.keys.Meta() {
			g.trusted = false // until it is clear what it says
		}
	}
	if g.trusted {
		g.absorb(events)
	}
	g.feed().Apply(rev, events)
}

// Progress notes that nothing happened up to rev (cluster.Follower).
func (g *gate) Progress(rev int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.feed().Progress(rev)
}

// Stale notes that the watch broke (cluster.Follower).
func (g *gate) Stale(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	defer g.told()
	g.live.Stale(err)
	if g.aside != nil {
		g.aside.Stale(err)
	}
}

func (g *gate) feed() *Mirror {
	if g.aside != nil {
		return g.aside
	}
	return g.live
}

// absorb notes the events that are about what this node was told or names it.
func (g *gate) absorb(events []cluster.Event) {
	if g.journal == nil {
		return
	}
	epoch, number := g.live.epoch()
	var all []jentry
	for _, e := range events {
		key, ok := strings.CutPrefix(e.Key, g.keys.Root())
		if !ok || !mayBeHeld(key) || (!e.Deleted && len(e.Value) == 0) {
			continue
		}
		if !g.journal.knows(key) && (e.Deleted || !g.names(e.KV)) {
			continue
		}
		n := jentry{Key: key, Rev: e.ModRev, Epoch: epoch, Number: number}
		if !e.Deleted {
			n.Value = e.Value
		}
		all = append(all, n)
	}
	if err := g.journal.note(all); err != nil {
		g.live.log.Warn("journal not written", errField(err))
	}
}

// mayBeHeld is a quick look at what a journal keeps.
func mayBeHeld(key string) bool {
	return strings.HasPrefix(key, "claims/") || strings.HasPrefix(key, "grants/") || strings.HasPrefix(key, "services/")
}

// names tells whether a claim names this node.
func (g *gate) names(kv cluster.KV) bool {
	key, err := g.keys.Parse(kv.Key)
	if err != nil || key.Kind != cluster.KindClaim || !bytes.Contains(kv.Value, []byte(`"`+g.self+`"`)) {
		return false
	}
	c, err := decodeClaim(Ref{key.Space, key.ID}, kv.Value)
	return err == nil && c.On(g.self) != nil
}

// open lets what etcd shows into the live mirror, and the journal follow it: anew
// where an epoch has begun. The session's audit has passed, and this node may write.
func (g *gate) open(anew bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	defer g.told()
	if g.aside != nil {
		g.live.take(g.aside, !anew)
		g.aside = nil
	}
	g.trusted, g.proven = true, true
	return g.reconcile(anew)
}

// reconcile brings the journal to what the live mirror shows: of every key that it
// knows, and of the claims that name this node. What is gone is gone by the
// mirror's revision.
func (g *gate) reconcile(anew bool) error {
	if g.journal == nil {
		return nil
	}
	known := g.journal.all()
	var all []jentry
	g.live.read(func(v *view) {
		for ref := range v.mine {
			key := strings.TrimPrefix(g.keys.Claim(ref.Space, ref.ID), g.keys.Root())
			if _, ok := known[key]; !ok {
				known[key] = jentry{Key: key, Epoch: v.epoch()}
			}
		}
		for key, old := range known {
			e := jentry{Key: key, Rev: v.rev, Epoch: v.epoch(), Number: v.meta.Val.Number}
			raw, rev, readable := v.held(g.keys, key)
			switch {
			case !readable:
				continue
			case raw != nil:
				e.Value, e.Rev = raw, rev
			case old.Value == nil || anew:
				continue // it is known to be gone; in a new epoch that is past
			}
			all = append(all, e)
		}
	})
	if anew {
		return g.journal.renew(all)
	}
	return g.journal.note(all)
}

// before is the live mirror where it shows etcd as it was before what is fed now,
// and that; nil where it does not.
func (g *gate) before() (was, now *Mirror) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.aside == nil || !g.proven {
		return nil, g.feed()
	}
	return g.live, g.aside
}

// isTrusted tells whether the journal follows what is fed.
func (g *gate) isTrusted() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.trusted && g.aside == nil
}

// held is what stands at a key that a journal keeps, nil if nothing does; false
// where something stands that cannot be read.
func (v *view) held(k cluster.Keys, key string) (raw []byte, rev int64, readable bool) {
	full := k.Root() + key
	at, err := k.Parse(full)
	if err != nil || v.unreadable[full] != nil {
		return nil, 0, false
	}
	switch at.Kind {
	case cluster.KindClaim:
		c := v.claims[Ref{at.Space, at.ID}]
		return c.Raw, c.ModRev, true
	case cluster.KindGrant:
		r := v.records[full]
		return r.Raw, r.ModRev, true
	case cluster.KindService:
		d := v.documents[at.Name]
		return d.Raw, d.ModRev, true
	}
	return nil, 0, false
}

// epoch is the cluster's, by this mirror.
func (m *Mirror) epoch() (string, uint64) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.meta.Val == nil {
		return "", 0
	}
	return m.meta.Val.Epoch, m.meta.Val.Number
}

// take makes the content of another mirror, which must not be fed any more, this
// one's. Clocks of unchanged records go on where both are of one history.
func (m *Mirror) take(o *Mirror, goOn bool) {
	o.mu.RLock()
	next, stale := o.view, o.stale
	o.mu.RUnlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.view
	m.view, m.stale = next, stale
	for name, at := range old.lastSeen {
		if _, ok := m.lastSeen[name]; !ok {
			m.lastSeen[name] = at
		}
	}
	if goOn {
		m.keepClocks(&old)
	}
	m.broadcast()
}

// listing notes that the list behind the last doubt is there.
func (s *Session) listing() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listed = s.doubts
	s.tell()
}
