package agent

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/problem"
)

const (
	// recent is how old a scan may be that says whether a uid runs.
	recent = 5 * time.Second
	// newer is how old when it contradicts the kernel's quick answer.
	newer = time.Second
)

// uses tells which uids run on this node, from the kernel's quick answer and a
// recent scan. Make one for each answer.
type uses struct {
	c             *core
	seen, again   idset.Set
	known, looked bool
}

func (c *core) uses(ctx context.Context) *uses {
	u := &uses{c: c}
	if snap, err := c.prover.Snapshot(ctx, recent); err == nil {
		u.seen, u.known = snap.Used, true
	}
	return u
}

// runs tells whether anything runs here under one of count ids. Where it cannot
// be told the quick answer stands: this is for people, nothing is decided on it.
func (u *uses) runs(ctx context.Context, ref leases.Ref, count uint32) bool {
	if node, scoped := ref.Space.Node(); scoped && node != u.c.engine.Node() {
		return false // the number is another's here
	}
	id := ref.ID
	for i := range min(count, 64) {
		if u.c.prover.Suspect(id + i) {
			return true
		}
	}
	block := idset.Of(idset.Range{Lower: id, Higher: id + max(count, 1) - 1})
	if !u.known || u.seen.Intersect(block).IsEmpty() {
		return false
	}
	if !u.looked {
		u.looked = true
		if snap, err := u.c.prover.Snapshot(ctx, newer); err == nil {
			u.again = snap.Used
		} else {
			u.again = u.seen
		}
	}
	return !u.again.Intersect(block).IsEmpty()
}

// uidView shows an id as who may see it.
func (c *core) uidView(ctx context.Context, who caller, u *uses, info leases.ClaimInfo) api.UID {
	claim := info.Claim
	if claim == nil {
		return c.freeView(ctx, u, info)
	}
	v := api.UID{
		UID: info.ID, GID: info.ID, Count: claim.Count, Pool: claim.Pool, State: claim.State.String(), Nodes: claim.NodeNames(),
		Caller: claim.Caller, Holder: claim.Holder, Key: claim.Key, Hold: holdView(claim, c.engine.Node(), ""),
		GrantedAt: when(claim.GrantedAt), StateSince: when(claim.Since), Running: u.runs(ctx, info.Ref, claim.Count),
		InPool: inPool(info), ConfirmedInEtcd: info.InEtcd, Keep: claim.Kept(),
		Reason: claim.Reason, ReasonCode: claim.ReasonCode, WaitsFor: waitsView(info.WaitsFor), NotBefore: info.NotBefore, Revision: info.ModRev,
	}
	for _, w := range info.WaitsFor {
		if left := w.Residue(); left != "" {
			v.ReasonCode = leases.ReasonResidue
			v.Reason = strings.TrimPrefix(v.Reason+"; left behind on "+w.Node+": "+left, "; ")
		}
	}
	if why := c.lingers(info); why != "" {
		v.Reason = strings.TrimPrefix(v.Reason+"; "+why, "; ")
		v.ReasonCode = cmp.Or(v.ReasonCode, reasonSession)
	}
	if who.operator || who.name == claim.Caller {
		v.Token = claim.Token
	}
	return v
}

// reasonSession says that a requester is gone and something of its session is not.
const reasonSession = "session"

// lingers says what on this node may become a uid still, whose requester is gone: the
// rest of the requester's session.
func (c *core) lingers(info leases.ClaimInfo) string {
	p := info.Claim.On(c.engine.Node())
	if p == nil || (info.Claim.State != leases.Locked && info.Claim.State != leases.Quarantined) {
		return ""
	}
	for _, r := range p.Requesters {
		if pid := c.prover.Lingers(info.ID, r); pid != 0 {
			return fmt.Sprintf("its requester (pid %d) is gone, but process %d, begun in the same session since, may become this uid yet", r.PID, pid)
		}
	}
	return ""
}

func (c *core) freeView(ctx context.Context, u *uses, info leases.ClaimInfo) api.UID {
	v := api.UID{
		UID: info.ID, GID: info.ID, Count: 1, State: api.StateFree, Nodes: []string{}, WaitsFor: []problem.WaitsFor{},
		InPool: inPool(info), ConfirmedInEtcd: info.InEtcd,
	}
	if len(info.Pools) > 0 {
		v.Pool = info.Pools[0]
		if p, err := c.engine.Pool(v.Pool); err == nil {
			v.Count = p.Block
		}
	}
	v.Running = u.runs(ctx, info.Ref, v.Count)
	return v
}

