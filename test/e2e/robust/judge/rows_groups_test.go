package judge

import (
	"strings"

	"github.com/idpool/idpool/test/e2e/robust/record"
)

// without takes the changes of one key away.
func without(changes []record.Change, key string) []record.Change {
	var out []record.Change
	for _, c := range changes {
		if c.Key != key {
			out = append(out, c)
		}
	}
	return out
}

// granted writes a grant of the uids 1000 and 1001 under key k, without what bad drops.
func (s *sim) granted(bad bool, drop string) {
	ids := []record.ID{"uid/1000", "uid/1001"}
	s.call("c1", "n1", record.RequestUID, func(op *record.Op) {
		op.Key, op.Token, op.IDs, op.Requester = "k", "t", ids, "c1"
		changes := s.granting("n1", "k", "t", ids)
		if bad {
			changes = without(changes, drop)
		}
		s.write(changes...)
	})
}

var recordOfK = recordKey(&claim{Caller: "unix:0", Key: "k"})

var groupRows = []row{
	{"half a group", P3, func(s *sim, bad bool) { s.granted(bad, claimKey("uid/1001")) }},
	{"a group without its record", P3, func(s *sim, bad bool) { s.granted(bad, recordOfK) }},
	{"a grant without its lock", P3, func(s *sim, bad bool) { s.granted(bad, lockKey("uid/1001")) }},
	{"half a group, and the rest later", P3, func(s *sim, bad bool) {
		s.granted(bad, claimKey("uid/1001"))
		if bad {
			s.write(s.granting("n1", "k", "t", []record.ID{"uid/1001"})...)
		}
	}},
	{"an end that its record does not know", P3, func(s *sim, bad bool) {
		s.granted(false, "")
		changes := s.states("t", quarantined, "hold_lost")
		if bad {
			changes = without(changes, recordOfK)
		}
		s.write(changes...)
	}},
	{"a record taken over by another grant", P4, func(s *sim, bad bool) {
		s.granted(false, "")
		rec := *s.w.grants[recordOfK]
		if bad {
			rec.Token = "t2"
		}
		s.write(put(recordOfK, rec))
	}},
	{"a key forgotten that was told", P4, func(s *sim, bad bool) {
		s.granted(false, "")
		changes := s.states("t", quarantined, "hold_lost")
		if bad {
			changes = append(without(changes, recordOfK), gone(recordOfK))
		}
		s.write(changes...)
	}},
	{"half a pair", P3, func(s *sim, bad bool) {
		s.call("c1", "n1", record.CreateService, func(op *record.Op) {
			op.Key, op.Token, op.IDs = "web", "s", []record.ID{"vlan/a/100", "vlan/b/100"}
			changes := s.creating("web", "s", "v", op.IDs)
			if bad {
				changes = without(changes, claimKey("vlan/b/100"))
			}
			s.write(changes...)
		})
	}},
	{"a service that lacks a VLAN", P3, func(s *sim, bad bool) {
		a := *s.create("c1", "web")
		sv := *s.w.services["web"]
		if bad {
			sv.Attributes[1].VID = nil
		}
		s.write(put("services/"+a.Key, sv))
	}},
	{"a VLAN without its service", P3, func(s *sim, bad bool) {
		s.call("c1", "n1", record.CreateService, func(op *record.Op) {
			op.Key, op.Token, op.IDs = "web", "s", []record.ID{"vlan/a/100", "vlan/b/100"}
			changes := s.creating("web", "s", "v", op.IDs)
			if bad {
				changes = without(changes, "services/web")
			}
			s.write(changes...)
		})
	}},
	{"deleted, and one VLAN stays", P3, func(s *sim, bad bool) {
		a := *s.create("c1", "web")
		s.call("c1", "n1", record.DeleteService, func(op *record.Op) {
			op.Key, op.Token = a.Key, a.Token
			changes := s.finishing("web", true, "failed")
			if bad {
				changes = without(changes, claimKey(a.IDs[0]))
			}
			s.write(changes...)
		})
	}},
	{"up again after it failed", P3, func(s *sim, bad bool) {
		a := *s.create("c1", "web")
		s.move(&a, record.ProvisionService, "provisioning")
		s.finish(&a, record.FailService)
		if bad {
			sv := *s.w.services["web"]
			sv.State = "up"
			s.write(put("services/web", sv))
		}
	}},
	{"taken away while provisioning", P3, func(s *sim, bad bool) {
		a := *s.create("c1", "web")
		if bad {
			s.move(&a, record.ProvisionService, "provisioning")
		}
		s.write(s.finishing("web", true, holdLost)...)
	}},
	{"a service becomes another one", P5, func(s *sim, bad bool) {
		a := *s.create("c1", "web")
		sv := *s.w.services["web"]
		if bad {
			sv.Token = "s99"
		}
		s.write(put("services/"+a.Key, sv))
	}},
}

