// Package api is the front door of idpool for Go programs: the wire types of
// the agent's HTTP interface and a client for it. It imports no etcd; a program
// that links it needs no credential but its own, since the agent of its node
// takes the caller from the kernel (the Unix socket's peer credentials).
//
// A uid's life, seen from here: [Client.RequestUID] hands out a [LockedUID]
// (Ganeti's RequestUnusedUid); the program starts its process and calls Confirm
// (Ganeti's Unlock: the hand-over is over, the uid stays taken), or Release
// gives it back. [Client.ExecWithUID] does all of it around a function
// (Ganeti's ExecWithUnusedUid).
//
// VLANs belong to inventories. [Client.Services] gets all that a network service
// needs, or none, and gives them back when it fails ([ServicesService.Exec] around
// a function); [Client.VLANs] grants single ones; [Client.Allocations] any mix of
// uids and VLANs under one key; [Client.Inventories] defines where they are from.
//
// A Client is safe for concurrent use. Errors are *[problem.Error] and match
// the sentinels of this package with errors.Is, whichever machine found them.
package api