// inPool: a held id belongs where it was granted from, if that still has it.
func inPool(info leases.ClaimInfo) bool {
	if info.Claim == nil || info.Claim.Pool == "" {
		return len(info.Pools) > 0
	}
	return slices.Contains(info.Pools, info.Claim.Pool)
}

// heldView shows an id as an operation left it.
func (c *core) heldView(ctx context.Context, who caller, u *uses, h leases.Held, requester string) api.UID {
	info := leases.ClaimInfo{Ref: h.Ref, Claim: h.Claim, ModRev: h.ModRev, InEtcd: true}
	now := c.engine.Get(ctx, h.Ref)
	info.Pools = now.Pools
	if now.Claim != nil && h.Claim != nil && now.Claim.Token == h.Claim.Token {
		info.WaitsFor, info.NotBefore = now.WaitsFor, now.NotBefore
	}
	v := c.uidView(ctx, who, u, info)
	if h.Claim != nil && requester != "" {
		v.Requester, v.Hold = requester, holdView(h.Claim, c.engine.Node(), requester)
	}
	return v
}

// holdView is what keeps the grant on this node: the requester named, else one
// that may still start something. Nothing keeps a grant that is confirmed or
// over but the processes it is bound to.
func holdView(claim *leases.Claim, node, requester string) *api.Hold {
	p := claim.On(node)
	if p == nil {
		return nil
	}
	var best *api.Hold
	for _, r := range p.Requesters {
		h := &api.Hold{Kind: r.Hold}
		switch r.Hold {
		case leases.HoldPID, leases.HoldConn:
			h.PID = r.PID
		case leases.HoldTTL:
			if claim.State != leases.Locked && r.ID != requester {
				continue
			}
			h.Until = when(r.Until)
		default:
			continue
		}
		if r.ID == requester {
			return h
		}
		if best == nil || h.Kind != leases.HoldTTL || later(h.Until, best.Until) {
			best = h
		}
	}
	return best
}

func later(a, b *time.Time) bool { return a != nil && b != nil && a.After(*b) }

func when(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// setOrNil leaves away what is not set.
func setOrNil(b bool) *bool {
	if !b {
		return nil
	}
	return &b
}

func waitsView(waits []leases.NodeWait) []problem.WaitsFor {
	out := make([]problem.WaitsFor, 0, len(waits))
	for _, w := range waits {
		out = append(out, problem.WaitsFor{Node: w.Node, LastSeen: w.LastSeen, Why: w.Why})
	}
	return out
}

func poolView(p leases.PoolInfo) api.Pool {
	return api.Pool{
		Name: p.Name, Ranges: p.Ranges.String(), Exclude: p.Exclude.String(),
		PoolPolicy: api.PoolPolicy{
			Scope: string(p.Scope), Order: string(p.Order), Proof: string(p.Proof), Cooldown: p.Cooldown.String(),
			Reclaim: p.Reclaim.String(), ScanAge: p.ScanAge.String(), Block: p.Block, LowWater: p.LowWater.String(),
			RemoveIPC: setOrNil(p.RemoveIPC), ClearKeyring: setOrNil(p.ClearKeyring),
		},
		Size: p.Size, Counts: p.Counts, Low: p.Low, Revision: p.ModRev,
	}
}

func nodeView(n leases.NodeInfo) api.Node {
	v := api.Node{
		Name: n.Name, State: n.State, Since: when(n.Node.Since), LastSeen: n.LastSeen, Reason: n.Node.Reason,
		MachineID: n.Node.Machine, BootID: n.Node.Boot, Holds: n.Holds, ProofRevision: n.Proof, WaitedFor: uint64(len(n.WaitedFor)),
	}
	if n.Alive != nil {
		v.Address, v.Version, v.PID, v.NoProof = n.Alive.Address, n.Alive.Version, n.Alive.PID, n.Alive.NoProof
	}
	return v
}

// readable refuses what is about a record that etcd has and this version cannot
// read: to the engine it is as good as not there.
func (c *core) readable(key, what string) error {
	for _, k := range c.engine.Overview().Unreadable {
		if strings.HasSuffix(k, "/"+key) {
			return problem.New(problem.CodeInvalid, "%s: its record in etcd cannot be read (%s)", what, k).
				Note("was it written by a later version of idpool? then this agent is to be updated").
				Advise("look", "poolctl check")
		}
	}
	return nil
}
