package judge

import (
	"github.com/idpool/idpool/test/e2e/robust/record"
)

// The services of the reference: a VLAN of inventory a and one of b each.

func (s *sim) service(name, state, code string, ids []record.ID, tokens ...string) service {
	sv := service{State: state, Token: tokens[0], ReasonCode: code}
	for i, inv := range []string{"a", "b"} {
		at := attribute{Name: inv, Inventory: inv}
		if ids != nil {
			_, n := split(ids[i])
			at.VID, at.Token = &n, tokens[1]
		}
		sv.Attributes = append(sv.Attributes, at)
	}
	return sv
}

// create grants a service, or refuses it as exhausted.
func (s *sim) create(client, name string) *record.Op {
	return s.call(client, "n1", record.CreateService, func(op *record.Op) {
		op.Key, op.Wants = name, []record.Want{{Inventory: "a", Count: 1}, {Inventory: "b", Count: 1}}
		a, b := s.free("vlan/a"), s.free("vlan/b")
		if len(a) == 0 || len(b) == 0 {
			op.Outcome, op.Code = record.Refused, "exhausted"
			return
		}
		token := s.name("v")
		op.Token, op.IDs = s.name("s"), []record.ID{a[0], b[0]}
		s.write(s.creating(name, op.Token, token, op.IDs)...)
	})
}

func (s *sim) creating(name, serviceToken, token string, ids []record.ID) []record.Change {
	out := []record.Change{put("services/"+name, s.service(name, "allocated", "", ids, serviceToken, token))}
	for _, id := range ids {
		space, _ := split(id)
		out = append(out, put(claimKey(id), claim{State: used, Pool: space, Count: 1, Caller: "unix:0", Key: name + "/" + space, Service: name, Token: token, Epoch: s.epoch}))
	}
	return out
}

// move writes the service in another state and notes the call that asked for it.
func (s *sim) move(op *record.Op, kind record.Kind, state string) {
	ask := *op
	s.call(ask.Client, "n1", kind, func(op *record.Op) {
		op.Key, op.Token = ask.Key, ask.Token
		sv := *s.w.services[ask.Key]
		sv.State = state
		s.write(put("services/"+ask.Key, sv))
	})
}

// finish gives a service's VLANs back: failed, or deleted.
func (s *sim) finish(op *record.Op, kind record.Kind) {
	ask := *op
	s.call(ask.Client, "n1", kind, func(op *record.Op) {
		op.Key, op.Token = ask.Key, ask.Token
		s.write(s.finishing(ask.Key, kind == record.FailService, "failed")...)
	})
}

func (s *sim) finishing(name string, failed bool, code string) []record.Change {
	sv := s.w.services[name]
	out := []record.Change{gone("services/" + name)}
	if failed {
		out = []record.Change{put("services/"+name, s.service(name, "failed", code, nil, sv.Token))}
	}
	for id, token := range sv.got() {
		a := *s.w.claims[id]
		if a.Token != token {
			continue
		}
		if space, _ := split(id); s.w.pools[space].Cooldown == 0 {
			out = append(out, gone(claimKey(id)))
			continue
		}
		a.State, a.ReasonCode, a.Reason = quarantined, released, "service "+name
		out = append(out, put(claimKey(id), a))
	}
	return out
}

// fence is an operator's word that a node is off.
func (s *sim) fence(name string) {
	n := *s.w.nodes[name]
	n.State, n.FencedBoot = "fenced", n.Boot
	s.write(put("nodes/"+name, n), put("members", s.rev))
}

// expire lets a node's lease end: its presence and its locks go.
func (s *sim) expire(name string) {
	out := []record.Change{gone("alive/" + name)}
	for _, id := range sortedIDs(s.w.locks) {
		if s.w.locks[id].lease == s.w.alive[name].lease {
			out = append(out, gone(lockKey(id)))
		}
	}
	s.write(out...)
}
