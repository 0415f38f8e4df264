package api

import (
	"time"

	"github.com/idpool/idpool/problem"
)

// States of an id, as they stand in UID.State.
const (
	StateLocked      = "locked"
	StateUsed        = "used"
	StateIdle        = "idle"
	StateQuarantined = "quarantined"
	StateReserved    = "reserved"
	StateFree        = "free"
)

// UID is one uid as the agent shows it.
type UID struct {
	UID   uint32 `json:"uid"`
	GID   uint32 `json:"gid"`
	Count uint32 `json:"count" doc:"ids of this grant from uid on: the block size of the pool"`
	Pool  string `json:"pool"`
	State string `json:"state" enum:"free,locked,used,idle,quarantined,reserved"`
	// Nodes are those on which something may run under the uid.
	Nodes  []string `json:"nodes"`
	Caller string   `json:"caller,omitempty" example:"unix:1000"`
	Holder string   `json:"holder,omitempty"`
	Key    string   `json:"key,omitempty"`
	// Token names the grant; shown to its caller and to operators only.
	Token string `json:"token,omitempty"`
	// Requester names one of the parties that the grant was handed to on this
	// node; only in the answer to a request or join.
	Requester  string     `json:"requester,omitempty"`
	Hold       *Hold      `json:"hold,omitempty"`
	GrantedAt  *time.Time `json:"granted_at,omitempty"`
	StateSince *time.Time `json:"state_since,omitempty"`
	// Running tells whether the answering node sees a process under the uid.
	Running         bool               `json:"running"`
	InPool          bool               `json:"in_pool"`
	ConfirmedInEtcd bool               `json:"confirmed_in_etcd"`
	Keep            bool               `json:"keep,omitempty" doc:"confirmed with keep: never reclaimed"`
	Reason          string             `json:"reason"`
	ReasonCode      string             `json:"reason_code"`
	WaitsFor        []problem.WaitsFor `json:"waits_for"`
	NotBefore       *time.Time         `json:"not_before"`
	Revision        int64              `json:"revision,omitempty" doc:"etcd mod revision of the claim"`
}

// Kinds of a hold.
const (
	// HoldTTL ends at a time; the caller's word to start nothing after it.
	HoldTTL = "ttl"
	// HoldPID ends when the process and whatever it forked since in its session
	// are gone or run under the uid.
	HoldPID = "pid"
	// HoldConnection ends when the connection does over which the uid was asked
	// for, and what the process at its end has forked since in its session is gone
	// or runs under the uid.
	HoldConnection = "connection"
)

// Hold keeps a grant locked until it is confirmed.
type Hold struct {
	Kind string `json:"kind" enum:"ttl,pid,connection"`
	// TTL is a Go duration ("5m"), in requests; 1s to 24h.
	TTL string `json:"ttl,omitempty"`
	// PID is the process of a pid hold; 0 in requests: the one that asks, by the
	// kernel's word. In answers also whose connection it is.
	PID int `json:"pid,omitempty"`
	// Until is when a TTL hold ends, in answers.
	Until *time.Time `json:"until,omitempty"`
}

// UIDRequestBody is the body of POST /v1/uid-pools/POOL/uids.
type UIDRequestBody struct {
	From   string `json:"from,omitempty" doc:"only uids of these ranges, e.g. 70000-70099"`
	UID    uint32 `json:"uid,omitempty" doc:"this uid and no other"`
	Count  uint32 `json:"count,omitempty" minimum:"0" maximum:"60" doc:"ids granted together, 1 if absent"`
	Key    string `json:"key,omitempty" maxLength:"256" doc:"allocation key: the caller's name for this request"`
	Holder string `json:"holder,omitempty" maxLength:"256" doc:"free text shown to others"`
	Hold   *Hold  `json:"hold,omitempty" doc:"default: ttl 5m"`
	Wait   string `json:"wait,omitempty" doc:"how long to wait for a uid when none is free, a Go duration"`
	// Requester names this request: sent again it binds nobody twice.
	Requester string `json:"requester,omitempty" maxLength:"100" pattern:"^[A-Za-z0-9]*$" doc:"random, of the client; the agent makes one if absent"`
}