var nodeRows = []row{
	{"a node that the members do not tell of", P2, func(s *sim, bad bool) {
		s.register("n3", "boot1")
		if bad {
			for i := range s.run.Changes {
				if c := &s.run.Changes[i]; c.Key == "members" && c.Revision == s.rev {
					s.run.Changes = append(s.run.Changes[:i], s.run.Changes[i+1:]...)
					break
				}
			}
		}
	}},
	{"fenced while its agent is present", P2, func(s *sim, bad bool) {
		if !bad {
			s.expire("n1")
		}
		s.fence("n1")
	}},
	{"back in the boot that was fenced", P2, func(s *sim, bad bool) {
		s.expire("n1")
		s.fence("n1")
		n := *s.w.nodes["n1"]
		n.State = "left"
		s.write(put("nodes/n1", n), put("members", s.rev))
		boot := "boot2"
		if bad {
			boot = "boot1"
		}
		s.register("n1", boot)
	}},
	{"from fenced straight to active", P2, func(s *sim, bad bool) {
		s.expire("n1")
		s.fence("n1")
		if bad {
			s.register("n1", "boot2")
		}
	}},
	{"removed while a claim names it", P2, func(s *sim, bad bool) {
		s.request("c1", "n1", "", 1)
		s.expire("n1")
		s.fence("n1")
		if !bad {
			s.write(s.states(s.run.Ops[0].Token, quarantined, "fenced")...)
			s.prove("n2")
			s.drop(s.run.Ops[0].IDs...)
		}
		s.write(gone("nodes/n1"), gone("proofs/n1"), put("members", s.rev))
	}},
	{"a grant of a node that is absent", P1, func(s *sim, bad bool) {
		changes := s.granting("n1", "", "t", []record.ID{"uid/1000"})
		if bad {
			s.expire("n1")
		}
		s.write(changes...)
	}},
	{"a lock under an old session's lease", P1, func(s *sim, bad bool) {
		changes := s.granting("n1", "", "t", []record.ID{"uid/1000"})
		if bad {
			s.expire("n1")
			s.register("n1", "boot1")
		}
		s.write(changes...)
	}},
	{"a grant of an earlier boot", P1, func(s *sim, bad bool) {
		changes := s.granting("n1", "", "t", []record.ID{"uid/1000"})
		for i := range changes {
			if bad && strings.HasPrefix(changes[i].Key, "claims/") {
				changes[i].Value = []byte(strings.ReplaceAll(string(changes[i].Value), "boot1", "boot0"))
			}
		}
		s.write(changes...)
	}},
	{"a report of a fenced node", P1, func(s *sim, bad bool) {
		p := s.proof("n1", "boot1")
		if bad {
			s.expire("n1")
			s.fence("n1")
		}
		s.write(p)
	}},
	{"two nodes in one transaction", P1, func(s *sim, bad bool) {
		one, two := s.granting("n1", "", "t1", []record.ID{"uid/1000"}), s.granting("n2", "", "t2", []record.ID{"uid/1001"})
		if bad {
			s.write(append(one, two...)...)
			return
		}
		s.write(one...)
		s.write(two...)
	}},
	{"a counter that goes back", P1, func(s *sim, bad bool) {
		a := *s.w.alive["n1"]
		a.Counter = 3
		ch := put("alive/n1", a)
		ch.Lease = a.lease
		s.write(ch)
		if bad {
			a.Counter = 2
			ch = put("alive/n1", a)
			ch.Lease = a.lease
			s.write(ch)
		}
	}},
}
