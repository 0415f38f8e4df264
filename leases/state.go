package leases

// State is where an id stands. The empty State is free: a free id has no claim.
type State string

// The states of an id.
const (
	Free        State = ""
	Locked      State = "locked"
	Used        State = "used"
	Idle        State = "idle"
	Quarantined State = "quarantined"
	Reserved    State = "reserved"
)

// String names the state; "free" for [Free].
func (s State) String() string {
	if s == Free {
		return "free"
	}
	return string(s)
}

// States lists every state, free first.
func States() []State { return []State{Free, Locked, Used, Idle, Quarantined, Reserved} }

// held tells whether the state belongs to a live grant.
func (s State) held() bool { return s == Locked || s == Used || s == Idle }

// event is something that happened to an id.
type event int

const (
	evGrant         event = iota // somebody asks for it
	evConfirm                    // the process runs, the hand-over is over
	evRelease                    // its last holder gives it back
	evHoldLost                   // the requester is gone, or its hold or lock is
	evInquiryRuns                // the inquiry found it running
	evInquiryGone                // the inquiry found nothing
	evSeenRunning                // a scan found it running
	evSeenGone                   // a scan found nothing, on every named node
	evProofComplete              // every proof due is in and the cooldown is over
	evReserve                    // an operator keeps it out of the pool
	evUnreserve                  // an operator gives it back
	evAdopt                      // an operator makes a foreign use a grant
	numEvents
)

// verdict is what becomes of an event.
type verdict int

const (
	vIgnore     verdict = iota // cannot happen or means nothing here; no write
	vMove                      // write the next state
	vDone                      // succeeds and writes nothing
	vRefuse                    // refused, with who stands in the way
	vSameGrant                 // refused, unless it is the same request under the same key
	vInquire                   // the node that holds it scans, then tells evInquiry…
	vLastResort                // refused, unless the pool has nothing else (reclaim)
	vOperator                  // refused, unless an operator asks
	vForeign                   // refused, unless the id was found in use without a grant
)

// cell is one cell of the table: the state that follows and the verdict.
type cell struct {
	next State
	v    verdict
}

// table is the life of an id, after DESIGN section 6. A missing cell is
// ignored. Rows are states, columns events:
//
//	             grant       confirm  release      hold lost  runs/gone         seen running  seen gone  proof  reserve   unreserve    adopt
//	free         locked      –        done         –          –                 quarantined¹  –          –      reserved  –            –
//	locked       same grant  used     quarantined  inquire    used/quarantined  –             –          –      refused   –            –
//	used         same grant  done     quarantined  –          –                 –             idle       –      refused   –            –
//	idle         last resort done     quarantined  –          –                 used          –          –      refused   –            –
//	quarantined  refused     refused  done         –          –                 –²            –          free   refused   –            used, if foreign
//	reserved     refused     –        operator     –          –                 –             –          –      done      quarantined  –
//
// ¹ a foreign use. ² it stays, and the claim's view says where it runs; a claim
// that reclaim quarantined goes back to used ([seenRunning]).
var table = map[State]map[event]cell{
	Free: {
		evGrant:       {Locked, vMove},
		evRelease:     {Free, vDone},
		evSeenRunning: {Quarantined, vMove},
		evReserve:     {Reserved, vMove},
	},
	Locked: {
		evGrant:       {Locked, vSameGrant},
		evConfirm:     {Used, vMove},
		evRelease:     {Quarantined, vMove},
		evHoldLost:    {Locked, vInquire},
		evInquiryRuns: {Used, vMove},
		evInquiryGone: {Quarantined, vMove},
		evReserve:     {Locked, vRefuse},
	},
	Used: {
		evGrant:    {Used, vSameGrant},
		evConfirm:  {Used, vDone},
		evRelease:  {Quarantined, vMove},
		evSeenGone: {Idle, vMove},
		evReserve:  {Used, vRefuse},
	},
	Idle: {
		evGrant:       {Idle, vLastResort},
		evConfirm:     {Idle, vDone},
		evRelease:     {Quarantined, vMove},
		evSeenRunning: {Used, vMove},
		evReserve:     {Idle, vRefuse},
	},
	Quarantined: {
		evGrant:         {Quarantined, vRefuse},
		evConfirm:       {Quarantined, vRefuse},
		evRelease:       {Quarantined, vDone},
		evProofComplete: {Free, vMove},
		evReserve:       {Quarantined, vRefuse},
		evAdopt:         {Used, vForeign},
	},
	Reserved: {
		evGrant:     {Reserved, vRefuse},
		evRelease:   {Quarantined, vOperator},
		evReserve:   {Reserved, vDone},
		evUnreserve: {Quarantined, vMove},
	},
}

// step is what becomes of an id in state s when e happens: pure, total.
func step(s State, e event) cell {
	if c, ok := table[s][e]; ok {
		return c
	}
	return cell{s, vIgnore}
}
