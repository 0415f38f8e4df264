package mutation

import "slices"

// mutation undoes one guard of the product.
type mutation struct {
	name string
	// rule is the rule of the protocol, or the promise, that the guard holds.
	rule string
	// without says what is missing.
	without string
	file    string
	// old must stand in the file exactly once; new takes its place.
	old, new string
	// caught are the tests that must turn red, as "package.Test": each of them.
	caught []string
}

// table is every mutation, in the order of the report.
func table() []mutation {
	return slices.Concat(identity, handover, proofs, transactions, nodes, services, restore)
}
