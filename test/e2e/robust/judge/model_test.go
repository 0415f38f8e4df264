package judge

import (
	"testing"
	"time"

	"github.com/idpool/idpool/test/e2e/robust/record"
)

// on is an operation on uid/1 from a moment to another, in milliseconds; to 0: no answer.
func on(kind record.Kind, client, token string, from, to int, edits ...func(*record.Op)) record.Op {
	op := record.Op{Client: client, Requester: client, Node: "n1", Kind: kind, Token: token, IDs: []record.ID{"uid/1"}, Outcome: record.OK,
		Call: record.Instant(from) * time.Millisecond, Return: record.Instant(to) * time.Millisecond}
	if to == 0 {
		op.Outcome = record.Unknown
	}
	for _, edit := range edits {
		edit(&op)
	}
	return op
}

func keyed(key string) func(*record.Op) { return func(op *record.Op) { op.Key = key } }
func same(op *record.Op)                { op.Same = true }
func blind(op *record.Op)               { op.Token, op.IDs = "", nil }
func refusedOp(op *record.Op)           { op.Outcome, op.Code = record.Refused, "held" }
func ran(token string, from, to int) record.Process {
	return record.Process{Node: "n1", ID: "uid/1", Token: token, From: record.Instant(from) * time.Millisecond, Until: record.Instant(to) * time.Millisecond}
}

const (
	req = record.RequestUID
	rel = record.ReleaseUID
	con = record.ConfirmUID
)

