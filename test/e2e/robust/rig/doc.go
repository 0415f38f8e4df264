// Package rig is the cluster of the robustness runs: etcd member processes and
// nodes with real agents, in namespaces of the run's own on one kernel.
//
// Each node is a machine of its own: network, mount, host name, IPC and pid
// namespaces, its own boot id and machine id, its data on a small tmpfs that
// outlives a reboot. A reboot ends the node's inner pid namespace with all that
// runs in it. Members and nodes meet at a bridge in a namespace of the rig, where
// packets are dropped between pairs; the rig itself reaches members and agents
// through sockets in the file system, which no disturbance of the network touches.
//
// Nothing outlives the process that started a rig, whatever ended it: namespaces
// are held by processes only, and those end when their control socket is closed.
// Several rigs may run on one machine at once.
package rig
