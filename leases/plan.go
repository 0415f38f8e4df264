package leases

import (
	"bytes"
	"context"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/problem"
)

// lockEdit is what becomes of the lock beside a claim.
type lockEdit int

const (
	lockKeep lockEdit = iota
	lockPut
	lockDrop
)

// edit is one claim's part of a plan: after nil deletes it.
type edit struct {
	ref   Ref
	after *Claim
	lock  lockEdit
	// pool, if not "", is one whose definition, at poolRev, the edit rests on.
	pool    string
	poolRev int64
}

// plan is a decision on claims that were read: pure data, turned into a child
// transaction that compares what it was decided on.
type plan struct {
	edits []edit
	// members, if not nil, is the node list's mod revision that the decision rests
	// on; 0 where there is no such key.
	members *int64
	// lean leaves grant records that end as they are; see torn.go.
	lean bool
	// forget deletes grant records that end instead of marking them.
	forget bool
	// alone keeps it out of transactions with others.
	alone bool
}

// snap is what a decision rests on: claims and grant records, by ref and key. An
// absent one has no Val.
type snap struct {
	claims  map[Ref]Stored[Claim]
	records map[string]Stored[Record]
}

// load reads claims and the records that list them from the mirror, once it
// shows our own writes. A decision on a stale mirror is refused by its compares. One
// that cannot be read is an error: it is neither free nor over.
func (a *Allocator) load(ctx context.Context, refs []Ref) (*snap, error) {
	a.caught(ctx)
	var err error
	s := &snap{claims: map[Ref]Stored[Claim]{}, records: map[string]Stored[Record]{}}
	a.mirror.read(func(v *view) {
		for _, ref := range refs {
			s.claims[ref] = v.claims[ref]
			if why := v.unreadable[a.keys.Claim(ref.Space, ref.ID)]; s.claims[ref].Val == nil && why != nil {
				err = unreadableClaim(ref, why)
			}
			if c := v.claims[ref].Val; c != nil && c.Grouped {
				key := a.recordKey(c)
				s.records[key] = v.records[key]
				if why := v.unreadable[key]; s.records[key].Val == nil && why != nil {
					err = unreadableRecord(key, why)
				}
			}
		}
	})
	return s, err
}

func (a *Allocator) recordKey(c *Claim) string {
	return a.keys.Grant(c.Caller, recordName(c.Key, c.Token))
}

// learn replaces a snapshot's content by what a refused transaction found of the
// keys that it asked for.
func (a *Allocator) learn(s *snap, asked []string, found map[string]cluster.KV) error {
	for ref := range s.claims {
		claim := a.keys.Claim(ref.Space, ref.ID)
		if !slices.Contains(asked, claim) {
			continue
		}
		kv, ok := found[claim]
		if !ok {
			s.claims[ref] = Stored[Claim]{}
			continue
		}
		c, err := decodeClaim(ref, kv.Value)
		if err != nil {
			return unreadableClaim(ref, err)
		}
		s.claims[ref] = stored(c, kv)
		if c.Grouped {
			if _, ok := s.records[a.recordKey(c)]; !ok {
				s.records[a.recordKey(c)] = Stored[Record]{}
			}
		}
	}
	for key := range s.records {
		if !slices.Contains(asked, key) {
			continue
		}
		kv, ok := found[key]
		if !ok {
			s.records[key] = Stored[Record]{}
			continue
		}
		at, err := a.keys.Parse(key)
		if err != nil {
			return err
		}
		r, err := decodeRecord(at.Caller, at.Name, kv.Value)
		if err != nil {
			return unreadableRecord(key, err)
		}
		s.records[key] = stored(r, kv)
	}
	return nil
}

