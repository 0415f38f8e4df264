// Package backup copies a cluster's data out of etcd and into another one.
//
// [Save] takes etcd's own snapshot: everything etcd holds, of all its users, to be
// restored with etcdutl into new members. [Check] reads such a file; the checksum in it
// tells damage, not forgery. [Export] writes idpool's records below one root as lines of
// JSON, and [Import] makes a cluster of them below an empty root; docs/export.md has the
// format.
//
// It promises:
//
//   - A file stands whole under its name or not at all: it is written beside as
//     NAME.*.part, synced, verified and then put in place, and an error, a signal or
//     a lost etcd leaves nothing. A power failure or SIGKILL may leave the .part.
//   - An existing file is replaced only when asked to, also one that came meanwhile.
//   - An export is of one revision, and its records are byte for byte those of etcd. An
//     import writes nothing before all of the file was found right, and counts for
//     nothing before its last write.
//   - A snapshot holds every write that was acknowledged before Save began: a member
//     that lags behind is found out.
//
// It does not promise that a snapshot is current: what was granted after it is not in
// it, and a cluster restored from it must be adopted before it grants again.
//
// Functions are safe for concurrent use. Errors carry the codes of package problem:
// [problem.CodeInvalid] for what was asked or for a damaged file, [problem.CodeHeld]
// for a name that is taken, [problem.CodeForbidden], and [problem.CodeUnavailable]
// where etcd or the disk gave out and nothing was kept.
package backup
