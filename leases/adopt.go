package leases

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/problem"
)

// Restore is a restored etcd as an operator sees it.
type Restore struct {
	Meta cluster.Meta
	// ClusterID and Revision are etcd's own.
	ClusterID uint64
	Revision  int64
	// Base is a revision whose state the snapshot had in full.
	Base int64
	// Nodes are those that etcd knows, by name.
	Nodes []RestoreNode
	// Waits and Conflicts are what a recovery under way still needs.
	Waits     []Wait
	Conflicts []Conflict
	// Claims is how many ids are taken in etcd.
	Claims int

	raw     []byte
	members int64
	rev     int64
	through int64
}

// RestoreNode is a node of a restored etcd.
type RestoreNode struct {
	Name string
	// State is active, absent, left or fenced; Void tells that a leave or a fence is
	// of before, so that the node is waited for all the same.
	State string
	Void  bool
	Said  *Recovery // nil while it has not spoken
	raw   []byte
	node  Node
}

// Adopting reports whether an adoption is under way.
func (r *Restore) Adopting() bool { return r.Meta.State == cluster.StateRecovering && r.Meta.Adopted }

// AdoptOptions are an operator's words on a restore.
type AdoptOptions struct {
	// By is who says so, Reason why; a fence needs a reason.
	By, Reason string
	// Nodes are waited for although etcd does not know them: those that were
	// registered after the snapshot.
	Nodes []string
	// Fence are nodes that are off for good: they are not waited for.
	Fence []string
	// Resolve says by key below the root, or id as in "uid/70012", whose word to take.
	Resolve map[string]string
}

// Restored reads how a restored etcd stands: one list of everything below the root.
// It writes nothing. ErrNotFound where there is no idpool data.
func Restored(ctx context.Context, client *cluster.Client) (*Restore, error) {
	return restored(ctx, client, readAll)
}

// Progress is [Restored] without claims and without a base: a recovery under way.
func Progress(ctx context.Context, client *cluster.Client) (*Restore, error) {
	return restored(ctx, client, readProgress)
}

func restored(ctx context.Context, client *cluster.Client, read func(context.Context, *cluster.Client) (*view, uint64, int64, error)) (*Restore, error) {
	v, id, rev, err := read(ctx, client)
	if err != nil {
		return nil, err
	}
	if v.meta.Raw == nil {
		return nil, problem.New(problem.CodeNotFound, "etcd holds no idpool data below %s", client.Keys().Root())
	}
	if v.meta.Val == nil {
		return nil, Unread(client.Keys().Meta(), v.unreadable[client.Keys().Meta()])
	}
	r := &Restore{Meta: *v.meta.Val, ClusterID: id, Revision: rev, Base: v.base(), Claims: len(v.claims), raw: v.meta.Raw, members: v.members.ModRev, rev: rev}
	for name, n := range v.nodes {
		one := RestoreNode{Name: name, State: n.Val.State, raw: n.Raw, node: *n.Val}
		if _, up := v.alive[name]; !up && one.State == nodeActive {
			one.State = NodeAbsent
		}
		one.Void = n.Val.State != nodeActive && (!r.Adopting() || n.Val.Epoch != r.Meta.Epoch)
		if said := v.recoveries[name].Val; said != nil && said.Epoch == r.Meta.Epoch {
			one.Said = said
		}
		r.Nodes = append(r.Nodes, one)
	}
	slices.SortFunc(r.Nodes, func(a, b RestoreNode) int { return strings.Compare(a.Name, b.Name) })
	if r.Adopting() {
		r.Waits, r.Conflicts = v.spoken(r.Meta)
		r.through = v.through(r.Meta)
	}
	return r, nil
}

