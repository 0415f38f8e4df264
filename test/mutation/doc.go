// Package mutation undoes the product's guards one by one and holds that a test
// notices each: a compare dropped, a proof skipped, a mirror believed.
//
// The table names for every guard the rule of the protocol, or the promise, that it
// holds, the text that is replaced, and the tests that must turn red: each of them,
// by an assertion. `go test` looks only whether each text still stands in its file
// exactly once, whether what replaces it compiles, and whether the tests named
// exist. `make mutation` undoes them all and writes what caught each into
// docs/reliability.md; `make mutation M=NAME,NAME` undoes those named, M=rest those
// that have no row there yet, and both leave the other rows as they are.
package mutation
