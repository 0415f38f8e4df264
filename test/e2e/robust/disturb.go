package robust

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/idpool/idpool/test/e2e/robust/fault"
)

const (
	// healLimit bounds how long the cluster may need to work again.
	healLimit = 90 * time.Second
	// overlap is how often, in percent, a second fault comes on top.
	overlap = 20
)

// faults are those of the run, in an order of the seed's.
func (w *world) faults(rnd *rand.Rand) []fault.Fault {
	var all []fault.Fault
	for _, f := range fault.All() {
		if len(w.o.Only) > 0 && !slices.Contains(w.o.Only, f.Name) {
			continue
		}
		if err := f.Available(w.rig); err != nil {
			w.logf("fault %s cannot be had: %v", f.Name, err)
			continue
		}
		all = append(all, f)
	}
	rnd.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

// disturb lets one fault follow another, mostly one at a time, until faulty ends;
// then it heals what is left. An error means that the cluster did not come back.
func (w *world) disturb(ctx, faulty context.Context) error {
	rnd := rand.New(rand.NewPCG(uint64(w.o.Seed), 1))
	faults := w.faults(rnd)
	if len(faults) == 0 {
		w.logf("no fault can be had: this will be a vacuous run")
		<-faulty.Done()
		return nil
	}
	for i := 0; ; {
		// Every number is drawn whether it is used or not: how long things take must
		// not decide what comes next.
		gap := w.o.Between/2 + time.Duration(rnd.Int64N(int64(w.o.Between/2)+1))
		two := rnd.IntN(100) < overlap
		streams := []uint64{rnd.Uint64(), rnd.Uint64()}
		if w.pause(faulty, gap) != nil {
			return nil
		}
		pair := []fault.Fault{faults[i%len(faults)]}
		if two && len(faults) > 1 {
			pair = append(pair, faults[(i+1)%len(faults)])
		}
		i += len(pair)
		g, gctx := errgroup.WithContext(ctx)
		for n, f := range pair {
			g.Go(func() error { return w.inflict(gctx, faulty, f, streams[n]) })
		}
		if err := g.Wait(); err != nil {
			return err
		}
	}
}

// inflict injects one fault, lets it last and heals it.
func (w *world) inflict(ctx, faulty context.Context, f fault.Fault, stream uint64) error {
	rnd := rand.New(rand.NewPCG(uint64(w.o.Seed), stream))
	lasts := time.Second + time.Duration(rnd.Int64N(int64(w.o.Lasts-time.Second)+1))
	boots := map[string]int{}
	for _, n := range w.rig.Nodes() {
		boots[n.Name()] = n.Boot()
	}
	entry := w.journal.fault(f.Name)
	w.logf("fault %s", f.Name)
	detail, heal, err := f.Inject(ctx, w.rig, rnd)
	if err != nil {
		w.logf("fault %s: not injected: %v", f.Name, err)
		w.journal.healed(entry, detail, err, nil)
		return context.Cause(ctx)
	}
	w.logf("fault %s: %s, for %s", f.Name, detail, lasts.Round(time.Millisecond))
	_ = w.pause(faulty, lasts)
	within, cancel := context.WithTimeout(ctx, healLimit)
	err = heal(within)
	cancel()
	var again []string
	for _, n := range w.rig.Nodes() {
		if n.Boot() != boots[n.Name()] {
			again = append(again, n.Name())
		}
	}
	w.journal.healed(entry, detail, err, again)
	if err != nil {
		return fmt.Errorf("fault %s (%s): %w", f.Name, detail, err)
	}
	w.logf("fault %s: healed", f.Name)
	return nil
}
