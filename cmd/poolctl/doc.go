// Command poolctl asks an idpool agent for uids and VLANs and administers pools,
// inventories, services and nodes. It wires flags to package api and prints what comes back; decisions
// are the agent's. "uid pool check", "uid pool suggest", "uid probe" and "version"
// work without an agent, "demo" brings its own, and "uid exec" runs a command here.
//
// Promised to scripts: data goes to stdout and messages to stderr; -q prints
// bare ids, -o json the objects of the agent's HTTP interface and, on failure,
// problem JSON on stderr; the exit code tells what happened:
//
//	0  ok
//	1  error, or the named thing does not exist
//	2  usage, or input that can never be granted
//	3  held by another, not held, findings
//	4  exhausted
//	5  unavailable: nothing was done
//	6  outcome unknown: repeat with the same --key
//	7  forbidden
//
// "uid exec" passes on its command's code, else 125 (idpool refused), 126 (not
// executable), 127 (not found) or 128 and the signal's number. Table columns
// are for people and may change.
//
// Each command is an options struct, a constructor and a run method with
// injected streams and client. Goroutines run in "uid exec": one reaps, one
// forwards signals, one confirms; and in "vlan inventory import" on a terminal:
// one counts. All end with the command.
package main
