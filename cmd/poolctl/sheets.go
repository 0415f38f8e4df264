package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/problem"
)

var uidSheet = sheet[api.UID]{
	kind: "uid",
	id:   func(u api.UID) string { return uidText(u.UID) },
	columns: []column[api.UID]{
		{head: "UID", cell: uidAndBlock},
		{head: "POOL", cell: poolText},
		{head: "STATE", cell: func(u api.UID) string { return u.State }},
		{head: "NODES", cell: func(u api.UID) string { return strings.Join(u.Nodes, ",") }},
		{head: "HOLDER", cell: func(u api.UID) string { return orElse(u.Holder, u.Caller) }},
		{head: "KEY", cell: func(u api.UID) string { return u.Key }},
		{head: "SINCE", cell: func(u api.UID) string { return clock(u.StateSince) }},
		{head: "CALLER", wide: true, cell: func(u api.UID) string { return u.Caller }},
		{head: "HOLD", wide: true, cell: func(u api.UID) string { return holdText(u.Hold) }},
		{head: "RUNNING", wide: true, cell: func(u api.UID) string { return yes(u.Running) }},
		{head: "GRANTED", wide: true, cell: func(u api.UID) string { return clock(u.GrantedAt) }},
		{head: "NOT BEFORE", wide: true, cell: func(u api.UID) string { return clock(u.NotBefore) }},
		{head: "WAITS FOR", wide: true, cell: func(u api.UID) string { return waitsText(u.WaitsFor) }},
		{head: "REASON", wide: true, cell: func(u api.UID) string { return u.Reason }},
	},
}

var poolSheet = sheet[api.Pool]{
	kind: "pool",
	id:   func(p api.Pool) string { return p.Name },
	columns: []column[api.Pool]{
		{head: "NAME", cell: func(p api.Pool) string { return p.Name }},
		{head: "RANGES", cell: func(p api.Pool) string { return strings.ReplaceAll(p.Ranges, ",", ", ") }},
		{head: "SIZE", cell: func(p api.Pool) string { return strconv.FormatUint(p.Size, 10) }},
		{head: "FREE", cell: func(p api.Pool) string { return freeText(p) }},
		{head: "LOCKED", cell: count(api.StateLocked)},
		{head: "USED", cell: count(api.StateUsed)},
		{head: "IDLE", cell: count(api.StateIdle)},
		{head: "QUARANTINED", cell: count(api.StateQuarantined)},
		{head: "RESERVED", wide: true, cell: count(api.StateReserved)},
		{head: "OUTSIDE", wide: true, cell: count("outside")},
		{head: "EXCLUDE", wide: true, cell: func(p api.Pool) string { return p.Exclude }},
		{head: "SCOPE", wide: true, cell: func(p api.Pool) string { return orElse(p.Scope, "cluster") }},
		{head: "ORDER", wide: true, cell: func(p api.Pool) string { return orElse(p.Order, "random") }},
		{head: "PROOF", wide: true, cell: func(p api.Pool) string { return orElse(p.Proof, "holders") }},
		{head: "COOLDOWN", wide: true, cell: func(p api.Pool) string { return orElse(p.Cooldown, "0") }},
		{head: "RECLAIM", wide: true, cell: func(p api.Pool) string { return orElse(p.Reclaim, "when-needed") }},
		{head: "SCAN AGE", wide: true, cell: func(p api.Pool) string { return orElse(p.ScanAge, "0") }},
		{head: "BLOCK", wide: true, cell: func(p api.Pool) string { return strconv.FormatUint(uint64(max(1, p.Block)), 10) }},
		{head: "LOW WATER", wide: true, cell: func(p api.Pool) string { return orElse(p.LowWater, "10%") }},
	},
}

var nodeSheet = sheet[api.Node]{
	kind: "node",
	id:   func(n api.Node) string { return n.Name },
	columns: []column[api.Node]{
		{head: "NAME", cell: func(n api.Node) string { return n.Name }},
		{head: "STATE", cell: func(n api.Node) string { return n.State }},
		{head: "LAST SEEN", cell: func(n api.Node) string { return clock(n.LastSeen) }},
		{head: "HOLDS", cell: func(n api.Node) string { return holdsText(n.Holds) }},
		{head: "WAITED FOR", cell: func(n api.Node) string { return strconv.FormatUint(n.WaitedFor, 10) }},
		{head: "REASON", cell: func(n api.Node) string { return orElse(n.NoProof, n.Reason) }},
		{head: "SINCE", wide: true, cell: func(n api.Node) string { return clock(n.Since) }},
		{head: "ADDRESS", wide: true, cell: func(n api.Node) string { return n.Address }},
		{head: "VERSION", wide: true, cell: func(n api.Node) string { return n.Version }},
		{head: "PID", wide: true, cell: func(n api.Node) string { return number(n.PID) }},
		{head: "MACHINE", wide: true, cell: func(n api.Node) string { return n.MachineID }},
		{head: "BOOT", wide: true, cell: func(n api.Node) string { return n.BootID }},
	},
}

func uidText(uid uint32) string { return strconv.FormatUint(uint64(uid), 10) }

// uidAndBlock shows the ids of a block by their ends.
func uidAndBlock(u api.UID) string {
	if u.Count < 2 {
		return uidText(u.UID)
	}
	return uidText(u.UID) + "-" + uidText(u.UID+u.Count-1)
}

// poolText marks a uid that its pool's ranges do not have any more.
func poolText(u api.UID) string {
	if u.Pool != "" && !u.InPool {
		return u.Pool + " (outside)"
	}
	return u.Pool
}

func count(state string) func(api.Pool) string {
	return func(p api.Pool) string { return strconv.FormatUint(p.Counts[state], 10) }
}

func freeText(p api.Pool) string {
	free := strconv.FormatUint(p.Counts[api.StateFree], 10)
	if p.Low {
		return free + " (low)"
	}
	return free
}

func holdText(h *api.Hold) string {
	switch {
	case h == nil:
		return ""
	case h.Kind == api.HoldPID:
		return "pid " + strconv.Itoa(h.PID)
	case h.Until != nil:
		return "until " + problem.Clock(*h.Until)
	}
	return strings.TrimSpace(h.Kind + " " + h.TTL)
}

func waitsText(ws []problem.WaitsFor) string {
	parts := make([]string, 0, len(ws))
	for _, w := range ws {
		text := w.Node
		if w.Why != "" {
			text += " (" + w.Why + ")"
		} else if w.LastSeen != nil {
			text += " (last heard " + problem.Clock(*w.LastSeen) + ")"
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, ", ")
}

// holdsText lists counts in the order of an id's life.
func holdsText(holds map[string]uint64) string {
	var parts []string
	for _, state := range []string{api.StateLocked, api.StateUsed, api.StateIdle, api.StateQuarantined, api.StateReserved} {
		if n := holds[state]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, state))
		}
	}
	return strings.Join(parts, ", ")
}

func clock(t *time.Time) string {
	if t == nil {
		return ""
	}
	return problem.Clock(*t)
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func number(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
