package cluster

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/idpool/idpool/problem"
)

// DefaultRoot is the prefix of every key unless configured otherwise.
const DefaultRoot = "/idpool/"

// Space is the set in which an id has one holder: "uid", "uid@NODE" for a
// node-scoped pool, "vlan/INVENTORY".
type Space string

// SpaceUID is the space of all cluster-scoped uid pools.
const SpaceUID Space = "uid"

const (
	nodeSpacePrefix = "uid@"
	vlanSpacePrefix = "vlan/"
)

// NodeSpace is the space of node-scoped uids on one node.
func NodeSpace(node string) Space { return Space(nodeSpacePrefix + node) }

// VLANSpace is the space of one VLAN inventory.
func VLANSpace(inventory string) Space { return Space(vlanSpacePrefix + inventory) }

// Node returns the node of a node-scoped space.
func (s Space) Node() (string, bool) { return strings.CutPrefix(string(s), nodeSpacePrefix) }

// Inventory returns the inventory of a VLAN space.
func (s Space) Inventory() (string, bool) { return strings.CutPrefix(string(s), vlanSpacePrefix) }

// Valid reports why s is no space, as a [problem.CodeInvalid].
func (s Space) Valid() error {
	if s == SpaceUID {
		return nil
	}
	if node, ok := s.Node(); ok {
		return ValidName(node)
	}
	if inv, ok := s.Inventory(); ok {
		return ValidName(inv)
	}
	return problem.New(problem.CodeInvalid, "space %q: use uid, uid@NODE or vlan/INVENTORY", string(s))
}

// path is the space as it stands in keys: one or two path elements.
func (s Space) path() string {
	if inv, ok := s.Inventory(); ok {
		return vlanSpacePrefix + escape(inv)
	}
	return escape(string(s))
}

// Keys builds and parses every key below one root. The builders accept any
// string and never leave their place in the tree: what [ValidName] would refuse
// is escaped. Make one with [NewKeys]; the zero value is not usable.
type Keys struct{ root string }

// NewKeys returns the keys below root, which starts and ends with a slash, as
// in "/idpool/". The error is a [problem.CodeInvalid].
func NewKeys(root string) (Keys, error) {
	bad := func(why string) (Keys, error) {
		return Keys{}, problem.New(problem.CodeInvalid, "root %q %s: use a path such as %s", root, why, DefaultRoot)
	}
	switch {
	case len(root) > 200:
		return bad("is longer than 200 bytes")
	case len(root) < 3 || root[0] != '/' || root[len(root)-1] != '/':
		return bad("does not start and end with a slash")
	}
	for _, part := range strings.Split(root[1:len(root)-1], "/") {
		if ValidName(part) != nil {
			return bad(fmt.Sprintf("has a part %q that is no name", part))
		}
	}
	return Keys{root: root}, nil
}

// Root is the prefix of all keys, with its trailing slash.
func (k Keys) Root() string { return k.root }

// Meta is the key of [Meta]: format, epoch and state.
func (k Keys) Meta() string { return k.root + "meta" }

// Members is the key that every change of the node list rewrites.
func (k Keys) Members() string { return k.root + "members" }

// Node is a node's registration.
func (k Keys) Node(name string) string { return k.Nodes() + escape(name) }

// Nodes is the prefix of all registrations.
func (k Keys) Nodes() string { return k.root + "nodes/" }

// Alive is a node's presence, on its agent's lease.
func (k Keys) Alive(name string) string { return k.AlivePrefix() + escape(name) }

// AlivePrefix is the prefix of all presences.
func (k Keys) AlivePrefix() string { return k.root + "alive/" }

// Proof is a node's last report.
func (k Keys) Proof(name string) string { return k.ProofsPrefix() + escape(name) }

// ProofsPrefix is the prefix of all reports.
func (k Keys) ProofsPrefix() string { return k.root + "proofs/" }

