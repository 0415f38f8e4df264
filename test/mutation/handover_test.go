package mutation

// handover: from grant to release (rules 1 to 8, 34 to 36, 40, 41).
var handover = []mutation{
	{
		name: "claim-under-the-lease", rule: "P1", without: "the claim that outlives its session",
		file:   "leases/grant.go",
		old:    `c.puts = append(c.puts, put{key: key, value: cluster.Encode(claim)})`,
		new:    `c.puts = append(c.puts, put{key: key, value: cluster.Encode(claim), leased: true})`,
		caught: []string{"leases.TestLeaseLostClaimsKept"},
	},
	{
		name: "freed-on-lease-expiry", rule: "1", without: "the inquiry of a claim whose lock is gone: freed at once",
		file:   "leases/janitor.go",
		old:    `return &plan{edits: []edit{{ref: ref, after: c.clone(), lock: lockPut}}}, nil`,
		new:    `return &plan{edits: []edit{{ref: ref, lock: lockDrop}}}, nil`,
		caught: []string{"leases.TestLockLostAndPutBack", "leases.TestTrace01AgentCrashBeforeTheRequesterStarts", "leases.TestExplore"},
	},
	{
		name: "ended-on-lease-expiry", rule: "1", without: "the inquiry of a claim whose lock is gone: in quarantine at once",
		file: "leases/janitor.go",
		old:  `return &plan{edits: []edit{{ref: ref, after: c.clone(), lock: lockPut}}}, nil`,
		new: `c = c.clone()
		c.Nodes[0].Requesters = nil
		c.quarantine(ReasonHoldLost, "the lock is gone", time.Now().UTC())
		return &plan{edits: []edit{{ref: ref, after: c, lock: lockDrop}}}, nil`,
		caught: []string{"leases.TestLockLostAndPutBack", "leases.TestTrace01AgentCrashBeforeTheRequesterStarts"},
	},
	{
		name: "inquiry-of-the-living", rule: "1", without: "the look whether a requester lives, before an inquiry's verdict",
		file:   "leases/janitor.go",
		old:    `if p == nil || p.Boot != a.id.Boot || seen.live[ref] {`,
		new:    `if p == nil || p.Boot != a.id.Boot {`,
		caught: []string{"leases.TestTrace04AnswerDuringAnInquiry"},
	},
	{
		name: "living-not-relocked", rule: "1", without: "the look whether a requester lives, before an inquiry begins",
		file:   "leases/janitor.go",
		old:    `if a.mayStart(ref, requesters[ref]) {`,
		new:    `if a.mayStart(ref, nil) {`,
		caught: []string{"leases.TestLockLostAndPutBack"},
	},
	{
		name: "verdict-without-a-scan", rule: "1", without: "the scan of an inquiry",
		file:   "leases/janitor.go",
		old:    `if !c.inquiry(a.id.Node, seen.runs(ref, c.Count), "its hold ended and`,
		new:    `if !c.inquiry(a.id.Node, false, "its hold ended and`,
		caught: []string{"leases.TestTrace02RequesterDiesAfterFork"},
	},
	{
		name: "left-behind-not-counted", rule: "2", without: "the children of a dead process that are not the uid yet",
		file:   "uidpool/prover.go",
		old:    `return p.leftBehind(id, ref, r.Since)`,
		new:    `return false`,
		caught: []string{"uidpool.TestRule02ChildOfADeadRequester"},
	},
	{
		name: "confirmed-after-the-hold", rule: "2", without: "the refusal of a confirm after its TTL",
		file:   "leases/holder.go",
		old:    `case p != nil && c.State == Locked && a.lapsed(ref, p):`,
		new:    `case p != nil && c.State == Free:`,
		caught: []string{"leases.TestRule02KeepAfterTheHold"},
	},
	{
		name: "inquiry-of-a-newer-claim", rule: "3", without: "the look whether the claim is older than the inquiry's scan",
		file: "leases/janitor.go",
		old: `"inquiry", []Ref{ref}, func(s *snap) (*plan, error) {
		c := s.claims[ref].Val
		if c == nil || s.claims[ref].ModRev > seen.rev {`,
		new: `"inquiry", []Ref{ref}, func(s *snap) (*plan, error) {
		c := s.claims[ref].Val
		if c == nil {`,
		caught: []string{"leases.TestInquiryJudgesNoNewerClaim"},
	},
	{
		name: "idle-of-a-newer-claim", rule: "8", without: "the look whether the claim is older than the scan that found nothing",
		file: "leases/janitor.go",
		old: `"observe", []Ref{ref}, func(s *snap) (*plan, error) {
		c := s.claims[ref].Val
		if c == nil || s.claims[ref].ModRev > seen.rev {`,
		new: `"observe", []Ref{ref}, func(s *snap) (*plan, error) {
		c := s.claims[ref].Val
		if c == nil {`,
		caught: []string{"leases.TestRule08IdleJudgesNoNewerBinding"},
	},
	{
		name: "boot-not-swept", rule: "3", without: "the sweep of an earlier boot",
		file:   "leases/janitor.go",
		old:    `c.sweep = append(c.sweep, ref)`,
		new:    `_ = ref`,
		caught: []string{"leases.TestRebootFreesWhatRan"},
	},
	{
		name: "answered-without-a-write", rule: "4", without: "the write that binds who repeats a key: answered by the mirror",
		file: "leases/answer.go",
		old:  `held, err := a.bindAll(ctx, rec.IDs, rec.Token, req.Requester)`,
		new: `s, err := a.load(ctx, rec.IDs)
	if err != nil {
		return nil, err
	}
	held := heldOf(rec.IDs, s.claims)`,
		caught: []string{"leases.TestTrace03TwoRequestersUnderOneKey"},
	},
	{
		name: "bound-to-anothers-grant", rule: "4", without: "the compare of the token when a requester is bound",
		file: "leases/answer.go",
		old: `			if c == nil || c.Token != token || !c.State.held() {
				return nil, ended(ref, c)
			}
			if ref.vlan() && c.State == Used {`,
		new: `			if c == nil || !c.State.held() {
				return nil, ended(ref, c)
			}
			if ref.vlan() && c.State == Used {`,
		caught: []string{"leases.TestJoinOnASecondNode"},
	},
	{
		name: "one-release-unbinds-all", rule: "4", without: "the choice of the requesters that a release speaks for",
		file:   "leases/change.go",
		old:    `p.Requesters = slices.DeleteFunc(p.Requesters, match)`,
		new:    `p.Requesters = nil`,
		caught: []string{"leases.TestTrace03TwoRequestersUnderOneKey", "leases.TestExplore"},
	},
	{
		name: "release-without-its-token", rule: "P5", without: "the compare of the token by a release",
		file:   "leases/release.go",
		old:    `if c == nil || c.Token != r.Token {`,
		new:    `if c == nil {`,
		caught: []string{"leases.TestReleaseIsExact"},
	},
	{
		name: "freed-by-its-release", rule: "5", without: "the quarantine after a release: freed at once",
		file: "leases/release.go",
		old:  `	sole := !r.Whole` + "\n",
		new: `	for i := range p.edits {
		if p.edits[i].after.State == Quarantined {
			p.edits[i].after = nil
		}
	}
	if r.By != "" {
		return
	}
	sole := !r.Whole
`,
		caught: []string{"leases.TestReleaseWaitsForTheAbsentHolder"},
	},
	{
		name: "shortcut-of-an-operator", rule: "5", without: "the quarantine after an operator's release",
		file:   "leases/release.go",
		old:    `sole := !r.Whole`,
		new:    `sole := true`,
		caught: []string{"leases.TestRule05OperatorsReleaseIsNoShortcut"},
	},
	{
		name: "shortcut-without-a-scan", rule: "5", without: "the scan of the shortcut",
		file:   "leases/release.go",
		old:    `if !e.ref.vlan() && runs(e.ref, e.after.Count) {`,
		new:    `if !e.ref.vlan() && e.ref.ID == 0 && runs(e.ref, e.after.Count) {`,
		caught: []string{"leases.TestRule05ShortcutLooksFirst"},
	},
	{
		name: "shortcut-past-a-requester", rule: "34", without: "the quarantine of a claim that a requester is still bound to",
		file:   "leases/release.go",
		old:    ` || len(e.after.Nodes[0].Requesters) != 0`,
		caught: []string{"leases.TestRule34RequesterBoundPastTheIdleMark"},
	},
	{
		name: "shortcut-past-other-nodes", rule: "10", without: "the proofs of other nodes before the shortcut",
		file:   "leases/release.go",
		old:    `if n.name != a.id.Node && w.due(n) {`,
		new:    `if n.name == "" && w.due(n) {`,
		caught: []string{"leases.TestShortcutNoticesANodeThatComesBack", "leases.TestExplore"},
	},
	{
		name: "shortcut-past-the-cooldown", rule: "14", without: "the cooldown before the shortcut",
		file:   "leases/release.go",
		old:    `!ok || pool.Val.Cooldown != 0 || `,
		new:    `!ok || pool.Val == nil || `,
		caught: []string{"leases.TestCooldown"},
	},
	{
		name: "relocked-after-its-end", rule: "6", without: "the look whether a claim is locked before its lock is put back",
		file:   "leases/janitor.go",
		old:    `if c == nil || c.State != Locked || c.On(a.id.Node) == nil {`,
		new:    `if c == nil || c.On(a.id.Node) == nil {`,
		caught: []string{"leases.TestRule06NotRelockedAfterTheHandOver"},
	},
	{
		name: "loss-not-told", rule: "6", without: "the word to the holder that its grant has ended",
		file:   "uidpool/allocator.go",
		old:    `return c == nil || c.Token != l.grant.Token || c.State == leases.Quarantined`,
		new:    `return c != nil && c.Token != l.grant.Token`,
		caught: []string{"uidpool.TestRule06LossIsTold"},
	},
	{
		name: "confirmed-without-a-scan", rule: "7", without: "the refusal of a confirm of what does not run",
		file:   "leases/holder.go",
		old:    `		case !keep:` + "\n",
		new:    `		case !keep && c.State == Free:` + "\n",
		caught: []string{"leases.TestTrace14ReclaimAgainstAHolderThatRestarts"},
	},
	{
		name: "confirm-does-not-look", rule: "7", without: "the scan of a confirm",
		file:   "uidpool/allocator.go",
		old:    `return a.engine.Confirm(ctx, ref, token, requester, keep, runs)`,
		new:    `return a.engine.Confirm(ctx, ref, token, requester, keep, runs || true)`,
		caught: []string{"uidpool.TestLife"},
	},
	{
		name: "confirm-without-its-token", rule: "P5", without: "the compare of the token by confirm and renew",
		file:   "leases/holder.go",
		old:    `	case c.Token != token:`,
		new:    `	case c.Token == "":`,
		caught: []string{"leases.TestReleaseIsExact"},
	},
	{
		name: "confirm-after-a-reboot", rule: "7", without: "the refusal of a confirm of an earlier boot",
		file:   "leases/holder.go",
		old:    `case p != nil && p.Boot != a.id.Boot:`,
		new:    `case p != nil && p.Boot == "":`,
		caught: []string{"leases.TestRule07ConfirmAfterAReboot"},
	},
	{
		name: "reclaimed-in-use", rule: "8", without: "the look whether a claim is idle before it is reclaimed",
		file:   "leases/change.go",
		old:    `return c.State == Idle && !c.Kept()`,
		new:    `return c.State.held() && !c.Kept()`,
		caught: []string{"leases.TestReclaimGoesBackWhenItRuns"},
	},
	{
		name: "idle-under-a-living-requester", rule: "8", without: "the look whether a bound requester lives before a claim is idle",
		file:   "leases/janitor.go",
		old:    `} else if !seen.live[ref] {`,
		new:    `} else {`,
		caught: []string{"leases.TestTrace14ReclaimAgainstAHolderThatRestarts"},
	},
	{
		name: "reclaim-not-undone", rule: "8", without: "the way back to used of a reclaimed claim that runs again",
		file:   "leases/change.go",
		old:    `case c.State == Quarantined && c.Reclaimed:`,
		new:    `case c.State == Free && c.Reclaimed:`,
		caught: []string{"leases.TestTrace14ReclaimAgainstAHolderThatRestarts"},
	},
	{
		name: "part-of-a-group-reclaimed", rule: "8", without: "the wait until the whole group is idle",
		file: "leases/exhaust.go",
		old: `			if !c.reclaim(time.Now().UTC()) {
				return nil, nil
			}`,
		new: `			if !c.reclaim(time.Now().UTC()) {
				continue
			}`,
		caught: []string{"leases.TestRule08GroupIsReclaimedWhole"},
	},
	{
		name: "idle-on-one-node", rule: "40", without: "the idle mark of every node named",
		file:   "leases/change.go",
		old:    `if slices.ContainsFunc(c.Nodes, func(p Presence) bool { return !p.Idle || p.kept() }) {`,
		new:    `if !slices.ContainsFunc(c.Nodes, func(p Presence) bool { return p.Idle && !p.kept() }) {`,
		caught: []string{"leases.TestIdleNeedsEveryNode"},
	},
	{
		name: "kept-goes-idle", rule: "40", without: "the keep that holds a claim in use",
		file:   "leases/change.go",
		old:    `if p == nil || p.Idle || p.kept() || c.State != Used {`,
		new:    `if p == nil || p.Idle || c.State != Used {`,
		caught: []string{"leases.TestKeepOutlivesOthers"},
	},
	{
		name: "keep-ended-by-an-inquiry", rule: "40", without: "the keep that outlives other requesters",
		file:   "leases/change.go",
		old:    `p.Requesters = slices.DeleteFunc(p.Requesters, func(r Requester) bool { return !r.Keep })`,
		new:    `p.Requesters = nil`,
		caught: []string{"leases.TestInquiry"},
	},
	{
		name: "idle-mark-outlives-a-bind", rule: "36", without: "the end of the idle mark when a requester is bound",
		file:   "leases/change.go",
		old:    `p.Boot, p.Idle, p.Confirmed = boot, false, false`,
		new:    `p.Boot, p.Confirmed = boot, false`,
		caught: []string{"leases.TestBind"},
	},
	{
		name: "join-without-a-write", rule: "36", without: "the write of a join where the node is named already",
		file:   "leases/answer.go",
		old:    `pr.Boot == a.id.Boot && pr.has(r) {`,
		new:    `pr.Boot == a.id.Boot {`,
		caught: []string{"leases.TestTrace26JoinIsAWriteAtTheJoiningNode"},
	},
	{
		name: "requesters-name-believed", rule: "36", without: "the compare of the hold of a requester that is bound again",
		file:   "leases/answer.go",
		old:    `return old.Hold == r.Hold && old.PID == r.PID && old.Start == r.Start && old.PIDNS == r.PIDNS`,
		new:    `return true`,
		caught: []string{"leases.TestRule36NameOfAnotherProcess"},
	},
	{
		name: "last-binding-not-looked-for", rule: "35", without: "the others that are bound when one requester releases",
		file:   "leases/change.go",
		old:    `if !slices.ContainsFunc(c.Nodes, func(p Presence) bool { return p.bound() }) && (c.State`,
		new:    `if (c.State`,
		caught: []string{"leases.TestTrace03TwoRequestersUnderOneKey", "leases.TestExplore"},
	},
	{
		name: "release-leaves-no-mark", rule: "35", without: "the mark of a release that ends the claim once the others are gone",
		file:   "leases/change.go",
		old:    `	c.Released = true` + "\n",
		caught: []string{"leases.TestReleaseLeavesAMark"},
	},
	{
		name: "drop-ends-the-others", rule: "35", without: "the other nodes' part when one is taken out",
		file:   "leases/change.go",
		old:    `	if len(c.Nodes) == 1 {`,
		new:    `	if len(c.Nodes) > 0 {`,
		caught: []string{"leases.TestTrace25FirstHolderReleasesBeforeTheJoinedRankStarts"},
	},
	{
		name: "not-relocked-by-a-bind", rule: "41", without: "the lock of a used claim whose holder is about to start again",
		file:   "leases/answer.go",
		old:    `			c.relock(now)` + "\n",
		new:    `			_ = now` + "\n",
		caught: []string{"leases.TestTrace30KeptForOneEndedByTheOther"},
	},
}
