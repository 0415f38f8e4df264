package api

import "time"

// StateOutside counts ids that are held although the inventory's ranges have
// them no longer.
const StateOutside = "outside"

// Inventory is a named set of VLAN ids: its own ranges, or a pool file that one
// node's agent reads and writes.
type Inventory struct {
	Name    string `json:"name,omitempty"`
	Ranges  string `json:"ranges,omitempty" doc:"e.g. 100-199,300; within 1-4094"`
	Exclude string `json:"exclude,omitempty" doc:"never granted, though in the ranges"`
	InventoryPolicy
	// File is the path of a pool file on the node On; the inventory then has no
	// ranges of its own.
	File string `json:"file,omitempty" maxLength:"4096"`
	On   string `json:"on,omitempty" maxLength:"63" doc:"the node whose agent reads and writes the file"`
	// Settle is how long an interrupted write of the file may still appear.
	Settle string `json:"settle,omitempty" doc:"a Go duration, default 0"`
	// Size is the number of grantable ids; 0 for a file inventory.
	Size uint64 `json:"size,omitempty"`
	// Counts are ids by state: free, used, quarantined, outside and so on; absent
	// for a file inventory.
	Counts   map[string]uint64 `json:"counts,omitempty"`
	Low      bool              `json:"low,omitempty" doc:"free ids are below low_water"`
	Warnings []string          `json:"warnings,omitempty"`
	Revision int64             `json:"revision,omitempty"`
}

// InventoryPolicy is how the VLANs of an inventory are handed out and come back.
// Empty fields take the default named.
type InventoryPolicy struct {
	Order    string `json:"order,omitempty" enum:"random,lowest,rotate" doc:"default lowest"`
	Cooldown string `json:"cooldown,omitempty" doc:"a Go duration, default 10m: a switch may still carry the VLAN"`
	LowWater string `json:"low_water,omitempty" doc:"a count or a percentage, default 10%"`
}

// InventoryPatch changes an inventory: Add, then Remove, then the fields given.
type InventoryPatch struct {
	Add     string  `json:"add,omitempty"`
	Remove  string  `json:"remove,omitempty"`
	Ranges  *string `json:"ranges,omitempty" doc:"also turns a file inventory into one of ranges"`
	Exclude *string `json:"exclude,omitempty"`
	InventoryPolicy
	File   string `json:"file,omitempty" maxLength:"4096" doc:"also turns an inventory of ranges into one of a file"`
	On     string `json:"on,omitempty" maxLength:"63"`
	Settle string `json:"settle,omitempty"`
}

// VLAN is one VLAN id of an inventory as the agent shows it.
type VLAN struct {
	Inventory string `json:"inventory"`
	VID       uint32 `json:"vid"`
	State     string `json:"state" enum:"free,locked,used,idle,quarantined,reserved"`
	Caller    string `json:"caller,omitempty" example:"unix:1000"`
	Holder    string `json:"holder,omitempty"`
	// Service is the VLAN service that has it; its life ends the VLAN's.
	Service string `json:"service,omitempty"`
	Key     string `json:"key,omitempty"`
	// Token names the grant; shown to its caller and to operators only.
	Token       string     `json:"token,omitempty"`
	GrantedAt   *time.Time `json:"granted_at,omitempty"`
	StateSince  *time.Time `json:"state_since,omitempty"`
	NotBefore   *time.Time `json:"not_before"`
	Reason      string     `json:"reason"`
	ReasonCode  string     `json:"reason_code"`
	InInventory bool       `json:"in_inventory"`
	Revision    int64      `json:"revision,omitempty" doc:"etcd mod revision of the claim"`
}

// VLANRequest asks for one VLAN of an inventory.
type VLANRequest struct {
	// Inventory is its name; required.
	Inventory string
	// VID asks for this id and no other; nil is any.
	VID *uint32
	// From restricts to ranges, Exclude takes ranges away, "" is no restriction.
	From, Exclude string
	// Parity is odd, even or "".
	Parity string
	// Key is the allocation key: the same request with the same key returns the
	// same VLAN. At most 256 bytes. A request without one is never repeated.
	Key string
	// Holder is free text shown to others, at most 256 bytes.
	Holder string
	// Wait is how long to wait for a VLAN when none is free; 0 is not at all.
	Wait time.Duration
}

// VLANRequestBody is the body of POST /v1/vlan-inventories/INV/vlans.
type VLANRequestBody struct {
	VID     *uint32 `json:"vid,omitempty" doc:"this VLAN id and no other"`
	From    string  `json:"from,omitempty" doc:"only ids of these ranges, e.g. 100-109"`
	Exclude string  `json:"exclude,omitempty" doc:"none of these ranges"`
	Parity  string  `json:"parity,omitempty" enum:"odd,even" doc:"only odd or only even ids"`
	Key     string  `json:"key,omitempty" maxLength:"256" doc:"allocation key: the caller's name for this request"`
	Holder  string  `json:"holder,omitempty" maxLength:"256" doc:"free text shown to others"`
	Wait    string  `json:"wait,omitempty" doc:"how long to wait when none is free, a Go duration"`
}

// VLANsReleased is the answer to the end of a grant.
type VLANsReleased struct {
	// Items are the VLANs as they are after it; empty where the grant was over
	// already.
	Items []VLAN `json:"items"`
	// Changed is false where nothing was left to do.
	Changed bool `json:"changed"`
}

// VLANFilter selects VLANs; empty fields select all that are claimed.
type VLANFilter struct {
	State, Holder, Key, Service string
	// VIDs restricts to ranges, e.g. "100-109".
	VIDs string
}

// ImportOptions go with the import of a pool file.
type ImportOptions struct {
	// DryRun asks what would be done, and does nothing.
	DryRun bool
	// ToRanges also turns a file inventory that holds nothing into one of the
	// file's range. Without it the import into one is refused.
	ToRanges bool
}

// ImportResult is what an import did, or with DryRun would do.
type ImportResult struct {
	Inventory Inventory `json:"inventory"`
	// Created: there was no inventory of that name.
	Created bool `json:"created"`
	// Imported are ids that became claims, Present those that had one already.
	Imported string   `json:"imported"`
	Count    uint64   `json:"count" doc:"how many were imported"`
	Present  string   `json:"present,omitempty"`
	Warnings []string `json:"warnings,omitempty" doc:"what of the file is not in the inventory"`
	Changed  bool     `json:"changed"`
	DryRun   bool     `json:"dry_run,omitempty"`
}
