package leases

import (
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/problem"
)

// Grant gets the ids of a request, all at one etcd revision, or none. It is
// Ganeti's RequestUnusedUid over a cluster: lock, then check, then hand out.
//
// One round trip and one commit, shared with concurrent requests, and one look
// at what runs here; the same request again under its key costs the same. Errors:
// ErrExhausted, ErrHeld, ErrOutsidePool, ErrNotFound (pool), ErrInvalid,
// ErrKeyConflict, ErrKeyEnded, ErrNoProof, ErrFenced, ErrFrozen, ErrUnavailable,
// ErrOutcomeUnknown.
func (a *Allocator) Grant(ctx context.Context, req GrantRequest) (*Grant, error) {
	began := time.Now()
	g, err := a.grant(ctx, req)
	a.hooks.granted(req, g, err, time.Since(began))
	return g, err
}

func (a *Allocator) grant(ctx context.Context, req GrantRequest) (*Grant, error) {
	if err := req.check(); err != nil {
		return nil, err
	}
	if err := a.granting(req.uids()); err != nil {
		return nil, err
	}
	if req.Requester.ID == "" {
		req.Requester.ID = NewToken()
	}
	until := time.Now().Add(req.Wait)
	ctx, cancel := context.WithTimeout(ctx, a.client.Config().Budget+req.Wait+reclaimWait)
	defer cancel()
	if req.Key != "" {
		done, err := a.single(ctx, req.Caller+"\x00"+req.Key)
		if err != nil {
			return nil, err
		}
		defer done()
	}
	var pause cluster.Backoff
	for round := 0; ; round++ {
		if ctx.Err() != nil || (round > 3 && pause.Wait(ctx) != nil) {
			return nil, problem.Wrap(problem.CodeUnavailable, context.Cause(ctx), "nothing was granted: what was free was in use, or taken first")
		}
		req.stamp()
		if req.Key != "" && !req.Dry {
			a.caught(ctx)
			if g, err := a.answer(ctx, req); g != nil || err != nil {
				return g, err
			}
		}
		picks, err := a.pick(req.Wants)
		if err != nil {
			return nil, err
		}
		if picks == nil {
			if err := a.noneFree(ctx, req, until); err != nil {
				return nil, err
			}
			continue
		}
		if req.Dry {
			a.land(picks, 0)
			return preview(req, picks), nil
		}
		if g, err := a.take(ctx, req, picks); g != nil || err != nil {
			return g, err
		}
	}
}

// stamp lets a TTL hold begin now: waiting for an id does not count.
func (r *GrantRequest) stamp() {
	if r.Requester.Hold == HoldTTL && r.TTL > 0 {
		r.Requester.Deadline = int64(BootTime() + r.TTL)
		r.Requester.Until = time.Now().Add(r.TTL).UTC().Truncate(time.Millisecond)
	}
}

// preview is a dry run's answer.
func preview(req GrantRequest, picks []picked) *Grant {
	g := &Grant{Key: req.Key}
	for _, p := range picks {
		g.Held = append(g.Held, Held{Ref: p.ref, Label: p.label, Claim: &Claim{Pool: p.pool, Count: p.policy.Block, Caller: req.Caller, Holder: req.Holder}})
	}
	return g
}

// granting refuses while this node may not grant at all, or no uids.
func (a *Allocator) granting(uids bool) error {
	a.mu.Lock()
	leaving := a.leaving
	a.mu.Unlock()
	if leaving {
		return problem.New(problem.CodeUnavailable, "node %s is leaving the cluster and grants nothing any more", a.id.Node)
	}
	if err := a.session.refusal(); err != nil {
		return err
	}
	if err := a.journal.fault(); err != nil {
		return problem.New(problem.CodeUnavailable, "node %s grants nothing: it cannot write down what it hands out: %v", a.id.Node, err).
			Advise("look at the disk of its data directory", "poolctl status")
	}
	if why := a.session.noProofNow(); why != "" && uids {
		return problem.New(problem.CodeNoProof, "node %s grants no uid: it cannot prove any uid unused: %s", a.id.Node, why).
			Advise("look", "poolctl status")
	}
	return nil
}

