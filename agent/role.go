package agent

import (
	"fmt"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
)

// role is what a caller may do here; each may what the one before may.
type role int

const (
	// anybody is whoever can connect.
	anybody role = iota
	// observer reads.
	observer
	// requester asks for ids too, and ends what it holds.
	requester
	// operator does everything, to whatever anybody holds.
	operator
)

var roleNames = [...]string{"anybody", "observer", "requester", "operator"}

func (r role) String() string { return roleNames[r] }

// access is the least role that an operation takes. dry is that of its dry run,
// where a lower one may do that.
type access struct{ least, dry role }

// roleTable is who may do what: the least role of every operation of the
// interface, by its id. It stands in the served document too. That a requester
// ends only what it holds is for the operations themselves to decide.
var roleTable = map[string]access{
	"get-health": {least: anybody},
	"get-ready":  {least: anybody},

	"get-status":            {least: observer},
	"repair":                {least: operator},
	"stream-events":         {least: observer},
	"get-metrics":           {least: observer},
	"put-log-level":         {least: operator},
	"check":                 {least: observer},
	"list-nodes":            {least: observer},
	"get-node":              {least: observer},
	"list-uid-pools":        {least: observer},
	"get-uid-pool":          {least: observer},
	"list-uids":             {least: observer},
	"get-uid":               {least: observer},
	"list-reservations":     {least: observer},
	"list-vlan-inventories": {least: observer},
	"get-vlan-inventory":    {least: observer},
	"export-vlan-inventory": {least: observer},
	"list-vlans":            {least: observer},
	"get-vlan":              {least: observer},
	"list-vlan-services":    {least: observer},
	"get-vlan-service":      {least: observer},
	"list-allocations":      {least: observer},
	"get-allocation":        {least: observer},

	"request-uids":         {least: requester},
	"confirm-uid":          {least: requester},
	"renew-uid":            {least: requester},
	"join-uid":             {least: requester},
	"release-uid":          {least: requester},
	"release-uids":         {least: requester},
	"allocate-vlan":        {least: requester},
	"release-vlan":         {least: requester},
	"release-vlans":        {least: requester},
	"put-vlan-service":     {least: requester},
	"patch-vlan-service":   {least: requester},
	"delete-vlan-service":  {least: requester},
	"begin-vlan-service":   {least: requester},
	"confirm-vlan-service": {least: requester},
	"fail-vlan-service":    {least: requester},
	"retry-vlan-service":   {least: requester},
	"extend-vlan-service":  {least: requester},
	"removed-vlan-service": {least: requester},
	"put-allocation":       {least: requester},
	"delete-allocation":    {least: requester},

	"put-uid-pool":          {least: operator, dry: requester},
	"patch-uid-pool":        {least: operator, dry: requester},
	"put-vlan-inventory":    {least: operator, dry: requester},
	"patch-vlan-inventory":  {least: operator, dry: requester},
	"import-vlan-inventory": {least: operator, dry: requester},
	"delete-uid-pool":       {least: operator},
	"delete-vlan-inventory": {least: operator},
	"adopt-uid":             {least: operator},
	"reserve-uids":          {least: operator},
	"unreserve-uids":        {least: operator},
	"leave-node":            {least: operator},
	"fence-node":            {least: operator},
	"unfence-node":          {least: operator},
	"remove-node":           {least: operator},
}

// Names of the roles in the served document, for programs that read it.
const (
	extensionRole    = "x-idpool-role"
	extensionDryRole = "x-idpool-role-dry-run"
)

// accessOf is the row of an operation, and writes it into the document.
func accessOf(op *huma.Operation) access {
	row, ok := roleTable[op.OperationID]
	if !ok {
		panic("bug: operation " + op.OperationID + " has no row in the table of roles")
	}
	op.Extensions = map[string]any{extensionRole: row.least.String()}
	text := fmt.Sprintf("Least role: %s", row.least)
	if row.dry != anybody {
		op.Extensions[extensionDryRole] = row.dry.String()
		text += fmt.Sprintf("; of a dry run: %s", row.dry)
	}
	if op.Description != "" {
		op.Description += " "
	}
	op.Description += text + "."
	return row
}

// needs is the role that this request of the operation takes.
func (a access) needs(ctx huma.Context) role {
	if a.dry != anybody {
		if dry, err := strconv.ParseBool(ctx.Query("dry_run")); err == nil && dry {
			return a.dry
		}
	}
	return a.least
}
