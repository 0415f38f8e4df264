// Package userdb gives granted uids a name on this host: it speaks systemd's
// io.systemd.UserDatabase on a socket, and writes the same records as files.
//
// # Names
//
// The uid 70012 is called PREFIX70012, "idp-70012" by default; its group has the
// same number and name. A grant that says who holds it is called PREFIXHOLDER
// instead, as in "idp-web", if that is a user's name of at most 31 characters
// (a-z, 0-9, _ and -, not digits alone), no other live grant says the same, and it
// is a grant of one uid. The prefix always stands: a requester chooses the holder,
// and must not choose a name that sudo or ssh knows.
//
// # Promised
//
// At any moment a name means one uid and a uid has one name: all answers come from
// one [Snapshot]. Nothing is answered for a name or number that /etc/passwd or
// /etc/group has, nor for uid 0, 65534, 65535 and 4294967295. No lookup waits for etcd.
// A message is at most 64 KiB; one that is no call ends its connection. When there
// are too many connections, the one that has been silent for the longest is closed.
//
// # Not promised
//
// Names of other sources (LDAP, other userdb services) are not looked at: asking for
// them would ask us again. An own name may go to another uid once its grant is
// released; programs store numbers.
//
// # Goroutines
//
// [Server.Serve] has one for each connection and ends them all before it returns.
// [DropIn.Run] has none. Everything else may be used by several goroutines.
package userdb
