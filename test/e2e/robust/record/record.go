// Package record is what a robustness run writes down, and what the judge reads:
// calls of clients, processes that ran, faults, and etcd's complete history. One
// clock orders all of it: monotonic time since the run began, taken by one process.
package record

import "time"

// ID names an id as its claim's key does, below claims/: uid/70012,
// vlan/north/100.
type ID string

// Kind is what a client asked for.
type Kind string

// The calls that clients make.
const (
	RequestUID        Kind = "request-uid"       // one uid or several, under one token
	JoinUID           Kind = "join-uid"          // the same grant at another node
	ConfirmUID        Kind = "confirm-uid"       // Unlock: the process runs
	RenewUID          Kind = "renew-uid"         // the hold, for longer
	ReleaseUID        Kind = "release-uid"       // by a requester of its own part
	ReleaseByOperator Kind = "release-operator"  // of the whole grant, by nobody's requester
	Allocate          Kind = "allocate"          // uids and VLANs under one key
	Deallocate        Kind = "deallocate"        // the end of such an allocation
	CreateService     Kind = "create-service"    // both VLANs or none
	ProvisionService  Kind = "provision-service" // devices are about to be touched
	ConfirmService    Kind = "confirm-service"   // it is up
	FailService       Kind = "fail-service"      // provisioning failed: compensation
	DeleteService     Kind = "delete-service"    // its end
	ChangePool        Kind = "change-pool"       // ranges grow or shrink
	FenceNode         Kind = "fence-node"        // the operator's word that it is off
	UnfenceNode       Kind = "unfence-node"      // and that it may come back
	RemoveNode        Kind = "remove-node"       // and that it will not
	Look              Kind = "look"              // a read that changes nothing
)

// Outcome is what the client knows afterwards.
type Outcome string

// The outcomes. Unknown stays open for ever: it may have been done at any time
// after Call, or never.
const (
	OK      Outcome = "ok"
	Refused Outcome = "refused"
	Unknown Outcome = "unknown"
)

// Want is a part of a request: Count ids of a uid pool or a VLAN inventory.
type Want struct {
	Pool      string `json:"pool,omitempty"`
	Inventory string `json:"inventory,omitempty"`
	Count     int    `json:"count"`
}

// Op is one call of one client. A client is serial: its next Call is not before
// its last Return, but for a call without answer.
type Op struct {
	Client    string  `json:"client"`
	N         int     `json:"n"` // of the client, from 1
	Node      string  `json:"node"`
	Kind      Kind    `json:"kind"`
	Key       string  `json:"key,omitempty"` // allocation key, or the service's name
	Requester string  `json:"requester,omitempty"`
	Wants     []Want  `json:"wants,omitempty"`
	Target    string  `json:"target,omitempty"` // a node or pool that it is about
	Token     string  `json:"token,omitempty"`  // given, or granted
	IDs       []ID    `json:"ids,omitempty"`    // given, or granted
	Same      bool    `json:"same,omitempty"`   // the key had this grant already
	Outcome   Outcome `json:"outcome"`
	Code      string  `json:"code,omitempty"` // of the problem
	Error     string  `json:"error,omitempty"`
	Call      Instant `json:"call"`
	Return    Instant `json:"return,omitempty"` // 0: no answer
}

// Process is a process that ran under an id at least from From to Until, on a
// node. Until 0: it was never seen to end.
type Process struct {
	Node  string  `json:"node"`
	ID    ID      `json:"id"`
	Token string  `json:"token"` // of the grant that it was started for
	From  Instant `json:"from"`
	Until Instant `json:"until,omitempty"`
}

// Fault is one disturbance, from its beginning to its healing.
type Fault struct {
	Name   string  `json:"name"`
	Detail string  `json:"detail,omitempty"`
	From   Instant `json:"from"`
	Until  Instant `json:"until,omitempty"`
	Error  string  `json:"error,omitempty"` // it could not be injected or healed
}

// Change is one event of etcd's history. Key is relative to idpool's root; a nil
// Value is a deletion. Events of one revision are one transaction. Era counts the
// restores before it: each begins another history, whose revisions may be those of
// the one before once more.
type Change struct {
	Era      int     `json:"era,omitempty"`
	Revision int64   `json:"revision"`
	Key      string  `json:"key"`
	Value    []byte  `json:"value,omitempty"`
	Lease    int64   `json:"lease,omitempty"`
	Seen     Instant `json:"seen"`
}

// Cut is a restore of etcd: the history of an era ends, and the next goes on behind
// revision Begins with what stood at revision Snapshot of the one before.
type Cut struct {
	Snapshot int64 `json:"snapshot"`
	Begins   int64 `json:"begins"`
	// Stopped is when the last member had ended.
	Stopped Instant `json:"stopped"`
}

// Instant is time since the run began, on one monotonic clock.
type Instant = time.Duration

// Run is all that was recorded of one run.
type Run struct {
	Seed      int64     `json:"seed"`
	Commit    string    `json:"commit"`
	Started   time.Time `json:"started"`
	Only      []string  `json:"only,omitempty"` // the faults that it was restricted to
	Ops       []Op      `json:"-"`
	Processes []Process `json:"-"`
	Faults    []Fault   `json:"-"`
	Changes   []Change  `json:"-"`
	// Cuts are the restores, one between an era and the next.
	Cuts []Cut `json:"cuts,omitempty"`
	// Quiet is when the last fault was healed and the clients ended; Left are the
	// keys below claims/ and locks/ that stood at the end of the quiet time.
	Quiet Instant           `json:"quiet"`
	Left  map[string][]byte `json:"left"`
}
