package agent

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/uidpool"
)

// sayingProver says in the log when the node begins or ceases to be unable to
// prove anything: once each, however often it scans.
type sayingProver struct {
	*uidpool.Prover
	log  *zap.Logger
	node string

	mu   sync.Mutex // guards the field below
	said string
}

// InUse implements [leases.Prover].
func (p *sayingProver) InUse(ctx context.Context, maxAge time.Duration) (idset.Set, error) {
	used, err := p.Prover.InUse(ctx, maxAge)
	why := ""
	if err != nil {
		if ctx.Err() != nil || !errors.Is(err, problem.ErrNoProof) {
			return used, err
		}
		why = err.Error()
	}
	p.mu.Lock()
	before := p.said
	p.said = why
	p.mu.Unlock()
	switch {
	case why == before:
	case why == "":
		p.log.Info("node can prove uids unused again", zap.String("node", p.node))
	default:
		p.log.Error("node cannot prove any uid unused; grants on it are refused", zap.String("node", p.node), zap.Error(err))
	}
	return used, err
}

// explained gives a refusal for want of proof what the engine does not know: how
// to mend it. done is what the node did not do with the uid.
func (c *core) explained(done string, err error) error {
	var lacks *problem.Error
	if problem.CodeOf(err) != problem.CodeNoProof || !errors.As(c.prover.View(), &lacks) {
		return err
	}
	e := *lacks
	e.Detail = "no uid " + done + ": node " + c.engine.Node() + " " + lacks.Detail + "; " + nothingDone
	return &e
}

// noProof is why the node can prove nothing, with the fix if that is known.
func (c *core) noProof(why string) string {
	var lacks *problem.Error
	if why == "" || !errors.As(c.prover.View(), &lacks) {
		return why
	}
	return strings.Join(append([]string{lacks.Detail}, lacks.Notes...), "; ")
}
