package robust

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/idpool/idpool/test/e2e/robust/judge"
	"github.com/idpool/idpool/test/e2e/robust/record"
	"github.com/idpool/idpool/test/e2e/robust/rig"
)

// Options say what a run is. Bin is required; the zero value of the rest is the
// default named.
type Options struct {
	// Seed decides which faults come, what they hit and what clients do.
	Seed int64
	// For is how long there are traffic and faults; 0 is a minute.
	For time.Duration
	// Bin has what [rig.Build] built.
	Bin string
	// Scratch is where the run keeps its files, sockets too: a short path. Made and
	// removed by the run; "" is below the system's directory for them.
	Scratch string
	// Logs, if not "", is where the cluster's logs are kept if a promise was broken.
	Logs string
	// Commit names what is tested, for the result.
	Commit string
	// Only restricts the faults to those named; empty is all that can be had.
	Only []string
	// Lasts bounds how long a fault lasts: 1 s to Lasts; 0 is 8 s. Between bounds the
	// pause from one to the next: half of it to Between; 0 is 4 s.
	Lasts, Between time.Duration
	// Log is told what happens; nil is nobody.
	Log io.Writer
	// Limits are what must have happened; nil is the judge's default.
	Limits *judge.Limits
	// Audit, if not nil, looks at the running cluster for as long as there is traffic.
	Audit func(context.Context, *rig.Rig) error
}

// quietLimit bounds how long the cluster may take to end what clients left behind:
// the longest hold that they ask for, and some of the agents' own time.
const quietLimit = 90 * time.Second

// after is how long traffic goes on undisturbed at the end.
const after = 4 * time.Second

func (o *Options) defaults() {
	if o.For == 0 {
		o.For = time.Minute
	}
	if o.Lasts == 0 {
		o.Lasts = 8 * time.Second
	}
	if o.Between == 0 {
		o.Between = 4 * time.Second
	}
	if o.Log == nil {
		o.Log = io.Discard
	}
	o.Log = &lines{to: o.Log}
	if o.Limits == nil {
		l := judge.DefaultLimits()
		o.Limits = &l
	}
}

// world is a run under way.
type world struct {
	o       Options
	rig     *rig.Rig
	journal *journal
	history *history
	base    uint32 // the first uid that is this run's
}

func (w *world) now() time.Duration { return w.rig.Now() }

func (w *world) logf(format string, args ...any) {
	fmt.Fprintf(w.o.Log, "%9.3fs %s\n", w.now().Seconds(), fmt.Sprintf(format, args...))
}

// pause waits; an error means that ctx ended first.
func (w *world) pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Run runs a cluster, disturbs it and judges what was recorded. With an error there
// is no verdict: the cluster did not start, or did not come back after a fault, and
// the record ends there. Broken promises are no error but in the verdict.
func Run(ctx context.Context, o Options) (*record.Run, *judge.Verdict, error) {
	o.defaults()
	if o.Scratch == "" {
		dir, err := os.MkdirTemp("", "idprob")
		if err != nil {
			return nil, nil, err
		}
		defer os.RemoveAll(dir)
		o.Scratch = dir
	}
	run := &record.Run{Seed: o.Seed, Commit: o.Commit, Started: time.Now().UTC(), Only: o.Only}
	if err := live(ctx, o, run); err != nil {
		keepLogs(o)
		return run, nil, err
	}
	v := o.Limits.Judge(run)
	if len(v.Violations) > 0 {
		keepLogs(o)
	}
	return run, v, nil
}

// live fills the run.
func live(ctx context.Context, o Options, run *record.Run) error {
	r, err := rig.Start(ctx, rig.Options{Dir: o.Scratch, Bin: o.Bin, Members: 3, Nodes: 3, LeaseTTL: 4 * time.Second, Log: o.Log})
	if err != nil {
		return fmt.Errorf("start the cluster: %w", err)
	}
	defer func() { _ = r.Close() }()
	db, err := r.Client(ctx)
	if err != nil {
		return fmt.Errorf("connect to etcd: %w", err)
	}
	defer func() { _ = db.Close() }()
	w := &world{o: o, rig: r, journal: newJournal(r.Now), history: newHistory(db, r.Now), base: ownUIDs()}
	r.SetCompactLimit(w.history.seen)
	r.SetWitness(w.history)

	watching, stop := context.WithCancel(ctx)
	defer stop()
	g, gctx := errgroup.WithContext(watching)
	g.Go(func() error { return w.history.Run(gctx) })
	g.Go(func() error {
		defer stop()
		return w.play(gctx, run)
	})
	err = g.Wait()
	run.Changes, run.Cuts = w.history.changes, w.history.cuts
	w.journal.into(run)
	return err
}

