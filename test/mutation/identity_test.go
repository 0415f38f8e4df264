package mutation

// identity: session guard, machine, audit (rules 11, 12, 17, 18, 31, 33).
var identity = []mutation{
	{
		name: "meta-not-compared", rule: "17", without: "the outer compare of the cluster's meta record",
		file:   "leases/guard.go",
		old:    `		clientv3.Compare(clientv3.Value(k.Meta()), "=", string(g.meta)),` + "\n",
		caught: []string{"leases.TestRecoveringClusterGrantsNothing"},
	},
	{
		name: "presence-not-compared", rule: "11", without: "the outer compare of the session's presence",
		file:   "leases/guard.go",
		old:    `		clientv3.Compare(clientv3.Value(k.Alive(node)), "=", string(g.alive)),` + "\n",
		caught: []string{"leases.TestTrace06GhostGrant", "leases.TestTrace18TwoMachinesUnderOneName"},
	},
	{
		name: "registration-not-compared", rule: "11", without: "the outer compare of the node's registration",
		file:   "leases/guard.go",
		old:    `		clientv3.Compare(clientv3.Value(k.Node(node)), "=", string(g.node)),` + "\n",
		caught: []string{"leases.TestRule11RegistrationIsCompared"},
	},
	{
		name: "session-not-raised", rule: "11", without: "the raise of the session's counter before a repeat",
		file:   "leases/batch.go",
		old:    `for err := b.session.raise(ctx, g); err != nil;`,
		new:    `for err := error(nil); err != nil;`,
		caught: []string{"leases.TestTrace06GhostGrant"},
	},
	{
		name: "anothers-presence-adopted", rule: "11", without: "the refusal of a presence that another agent wrote",
		file: "leases/guard.go",
		old:  `return s.replaced(g, alive)`,
		new: `next := *g
		next.alive = alive
		s.set(&next)
		return nil`,
		caught: []string{"leases.TestTrace18TwoMachinesUnderOneName"},
	},
	{
		name: "counter-ahead-adopted", rule: "12", without: "the look at the home's counter before an own presence is taken up",
		file:   "leases/guard.go",
		old:    `if !ours || a.Counter > s.home.get().Counter {`,
		new:    `if !ours {`,
		caught: []string{"leases.TestRule12CounterAheadOfTheHome"},
	},
	{
		name: "identity-taken-over", rule: "12", without: "the compare of machine and secret with the presence that stands there",
		file:   "leases/admit.go",
		old:    `ours := alive != nil && alive.Secret == secret && alive.Machine == id.Machine`,
		new:    `ours := alive != nil`,
		caught: []string{"leases.TestAdmit"},
	},
	{
		name: "machine-not-compared", rule: "12", without: "the compare of the registered machine",
		file:   "leases/admit.go",
		old:    `case node.Secret != secret || node.Machine != id.Machine:`,
		new:    `case node.Secret != secret:`,
		caught: []string{"leases.TestAdmit"},
	},
	{
		name: "secret-not-compared", rule: "12", without: "the compare of the registered secret",
		file:   "leases/admit.go",
		old:    `case node.Secret != secret || node.Machine != id.Machine:`,
		new:    `case node.Machine != id.Machine:`,
		caught: []string{"leases.TestAdmit"},
	},
	{
		name: "rolled-back-let-in", rule: "12", without: "the refusal of a node whose counter is behind etcd's",
		file:   "leases/admit.go",
		old:    `case ours && !mem.knows(alive):`,
		new:    `case ours && alive == nil:`,
		caught: []string{"leases.TestTrace20RolledBackOrCloned"},
	},
	{
		name: "copy-in-another-boot-let-in", rule: "12", without: "the wait for a presence of another boot, which may be a copy's",
		file:   "leases/admit.go",
		old:    `case ours && node != nil && node.State == nodeActive && (node.Boot`,
		new:    `case ours && node != nil && node.State == "" && (node.Boot`,
		caught: []string{"leases.TestAdmit"},
	},
	{
		name: "counter-not-known", rule: "12", without: "the compare of the counter with the one on disk",
		file:   "leases/home.go",
		old:    `(a.Nonce == m.Nonce && a.Counter <= m.Counter)`,
		new:    `a.Nonce == m.Nonce`,
		caught: []string{"leases.TestAdmit"},
	},
	{
		name: "counter-not-written-ahead", rule: "12", without: "the write of the counter to the disk before etcd has it",
		file:   "leases/guard.go",
		old:    `if err := s.home.change(func(m *memory) { m.Counter = alive.Counter }); err != nil {`,
		new:    `if err := error(nil); err != nil {`,
		caught: []string{"leases.TestRule12CounterIsWrittenAhead"},
	},
	{
		name: "recovering-cluster-written", rule: "17", without: "the stop while the cluster's state is not normal",
		file:   "leases/session.go",
		old:    `if g.normal && g.epoch == s.home.Epoch() {`,
		new:    `if g.epoch == s.home.Epoch() {`,
		caught: []string{"leases.TestRecoveringClusterGrantsNothing"},
	},
	{
		name: "own-fence-not-noticed", rule: "11", without: "the stop when the own registration is fenced, left or another's",
		file:   "leases/guard.go",
		old:    `case n.State != nodeActive || n.Boot != s.id.Boot || n.Secret != s.home.SecretHash():`,
		new:    `case n == nil:`,
		caught: []string{"leases.TestRule11RegistrationIsCompared"},
	},
	{
		name: "outer-refusal-final", rule: "17", without: "the repeat on fresh values after an outer refusal",
		file: "leases/batch.go",
		old: `			return err
		}
	case cluster.IsLeaseNotFound(err):`,
		new: `			return err
		}
		return problem.New(problem.CodeExhausted, "refused")
	case cluster.IsLeaseNotFound(err):`,
		caught: []string{"leases.TestTrace24BatchRepeatedWithADeadLease"},
	},
	{
		name: "refused-counts-as-applied", rule: "18", without: "the look whether what was wanted stands there",
		file:   "leases/batch.go",
		old:    `r.applied = c.tried && c.standsIn(r.found)`,
		new:    `r.applied = c.tried`,
		caught: []string{"leases.TestVLANRegressionLockToldButGone"},
	},
	{
		name: "own-write-not-known", rule: "18", without: "the knowledge that an earlier attempt's write stands there",
		file:   "leases/batch.go",
		old:    `r.applied = c.tried && c.standsIn(r.found)`,
		new:    `r.applied = false`,
		caught: []string{"leases.TestTrace07UnknownOutcomeCountsAsAlive"},
	},
	{
		name: "told-lock-not-there", rule: "18", without: "the look for a lock that was told as taken",
		file:   "leases/child.go",
		old:    `if p.leased && !p.sure {`,
		new:    `if p.leased {`,
		caught: []string{"leases.TestVLANRegressionLockToldButGone"},
	},
	{
		name: "unknown-counts-as-not-done", rule: "11", without: "the doubt about a mutation that has no answer",
		file:   "cluster/outcome.go",
		old:    `	return Unknown` + "\n",
		new:    `	return NotDone` + "\n",
		caught: []string{"cluster.TestClassify"},
	},
	{
		name: "raised-without-audit", rule: "31", without: "the audit before a raise, and so before a repeat",
		file:   "leases/guard.go",
		old:    `if err := s.audit.check(ctx); err != nil {`,
		new:    `if err := error(nil); err != nil {`,
		caught: []string{"leases.TestTrace16SameBytesIntoARestoredEtcd"},
	},
	{
		name: "opened-without-audit", rule: "31", without: "the audit before a session is opened",
		file:   "leases/enter.go",
		old:    `if err := s.audited1(ctx); err != nil {`,
		new:    `if err := error(nil); err != nil {`,
		caught: []string{"leases.TestTimeTravelFreezes"},
	},
	{
		name: "reconnect-not-doubted", rule: "31", without: "the doubt after etcd was reached anew",
		file:   "leases/gate.go",
		old:    `	if g.filled {` + "\n",
		new:    `	if g.filled && rev == 0 {` + "\n",
		caught: []string{"leases.TestTrace15RestoreSeenAtReconnect", "leases.TestGate"},
	},
	{
		name: "written-in-doubt", rule: "31", without: "the wait for the audit of a doubt",
		file:   "leases/session.go",
		old:    `case g != nil && sure:`,
		new:    `case g != nil && (sure || !sure):`,
		caught: []string{"leases.TestDoubtIsWaitedFor"},
	},
	{
		name: "raft-index-not-audited", rule: "31", without: "the compare of the raft index with the furthest seen",
		file:   "leases/audit.go",
		old:    `case s.Index < mem.Index || s.Revision`,
		new:    `case s.Revision`,
		caught: []string{"leases.TestTrace15RestoreSeenAtReconnect", "leases.TestWeighSight"},
	},
	{
		name: "revision-not-audited", rule: "31", without: "the compare of the revision with the furthest seen",
		file:   "leases/audit.go",
		old:    ` || s.Revision < mem.Revision:`,
		new:    `:`,
		caught: []string{"leases.TestRule31RevisionAlone", "leases.TestWeighSight"},
	},
	{
		name: "cluster-not-audited", rule: "31", without: "the compare of the cluster's id",
		file:   "leases/audit.go",
		old:    `case mem.Cluster != 0 && s.ClusterID != mem.Cluster:`,
		new:    `case mem.Cluster != 0 && s.ClusterID == 0:`,
		caught: []string{"leases.TestAnotherClusterFreezes", "leases.TestWeighSight"},
	},
	{
		name: "deadline-on-the-wall-clock", rule: "33", without: "the clock that runs on in suspend and is never set",
		file:   "leases/query.go",
		old:    `return int64(BootTime()) < r.Deadline`,
		new:    `return time.Now().Before(r.Until)`,
		caught: []string{"leases.TestRule33DeadlinesOnTheBootClock"},
	},
	{
		name: "uid-deadline-on-the-wall-clock", rule: "33", without: "the clock that runs on in suspend and is never set",
		file:   "uidpool/prover.go",
		old:    `return int64(leases.BootTime()) < r.Deadline`,
		new:    `return time.Now().Before(r.Until)`,
		caught: []string{"uidpool.TestRule33DeadlinesOnTheBootClock"},
	},
}