// child builds the transaction of a plan: value compares on everything that it
// was decided on (rule 19), and the grant record of every group that it shortens
// (rule 20).
func (a *Allocator) child(s *snap, p *plan) *child {
	now := time.Now().UTC()
	c := &child{alone: p.alone}
	if p.members != nil {
		c.cmps = append(c.cmps, clientv3.Compare(clientv3.ModRevision(a.keys.Members()), "=", *p.members))
	}
	records := map[string]*Record{}
	pools := map[string]bool{}
	for _, e := range p.edits {
		if e.pool != "" && !pools[e.pool] {
			pools[e.pool] = true
			c.cmps = append(c.cmps, clientv3.Compare(clientv3.ModRevision(poolKey(a.keys, e.pool)), "=", e.poolRev))
		}
		if e.after != nil && e.ref.vlan() && e.after.State == Quarantined {
			e.after.Nodes = nil // no node has a word about it any more
		}
		before := s.claims[e.ref]
		key := a.keys.Claim(e.ref.Space, e.ref.ID)
		c.cmps, c.gets = append(c.cmps, sameValue(key, before.Raw)), append(c.gets, key)
		if e.after == nil {
			c.puts = append(c.puts, put{key: key})
		} else {
			e.after.V, e.after.Of, e.after.Write = format, e.ref.String(), shortToken()
			c.puts = append(c.puts, put{key: key, value: cluster.Encode(e.after)})
		}
		switch lock := a.keys.Lock(e.ref.Space, e.ref.ID); e.lock {
		case lockPut:
			c.puts = append(c.puts, put{key: lock, value: []byte(e.after.Token), leased: true})
		case lockDrop:
			c.puts = append(c.puts, put{key: lock})
		}
		if before.Val != nil && before.Val.Grouped && !before.Val.State.held() && e.after != nil && e.after.State.held() && e.after.Token == before.Val.Token {
			rk := a.recordKey(before.Val)
			if records[rk] == nil {
				records[rk] = s.records[rk].Val
			}
			if r := records[rk]; r != nil && r.Token == before.Val.Token {
				records[rk] = r.with(e.ref, now)
			}
			continue
		}
		ended := before.Val != nil && before.Val.State.held() && (e.after == nil || !e.after.State.held())
		if !ended || !before.Val.Grouped {
			continue
		}
		rk := a.recordKey(before.Val)
		if records[rk] == nil {
			records[rk] = s.records[rk].Val
		}
		if r := records[rk]; r != nil && r.Token == before.Val.Token {
			records[rk] = r.without(e.ref, now)
		}
	}
	if p.lean {
		return c
	}
	for key, r := range records {
		c.cmps, c.gets = append(c.cmps, sameValue(key, s.records[key].Raw)), append(c.gets, key)
		if r != nil && r != s.records[key].Val {
			r.V, r.Write = format, shortToken()
			value := cluster.Encode(r)
			if p.forget && r.Ended {
				value = nil
			}
			c.puts = append(c.puts, put{key: key, value: value})
		}
	}
	return c
}

// update decides on what it reads and writes the decision, until what was
// decided on is what stands. decide returns nil for nothing to write. It returns
// the claims as they stand afterwards. One round trip and one commit where the
// mirror is right, one more of each where it lagged.
func (a *Allocator) update(ctx context.Context, point string, refs []Ref, decide func(*snap) (*plan, error)) (map[Ref]Stored[Claim], error) {
	s, err := a.load(ctx, refs)
	if err != nil {
		return nil, err
	}
	for {
		p, err := decide(s)
		if err != nil {
			return nil, err
		}
		if p == nil || len(p.edits) == 0 {
			return s.claims, nil
		}
		c := a.child(s, p)
		r := a.submit(ctx, point, c)
		switch {
		case r.err != nil:
			return nil, r.err
		case r.applied:
			return a.after(s, p, r.revision), nil
		}
		if err := a.learn(s, c.gets, r.found); err != nil {
			return nil, err
		}
		if p.members != nil || slices.ContainsFunc(p.edits, func(e edit) bool { return e.pool != "" }) { // perhaps only the node list moved on
			a.reach(ctx, r.revision, time.Second)
		}
		if ctx.Err() != nil {
			return nil, problem.Wrap(problem.CodeUnavailable, context.Cause(ctx), "the claim kept changing; nothing was done")
		}
	}
}

// updateSure is update where "nothing to do" and a refusal are answers to a caller:
// they are given only after a linearizable read, never on the word of a mirror that
// may lag. One round trip more in those cases.
func (a *Allocator) updateSure(ctx context.Context, point string, refs []Ref, decide func(*snap) (*plan, error)) (map[Ref]Stored[Claim], error) {
	sure := false
	return a.update(ctx, point, refs, func(s *snap) (*plan, error) {
		p, err := decide(s)
		if sure || (err == nil && p != nil && len(p.edits) > 0) {
			return p, err
		}
		if err := a.linearize(ctx); err != nil {
			return nil, err
		}
		sure = true
		now, err := a.load(ctx, refs)
		if err != nil {
			return nil, err
		}
		*s = *now
		return decide(s)
	})
}

// after is the snapshot's claims with a plan applied.
func (a *Allocator) after(s *snap, p *plan, rev int64) map[Ref]Stored[Claim] {
	for _, e := range p.edits {
		if e.after == nil {
			s.claims[e.ref] = Stored[Claim]{}
			continue
		}
		s.claims[e.ref] = Stored[Claim]{Val: e.after, Raw: bytes.Clone(cluster.Encode(e.after)), ModRev: rev}
	}
	return s.claims
}
