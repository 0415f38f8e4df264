package leases

import (
	"fmt"
	"slices"
	"time"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/idset"
)

// Ref names one id of one space.
type Ref struct {
	Space cluster.Space `json:"space"`
	ID    uint32        `json:"id"`
}

// String prints space and id the way keys do: "uid/70012".
func (r Ref) String() string { return fmt.Sprintf("%s/%d", r.Space, r.ID) }

// vlan tells whether it is a VLAN: no process runs under it, and no node proves it.
func (r Ref) vlan() bool {
	_, ok := r.Space.Inventory()
	return ok
}

// span is the ids of a claim that stands for count of them.
func (r Ref) span(count uint32) idset.Range {
	return idset.Range{Lower: r.ID, Higher: r.ID + count - 1}
}

func (r Ref) compare(o Ref) int {
	if r.Space != o.Space {
		if r.Space < o.Space {
			return -1
		}
		return 1
	}
	return int(int64(r.ID) - int64(o.ID))
}

// Record answers a repeated request under an allocation key, and says which ids
// end together. It is kept for a day as ended after the grant is over.
//
// Its caller and key, or token, are its place: it is refused at any other.
type Record struct {
	V int `json:"v"`
	// Digest is of the request; another one under the key is refused.
	Digest  string    `json:"digest"`
	Request string    `json:"request"`
	Token   string    `json:"token"`
	Caller  string    `json:"caller"`
	Key     string    `json:"key,omitempty"`
	IDs     []Ref     `json:"ids"`
	Ended   bool      `json:"ended,omitempty"`
	Epoch   string    `json:"epoch"`
	Since   time.Time `json:"since"`
	Write   string    `json:"w"`
}

// recordName is the last part of a record's key: by allocation key, or by token
// for a group without one.
func recordName(key, token string) string {
	if key != "" {
		return "key:" + key
	}
	return "token:" + token
}

// without returns the record after ref ended: ended with its last id.
func (r *Record) without(ref Ref, now time.Time) *Record {
	d := *r
	d.IDs = slices.DeleteFunc(slices.Clone(r.IDs), func(x Ref) bool { return x == ref })
	if len(d.IDs) == 0 && !d.Ended {
		d.IDs, d.Ended, d.Since = r.IDs, true, now
	}
	return &d
}

// with returns the record after ref came back to its grant: a reclaim undone.
func (r *Record) with(ref Ref, now time.Time) *Record {
	d := *r
	if d.Ended {
		d.Ended, d.Since = false, now
	}
	if !slices.Contains(d.IDs, ref) {
		d.IDs = append(slices.Clone(d.IDs), ref)
	}
	return &d
}

// Node states as stored; absent is active without presence.
const (
	nodeActive = "active"
	nodeLeft   = "left"
	nodeFenced = "fenced"
)

// Roles of a node.
const (
	RoleNode    = "node"
	RoleGateway = "gateway"
)

// Node is the registration of a machine.
type Node struct {
	V int `json:"v"`
	// Of is the node's name, so that a record at another's key is refused.
	Of      string `json:"of,omitempty"`
	State   string `json:"state"`
	Role    string `json:"role"`
	Machine string `json:"machine"`
	Boot    string `json:"boot"`
	PIDNS   uint64 `json:"pidns"`
	// Secret is the SHA-256 of the random secret in the agent's data directory.
	Secret string    `json:"secret"`
	Since  time.Time `json:"since"`
	Reason string    `json:"reason,omitempty"`
	// FencedBoot is the boot that was fenced: it never registers again.
	FencedBoot string `json:"fenced_boot,omitempty"`
	// Epoch is the one in which this was written: a fence or a leave of an epoch
	// before an adoption is void, since it may have been taken back after the snapshot.
	Epoch string `json:"in_epoch,omitempty"` // not "epoch": a report has that
	Write string `json:"w"`
}

// Alive is a node's presence, under its session's lease. Its bytes are the
// session guard: every mutation of the agent compares them.
type Alive struct {
	V       int    `json:"v"`
	Of      string `json:"of,omitempty"` // as Node's
	Nonce   string `json:"nonce"`
	Counter uint64 `json:"counter"`
	Machine string `json:"machine"`
	Secret  string `json:"secret"`
	Version string `json:"version,omitempty"`
	PID     int    `json:"pid"`
	Address string `json:"address,omitempty"`
	// NoProof says why the node cannot prove ids unused, "" if it can.
	NoProof string `json:"no_proof,omitempty"`
}

// Members is rewritten by everything that changes whose proof may be due.
type Members struct {
	V     int    `json:"v"`
	By    string `json:"by"`
	Did   string `json:"did"`
	Write string `json:"w"`
}

// Proof is a node's report: which quarantined ids it found in use, or about to
// be, at a revision it had seen before its scan began.
type Proof struct {
	V        int                         `json:"v"`
	Of       string                      `json:"of,omitempty"` // as Node's
	Epoch    string                      `json:"epoch"`
	Boot     string                      `json:"boot"`
	Machine  string                      `json:"machine"`
	Revision int64                       `json:"revision"`
	InUse    map[cluster.Space]idset.Set `json:"in_use,omitempty"`
	// Left says what was left behind of ids that are listed for that alone, by
	// their names, as in "uid/70012".
	Left  map[string]string `json:"left,omitempty"`
	Write string            `json:"w"`
}

// lists tells whether the proof found one of the claim's ids in use.
func (p *Proof) lists(ref Ref, count uint32) bool {
	set, ok := p.InUse[ref.Space]
	if !ok {
		return false
	}
	return !set.Intersect(idset.Of(ref.span(count))).IsEmpty()
}
