package leases

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/problem"
)

// Kinds of a [Finding].
const (
	// FindLockWithoutClaim: a lock stands beside no claim, or beside one that is not
	// locked. It hinders nobody and goes with its session.
	FindLockWithoutClaim = "lock_without_claim"
	// FindClaimWithoutHolder: an id is held, and no node that it names is registered.
	FindClaimWithoutHolder = "claim_without_holder"
	// FindGroupDisagrees: a grant record and the claims of its grant say different things.
	FindGroupDisagrees = "group_disagrees"
	// FindUsedWithoutProcess: ids are used, nothing runs under them for a day, and
	// nobody keeps them.
	FindUsedWithoutProcess = "used_without_process"
	// FindOutsidePool: ids are held that their pool does not contain any more.
	FindOutsidePool = "outside_pool"
	// FindForeign: something runs under an id that nobody was granted.
	FindForeign = "foreign"
	// FindNodeWithoutProof: a node cannot say what runs on it: it is absent, or
	// cannot read /proc.
	FindNodeWithoutProof = "node_without_proof"
)

// forgotten is how long an id is idle before somebody should look.
const forgotten = 24 * time.Hour

// Finding is something about ids and nodes that a person should look at.
type Finding struct {
	// Kind is one of the constants above.
	Kind string
	// Subject is the thing: "uid 70012", "node n7", "pool jobs".
	Subject string
	Detail  string
	Try     []problem.Advice
	// Key is that of etcd which a repair would delete, "" if there is none; see
	// [Allocator.Repairs].
	Key string
}

// Findings lists what does not fit together in etcd, waits for somebody, or was
// forgotten, by kind and subject. Records that cannot be read are
// [Allocator.Unreadable]'s. One round trip, no commit.
func (a *Allocator) Findings(ctx context.Context) ([]Finding, error) {
	if err := a.Sync(ctx); err != nil {
		return nil, err
	}
	var all []Finding
	a.mirror.read(func(v *view) {
		all = slices.Concat(a.lockFindings(v), a.claimFindings(v, time.Now()), a.groupFindings(v), v.nodeFindings())
	})
	slices.SortStableFunc(all, func(x, y Finding) int { return cmp.Or(cmp.Compare(x.Kind, y.Kind), cmp.Compare(x.Subject, y.Subject)) })
	return all, nil
}

func (a *Allocator) lockFindings(v *view) []Finding {
	var all []Finding
	for ref := range v.locks {
		c, taken := v.claims[ref].Val, v.takenIn(ref.Space)
		why := ""
		switch {
		case c == nil && taken.Contains(ref.ID): // its claim cannot be read
			continue
		case c == nil:
			why = "nobody has the id"
		case c.State != Locked:
			why = "the id is " + c.State.String()
		default:
			continue
		}
		all = append(all, Finding{Kind: FindLockWithoutClaim, Subject: label(ref), Detail: "a lock stands here although " + why + "; it hinders nobody, and goes with the session that wrote it",
			Try: advice("remove it now", "poolctl check --repair"), Key: a.keys.Lock(ref.Space, ref.ID)})
	}
	return all
}

// several gathers ids that have the same to be said of them.
type several struct {
	refs []Ref
	ids  idset.Set
}

func (s *several) add(ref Ref) { s.refs = append(s.refs, ref); s.ids.Insert(ref.ID) }

func (a *Allocator) claimFindings(v *view, now time.Time) []Finding {
	var all []Finding
	outside, unused := map[string]*several{}, map[string]*several{}
	into := func(m map[string]*several, pool string, ref Ref) {
		if m[pool] == nil {
			m[pool] = &several{}
		}
		m[pool].add(ref)
	}
	for ref, stored := range v.claims {
		c := stored.Val
		switch {
		case c.State == Quarantined && c.ReasonCode == ReasonForeign:
			all = append(all, Finding{Kind: FindForeign, Subject: label(ref), Detail: c.Reason,
				Try: append(advice("it should run", "poolctl uid adopt "+u32(ref.ID)), advice("it should not", "end the process; the id is free once that is proven")...)})
		case !c.State.held():
		default:
			if f, ok := v.holderless(ref, c); ok {
				all = append(all, f)
			}
			if p, ok := v.pools[c.Pool]; ok && !p.firsts.Contains(ref.ID) {
				into(outside, c.Pool, ref)
			}
			if c.State == Idle && !c.Kept() && now.Sub(c.Since) > forgotten {
				into(unused, c.Pool, ref)
			}
		}
	}
	for pool, s := range outside {
		t, bare := tradeOf(pool)
		all = append(all, Finding{Kind: FindOutsidePool, Subject: t.pool + " " + bare,
			Detail: fmt.Sprintf("%s held outside of it, and not granted again once released: %s", counted(len(s.refs), "id is", "ids are"), clipRanges(s.ids)),
			Try:    append(advice("take them in again", t.show+" "+bare), advice("or release each", "poolctl "+showOf(slices.MinFunc(s.refs, Ref.compare)))...)})
	}
	for pool, s := range unused {
		t, bare := tradeOf(pool)
		all = append(all, Finding{Kind: FindUsedWithoutProcess, Subject: t.pool + " " + bare,
			Detail: fmt.Sprintf("%s used, and nothing runs under them for more than a day: %s", counted(len(s.refs), "id is", "ids are"), clipRanges(s.ids)),
			Try:    append(advice("whose they are", "poolctl uid list --state idle --pool "+bare), advice("nobody needs them", "poolctl uid release UID")...)})
	}
	return all
}

