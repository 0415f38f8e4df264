// Command poolagent is the idpool agent of a node. It wires flags, environment
// and a file to package agent and prints one line when the node serves;
// everything else is package agent's.
//
// A setting comes from, later ones winning: its default, the file of --config
// (YAML, the flags' names as keys), the environment (IDPOOL_ and the flag's name
// in capitals, - as _; lists separated by commas), the command line. "embedded"
// and "endpoints" exclude each other whatever they come from.
//
// Promised to scripts: the line "poolagent: node NAME ready on SOCKET (etcd …)"
// on stderr once uids can be asked for, SIGTERM and SIGINT for a clean stop, and
// the exit code: 0 stopped, 2 usage or a configuration that cannot work, 3 the
// data directory or socket is in use, 5 the node is fenced or its name another
// agent's, 7 etcd denies the keys, 1 anything else. The log goes to stderr: JSON,
// or lines for people on a terminal.
package main
