package leases

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/idpool/idpool/problem"
)

// GrantRequest asks for a group of ids, all or none.
type GrantRequest struct {
	Caller, Key, Holder string
	// Requester is who gets them on this node; its ID is set by Grant if empty.
	Requester Requester
	// TTL is how long a TTL hold lasts from the moment of the grant.
	TTL   time.Duration
	Wants []Want
	// Wait is how long to wait for ids when none are free.
	Wait time.Duration
	// Service is the record that VLANs belong to; it takes the grant record's place.
	Service string
	// Document, if not nil, is written in the same transaction, and Drop are claims
	// that end in it, for DropReason.
	Document   *DocumentGrant
	Drop       []TokenRef
	DropReason string
	// Dry answers with what would be granted now, and writes nothing.
	Dry bool
}

// handedOver tells whether the ids are locked until their requester confirms.
// VLANs alone need no hand-over: nothing runs under them.
func (r *GrantRequest) handedOver() bool { return r.Requester.Hold != "" }

// Held is one id of a grant as it stands.
type Held struct {
	Ref
	Claim  *Claim
	ModRev int64
	// Label is the want's.
	Label string
}

// Grant is one answered request.
type Grant struct {
	Token, Key, Requester string
	// Same: the allocation key had this grant already.
	Same bool
	Held []Held
}

// describe is the request in words, and digest its short form that an allocation
// key is compared by (P4): pools, ids and counts; not the holder's text.
func (r *GrantRequest) describe() (text, digest string) {
	var parts []string
	for _, w := range r.Wants {
		s := fmt.Sprintf("%d of %s", w.Count, w.Pool)
		if w.Within != nil {
			s += " from " + w.Within.String()
		}
		if w.Exact != nil {
			t, _ := tradeOf(w.Pool)
			s += fmt.Sprintf(" %s %d", t.id, *w.Exact)
		}
		if w.Offset != nil {
			s += fmt.Sprintf(" at %+d", *w.Offset)
		}
		if w.Label != "" {
			s += " as " + w.Label
		}
		parts = append(parts, s)
	}
	text = strings.Join(parts, " + ")
	sum := sha256.Sum256([]byte(text))
	return clip(text), hex.EncodeToString(sum[:])
}

// count is how many ids are asked for.
func (r *GrantRequest) count() int {
	n := 0
	for _, w := range r.Wants {
		n += w.Count
	}
	return n
}

func (r *GrantRequest) check() error {
	total := 0
	named := map[string]bool{}
	for i := range r.Wants {
		if id := r.Wants[i].Exact; id != nil {
			t, bare := tradeOf(r.Wants[i].Pool)
			what := fmt.Sprintf("%s %d", t.id, *id)
			if t.id == "VLAN" {
				what += " of " + bare
			}
			if named[what] {
				return problem.New(problem.CodeInvalid, "%s is asked for twice in one request", what)
			}
			named[what] = true
		}
		if r.Wants[i].Key != "" && r.Service == "" {
			return problem.New(problem.CodeInvalid, "an allocation key of its own is for the VLANs of a service")
		}
		if _, vlans := InventoryOf(r.Wants[i].Pool); !vlans && !r.handedOver() {
			return problem.New(problem.CodeInvalid, "a request for uids names no hold")
		}
		if r.Wants[i].Count == 0 {
			r.Wants[i].Count = 1
		}
		total += r.Wants[i].Count
		if r.Wants[i].Count < 0 || (r.Wants[i].Exact != nil && r.Wants[i].Count != 1) {
			return problem.New(problem.CodeInvalid, "count %d: want 1 to %d, and 1 where the id is named", r.Wants[i].Count, MaxGroup)
		}
	}
	switch {
	case total == 0:
		return problem.New(problem.CodeInvalid, "the request asks for nothing")
	case total > MaxGroup:
		return problem.New(problem.CodeInvalid, "%d ids in one grant: at most %d fit one etcd transaction", total, MaxGroup).Note("ask in several requests; uid pools can have a block size")
	case len(r.Key) > 256 || len(r.Holder) > 256 || len(r.Caller) > 256:
		return problem.New(problem.CodeInvalid, "key, holder and caller take at most 256 bytes each")
	case r.Caller == "":
		return problem.New(problem.CodeInvalid, "the request has no caller")
	case !r.handedOver() && r.Key == "" && r.Document == nil && !r.Dry:
		// Nobody could find it again if the answer were lost.
		return problem.New(problem.CodeInvalid, "a request for VLANs names neither an allocation key nor a hold")
	}
	return r.checkTies()
}

// uids tells whether any id asked for is a uid.
func (r *GrantRequest) uids() bool {
	return slices.ContainsFunc(r.Wants, func(w Want) bool { return (poolEntry{name: w.Pool}).ofUIDs() })
}
