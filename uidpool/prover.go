package uidpool

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/leases"
)

// Prover is the node's truth for the engine: what runs here, from /proc, and
// which requesters may still start something. Safe for concurrent use.
type Prover struct {
	reader  *Reader
	shared  *Shared
	cleaner Cleaner
	roots   string // of what is read for residue: "" but in tests

	mu        sync.Mutex // guards the fields below
	busy      map[sessionSince]leftOver
	connected map[string]int // requesters of a connection hold: how many each has
}

// sessionSince is a question that a walk over all processes answered with yes.
type sessionSince struct {
	session int
	since   uint64
	except  uint32
}

// leftOver is that yes: when, and which process it was, 0 if it was doubt.
type leftOver struct {
	at  time.Time
	pid int
}

// busyFor is how long such a yes is believed without another walk: it only makes
// a dead requester's hold end later.
const busyFor = time.Second

// NewProver returns a prover that reads through r.
func NewProver(r *Reader) *Prover {
	return &Prover{reader: r, shared: NewShared(r), busy: map[sessionSince]leftOver{}, connected: map[string]int{}}
}

// OnScan sets what is told of each scan: how long it took, how many tasks it read,
// and why it proves nothing, if so. Set it before the prover is used.
func (p *Prover) OnScan(f func(took time.Duration, tasks int, err error)) {
	scan := p.shared.scan
	p.shared.scan = func(ctx context.Context) (*Snapshot, error) {
		began := time.Now()
		s, err := scan(ctx)
		tasks := 0
		if s != nil {
			tasks = s.Tasks
		}
		f(time.Since(began), tasks, err)
		return s, err
	}
}

// CleanWith lets a cleaner remove what pools say is to be removed; without one
// nothing is. It must be called before the prover is used.
func (p *Prover) CleanWith(c Cleaner) { p.cleaner = c }

// InUse implements [leases.Prover] by one exact scan, shared by all who wait. The
// view of the node's processes is checked with every scan.
func (p *Prover) InUse(ctx context.Context, maxAge time.Duration) (idset.Set, error) {
	for try := 1; ; try++ {
		snap, err := p.shared.Fresh(ctx, maxAge)
		if err == nil {
			return snap.Used, nil
		}
		var moment unsteady
		if try == unsteadyTries || !errors.As(err, &moment) {
			return idset.Set{}, err
		}
		select { // a starved machine: the next moment may be better
		case <-time.After(time.Duration(try) * 50 * time.Millisecond):
		case <-ctx.Done():
			return idset.Set{}, err
		}
	}
}

// unsteadyTries is how often a scan is begun again that the moment spoiled, and
// not what the node is.
const unsteadyTries = 8

// View says why this node can prove nothing, nil if it can: see [Reader.View].
func (p *Prover) View() error { return p.reader.View() }

// Snapshot is the newest scan at most maxAge old, with the processes it saw.
func (p *Prover) Snapshot(ctx context.Context, maxAge time.Duration) (*Snapshot, error) {
	return p.shared.Fresh(ctx, maxAge)
}

// Suspect implements [leases.Prover] by getpriority.
func (p *Prover) Suspect(id uint32) bool {
	used, err := Quick(UID(id))
	return used && err == nil
}

// MayStart implements [leases.Prover]: a TTL hold until its deadline, a process
// hold while the process lives and then while something that was started in its
// session since the request lives that is not the uid yet (rule 2). A connection
// hold is the same, with the connection instead of the process.
func (p *Prover) MayStart(id uint32, r leases.Requester) bool {
	switch r.Hold {
	case leases.HoldTTL:
		return int64(leases.BootTime()) < r.Deadline
	case leases.HoldPID:
		ref := ProcessRef{PID: r.PID, Start: r.Start, PIDNS: r.PIDNS, Session: r.Session}
		if alive, _ := ref.Alive(); alive {
			return true
		}
		return p.leftBehind(id, ref, r.Since)
	case leases.HoldConn:
		if p.isConnected(r.ID) {
			return true
		}
		// The other end may have forked what is to become the uid.
		return r.PID != 0 && p.leftBehind(id, ProcessRef{PID: r.PID, Start: r.Start, PIDNS: r.PIDNS, Session: r.Session}, r.Since)
	}
	return false
}

// Connect says that a requester has a connection, until the function that it
// returns is called. It must be called before the requester is bound to a claim.
func (p *Prover) Connect(requester string) (disconnect func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.connected[requester]++
	return sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.connected[requester]--; p.connected[requester] == 0 {
			delete(p.connected, requester)
		}
	})
}

func (p *Prover) isConnected(requester string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.connected[requester] > 0
}

// Alive implements [leases.Prover].
func (p *Prover) Alive(r leases.Requester) bool {
	alive, err := ProcessRef{PID: r.PID, Start: r.Start, PIDNS: r.PIDNS, Session: r.Session}.Alive()
	return alive || err != nil
}

func (p *Prover) leftBehind(id uint32, ref ProcessRef, since uint64) bool {
	q := sessionSince{ref.Session, since, id}
	p.mu.Lock()
	was, known := p.busy[q]
	p.mu.Unlock()
	if known && time.Since(was.at) < busyFor {
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), busyFor)
	defer cancel()
	pid, err := p.reader.sessionYounger(ctx, ref, since, UID(id))
	p.mu.Lock()
	defer p.mu.Unlock()
	if pid != 0 || err != nil {
		p.busy[q] = leftOver{time.Now(), pid}
		return true
	}
	delete(p.busy, q)
	return false
}

// Lingers is the process for whose sake [Prover.MayStart] last said that a requester
// may start something though it is gone itself: 0 if there is none, or it has not been
// asked for seconds. It asks nothing by itself.
func (p *Prover) Lingers(id uint32, r leases.Requester) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	was := p.busy[sessionSince{r.Session, r.Since, id}]
	if time.Since(was.at) > lingersFor {
		return 0
	}
	return was.pid
}

// lingersFor is how long an answer of Lingers stands: some steps of the engine's.
const lingersFor = 5 * time.Second

// Who lists processes that a recent scan saw under a uid, at most [MaxHolders].
func (p *Prover) Who(ctx context.Context, uid UID, maxAge time.Duration) []Process {
	snap, err := p.shared.Fresh(ctx, maxAge)
	if err != nil {
		return nil
	}
	return snap.Who[uint32(uid)]
}
