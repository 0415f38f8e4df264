package judge

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/test/e2e/robust/record"
)

// sim is a small reference of the whole system: each method does one thing as it
// should be done, in etcd's history, in the clients' calls and in the processes. The
// tests bend what it made.
type sim struct {
	now   record.Instant
	rev   int64
	names int
	run   *record.Run
	w     *world // what stands, kept by the judge's own apply
	calls map[string]int
	quiet bool              // the run went on until all was quiet
	found map[string][]byte // and this was left besides
	era   int               // restores of etcd
	epoch string
}

const step10 = 10 * time.Millisecond

// newSim has two nodes with their agents, pool p of four uids, and the inventories a
// and b of three VLANs, b with a cooldown of a second.
func newSim() *sim {
	s := &sim{run: &record.Run{}, w: newWorld(), calls: map[string]int{}, epoch: "e1"}
	s.write(put("meta", meta{"e1", 1, "normal"}))
	s.write(put("pools/uid/p", map[string]any{"ranges": "1000-1003", "scope": "cluster", "proof": "holders", "block": 1}), put("pools/index", 1))
	s.write(put("pools/vlan/a", map[string]any{"ranges": "100-102", "scope": "cluster", "proof": "none", "block": 1}), put("pools/index", 2))
	s.write(put("pools/vlan/b", map[string]any{"ranges": "100-102", "scope": "cluster", "proof": "none", "block": 1, "cooldown": time.Second}), put("pools/index", 3))
	s.register("n1", "boot1")
	s.register("n2", "boot1")
	return s
}

func put(key string, v any) record.Change {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return record.Change{Key: key, Value: data}
}

func gone(key string) record.Change { return record.Change{Key: key} }

func claimKey(id record.ID) string {
	space, n := split(id)
	return fmt.Sprintf("claims/%s/%010d", space, n)
}

func lockKey(id record.ID) string { return "locks" + strings.TrimPrefix(claimKey(id), "claims") }

// write makes one revision.
func (s *sim) write(changes ...record.Change) int64 {
	s.rev++
	s.now += step10
	for i := range changes {
		changes[i].Era, changes[i].Revision, changes[i].Seen = s.era, s.rev, s.now
	}
	s.run.Changes = append(s.run.Changes, changes...)
	scratch := &court{run: s.run, v: &Verdict{}, w: s.w}
	s.w.apply(scratch.read(changes))
	return s.rev
}

func (s *sim) name(kind string) string {
	s.names++
	return fmt.Sprint(kind, s.names)
}

func (s *sim) register(name, boot string) {
	n := node{State: "active", Role: "node", Machine: "m" + name, Boot: boot}
	presence := put("alive/"+name, alive{Nonce: s.name("nonce"), Counter: 1, Machine: "m" + name})
	presence.Lease = s.rev + 1000
	s.write(put("nodes/"+name, n), presence, put("members", s.rev), s.proof(name, boot))
}

// proof is a report of a node that lists what runs there.
func (s *sim) proof(name, boot string) record.Change {
	in := idset.Set{}
	for _, p := range s.run.Processes {
		if p.Node == name && p.Until == 0 {
			_, n := split(p.ID)
			in.Insert(n)
		}
	}
	return put("proofs/"+name, proof{Epoch: s.epoch, Boot: boot, Machine: "m" + name, Revision: s.rev, InUse: map[string]idset.Set{"uid": in}})
}

func (s *sim) prove(name string) { s.write(s.proof(name, s.w.nodes[name].Boot)) }

// call notes a client's call that is answered at once; edit fills it in, and
// what do writes happens between.
func (s *sim) call(client, node string, kind record.Kind, do func(*record.Op)) *record.Op {
	s.now += step10
	s.calls[client]++
	op := record.Op{Client: client, N: s.calls[client], Node: node, Kind: kind, Outcome: record.OK, Call: s.now}
	do(&op)
	s.now += step10
	op.Return = s.now
	s.run.Ops = append(s.run.Ops, op)
	return &s.run.Ops[len(s.run.Ops)-1]
}

// free lists the ids of a pool that have no claim.
func (s *sim) free(poolName string) []record.ID {
	space := "uid"
	if strings.HasPrefix(poolName, "vlan/") {
		space = poolName
	}
	var all []record.ID
	for n := range s.w.pools[poolName].firsts.All() {
		if id := (idRef{space, n}).id(); s.w.claims[id] == nil {
			all = append(all, id)
		}
	}
	return all
}

