package leases

var (
	atOnce []kind
	calls  = []kind{kAsk, kJoin, kRelease, kConfirm}
	all    = []kind{kOpen, kLost, kDoubt, kAsk, kJoin, kConfirm, kRelease, kWhole, kSweep, kRelock, kInspect, kInquire, kObserve, kReport, kElect, kFree, kDrop, kReclaim, kOrphans, kLeave, kFence, kUnfence, kRemove, kPool}
)

// scenarios are the worlds that are explored. Where operations are slow, what
// happens between their parts is explored too.
var scenarios = []*scenario{
	{name: "hand-over", uids: 1, tasks: 1, slow: []kind{kAsk, kInspect}, leaks: 20, parties: []spec{{}}, left: faults{crash: 1, expire: 1}},
	{name: "fork", uids: 1, tasks: 1, slow: atOnce, leaks: 20, parties: []spec{{fork: true}}, left: faults{crash: 1}},
	{name: "scan", uids: 1, tasks: 1, slow: []kind{kInspect}, split: true, leaks: 20, absent: true, parties: []spec{{noConfirm: true}}, left: faults{operator: 1}},
	{name: "one-key", uids: 1, tasks: 2, slow: []kind{kInspect, kInquire}, absent: true, leaks: 20, parties: []spec{{key: "K"}, {key: "K"}}},
	{name: "key-race", uids: 2, tasks: 2, slow: calls, absent: true, leaks: 20, parties: []spec{{key: "K"}, {key: "K"}}},
	{name: "key-nodes", uids: 2, tasks: 2, slow: calls, leaks: 20, parties: []spec{{key: "K"}, {host: 1, key: "K"}}},
	{name: "ghost", uids: 1, tasks: 1, slow: calls, absent: true, leaks: 20, parties: []spec{{key: "K", noConfirm: true}}, left: faults{late: 1, lose: 1}},
	{name: "ghost-crash", uids: 1, tasks: 1, slow: calls, absent: true, leaks: 20, parties: []spec{{noConfirm: true}}, left: faults{late: 1, crash: 1}},
	{name: "operator", uids: 1, tasks: 1, slow: atOnce, absent: true, leaks: 20, parties: []spec{{}}, left: faults{operator: 1}},
	{name: "operator-absent", uids: 1, tasks: 2, slow: []kind{kWhole}, leaks: 20, parties: []spec{{}}, absent: true, left: faults{operator: 1}},
	{name: "shortcut", uids: 1, tasks: 2, slow: []kind{kRelease, kJoin}, leaks: 20, parties: []spec{{}, {host: 1, joins: 1}}, absent: true},
	{name: "new-node", uids: 1, tasks: 2, slow: []kind{kFree, kOpen}, leaks: 0, parties: []spec{{}, {host: 1, joins: 1, blind: true}}, late1: true},
	{name: "reboot", uids: 1, tasks: 1, slow: atOnce, leaks: 20, parties: []spec{{}, {host: 1, joins: 1}}, left: faults{reboot: 1}},
	{name: "fence", uids: 1, tasks: 1, slow: atOnce, leaks: 20, parties: []spec{{}, {host: 1, joins: 1}}, left: faults{fence: 1}},
	{name: "fence-lie", uids: 1, tasks: 1, slow: atOnce, parties: []spec{{}}, left: faults{lie: 1}},
	{name: "fence-race", uids: 1, tasks: 2, slow: []kind{kFence, kOpen}, parties: []spec{{noConfirm: true}}, absent: true, left: faults{lie: 1, expire: 1, crash: 1}},
	{name: "remove", uids: 1, tasks: 1, slow: atOnce, parties: []spec{{}}, left: faults{remove: 1, crash: 1}},
	{name: "other-machine", uids: 1, tasks: 1, slow: atOnce, absent: true, parties: []spec{{}}, left: faults{crash: 1, expire: 1, alien: 1}},
	{name: "pool", uids: 1, tasks: 2, slow: []kind{kAsk, kPool}, absent: true, leaks: 20, parties: []spec{{}}, left: faults{pool: 2}},
	{name: "reclaim", uids: 1, tasks: 2, slow: []kind{kObserve, kReclaim}, absent: true, leaks: 20, parties: []spec{{restart: true}}, left: faults{reclaim: 1}},
	{name: "early", uids: 1, tasks: 1, slow: atOnce, absent: true, leaks: 20, parties: []spec{{early: true}}, left: faults{reclaim: 1}},
	{name: "supervisor", uids: 1, tasks: 1, slow: atOnce, absent: true, leaks: 20, parties: []spec{{}, {joins: 1}}, left: faults{reclaim: 1}},
	{name: "join", uids: 1, tasks: 1, slow: atOnce, leaks: 20, parties: []spec{{}, {host: 1, joins: 1}}},
	{name: "join-race", uids: 1, tasks: 2, slow: []kind{kJoin, kRelease, kInspect, kInquire}, leaks: 20, parties: []spec{{noConfirm: true}, {host: 1, joins: 1, noConfirm: true}}},
	{name: "join-same", uids: 1, tasks: 1, slow: []kind{kJoin}, absent: true, leaks: 20, parties: []spec{{}, {joins: 1}}, left: faults{operator: 1, lose: 1}},
	{name: "leave", uids: 1, tasks: 2, slow: []kind{kLeave, kAsk, kJoin}, leaks: 20, parties: []spec{{noConfirm: true}, {host: 1, joins: 1, noConfirm: true}}, left: faults{leave: 1}},
	{name: "leave-late", uids: 1, tasks: 1, slow: []kind{kLeave}, leaks: 20, parties: []spec{{noConfirm: true}}, left: faults{leave: 1, late: 1, lose: 1, crash: 1}},
	{name: "left", uids: 1, tasks: 1, slow: atOnce, leaks: 20, parties: []spec{{}, {host: 1, joins: 1}}, left: faults{leave: 1}},
	{name: "keep", uids: 1, tasks: 1, slow: atOnce, leaks: 20, parties: []spec{{keep: true, restart: true, stays: true}, {host: 1, joins: 1}}, left: faults{reclaim: 1}},
	{name: "keep-leave", uids: 1, tasks: 1, slow: atOnce, leaks: 20, parties: []spec{{keep: true, restart: true, stays: true}}, left: faults{leave: 1}},
	{name: "restore", uids: 1, tasks: 1, slow: []kind{kAsk}, parties: []spec{{noConfirm: true}, {host: 1, noConfirm: true}}, left: faults{restore: 1}},
	{name: "restore-bumped", uids: 1, tasks: 1, slow: []kind{kAsk}, parties: []spec{{noConfirm: true}, {host: 1, noConfirm: true}}, left: faults{restore: 1}, bump: true},
	{name: "group", uids: 2, tasks: 1, slow: []kind{kRelease}, leaks: 20, parties: []spec{{count: 2}}, left: faults{crash: 1, expire: 1}},
	{name: "lagging", uids: 1, tasks: 1, slow: []kind{kFree}, leaks: 20, parties: []spec{{noConfirm: true}, {host: 1, noConfirm: true}}, left: faults{lag: 1}},
	{name: "two-uids", uids: 2, tasks: 2, slow: all, walk: true, split: true, depth: 120, parties: []spec{{}, {host: 1}, {}, {host: 1, joins: 1}}, left: faults{crash: 2, expire: 2, late: 1, lose: 2, reboot: 1, operator: 1, reclaim: 2}},
	{name: "all", uids: 2, tasks: 3, slow: all, walk: true, split: true, depth: 160, parties: []spec{{key: "K", count: 2}, {host: 1, key: "K", count: 2}, {fork: true}, {host: 1, joins: 3, restart: true}}, left: faults{crash: 2, expire: 2, late: 1, lose: 2, twice: 1, reboot: 1, operator: 1, reclaim: 2, fence: 1, pool: 2}},
}