// StreamEvent is one line of the answer to a request with a connection hold.
type StreamEvent struct {
	// Event is granted (the first line), alive (now and then, so that a dead
	// connection is noticed) or lost (the uid is the grant's no longer).
	Event string `json:"event" enum:"granted,alive,lost"`
	Grant *Grant `json:"grant,omitempty"`
	UID   uint32 `json:"uid,omitempty"`
	// Reason says why a uid is lost.
	Reason     string `json:"reason,omitempty"`
	ReasonCode string `json:"reason_code,omitempty"`
}

// Events of a connection hold.
const (
	EventGranted = "granted"
	EventAlive   = "alive"
	EventLost    = "lost"
)

// StreamType is the media type of a stream of [StreamEvent]: one JSON object a line.
const StreamType = "application/jsonl"

// Grant is the answer to a request: one or several uids under one token.
type Grant struct {
	Token     string `json:"token"`
	Key       string `json:"key,omitempty"`
	Requester string `json:"requester"`
	// Same tells that the allocation key had this grant already.
	Same  bool  `json:"same"`
	Items []UID `json:"items"`
}

// ConfirmBody is the body of POST /v1/uids/UID/confirm.
type ConfirmBody struct {
	Keep bool `json:"keep,omitempty" doc:"confirm although nothing runs; never reclaimed"`
	// Requester says who keeps the uid: its release ends the keep.
	Requester string `json:"requester,omitempty" maxLength:"100"`
}

// RenewBody is the body of POST /v1/uids/UID/renew.
type RenewBody struct {
	TTL string `json:"ttl,omitempty" doc:"from now on, a Go duration; default 5m"`
	// Requester says whose hold; absent, those of all requesters here.
	Requester string `json:"requester,omitempty" maxLength:"100"`
}

// JoinBody is the body of POST /v1/uids/UID/nodes: this node joins the grant.
type JoinBody struct {
	Hold *Hold `json:"hold,omitempty"`
}

// AdoptBody is the body of POST /v1/uids/UID/adopt: a foreign uid becomes a grant.
type AdoptBody struct {
	Pool   string `json:"pool,omitempty"`
	Holder string `json:"holder,omitempty"`
	Key    string `json:"key,omitempty"`
}

// Released is the answer to a release.
type Released struct {
	// Items are the uids as they are after it; empty where the grant was over
	// already. State free means that the uid can be granted again.
	Items []UID `json:"items"`
	// Changed is false where nothing was left to do.
	Changed bool `json:"changed"`
}

// List is a page of items; Next is the cursor of the next page, "" at the end.
type List[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next,omitempty"`
}

// UIDFilter selects uids; empty fields select all.
type UIDFilter struct {
	State, Node, Pool, Holder, Key string
	// UIDs restricts to ranges, e.g. "70000-70099".
	UIDs string
	// PID restricts to grants bound to this process of the answering node.
	PID int
}

// Pool is a uid pool with its policy and, in answers, its counts.
type Pool struct {
	Name    string `json:"name,omitempty"`
	Ranges  string `json:"ranges" doc:"e.g. 70000-70009,70020"`
	Exclude string `json:"exclude,omitempty"`
	PoolPolicy
	// Size is the number of grantable ids (ranges less exclude); blocks count as one.
	Size uint64 `json:"size,omitempty"`
	// Counts are ids by state: free, locked, used, idle, quarantined, reserved, outside.
	Counts   map[string]uint64 `json:"counts,omitempty"`
	Low      bool              `json:"low,omitempty" doc:"free ids are below low_water"`
	Warnings []string          `json:"warnings,omitempty"`
	Revision int64             `json:"revision,omitempty"`
}

