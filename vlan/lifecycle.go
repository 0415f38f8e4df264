package vlan

// State is where a service stands.
type State string

// The states of a service. A service that is gone has no record; in a record
// that state stands only as what follows.
const (
	Gone         State = "gone"
	Allocating   State = "allocating"
	Allocated    State = "allocated"
	Rejected     State = "rejected"
	Provisioning State = "provisioning"
	Up           State = "up"
	Deallocating State = "deallocating"
	Failed       State = "failed"
)

// States lists every state, gone first.
func States() []State {
	return []State{Gone, Allocating, Allocated, Rejected, Provisioning, Up, Deallocating, Failed}
}

// event is something that happens to a service.
type event int

const (
	evCreate    event = iota // somebody asks for it, by the same caller and in the same words
	evGot                    // all attributes are got
	evRefused                // an attribute cannot be got
	evHoldLost               // nobody confirmed in time, or the holding process is gone
	evBegin                  // the caller begins to touch devices
	evConfirm                // the devices are done
	evFail                   // the devices cannot be done
	evRetry                  // the caller asks for what is missing
	evPatch                  // attributes are added, dropped or re-homed
	evExtend                 // the hold shall end later
	evDelete                 // the caller wants it no longer
	evRemoved                // the devices of a service that is being deleted are clean
	evReleased               // everything is given back
	evForgotten              // a day has passed
	numEvents
)

// verdict is what becomes of an event.
type verdict int

const (
	vIgnore      verdict = iota // cannot happen or means nothing here; no write
	vMove                       // write the next state
	vDone                       // succeeds and writes nothing
	vSame                       // answered with the service as it stands, or with its refusal
	vMissing                    // refused: there is no such service
	vRefuse                     // refused, with the state that stands in the way
	vEnded                      // refused: this life of the service is over
	vCompensated                // refused: the VLANs are being given back, the caller undoes its devices
	vMark                       // stays, and says that its outcome is unknown
	vThen                       // goes on to what the record says that follows
)

// cell is one cell of the table: the state that follows and the verdict.
type cell struct {
	next State
	v    verdict
}

// table is the life of a service, after DESIGN section 8. A missing cell is
// ignored. Rows are states, columns events:
//
//	              create     got        refused    hold lost     begin         confirm      fail          retry      patch        extend        delete        removed  released  forgotten
//	gone          allocating –          –          –             missing       missing      missing       missing    missing      missing       done          done     –         –
//	allocating    same       allocated  rejected¹  –             refused       refused      refused       refused    refused      refused       deallocating² refused  –         –
//	allocated     same       –          –          deallocating  provisioning  up           deallocating  done       refused      allocated     deallocating  refused  –         –
//	rejected      same³      –          –          –             refused       refused      refused       allocating refused      refused       deallocating  refused  –         –
//	provisioning  same       –          –          marked        done          up           deallocating  done       refused      provisioning  deallocating  refused  –         –
//	up            same       –          –          –             done          done         refused       done       up           refused       deallocating  refused  –         –
//	deallocating  ended      –          –          –             compensated   compensated  done          refused    compensated  compensated   deallocating⁴ done⁵    then      –
//	failed        ended      –          –          –             compensated   compensated  done          allocating compensated  compensated   gone          done     –         gone
//
// Where every attribute is of etcd, one transaction goes through allocating, or
// deallocating, to the state behind it.
//
// ¹ with on_partial release through deallocating. ² while somebody works on the
// service, a mark for whoever does. ³ with the refusal that the record holds.
// ⁴ what follows becomes gone. ⁵ gives back the VLANs that delete held.
var table = map[State]map[event]cell{
	Gone: {
		evCreate: {Allocating, vMove}, evBegin: {Gone, vMissing}, evConfirm: {Gone, vMissing}, evFail: {Gone, vMissing}, evRetry: {Gone, vMissing},
		evPatch: {Gone, vMissing}, evExtend: {Gone, vMissing}, evDelete: {Gone, vDone}, evRemoved: {Gone, vDone},
	},
	Allocating: {
		evCreate: {Allocating, vSame}, evGot: {Allocated, vMove}, evRefused: {Rejected, vMove},
		evBegin: {Allocating, vRefuse}, evConfirm: {Allocating, vRefuse}, evFail: {Allocating, vRefuse}, evRetry: {Allocating, vRefuse},
		evPatch: {Allocating, vRefuse}, evExtend: {Allocating, vRefuse}, evDelete: {Deallocating, vMove}, evRemoved: {Allocating, vRefuse},
	},
	Allocated: {
		evCreate: {Allocated, vSame}, evHoldLost: {Deallocating, vMove},
		evBegin: {Provisioning, vMove}, evConfirm: {Up, vMove}, evFail: {Deallocating, vMove}, evRetry: {Allocated, vDone},
		evPatch: {Allocated, vRefuse}, evExtend: {Allocated, vMove}, evDelete: {Deallocating, vMove}, evRemoved: {Allocated, vRefuse},
	},
	Rejected: {
		evCreate: {Rejected, vSame},
		evBegin:  {Rejected, vRefuse}, evConfirm: {Rejected, vRefuse}, evFail: {Rejected, vRefuse}, evRetry: {Allocating, vMove},
		evPatch: {Rejected, vRefuse}, evExtend: {Rejected, vRefuse}, evDelete: {Deallocating, vMove}, evRemoved: {Rejected, vRefuse},
	},
	Provisioning: {
		evCreate: {Provisioning, vSame}, evHoldLost: {Provisioning, vMark},
		evBegin: {Provisioning, vDone}, evConfirm: {Up, vMove}, evFail: {Deallocating, vMove}, evRetry: {Provisioning, vDone},
		evPatch: {Provisioning, vRefuse}, evExtend: {Provisioning, vMove}, evDelete: {Deallocating, vMove}, evRemoved: {Provisioning, vRefuse},
	},
	Up: {
		evCreate: {Up, vSame},
		evBegin:  {Up, vDone}, evConfirm: {Up, vDone}, evFail: {Up, vRefuse}, evRetry: {Up, vDone},
		evPatch: {Up, vMove}, evExtend: {Up, vRefuse}, evDelete: {Deallocating, vMove}, evRemoved: {Up, vRefuse},
	},
	Deallocating: {
		evCreate: {Deallocating, vEnded},
		evBegin:  {Deallocating, vCompensated}, evConfirm: {Deallocating, vCompensated}, evFail: {Deallocating, vDone}, evRetry: {Deallocating, vRefuse},
		evPatch: {Deallocating, vCompensated}, evExtend: {Deallocating, vCompensated}, evDelete: {Deallocating, vMove}, evRemoved: {Deallocating, vDone},
		evReleased: {Gone, vThen},
	},
	Failed: {
		evCreate: {Failed, vEnded},
		evBegin:  {Failed, vCompensated}, evConfirm: {Failed, vCompensated}, evFail: {Failed, vDone}, evRetry: {Allocating, vMove},
		evPatch: {Failed, vCompensated}, evExtend: {Failed, vCompensated}, evDelete: {Gone, vMove}, evRemoved: {Failed, vDone},
		evForgotten: {Gone, vMove},
	},
}

// step is what becomes of a service in state s when e happens: pure, total.
func step(s State, e event) cell {
	if c, ok := table[s][e]; ok {
		return c
	}
	return cell{s, vIgnore}
}
