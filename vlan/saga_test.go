package vlan

import (
	"testing"
	"time"

	"github.com/idpool/idpool/leases"
)

// record is a service in a state with attributes written as "INVENTORY[:STEP][=VID]";
// inventories that begin with o are outside.
func record(state State, attributes ...Attribute) *Service {
	return &Service{Name: "edge-7", State: state, Token: "t", Caller: "unix:7", OnPartial: OnPartialRelease, ConfirmWithin: time.Hour, Attributes: attributes}
}

func at(inventory string, step Step, number ...uint32) Attribute {
	a := Attribute{Name: inventory, Inventory: inventory, Outside: inventory[0] == 'o', Key: "edge-7/" + inventory, Step: step}
	if len(number) > 0 {
		a.VID, a.Token = &number[0], "g"
	}
	return a
}

func TestNext(t *testing.T) {
	const hour = time.Hour
	hold := func(node, boot, kind string) func(*Service) {
		return func(s *Service) {
			s.Hold = &Hold{Node: node, Boot: boot, Requester: leases.Requester{ID: "r", Hold: kind}}
		}
	}
	mine := func(x *situation) { x.lock = x.mine }
	others := func(x *situation) { x.lock = "another" }
	elected := func(x *situation) { x.elected = true }
	over := func(x *situation) { x.over = func(leases.Requester) bool { return true } }
	seen := func(d time.Duration) func(*situation) { return func(x *situation) { x.seen, x.unlocked = d, d } }
	with := func(p peer) func(*situation) {
		return func(x *situation) { x.peer = func(string) peer { return p } }
	}
	type all = []func(*situation)
	marked := func(s *Service) { s.ReasonCode = ReasonOutcomeUnknown }
	del := func(s *Service) { s.Delete = true }
	held := func(s *Service) { s.HoldIDs = true }
	byMe := func(s *Service) { s.Attributes[0].By = "me" }
	for name, c := range map[string]struct {
		s    *Service
		edit []func(*Service)
		x    all
		want todo
	}{
		"wanted of ours":                           {record(Allocating, at("e", "", 5), at("o1", StepWanted)), nil, nil, todo{task: taskAllocate, attribute: 1}},
		"in order":                                 {record(Allocating, at("o1", StepWanted), at("o1b", StepWanted)), nil, nil, todo{task: taskAllocate}},
		"the first is another node's":              {record(Allocating, at("o2", StepWanted), at("o1", StepWanted)), nil, nil, todo{}},
		"somebody works on it":                     {record(Allocating, at("o1", StepWanted)), nil, all{others}, todo{}},
		"no node keeps it":                         {record(Allocating, at("o0", StepWanted)), nil, all{elected}, todo{}},
		"an intent, lock just gone":                {record(Allocating, at("o1", StepAllocating)), nil, nil, todo{task: taskAsk, wait: time.Minute}},
		"an intent, settled":                       {record(Allocating, at("o1", StepAllocating)), nil, all{seen(time.Minute)}, todo{task: taskAsk}},
		"an intent of this very worker":            {record(Allocating, at("o1", StepAllocating)), []func(*Service){byMe}, all{mine}, todo{task: taskAsk}},
		"an intent of another, met under our lock": {record(Allocating, at("o1", StepAllocating)), nil, all{mine}, todo{task: taskUnlock}},
		"nothing to do under our lock":             {record(Up, at("o1", "")), nil, all{mine}, todo{task: taskUnlock}},
		"an intent of a living worker":             {record(Allocating, at("o1", StepAllocating)), nil, all{others, seen(hour)}, todo{}},
		"unknown waits for a word":                 {record(Allocating, at("o1", StepUnknown), at("o1b", StepWanted)), nil, all{elected, seen(hour)}, todo{}},
		"deleted while allocating":                 {record(Allocating, at("o1", StepWanted)), []func(*Service){del}, all{mine}, todo{task: taskEnd}},
		"deleted, the worker is gone":              {record(Allocating, at("o2", StepAllocating)), []func(*Service){del}, all{elected}, todo{task: taskEnd}},
		"deleted, another shall do it":             {record(Allocating, at("o1", StepWanted)), []func(*Service){del}, nil, todo{}},
		"deleted, by a mark that came late":        {record(Allocated, at("e", "", 5)), []func(*Service){del}, all{elected}, todo{task: taskEnd}},
		"all got, not written":                     {record(Allocating, at("o1", "", 0)), nil, all{elected}, todo{task: taskGotten}},
		"give back ours":                           {record(Deallocating, at("o2", "", 4), at("o1", "", 0)), nil, nil, todo{task: taskRelease, attribute: 1}},
		"give back another's":                      {record(Deallocating, at("o2", "", 4)), nil, all{elected}, todo{}},
		"an intent, while giving back":             {record(Deallocating, at("o1", StepAllocating)), nil, all{seen(hour)}, todo{task: taskAsk}},
		"a release without result":                 {record(Deallocating, at("o1", StepReleasing, 4)), nil, all{seen(hour)}, todo{task: taskReread}},
		"a release without result, just now":       {record(Deallocating, at("o1", StepReleasing, 4)), nil, nil, todo{task: taskReread, wait: time.Minute}},
		"what can be done now comes first":         {record(Deallocating, at("o1", StepReleasing, 4), at("o1b", "", 5)), nil, nil, todo{task: taskRelease, attribute: 1}},
		"unknown is not released":                  {record(Deallocating, at("o1", StepUnknown, 4)), nil, all{elected, seen(hour)}, todo{}},
		"held until the devices are clean":         {record(Deallocating, at("o1", "", 4)), []func(*Service){held}, all{elected, seen(hour)}, todo{}},
		"nothing left":                             {record(Deallocating, at("o1", ""), at("e", "")), nil, all{elected}, todo{task: taskFinish}},
		"nothing left, another is elected":         {record(Deallocating, at("o1", "")), nil, nil, todo{}},
		"allocated, the hold lasts":                {record(Allocated, at("e", "", 5)), []func(*Service){hold("n1", "b1", leases.HoldTTL)}, all{seen(9 * hour), elected}, todo{}},
		"allocated, the hold is over":              {record(Allocated, at("e", "", 5)), []func(*Service){hold("n1", "b1", leases.HoldTTL)}, all{over}, todo{task: taskHold}},
		"allocated, rebooted, ttl":                 {record(Allocated, at("e", "", 5)), []func(*Service){hold("n1", "b0", leases.HoldTTL)}, all{over, elected, seen(time.Minute)}, todo{task: taskHold, wait: hour - time.Minute}},
		"allocated, rebooted, process":             {record(Allocated, at("e", "", 5)), []func(*Service){hold("n1", "b0", leases.HoldPID)}, all{elected}, todo{task: taskHold}},
		"another node's hold":                      {record(Allocated, at("e", "", 5)), []func(*Service){hold("n2", "b2", leases.HoldTTL)}, all{over, elected, seen(9 * hour), with(peer{up: true, boot: "b2"})}, todo{}},
		"another node's hold, absent":              {record(Allocated, at("e", "", 5)), []func(*Service){hold("n2", "b2", leases.HoldTTL)}, all{elected, with(peer{boot: "b2"})}, todo{task: taskHold, wait: hour}},
		"another node's hold, absent for long":     {record(Allocated, at("e", "", 5)), []func(*Service){hold("n2", "b2", leases.HoldTTL)}, all{elected, seen(hour), with(peer{boot: "b2"})}, todo{task: taskHold}},
		"another node's hold, not elected":         {record(Allocated, at("e", "", 5)), []func(*Service){hold("n2", "b2", leases.HoldTTL)}, all{seen(hour)}, todo{}},
		"another node's process, absent":           {record(Allocated, at("e", "", 5)), []func(*Service){hold("n2", "b2", leases.HoldPID)}, all{elected}, todo{task: taskHold, wait: hour}},
		"another node's process, fenced":           {record(Allocated, at("e", "", 5)), []func(*Service){hold("n2", "b2", leases.HoldPID)}, all{elected, with(peer{boot: "b2", off: true})}, todo{task: taskHold}},
		"another node's process, rebooted":         {record(Allocated, at("e", "", 5)), []func(*Service){hold("n2", "b2", leases.HoldPID)}, all{elected, with(peer{up: true, boot: "b3"})}, todo{task: taskHold}},
		"provisioning is never ended":              {record(Provisioning, at("e", "", 5)), []func(*Service){hold("n1", "b1", leases.HoldTTL)}, all{over, seen(hour)}, todo{task: taskMark}},
		"provisioning is marked once":              {record(Provisioning, at("e", "", 5)), []func(*Service){hold("n1", "b1", leases.HoldTTL), marked}, all{over, elected, seen(hour)}, todo{}},
		"up is left alone":                         {record(Up, at("e", "", 5)), nil, all{elected, seen(9 * hour), over}, todo{}},
		"rejected is left alone":                   {record(Rejected, at("o1", "", 5)), nil, all{elected, seen(9 * hour), over}, todo{}},
		"failed is kept":                           {record(Failed, at("e", "")), nil, all{elected, seen(hour)}, todo{task: taskForget, wait: 23 * hour}},
		"failed is forgotten":                      {record(Failed, at("e", "")), nil, all{elected, seen(24 * hour)}, todo{task: taskForget}},
		"failed is forgotten by the elected one":   {record(Failed, at("e", "")), nil, all{seen(25 * hour)}, todo{}},
	} {
		x := situation{
			node: "n1", boot: "b1", mine: "me",
			over: func(leases.Requester) bool { return false },
			peer: func(string) peer { return peer{boot: "b2"} },
			keeper: func(inv string) (string, time.Duration) {
				return map[byte]string{'1': "n1", '2': "n2"}[inv[1]], time.Minute
			},
		}
		for _, f := range c.edit {
			f(c.s)
		}
		for _, f := range c.x {
			f(&x)
		}
		if got := next(c.s, x); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}
