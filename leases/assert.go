package leases

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/problem"
)

// assertAtOnce is how many keys one transaction asserts: a compare of the key and
// one of its mark each, and the guard, are within etcd's 128.
const assertAtOnce = 50

// errMoved is returned when the cluster's record, or this session, changed while
// something was asserted: it is to be looked at anew.
var errMoved = errors.New("the cluster's record or the session changed meanwhile")

// asserting is one pass of a node over what it knows.
type asserting struct {
	a    *Allocator
	g    *guard
	meta cluster.Meta
	late bool // granting has resumed without this node
	known,
	asserted int
	conflicts []Conflict
	rev       int64 // the highest revision that this pass wrote at
}

// pass asserts all entries. It is repeated whole after an error: what is asserted
// already is then found as it should be.
func (s *asserting) pass(ctx context.Context, entries []jentry) error {
	s.known = len(entries)
	for part := range slices.Chunk(entries, assertAtOnce) {
		if err := s.chunk(ctx, part); err != nil {
			return err
		}
	}
	return nil
}

// chunk asserts some keys: it reads what stands there, decides, and writes under the
// guard if nothing has changed; else it reads again. A round trip and a commit.
func (s *asserting) chunk(ctx context.Context, part []jentry) error {
	var wait cluster.Backoff
	for {
		at, err := s.read(ctx, part)
		if err != nil {
			return err
		}
		cmps, puts, conflicts := s.decide(part, at)
		if len(puts) == 0 {
			s.conflicts = append(s.conflicts, conflicts...)
			return nil
		}
		k := s.a.keys
		resp, err := s.a.client.Commit(ctx, append(s.g.compares(k, s.a.id.Node), cmps...), puts, nil)
		switch {
		case err == nil && resp.Succeeded:
			s.asserted += len(cmps) / 2
			s.rev = max(s.rev, resp.Header.Revision)
			s.conflicts = append(s.conflicts, conflicts...)
			return nil
		case err != nil && cluster.IsPermissionDenied(err):
			return problem.Wrap(problem.CodeForbidden, err, "assert what node %s holds", s.a.id.Node)
		}
		if wait.Wait(ctx) != nil { // unknown or refused: what stands says
			return problem.Wrap(problem.CodeUnavailable, cmpErr(err, context.Cause(ctx)), "assert what node %s holds", s.a.id.Node)
		}
	}
}

func cmpErr(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

// read reads keys and marks, linearizably, and makes sure that guard and record
// still are those of this pass.
func (s *asserting) read(ctx context.Context, part []jentry) ([]standing, error) {
	k := s.a.keys
	ops := []clientv3.Op{clientv3.OpGet(k.Meta()), clientv3.OpGet(k.Alive(s.a.id.Node))}
	for _, e := range part {
		ops = append(ops, clientv3.OpGet(k.Root()+e.Key), clientv3.OpGet(k.Recovered(k.Root()+e.Key)))
	}
	resp, err := s.a.client.Read(ctx, ops...)
	if err != nil {
		return nil, err
	}
	r := resp.Responses
	switch alive := value(r[1]); {
	case alive == nil:
		s.a.session.lost(s.g, errors.New("the presence is gone"))
		return nil, errMoved
	case !bytes.Equal(value(r[0]), s.g.meta) || !bytes.Equal(alive, s.g.alive):
		return nil, errMoved
	}
	all := make([]standing, len(part))
	for i := range part {
		if all[i], err = standingOf(r[2+2*i], r[3+2*i], s.meta.Epoch); err != nil {
			return nil, Unread(k.Recovered(k.Root()+part[i].Key), err)
		}
	}
	return all, nil
}

// standingOf reads a key and its mark; a mark that cannot be read is an error, since
// what is newer is not known then.
func standingOf(key, mark *pb.ResponseOp, epoch string) (standing, error) {
	at := standing{raw: value(key)}
	if kvs := key.GetResponseRange().GetKvs(); len(kvs) > 0 {
		at.modRev = kvs[0].ModRevision
	}
	if kvs := mark.GetResponseRange().GetKvs(); len(kvs) > 0 {
		at.markRev = kvs[0].ModRevision
		m, err := decodeMark(kvs[0].Value)
		if err != nil {
			return at, err
		}
		if m.In == epoch {
			at.mark = m
		}
	}
	return at, nil
}

// decide turns keys and what stands there into a transaction, and conflicts.
func (s *asserting) decide(part []jentry, at []standing) (cmps []clientv3.Cmp, puts []clientv3.Op, conflicts []Conflict) {
	k := s.a.keys
	for i, e := range part {
		full := k.Root() + e.Key
		next, mark := e.Value, k.Recovered(full)
		verdict := yield
		if s.late {
			next, verdict = s.ruleLate(e, at[i])
		} else {
			verdict = rule(e, at[i], s.meta, s.a.id.Node)
		}
		switch verdict {
		case dispute:
			conflicts = append(conflicts, s.conflict(e, at[i], "neither is newer"))
			continue
		case yield:
			continue
		}
		cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(full), "=", at[i].modRev), clientv3.Compare(clientv3.ModRevision(mark), "=", at[i].markRev))
		switch {
		case next != nil:
			puts = append(puts, clientv3.OpPut(full, string(next)))
		case at[i].raw != nil:
			puts = append(puts, clientv3.OpDelete(full))
		}
		if !s.late {
			puts = append(puts, clientv3.OpPut(mark, string(cluster.Encode(s.mark(e, at[i])))))
		}
	}
	return cmps, puts, conflicts
}

