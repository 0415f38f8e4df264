// Package pki makes the certificates of a cluster whose people have no authority
// of their own: one authority in one directory, and a certificate for each member
// of etcd, agent and person, told apart by their kind.
//
// It promises:
//
//   - What is there is kept: a run adds what is missing, and replaces only what it is
//     told to renew. A directory that does not make sense (a key without its
//     certificate's fellow, a name of another kind) is refused before anything is
//     written.
//   - Each file is there whole or not at all after a crash, and a run that was cut
//     short is completed by the next one. Keys are for their owner alone (0600).
//   - Two runs on one directory exclude each other.
//
// The common name of a certificate is a name of this directory, once, and etcd's
// user; its organizational unit is "idpool-" and its kind, which for observer,
// requester and operator is also the role at an agent's TCP port. It does not say
// what an etcd user may do: package rbac does.
//
// It holds no state; errors carry the codes of package problem.
package pki
