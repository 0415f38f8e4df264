package judge

import (
	"time"

	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/test/e2e/robust/record"
)

// rewrite writes a claim once more, edited.
func (s *sim) rewrite(id record.ID, edit func(*claim)) {
	a := *s.w.claims[id]
	edit(&a)
	s.write(put(claimKey(id), a))
}

var claimRows = []row{
	{"two holders in etcd", P1, func(s *sim, bad bool) {
		a := s.request("c1", "n1", "", 1)
		if !bad {
			s.release(a)
			s.settle()
		}
		s.request("c2", "n2", "", 1)
		if bad {
			s.rewrite(a.IDs[0], func(c *claim) { c.Token = s.run.Ops[1].Token })
		}
	}},
	{"back to life", P2, func(s *sim, bad bool) {
		a := s.request("c1", "n1", "", 1)
		s.release(a)
		if bad {
			s.rewrite(a.IDs[0], func(c *claim) { c.State = locked })
		}
	}},
	{"used again without a reclaim", P2, func(s *sim, bad bool) {
		a := s.request("c1", "n1", "", 1)
		s.confirm(a)
		s.rewrite(a.IDs[0], func(c *claim) { c.State = idle })
		s.rewrite(a.IDs[0], func(c *claim) {
			c.State, c.ReasonCode, c.Reason, c.Reclaimed = quarantined, "reclaimed", "needed", !bad
		})
		s.rewrite(a.IDs[0], func(c *claim) { c.State, c.Reclaimed = used, false })
	}},
	{"begins as used", P1, func(s *sim, bad bool) {
		id := record.ID("vlan/a/100")
		if bad {
			id = "uid/1000"
		}
		s.write(put(claimKey(id), claim{State: used, Pool: "p", Count: 1, Token: "t", Epoch: "e1"}))
	}},
	{"adopted, but not foreign", P1, func(s *sim, bad bool) {
		code := foreign
		s.write(put(claimKey("uid/1000"), claim{State: quarantined, Pool: "p", Count: 1, Token: "t", Epoch: "e1", ReasonCode: code, Reason: "in use", Nodes: []presence{{Node: "n1", Boot: "boot1"}}}))
		if bad {
			s.rewrite("uid/1000", func(c *claim) { c.ReasonCode = "released" })
		}
		s.rewrite("uid/1000", func(c *claim) {
			c.State, c.Token, c.ReasonCode, c.Caller = used, "t2", "", "unix:0"
			c.Nodes = []presence{{Node: "n1", Boot: "boot1", Requesters: []requester{{"r"}}}}
		})
	}},
	{"idle without having been used", P1, func(s *sim, bad bool) {
		a := s.request("c1", "n1", "", 1)
		if !bad {
			s.confirm(a)
		}
		s.rewrite(a.IDs[0], func(c *claim) { c.State = idle })
	}},
	{"reserved, then freed", P2, func(s *sim, bad bool) {
		s.write(put(claimKey("uid/1001"), claim{State: reserved, Pool: "p", Count: 1, Token: "t", Epoch: "e1", ReasonCode: "reserved", Reason: "mine"}))
		if !bad {
			s.rewrite("uid/1001", func(c *claim) { c.State, c.ReasonCode = quarantined, "unreserved" })
			s.settle()
			return
		}
		s.drop("uid/1001")
	}},
	{"another caller's meanwhile", P1, func(s *sim, bad bool) {
		a := s.request("c1", "n1", "", 1)
		s.rewrite(a.IDs[0], func(c *claim) {
			if bad {
				c.Caller = "unix:7"
			}
		})
	}},
	{"a token twice", P1, func(s *sim, bad bool) {
		a := s.request("c1", "n1", "", 1)
		s.release(a)
		s.settle()
		token := "fresh"
		if bad {
			token = a.Token
		}
		s.write(s.granting("n1", "", token, a.IDs)...)
	}},
	{"a lock of another grant", P1, func(s *sim, bad bool) {
		a := s.request("c1", "n1", "", 1)
		if bad {
			s.write(record.Change{Key: lockKey(a.IDs[0]), Value: []byte("other"), Lease: s.w.alive["n1"].lease})
		}
	}},
	{"a claim of another epoch", P8, func(s *sim, bad bool) {
		if bad {
			s.write(put("meta", meta{"e2", 2, "normal"}))
		}
		s.request("c1", "n1", "", 1)
	}},
	{"a grant while the cluster recovers", P8, func(s *sim, bad bool) {
		if bad {
			s.write(put("meta", meta{"e1", 1, "recovering"}))
		}
		s.request("c1", "n1", "", 1)
	}},
	{"the epoch goes down", P8, func(s *sim, bad bool) {
		s.write(put("meta", meta{"e2", 2, "normal"}))
		if bad {
			s.write(put("meta", meta{"e1", 1, "normal"}))
		}
	}},
}

