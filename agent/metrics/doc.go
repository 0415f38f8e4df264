// Package metrics is what Prometheus reads of an agent: a registry of its own, with
// Go's and the process's collectors.
//
// # Promised
//
// Every metric exists from the start, at zero. docs/metrics.md has each with its
// type and unit; a test compares it with the registry. No label's values are free:
// pools and nodes beyond a bound are counted together as "other".
//
// # Not promised
//
// Counters begin anew with each start of the agent. Ages are counted from when this
// agent saw a thing begin, not from anybody's wall clock.
//
// # Concurrency
//
// All methods are safe for concurrent use. The engine's state is read at each
// gathering, which costs what its claims cost.
package metrics
