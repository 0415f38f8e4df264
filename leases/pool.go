package leases

import (
	"path/filepath"
	"strings"
	"time"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/problem"
)

// The VLAN ids that can be granted: 0 marks a frame with a priority and no VLAN,
// 4095 is reserved by IEEE 802.1Q.
const (
	minVLAN = 1
	maxVLAN = 4094
)

// VLANPool is the engine's name for a VLAN inventory: uid pools have bare names.
func VLANPool(inventory string) string { return string(cluster.VLANSpace(inventory)) }

// InventoryOf is the reverse of [VLANPool]; false for a uid pool.
func InventoryOf(pool string) (string, bool) { return cluster.Space(pool).Inventory() }

// Outside says that an inventory's VLANs are kept in a pool file, which only the
// agent of node On touches.
type Outside struct {
	File string `json:"file"`
	On   string `json:"on"`
	// Settle is how long after the loss of a coordinator the file's silence about
	// an allocation key is believed.
	Settle time.Duration `json:"settle"`
}

// sameFile tells whether two definitions speak of one file.
func (o *Outside) sameFile(p *Outside) bool {
	return o.On == p.On && filepath.Clean(o.File) == filepath.Clean(p.File)
}

// Pool is a named set of ranges in a space, with its policy.
type Pool struct {
	V int `json:"v"`
	// Of is the engine's name of the pool, so that a record at another's key is
	// refused.
	Of      string    `json:"of,omitempty"`
	Ranges  idset.Set `json:"ranges"`
	Exclude idset.Set `json:"exclude"`
	Policy
	Since time.Time `json:"since"`
	Write string    `json:"w"`
	// Outside, if not nil, says where the ids are kept instead: the engine grants
	// none of them.
	Outside *Outside `json:"outside,omitempty"`
}

// IDs are the ids that may be granted: ranges less exclusions.
func (p *Pool) IDs() idset.Set { return p.Ranges.Remove(p.Exclude) }

// Firsts are the ids that claims stand under: IDs itself, or with a block size
// the first id of every whole block.
func (p *Pool) Firsts() idset.Set { return p.IDs().Blocks(p.Block) }

// VLANPolicy is that of a VLAN inventory: a switch may carry a VLAN for a while
// after it was given back, and no node can prove that it does not.
func VLANPolicy() Policy {
	return Policy{
		Scope: ScopeCluster, Order: OrderLowest, Proof: ProofNone, Cooldown: 10 * time.Minute, Reclaim: Reclaim{Never: true},
		Block: 1, LowWater: LowWater{10, true},
	}
}

// defaultsOf is the policy that a pool of this name starts with.
func defaultsOf(name string) Policy {
	if _, ok := InventoryOf(name); ok {
		return VLANPolicy()
	}
	return DefaultPolicy()
}

// check refuses a definition that cannot be of this name.
func (p *Pool) check(name string) error {
	if err := p.Policy.Validate(); err != nil {
		return err
	}
	inv, ok := InventoryOf(name)
	if !ok {
		if p.Outside != nil {
			return problem.New(problem.CodeInvalid, "pool %s: only VLAN inventories can be kept in a file", name)
		}
		return nil
	}
	switch {
	case p.Scope != ScopeCluster || p.Proof != ProofNone || p.Block != 1 || !p.Reclaim.Never:
		return problem.New(problem.CodeInvalid, "inventory %s: VLANs are cluster-scoped, single, and need no proof (%s)", inv, p.Policy)
	case p.Outside != nil && !p.Ranges.IsEmpty():
		return problem.New(problem.CodeInvalid, "inventory %s: either ranges in etcd or a file, not both", inv)
	case p.Outside != nil && (!strings.HasPrefix(p.Outside.File, "/") || len(p.Outside.File) > maxText || p.Outside.Settle < 0 || p.Outside.Settle > time.Hour):
		return problem.New(problem.CodeInvalid, "inventory %s: want a file by its absolute path, and a settle time of 0 to 1h", inv)
	case p.Outside != nil:
		return cluster.ValidName(p.Outside.On)
	}
	for _, bound := range []func() (uint32, bool){p.Ranges.Min, p.Ranges.Max} {
		if id, ok := bound(); ok && (id < minVLAN || id > maxVLAN) {
			return problem.New(problem.CodeInvalid, "inventory %s: %d is no VLAN that can be granted: want %d to %d", inv, id, minVLAN, maxVLAN)
		}
	}
	return nil
}

// poolKey is where a pool of this name is defined.
func poolKey(k cluster.Keys, name string) string {
	if inv, ok := InventoryOf(name); ok {
		return k.VLANInventory(inv)
	}
	return k.UIDPool(name)
}

// trade is how messages speak of a pool's kind.
type trade struct{ pool, id, ids, show, list, make string }

func tradeOf(name string) (trade, string) {
	if inv, ok := InventoryOf(name); ok {
		return trade{"inventory", "VLAN", "VLANs", "poolctl vlan inventory show", "poolctl vlan inventory list", "poolctl vlan inventory set %s 100-199"}, inv
	}
	return trade{"pool", "uid", "uids", "poolctl uid pool show", "poolctl uid pool list", "poolctl uid pool set %s 70000-79999"}, name
}

// poolEntry is a pool with what is computed from it once a change.
type poolEntry struct {
	Stored[Pool]
	name        string
	ids, firsts idset.Set
}

func newPoolEntry(name string, p Stored[Pool]) poolEntry {
	return poolEntry{p, name, p.Val.IDs(), p.Val.Firsts()}
}

// space is the space of the pool for a node's requests.
func (p poolEntry) space(node string) cluster.Space {
	if _, ok := InventoryOf(p.name); ok {
		return cluster.Space(p.name)
	}
	if p.Val.Scope == ScopeNode {
		return cluster.NodeSpace(node)
	}
	return cluster.SpaceUID
}

// ofUIDs tells whether the pool is one of uids.
func (p poolEntry) ofUIDs() bool {
	_, vlans := InventoryOf(p.name)
	return !vlans
}

// clash tells why two pools that share ids cannot live side by side (rule 22),
// nil if they can.
func clash(name string, p *Pool, otherName string, o *Pool) error {
	shared := p.IDs().Intersect(o.IDs())
	if shared.IsEmpty() {
		return nil
	}
	for r := range shared.Ranges() {
		switch {
		case p.Scope != o.Scope || p.Scope == ScopeNode:
			return problem.New(problem.CodeInvalid, "pool %s (scope %s) shares %s with pool %s (scope %s): only cluster-scoped pools may overlap", name, p.Scope, r, otherName, o.Scope)
		case p.Block != o.Block:
			return problem.New(problem.CodeInvalid, "pool %s (block %d) shares %s with pool %s (block %d): pools that overlap must agree on block", name, p.Block, r, otherName, o.Block)
		case p.Block != 1:
			return problem.New(problem.CodeInvalid, "pool %s shares %s with pool %s: only pools of single ids may overlap", name, r, otherName)
		}
	}
	return nil
}
