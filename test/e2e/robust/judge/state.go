package judge

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/test/e2e/robust/record"
)

// What stands in etcd, as far as the judge looks at it. The types are its own: a
// mistake in the engine's must not be shared.

// States of a claim.
const (
	locked      = "locked"
	used        = "used"
	idle        = "idle"
	quarantined = "quarantined"
	reserved    = "reserved"
)

// foreign is the reason of a claim for an id that was found in use.
const foreign = "foreign"

type claim struct {
	State      string     `json:"state"`
	Pool       string     `json:"pool"`
	Count      uint32     `json:"count"`
	Nodes      []presence `json:"nodes"`
	Caller     string     `json:"caller"`
	Key        string     `json:"key"`
	Service    string     `json:"service"`
	Token      string     `json:"token"`
	Grouped    bool       `json:"grouped"`
	Epoch      string     `json:"epoch"`
	Reclaimed  bool       `json:"reclaimed"`
	ReasonCode string     `json:"reason_code"`
	Reason     string     `json:"reason"`

	rev int64 // of the write
}

type presence struct {
	Node       string      `json:"node"`
	Boot       string      `json:"boot"`
	Requesters []requester `json:"requesters"`
}

type requester struct {
	ID string `json:"id"`
}

// held tells whether the claim belongs to a live grant.
func (c *claim) held() bool {
	return c != nil && (c.State == locked || c.State == used || c.State == idle)
}

func (c *claim) names(node string) bool {
	return slices.ContainsFunc(c.Nodes, func(p presence) bool { return p.Node == node })
}

type lock struct {
	token string
	lease int64
}

type node struct {
	State      string `json:"state"` // active, left, fenced
	Role       string `json:"role"`
	Machine    string `json:"machine"`
	Boot       string `json:"boot"`
	FencedBoot string `json:"fenced_boot"`
}

type alive struct {
	Nonce   string `json:"nonce"`
	Counter uint64 `json:"counter"`
	Machine string `json:"machine"`
	lease   int64
}

type proof struct {
	Epoch    string               `json:"epoch"`
	Boot     string               `json:"boot"`
	Machine  string               `json:"machine"`
	Revision int64                `json:"revision"`
	InUse    map[string]idset.Set `json:"in_use"`
	rev      int64
}

type meta struct {
	Epoch  string `json:"epoch"`
	Number uint64 `json:"number"`
	State  string `json:"state"`
}

type pool struct {
	Ranges   idset.Set       `json:"ranges"`
	Exclude  idset.Set       `json:"exclude"`
	Scope    string          `json:"scope"`
	Proof    string          `json:"proof"`
	Cooldown int64           `json:"cooldown"` // nanoseconds
	Block    uint32          `json:"block"`
	Outside  json.RawMessage `json:"outside"`
	firsts   idset.Set
}

// grantRecord lists the ids that end together.
type grantRecord struct {
	Digest string  `json:"digest"`
	Token  string  `json:"token"`
	IDs    []idRef `json:"ids"`
	Ended  bool    `json:"ended"`
}

type idRef struct {
	Space string `json:"space"`
	ID    uint32 `json:"id"`
}

func (r idRef) id() record.ID { return record.ID(r.Space + "/" + strconv.FormatUint(uint64(r.ID), 10)) }

func (r *grantRecord) lists(id record.ID) bool {
	return slices.ContainsFunc(r.IDs, func(x idRef) bool { return x.id() == id })
}

type service struct {
	State      string      `json:"state"`
	Token      string      `json:"token"`
	Attributes []attribute `json:"attributes"`
	Then       string      `json:"then"`
	ReasonCode string      `json:"reason_code"`
}

type attribute struct {
	Name      string  `json:"name"`
	Inventory string  `json:"inventory"`
	Outside   bool    `json:"outside"`
	VID       *uint32 `json:"vid"`
	Token     string  `json:"token"`
}

func (a *attribute) id() record.ID {
	return record.ID("vlan/" + a.Inventory + "/" + strconv.FormatUint(uint64(*a.VID), 10))
}

// got yields the VLANs of etcd's inventories that the record lists; nil record: none.
func (s *service) got() map[record.ID]string {
	if s == nil {
		return nil
	}
	all := map[record.ID]string{}
	for i := range s.Attributes {
		if a := &s.Attributes[i]; a.VID != nil && !a.Outside {
			all[a.id()] = a.Token
		}
	}
	return all
}

// idOf reads SPACE/ID below claims/ or locks/ and writes the id without leading
// zeros; false where it is no id, such as locks/reaper.
func idOf(rest string) (record.ID, bool) {
	cut := strings.LastIndexByte(rest, '/')
	if cut < 0 || len(rest)-cut-1 != 10 || strings.HasPrefix(rest, "service/") {
		return "", false
	}
	n, err := strconv.ParseUint(rest[cut+1:], 10, 32)
	if err != nil {
		return "", false
	}
	return record.ID(rest[:cut+1] + strconv.FormatUint(n, 10)), true
}

// split is the reverse: the space and the number.
func split(id record.ID) (string, uint32) {
	cut := strings.LastIndexByte(string(id), '/')
	n, _ := strconv.ParseUint(string(id[cut+1:]), 10, 32)
	return string(id[:max(cut, 0)]), uint32(n)
}

func vlan(id record.ID) bool { return strings.HasPrefix(string(id), "vlan/") }

// scoped is the node of a node-scoped uid's space.
func scoped(id record.ID) (string, bool) {
	space, _ := split(id)
	return strings.CutPrefix(space, "uid@")
}
