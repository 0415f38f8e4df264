package mutation

// services: VLANs, their documents, steps and files (rules 20, 24 to 27, P2).
var services = []mutation{
	{
		name: "document-not-compared", rule: "25", without: "the compare of the service's document",
		file:   "leases/document.go",
		old:    `c.cmps, c.gets = append(c.cmps, sameValue(key, d.before)), append(c.gets, key)`,
		new:    `c.gets = append(c.gets, key)`,
		caught: []string{"leases.TestDocumentDecides"},
	},
	{
		name: "service-lock-taken-over", rule: "27", without: "the compare that nobody has the service's lock",
		file:   "leases/document.go",
		old:    `		c.cmps = append(c.cmps, clientv3.Compare(clientv3.CreateRevision(lock), "=", 0))` + "\n",
		caught: []string{"leases.TestDocumentLock"},
	},
	{
		name: "service-lock-not-compared", rule: "27", without: "the compare of the service's lock by who relies on it",
		file:   "leases/document.go",
		old:    `		c.cmps = append(c.cmps, clientv3.Compare(clientv3.Value(lock), "=", d.lock.Value))` + "\n",
		caught: []string{"leases.TestDocumentLock"},
	},
	{
		name: "anothers-vlan-ended", rule: "26", without: "the compare of the token of a VLAN that ends with its service",
		file:   "leases/document.go",
		old:    `if c == nil || c.Token != t.Token || !c.State.held() || slices.Contains(seen, t.Ref) {`,
		new:    `if c == nil || !c.State.held() || slices.Contains(seen, t.Ref) {`,
		caught: []string{"leases.TestReleaseByOldTokenTouchesNothing"},
	},
	{
		name: "vlan-ended-twice", rule: "P5", without: "the look for a VLAN that is named twice",
		file:   "leases/document.go",
		old:    ` || slices.Contains(seen, t.Ref) {`,
		new:    ` || slices.Contains(seen[:0], t.Ref) {`,
		caught: []string{"leases.TestVLANRegressionSameReleaseTwice"},
	},
	{
		name: "vlan-without-its-cooldown", rule: "26", without: "the cooldown of a VLAN that ends",
		file:   "leases/document.go",
		old:    `p.Val.Cooldown == 0 && e.after.State == Quarantined {`,
		new:    `p.Val.Cooldown >= 0 && e.after.State == Quarantined {`,
		caught: []string{"leases.TestVLANCooldown"},
	},
	{
		name: "half-a-pair", rule: "P2", without: "the one transaction of a group: two of them",
		file: "leases/grant.go",
		old:  `	r := a.submit(ctx, "grant", c)` + "\n",
		new: `	half := &child{cmps: c.cmps[:1], puts: c.puts[:(len(c.puts)+1)/2], gets: c.gets[:1]}
	if len(picks) > 1 {
		c.cmps, c.puts = c.cmps[1:], c.puts[len(half.puts):]
		a.batch.submit(ctx, half)
	}
	r := a.batch.submit(ctx, c)
`,
		caught: []string{"leases.TestVLANPairIsOneTransaction"},
	},
	{
		name: "no-compensation", rule: "24", without: "the VLANs of etcd that a compensation gives back",
		file:   "vlan/plan.go",
		old:    `			ends = append(ends, at.ref())` + "\n" + `			at.VID`,
		new:    `			at.VID`,
		caught: []string{"vlan.TestCompensate"},
	},
	{
		name: "no-compensation-outside", rule: "24", without: "the VLANs of outside inventories that a compensation gives back",
		file:   "vlan/plan.go",
		old:    `		case at.Outside:` + "\n",
		new:    `		case at.Outside:` + "\n" + `			at.clear()` + "\n",
		caught: []string{"vlan.TestCompensate"},
	},
	{
		name: "hold-never-ends", rule: "24", without: "the compensation of a service whose hold has ended",
		file:   "vlan/saga.go",
		old:    `	case Allocated, Provisioning:`,
		new:    `	case Provisioning:`,
		caught: []string{"vlan.TestTrace22HoldLostBeforeProvisioning"},
	},
	{
		name: "provisioning-compensated", rule: "24", without: "the VLANs that stay while devices may carry them",
		file:   "vlan/saga.go",
		old:    `	if step(s.State, evHoldLost).v == vMark {`,
		new:    `	if step(s.State, evHoldLost).v == vThen {`,
		caught: []string{"vlan.TestTrace22HoldLostThoughProvisioningSucceeded"},
	},
	{
		name: "no-intent", rule: "25", without: "the intent before an outside inventory is asked",
		file: "vlan/steps.go",
		old:  `	s, err := a.advance(ctx, "service:intent", s.Name,`,
		new: `	early := s.attribute(name)
	if inv, e := a.inventory(early.Inventory); e == nil {
		if choice, e := s.Selection.outside(s.Attributes, s.index(name)); e == nil {
			_, _ = inv.Allocate(ctx, early.Key, choice)
		}
	}
	s, err := a.advance(ctx, "service:intent", s.Name,`,
		caught: []string{"vlan.TestWithoutKeysNothingIsGuessed"},
	},
	{
		name: "no-releasing", rule: "25", without: "the word \"releasing\" before an outside inventory is told",
		file: "vlan/steps.go",
		old:  `	_, err = a.advance(ctx, "service:releasing", s.Name,`,
		new: `	if err := inv.Release(ctx, *at.VID, at.Key); err != nil {
		return err
	}
	_, err = a.advance(ctx, "service:releasing", s.Name,`,
		caught: []string{"vlan.TestWithoutKeysNothingIsGuessed"},
	},
	{
		name: "retried-while-releasing", rule: "25", without: "the refusal of a retry while VLANs are given back",
		file: "vlan/lifecycle.go",
		old:  `	if c, ok := table[s][e]; ok {`,
		new: `	if s == Deallocating && e == evRetry {
		return cell{Allocating, vMove}
	}
	if c, ok := table[s][e]; ok {`,
		caught: []string{"vlan.TestTrace21RetryRacesCompensation"},
	},
	{
		name: "task-of-an-older-record", rule: "25", without: "the compare of the record that a task rests on",
		file:   "vlan/steps.go",
		old:    `if now.Write != s.Write {`,
		new:    `if now.Write == "" {`,
		caught: []string{"vlan.TestRule25TaskOfAnOlderRecord"},
	},
	{
		name: "change-of-another-life", rule: "26", without: "the compare of the service's token by a change",
		file:   "vlan/change.go",
		old:    `	if err := s.carries(c.Token, verb); err != nil {` + "\n" + `		return vRefuse, err`,
		new:    `	if err := s.carries(s.Token, verb); err != nil {` + "\n" + `		return vRefuse, err`,
		caught: []string{"vlan.TestTrace21FailByNameAfterRecreation"},
	},
	{
		name: "delete-of-another-life", rule: "26", without: "the compare of the service's token by a delete",
		file:   "vlan/change.go",
		old:    `		if c.Token != "" && c.Token != s.Token {` + "\n" + `			return nil, nil`,
		new:    `		if c.Token != "" && s.Token == "" {` + "\n" + `			return nil, nil`,
		caught: []string{"vlan.TestABAByToken"},
	},
	{
		name: "confirmed-while-compensated", rule: "26", without: "the word to the caller that its VLANs are being given back",
		file: "vlan/lifecycle.go",
		old:  `	if c, ok := table[s][e]; ok {`,
		new: `	if s == Deallocating && e == evConfirm {
		return cell{Up, vMove}
	}
	if c, ok := table[s][e]; ok {`,
		caught: []string{"vlan.TestStep"},
	},
	{
		name: "worked-on-under-anothers-lock", rule: "27", without: "the look for another's lock before a task is chosen",
		file:   "vlan/saga.go",
		old:    `	if x.lock != "" && x.lock != x.mine {`,
		new:    `	if x.lock != "" && x.mine == "" {`,
		caught: []string{"vlan.TestNext"},
	},
	{
		name: "written-under-anothers-lock", rule: "27", without: "the look for another's lock before a step is written",
		file:   "vlan/steps.go",
		old:    `		case s == nil, d.Lock != "" && d.Lock != a.mine:`,
		new:    `		case s == nil:`,
		caught: []string{"vlan.TestRule27StepUnderAnothersLock"},
	},
	{
		name: "asked-without-the-lock", rule: "27", without: "the look for the own lock and step while the file is locked",
		file:   "vlan/steps.go",
		old:    `if s == nil || d.Lock != a.mine || s.attribute`,
		new:    `if s == nil || d.Lock == "nobody" || s.attribute(attribute) != nil {` + "\n" + `			return nil` + "\n" + `		}` + "\n" + `		if s.attribute`,
		caught: []string{"vlan.TestRule27PausedRelease"},
	},
	{
		name: "not-settled", rule: "27", without: "the settle time before \"not there\" is believed",
		file:   "vlan/saga.go",
		old:    `	return max(0, settle-x.unlocked)`,
		new:    `	return max(0, -x.unlocked)`,
		caught: []string{"vlan.TestNext"},
	},
	{
		name: "deleted-under-a-worker", rule: "27", without: "the mark for whoever works on a service that is deleted",
		file:   "vlan/change.go",
		old:    `case worked && (s.State == Allocating || s.State == Deallocating):`,
		new:    `case worked && s.State == Gone:`,
		caught: []string{"vlan.TestTrace21DeleteDuringAllocating"},
	},
	{
		name: "guessed-without-keys", rule: "27", without: "the doubt about a release where the inventory keeps no keys",
		file:   "vlan/steps.go",
		old:    `	case reread && !e.Keyed:`,
		new:    `	case reread && e.VID == 0 && !e.Allocated:`,
		caught: []string{"vlan.TestWithoutKeysNothingIsGuessed"},
	},
	{
		name: "asked-without-keys", rule: "27", without: "the doubt about an allocation where the inventory keeps no keys",
		file:   "vlan/ask.go",
		old:    `	case errors.Is(err, ErrNoKeys):`,
		new:    `	case errors.Is(err, ErrNoKeys):` + "\n" + `		return a.refused(ctx, s.Name, *at, "invalid", err)` + "\n" + `	case errors.Is(err, context.Canceled):`,
		caught: []string{"vlan.TestWithoutKeysNothingIsGuessed"},
	},
	{
		name: "key-of-two-attributes", rule: "27", without: "the look for another attribute with the same key",
		file:   "vlan/ask.go",
		old:    `if same && (b.VID != nil`,
		new:    `if same && o.Name == "" && (b.VID != nil`,
		caught: []string{"vlan.TestOneKeyIsOneAttributes"},
	},
	{
		name: "found-is-ours", rule: "27", without: "the look whether what is found by key is what was asked for",
		file:   "vlan/ask.go",
		old:    `	if !choice.allows(vid) {`,
		new:    `	if !choice.allows(vid) && vid == 1<<31 {`,
		caught: []string{"vlan.TestRegressionAdoptsWrongVLAN"},
	},
	{
		name: "anothers-vlan-released", rule: "26", without: "the compare of the key with what was read back",
		file:   "vlan/steps.go",
		old:    `	case !e.Allocated || (e.Keyed && e.Key != at.Key):`,
		new:    `	case !e.Allocated:`,
		caught: []string{"vlan.TestFreeingByNumberAfterAnotherReservedIt"},
	},
	{
		name: "anothers-vlan-released-in-the-file", rule: "26", without: "the compare of the key in the file",
		file:   "vlan/file.go",
		old:    `if !e.Allocated || e.Keyed && e.Key != key {`,
		new:    `if !e.Allocated {`,
		caught: []string{"vlan.TestFileAlreadyFreed"},
	},
	{
		name: "service-by-the-mirror", rule: "P5", without: "the linearizable read before a refusal, or \"nothing to do\"",
		file:   "vlan/allocator.go",
		old:    `if *sure || (err == nil && do != nil) {`,
		new:    `if !*sure || (err == nil && do != nil) {`,
		caught: []string{"vlan.TestPromise5ServiceOfAnotherNode"},
	},
	{
		name: "name-by-the-mirror", rule: "P4", without: "the linearizable read before a name is answered",
		file:   "vlan/create.go",
		old:    `if (err != nil || old != nil) && !sure {`,
		new:    `if (err != nil || old != nil) && sure {`,
		caught: []string{"vlan.TestPromise5ServiceOfAnotherNode"},
	},
	{
		name: "vlan-of-another-grant-released", rule: "26", without: "the compare of the token of a VLAN given back by itself",
		file:   "vlan/deallocate.go",
		old:    `case c == nil, d.Token != "" && c.Token != d.Token, c.State`,
		new:    `case c == nil, c.State`,
		caught: []string{"vlan.TestRule26VLANOfAnotherGrant"},
	},
	{
		name: "vlan-of-a-service-released", rule: "26", without: "the look for the service that a VLAN of a file belongs to",
		file:   "vlan/deallocate.go",
		old:    `		if s := a.serviceOf(ctx, d.Inventory, *d.VID, e); s != "" {` + "\n" + `			return ofService`,
		new:    `		if s := a.serviceOf(ctx, d.Inventory, *d.VID, e); s != "" && on == "" {` + "\n" + `			return ofService`,
		caught: []string{"vlan.TestRegressionDeallocateRace"},
	},
	{
		name: "file-changed-behind", rule: "P1", without: "the look whether another writer changed the file meanwhile",
		file:   "vlan/file_save.go",
		old:    `	if err := f.unchanged(l); err != nil {`,
		new:    `	if err := f.unchanged(l); err != nil && l == nil {`,
		caught: []string{"vlan.TestFileTwoWritersOfOneVersion"},
	},
	{
		name: "file-not-locked", rule: "P1", without: "the lock of a pool file",
		file:   "vlan/file_lock.go",
		old:    `unix.LOCK_EX|unix.LOCK_NB`,
		new:    `unix.LOCK_SH|unix.LOCK_NB`,
		caught: []string{"vlan.TestFileTwoProcesses"},
	},
	{
		name: "caller-not-known", rule: "23", without: "the kernel's word for who asks",
		file:   "agent/caller.go",
		old:    `	if !ok || p.err != nil {`,
		new:    `	if !ok {`,
		caught: []string{"agent.TestRule23CallerByTheKernelsWord"},
	},
}