// readAll lists everything below the root, at one revision.
func readAll(ctx context.Context, client *cluster.Client) (*view, uint64, int64, error) {
	resp, err := client.ReadAside(ctx, clientv3.OpGet(client.Keys().Meta(), clientv3.WithCountOnly()))
	if err != nil {
		return nil, 0, 0, err
	}
	kvs, rev, err := client.List(ctx, client.Keys().Root())
	if err != nil {
		return nil, 0, 0, err
	}
	m := NewMirror(client.Keys(), "", zap.NewNop())
	m.Reset(rev, kvs)
	return &m.view, resp.Header.ClusterId, rev, nil
}

// readProgress reads what a recovery turns on, at one revision: no claims.
func readProgress(ctx context.Context, client *cluster.Client) (*view, uint64, int64, error) {
	k := client.Keys()
	resp, err := client.ReadAside(ctx, clientv3.OpGet(k.Meta()), clientv3.OpGet(k.Members()), clientv3.OpGet(k.Nodes(), clientv3.WithPrefix()),
		clientv3.OpGet(k.AlivePrefix(), clientv3.WithPrefix()), clientv3.OpGet(k.RecoveryPrefix(), clientv3.WithPrefix()),
		clientv3.OpGet(k.RecoveredPrefix(), clientv3.WithPrefix()))
	if err != nil {
		return nil, 0, 0, err
	}
	var kvs []cluster.KV
	for _, r := range resp.Responses {
		for _, kv := range r.GetResponseRange().GetKvs() {
			kvs = append(kvs, cluster.KV{Key: string(kv.Key), Value: kv.Value, CreateRev: kv.CreateRevision, ModRev: kv.ModRevision, Lease: kv.Lease})
		}
	}
	m := NewMirror(k, "", zap.NewNop())
	m.Reset(resp.Header.Revision, kvs)
	return &m.view, resp.Header.ClusterId, resp.Header.Revision, nil
}

// base is the highest revision of what no node writes while it is frozen: of the
// snapshot, and the snapshot had all up to it. What was imported says so itself.
func (v *view) base() int64 {
	if m := v.meta.Val; m != nil && m.Imported > 0 {
		return m.Base
	}
	base := v.index
	for _, c := range v.claims {
		base = max(base, c.ModRev)
	}
	for _, r := range v.records {
		base = max(base, r.ModRev)
	}
	for _, d := range v.documents {
		base = max(base, d.ModRev)
	}
	for _, p := range v.pools {
		base = max(base, p.ModRev)
	}
	return base
}

// Check refuses options that do not fit what stands in etcd.
func (r *Restore) Check(o AdoptOptions) error {
	for _, name := range slices.Concat(o.Nodes, o.Fence) {
		if err := cluster.ValidName(name); err != nil {
			return err
		}
	}
	if len(o.Fence) > 0 && o.Reason == "" {
		return problem.New(problem.CodeInvalid, "fencing %s takes a reason: it is your word that the machine is off", join(o.Fence)).
			Advise("as in", "poolctl cluster adopt-restore --fence %s --reason \"power supply dead\"", o.Fence[0])
	}
	for _, name := range o.Fence {
		if slices.Contains(o.Nodes, name) {
			return problem.New(problem.CodeInvalid, "node %s cannot be waited for and fenced at once", name)
		}
		if n := r.node(name); n != nil && n.Said != nil && n.State == nodeActive {
			return problem.New(problem.CodeHeld, "node %s not fenced: its agent is present and has said what it holds, so the machine is not off", name)
		}
	}
	if len(o.Resolve) > 0 && !r.Adopting() {
		return problem.New(problem.CodeInvalid, "nothing is to be resolved: no adoption is under way")
	}
	return nil
}

func (r *Restore) node(name string) *RestoreNode {
	if i := slices.IndexFunc(r.Nodes, func(n RestoreNode) bool { return n.Name == name }); i >= 0 {
		return &r.Nodes[i]
	}
	return nil
}

