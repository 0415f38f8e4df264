// Package rules holds tests of the house itself: which package may import which,
// that every package says what it is, and what its text may not contain.
package rules