// holderless tells of a held uid that no registered node is named for: nobody
// decides about it.
func (v *view) holderless(ref Ref, c *Claim) (Finding, bool) {
	if ref.vlan() || slices.ContainsFunc(c.Nodes, func(p Presence) bool {
		_, known := v.nodes[p.Node]
		_, strange := v.strange[p.Node]
		return known || strange
	}) {
		return Finding{}, false
	}
	why := "names no node"
	if len(c.Nodes) > 0 {
		why = "is of " + join(c.NodeNames()) + ", which the cluster does not know"
	}
	return Finding{Kind: FindClaimWithoutHolder, Subject: label(ref), Detail: fmt.Sprintf("it is %s and %s: nobody looks after it", c.State, why),
		Try: append(advice("look", "poolctl "+showOf(ref)), advice("nothing runs under it anywhere", "poolctl uid release "+u32(ref.ID))...)}, true
}

// groupFindings holds grant records and claims against each other: both are
// written in the same transactions.
func (a *Allocator) groupFindings(v *view) []Finding {
	var all []Finding
	found := func(subject, detail string, try []problem.Advice) {
		all = append(all, Finding{Kind: FindGroupDisagrees, Subject: subject, Detail: detail, Try: try})
	}
	for _, stored := range v.records {
		r := stored.Val
		if r.Ended {
			continue
		}
		var lost []string
		for _, ref := range r.IDs {
			taken := v.takenIn(ref.Space)
			c := v.claims[ref].Val
			if (c == nil && !taken.Contains(ref.ID)) || (c != nil && c.Token != r.Token) {
				lost = append(lost, label(ref))
			}
		}
		if len(lost) > 0 {
			found("grant "+cmp.Or(r.Key, "without a key")+" of "+r.Caller, "its record lists what it does not have any more: "+clip(join(lost)),
				append(advice("what is left of it", "poolctl uid list --key "+cmp.Or(r.Key, "KEY")), advice("nobody needs that", "poolctl uid release UID")...))
		}
	}
	for ref, stored := range v.claims {
		c := stored.Val
		if !c.Grouped || !c.State.held() {
			continue
		}
		key := a.recordKey(c)
		r := v.records[key].Val
		why := ""
		switch {
		case v.unreadable[key] != nil: // told by itself
			continue
		case r == nil:
			why = "has no record: a repeated request does not find it"
		case r.Token != c.Token || r.Ended:
			why = "is over by its record, or whose record is another's"
		case !slices.Contains(r.IDs, ref):
			why = "has a record that does not list it"
		default:
			continue
		}
		found(label(ref), fmt.Sprintf("it is %s as part of a grant that %s", c.State, why),
			append(advice("look", "poolctl "+showOf(ref)), advice("nobody needs it", "poolctl "+strings.Replace(showOf(ref), " show ", " release ", 1))...))
	}
	return all
}

func (v *view) nodeFindings() []Finding {
	var all []Finding
	waited := v.waitedFor()
	for name, n := range v.nodes {
		if n.Val.State != nodeActive {
			continue
		}
		ids := ""
		if w := len(waited[name]); w > 0 {
			ids = "; " + counted(w, "quarantined id waits", "quarantined ids wait") + " for its word"
		}
		al, up := v.alive[name]
		switch {
		case !up:
			all = append(all, Finding{Kind: FindNodeWithoutProof, Subject: "node " + name, Detail: "its agent is absent, so nobody can tell what runs on it" + ids,
				Try: append(advice("start its agent", "systemctl start poolagent   (on "+name+")"), advice("the machine is off", "poolctl node fence "+name+` --reason "…"`)...)})
		case al.Val.NoProof != "":
			all = append(all, Finding{Kind: FindNodeWithoutProof, Subject: "node " + name, Detail: "it cannot prove what runs on it: " + al.Val.NoProof + ids,
				Try: advice("look", "poolctl node show "+name)})
		}
	}
	return all
}

func advice(when, command string) []problem.Advice {
	return []problem.Advice{{When: when, Command: command}}
}

func counted(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
