package leases

import (
	"fmt"
	"testing"
)

// cells is the table of the life of an id written out in full, so that a change
// of either copy fails. A row is a state, a column an event, in the order of
// columns; "-" is ignored.
var columns = []event{evGrant, evConfirm, evRelease, evHoldLost, evInquiryRuns, evInquiryGone, evSeenRunning, evSeenGone, evProofComplete, evReserve, evUnreserve, evAdopt}

var cells = map[State][12]string{
	//           grant                confirm              release             hold lost         runs         gone                seen running        seen gone    proof       reserve              unreserve           adopt
	Free:        {"move locked", "-", "done free", "-", "-", "-", "move quarantined", "-", "-", "move reserved", "-", "-"},
	Locked:      {"same locked", "move used", "move quarantined", "inquire locked", "move used", "move quarantined", "-", "-", "-", "refuse locked", "-", "-"},
	Used:        {"same used", "done used", "move quarantined", "-", "-", "-", "-", "move idle", "-", "refuse used", "-", "-"},
	Idle:        {"last idle", "done idle", "move quarantined", "-", "-", "-", "move used", "-", "-", "refuse idle", "-", "-"},
	Quarantined: {"refuse quarantined", "refuse quarantined", "done quarantined", "-", "-", "-", "-", "-", "move free", "refuse quarantined", "-", "foreign used"},
	Reserved:    {"refuse reserved", "-", "operator quarantined", "-", "-", "-", "-", "-", "-", "done reserved", "move quarantined", "-"},
}

var verdicts = map[string]verdict{
	"move": vMove, "done": vDone, "refuse": vRefuse, "same": vSameGrant, "inquire": vInquire, "last": vLastResort, "operator": vOperator, "foreign": vForeign,
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
					if next == "free" {
						next = ""
					}
					want = cell{State(next), verdicts[verb]}
				}
				if got := step(s, e); got != want {
					t.Errorf("step(%s, event %d) = %+v, want %+v", s, e, got, want)
				}
			})
		}
	}
}

func TestStepOfAnUnknownStateIsIgnored(t *testing.T) {
	if got := step("new", evGrant); got != (cell{"new", vIgnore}) {
		t.Errorf("step of an unknown state: %+v", got)
	}
}

func TestHeldStatesAreThoseOfALiveGrant(t *testing.T) {
	want := map[State]bool{Locked: true, Used: true, Idle: true}
	for _, s := range States() {
		if s.held() != want[s] {
			t.Errorf("%s held: %v", s, s.held())
		}
	}
}
