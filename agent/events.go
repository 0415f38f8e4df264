package agent

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/vlan"
)

const (
	// maxEvents and maxEventBytes bound what an agent remembers for those who
	// listen, together.
	maxEvents     = 8192
	maxEventBytes = 8 << 20
)

// place is where in the cluster's history an event stands: its epoch, the etcd
// revision, and what orders the events of one revision.
type place struct {
	epoch uint64
	rev   int64
	n     int64
}

func (p place) String() string { return fmt.Sprintf("%d-%d-%d", p.epoch, p.rev, p.n) }

func (p place) after(o place) bool { return p.rev > o.rev || (p.rev == o.rev && p.n > o.n) }

// readPlace inverts String.
func readPlace(text string) (place, bool) {
	var p place
	n, err := fmt.Sscanf(text, "%d-%d-%d", &p.epoch, &p.rev, &p.n)
	return p, err == nil && n == 3 && p.String() == text
}

// occurrence is an event as it is sent.
type occurrence struct {
	at            place
	kind, subject string
	subjects      []string
	data          []byte
}

// history is what happened lately, for all who listen: one bounded buffer, in
// which each listener has a place. It follows etcd beside the mirror.
type history struct {
	limit int

	mu sync.Mutex // guards the fields below
	// recent are the events after floor, the first of them number first.
	recent []occurrence
	first  uint64
	bytes  int
	floor  place
	now    place
	// resets counts the gaps: lists in place of a watch.
	resets uint64
	keys   cluster.Keys
	wake   chan struct{} // closed and replaced when something happened
}

func newHistory() *history { return &history{limit: maxEvents, wake: make(chan struct{})} }

// on is the follower for an engine.
func (h *history) on(keys cluster.Keys) cluster.Follower {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.keys = keys
	return h
}

// Reset begins anew (cluster.Follower): what happened before the list cannot be told.
func (h *history) Reset(rev int64, kvs []cluster.KV) {
	h.mu.Lock()
	defer h.mu.Unlock()
	epoch := h.now.epoch
	for _, kv := range kvs {
		if kv.Key == h.keys.Meta() {
			if m, err := cluster.DecodeMeta(kv.Value); err == nil {
				epoch = m.Number
			}
		}
	}
	h.restart(place{epoch, rev, 0})
}

func (h *history) restart(at place) {
	h.first += uint64(len(h.recent))
	h.recent, h.bytes = nil, 0
	h.resets++
	at.n = time.Now().UnixMicro()
	h.now, h.floor = at, at
	h.rouse()
}

func (h *history) rouse() {
	close(h.wake)
	h.wake = make(chan struct{})
}

// Apply takes changes (cluster.Follower).
func (h *history) Apply(rev int64, events []cluster.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n, of := int64(0), int64(0)
	for _, e := range events {
		if e.ModRev != of {
			n, of = 0, e.ModRev
		}
		n++
		if m, err := cluster.DecodeMeta(e.Value); e.Key == h.keys.Meta() && err == nil && m.Number != h.now.epoch {
			h.restart(place{m.Number, e.ModRev, 0})
			continue
		}
		c, err := leases.ReadChange(h.keys, e)
		if err != nil {
			continue // the mirror tells of it
		}
		if ev, ok := eventOf(c); ok {
			h.put(place{h.now.epoch, e.ModRev, n}, ev, nil)
		}
	}
	h.move(rev)
	h.rouse()
}

// Progress notes that nothing happened (cluster.Follower).
func (h *history) Progress(rev int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.move(rev)
}

// Stale does nothing: the Reset that follows tells (cluster.Follower).
func (h *history) Stale(error) {}

// audit adds a request to this agent.
func (h *history) audit(node string, rec *api.Audit) {
	rec.Node = node
	now := time.Now().UTC()
	h.mu.Lock()
	defer h.mu.Unlock()
	// Later than everything of its revision, and than every request before.
	at := place{h.now.epoch, h.now.rev, max(h.now.n+1, now.UnixMicro())}
	h.put(at, api.Event{Type: api.EventAudit, Time: &now, Audit: rec}, rec.Subjects)
	h.rouse()
}

// put appends an event and lets go of the oldest; h.mu is the caller's.
func (h *history) put(at place, e api.Event, subjects []string) {
	e.ID, e.Revision = at.String(), at.rev
	data, err := json.Marshal(e)
	if err != nil {
		return
	}
	h.recent = append(h.recent, occurrence{at, e.Type, e.Subject, subjects, data})
	h.bytes += len(data)
	h.now = at
	for len(h.recent) > h.limit || h.bytes > maxEventBytes {
		h.floor, h.bytes = h.recent[0].at, h.bytes-len(h.recent[0].data)
		h.recent[0] = occurrence{}
		h.recent = h.recent[1:]
		h.first++
	}
}