func (s *asserting) mark(e jentry, at standing) Mark {
	m := Mark{V: format, In: s.meta.Epoch, Number: e.Number, Epoch: e.Epoch, Rev: e.Rev, Node: s.a.id.Node, Write: shortToken()}
	if at.mark != nil {
		m.Resolved = at.mark.Resolved
	}
	return m
}

// ruleLate decides for a node that speaks after granting has resumed: what etcd has
// stays. What it lacks, and may still be in use here, is put back: a claim of this
// boot, for this node alone, and of what outlives reboots all that those who spoke in
// time cannot have known; of the rest they put back what was not over, and it has been
// ended since.
func (s *asserting) ruleLate(e jentry, at standing) ([]byte, ruling) {
	newer := age{e.Number, e.Rev}.compare(age{s.meta.Restored(), max(s.meta.Base, s.meta.Through)}) > 0
	if e.Value == nil {
		return nil, yield
	}
	if lasting(e.Key) || !strings.HasPrefix(e.Key, "claims/") {
		switch {
		case at.raw == nil && newer:
			return e.Value, assert
		case at.raw != nil && lasting(e.Key) && newer && !bytes.Equal(at.raw, e.Value) && !s.sameToken(e, at):
			return nil, dispute
		}
		return nil, yield
	}
	ref, claim := s.claimOf(e.Key, e.Value)
	if claim == nil || !claim.State.held() {
		return nil, yield
	}
	p := claim.On(s.a.id.Node)
	if p == nil || p.Boot != s.a.id.Boot {
		return nil, yield
	}
	if at.raw == nil {
		claim.Nodes = []Presence{*p}
		claim.Write = shortToken()
		return cluster.Encode(claim), assert
	}
	theirs, err := decodeClaim(ref, at.raw)
	switch {
	case err != nil || theirs.Token != claim.Token:
		return nil, dispute
	case theirs.On(s.a.id.Node) != nil || !theirs.State.held():
		return nil, yield
	}
	theirs.Nodes = append(theirs.Nodes, *p)
	theirs.Write = shortToken()
	return cluster.Encode(theirs), assert
}

func (s *asserting) sameToken(e jentry, at standing) bool {
	ref, mine := s.claimOf(e.Key, e.Value)
	if mine == nil {
		return true // a service: two states of one record are no two holders
	}
	theirs, err := decodeClaim(ref, at.raw)
	return err == nil && theirs.Token == mine.Token
}

// claimOf decodes a claim at a key below the root; nil for anything else.
func (s *asserting) claimOf(key string, raw []byte) (Ref, *Claim) {
	at, err := s.a.keys.Parse(s.a.keys.Root() + key)
	if err != nil || at.Kind != cluster.KindClaim || raw == nil {
		return Ref{}, nil
	}
	ref := Ref{at.Space, at.ID}
	c, err := decodeClaim(ref, raw)
	if err != nil {
		return ref, nil
	}
	return ref, c
}

func (s *asserting) conflict(e jentry, at standing, why string) Conflict {
	c := Conflict{Key: e.Key, Why: why, Ours: s.side(s.a.id.Node, e.Key, e.Value, e.Rev), Theirs: s.side("", e.Key, at.raw, s.meta.Rev(at.modRev))}
	if at.mark != nil {
		c.Theirs.Node, c.Theirs.Revision = at.mark.Node, at.mark.Rev
	}
	return c
}

func (s *asserting) side(node, key string, raw []byte, rev int64) Side {
	side := Side{Node: node, Revision: rev}
	switch _, c := s.claimOf(key, raw); {
	case c != nil:
		side.State, side.Caller, side.Holder, side.Nodes = c.State.String(), c.Caller, c.Holder, c.NodeNames()
	case raw != nil:
		side.State = "written"
	}
	return side
}

