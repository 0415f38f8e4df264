package robust

import (
	"context"
	"time"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/test/e2e/robust/rig"
)

// requester is a program on a node that asks for uids and runs processes.
type requester struct {
	*rig.Requester
	node *rig.Node
	boot int
	lost bool // it missed an answer
}

func newRequester(ctx context.Context, n *rig.Node) (*requester, error) {
	boot := n.Boot()
	q, err := n.Requester(ctx)
	if err != nil {
		return nil, err
	}
	return &requester{Requester: q, node: n, boot: boot}, nil
}

// usable tells whether it can be asked once more.
func (r *requester) usable() bool { return !r.lost && r.Alive() && r.node.Boot() == r.boot }

// leave lets it end by itself, after what it is at; its processes may outlive it.
func (r *requester) leave() { _ = r.Stdin.Close() }

func (r *requester) ask(ctx context.Context, a rig.Ask) (rig.Answer, error) {
	answer, err := r.Ask(ctx, a)
	if err != nil && answer.Problem == nil {
		r.lost = true
	}
	return answer, err
}

func hold(kind string, ttl time.Duration) api.Hold {
	if kind == api.HoldTTL {
		return api.Hold{Kind: kind, TTL: ttl.String()}
	}
	return api.Hold{Kind: kind}
}

func (r *requester) request(ctx context.Context, q want) (api.Grant, error) {
	a, err := r.ask(ctx, rig.Ask{Op: rig.AskRequest, Request: &api.UIDRequest{
		Pool: q.pool, Count: q.count, Key: q.key, Hold: hold(q.hold, q.ttl), Wait: q.wait,
	}})
	if err != nil {
		return api.Grant{}, err
	}
	return *a.Grant, nil
}

func (r *requester) join(ctx context.Context, uid uint32, token, kind string, ttl time.Duration) (api.UID, error) {
	h := hold(kind, ttl)
	a, err := r.ask(ctx, rig.Ask{Op: rig.AskJoin, UID: uid, Token: token, Hold: &h})
	if err != nil {
		return api.UID{}, err
	}
	return *a.UID, nil
}

func (r *requester) confirm(ctx context.Context, uid uint32, token, part string) error {
	_, err := r.ask(ctx, rig.Ask{Op: rig.AskConfirm, UID: uid, Token: token, Requester: part})
	return err
}

func (r *requester) renew(ctx context.Context, uid uint32, token, part string, ttl time.Duration) error {
	_, err := r.ask(ctx, rig.Ask{Op: rig.AskRenew, UID: uid, Token: token, Requester: part, For: ttl})
	return err
}

// start starts a process that outlives its requester for so long, and no longer.
func (r *requester) start(ctx context.Context, uid uint32, outlives time.Duration) (pid int, err error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	a, err := r.ask(ctx, rig.Ask{Op: rig.AskStart, UID: uid, For: outlives})
	return a.PID, err
}

// end ends a process; an error where it is not certain that it ran until then.
func (r *requester) end(ctx context.Context, pid int) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	_, err := r.ask(ctx, rig.Ask{Op: rig.AskEnd, PID: pid})
	return err
}
