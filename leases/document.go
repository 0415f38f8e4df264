package leases

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/problem"
)

// Document is a record that a trade keeps beside its grants (services/NAME), as
// the mirror shows it. The engine does not read it; Raw is shared and must not be
// changed.
type Document struct {
	Name   string
	Raw    []byte
	ModRev int64
	// Since is when this process first saw this mod revision.
	Since time.Time
	// Lock is the value of the lock of whoever works on it, "" if nobody does.
	Lock string
}

// LockDo is what a change does with a document's lock, which is under the
// session's lease: it dies with its holder.
type LockDo int

// What a change does with the lock: nothing; take it, if nobody has it; rely on
// still having it; give it up.
const (
	LockNone LockDo = iota
	LockTake
	LockHold
	LockDrop
)

// LockChange is a change's part about the document's lock; Value is unique to
// one holder.
type LockChange struct {
	Do    LockDo
	Value string
}

// DocumentGrant writes a document in the transaction that grants ids.
type DocumentGrant struct {
	Name string
	// Before are the exact bytes that it rests on; nil: it must not exist.
	Before []byte
	// After makes the new bytes from what is granted; it is called for every
	// attempt and must put something random into each.
	After func(*Grant) []byte
	Lock  LockChange
}

// DocumentChange writes or deletes a document, and ends claims with it.
type DocumentChange struct {
	Name          string
	Before, After []byte // nil: it must not exist; it is deleted
	Lock          LockChange
	// Release are claims that end in the same transaction. One that is free, or
	// carries another token, is over: nothing of it is written.
	Release []TokenRef
	// Reason is what the claims that end say.
	Reason string
}

// TokenRef names one id as part of one grant.
type TokenRef struct {
	Ref
	Token string
}

// refsIn lists the ids that refs name, each once.
func refsIn(refs []TokenRef) []Ref {
	var all []Ref
	for _, r := range refs {
		if !slices.Contains(all, r.Ref) {
			all = append(all, r.Ref)
		}
	}
	return all
}

// ErrChanged is returned when a document, or its lock, is not as it was read.
// Nothing was done, or what was done was changed since (an earlier attempt may have
// been applied without an answer): read it again, and decide anew.
var ErrChanged = errors.New("the record was changed meanwhile")

// documentEdit is a document's part of a transaction.
type documentEdit struct {
	name          string
	before, after []byte
	lock          LockChange
}

// into adds the document's compares, writes and reads to a child.
func (d documentEdit) into(k cluster.Keys, c *child) {
	key, lock := k.Service(d.name), k.ServiceLock(d.name)
	c.cmps, c.gets = append(c.cmps, sameValue(key, d.before)), append(c.gets, key)
	if d.before != nil || d.after != nil {
		c.puts = append(c.puts, put{key: key, value: d.after})
	}
	switch d.lock.Do {
	case LockTake:
		c.cmps = append(c.cmps, clientv3.Compare(clientv3.CreateRevision(lock), "=", 0))
		c.puts = append(c.puts, put{key: lock, value: []byte(d.lock.Value), leased: true, sure: true})
	case LockHold, LockDrop:
		c.cmps = append(c.cmps, clientv3.Compare(clientv3.Value(lock), "=", d.lock.Value))
	}
	if d.lock.Do == LockDrop {
		c.puts = append(c.puts, put{key: lock})
	}
	if d.lock.Do != LockNone {
		c.gets = append(c.gets, lock)
	}
}

// stands tells whether a refused transaction found document and lock as they
// were read: then something else refused it.
func (d documentEdit) stands(k cluster.Keys, found map[string]cluster.KV) bool {
	kv, ok := found[k.Service(d.name)]
	if ok != (d.before != nil) || !bytes.Equal(kv.Value, d.before) {
		return false
	}
	lock, locked := found[k.ServiceLock(d.name)]
	switch d.lock.Do {
	case LockTake:
		return !locked
	case LockHold, LockDrop:
		return locked && string(lock.Value) == d.lock.Value
	}
	return true
}

// Document returns a document once this process's own writes are visible.
func (a *Allocator) Document(ctx context.Context, name string) (Document, bool) {
	a.caught(ctx)
	var d Document
	var ok bool
	a.mirror.read(func(v *view) { d, ok = v.document(name) })
	return d, ok
}

func (v *view) document(name string) (Document, bool) { // Raw of one that exists is not nil
	d, ok := v.documents[name]
	d.Name, d.Lock = name, v.documentLocks[name]
	return d, ok
}

// Documents lists all documents by name.
func (a *Allocator) Documents(ctx context.Context) []Document {
	a.caught(ctx)
	var all []Document
	a.mirror.read(func(v *view) {
		for name := range v.documents {
			d, _ := v.document(name)
			all = append(all, d)
		}
	})
	slices.SortFunc(all, func(x, y Document) int { return compareStrings(x.Name, y.Name) })
	return all
}

