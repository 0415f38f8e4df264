// Package problem holds the facts that idpool refuses with: one sentinel and
// one stable code a fact, and [Error], the typed refusal that carries who
// stands in the way and what to do next.
//
// It is pure and imports nothing of idpool, so that the engine that finds a
// fact, the agent that sends it and the client that receives it share one
// identity: errors.Is(err, problem.ErrExhausted) holds on both ends of the
// wire. All functions are safe for concurrent use.
package problem