// play is the run itself: traffic under faults, an end to both, and quiet.
func (w *world) play(ctx context.Context, run *record.Run) error {
	if err := w.define(ctx); err != nil {
		return fmt.Errorf("define the pools: %w", err)
	}
	clients := w.cast()
	g, gctx := errgroup.WithContext(ctx)
	traffic, stop := context.WithCancel(gctx)
	defer stop()
	for _, a := range clients {
		g.Go(func() error {
			for traffic.Err() == nil {
				a.act(gctx, traffic)
			}
			return nil
		})
	}
	g.Go(func() error { // traffic goes on for a while after the last fault is healed
		defer stop()
		faulty, done := context.WithTimeout(gctx, w.o.For-after)
		defer done()
		if err := w.disturb(gctx, faulty); err != nil {
			return err
		}
		_ = w.pause(gctx, after)
		return nil
	})
	if w.o.Audit != nil {
		g.Go(func() error {
			err := w.o.Audit(traffic, w.rig)
			if traffic.Err() != nil {
				return nil
			}
			return err
		})
	}
	g.Go(func() error { return w.tell(traffic) })
	if err := g.Wait(); err != nil {
		return err
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	w.mend(ctx, clients)
	run.Quiet = w.now()
	return w.settle(ctx, run)
}

// tell writes a line of progress now and then.
func (w *world) tell(traffic context.Context) error {
	for w.pause(traffic, 10*time.Second) == nil {
		ok, refused, unknown, faults := w.journal.summary()
		w.logf("%d calls ok, %d refused, %d unknown; %d faults; history to revision %d", ok, refused, unknown, faults, w.history.seen())
	}
	return nil
}

// mend lets every client end what it could not end while things were disturbed.
func (w *world) mend(ctx context.Context, clients []*actor) {
	var wg sync.WaitGroup
	for _, a := range clients {
		wg.Go(func() { a.end(ctx) })
	}
	wg.Wait()
}

// settle waits until nothing is left in etcd, for as long as that may take, and
// writes down what is.
func (w *world) settle(ctx context.Context, run *record.Run) error {
	within, cancel := context.WithTimeout(ctx, quietLimit)
	defer cancel()
	var at int64
	for {
		left, rev, err := w.history.left(within)
		if err == nil {
			run.Left, at = left, rev
		}
		if (err == nil && len(left) == 0) || w.pause(within, 500*time.Millisecond) != nil {
			break
		}
	}
	if run.Left == nil {
		return errors.New("etcd did not say what is left")
	}
	w.logf("quiet: %d keys are left below claims/ and locks/", len(run.Left))
	reach, done := context.WithTimeout(ctx, time.Minute)
	defer done()
	return w.history.Reach(reach, at)
}

// keepLogs copies what the cluster wrote.
func keepLogs(o Options) {
	if o.Logs == "" || os.MkdirAll(o.Logs, 0o755) != nil {
		return
	}
	_ = filepath.WalkDir(o.Scratch, func(path string, d fs.DirEntry, err error) error {
		name, _ := filepath.Rel(o.Scratch, path)
		if err != nil || !d.Type().IsRegular() || (d.Name() != "log" && filepath.Ext(name) != ".log") {
			return nil
		}
		if raw, err := os.ReadFile(path); err == nil {
			_ = os.WriteFile(filepath.Join(o.Logs, strings.ReplaceAll(name, string(filepath.Separator), "-")), raw, 0o644)
		}
		return nil
	})
}

// lines is a log that several write to.
type lines struct {
	mu sync.Mutex // held while one writes
	to io.Writer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.to.Write(p)
}
