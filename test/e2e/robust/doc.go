// Package robust tries to break the promises P1 to P8 of a real cluster: etcd
// members and agents in namespaces of their own, recording clients, faults drawn
// from a seed, etcd's complete history, and a judge over all of it.
//
// [Run] does one run; package campaign is the program around it. README.md tells
// what is tested, how to reproduce a run and how to read its result.
package robust
