// Package rbac gives the certificates of a cluster their rights in etcd: users by
// common name, a role for each kind.
//
//   - An agent reads and writes everything below the cluster's root, and nothing else.
//   - An observer reads there.
//   - A backup has etcd's own role "root", since etcd gives a snapshot to nobody else.
//   - "root" is etcd's administrator, who changes users and roles.
//
// What etcd's permissions cannot say: that a key may be made but not overwritten, or
// that an agent may write its own node's keys alone. Agents trust each other.
//
// [Plan] decides from what etcd has, and repeats nothing; [Apply] carries a plan out
// and switches authentication on last, taking that back where it would lock everybody
// out. Both can be repeated. Errors carry the codes of package problem.
package rbac
