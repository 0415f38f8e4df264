// Package embed runs an etcd server inside this process, for one machine, for
// small clusters whose other agents join over TCP, and for tests.
//
// Everything lives in Config.Dir/etcd, mode 0700: the lock file (etcd itself
// would wait for ever on a directory in use), the random cluster token, etcd's
// data and the Unix socket that this process and its children use. Where the
// socket's path would be too long for the kernel, or not safe in a URL, the
// socket is put into a short private directory under the system's temporary one
// instead, which Close removes.
//
// Start waits until the server serves, or says why it never will. A data
// directory is restarted with the data and the identity it has.
//
// It does not promise to survive a fatal error inside etcd: etcd's logger ends
// the process then. Listeners with http:// ask nobody for a certificate: use
// https:// and TLS on any address that others reach.
//
// All methods of Server are safe for concurrent use. Errors carry the codes of
// package problem.
package embed