// quarantine is a grant of one uid on n1 that was released.
func (s *sim) quarantine() (*record.Op, record.ID) {
	a := s.request("c1", "n1", "", 1)
	op := *a
	s.release(&op)
	return &op, op.IDs[0]
}

var proofRows = []row{
	{"freed without a proof", P2, func(s *sim, bad bool) {
		_, id := s.quarantine()
		s.prove("n1")
		if !bad {
			s.prove("n2")
		}
		s.drop(id)
	}},
	{"a proof of before the release", P2, func(s *sim, bad bool) {
		a := *s.request("c1", "n1", "", 1)
		old := s.proof("n2", "boot1")
		s.release(&a)
		s.prove("n1")
		if !bad {
			old = s.proof("n2", "boot1")
		}
		s.write(old)
		s.drop(a.IDs[0])
	}},
	{"a proof of another boot", P2, func(s *sim, bad bool) {
		_, id := s.quarantine()
		s.prove("n2")
		boot := "boot1"
		if bad {
			boot = "boot0"
		}
		s.write(s.proof("n1", boot))
		s.drop(id)
	}},
	{"a proof of another machine, epoch or the future", P2, func(s *sim, bad bool) {
		_, id := s.quarantine()
		s.prove("n2")
		p := proof{Epoch: "e1", Boot: "boot1", Machine: "mn1", Revision: s.rev}
		if bad {
			p.Revision += 100
		}
		s.write(put("proofs/n1", p))
		s.drop(id)
	}},
	{"a proof that lists it", P2, func(s *sim, bad bool) {
		_, id := s.quarantine()
		s.prove("n2")
		p := proof{Epoch: "e1", Boot: "boot1", Machine: "mn1", Revision: s.rev}
		if bad {
			_, n := split(id)
			p.InUse = map[string]idset.Set{"uid": idset.New(n)}
		}
		s.write(put("proofs/n1", p))
		s.drop(id)
	}},
	{"its node is absent", P2, func(s *sim, bad bool) {
		_, id := s.quarantine()
		if !bad {
			s.prove("n1")
		}
		s.expire("n1")
		s.prove("n2")
		s.drop(id)
	}},
	{"its node is absent, and fenced", P2, func(s *sim, bad bool) {
		_, id := s.quarantine()
		s.expire("n1")
		if !bad {
			s.fence("n1")
		}
		s.prove("n2")
		s.drop(id)
	}},
	{"another node is absent, policy cluster", P2, func(s *sim, bad bool) {
		if bad {
			s.write(put("pools/uid/p", map[string]any{"ranges": "1000-1003", "scope": "cluster", "proof": "cluster"}), put("pools/index", 9))
		}
		_, id := s.quarantine()
		s.expire("n2")
		s.prove("n1")
		s.drop(id)
	}},
	{"freed at the release, another node up", P2, func(s *sim, bad bool) {
		a := *s.request("c1", "n1", "", 1)
		if !bad {
			s.expire("n2")
		}
		s.call("c1", "n1", record.ReleaseUID, func(op *record.Op) {
			op.Token, op.IDs, op.Requester = a.Token, a.IDs, "c1"
			s.drop(a.IDs[0])
		})
	}},
	{"a VLAN before its cooldown", P2, func(s *sim, bad bool) {
		a := *s.create("c1", "web")
		s.finish(&a, record.DeleteService)
		if !bad {
			s.now += time.Second
		}
		s.drop(a.IDs[1])
	}},
	{"a VLAN at once in spite of its cooldown", P2, func(s *sim, bad bool) {
		a := *s.create("c1", "web")
		s.call("c1", "n1", record.DeleteService, func(op *record.Op) {
			op.Key, op.Token = a.Key, a.Token
			out := s.finishing("web", false, "")
			for i := range out {
				if bad && out[i].Key == claimKey(a.IDs[1]) {
					out[i] = gone(out[i].Key)
				}
			}
			s.write(out...)
		})
	}},
}