// take turns candidates into a grant. nil without an error means that something
// stood in the way and the mirror knows better now.
func (a *Allocator) take(ctx context.Context, req GrantRequest, picks []picked) (*Grant, error) {
	if found, err := a.suspects(ctx, picks); found || err != nil {
		a.land(picks, 0)
		return nil, err
	}
	g, err := a.session.current(ctx)
	if err != nil {
		a.land(picks, 0)
		return nil, err
	}
	token := NewToken()
	c, held := a.grantChild(req, picks, token, g.epoch)
	answer := &Grant{Token: token, Key: req.Key, Requester: req.Requester.ID, Held: held}
	beside, err := a.beside(ctx, req, answer, c)
	if err != nil {
		a.land(picks, 0)
		return nil, err
	}
	c.orphan = func(r childResult) { // runs when the outcome is known at last
		a.land(picks, r.revision)
		if r.applied && req.Key == "" && req.Document == nil { // a key's caller may ask again; its hold decides
			a.addOrphan(orphan{refsOf(picks), token, req.Requester.ID})
		}
	}
	r := a.submit(ctx, "grant", c)
	switch {
	case errors.Is(r.err, problem.ErrOutcomeUnknown):
		if c.stage.Load() == stageDone { // nobody works on it any more; holds decide
			a.land(picks, 0)
		}
		return nil, a.unknownGrant(req, picks, r.err)
	case r.err != nil:
		a.land(picks, 0)
		return nil, r.err
	}
	a.land(picks, r.revision)
	if !r.applied {
		if err := beside(r); err != nil {
			return nil, err
		}
		if c.settles() && req.Document != nil {
			return nil, ErrChanged // the next attempt writes under tokens of its own
		}
		if c.tried && req.Key == "" && req.Document == nil { // applied once and changed since: not what is answered
			a.addOrphan(orphan{refsOf(picks), token, req.Requester.ID})
		}
		a.reach(ctx, r.revision, time.Second)
		return nil, nil
	}
	for i := range held {
		held[i].ModRev = r.revision
	}
	if !req.uids() {
		return answer, nil
	}
	return a.handOut(ctx, req, picks, answer)
}

// grantChild builds the transaction: If every claim is new, the pools are as
// seen and the key is unused, Then claims, locks and the record.
func (a *Allocator) grantChild(req GrantRequest, picks []picked, token, epoch string) (*child, []Held) {
	now := time.Now().UTC()
	c := &child{}
	record := ""
	if req.Service == "" && (req.Key != "" || len(picks) > 1) {
		record = a.keys.Grant(req.Caller, recordName(req.Key, token))
	}
	var held []Held
	pools := map[string]bool{}
	for _, p := range picks {
		claim := &Claim{
			V: format, Of: p.ref.String(), State: step(Free, evGrant).next, Pool: p.pool, Count: p.policy.Block, Caller: req.Caller, Holder: req.Holder, Key: req.Key,
			Token: token, Grouped: record != "", Epoch: epoch, GrantedAt: now, Since: now, Write: shortToken(),
			Nodes: []Presence{{Node: a.id.Node, Boot: a.id.Boot, Requesters: []Requester{req.Requester}}}, Service: req.Service, Attribute: p.label,
		}
		if p.key != "" {
			claim.Key = p.key
		}
		key := a.keys.Claim(p.ref.Space, p.ref.ID)
		c.cmps = append(c.cmps, clientv3.Compare(clientv3.CreateRevision(key), "=", 0))
		if !req.handedOver() {
			claim.State, claim.Nodes = step(claim.State, evConfirm).next, nil
		} else {
			c.puts = append(c.puts, put{key: a.keys.Lock(p.ref.Space, p.ref.ID), value: []byte(token), leased: true})
		}
		c.puts = append(c.puts, put{key: key, value: cluster.Encode(claim)})
		c.gets = append(c.gets, key)
		held = append(held, Held{Ref: p.ref, Claim: claim, Label: p.label})
		if !pools[p.pool] {
			pools[p.pool] = true
			c.cmps = append(c.cmps, clientv3.Compare(clientv3.ModRevision(poolKey(a.keys, p.pool)), "=", p.poolRev))
		}
	}
	if record != "" {
		text, digest := req.describe()
		rec := Record{V: format, Digest: digest, Request: text, Token: token, Caller: req.Caller, Key: req.Key, IDs: refsOf(picks), Epoch: epoch, Since: now, Write: shortToken()}
		c.cmps = append(c.cmps, clientv3.Compare(clientv3.CreateRevision(record), "=", 0))
		c.puts = append(c.puts, put{key: record, value: cluster.Encode(rec)})
		c.gets = append(c.gets, record)
	}
	return c, held
}

