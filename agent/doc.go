// Package agent is the daemon of a node: it owns the node's goroutines and
// answers programs on a Unix socket with the HTTP interface that package api
// speaks.
//
// # Promised
//
// The socket answers as soon as [Agent.Run] has it: /v1/status, /healthz and
// /readyz say how the node is also while etcd is unreachable or refuses it, and
// everything else is refused with the code unavailable until the node is
// registered. Who calls is the kernel's word (SO_PEERCRED), or over TCP
// a certificate's, never the caller's. Observers read, requesters ask, operators do
// everything, see role.go; a caller ends only what
// it holds; tokens are shown to their caller and to operators alone. Every
// refusal is problem JSON with a code of package problem.
//
// # Not promised
//
// It decides nothing about ids: package leases does. A client that goes away is
// noticed before its grant is answered, not after; what it never read ends with
// its hold.
//
// # Goroutines
//
// All run under one errgroup in [Agent.Run] and end with it.
//
//	owner            trigger                            end
//	serve            Run has the socket; one more for   shutdown, or the listener breaks
//	                 the TCP port, if there is one
//	stop             the context of Run ends, the node  the server has let its requests go and
//	                 left, or the work below ended      the node has left, or may not
//	work             Run; restarted after a refusal     stop, or an error that a person must act on
//	                 that may pass (etcd restored, a
//	                 record that cannot be read)
//	names            Run, see package userdb: the       stop
//	                 socket, and the records in files
//	etcd (embedded)  Run, with --embedded               after work
//	watch of etcd    the embedded server runs           the server ends
//
//	connection hold  a request with one, and one more   the connection, the grant or the
//	                 for each of its uids               server's shutdown
//
// Below work the engine's own goroutines run, see package leases, and the services'
// (package vlan), which begin when the node is registered and end with the engine,
// or end it. net/http has one for each connection: at most as long as the request
// plus shutdown's grace.
//
// # Errors
//
// [Agent.Run] returns nil after a clean stop and a *problem.Error else: invalid
// (configuration, data directory), held (data directory or socket in
// use), fenced (the node's name is another's, or an operator's word), forbidden
// (etcd denies the keys).
//
// # Concurrency
//
// [Agent.Ready] may be called at any time, [Agent.Run] once.
package agent