// Adopt begins an epoch over a restored etcd, or adds an operator's words to an
// adoption under way: fences, nodes to wait for, decisions. Presences, proofs,
// fences and leaves of before are void by it. The agents do the rest; [Resume] ends it.
// What etcd did not answer is tried again within the budget; doing it twice is harmless.
func Adopt(ctx context.Context, client *cluster.Client, o AdoptOptions) error {
	ctx, cancel := context.WithTimeout(ctx, client.Config().Budget)
	defer cancel()
	var wait cluster.Backoff
	fresh, under := uuid.NewString(), "" // the epoch to begin, and the one that o is about
	for {
		r, err := Restored(ctx, client)
		if err != nil {
			return err
		}
		switch {
		case r.Adopting():
			under = r.Meta.Epoch
		case r.Meta.Epoch == fresh || (under != "" && r.Meta.Epoch == under):
			return nil // over meanwhile
		}
		if err := r.Check(o); err != nil {
			return err
		}
		done, err := r.step(ctx, client, fresh, o)
		if done || (err != nil && problem.CodeOf(err) != problem.CodeOutcomeUnknown && problem.CodeOf(err) != problem.CodeUnavailable) {
			return err
		}
		if wait.Wait(ctx) != nil {
			if err == nil {
				err = context.Cause(ctx)
			}
			return problem.Wrap(problem.CodeUnavailable, err, "the adoption is not written, or not whole: run the same command again")
		}
	}
}

// step writes the next thing that o asks for; true when nothing is left. fresh is the
// epoch that it begins.
func (r *Restore) step(ctx context.Context, client *cluster.Client, fresh string, o AdoptOptions) (bool, error) {
	k := client.Keys()
	same := clientv3.Compare(clientv3.Value(k.Meta()), "=", string(r.raw))
	commit := func(cmps []clientv3.Cmp, puts ...clientv3.Op) (bool, error) {
		_, err := client.CommitAside(ctx, append(cmps, same), puts, nil)
		return false, err // read again: that shows whether it was done
	}
	next := r.Meta
	if !r.Adopting() {
		lead, err := client.Lead(ctx)
		if err != nil {
			return false, err
		}
		next.Previous = append(slices.Clone(next.Previous), cluster.Epoch{Epoch: r.Meta.Epoch, Number: r.Meta.Number})
		next.Previous = next.Previous[max(0, len(next.Previous)-cluster.MaxPrevious):]
		next.Epoch, next.Number, next.State, next.Adopted = fresh, r.Meta.Number+1, cluster.StateRecovering, true
		next.Lead, next.Base, next.Expect = lead, r.Base, nil
		next.By, next.Reason, next.Since = clip(o.By), clip(o.Reason), time.Now().UTC()
	}
	for _, name := range o.Nodes {
		if !slices.Contains(next.Expect, name) {
			next.Expect = append(slices.Clone(next.Expect), name)
		}
	}
	next.Expect = slices.DeleteFunc(slices.Clone(next.Expect), func(n string) bool { return slices.Contains(o.Fence, n) })
	raw := cluster.Encode(next)
	switch {
	case !r.Adopting():
		all := clientv3.WithPrefix()
		return commit(nil, clientv3.OpPut(k.Meta(), string(raw)), putMembers(k, "poolctl", "adopt"),
			clientv3.OpDelete(k.AlivePrefix(), all), clientv3.OpDelete(k.RecoveryPrefix(), all), clientv3.OpDelete(k.RecoveredPrefix(), all))
	case len(next.Expect) != len(r.Meta.Expect):
		return commit(nil, clientv3.OpPut(k.Meta(), string(raw)))
	}
	for _, name := range o.Fence {
		n := r.node(name)
		if n == nil || (n.State == nodeFenced && !n.Void) {
			continue
		}
		node := n.node
		node.Of, node.State, node.FencedBoot, node.Epoch, node.Since, node.Write = name, nodeFenced, node.Boot, r.Meta.Epoch, time.Now().UTC(), shortToken()
		node.Reason = clip(o.Reason + " (" + o.By + ")")
		return commit([]clientv3.Cmp{sameValue(k.Node(name), n.raw)}, clientv3.OpPut(k.Node(name), string(cluster.Encode(node))),
			clientv3.OpDelete(k.Alive(name)), putMembers(k, "poolctl", "fence "+name))
	}
	return r.resolve(ctx, client, same, o.Resolve)
}

