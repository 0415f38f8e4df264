package judge

import (
	"time"

	"github.com/idpool/idpool/test/e2e/robust/record"
)

// again is the same key once more, answered with the grant that it has.
func (s *sim) again(client string, a record.Op) *record.Op {
	return s.call(client, "n1", record.RequestUID, func(op *record.Op) {
		op.Key, op.Token, op.IDs, op.Same, op.Requester, op.Wants = a.Key, a.Token, a.IDs, true, client, a.Wants
		s.rewrite(a.IDs[0], func(c *claim) { c.Nodes[0].Requesters = append(c.Nodes[0].Requesters, requester{client}) })
	})
}

var answerRows = []row{
	{"a grant that etcd never had", P1, func(s *sim, bad bool) {
		s.call("c1", "n1", record.RequestUID, func(op *record.Op) {
			op.Token, op.IDs = "t", []record.ID{"uid/1000"}
			if !bad {
				s.write(s.granting("n1", "", "t", op.IDs)...)
			}
		})
	}},
	{"answered with fewer ids than asked for", P3, func(s *sim, bad bool) {
		a := s.request("c1", "n1", "", 2)
		if bad {
			a.IDs = a.IDs[:1]
		}
	}},
	{"answered long after its end", P1, func(s *sim, bad bool) {
		a := *s.request("c1", "n1", "", 1)
		s.release(&a)
		s.settle()
		s.request("c2", "n2", "", 1)
		if bad {
			s.run.Ops[0].Call, s.run.Ops[0].Return = s.now+time.Second, s.now+2*time.Second
		}
	}},
	{"a key answered with another grant", P4, func(s *sim, bad bool) {
		a := *s.request("c1", "n1", "k", 1)
		b := *s.again("c2", a)
		if bad {
			c := *s.request("c3", "n1", "k2", 1)
			s.run.Ops[len(s.run.Ops)-1].Key = b.Key
			_ = c
		}
	}},
	{"a key answered with other ids", P4, func(s *sim, bad bool) {
		a := *s.request("c1", "n1", "k", 1)
		b := s.again("c2", a)
		if bad {
			b.IDs = []record.ID{"uid/1003"}
		}
	}},
	{"a key answered after its grant ended", P4, func(s *sim, bad bool) {
		a := *s.request("c1", "n1", "k", 1)
		if !bad {
			s.again("c2", a)
		}
		s.release(&a)
		s.settle()
		s.request("c3", "n1", "", 1)
		if bad {
			s.call("c2", "n1", record.RequestUID, func(op *record.Op) {
				op.Key, op.Token, op.IDs, op.Same, op.Wants = "k", a.Token, a.IDs, true, a.Wants
			})
		}
	}},
	{"another request under the key", P4, func(s *sim, bad bool) {
		a := *s.request("c1", "n1", "k", 1)
		b := s.again("c2", a)
		if bad {
			b.Wants = []record.Want{{Pool: "q", Count: 1}}
		}
	}},
	{"a foreign release ends a grant", P5, func(s *sim, bad bool) {
		a := *s.request("c1", "n1", "", 1)
		s.call("c2", "n1", record.ReleaseUID, func(op *record.Op) {
			op.Token, op.IDs, op.Requester = a.Token, a.IDs, "c1"
			if bad {
				op.Token = "another"
			}
			s.write(s.states(a.Token, quarantined, "released")...)
		})
	}},
	{"a release that is done and did nothing", P5, func(s *sim, bad bool) {
		a := *s.request("c1", "n1", "", 1)
		s.call("c1", "n1", record.ReleaseUID, func(op *record.Op) {
			op.Token, op.IDs, op.Requester = a.Token, a.IDs, "c1"
			if !bad {
				s.write(s.states(a.Token, quarantined, "released")...)
			}
		})
	}},
	{"a release of one of two requesters may leave it", P5, func(s *sim, bad bool) {
		a := *s.request("c1", "n1", "k", 1)
		s.again("c2", a)
		for _, client := range []string{"c1", "c2"} {
			if client == "c2" && !bad {
				break
			}
			s.call(client, "n1", record.ReleaseUID, func(op *record.Op) { op.Token, op.IDs, op.Requester = a.Token, a.IDs, client })
		}
	}},
	{"exhausted while ids are free", P7, func(s *sim, bad bool) {
		n := 4
		if bad {
			n = 3
		}
		s.request("c1", "n1", "", n)
		s.prove("n1")
		s.call("c2", "n2", record.RequestUID, func(op *record.Op) {
			op.Outcome, op.Code, op.Wants = record.Refused, "exhausted", []record.Want{{Pool: "p", Count: 1}}
		})
	}},
	{"exhausted after the pool grew", P7, func(s *sim, bad bool) {
		s.request("c1", "n1", "", 4)
		grow := func() {
			s.write(put("pools/uid/p", map[string]any{"ranges": "1000-1009", "scope": "cluster", "proof": "holders"}), put("pools/index", 9))
		}
		if bad {
			grow()
			s.request("c1", "n1", "", 1)
		}
		s.call("c2", "n2", record.RequestUID, func(op *record.Op) {
			if !bad {
				grow()
			}
			op.Outcome, op.Code, op.Wants = record.Refused, "exhausted", []record.Want{{Pool: "p", Count: 1}}
		})
	}},
	{"no pair is free on one side", P7, func(s *sim, bad bool) {
		for _, name := range []string{"a", "b", "c"} {
			if name != "c" || !bad {
				s.create("c1", name)
			}
		}
		s.call("c2", "n1", record.CreateService, func(op *record.Op) {
			op.Key, op.Outcome, op.Code, op.Wants = "d", record.Refused, "exhausted", []record.Want{{Inventory: "a", Count: 1}, {Inventory: "b", Count: 1}}
		})
	}},
}

