package mutation

// proofs: what frees an id (rules 9, 10, 14 to 16, 34, and P3).
var proofs = []mutation{
	{
		name: "no-proof-waited-for", rule: "10", without: "the wait for any proof",
		file:   "leases/due.go",
		old:    `	var waits []Wait` + "\n",
		new:    `	var waits []Wait` + "\n" + `	if w.epoch == w.epoch {` + "\n" + `		return nil` + "\n" + `	}` + "\n",
		caught: []string{"leases.TestWaits", "leases.TestExplore"},
	},
	{
		name: "proof-of-another-epoch", rule: "10", without: "the compare of a proof's epoch",
		file:   "leases/due.go",
		old:    ` && n.proof.Epoch == w.epoch`,
		caught: []string{"leases.TestWaits"},
	},
	{
		name: "proof-of-another-boot", rule: "10", without: "the compare of a proof's boot",
		file:   "leases/due.go",
		old:    ` && n.proof.Boot == n.node.Boot`,
		caught: []string{"leases.TestWaits"},
	},
	{
		name: "proof-of-another-machine", rule: "10", without: "the compare of a proof's machine",
		file:   "leases/due.go",
		old:    `n.proof.Machine == n.node.Machine && `,
		caught: []string{"leases.TestWaits"},
	},
	{
		name: "proof-from-the-future", rule: "10", without: "the compare of a proof's revision with the one it was written at",
		file:   "leases/due.go",
		old:    ` && n.proof.Revision <= n.proofRev`,
		caught: []string{"leases.TestWaits"},
	},
	{
		name: "proof-too-old", rule: "10", without: "the compare of a proof's revision with the claim's",
		file:   "leases/due.go",
		old:    `fresh := w.valid(n) && n.proof.Revision >= w.modRev`,
		new:    `fresh := w.valid(n)`,
		caught: []string{"leases.TestWaits"},
	},
	{
		name: "in-use-ignored", rule: "10", without: "the look at what a proof lists",
		file:   "leases/due.go",
		old:    `n.node.State == nodeActive && n.proof.lists(w.ref, w.claim.Count):`,
		new:    `n.node.State == nodeFenced && n.proof.lists(w.ref, w.claim.Count):`,
		caught: []string{"leases.TestWaits", "leases.TestTrace12PoolShrunkAndGrown", "leases.TestExplore"},
	},
	{
		name: "revision-after-the-scan", rule: "10", without: "the revision that a proof takes before its scan",
		file: "leases/observe.go",
		old: `	o.used, o.runs = used, a.runsBy(used)
`,
		new: `	o.used, o.runs = used, a.runsBy(used)
	o.rev, o.stale = a.mirror.Revision()
`,
		caught: []string{"leases.TestRule10RevisionBeforeTheScan"},
	},
	{
		name: "requesters-after-the-scan", rule: "10", without: "the look at who may start that is taken before the scan",
		file: "leases/observe.go",
		old: `	o.used, o.runs = used, a.runsBy(used)
`,
		new: `	o.used, o.runs = used, a.runsBy(used)
	o.live = a.starters()
`,
		caught: []string{"leases.TestProofAsksWhoMayStartBeforeItScans", "leases.TestExplore"},
	},
	{
		name: "proof-by-pool-ranges", rule: "10", without: "the claims outside of every pool in a proof",
		file:   "leases/proof.go",
		old:    `if !reportable(ref, a.id.Node) {`,
		new:    `if p := v.pools[v.claims[ref].Val.Pool]; !reportable(ref, a.id.Node) || !p.ids.Contains(ref.ID) {`,
		caught: []string{"leases.TestTrace12PoolShrunkAndGrown"},
	},
	{
		name: "reports-without-end", rule: "10", without: "the end of reports once a claim is spoken for",
		file:   "leases/janitor.go",
		old:    `|| p.Revision < c.ModRev {`,
		new:    `|| p.Revision < c.ModRev || p.Revision > 0 {`,
		caught: []string{"leases.TestReportsAreDueOnce"},
	},
	{
		name: "proof-past-the-requester", rule: "34", without: "the requesters in a proof",
		file:   "leases/proof.go",
		old:    `if seen.runs(ref, count) || seen.live[ref] {`,
		new:    `if seen.runs(ref, count) {`,
		caught: []string{"leases.TestTrace27HolderToldLate", "leases.TestExplore"},
	},
	{
		name: "freed-without-the-node-list", rule: "9", without: "the compare of the node list by whoever frees",
		file:   "leases/reaper.go",
		old:    `return &plan{edits: []edit{{ref: ref, after: nil, lock: lockDrop}}, members: &members}, nil`,
		new:    `return &plan{edits: []edit{{ref: ref, after: nil, lock: lockDrop}}}, nil`,
		caught: []string{"leases.TestTrace08NodeJoinsBetweenProofAndFree"},
	},
	{
		name: "freed-after-a-change", rule: "9", without: "the look whether the claim is the one that was proven",
		file:   "leases/reaper.go",
		old:    `c.ModRev != weighed || `,
		caught: []string{"leases.TestRule09FreedAsItWasWeighed"},
	},
	{
		name: "dropped-without-the-node-list", rule: "39", without: "the compare of the node list by whoever takes a node out",
		file:   "leases/reaper.go",
		old:    `return &plan{edits: []edit{{ref: ref, after: c, lock: lockFor(c)}}, members: &members}, nil`,
		new:    `return &plan{edits: []edit{{ref: ref, after: c, lock: lockFor(c)}}}, nil`,
		caught: []string{"leases.TestRule39DropsWhatItSaw"},
	},
	{
		name: "shortcut-without-the-node-list", rule: "9", without: "the compare of the node list by the shortcut",
		file:   "leases/release.go",
		old:    `	p.members = &members` + "\n",
		caught: []string{"leases.TestShortcutNoticesANodeThatComesBack", "leases.TestExplore"},
	},
	{
		name: "entered-unnoticed", rule: "9", without: "the write of the node list by a node that comes up",
		file:   "leases/enter.go",
		old:    `clientv3.WithLease(next.lease)), putMembers(k, n, "enter")}`,
		new:    `clientv3.WithLease(next.lease))}`,
		caught: []string{"leases.TestTrace08NodeJoinsBetweenProofAndFree"},
	},
	{
		name: "node-changed-unseen", rule: "9", without: "the compare of node and node list by fence, unfence and remove",
		file:   "leases/nodes.go",
		old:    `c.cmps = append(cmps, sameValue(key, old.Raw), clientv3.Compare(clientv3.ModRevision(a.keys.Members()), "=", v.members.ModRev))`,
		new:    `c.cmps = cmps`,
		caught: []string{"leases.TestRule13UnfenceBesideRemove"},
	},
	{
		name: "no-cooldown", rule: "14", without: "the cooldown",
		file:   "leases/view.go",
		old:    `if !ok || p.Val.Cooldown == 0 {`,
		new:    `if !ok || p.Val.Cooldown >= 0 {`,
		caught: []string{"leases.TestCooldown"},
	},
	{
		name: "cooldown-by-anothers-clock", rule: "14", without: "the reaper's own clock for the cooldown",
		file:   "leases/view.go",
		old:    `time.Since(v.quarantined[ref])`,
		new:    `time.Since(c.Since)`,
		caught: []string{"leases.TestRule14CooldownOnTheReapersClock"},
	},
	{
		name: "longest-idle-by-another-clock", rule: "14", without: "the order of mod revisions for the longest idle",
		file:   "leases/exhaust.go",
		old:    `return cmp.Compare(v.claims[x].ModRev, v.claims[y].ModRev)`,
		new:    `return v.claims[x].Val.GrantedAt.Compare(v.claims[y].Val.GrantedAt) + cmp.Compare(0, 0)`,
		caught: []string{"leases.TestReclaimTakesTheLongestIdleAfterProof"},
	},
	{
		name: "not-said-who-is-waited-for", rule: "15", without: "the nodes waited for in a refusal",
		file:   "leases/exhaust.go",
		old:    `		e.WaitsFor = append(e.WaitsFor, problem.WaitsFor{Node: wn.node, LastSeen: wn.lastSeen, Why: wn.why})` + "\n",
		caught: []string{"leases.TestExhaustionIsHonest"},
	},
	{
		name: "other-nodes-not-asked", rule: "16", without: "the proof of every node that is up",
		file: "leases/due.go",
		old: `		return false
	}
	return named || n.up || w.policy == ProofCluster`,
		new: `		return false
	}
	return named || w.policy == ProofCluster`,
		caught: []string{"leases.TestWaits"},
	},
	{
		name: "foreign-use-not-noted", rule: "16", without: "the note of a uid that runs and was never granted",
		file:   "leases/janitor.go",
		old:    `a.strangers(ctx, seen.used)`,
		new:    `a.strangers(ctx, idset.Set{})`,
		caught: []string{"leases.TestForeignUse"},
	},
	{
		name: "handed-out-without-a-look", rule: "P3", without: "the look at what runs before a uid is handed out",
		file:   "leases/grant.go",
		old:    `	return a.handOut(ctx, req, picks, answer)`,
		new:    `	return answer, nil`,
		caught: []string{"leases.TestForeignAtHandOut"},
	},
	{
		name: "repeat-without-a-look", rule: "P3", without: "the look at what runs before a key is answered again",
		file:   "leases/answer.go",
		old:    `if again, err := a.unseen(ctx, req.Requester.ID, rec.Token, held); again || err != nil {`,
		new:    `if again, err := false, error(nil); again || err != nil {`,
		caught: []string{"leases.TestAKeyRepeatedAfterAnUnknownOutcomeIsLookedAt"},
	},
	{
		name: "grants-without-proof", rule: "P3", without: "the refusal of a node that cannot tell what runs",
		file:   "leases/grant.go",
		old:    `if why := a.session.noProofNow(); why != "" && uids {`,
		new:    `if why := a.session.noProofNow(); why == "never" && uids {`,
		caught: []string{"leases.TestNodeThatCannotTellGrantsNothing"},
	},
	{
		name: "orphan-not-given-back", rule: "P6", without: "the way back of a grant that nobody was told of",
		file:   "leases/grant.go",
		old:    `if r.applied && req.Key == "" && req.Document == nil { // a key`,
		new:    `if r.applied && req.Key == "none" && req.Document == nil { // a key`,
		caught: []string{"leases.TestUnknownGrantIsSettledAfterTheOutage"},
	},
	{
		name: "unreadable-claim-is-free", rule: "P1", without: "the id that an unreadable claim takes",
		file:   "leases/mirror_keys.go",
		old:    `	set.Insert(ref.ID)` + "\n",
		new:    `	if _, err := decodeClaim(ref, kv.Value); err == nil {` + "\n" + `		set.Insert(ref.ID)` + "\n" + `	}` + "\n",
		caught: []string{"leases.TestPromise1UnreadableClaimTakesItsID"},
	},
	{
		name: "unreadable-presence-is-gone", rule: "16", without: "the wait for a node whose presence cannot be read",
		file:   "leases/mirror_keys.go",
		old:    `			m.alive[key.Name] = stored(&Alive{NoProof: "its presence cannot be read"}, kv)` + "\n",
		caught: []string{"leases.TestUnreadableNodesAreWaitedFor"},
	},
}