// resolve writes an operator's decisions into marks, one a transaction.
func (r *Restore) resolve(ctx context.Context, client *cluster.Client, same clientv3.Cmp, decisions map[string]string) (bool, error) {
	k := client.Keys()
	for name, node := range decisions {
		nothing := problem.New(problem.CodeNotFound, "nothing is disputed about %s", name).Advise("look", "poolctl cluster adopt-restore --dry-run")
		key, ok := keyOf(name)
		if !ok {
			return false, nothing
		}
		resp, err := client.ReadAside(ctx, clientv3.OpGet(k.Root()+key), clientv3.OpGet(k.Recovered(k.Root()+key)))
		if err != nil {
			return false, err
		}
		at, err := standingOf(resp.Responses[0], resp.Responses[1], r.Meta.Epoch)
		if err != nil {
			return false, Unread(k.Recovered(k.Root()+key), err)
		}
		if at.mark != nil && at.mark.Resolved == node {
			continue // said already; by now it may be done
		}
		if !r.disputed(key) {
			return false, nothing
		}
		m := Mark{V: format, In: r.Meta.Epoch, Number: r.Meta.Restored(), Rev: r.Meta.Rev(at.modRev)}
		if at.mark != nil {
			m = *at.mark
		}
		m.Resolved, m.Write = node, shortToken()
		_, err = client.CommitAside(ctx, []clientv3.Cmp{same, clientv3.Compare(clientv3.ModRevision(k.Recovered(k.Root()+key)), "=", at.markRev)},
			[]clientv3.Op{clientv3.OpPut(k.Recovered(k.Root()+key), string(cluster.Encode(m)))}, nil)
		return false, err
	}
	return true, nil
}

// keyOf is the key below the root that an operator's word is about: that key itself,
// or an id as in "uid/70012".
func keyOf(name string) (string, bool) {
	if heldKey(name) {
		return name, true
	}
	cut := strings.LastIndexByte(name, '/')
	if cut < 0 {
		return "", false
	}
	id, err := strconv.ParseUint(name[cut+1:], 10, 32)
	if err != nil || cluster.Space(name[:cut]).Valid() != nil {
		return "", false
	}
	return strings.TrimPrefix(below.Claim(cluster.Space(name[:cut]), uint32(id)), below.Root()), true
}

// disputed tells whether a key is.
func (r *Restore) disputed(key string) bool {
	return slices.ContainsFunc(r.Conflicts, func(c Conflict) bool { return c.Key == key })
}

// Short is the key as people write it: "uid/70012" for a claim, else the key itself.
func (c Conflict) Short() string {
	at, err := below.Parse(below.Root() + c.Key)
	if err != nil || at.Kind != cluster.KindClaim {
		return c.Key
	}
	return Ref{at.Space, at.ID}.String()
}

// Resume ends an adoption if everybody has spoken and nothing is disputed, as the
// agents do by themselves. It tells whether the cluster is normal now.
func Resume(ctx context.Context, client *cluster.Client, r *Restore) (bool, error) {
	if !r.Adopting() {
		return r.Meta.State == cluster.StateNormal, nil
	}
	if len(r.Waits)+len(r.Conflicts) > 0 {
		return false, nil
	}
	cmps, put := resuming(client.Keys(), r.Meta, r.raw, r.members, r.rev, r.through)
	resp, err := client.CommitAside(ctx, cmps, []clientv3.Op{put}, nil)
	if err != nil {
		var told *cluster.OutcomeError
		if errors.As(err, &told) {
			return false, nil // read again
		}
		return false, err
	}
	return resp.Succeeded, nil
}
