package api

import (
	"time"

	"github.com/idpool/idpool/problem"
)

// States of a VLAN service.
const (
	ServiceAllocating   = "allocating"
	ServiceAllocated    = "allocated"
	ServiceRejected     = "rejected"
	ServiceProvisioning = "provisioning"
	ServiceUp           = "up"
	ServiceDeallocating = "deallocating"
	ServiceFailed       = "failed"
	// ServiceGone is the state of a service that there is no more.
	ServiceGone = "gone"
)

// Names of the attributes that a service has by default.
const (
	NorthVLAN = "north_vlan_id"
	SouthVLAN = "south_vlan_id"
)

// What becomes of VLANs that were got when another could not be, where an
// outside inventory takes part.
const (
	OnPartialRelease = "release"
	OnPartialKeep    = "keep"
)

// Service is a VLAN service as the agent shows it.
type Service struct {
	Name  string `json:"name"`
	State string `json:"state" enum:"allocating,allocated,rejected,provisioning,up,deallocating,failed,gone"`
	// Attributes by name.
	Attributes map[string]ServiceAttribute `json:"attributes"`
	// Values are the VLAN ids by attribute, null where there is none. 0 is a value.
	Values map[string]*uint32 `json:"values"`
	// Changed is false where the call that this answers found nothing to do.
	Changed    bool   `json:"changed"`
	Reason     string `json:"reason"`
	ReasonCode string `json:"reason_code"`
	// Token names this life of the service; shown to its caller and to operators.
	Token      string     `json:"token,omitempty"`
	Caller     string     `json:"caller"`
	Holder     string     `json:"holder,omitempty"`
	CreatedAt  *time.Time `json:"created_at,omitempty"`
	StateSince *time.Time `json:"state_since,omitempty"`
	// Hold is what ends an allocated service that nobody confirms.
	Hold *Hold `json:"hold,omitempty"`
	// WaitsFor are nodes whose agents have a step to do.
	WaitsFor []problem.WaitsFor `json:"waits_for"`
}

// VID is the VLAN id of an attribute, if it has one.
func (s *Service) VID(attribute string) (uint32, bool) {
	if vid := s.Values[attribute]; vid != nil {
		return *vid, true
	}
	return 0, false
}

// ServiceAttribute is one VLAN of a service.
type ServiceAttribute struct {
	Inventory string `json:"inventory"`
	// VID is null while it is not got.
	VID *uint32 `json:"vid"`
	// Key is the allocation key under which it is, or is to be, allocated.
	Key   string `json:"key"`
	Token string `json:"token,omitempty"`
	// Step is what is under way in an outside inventory: wanted, allocating,
	// releasing, or unknown where it cannot be told.
	Step string `json:"step,omitempty"`
	// Reason is why it was not got, or is not given back yet.
	Reason string `json:"reason,omitempty"`
}

// ServiceWant is one attribute as it is asked for.
type ServiceWant struct {
	Name      string `json:"name" maxLength:"63"`
	Inventory string `json:"inventory" maxLength:"63"`
	Key       string `json:"key,omitempty" maxLength:"256" doc:"allocation key, default SERVICE/NAME"`
}

// ServiceChoice restricts which VLANs a service gets.
type ServiceChoice struct {
	VID     *uint32 `json:"vid,omitempty" doc:"the first attribute's VLAN id"`
	Same    bool    `json:"same,omitempty" doc:"one number for all attributes"`
	Offset  *int64  `json:"offset,omitempty" doc:"each attribute's number is the one before's plus this"`
	Parity  string  `json:"parity,omitempty" enum:"odd,even"`
	Exclude string  `json:"exclude,omitempty" doc:"none of these ranges"`
}

// ServiceRequest asks for a service: VLANs for all its attributes, or none.
type ServiceRequest struct {
	// Name is the service's; the same request again returns it as it stands.
	Name string `json:"-"`
	// Attributes in the order in which they are got; at most 32.
	Attributes []ServiceWant `json:"attributes" maxItems:"32"`
	ServiceChoice
	// ConfirmWithin ends the service if nobody confirms it, or begins, for so
	// long: a Go duration, 1s to 366 days, default 1h.
	ConfirmWithin string `json:"confirm_within,omitempty" doc:"a Go duration, default 1h"`
	// OnPartial is release (default) or keep.
	OnPartial string `json:"on_partial,omitempty" enum:"release,keep"`
	// Hold ends the service with a process of the agent's node instead: kind pid.
	Hold *Hold `json:"hold,omitempty" doc:"a process of the node, kind pid; default: confirm_within alone"`
	// Holder is free text shown to others, at most 256 bytes.
	Holder string `json:"holder,omitempty" maxLength:"256"`
}

// ServicePatch changes a service that is up; untouched attributes keep their VLAN.
type ServicePatch struct {
	// Attributes that are new, or get another inventory.
	Attributes []ServiceWant `json:"attributes,omitempty" maxItems:"32"`
	// Drop names attributes that go.
	Drop []string `json:"drop,omitempty" maxItems:"32"`
	ServiceChoice
}

// ServiceFail is the body of POST /v1/vlan-services/NAME/fail.
type ServiceFail struct {
	Reason string `json:"reason" maxLength:"1024" doc:"why, shown to whoever asks"`
}

// ServiceExtend is the body of POST /v1/vlan-services/NAME/extend.
type ServiceExtend struct {
	ConfirmWithin string `json:"confirm_within" doc:"from now on, a Go duration"`
}

// ServiceRemoved is the body of POST /v1/vlan-services/NAME/removed.
type ServiceRemoved struct {
	// Attribute settles one whose step is unknown; "" ends a service that was
	// deleted with hold.
	Attribute string `json:"attribute,omitempty" maxLength:"63"`
}

// ServiceFilter selects services; empty fields select all.
type ServiceFilter struct {
	State, Inventory, Holder string
}