// granting writes claims, locks and record of a grant.
func (s *sim) granting(node, key, token string, ids []record.ID) []record.Change {
	var out []record.Change
	c := claim{State: locked, Pool: "p", Count: 1, Caller: "unix:0", Key: key, Token: token, Epoch: s.epoch, Grouped: key != "" || len(ids) > 1}
	c.Nodes = []presence{{Node: node, Boot: s.w.nodes[node].Boot, Requesters: []requester{{token + "-r"}}}}
	rec := grantRecord{Digest: key, Token: token}
	for _, id := range ids {
		space, n := split(id)
		if vlan(id) {
			c.Pool = space
		}
		rec.IDs = append(rec.IDs, idRef{space, n})
		l := record.Change{Key: lockKey(id), Value: []byte(token), Lease: s.w.alive[node].lease}
		out = append(out, put(claimKey(id), c), l)
	}
	if c.Grouped {
		out = append(out, put(recordKey(&c), rec))
	}
	return out
}

// request grants n uids of pool p, or refuses as exhausted.
func (s *sim) request(client, node, key string, n int) *record.Op {
	return s.call(client, node, record.RequestUID, func(op *record.Op) {
		op.Key, op.Requester, op.Wants = key, client, []record.Want{{Pool: "p", Count: n}}
		ids := s.free("p")
		if len(ids) < n {
			op.Outcome, op.Code = record.Refused, "exhausted"
			return
		}
		op.Token, op.IDs = s.name("t"), ids[:n]
		s.write(s.granting(node, key, op.Token, op.IDs)...)
	})
}

// states writes all claims of a token in a state, and what goes with it.
func (s *sim) states(token, state, code string) []record.Change {
	var out []record.Change
	ids := sortedIDs(s.w.claims)
	for _, id := range ids {
		a := *s.w.claims[id]
		if a.Token != token {
			continue
		}
		a.State, a.ReasonCode, a.Reason = state, code, code
		out = append(out, put(claimKey(id), a))
		if s.w.locks[id] != nil {
			out = append(out, gone(lockKey(id)))
		}
		if rec := s.w.grants[recordKey(&a)]; state == quarantined && a.Grouped && rec != nil && rec.Token == token {
			ended := *rec
			ended.Ended = true
			out = slices.DeleteFunc(out, func(c record.Change) bool { return c.Key == recordKey(&a) })
			out = append(out, put(recordKey(&a), ended))
		}
	}
	return out
}

func (s *sim) confirm(op *record.Op) {
	ask := *op
	s.call(ask.Client, ask.Node, record.ConfirmUID, func(op *record.Op) {
		op.Token, op.IDs, op.Requester = ask.Token, ask.IDs, ask.Requester
		s.write(s.states(ask.Token, used, "")...)
	})
}

func (s *sim) release(op *record.Op) *record.Op {
	ask := *op
	return s.call(ask.Client, ask.Node, record.ReleaseUID, func(op *record.Op) {
		op.Token, op.IDs, op.Requester = ask.Token, ask.IDs, ask.Requester
		s.write(s.states(ask.Token, quarantined, "released")...)
	})
}

func (s *sim) start(op *record.Op, id record.ID, node string) int {
	s.now += step10
	s.run.Processes = append(s.run.Processes, record.Process{Node: node, ID: id, Token: op.Token, From: s.now})
	return len(s.run.Processes) - 1
}

func (s *sim) stop(i int) {
	s.now += step10
	s.run.Processes[i].Until = s.now
}

// drop frees ids without asking whether it may.
func (s *sim) drop(ids ...record.ID) {
	var out []record.Change
	for _, id := range ids {
		out = append(out, gone(claimKey(id)))
		if s.w.locks[id] != nil {
			out = append(out, gone(lockKey(id)))
		}
	}
	s.write(out...)
}

// settle proves and frees everything in quarantine that nothing runs under.
func (s *sim) settle() {
	for _, name := range []string{"n1", "n2"} {
		if s.w.alive[name] != nil {
			s.prove(name)
		}
	}
	s.now += time.Second // every cooldown
	for _, id := range sortedIDs(s.w.claims) {
		running := slices.ContainsFunc(s.run.Processes, func(p record.Process) bool { return p.ID == id && p.Until == 0 })
		if s.w.claims[id].State == quarantined && !running {
			s.drop(id)
		}
	}
}

// end notes what is left and gives the run.
func (s *sim) end() *record.Run {
	s.now += step10
	s.run.Quiet = s.now
	if !s.quiet {
		return s.run
	}
	s.run.Left = map[string][]byte{}
	for id, a := range s.w.claims {
		s.run.Left[claimKey(id)] = put("", a).Value
	}
	for id, l := range s.w.locks {
		s.run.Left[lockKey(id)] = []byte(l.token)
	}
	maps.Copy(s.run.Left, s.found)
	return s.run
}