// move goes on to a revision; h.mu is the caller's.
func (h *history) move(rev int64) {
	if rev > h.now.rev {
		h.now = place{h.now.epoch, rev, time.Now().UnixMicro()}
	}
}

// cursor is one listener's place.
type cursor struct {
	next   uint64
	resets uint64
}

// begin places a listener: after an event, at the oldest, or now. whole is false
// where what followed the event is not remembered.
func (h *history) begin(after string, recent bool) (c cursor, at place, whole bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	end := h.first + uint64(len(h.recent))
	c, at = cursor{end, h.resets}, h.now
	if after == "" {
		if recent {
			c.next, at = h.first, h.floor
		}
		return c, at, true
	}
	p, ok := readPlace(after)
	if !ok || p.epoch != h.now.epoch || h.floor.after(p) || p.after(place{rev: h.now.rev + 1}) {
		return c, at, false
	}
	i, _ := slices.BinarySearchFunc(h.recent, p, func(o occurrence, p place) int {
		if o.at.after(p) {
			return 1
		}
		return -1
	})
	c.next = h.first + uint64(i)
	return c, at, true
}

// take is what a listener has not had yet, at most a few; gap and behind say that
// there is a hole before it. wake closes when there is more.
func (h *history) take(c *cursor) (some []occurrence, at place, gap bool, behind uint64, wake <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c.resets != h.resets {
		*c = cursor{h.first, h.resets}
		return nil, h.floor, true, 0, h.wake
	}
	if c.next < h.first {
		return nil, h.now, false, h.first - c.next, h.wake
	}
	rest := h.recent[c.next-h.first:]
	some = slices.Clone(rest[:min(len(rest), 64)])
	c.next += uint64(len(some))
	return some, h.now, false, 0, h.wake
}

// eventOf is what a change of a record tells; false for those of our own books.
func eventOf(c leases.Change) (api.Event, bool) {
	e := api.Event{Subject: c.Kind.String() + "/" + c.Name}
	stored := func(kind string) {
		e.Subject, e.Pool, e.Type = kind+"/"+c.Name, c.Name, kind+".stored"
		if c.Deleted {
			e.Type = kind + ".deleted"
		}
	}
	switch c.Kind {
	case cluster.KindClaim:
		claimEvent(&e, c)
	case cluster.KindUIDPool:
		stored("pool")
	case cluster.KindVLANInventory:
		stored("inventory")
	case cluster.KindNode:
		e.Type, e.Nodes = "node.removed", []string{c.Name}
		if c.Node != nil {
			e.Type, e.State, e.Reason, e.Time = "node."+c.Node.State, c.Node.State, c.Node.Reason, when(c.Node.Since)
		}
	case cluster.KindAlive:
		if !c.Created && !c.Deleted {
			return e, false
		}
		e.Subject, e.Nodes, e.Type = "node/"+c.Name, []string{c.Name}, "node.present"
		if c.Deleted {
			e.Type = "node.absent"
		}
	case cluster.KindService:
		e.Type, e.State = "service."+string(vlan.Gone), string(vlan.Gone)
		if !c.Deleted {
			v, err := vlan.Decode(c.Name, c.Raw)
			if err != nil {
				return e, false
			}
			e.Type, e.State, e.Caller, e.Holder, e.ReasonCode, e.Reason = "service."+string(v.State), string(v.State), v.Caller, v.Holder, v.ReasonCode, v.Reason
			e.Time = when(v.Since)
		}
	default:
		return e, false
	}
	return e, true
}

func claimEvent(e *api.Event, c leases.Change) {
	e.Subject, e.State = c.Ref.String(), api.StateFree
	id, kind := c.Ref.ID, "uid"
	if inventory, ok := c.Ref.Space.Inventory(); ok {
		kind, e.VID, e.Pool = "vlan", &id, inventory
	} else {
		e.UID = &id
	}
	if cl := c.Claim; cl != nil {
		e.State, e.Nodes, e.Caller, e.Holder, e.Key, e.ReasonCode, e.Reason = cl.State.String(), cl.NodeNames(), cl.Caller, cl.Holder, cl.Key, cl.ReasonCode, cl.Reason
		e.Time = when(cl.Since)
		if kind == "uid" {
			e.Pool = cl.Pool
		}
	}
	e.Type = kind + "." + e.State
}

// wanted tells whether a listener asked for the event.
func (o occurrence) wanted(types, subjects []string) bool {
	kind, _, _ := strings.Cut(o.kind, ".")
	if len(types) > 0 && !slices.Contains(types, o.kind) && !slices.Contains(types, kind) {
		return false
	}
	return len(subjects) == 0 || slices.Contains(subjects, o.subject) ||
		slices.ContainsFunc(o.subjects, func(s string) bool { return slices.Contains(subjects, s) })
}
