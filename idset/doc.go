// Package idset holds pure sets and ranges of 32-bit ids.
//
// A [Set] costs what its ranges cost: 0-4294967295 takes kilobytes, a million
// scattered ids a few megabytes. It is cut into shards of 2^24 ids; a shard
// with few ranges keeps them as a list, any other is a Roaring bitmap with run
// containers. Every operation works on ranges or containers, none walks the
// ids one by one except [Set.All].
//
// # Promised
//
// All 2^32 ids can be members, 0 and 4294967295 included, and [Set.Nth],
// [Set.Random] and their siblings reach both ends. The functions that return a
// Set leave their operands alone. Nothing panics, whatever the arguments.
//
// The *Without functions answer for the difference of two sets without
// building it: a pool of four billion ids against a hundred thousand taken
// ones takes microseconds. See [Set.CountWithout] for what the cost depends on.
//
// # Not promised
//
// The package knows nothing of pools, of uids that must not be granted, or of
// Ganeti's grammar with blanks and other separators: that is package uidpool.
//
// # Concurrency
//
// Sets may be read by any number of goroutines at a time, and functions that
// return a Set count as reads of their operands. [Set.Insert] and [Set.Delete]
// change a set in place: nothing else may touch that set, or a plain copy of
// it, meanwhile. [Set.Clone] and every returned set are independent of their
// origin and may go on in another goroutine.
//
// # Errors
//
// Only [Parse] and [Set.UnmarshalText] return errors; they match
// problem.ErrInvalid and quote the element at fault.
package idset
