package leases

import (
	"cmp"
	"errors"
	"slices"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/problem"
)

// Unreadable is a key below the root that this version makes no sense of.
type Unreadable struct {
	// Key is the whole key, of any bytes and length.
	Key  string
	Kind cluster.Kind
	Why  error
}

// Unreadable lists by key what cannot be read. It reads the mirror.
func (a *Allocator) Unreadable() []Unreadable {
	var all []Unreadable
	a.mirror.read(func(v *view) {
		for key, why := range v.unreadable {
			parsed, _ := a.keys.Parse(key) // of an error: unknown
			all = append(all, Unreadable{key, parsed.Kind, why})
		}
	})
	slices.SortFunc(all, func(x, y Unreadable) int { return cmp.Compare(x.Key, y.Key) })
	return all
}

// nobody stands for the holder of a lock whose value cannot be read: somebody has
// it, and it is none of us.
const nobody = "?"

// cutText bounds what others wrote, for a line of a log.
func cutText(s string) string {
	if len(s) > 300 {
		return s[:300] + "…"
	}
	return s
}

// leaseFits refuses a key that would go with a lease although it must stay, or
// stay although its holder has gone.
func leaseFits(kind cluster.Kind, lease int64) error {
	switch leased := kind.Leased(); {
	case leased && lease == 0:
		return misfitting("the %s is under no lease, so nothing ends it", kind)
	case !leased && lease != 0:
		return misfitting("the %s is under lease %x, and is lost when that ends", kind, lease)
	}
	return nil
}

// unreadableError marks the refusal of a record that a person must mend; until
// then trying again does no harm.
type unreadableError struct{ error }

func (e unreadableError) Unwrap() error { return e.error }

func isUnreadable(err error) bool {
	var e unreadableError
	return errors.As(err, &e)
}

// Unread is the refusal of everything while a record that every write rests on
// cannot be read: a [problem.CodeFrozen] that names the key. It passes once the
// record is as it was.
func Unread(key string, why error) error {
	e := &problem.Error{Code: problem.CodeFrozen, Detail: "nothing is granted: the record " + key + " cannot be read: " + cutText(why.Error()), Cause: unreadableError{why}}
	return e.Advise("look", "poolctl check   (on a node that serves)").
		Advise("once it is as it was", "nothing: the agent goes on by itself")
}

// Blocked tells why this node writes nothing until a person has mended a record, or
// a restored etcd is adopted and this node has said what it holds; nil if there is no
// such reason.
func (a *Allocator) Blocked() error {
	err := a.session.refusal()
	if !errors.Is(err, problem.ErrFrozen) {
		err = nil
	}
	a.mirror.read(func(v *view) {
		for _, key := range []string{a.keys.Node(a.id.Node), a.keys.Meta()} {
			if why := v.unreadable[key]; why != nil {
				err = Unread(key, why)
			}
		}
	})
	return err
}

func unreadableClaim(ref Ref, why error) error {
	return lookAt(problem.Wrap(problem.CodeInvalid, why, "the claim of %s cannot be read, so nothing is told or done about it", label(ref)))
}

func unreadableRecord(key string, why error) error {
	return lookAt(problem.Wrap(problem.CodeInvalid, why, "the grant record %s cannot be read, so nothing is told or done about it", key))
}

func lookAt(err error) error {
	var e *problem.Error
	if errors.As(err, &e) {
		return e.Advise("look", "poolctl check")
	}
	return err
}

// unknownNode is the refusal of a node that the mirror does not show.
func unknownNode(v *view, name string) error {
	if _, ok := v.strange[name]; ok {
		return problem.New(problem.CodeInvalid, "the registration of node %s cannot be read, so nothing is told or done about it", name).Advise("look", "poolctl check")
	}
	return problem.New(problem.CodeNotFound, "there is no node %s", name).Advise("look", "poolctl node list")
}

// readable refuses a change of a pool while it, or one that it must agree with,
// cannot be read: what their ranges, scope and block, or files, are is not known.
func readable(v *view, name string, p *Pool) error {
	_, vlans := InventoryOf(name)
	for other, why := range v.lostPools {
		if _, o := InventoryOf(other); other == name || (o == vlans && (!vlans || p.Outside != nil)) {
			t, bare := tradeOf(other)
			return lookAt(problem.Wrap(problem.CodeInvalid, why, "nothing was stored: the definition of %s %s cannot be read, and others must agree with it", t.pool, bare))
		}
	}
	return nil
}

// deleting is what holdersOf is asked for by a pool's end.
const deleting = "not deleted"

// widest is how many ids a claim that cannot be read may stand for: a block begins
// at a multiple of its size.
func widest(id uint32) uint32 {
	if id == 0 {
		return maxBlock
	}
	return min(id&-id, maxBlock)
}

// hidden refuses what rests on nobody holding ids of a pool otherwise than it says,
// while a claim there cannot be read. One that the pool contained already fits a
// definition of the same scope and block.
func (a *Allocator) hidden(v *view, name string, p *Pool, not string) error {
	ids := p.IDs()
	_, vlans := InventoryOf(name)
	for space, taken := range v.taken {
		_, scoped := space.Node()
		if (vlans && space != cluster.Space(name)) || (!vlans && space != cluster.SpaceUID && !scoped) {
			continue
		}
		for id := range taken.All() {
			ref := Ref{space, id}
			if v.claims[ref].Val != nil {
				continue
			}
			old, ok := v.pools[name]
			same := not != deleting && ok && old.firsts.Contains(id) && old.Val.Block == p.Block && old.Val.Scope == p.Scope
			if !same && (vlans || !ids.Intersect(idset.Of(ref.span(widest(id)))).IsEmpty()) {
				t, bare := tradeOf(name)
				return problem.New(problem.CodeHeld, "%s %s %s: the claim of %s cannot be read, so who has it, and how many ids, is not known", t.pool, bare, not, label(ref)).
					Advise("look", "poolctl check")
			}
		}
	}
	return nil
}
