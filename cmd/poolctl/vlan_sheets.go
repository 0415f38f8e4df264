package main

import (
	"strconv"
	"strings"

	"github.com/idpool/idpool/api"
)

var inventorySheet = sheet[api.Inventory]{
	kind: "inventory",
	id:   func(i api.Inventory) string { return i.Name },
	columns: []column[api.Inventory]{
		{head: "NAME", cell: func(i api.Inventory) string { return i.Name }},
		{head: "RANGES", cell: rangesText},
		{head: "SIZE", cell: sizeText},
		{head: "FREE", cell: func(i api.Inventory) string {
			if i.Low {
				return vlans(api.StateFree)(i) + " (low)"
			}
			return vlans(api.StateFree)(i)
		}},
		{head: "USED", cell: vlans(api.StateUsed)},
		{head: "QUARANTINED", cell: vlans(api.StateQuarantined)},
		{head: "OUTSIDE", wide: true, cell: vlans(api.StateOutside)},
		{head: "EXCLUDE", wide: true, cell: func(i api.Inventory) string { return i.Exclude }},
		{head: "ORDER", wide: true, cell: ofRanges(func(i api.Inventory) string { return orElse(i.Order, "lowest") })},
		{head: "COOLDOWN", wide: true, cell: ofRanges(func(i api.Inventory) string { return orElse(i.Cooldown, "10m") })},
		{head: "LOW WATER", wide: true, cell: ofRanges(func(i api.Inventory) string { return orElse(i.LowWater, "10%") })},
		{head: "SETTLE", wide: true, cell: func(i api.Inventory) string { return i.Settle }},
	},
}

// rangesText are an inventory's ranges, or where its file is.
func rangesText(i api.Inventory) string {
	if i.File != "" {
		return i.File + " on " + i.On
	}
	return strings.ReplaceAll(i.Ranges, ",", ", ")
}

// sizeText is blank for a file that the answering node does not have.
func sizeText(i api.Inventory) string {
	if i.Counts == nil {
		return ""
	}
	return strconv.FormatUint(i.Size, 10)
}

func vlans(state string) func(api.Inventory) string {
	return func(i api.Inventory) string {
		n, ok := i.Counts[state]
		if !ok && (i.File != "" || i.Counts == nil) {
			return ""
		}
		return strconv.FormatUint(n, 10)
	}
}

// ofRanges leaves out what has no meaning for a file.
func ofRanges(cell func(api.Inventory) string) func(api.Inventory) string {
	return func(i api.Inventory) string {
		if i.File != "" {
			return ""
		}
		return cell(i)
	}
}

var vlanSheet = sheet[api.VLAN]{
	kind: "vlan",
	id:   func(v api.VLAN) string { return uidText(v.VID) },
	columns: []column[api.VLAN]{
		{head: "VID", cell: func(v api.VLAN) string { return uidText(v.VID) }},
		{head: "INVENTORY", cell: func(v api.VLAN) string {
			if !v.InInventory {
				return v.Inventory + " (outside)"
			}
			return v.Inventory
		}},
		{head: "STATE", cell: func(v api.VLAN) string { return v.State }},
		{head: "SERVICE", cell: func(v api.VLAN) string { return v.Service }},
		{head: "HOLDER", cell: func(v api.VLAN) string { return orElse(v.Holder, v.Caller) }},
		{head: "KEY", cell: func(v api.VLAN) string { return v.Key }},
		{head: "SINCE", cell: func(v api.VLAN) string { return clock(v.StateSince) }},
		{head: "NOT BEFORE", cell: func(v api.VLAN) string { return clock(v.NotBefore) }},
		{head: "CALLER", wide: true, cell: func(v api.VLAN) string { return v.Caller }},
		{head: "GRANTED", wide: true, cell: func(v api.VLAN) string { return clock(v.GrantedAt) }},
		{head: "REASON", wide: true, cell: func(v api.VLAN) string { return v.Reason }},
	},
}

