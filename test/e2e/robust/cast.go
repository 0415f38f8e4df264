package robust

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/test/e2e/robust/record"
)

// The pools of a run: small enough to run out now and then, big enough for most
// requests to succeed. What nobody gives back is reclaimed within seconds, so that
// nothing is left at the end.
const (
	poolJobs  = "jobs"  // single uids
	poolRanks = "ranks" // several uids a grant, with a cooldown
	poolMixed = "mixed" // for allocations
	north     = "north"
	south     = "south"
	fabric    = "fabric" // for allocations
)

// Places of the pools in the run's own uids; jobs may grow up to ranks.
const (
	jobsSize, jobsMost   = 14, 24
	ranksFirst, ranksEnd = 100, 111
	mixedFirst, mixedEnd = 200, 207
)

// ownUIDs is the first of a thousand uids that no other run on this kernel uses.
func ownUIDs() uint32 { return 1_300_000_000 + uint32(os.Getpid()%1_000_000)*1000 }

func (w *world) uids(first, last uint32) string {
	return fmt.Sprintf("%d-%d", w.base+first, w.base+last)
}

// define makes the pools, through the first agent.
func (w *world) define(ctx context.Context) error {
	at := w.rig.Nodes()[0].API()
	for _, p := range []api.Pool{
		{Name: poolJobs, Ranges: w.uids(0, jobsSize-1), PoolPolicy: api.PoolPolicy{Reclaim: "after=2s"}},
		{Name: poolRanks, Ranges: w.uids(ranksFirst, ranksEnd), PoolPolicy: api.PoolPolicy{Reclaim: "after=2s", Order: "rotate", Cooldown: "1s"}},
		{Name: poolMixed, Ranges: w.uids(mixedFirst, mixedEnd), PoolPolicy: api.PoolPolicy{Order: "lowest"}},
	} {
		if _, err := at.Pools().Put(ctx, p, api.WriteOptions{}); err != nil {
			return err
		}
	}
	for name, i := range map[string]api.Inventory{
		north:  {Ranges: "100-105", InventoryPolicy: api.InventoryPolicy{Cooldown: "1s"}},
		south:  {Ranges: "300-305", InventoryPolicy: api.InventoryPolicy{Cooldown: "0s", Order: "random"}},
		fabric: {Ranges: "500-507", InventoryPolicy: api.InventoryPolicy{Cooldown: "0s"}},
	} {
		i.Name = name
		if _, err := at.Inventories().Put(ctx, i, api.WriteOptions{}); err != nil {
			return err
		}
	}
	return nil
}

// actor is a client with what it does again and again.
type actor struct {
	*client
	// act is one life of whatever the client deals with: calls under ctx, nothing new
	// once traffic ended.
	act func(ctx, traffic context.Context)
	// gone ends what the client still has.
	gone func()
}

// end lets the client make up for what it could not do. Twice: what was under way
// without an answer may have come after the first.
func (a *actor) end(ctx context.Context) {
	for range 2 {
		for _, name := range slices.Sorted(maps.Keys(a.mend)) {
			_ = a.mend[name].end(ctx)
		}
		if len(a.mend) > 0 && a.w.pause(ctx, 2*time.Second) != nil {
			break
		}
	}
	if a.gone != nil {
		a.gone()
	}
}

// cast makes the clients of the run, each with random numbers of its own.
func (w *world) cast() []*actor {
	var all []*actor
	stream := uint64(100)
	add := func(name string, count int, of func(*client) *actor) {
		for i := range count {
			stream++
			all = append(all, of(w.client(fmt.Sprintf("%s%d", name, i+1), stream)))
		}
	}
	add("job", 5, newJobs)
	add("ranks", 1, newRanks)
	add("service", 3, newServices)
	add("mixed", 2, newMixed)
	add("operator", 1, newOperator)
	add("reader", 1, newReader)
	return all
}

// newReader reads all the time, which must disturb nobody.
func newReader(c *client) *actor {
	return &actor{client: c, act: func(ctx, traffic context.Context) {
		at := c.node()
		what := c.rnd.IntN(6)
		_ = c.call(ctx, record.Op{Kind: record.Look, Node: at.Name()}, func(ctx context.Context, op *record.Op) error {
			var err error
			switch what {
			case 0:
				for _, err = range at.API().UIDs().List(ctx, api.UIDFilter{}) {
					if err != nil {
						break
					}
				}
			case 1:
				_, err = at.API().Pools().List(ctx)
			case 2:
				for _, err = range at.API().Services().List(ctx, api.ServiceFilter{}) {
					if err != nil {
						break
					}
				}
			case 3:
				_, err = at.API().Check(ctx)
			case 4:
				_, err = at.API().UIDs().Get(ctx, c.w.base)
			case 5:
				_, err = at.API().Status(ctx)
			}
			return err
		})
		_ = c.w.pause(traffic, c.between(150, 450))
	}}
}

// newOperator changes pools under the traffic: they grow, shrink and exclude what
// may be held.
func newOperator(c *client) *actor {
	change := func(ctx context.Context, pool string, p api.PoolPatch) {
		at := c.node()
		_ = c.settled(ctx, func() error {
			return c.call(ctx, record.Op{Kind: record.ChangePool, Node: at.Name(), Target: pool}, func(ctx context.Context, _ *record.Op) error {
				_, err := at.API().Pools().Patch(ctx, pool, p, api.WriteOptions{})
				return err
			})
		})
	}
	text := func(s string) *string { return &s }
	return &actor{client: c, act: func(ctx, traffic context.Context) {
		switch c.rnd.IntN(4) {
		case 0:
			change(ctx, poolJobs, api.PoolPatch{Ranges: text(c.w.uids(0, jobsMost-1))})
		case 1:
			change(ctx, poolJobs, api.PoolPatch{Ranges: text(c.w.uids(0, jobsSize/2))})
		case 2:
			change(ctx, poolJobs, api.PoolPatch{Exclude: text(c.w.uids(2, 4))})
		case 3:
			change(ctx, poolRanks, api.PoolPatch{Ranges: text(c.w.uids(ranksFirst, ranksEnd-uint32(c.rnd.IntN(4))))})
		}
		_ = c.w.pause(traffic, c.between(700, 2500))
		change(ctx, poolJobs, api.PoolPatch{Ranges: text(c.w.uids(0, jobsSize-1)), Exclude: text("")})
		_ = c.w.pause(traffic, c.between(700, 2500))
	}}
}