// PoolPolicy is how a pool's ids are handed out and come back. Empty fields
// take the default named.
type PoolPolicy struct {
	Scope    string `json:"scope,omitempty" enum:"cluster,node" doc:"default cluster"`
	Order    string `json:"order,omitempty" enum:"random,lowest,rotate" doc:"default random"`
	Proof    string `json:"proof,omitempty" enum:"holders,cluster,none" doc:"default holders"`
	Cooldown string `json:"cooldown,omitempty" doc:"a Go duration, default 0"`
	Reclaim  string `json:"reclaim,omitempty" doc:"when-needed (default), never, or after=DURATION"`
	ScanAge  string `json:"scan_age,omitempty" doc:"how old the /proc scan behind a hand-out may be, default 0: its own"`
	Block    uint32 `json:"block,omitempty" doc:"ids a grant takes, aligned; default 1"`
	LowWater string `json:"low_water,omitempty" doc:"a count or a percentage, default 10%"`
	// What a uid's processes left behind keeps it in quarantine, unless it is removed.
	RemoveIPC    *bool `json:"remove_ipc,omitempty" doc:"remove System V IPC, shared memory and message queues of released uids; default false"`
	ClearKeyring *bool `json:"clear_keyring,omitempty" doc:"clear the user keyrings of released uids; default false"`
}

// PoolPatch changes a pool: Add, then Remove, then the fields given.
// (Ganeti's modify --add-uids, --remove-uids, --uid-pool.)
type PoolPatch struct {
	Add     string  `json:"add,omitempty"`
	Remove  string  `json:"remove,omitempty"`
	Ranges  *string `json:"ranges,omitempty"`
	Exclude *string `json:"exclude,omitempty"`
	PoolPolicy
}

// Reservation is the body of POST /v1/reservations.
type Reservation struct {
	Ranges string `json:"ranges"`
	Reason string `json:"reason"`
}

// ReservationResult tells what a reserve or unreserve did.
type ReservationResult struct {
	Ranges  string `json:"ranges" doc:"the ids now reserved, or no longer so"`
	Changed uint64 `json:"changed"`
}

// States of a node.
const (
	NodeActive = "active"
	NodeAbsent = "absent"
	NodeLeft   = "left"
	NodeFenced = "fenced"
)

// Node is a machine as etcd knows it.
type Node struct {
	Name      string     `json:"name"`
	State     string     `json:"state" enum:"active,absent,left,fenced"`
	Since     *time.Time `json:"since,omitempty"`
	LastSeen  *time.Time `json:"last_seen,omitempty"`
	Reason    string     `json:"reason,omitempty"`
	MachineID string     `json:"machine_id,omitempty"`
	BootID    string     `json:"boot_id,omitempty"`
	Address   string     `json:"address,omitempty"`
	Version   string     `json:"version,omitempty"`
	PID       int        `json:"pid,omitempty"`
	// Holds is the number of claims that name the node, by state.
	Holds map[string]uint64 `json:"holds,omitempty"`
	// ProofRevision is the etcd revision of its last report, 0 if none.
	ProofRevision int64 `json:"proof_revision,omitempty"`
	// WaitedFor is the number of quarantined ids that wait for its report.
	WaitedFor uint64 `json:"waited_for,omitempty"`
	// NoProof says why it cannot prove anything, "" if it can.
	NoProof string `json:"no_proof,omitempty"`
}

// NodeAction is the body of POST /v1/nodes/NODE/fence, unfence and leave.
type NodeAction struct {
	Reason string `json:"reason,omitempty"`
	DryRun bool   `json:"dry_run,omitempty"`
	Force  bool   `json:"force,omitempty"`
}

// NodeResult tells what a node action did, or with dry_run would do.
type NodeResult struct {
	Node Node `json:"node"`
	// Frees are the uids that would wait for the node no longer.
	Frees  string `json:"frees,omitempty"`
	Count  uint64 `json:"count"`
	DryRun bool   `json:"dry_run,omitempty"`
}

