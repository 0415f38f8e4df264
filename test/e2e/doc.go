// Package e2e holds the tests with real binaries: poolagent and poolctl, built
// by the tests, on an etcd that they start. Agents are killed with SIGKILL,
// at any point of an operation where a test asks for it (a build of poolagent
// with the tag idpool_fault); what etcd holds is read back and judged.
package e2e