var processRows = []row{
	{"two grants' processes at once", P1, func(s *sim, bad bool) {
		a := *s.request("c1", "n1", "", 1)
		p := s.start(&a, a.IDs[0], "n1")
		s.release(&a)
		if !bad {
			s.stop(p)
		}
		s.prove("n1")
		s.settle()
		if bad {
			s.drop(a.IDs[0])
		}
		b := *s.request("c2", "n2", "", 1)
		s.start(&b, b.IDs[0], "n2")
		if bad {
			s.stop(p)
		}
	}},
	{"granted while a process of the old grant runs", P2, func(s *sim, bad bool) {
		a := *s.request("c1", "n1", "", 1)
		p := s.start(&a, a.IDs[0], "n2")
		s.release(&a)
		if !bad {
			s.stop(p)
		}
		s.settle()
		if bad {
			s.drop(a.IDs[0])
		}
		s.request("c2", "n2", "", 1)
		if bad {
			s.stop(p)
		}
	}},
	{"the same on a fenced node counts not", P2, func(s *sim, bad bool) {
		a := *s.request("c1", "n1", "", 1)
		s.start(&a, a.IDs[0], "n1")
		s.expire("n1")
		if !bad {
			s.fence("n1")
		}
		s.write(s.states(a.Token, quarantined, "fenced")...)
		s.prove("n2")
		s.drop(a.IDs[0])
		s.request("c2", "n2", "", 1)
	}},
	{"nor one of before a reboot", P2, func(s *sim, bad bool) {
		a := *s.request("c1", "n1", "", 1)
		s.start(&a, a.IDs[0], "n1")
		s.expire("n1")
		boot := "boot2"
		if bad {
			boot = "boot1"
		}
		p := s.run.Processes
		s.run.Processes = nil
		s.register("n1", boot)
		s.write(s.states(a.Token, quarantined, "rebooted")...)
		s.settle()
		s.run.Processes = p
		s.request("c2", "n2", "", 1)
	}},
}

var leftRows = []row{
	{"a lock without a claim", P6, func(s *sim, bad bool) {
		s.quiet = true
		a := *s.request("c1", "n1", "", 1)
		s.release(&a)
		s.settle()
		if bad {
			s.found = map[string][]byte{lockKey(a.IDs[0]): []byte(a.Token)}
		}
	}},
	{"locked, and nobody waits", P6, func(s *sim, bad bool) {
		s.quiet = true
		a := *s.request("c1", "n1", "", 1)
		if !bad {
			s.expire("n1") // its node decides, and is not there
			_ = a
		}
	}},
	{"quarantined, and waits for nothing", P6, func(s *sim, bad bool) {
		s.quiet = true
		s.quarantine()
		s.prove("n1")
		if bad {
			s.prove("n2")
		}
	}},
	{"quarantined without a reason", P6, func(s *sim, bad bool) {
		s.quiet = true
		_, id := s.quarantine()
		if bad {
			s.rewrite(id, func(c *claim) { c.Reason = "" })
		}
	}},
	{"used by nobody", P6, func(s *sim, bad bool) {
		s.quiet = true
		a := *s.request("c1", "n1", "", 1)
		s.confirm(&a)
		if bad {
			s.run.Ops = nil
		}
	}},
	{"not what the history says", History, func(s *sim, bad bool) {
		s.quiet = true
		a := *s.request("c1", "n1", "", 1)
		s.confirm(&a)
		if bad {
			s.found = map[string][]byte{claimKey(a.IDs[0]): []byte("{}")}
		}
	}},
}
