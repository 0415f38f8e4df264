package vlan

import (
	"fmt"
	"testing"
)

// columns and cells are the table of the life of a service written out in full,
// so that a change of either copy fails. "-" is ignored.
var columns = []event{evCreate, evGot, evRefused, evHoldLost, evBegin, evConfirm, evFail, evRetry, evPatch, evExtend, evDelete, evRemoved, evReleased, evForgotten}

var cells = map[State][14]string{
	//            create             got               refused          hold lost            begin                      confirm                    fail                 retry              patch                      extend                     delete               removed                released     forgotten
	Gone:         {"move allocating", "-", "-", "-", "missing gone", "missing gone", "missing gone", "missing gone", "missing gone", "missing gone", "done gone", "done gone", "-", "-"},
	Allocating:   {"same allocating", "move allocated", "move rejected", "-", "refuse allocating", "refuse allocating", "refuse allocating", "refuse allocating", "refuse allocating", "refuse allocating", "move deallocating", "refuse allocating", "-", "-"},
	Allocated:    {"same allocated", "-", "-", "move deallocating", "move provisioning", "move up", "move deallocating", "done allocated", "refuse allocated", "move allocated", "move deallocating", "refuse allocated", "-", "-"},
	Rejected:     {"same rejected", "-", "-", "-", "refuse rejected", "refuse rejected", "refuse rejected", "move allocating", "refuse rejected", "refuse rejected", "move deallocating", "refuse rejected", "-", "-"},
	Provisioning: {"same provisioning", "-", "-", "mark provisioning", "done provisioning", "move up", "move deallocating", "done provisioning", "refuse provisioning", "move provisioning", "move deallocating", "refuse provisioning", "-", "-"},
	Up:           {"same up", "-", "-", "-", "done up", "done up", "refuse up", "done up", "move up", "refuse up", "move deallocating", "refuse up", "-", "-"},
	Deallocating: {"ended deallocating", "-", "-", "-", "compensated deallocating", "compensated deallocating", "done deallocating", "refuse deallocating", "compensated deallocating", "compensated deallocating", "move deallocating", "done deallocating", "then gone", "-"},
	Failed:       {"ended failed", "-", "-", "-", "compensated failed", "compensated failed", "done failed", "move allocating", "compensated failed", "compensated failed", "move gone", "done failed", "-", "move gone"},
}

var verdicts = map[string]verdict{
	"move": vMove, "done": vDone, "same": vSame, "missing": vMissing, "refuse": vRefuse, "ended": vEnded, "compensated": vCompensated, "mark": vMark, "then": vThen,
}

func TestStep(t *testing.T) {
	if len(columns) != int(numEvents) || len(cells) != len(States()) {
		t.Fatalf("%d of %d events and %d of %d states are written out", len(columns), numEvents, len(cells), len(States()))
	}
	for _, s := range States() {
		for i, e := range columns {
			t.Run(fmt.Sprintf("%s/%d", s, e), func(t *testing.T) {
				want := cell{s, vIgnore}
				if text := cells[s][i]; text != "-" {
					var verb, next string
					if _, err := fmt.Sscan(text, &verb, &next); err != nil {
						t.Fatal(err)
					}
					v, ok := verdicts[verb]
					if !ok {
						t.Fatalf("no verdict %q", verb)
					}
					want = cell{State(next), v}
				}
				if got := step(s, e); got != want {
					t.Errorf("step(%s, event %d) = %+v, want %+v", s, e, got, want)
				}
			})
		}
	}
}

func TestStepOfAnUnknownStateIsIgnored(t *testing.T) {
	if got := step("new", evCreate); got != (cell{"new", vIgnore}) {
		t.Errorf("step of an unknown state: %+v", got)
	}
}