// TestModel judges what clients were told, without any history of etcd's.
func TestModel(t *testing.T) {
	type ops = []record.Op
	for _, r := range []struct {
		name, promise string // "" is good
		ops           ops
		processes     []record.Process
	}{
		{"one after the other", "", ops{on(req, "a", "A", 1, 2), on(con, "a", "A", 3, 4), on(rel, "a", "A", 5, 6), on(req, "b", "B", 7, 8), on(con, "b", "B", 9, 10)}, nil},
		{"two holders", P1, ops{on(req, "a", "A", 1, 2), on(req, "b", "B", 3, 4)}, nil},
		{"two holders, told at once", P1, ops{on(req, "a", "A", 1, 9), on(req, "b", "B", 1, 9)}, nil},
		{"lost grant", P1, ops{on(req, "a", "A", 1, 2), on(con, "a", "A", 3, 4), on(req, "b", "B", 5, 6), on(rel, "a", "A", 7, 8)}, nil},
		{"the release is under way", "", ops{on(req, "a", "A", 1, 2), on(rel, "a", "A", 3, 9), on(req, "b", "B", 4, 5)}, nil},
		{"the release has no answer, and was done", "", ops{on(req, "a", "A", 1, 2), on(rel, "a", "A", 3, 0), on(req, "b", "B", 400, 500)}, nil},
		{"the release has no answer, and was not done", "", ops{on(req, "a", "A", 1, 2), on(rel, "a", "A", 3, 0), on(con, "a", "A", 4, 5), on(rel, "a", "A", 6, 7), on(req, "b", "B", 8, 9)}, nil},
		{"the release was refused", P1, ops{on(req, "a", "A", 1, 2), on(rel, "a", "A", 3, 4, refusedOp), on(req, "b", "B", 5, 6)}, nil},
		{"reuse before the process ended", P1, ops{on(req, "a", "A", 1, 2), on(rel, "a", "A", 5, 6), on(req, "b", "B", 7, 8)}, []record.Process{ran("A", 3, 20)}},
		{"reuse after the process ended", "", ops{on(req, "a", "A", 1, 2), on(rel, "a", "A", 5, 6), on(req, "b", "B", 17, 18)}, []record.Process{ran("A", 3, 10)}},
		{"reuse while nobody knows", "", ops{on(req, "a", "A", 1, 2), on(rel, "a", "A", 5, 6), on(req, "b", "B", 7, 18)}, []record.Process{ran("A", 3, 10)}},
		{"a process under another's uid", P1, ops{on(req, "a", "A", 1, 2), on(rel, "a", "A", 3, 4), on(req, "b", "B", 5, 6)}, []record.Process{ran("A", 7, 8)}},
		{"foreign release", P1, ops{on(req, "a", "A", 1, 2), on(rel, "b", "B", 3, 4), on(req, "c", "C", 5, 6)}, nil},
		{"foreign release, which does nothing", "", ops{on(req, "a", "A", 1, 2), on(rel, "b", "B", 3, 4), on(con, "a", "A", 5, 6)}, nil},
		{"late release, which does nothing", "", ops{on(req, "a", "A", 1, 2), on(rel, "a", "A", 3, 4), on(req, "b", "B", 5, 6), on(rel, "a", "A", 7, 8), on(con, "b", "B", 9, 10)}, nil},
		{"late release, which ends the next grant", P1, ops{on(req, "a", "A", 1, 2), on(rel, "a", "A", 3, 4), on(req, "b", "B", 5, 6), on(rel, "a", "A", 7, 8), on(req, "c", "C", 9, 10)}, nil},
		{"confirmed after it was another's", P1, ops{on(req, "a", "A", 1, 2), on(rel, "a", "A", 3, 4), on(req, "b", "B", 5, 6), on(con, "a", "A", 7, 8)}, nil},
		{"the same key again", "", ops{on(req, "a", "A", 1, 2, keyed("k")), on(req, "b", "A", 3, 4, keyed("k"), same), on(rel, "a", "A", 5, 6), on(con, "b", "A", 7, 8)}, nil},
		{"the same key, the first without answer", "", ops{on(req, "a", "", 1, 0, keyed("k"), blind), on(req, "b", "A", 3, 4, keyed("k"), same), on(rel, "b", "A", 5, 6), on(req, "c", "C", 7, 8)}, nil},
		{"the same key, granted by the second", "", ops{on(req, "a", "", 1, 0, keyed("k"), blind), on(req, "b", "A", 3, 4, keyed("k")), on(req, "c", "A", 5, 6, keyed("k"), same)}, nil},
		{"a request without answer grants nothing known", "", ops{on(req, "a", "", 1, 0, blind), on(req, "b", "B", 3, 4)}, nil},
		{"the first answer names the second's grant", P1, ops{on(req, "x", "X", 1, 2), on(req, "a", "", 3, 0, keyed("k"), blind), on(req, "b", "A", 4, 5, keyed("k"), same), on(con, "x", "X", 6, 7)}, nil},
		{"same, of a grant that is over", P1, ops{on(req, "a", "A", 1, 2, keyed("k")), on(rel, "a", "A", 3, 4), on(req, "c", "C", 5, 6), on(req, "b", "A", 7, 8, keyed("k"), same)}, nil},
		{"repeated key, another grant", P4, ops{on(req, "a", "A", 1, 2, keyed("k")), on(rel, "a", "A", 3, 4), on(req, "b", "B", 5, 6, keyed("k"))}, nil},
		{"repeated key, other ids", P4, ops{on(req, "a", "A", 1, 2, keyed("k")), on(req, "b", "A", 3, 4, keyed("k"), same, func(op *record.Op) { op.IDs = []record.ID{"uid/2"} })}, nil},
		{"half a pair", P3, ops{on(record.CreateService, "a", "S", 1, 2, func(op *record.Op) {
			op.Wants = []record.Want{{Inventory: "a", Count: 1}, {Inventory: "b", Count: 1}}
		})}, nil},
		{"a whole pair", "", ops{on(record.CreateService, "a", "S", 1, 2, func(op *record.Op) {
			op.IDs = append(op.IDs, "uid/2")
			op.Wants = []record.Want{{Inventory: "a", Count: 1}, {Inventory: "b", Count: 1}}
		})}, nil},
	} {
		t.Run(r.name, func(t *testing.T) {
			v := NoLimits().Judge(&record.Run{Ops: r.ops, Processes: r.processes})
			if r.promise == "" {
				if err := v.Err(); err != nil {
					t.Errorf("a good history is rejected:\n%v", err)
				}
				return
			}
			mustReject(t, v, r.promise)
		})
	}
}