// WaitDocument blocks until cond holds for a document, or ctx ends. cond runs
// under the mirror's lock.
func (a *Allocator) WaitDocument(ctx context.Context, name string, cond func(d Document, ok bool) bool) error {
	return a.mirror.wait(ctx, func(v *view) bool { return cond(v.document(name)) })
}

// ChangeDocument writes a document if it, and its lock, are as they were read,
// and ends claims in the same transaction. point names it for tests that kill.
// One round trip and one commit; one more of each where the mirror lagged behind
// a claim. Errors: [ErrChanged], ErrUnavailable, ErrOutcomeUnknown.
func (a *Allocator) ChangeDocument(ctx context.Context, point string, ch DocumentChange) (Document, error) {
	ctx, cancel := a.budget(ctx)
	defer cancel()
	d := documentEdit{ch.Name, ch.Before, ch.After, ch.Lock}
	refs := refsIn(ch.Release)
	s, err := a.load(ctx, refs)
	if err != nil {
		return Document{}, err
	}
	for {
		c := a.child(s, a.endings(s, ch.Release, ch.Reason))
		a.restOn(c, s, refs)
		d.into(a.keys, c)
		r := a.submit(ctx, point, c)
		switch {
		case r.err != nil:
			return Document{}, r.err
		case r.applied:
			return Document{Name: ch.Name, Raw: ch.After, ModRev: r.revision, Since: time.Now(), Lock: lockAfter(ch.Lock)}, nil
		case c.settles() || !d.stands(a.keys, r.found):
			a.reach(ctx, r.revision, time.Second)
			return Document{}, ErrChanged
		}
		if err := a.learn(s, c.gets, r.found); err != nil {
			return Document{}, err
		}
		a.reach(ctx, r.revision, time.Second) // a pool may have changed
		if ctx.Err() != nil {
			return Document{}, problem.Wrap(problem.CodeUnavailable, context.Cause(ctx), "the claims kept changing; nothing was done")
		}
	}
}

func lockAfter(l LockChange) string {
	if l.Do == LockTake || l.Do == LockHold {
		return l.Value
	}
	return ""
}

// endings plans the end of claims that carry their tokens and are held: free at
// once where the pool has no cooldown, else in quarantine.
func (a *Allocator) endings(s *snap, ends []TokenRef, reason string) *plan {
	p := &plan{}
	now := time.Now().UTC()
	var seen []Ref
	for _, t := range ends {
		c := s.claims[t.Ref].Val
		if c == nil || c.Token != t.Token || !c.State.held() || slices.Contains(seen, t.Ref) {
			continue
		}
		seen = append(seen, t.Ref)
		c = c.clone()
		c.quarantine(ReasonReleased, reason, now)
		e := edit{ref: t.Ref, after: c, lock: lockKeep}
		a.skipCooldown(&e)
		p.edits = append(p.edits, e)
	}
	return p
}

// skipCooldown frees a VLAN that ended at once where its inventory has no
// cooldown; the transaction then rests on that.
func (a *Allocator) skipCooldown(e *edit) {
	a.mirror.read(func(v *view) {
		p, ok := v.pools[e.after.Pool]
		if ok && e.ref.vlan() && p.Val.Cooldown == 0 && e.after.State == Quarantined {
			e.pool, e.poolRev, e.after = e.after.Pool, p.ModRev, nil
		}
	})
}

// restOn makes a child compare the claims that its decision left alone as well:
// "over" must be true in etcd, not only in a mirror that may lag.
func (a *Allocator) restOn(c *child, s *snap, refs []Ref) {
	for _, ref := range refs {
		key := a.keys.Claim(ref.Space, ref.ID)
		if !slices.Contains(c.gets, key) {
			c.cmps, c.gets = append(c.cmps, sameValue(key, s.claims[ref].Raw)), append(c.gets, key)
		}
	}
}

// beside adds to a grant's child what is written with it: the document, and the
// claims that it ends. It returns a look at a refusal: [ErrChanged] where the
// document is what refused it.
func (a *Allocator) beside(ctx context.Context, req GrantRequest, g *Grant, c *child) (func(childResult) error, error) {
	var s *snap
	if len(req.Drop) > 0 {
		refs := refsIn(req.Drop)
		var err error
		if s, err = a.load(ctx, refs); err != nil {
			return nil, err
		}
		ends := a.child(s, a.endings(s, req.Drop, req.DropReason))
		a.restOn(ends, s, refs)
		c.cmps, c.puts, c.gets = append(c.cmps, ends.cmps...), append(c.puts, ends.puts...), append(c.gets, ends.gets...)
	}
	readable := func(r childResult) error {
		if s == nil {
			return nil
		}
		return a.learn(s, c.gets, r.found) // what cannot be read stays so
	}
	if req.Document == nil {
		return readable, nil
	}
	d := documentEdit{req.Document.Name, req.Document.Before, req.Document.After(g), req.Document.Lock}
	d.into(a.keys, c)
	return func(r childResult) error {
		if d.stands(a.keys, r.found) {
			return readable(r)
		}
		a.reach(ctx, r.revision, time.Second)
		return ErrChanged
	}, nil
}
