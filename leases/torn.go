package leases

import (
	"context"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/cluster"
)

// An etcd without space takes deletions alone. A release that frees at once deletes
// its claims then, and leaves their grant record as it is: torn. Its key answers
// that its grant is over, since no claim carries its token, and never can again: a
// grant is written only where it has no record yet. Once etcd takes writes again the
// elected reaper writes down in the record what is gone.

// spare is the plan of a release without what takes space; refused where that does
// not free what is to be released.
func (p *plan) spare() (*plan, error) {
	if slices.ContainsFunc(p.edits, func(e edit) bool { return e.after != nil }) {
		return nil, noSpace().Note("what only one node must prove unused, and it finds so, can be released meanwhile; this waits for others, or for its cooldown")
	}
	p.lean = true
	return p, nil
}

// missing lists what a live record has no claim of any more. A claim that cannot be
// read may be its own.
func (v *view) missing(key string) []Ref {
	r := v.records[key].Val
	if r == nil || r.Ended {
		return nil
	}
	var gone []Ref
	for _, ref := range r.IDs {
		taken := v.takenIn(ref.Space)
		if c := v.claims[ref].Val; (c == nil && !taken.Contains(ref.ID)) || (c != nil && c.Token != r.Token) {
			gone = append(gone, ref)
		}
	}
	return gone
}

// mendRecord takes out of a torn record what is gone; it has ended with the last. It
// compares the record alone: nothing puts a claim back under its token. One commit.
func (a *Allocator) mendRecord(ctx context.Context, key string) {
	ctx, cancel := a.budget(ctx)
	defer cancel()
	var gone []Ref
	var old Stored[Record]
	a.mirror.read(func(v *view) { gone, old = v.missing(key), v.records[key] })
	if len(gone) == 0 {
		return
	}
	r, now := old.Val, time.Now().UTC()
	for _, ref := range gone {
		r = r.without(ref, now)
	}
	r.V, r.Write = format, shortToken()
	res := a.submit(ctx, "mend", &child{
		cmps: []clientv3.Cmp{clientv3.Compare(clientv3.Value(key), "=", string(old.Raw))},
		puts: []put{{key: key, value: cluster.Encode(r)}},
		gets: []string{key},
	})
	if res.err == nil {
		a.reach(ctx, res.revision, time.Second)
	}
}