// PoolsPrefix is the prefix of uid pools, VLAN inventories and the pool index.
func (k Keys) PoolsPrefix() string { return k.root + "pools/" }

// UIDPool is a uid pool's definition.
func (k Keys) UIDPool(name string) string { return k.UIDPoolsPrefix() + escape(name) }

// UIDPoolsPrefix is the prefix of all uid pools.
func (k Keys) UIDPoolsPrefix() string { return k.PoolsPrefix() + "uid/" }

// VLANInventory is a VLAN inventory's definition.
func (k Keys) VLANInventory(name string) string { return k.VLANInventoriesPrefix() + escape(name) }

// VLANInventoriesPrefix is the prefix of all VLAN inventories.
func (k Keys) VLANInventoriesPrefix() string { return k.PoolsPrefix() + "vlan/" }

// PoolIndex is the key that every change of a pool rewrites.
func (k Keys) PoolIndex() string { return k.PoolsPrefix() + "index" }

// Claim is the persistent key of one id.
func (k Keys) Claim(space Space, id uint32) string { return k.ClaimsIn(space) + formatID(id) }

// ClaimsIn is the prefix of all claims of a space.
func (k Keys) ClaimsIn(space Space) string { return k.ClaimsPrefix() + space.path() + "/" }

// ClaimsPrefix is the prefix of all claims.
func (k Keys) ClaimsPrefix() string { return k.root + "claims/" }

// Lock is the lease-backed key beside a claim.
func (k Keys) Lock(space Space, id uint32) string { return k.LocksIn(space) + formatID(id) }

// LocksIn is the prefix of all locks of a space.
func (k Keys) LocksIn(space Space) string { return k.LocksPrefix() + space.path() + "/" }

// LocksPrefix is the prefix of all locks, the reaper's and the services' too.
func (k Keys) LocksPrefix() string { return k.root + "locks/" }

// Grant is the record of a caller's request under a name: its allocation key,
// or the token of a group without one.
func (k Keys) Grant(caller, name string) string { return k.GrantsOf(caller) + escape(name) }

// GrantsOf is the prefix of one caller's grant records.
func (k Keys) GrantsOf(caller string) string { return k.GrantsPrefix() + escape(caller) + "/" }

// GrantsPrefix is the prefix of all grant records.
func (k Keys) GrantsPrefix() string { return k.root + "grants/" }

// ReaperLock is the elected lock of whoever reaps for absent nodes.
func (k Keys) ReaperLock() string { return k.LocksPrefix() + "reaper" }

// Service is a VLAN service's record.
func (k Keys) Service(name string) string { return k.ServicesPrefix() + escape(name) }

// ServicesPrefix is the prefix of all VLAN services.
func (k Keys) ServicesPrefix() string { return k.root + "services/" }

// ServiceLock is the lock of whoever works on a VLAN service.
func (k Keys) ServiceLock(name string) string { return k.LocksPrefix() + "service/" + escape(name) }

// Recovery is what a node has said of itself since an adoption began.
func (k Keys) Recovery(node string) string { return k.RecoveryPrefix() + escape(node) }

// RecoveryPrefix is the prefix of what nodes have said.
func (k Keys) RecoveryPrefix() string { return k.root + "recovery/" }

// Recovered is the mark beside a key of this root that was re-asserted: how new
// the assertion was.
func (k Keys) Recovered(key string) string {
	return k.RecoveredPrefix() + strings.TrimPrefix(key, k.root)
}

// RecoveredPrefix is the prefix of those marks.
func (k Keys) RecoveredPrefix() string { return k.root + "recovered/" }

// formatID writes an id with ten digits, so that the order of keys is numeric.
func formatID(id uint32) string { return fmt.Sprintf("%010d", id) }

func parseID(s string) (uint32, bool) {
	if len(s) != 10 {
		return 0, false
	}
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseUint(s, 10, 64)
	return uint32(n), err == nil && n <= math.MaxUint32
}
