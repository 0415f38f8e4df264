// Package vlan is the trade in VLAN ids: inventories, and services that have
// named attributes, each fed by an inventory. It stands on package leases,
// beside package uidpool; the two do not import each other.
//
// # Services
//
// A [Service] is one record in etcd; its life is the table in lifecycle.go. Its
// decisions are pure functions on that record (plan.go, patch.go, saga.go);
// [Allocator] reads, decides and writes, each write comparing the record that it
// rests on, so that two nodes at work do no harm.
//
// Promised: where every attribute is of etcd, they are granted in one
// transaction with the record and given back in one, and no reader sees some of
// them. Where an outside inventory takes part, the intent is written down before
// it is asked, and the result before the next step; whatever fails, or dies, is
// given back or finished by the node that keeps the inventory, asked by
// allocation key. A late or repeated call never touches a later service of that
// name, nor a later owner of a VLAN.
//
// Not promised: anything of an outside inventory without allocation keys whose
// worker dies between asking and writing down. That is called unknown, is never
// given back by itself, and is listed by [Allocator.Findings].
//
// # Inventories
//
// An inventory is a pool of the engine in etcd ([leases.VLANPool]), or an
// [Inventory] outside of it, of which [FileInventory] is one: a pool file that
// only the agent of one node touches.
//
// # Goroutines
//
// [Allocator.Run] owns the loop that looks at all services after each change of
// the mirror, and at most 8 workers, one a service; all end with its context.
// [Allocator.Exec] owns one that watches its service, and ends it before it
// returns.
//
// # Concurrency and errors
//
// Everything is safe for concurrent use. Errors are of package problem; those of
// stored records that cannot be read match problem.ErrInvalid.
package vlan
