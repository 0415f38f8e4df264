package leases

import (
	"cmp"
	"context"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/problem"
)

// maxRepairs bounds what one plan has.
const maxRepairs = 1000

// Repair is a write that mends what nothing rests on: the deletion of a key,
// while it and what makes it superfluous stand as they were found.
type Repair struct {
	Key string
	// Revision is the key's mod revision, and Beside that of the claim which
	// belongs to it: 0 while there must be none, -1 where it does not matter.
	Revision, Beside int64
	claim            string
	Why              string
}

// needless are the kinds of records that, unreadable, nobody needs: they are written
// anew, or what they hint at decides.
var needless = map[cluster.Kind]string{
	cluster.KindUnknown: "no key of idpool",
	cluster.KindLock:    "a lock that cannot be read; the claim beside it decides",
	cluster.KindProof:   "a report that cannot be read; its node writes the next one",
}

// Repairs lists by key what [Allocator.Repair] can mend now, at most a thousand.
// One round trip and one for each record that cannot be read; no commit.
func (a *Allocator) Repairs(ctx context.Context) ([]Repair, error) {
	if err := a.Sync(ctx); err != nil {
		return nil, err
	}
	var all []Repair
	a.mirror.read(func(v *view) {
		for _, f := range a.lockFindings(v) {
			key, err := a.keys.Parse(f.Key)
			if err != nil || v.unreadable[f.Key] != nil {
				continue
			}
			ref := Ref{key.Space, key.ID}
			all = append(all, Repair{Key: f.Key, Revision: v.locks[ref].modRev, Beside: v.claims[ref].ModRev, claim: a.keys.Claim(ref.Space, ref.ID), Why: f.Detail})
		}
	})
	for _, u := range a.Unreadable() {
		why, ok := needless[u.Kind]
		if !ok || len(all) >= maxRepairs {
			continue
		}
		resp, err := a.client.Read(ctx, clientv3.OpGet(u.Key))
		if err != nil {
			return nil, err
		}
		if kvs := resp.Responses[0].GetResponseRange().GetKvs(); len(kvs) == 1 {
			all = append(all, Repair{Key: u.Key, Revision: kvs[0].ModRevision, Beside: -1, Why: why})
		}
	}
	slices.SortFunc(all, func(x, y Repair) int { return cmp.Compare(x.Key, y.Key) })
	return all[:min(len(all), maxRepairs)], nil
}

// Repair does one of [Allocator.Repairs]; a [problem.CodePrecondition] tells that
// what it rests on has changed, and nothing was done. One round trip, one commit.
func (a *Allocator) Repair(ctx context.Context, r Repair) error {
	ctx, cancel := a.budget(ctx)
	defer cancel()
	c := &child{alone: true, puts: []put{{key: r.Key}}, gets: []string{r.Key}}
	c.cmps = []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(r.Key), "=", r.Revision)}
	if r.Beside >= 0 {
		c.cmps = append(c.cmps, clientv3.Compare(clientv3.ModRevision(r.claim), "=", r.Beside))
	}
	res := a.submit(ctx, "repair", c)
	if res.err != nil {
		return res.err
	}
	_, stands := res.found[r.Key]
	if !res.applied && stands {
		return problem.New(problem.CodePrecondition, "%s not repaired: it has changed since the plan was made", r.Key).Advise("make a new plan", "poolctl check --repair")
	}
	a.reach(ctx, res.revision, time.Second)
	return nil
}