// TestUndecided: an id that porcupine has no time for is counted, and only a few may be.
func TestUndecided(t *testing.T) {
	var ops []record.Op
	for i := range 40 { // forty at once, none of which explains the others
		ops = append(ops, on(req, "a", string(rune('A'+i)), 1, 1000), on(rel, "b", string(rune('A'+i)), 1, 1000))
	}
	ops = append(ops, on(req, "x", "X", 2000, 2001), on(con, "x", "X", 2004, 2005), on(req, "y", "Y", 2002, 2003))
	l := NoLimits()
	l.PerID, l.Undecided = 20*time.Millisecond, 0
	v := l.Judge(&record.Run{Ops: ops})
	if v.Counts.Undecided != 1 {
		t.Fatalf("%d ids undecided, want 1 (%v)", v.Counts.Undecided, v.Violations)
	}
	mustReject(t, v, Vacuous)
	l.Undecided = 1
	if err := l.Judge(&record.Run{Ops: ops}).Err(); err != nil {
		t.Errorf("one undecided id where one may be: %v", err)
	}
}

func TestVacuous(t *testing.T) {
	busy := func() *record.Run {
		run := &record.Run{Left: map[string][]byte{}}
		for i := range 40 {
			run.Ops = append(run.Ops, record.Op{Kind: record.RequestUID, Client: "a", Outcome: record.OK, Token: string(rune('A' + i)),
				Call: record.Instant(i) * time.Second, Return: record.Instant(i)*time.Second + 1})
		}
		run.Faults = []record.Fault{{Name: "agent-kill", From: 10 * time.Second, Until: 20 * time.Second}}
		run.Processes = []record.Process{{Node: "n1", ID: "uid/1", Token: "A", From: 1, Until: 2}}
		return run
	}
	l := Limits{Before: 3, During: 1, After: 3, Brief: time.Second, Silent: map[string]bool{"no-space": true}, Faults: 1, Grants: 5, Processes: 1,
		Kinds: map[record.Kind]int{record.RequestUID: 29}, PerID: time.Second}
	if err := l.Judge(busy()).Err(); err != nil {
		t.Fatalf("a busy run is rejected: %v", err)
	}
	drop := func(run *record.Run, from, to int) { run.Ops = append(run.Ops[:from:from], run.Ops[to:]...) }
	for name, bend := range map[string]func(*record.Run){
		"no fault":                func(run *record.Run) { run.Faults = nil },
		"a fault not injected":    func(run *record.Run) { run.Faults[0].Error = "no nft" },
		"nothing before":          func(run *record.Run) { drop(run, 0, 8) },
		"nothing during":          func(run *record.Run) { drop(run, 10, 20) },
		"nothing after":           func(run *record.Run) { drop(run, 22, 40) },
		"nothing but refusals":    func(run *record.Run) { refuse(run) },
		"nobody looked at last":   func(run *record.Run) { run.Left = nil },
		"no process":              func(run *record.Run) { run.Processes = nil },
		"too few of a kind":       func(run *record.Run) { drop(run, 12, 24) },
		"a fault after the end":   func(run *record.Run) { run.Faults[0].From, run.Faults[0].Until = time.Hour, 2*time.Hour },
		"a fault that never ends": func(run *record.Run) { run.Faults[0].Until = 0 },
	} {
		run := busy()
		bend(run)
		t.Run(name, func(t *testing.T) { mustReject(t, l.Judge(run), Vacuous) })
	}
	run := busy()
	drop(run, 10, 20)
	run.Faults[0].Name = "no-space"
	if err := l.Judge(run).Err(); err != nil {
		t.Errorf("nothing can succeed during that fault: %v", err)
	}
}

func refuse(run *record.Run) {
	for i := range run.Ops {
		run.Ops[i].Outcome = record.Refused
	}
}