var serviceSheet = sheet[api.Service]{
	kind: "service",
	id:   func(v api.Service) string { return v.Name },
	columns: []column[api.Service]{
		{head: "NAME", cell: func(v api.Service) string { return v.Name }},
		{head: "STATE", cell: func(v api.Service) string { return v.State }},
		{head: "VLANS", cell: valuesText},
		{head: "HOLDER", cell: func(v api.Service) string { return orElse(v.Holder, v.Caller) }},
		{head: "SINCE", cell: func(v api.Service) string { return clock(v.StateSince) }},
		{head: "WAITS FOR", cell: func(v api.Service) string { return waitsText(v.WaitsFor) }},
		{head: "REASON", cell: func(v api.Service) string { return v.Reason }},
		{head: "CALLER", wide: true, cell: func(v api.Service) string { return v.Caller }},
		{head: "HOLD", wide: true, cell: func(v api.Service) string { return holdText(v.Hold) }},
		{head: "CREATED", wide: true, cell: func(v api.Service) string { return clock(v.CreatedAt) }},
	},
}

// attributeRow is one attribute of a service with its name.
type attributeRow struct {
	name string
	api.ServiceAttribute
}

var attributeSheet = sheet[attributeRow]{
	kind: "attribute",
	id:   func(a attributeRow) string { return a.name },
	columns: []column[attributeRow]{
		{head: "ATTRIBUTE", cell: func(a attributeRow) string { return a.name }},
		{head: "INVENTORY", cell: func(a attributeRow) string { return a.Inventory }},
		{head: "VID", cell: func(a attributeRow) string {
			if a.VID == nil {
				return ""
			}
			return uidText(*a.VID)
		}},
		{head: "STEP", cell: func(a attributeRow) string { return a.Step }},
		{head: "KEY", cell: func(a attributeRow) string { return a.Key }},
		{head: "REASON", wide: true, cell: func(a attributeRow) string { return a.Reason }},
	},
}

var allocationSheet = sheet[api.Allocation]{
	kind: "allocation",
	id:   func(a api.Allocation) string { return a.Key },
	columns: []column[api.Allocation]{
		{head: "KEY", cell: func(a api.Allocation) string { return a.Key }},
		{head: "STATE", cell: func(a api.Allocation) string { return a.State }},
		{head: "ITEMS", cell: itemsText},
		{head: "HOLDER", cell: func(a api.Allocation) string { return orElse(a.Holder, a.Caller) }},
		{head: "GRANTED", cell: func(a api.Allocation) string { return clock(a.GrantedAt) }},
		{head: "CALLER", wide: true, cell: func(a api.Allocation) string { return a.Caller }},
	},
}

// itemsText lists ids with where they are from: "uid 70012 (jobs), north_vlan_id 100 (fabric-a)".
func itemsText(a api.Allocation) string {
	var parts []string
	for _, i := range a.Items {
		switch {
		case i.UID != nil:
			parts = append(parts, orElse(i.Name, "uid")+" "+uidText(*i.UID)+" ("+i.Pool+")")
		case i.VID != nil:
			parts = append(parts, orElse(i.Name, "vlan")+" "+uidText(*i.VID)+" ("+i.Inventory+")")
		}
	}
	return strings.Join(parts, ", ")
}

var findingSheet = sheet[api.Finding]{
	kind: "finding",
	id:   func(f api.Finding) string { return f.Subject },
	columns: []column[api.Finding]{
		{head: "KIND", cell: func(f api.Finding) string { return f.Kind }},
		{head: "SUBJECT", cell: func(f api.Finding) string { return f.Subject }},
		{head: "DETAIL", cell: func(f api.Finding) string { return f.Detail }},
		{head: "TRY", cell: func(f api.Finding) string {
			var parts []string
			for _, t := range f.Try {
				parts = append(parts, t.Command)
			}
			return strings.Join(parts, "; ")
		}},
	},
}
