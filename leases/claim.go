package leases

import (
	"crypto/rand"
	"slices"
	"time"
)

// format is the record format this version writes and reads.
const format = 1

// Bounds of what a claim may carry; a record beyond them is refused.
const (
	maxRequesters = 64
	maxNodes      = 4096
	maxText       = 1024
	maxBlock      = 1 << 24
)

// Claim is the persistent key that says who has an id and in which state. It
// carries no etcd lease: only a transaction ends it.
type Claim struct {
	V int `json:"v"`
	// Of is the id that it claims, as in "uid/70012", so that a record at another's
	// key is refused.
	Of    string `json:"of,omitempty"`
	State State  `json:"state"`
	Pool  string `json:"pool,omitempty"`
	// Count is the block size: the claim stands for Count ids from its id on.
	Count uint32 `json:"count"`
	// Nodes are those on which something may run under the id.
	Nodes  []Presence `json:"nodes,omitempty"`
	Caller string     `json:"caller,omitempty"`
	Holder string     `json:"holder,omitempty"`
	Key    string     `json:"key,omitempty"`
	// Service is the record that a VLAN belongs to and ends with; no grant record then.
	Service string `json:"service,omitempty"`
	// Attribute is what the request called the id, such as "north_vlan_id".
	Attribute string `json:"attribute,omitempty"`
	// Token is the random name of the grant; what a release compares.
	Token string `json:"token"`
	// Grouped tells that a grant record lists this claim.
	Grouped   bool      `json:"grouped,omitempty"`
	Epoch     string    `json:"epoch"`
	GrantedAt time.Time `json:"granted_at"`
	Since     time.Time `json:"since"`
	// Released: a bound requester released it, so it ends with the last one.
	Released bool `json:"released,omitempty"`
	// Reclaimed: quarantined by reclaim; found running again it is used again.
	Reclaimed  bool   `json:"reclaimed,omitempty"`
	ReasonCode string `json:"reason_code,omitempty"`
	Reason     string `json:"reason,omitempty"`
	// Write is random in every write, so that equal bytes mean the same write.
	Write string `json:"w"`
}

// Reason codes of a claim.
const (
	ReasonReleased  = "released"
	ReasonOperator  = "released_by_operator"
	ReasonHoldLost  = "hold_lost"
	ReasonBoot      = "rebooted"
	ReasonFenced    = "fenced"
	ReasonLeft      = "left"
	ReasonReclaim   = "reclaimed"
	ReasonForeign   = "foreign"
	ReasonReserved  = "reserved"
	ReasonUnreserve = "unreserved"
	ReasonNotHanded = "not_handed_out"
)

// Presence is one node's part in a claim.
type Presence struct {
	Node string `json:"node"`
	Boot string `json:"boot"`
	// Idle: nothing runs there under the id and no bound requester lives.
	Idle bool `json:"idle,omitempty"`
	// Confirmed: the hand-over on this node is over.
	Confirmed  bool        `json:"confirmed,omitempty"`
	Requesters []Requester `json:"requesters,omitempty"`
}

// Kinds of a hold.
const (
	HoldTTL = "ttl"
	HoldPID = "pid"
	// HoldConn is a connection to the node's agent, which knows it by the
	// requester's name; PID and what follows it say whose, where that is known.
	HoldConn = "connection"
	// HoldNone starts nothing: what stands for a keep or an adoption that no
	// requester is left of.
	HoldNone = "none"
)

// Requester is one party that an id is being, or was, handed to.
type Requester struct {
	ID   string `json:"id"`
	Hold string `json:"hold"`
	// Keep: it confirmed with keep; only its own release, its caller's or an
	// operator's ends its part (rule 40).
	Keep bool `json:"keep,omitempty"`
	// Deadline of a TTL hold in nanoseconds of the node's CLOCK_BOOTTIME, and
	// Until the same moment for people.
	Deadline int64     `json:"deadline,omitempty"`
	Until    time.Time `json:"until,omitzero"`
	// PID, Start, PIDNS and Session name the process of a pid hold; Since is the
	// moment of the request on the clock of Start.
	PID     int    `json:"pid,omitempty"`
	Start   uint64 `json:"start,omitempty"`
	PIDNS   uint64 `json:"pidns,omitempty"`
	Session int    `json:"session,omitempty"`
	Since   uint64 `json:"since,omitempty"`
}

// NewToken returns a fresh random name for a grant, a requester or a write.
func NewToken() string { return rand.Text() }

// shortToken names a write: 60 random bits.
func shortToken() string { return rand.Text()[:12] }

// clone is a deep copy that shares nothing which a decision may change.
func (c *Claim) clone() *Claim {
	d := *c
	d.Nodes = slices.Clone(c.Nodes)
	for i := range d.Nodes {
		d.Nodes[i].Requesters = slices.Clone(d.Nodes[i].Requesters)
	}
	return &d
}

// On returns the part of node in the claim, nil if it names it not.
func (c *Claim) On(node string) *Presence {
	for i := range c.Nodes {
		if c.Nodes[i].Node == node {
			return &c.Nodes[i]
		}
	}
	return nil
}

// NodeNames lists the nodes named.
func (c *Claim) NodeNames() []string {
	names := make([]string, len(c.Nodes))
	for i := range c.Nodes {
		names[i] = c.Nodes[i].Node
	}
	return names
}

// Kept tells whether some node confirmed the claim with keep.
func (c *Claim) Kept() bool {
	return slices.ContainsFunc(c.Nodes, func(p Presence) bool { return p.kept() })
}

// kept tells whether a requester of the node keeps the grant.
func (p *Presence) kept() bool {
	return slices.ContainsFunc(p.Requesters, func(r Requester) bool { return r.Keep })
}

// Requester returns the requester with this id on the node, nil if there is none.
func (p *Presence) Requester(id string) *Requester {
	for i := range p.Requesters {
		if p.Requesters[i].ID == id {
			return &p.Requesters[i]
		}
	}
	return nil
}
