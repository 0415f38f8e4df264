// Package cluster is idpool's way to etcd: configuration, connections, keys,
// records, the epoch, and following a part of the tree.
//
// It promises:
//
//   - Every key is built and parsed here, by [Keys], and by nobody else. Parse
//     is the inverse of the builders and never panics.
//   - No call waits for ever. One attempt ends after [Config.Attempt], a series
//     after [Config.Budget], and both end with their context.
//   - A failed mutation says what is known about it: [NotDone] or [Unknown],
//     never a guess ([Classify]). One call of [Client.Commit] sends one request:
//     the etcd client's own repetitions are switched off on that connection,
//     since they would let a harmless last error hide an unknown first one.
//   - Certificates, keys and authorities are read again for every connection, and where
//     they are why etcd cannot be reached, that is said ([Client.Trouble]).
//   - [Client.Follow] delivers everything at one revision, then every later
//     revision in order and whole, or says that it lost the thread and starts
//     again. It does not trust a stream that was reconnected underneath it.
//
// It does not promise that a follower is up to date: that is measured by the
// revisions the follower was told. It does not decide whether etcd was restored;
// it compares the cluster id within one follow and leaves the audit of claims
// and of the raft index to its callers.
//
// Etcd's client has three connections, so that a big list or a burst of writes
// cannot delay the renewal of a lease: [Client.Txn], [Client.Renew] and
// [Client.Watch].
//
// A [Client] and [Keys] are safe for concurrent use; a [Backoff] is not. Errors
// carry the codes of package problem; an error of Commit is an [*OutcomeError].
package cluster
