package leases

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/idpool/idpool/problem"
)

// Scope says who agrees about a pool's ids.
type Scope string

// The scopes: one space for the cluster, or one for each node.
const (
	ScopeCluster Scope = "cluster"
	ScopeNode    Scope = "node"
)

// Order says which free id is taken first.
type Order string

// The orders. Random is Ganeti's and keeps agents out of each other's way;
// rotate gives the longest distance between two uses.
const (
	OrderRandom Order = "random"
	OrderLowest Order = "lowest"
	OrderRotate Order = "rotate"
)

// ProofPolicy says whose word frees an id.
type ProofPolicy string

// The proofs: of the nodes named and every other node that is up; of every
// registered node, up or not; of nobody.
const (
	ProofHolders ProofPolicy = "holders"
	ProofCluster ProofPolicy = "cluster"
	ProofNone    ProofPolicy = "none"
)

// Reclaim says when an idle id is taken back without a release.
type Reclaim struct {
	Never bool
	// After is how long an id is idle first; 0 with Never false: when needed.
	After time.Duration
}

// String is "when-needed", "never" or "after=DURATION".
func (r Reclaim) String() string {
	switch {
	case r.Never:
		return "never"
	case r.After > 0:
		return "after=" + r.After.String()
	}
	return "when-needed"
}

// MarshalText writes String's form.
func (r Reclaim) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads String's form; "" is when-needed.
func (r *Reclaim) UnmarshalText(b []byte) error {
	s := string(b)
	switch {
	case s == "" || s == "when-needed":
		*r = Reclaim{}
	case s == "never":
		*r = Reclaim{Never: true}
	case strings.HasPrefix(s, "after="):
		d, err := time.ParseDuration(s[len("after="):])
		if err != nil || d <= 0 {
			return problem.New(problem.CodeInvalid, "reclaim %q: after= takes a positive duration such as after=1h", s)
		}
		*r = Reclaim{After: d}
	default:
		return problem.New(problem.CodeInvalid, "reclaim %q: want when-needed, never or after=DURATION", s)
	}
	return nil
}

// LowWater is a count, or a percentage of the pool.
type LowWater struct {
	Value   uint64
	Percent bool
}

// String is "10%" or "25".
func (l LowWater) String() string {
	if l.Percent {
		return fmt.Sprintf("%d%%", l.Value)
	}
	return strconv.FormatUint(l.Value, 10)
}

// MarshalText writes String's form.
func (l LowWater) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText reads String's form.
func (l *LowWater) UnmarshalText(b []byte) error {
	s, percent := strings.CutSuffix(string(b), "%")
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || (percent && n > 100) {
		return problem.New(problem.CodeInvalid, "low-water %q: want a count such as 25, or a percentage from 0%% to 100%%", b)
	}
	*l = LowWater{n, percent}
	return nil
}

// Below tells whether free ids of size are fewer than the mark.
func (l LowWater) Below(free, size uint64) bool {
	if l.Percent {
		return free*100 < l.Value*size
	}
	return free < l.Value
}

// Policy is how a pool's ids are handed out and come back.
type Policy struct {
	Scope    Scope         `json:"scope"`
	Order    Order         `json:"order"`
	Proof    ProofPolicy   `json:"proof"`
	Cooldown time.Duration `json:"cooldown"`
	Reclaim  Reclaim       `json:"reclaim"`
	ScanAge  time.Duration `json:"scan_age"`
	Block    uint32        `json:"block"`
	LowWater LowWater      `json:"low_water"`
	// RemoveIPC and ClearKeyring say what is removed, of an id in quarantine, of what
	// its processes left behind: System V IPC, shared memory and message queues; the
	// user's keyrings.
	RemoveIPC    bool `json:"remove_ipc,omitempty"`
	ClearKeyring bool `json:"clear_keyring,omitempty"`
}

// DefaultPolicy is that of a uid pool.
func DefaultPolicy() Policy {
	return Policy{Scope: ScopeCluster, Order: OrderRandom, Proof: ProofHolders, Block: 1, LowWater: LowWater{10, true}}
}

// Validate checks every field and their relations; the error names the field.
func (p Policy) Validate() error {
	bad := func(field string, v any, want string) error {
		return problem.New(problem.CodeInvalid, "%s %q: want %s", field, fmt.Sprint(v), want)
	}
	switch {
	case p.Scope != ScopeCluster && p.Scope != ScopeNode:
		return bad("scope", p.Scope, "cluster or node")
	case p.Order != OrderRandom && p.Order != OrderLowest && p.Order != OrderRotate:
		return bad("order", p.Order, "random, lowest or rotate")
	case p.Proof != ProofHolders && p.Proof != ProofCluster && p.Proof != ProofNone:
		return bad("proof", p.Proof, "holders, cluster or none")
	case p.Cooldown < 0 || p.Cooldown > 366*24*time.Hour:
		return bad("cooldown", p.Cooldown, "a duration from 0 to a year")
	case p.ScanAge < 0 || p.ScanAge > time.Minute:
		return bad("scan-age", p.ScanAge, "a duration from 0 to 1m")
	case p.Block < 1 || p.Block > maxBlock || p.Block&(p.Block-1) != 0:
		return bad("block", p.Block, "a power of two from 1 to 16777216")
	}
	return nil
}
