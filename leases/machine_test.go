package leases

import (
	"context"
	"sync"
	"time"

	"github.com/idpool/idpool/idset"
)

// machine is a simulated node: what runs on it and which requesters live.
type machine struct {
	mu      sync.Mutex // guards the fields below
	id      string
	boot    string
	procs   map[uint32]bool
	live    map[string]bool
	suspect bool // Suspect sees what runs
	err     error
	scans   int
	onScan  func() // runs before a look, without the lock
}

func newMachine(name string) *machine {
	return &machine{id: "machine-" + name, boot: "boot-" + name + "-1", procs: map[uint32]bool{}, live: map[string]bool{}}
}

func (m *machine) InUse(context.Context, time.Duration) (idset.Set, error) {
	m.mu.Lock()
	hook := m.onScan
	m.mu.Unlock()
	if hook != nil {
		hook()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.scans++
	var s idset.Set
	for id := range m.procs {
		s.Insert(id)
	}
	return s, m.err
}

func (m *machine) Suspect(id uint32) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.suspect && m.procs[id]
}

func (m *machine) Alive(r Requester) bool { return m.MayStart(0, r) }

func (m *machine) MayStart(_ uint32, r Requester) bool {
	if r.Hold == HoldTTL {
		return BootTime() < time.Duration(r.Deadline)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.live[r.ID]
}

// born is a requester process that lives; die ends it.
func (m *machine) born(id string) Requester {
	m.set(func() { m.live[id] = true })
	return Requester{ID: id, Hold: HoldPID, PID: 100}
}

func (m *machine) die(id string) { m.set(func() { delete(m.live, id) }) }

func (m *machine) start(id uint32) { m.set(func() { m.procs[id] = true }) }

func (m *machine) end(id uint32) { m.set(func() { delete(m.procs, id) }) }

// reboot ends everything that ran.
func (m *machine) reboot() {
	m.set(func() { m.boot, m.procs, m.live = m.boot+"+", map[uint32]bool{}, map[string]bool{} })
}

func (m *machine) set(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}