// knownEntries is what this node asserts: its journal and, unless it is late, of
// what it saw of others all that its mirror still shows of the time before. What that
// lacked was gone by then. What stands as it was is left out. Sorted by key.
func (a *Allocator) knownEntries(late bool) []jentry {
	known := a.journal.all()
	was, now := a.gate.before()
	if was != nil && !late {
		addBefore(a.keys, a.session.home.Epoch(), was, now, known)
	}
	all := make([]jentry, 0, len(known))
	now.read(func(v *view) {
		for key, e := range known {
			raw, rev, readable := v.held(a.keys, key)
			if readable && rev == e.Rev && e.Value != nil && bytes.Equal(raw, e.Value) {
				continue
			}
			all = append(all, e)
		}
	})
	slices.SortFunc(all, func(x, y jentry) int { return strings.Compare(x.Key, y.Key) })
	return all
}

// addBefore adds what a mirror of the epoch before showed, and that it lacked what
// is there now.
func addBefore(k cluster.Keys, epoch string, was, now *Mirror, known map[string]jentry) {
	before, there, unreadable := map[string]jentry{}, map[string]jentry{}, map[string]bool{}
	gone := jentry{Epoch: epoch}
	was.read(func(v *view) {
		if v.epoch() != epoch {
			return
		}
		v.remember(k, before)
		gone.Rev, gone.Number = v.rev, v.meta.Val.Number
		for key := range v.unreadable {
			unreadable[strings.TrimPrefix(key, k.Root())] = true
		}
	})
	if gone.Rev == 0 {
		return
	}
	for key, e := range before {
		if old, ok := known[key]; !ok || old.Number < e.Number || (old.Epoch == e.Epoch && old.Rev < e.Rev) {
			known[key] = e
		}
	}
	now.read(func(v *view) { v.remember(k, there) })
	for key := range there {
		_, had := before[key]
		if _, told := known[key]; !had && !told && !unreadable[key] {
			gone.Key = key
			known[key] = gone
		}
	}
}

// remember collects everything of a view that a journal could keep.
func (v *view) remember(k cluster.Keys, into map[string]jentry) {
	if v.meta.Val == nil {
		return
	}
	add := func(key string, raw []byte, rev int64) {
		key = strings.TrimPrefix(key, k.Root())
		into[key] = jentry{Key: key, Value: raw, Rev: rev, Epoch: v.meta.Val.Epoch, Number: v.meta.Val.Number}
	}
	for ref, c := range v.claims {
		add(k.Claim(ref.Space, ref.ID), c.Raw, c.ModRev)
	}
	for key, r := range v.records {
		add(key, r.Raw, r.ModRev)
	}
	for name, d := range v.documents {
		add(k.Service(name), d.Raw, d.ModRev)
	}
}

// say writes what this node has said, under the guard. A round trip and a commit.
func (s *asserting) say(ctx context.Context, r Recovery) error {
	key := s.a.keys.Recovery(s.a.id.Node)
	raw := cluster.Encode(r)
	var wait cluster.Backoff
	for {
		resp, err := s.a.client.Commit(ctx, s.g.compares(s.a.keys, s.a.id.Node), []clientv3.Op{clientv3.OpPut(key, string(raw))}, nil)
		switch {
		case err == nil && resp.Succeeded:
			return nil
		case err == nil:
			if _, err := s.read(ctx, nil); err != nil { // tells whether the session is over
				return err
			}
			return errMoved
		}
		if wait.Wait(ctx) != nil {
			return problem.Wrap(problem.CodeUnavailable, err, "tell what node %s holds", s.a.id.Node)
		}
	}
}

// through is how far this node saw all of the epoch before, 0 if it did not live
// through the restore.
func (s *asserting) through() (rev int64) {
	was, _ := s.a.gate.before()
	if was == nil {
		return 0
	}
	was.read(func(v *view) {
		if m := v.meta.Val; m != nil && m.Epoch == s.a.session.home.Epoch() && m.Number == s.meta.Restored() {
			rev = v.rev
		}
	})
	return rev
}

// settled is the record of a pass and the look after it.
func (s *asserting) settled(rev int64, foreign int) Recovery {
	conflicts := s.conflicts
	if len(conflicts) > maxConflicts {
		conflicts = conflicts[:maxConflicts]
	}
	return Recovery{
		V: format, Of: s.a.id.Node, Epoch: s.meta.Epoch, Boot: s.a.id.Boot, At: time.Now().UTC(), Revision: rev, Through: s.through(),
		Journal: s.known, Asserted: s.asserted, Foreign: foreign, Conflicts: conflicts, Write: shortToken(),
	}
}
