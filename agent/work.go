package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sync/errgroup"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/cluster/embed"
	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/uidpool"
	"github.com/idpool/idpool/vlan"
)

// embedTimeout bounds the start of the embedded server.
const embedTimeout = time.Minute

// work runs etcd, if it is embedded, and the engine on it, until ctx ends.
func (a *Agent) work(ctx context.Context) error {
	if !a.cfg.Embedded {
		return a.engines(ctx, a.cfg.cluster(a.cfg.Endpoints, a.cfg.TLS))
	}
	start, cancel := context.WithTimeout(ctx, embedTimeout)
	defer cancel()
	// A server that is told to stop reports its closed listeners as errors.
	var stopping atomic.Bool
	s, err := embed.Start(start, a.cfg.embed(), a.log.WithOptions(zap.WrapCore(func(c zapcore.Core) zapcore.Core { return unless{c, &stopping} })))
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	a.mu.Lock()
	a.endpoints = s.Endpoints()
	a.mu.Unlock()
	a.log.Info("embedded etcd serves", zap.Strings("endpoints", s.Endpoints()))
	g, inner := errgroup.WithContext(ctx)
	stop := make(chan struct{})
	g.Go(func() error {
		defer close(stop)
		return a.engines(inner, a.cfg.cluster(s.Endpoints()[:1], cluster.TLSConfig{}))
	})
	g.Go(func() error {
		select {
		case <-s.Done():
			return problem.Wrap(problem.CodeUnavailable, orEnded(s.Err()), "embedded etcd")
		case <-stop:
			return nil
		}
	})
	err = g.Wait()
	stopping.Store(true)
	return errors.Join(err, s.Close())
}

// unless logs nothing once its flag is set.
type unless struct {
	zapcore.Core
	quiet *atomic.Bool
}

func (u unless) With(fields []zapcore.Field) zapcore.Core {
	return unless{u.Core.With(fields), u.quiet}
}

func (u unless) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if u.quiet.Load() {
		return ce
	}
	return u.Core.Check(e, ce)
}

func orEnded(err error) error {
	if err == nil {
		return errors.New("it has ended")
	}
	return err
}

// engines runs one engine after the other until ctx ends or a person is needed:
// what etcd cannot do now, or refuses because it was restored, may pass.
func (a *Agent) engines(ctx context.Context, cfg cluster.Config) error {
	id, home, prover, err := a.identity()
	if err != nil {
		return err
	}
	journal, err := leases.OpenJournal(a.cfg.Data, a.cfg.Seam)
	if err != nil {
		return err
	}
	defer journal.Close()
	cfg.Audit = leases.Auditor(home, journal)
	var wait cluster.Backoff
	for {
		began := time.Now()
		err := a.engine(ctx, cfg, id, home, journal, prover)
		switch code := problem.CodeOf(err); {
		case a.leaving.Load():
			return nil
		case ctx.Err() != nil:
			return nil
		case code != problem.CodeUnavailable && code != problem.CodeOutcomeUnknown && code != problem.CodeFrozen:
			return err
		}
		if a.unset(err) {
			a.log.Warn("node does not serve yet", zap.String("node", a.cfg.Node), zap.Error(err))
		}
		if time.Since(began) > time.Minute {
			wait = cluster.Backoff{}
		}
		if wait.Wait(ctx) != nil {
			return nil
		}
	}
}

// hostPIDNamespace is the inode of the machine's own pid namespace.
const hostPIDNamespace = 4026531836

// identity is who this agent is, from the machine and its data directory.
func (a *Agent) identity() (leases.Identity, *leases.Home, *uidpool.Prover, error) {
	none := leases.Identity{}
	boot, err := uidpool.BootID()
	if err != nil {
		return none, nil, nil, err
	}
	machine, err := machineID(uidpool.MachineID, a.cfg.Data, a.cfg.Seam, a.log)
	if err != nil {
		return none, nil, nil, err
	}
	pidns, err := uidpool.PIDNamespace()
	if err != nil {
		return none, nil, nil, err
	}
	if a.cfg.AcceptPIDNamespace && pidns != hostPIDNamespace {
		// A container is the node, and its pid namespace its boot: no process
		// outlives it.
		boot = fmt.Sprintf("%s.%d", boot, pidns)
	}
	reader, err := uidpool.NewReader(uidpool.ReaderOptions{Root: a.cfg.ProcRoot, AcceptPIDNamespace: a.cfg.AcceptPIDNamespace})
	if err != nil {
		return none, nil, nil, err
	}
	prover := uidpool.NewProver(reader)
	prover.OnScan(a.metrics.Scanned)
	home, err := leases.OpenHome(a.cfg.Data, a.cfg.Seam)
	if err != nil {
		return none, nil, nil, err
	}
	host, _ := os.Hostname()
	prover.CleanWith(cleaner{seam: a.cfg.Seam, log: a.log})
	return leases.Identity{
		Node: a.cfg.Node, Role: a.cfg.Role, Machine: machine, Boot: boot, PIDNS: pidns,
		Version: a.cfg.Version, PID: a.pid, Address: host + ":" + a.cfg.Socket,
	}, home, prover, nil
}

// engine reaches etcd and runs one engine until it ends.
func (a *Agent) engine(ctx context.Context, cfg cluster.Config, id leases.Identity, home *leases.Home, journal *leases.Journal, prover *uidpool.Prover) (err error) {
	client, err := cluster.Open(ctx, cfg, a.log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	if err := leases.Audit(ctx, client, home, journal, a.cfg.Node, a.log); err != nil {
		return err
	}
	if err := a.meta(ctx, client, home); err != nil {
		return err
	}
	e := leases.New(leases.Options{Client: client, Identity: id, Home: home, Journal: journal, Prover: &sayingProver{Prover: prover, log: a.log, node: a.cfg.Node}, Log: a.log, ScanEvery: a.now.Load().scanEvery, Hooks: a.metrics.Hooks(), Also: a.events.on(client.Keys()), Seam: a.cfg.Seam})
	c := &core{client, e, uidpool.NewAllocator(e, prover), prover, vlan.NewAllocator(vlan.Options{Engine: e, Log: a.log, Compensated: a.metrics.Compensated})}
	a.set(c)
	e.SetScanEvery(a.now.Load().scanEvery) // a reload may have come in between
	ended := make(chan struct{})
	run, stop := context.WithCancel(ctx)
	defer stop()
	var g errgroup.Group
	g.Go(func() error {
		defer close(ended)
		defer stop() // services end with the engine they stand on
		err := e.Run(run)
		a.drop(err)
		return err
	})
	g.Go(func() error {
		defer stop()
		return c.vlans.Run(run)
	})
	g.Go(func() error {
		select {
		case <-e.Ready():
			a.log.Info("node serves", zap.String("node", a.cfg.Node), zap.String("socket", a.cfg.Socket))
			a.serves()
		case <-ended:
		}
		return nil
	})
	return g.Wait()
}

// meta makes the cluster's first record where there is none. Where this node
// remembers one the audit has refused already.
func (a *Agent) meta(ctx context.Context, client *cluster.Client, home *leases.Home) error {
	first := client.EnsureMeta
	if home.Epoch() != "" {
		first = client.ReadMeta
	}
	_, _, err := first(ctx)
	if problem.CodeOf(err) == problem.CodeInvalid {
		return leases.Unread(client.Keys().Meta(), err)
	}
	return err
}