// Status is GET /v1/status.
type Status struct {
	Node        string   `json:"node"`
	State       string   `json:"state"`
	Version     string   `json:"version"`
	PID         int      `json:"pid"`
	Socket      string   `json:"socket"`
	Listen      string   `json:"listen,omitempty" doc:"HOST:PORT where the agent answers with TLS too"`
	Endpoints   []string `json:"endpoints"`
	Embedded    bool     `json:"embedded,omitempty"`
	ClusterID   string   `json:"cluster_id"`
	Epoch       string   `json:"epoch"`
	EpochNumber uint64   `json:"epoch_number"`
	EpochState  string   `json:"epoch_state"`
	Revision    int64    `json:"revision" doc:"etcd revision this agent has seen"`
	MirrorStale string   `json:"mirror_stale,omitempty" doc:"why the mirror gives no hints"`
	Session     string   `json:"session" enum:"live,lost"`
	// NoProof says why this node cannot prove ids unused, "" if it can.
	NoProof string `json:"no_proof,omitempty"`
	// Ready is false where a uid request would be refused; NotReady says why.
	Ready    bool              `json:"ready"`
	NotReady []string          `json:"not_ready,omitempty"`
	Pools    []Pool            `json:"pools"`
	Nodes    []Node            `json:"nodes"`
	Counts   map[string]uint64 `json:"counts"`
	// Inventories are those of VLANs, Services the number of services by state.
	Inventories []Inventory       `json:"inventories"`
	Services    map[string]uint64 `json:"services"`
	// Unreadable are keys under the root that this version cannot read.
	Unreadable []string `json:"unreadable,omitempty"`
	// Settings is the configuration as it is in effect.
	Settings []Setting `json:"settings,omitempty"`
	// Recovery is there while a restore of etcd keeps the cluster, or left something.
	Recovery *Recovery `json:"recovery,omitempty"`
}

// Recovery is how the cluster stands to a restore of etcd.
type Recovery struct {
	Adopted bool       `json:"adopted" doc:"an operator goes on with the restored etcd; false: nobody has said so"`
	Since   *time.Time `json:"since,omitempty"`
	By      string     `json:"by,omitempty" doc:"the node that saw it, or the operator who adopted it"`
	Reason  string     `json:"reason,omitempty"`
	Seen    string     `json:"seen,omitempty" doc:"what this node saw itself"`
	// WaitsFor are the nodes that have not said what they hold.
	WaitsFor []problem.WaitsFor `json:"waits_for"`
	// Disputed is what an operator must decide.
	Disputed []Disputed `json:"disputed"`
}

// Disputed is an id or record of which two nodes know different things.
type Disputed struct {
	Subject string   `json:"subject"`
	Why     string   `json:"why"`
	Sides   []string `json:"sides"`
}

// Where a setting's value comes from, in rising precedence.
const (
	SourceDefault     = "default"
	SourceFile        = "file"
	SourceEnvironment = "environment"
	SourceFlag        = "flag"
	// SourceOperator is a change while the agent runs, until its next reload.
	SourceOperator = "operator"
)

// Setting is one setting of an agent, as it is in effect.
type Setting struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Source string `json:"source" enum:"default,file,environment,flag,operator"`
	Where  string `json:"where,omitempty" doc:"FILE:LINE, or the variable's name"`
	// Reloads tells that SIGHUP changes it; others need a restart.
	Reloads bool `json:"reloads,omitempty"`
}

// LogLevel is how much an agent logs.
type LogLevel struct {
	Level string `json:"level" enum:"debug,info,warn,error"`
}

// ProblemBody is RFC 9457 problem JSON with idpool's fields.
type ProblemBody struct {
	Type     string             `json:"type"`
	Title    string             `json:"title"`
	Status   int                `json:"status"`
	Code     problem.Code       `json:"code"`
	Detail   string             `json:"detail"`
	Notes    []string           `json:"notes,omitempty"`
	Holder   *problem.Holder    `json:"holder,omitempty"`
	WaitsFor []problem.WaitsFor `json:"waits_for,omitempty"`
	Counts   map[string]uint64  `json:"counts,omitempty"`
	// Attribute is the part of a request that was refused, "" if it has one only.
	Attribute string           `json:"attribute,omitempty"`
	Revision  int64            `json:"revision,omitempty"`
	Try       []problem.Advice `json:"try,omitempty"`
}
