// Package uidpool is the trade in POSIX uids: pools of them, which of them run
// on this node, and who gets one.
//
// # Pools
//
// A pool is a list of inclusive ranges, as in Ganeti's user-id pool, whose
// functions are here under shorter names: [Parse] and [Format] for the text
// form ("1-100, 200"), [Check] for what can never be granted, [Expand] and
// [Count] for the uids in it, [Add] and [Remove] for a pool with more or fewer.
// Each says where it differs from Ganeti's. All of them are pure and leave
// their arguments alone. Two more need the host's account files:
// [Warnings], for overlaps with uids that others hand out, and, through
// [HostFiles.Claimed], [Suggest], for ranges that nobody claims.
//
// A [UID] is any 32-bit number; [UID.Valid] tells the four that never are
// granted. [None] is no uid.
//
// # The node's truth
//
// Whether a uid is in use is a question about processes, and /proc is where it
// is answered: [Probe] for one uid with its holders, [InUse] for a yes or no,
// [Scan] for many at once. All four uids of every thread count. Any doubt is
// "in use": an answer that is not certain comes with an error, and never frees
// an id. The answers hold for this node, in its own pid and user namespaces,
// and for the moment of the call alone.
//
// # The allocator
//
// The Allocator hands out uids of the cluster's pools: request, confirm,
// release, join, exec. It stands on package leases, which knows what an id's
// life is and nothing of processes; this package supplies the proof that an id
// is unused, which is what brings it back. Ganeti's order is kept: first uids
// that are free, then, if the pool allows, used ones whose process is gone;
// lock, then check, then hand out.
//
// # Not promised
//
// Files, keyrings and IPC objects outlive processes: an unused uid may still
// own some. Nothing here keeps a program that idpool does not know from
// running under a uid of a pool; [Warnings] shows where that is to be expected.
//
// # Concurrency and errors
//
// All functions are safe for concurrent use. Errors match the sentinels of
// package problem: refused input is [problem.ErrInvalid], quotes the element
// and its position, and its notes say what would do; a node that cannot tell
// what runs is [problem.ErrNoProof].
package uidpool