func refsOf(picks []picked) []Ref {
	refs := make([]Ref, len(picks))
	for i, p := range picks {
		refs[i] = p.ref
	}
	return refs
}

// suspects looks at each candidate cheaply and writes down those found in use
// although nobody was granted them.
func (a *Allocator) suspects(ctx context.Context, picks []picked) (bool, error) {
	found := false
	for _, p := range picks {
		if p.ref.vlan() {
			continue
		}
		for i := range min(p.policy.Block, manySuspects) {
			if a.prover.Suspect(p.ref.ID + i) {
				found = true
				if err := a.foreign(ctx, p.ref, p.pool, p.policy.Block); err != nil {
					return true, err
				}
				break
			}
		}
	}
	return found, nil
}

// handOut looks at what runs here, now that the ids are ours; only then is the
// grant answered. An id in use is written down as foreign and the group given
// back: nil then, and the request looks further.
func (a *Allocator) handOut(ctx context.Context, req GrantRequest, picks []picked, g *Grant) (*Grant, error) {
	age := time.Minute
	for _, p := range picks {
		if !p.ref.vlan() {
			age = min(age, p.policy.ScanAge)
		}
	}
	var used idset.Set
	err := a.seam.Do("grant:scan", func() (err error) {
		used, err = a.prover.InUse(ctx, age)
		return err
	})
	if err != nil {
		a.addOrphan(orphan{refsOf(picks), g.Token, g.Requester})
		if ctx.Err() != nil {
			return nil, problem.Wrap(problem.CodeUnavailable, context.Cause(ctx), "no uid handed out; what was granted is given back")
		}
		return nil, problem.Wrap(problem.CodeNoProof, err, "no uid handed out: node %s cannot tell what is in use", a.id.Node)
	}
	var bad []Ref
	runs := a.runsBy(used)
	for _, p := range picks {
		if !p.ref.vlan() && runs(p.ref, p.policy.Block) {
			bad = append(bad, p.ref)
		}
	}
	if len(bad) == 0 {
		return g, nil
	}
	return nil, a.refuseRunning(ctx, orphan{refsOf(picks), g.Token, g.Requester}, bad)
}

// unknownGrant is the answer when etcd did not say whether the grant stands.
func (a *Allocator) unknownGrant(req GrantRequest, picks []picked, cause error) error {
	what := label(picks[0].ref)
	if len(picks) > 1 {
		what = fmt.Sprintf("%d ids", len(picks))
	}
	if req.Document != nil {
		return problem.New(problem.CodeOutcomeUnknown, "etcd did not say whether %s was granted for %s (%v)", what, req.Document.Name, cause).
			Note("its record says what stands: look, or send the same request again")
	}
	if req.Key == "" {
		e := problem.New(problem.CodeOutcomeUnknown, "etcd did not say whether %s was granted (%v)", what, cause)
		return e.Note("nothing is lost: the agent settles it and releases what was granted")
	}
	return problem.New(problem.CodeOutcomeUnknown, "etcd did not say whether %s was granted to key %s (%v)", what, req.Key, cause).
		Note("run the same command again with --key %s: it returns this grant or makes it, never two", req.Key)
}
