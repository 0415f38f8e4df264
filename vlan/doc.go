// Package vlan is the trade in VLAN ids. So far it has the id itself: its range,
// its text form and what can never be granted. Inventories, pairs and services
// stand on package leases, beside package uidpool; the two do not import each
// other.
//
// All functions are pure and safe for concurrent use. Errors are
// *[problem.Error] of code invalid.
package vlan
