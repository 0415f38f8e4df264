// Package leases is the engine under every space of ids: claims, locks,
// sessions, groups, the mirror, quarantine and proof.
//
// # What it promises
//
// One holder for an id of a space (every grant is a create in etcd, guarded by
// the pool's definition, the node's session and the cluster's epoch); a group
// granted whole or not at all; the same answer for the same allocation key; an
// exact release (compared by token and by value); reuse only after the proof
// that the pool's policy asks for; an honest "exhausted".
//
// # What it does not
//
// It knows no process and no device. What runs under an id on this node is told
// by a [Prover]; who may ask for what is decided above.
//
// # How it writes
//
// A decision is a pure function of what was read (state.go, change.go, due.go,
// admit.go); the [Allocator] turns it into a child transaction that compares the
// bytes it was decided on; the batcher commits up to 64 children at a time under
// one guard. DESIGN.md beside this file has the transactions and the goroutines.
//
// All exported methods are safe for concurrent use unless they say otherwise.
// Errors are *problem.Error and match its sentinels with errors.Is.
package leases
