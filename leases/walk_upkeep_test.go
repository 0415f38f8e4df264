package leases

import (
	"errors"
	"fmt"

	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/problem"
)

// upkeep is what the agent's own loops do, and operators.
var upkeep = []operation{
	{"inquiry, proof and free", func(s *site) func() error {
		g := s.scene("client")
		s.m.die("client")
		return func() error { return s.until("the id is free", s.is(g.ref(), Free)) }
	}},
	{"lapse", func(s *site) func() error {
		g := s.scene("client", wants(Want{Pool: VLANPool("fa"), Count: 1}, Want{Pool: "p", Count: 1}))
		s.m.die("client")
		return func() error {
			return s.until("the VLAN is free", func() bool { return s.is(g.refs()[0], Free)() && s.is(g.refs()[1], Free)() })
		}
	}},
	{"re-lock", func(s *site) func() error {
		g := s.scene("client")
		old := s.a.guardNow()
		s.a.expire()
		s.a.session.lost(old, errors.New("it expired"))
		until(s.t, "a new session", func() bool { now := s.a.guardNow(); return now != nil && now.lease != old.lease })
		return func() error {
			return s.until("the lock is there", func() bool { return len(s.w.stored(s.w.keys.Lock(g.ref().Space, g.ref().ID))) == 1 })
		}
	}},
	{"sweep of an earlier boot", func(s *site) func() error {
		g := s.scene("client")
		s.m.start(g.ref().ID)
		if err := s.confirmed(g, false, true); err != nil {
			s.t.Fatal(err)
		}
		s.stop(s.a)
		s.a.expire()
		s.m.reboot()
		s.inj.Record()
		up := false
		return func() error {
			if !up {
				if err := s.open("n1", s.a.home); err != nil {
					return err
				}
				up = true
			}
			return s.until("the id is free", s.is(g.ref(), Free))
		}
	}},
	{"idle, and running again", func(s *site) func() error {
		g := s.scene("client")
		s.m.start(g.ref().ID)
		if err := s.confirmed(g, false, true); err != nil {
			s.t.Fatal(err)
		}
		s.m.die("client")
		s.m.end(g.ref().ID)
		return func() error {
			if err := s.until("the id is idle", func() bool { return s.is(g.ref(), Idle)() || s.m.runs(g.ref().ID) }); err != nil {
				return err
			}
			s.m.start(g.ref().ID)
			return s.until("the id is used", s.is(g.ref(), Used))
		}
	}},
	{"reclaim", func(s *site) func() error {
		g := s.scene("client", wants(Want{Pool: "one", Count: 1}))
		s.m.start(g.ref().ID)
		if err := s.confirmed(g, false, true); err != nil {
			s.t.Fatal(err)
		}
		s.m.die("client")
		s.m.end(g.ref().ID)
		if err := s.until("the id is idle", s.is(g.ref(), Idle)); err != nil {
			s.t.Fatal(err)
		}
		return func() error {
			asked := make(chan error, 1)
			go func() {
				asked <- s.got(s.ask("next", withKey(s.name("k")), wants(Want{Pool: "one", Count: 1}), wait(limit)))
			}()
			for {
				select {
				case err := <-asked:
					return err
				default:
					_ = s.until("a turn", s.is(g.ref(), Free))
				}
			}
		}
	}},
	{"drop of a fenced node", func(s *site) func() error {
		c := s.w.node(fmt.Sprint("c", s.n))
		if err := s.until("c is seen", func() bool { _, err := s.a.NodeNamed(c.id.Node); return err == nil }); err != nil {
			s.t.Fatal(err)
		}
		c.sync()
		g := c.get(c.m.born("client"))
		s.held = append(s.held, g)
		c.confirm(g, true, false)
		c.expire()
		c.crash()
		if _, err := s.b.Fence(s.ctx(), c.id.Node, "it is off", "op", true, false); err != nil {
			s.t.Fatal(err)
		}
		return func() error {
			if err := s.until("the id is free", s.is(g.ref(), Free)); err != nil {
				return err
			}
			return s.forget(c.id.Node)
		}
	}},
	{"fence, unfence, remove", func(s *site) func() error {
		c := s.w.node(fmt.Sprint("c", s.n))
		if err := s.a.Sync(s.ctx()); err != nil {
			s.t.Fatal(err)
		}
		c.expire()
		c.crash()
		fenced := false
		return func() error {
			if !fenced {
				if _, err := s.a.Fence(s.ctx(), c.id.Node, "it is off", "op", true, false); err != nil {
					return err
				}
				fenced = true
			}
			if err := s.a.Unfence(s.ctx(), c.id.Node, "op"); mayHave(err, problem.ErrNotFound) != nil {
				return err
			}
			return mayHave(s.a.Remove(s.ctx(), c.id.Node), problem.ErrNotFound)
		}
	}},
	{"leave", func(s *site) func() error {
		left := false
		return func() error {
			if !left {
				if err := s.a.Leave(s.ctx()); mayHave(err, problem.ErrFenced) != nil {
					return err
				}
				left = true
				s.stop(s.a)
			}
			return s.open("n1", s.a.home)
		}
	}},
	{"pool", func(s *site) func() error {
		name := s.name("pool")
		done := false
		return func() error {
			if !done {
				_, _, err := s.a.SetPool(s.ctx(), name, false, func(p *Pool, _ bool) error {
					p.Ranges = idset.Of(idset.Range{Lower: 5000, Higher: 5009})
					return nil
				})
				if err != nil {
					return err
				}
				done = true
			}
			return mayHave(s.a.DeletePool(s.ctx(), name), problem.ErrNotFound)
		}
	}},
	{"import", func(s *site) func() error {
		return func() error {
			if _, err := s.a.Import(s.ctx(), VLANPool("fa"), map[uint32]string{100: "x", 101: "y"}, "importer", nil); err != nil {
				return err
			}
			if err := s.a.Sync(s.ctx()); err != nil {
				return err
			}
			for _, ref := range []Ref{vid("fa", 100), vid("fa", 101)} {
				if c := s.w.claim(ref); c != nil {
					s.held = append(s.held, &Grant{Token: c.Token, Held: []Held{{Ref: ref}}})
				}
			}
			return nil
		}
	}},
	{"reserve and unreserve", func(s *site) func() error {
		ids := idset.Of(idset.Range{Lower: 4000, Higher: 4001})
		reserved := false
		return func() error {
			if !reserved {
				if _, err := s.a.Reserve(s.ctx(), ids, "op", "a rack"); err != nil {
					return err
				}
				reserved = true
			}
			_, err := s.a.Unreserve(s.ctx(), ids, "op")
			return err
		}
	}},
	{"foreign use, and its adoption", func(s *site) func() error {
		s.m.start(4005)
		return func() error {
			if err := s.until("the id is in quarantine", func() bool { return s.w.state(uid(4005)) != Free }); err != nil {
				return err
			}
			h, err := s.a.Adopt(s.ctx(), uid(4005), "tenant", "", s.m.born("adopter"))
			if errors.Is(err, problem.ErrHeld) && s.w.claim(uid(4005)).Caller == "tenant" {
				h, err = Held{Ref: uid(4005), Claim: s.w.claim(uid(4005))}, nil
			}
			if err == nil {
				s.held = append(s.held, &Grant{Token: h.Claim.Token, Held: []Held{h}})
			}
			return err
		}
	}},
	{"give back what runs already", func(s *site) func() error {
		s.m.start(2000)
		return func() error {
			_, err := s.ask("client", withKey(s.name("k")), wants(Want{Pool: "one", Count: 1}))
			return mayHave(err, problem.ErrExhausted)
		}
	}},
	{"presence tells that nothing can be proven", func(s *site) func() error {
		return func() error {
			for _, why := range []error{errors.New("procfs is gone"), nil} {
				s.m.set(func() { s.m.err = why })
				if err := s.a.turn(s.ctx()); err != nil {
					s.m.set(func() { s.m.err = nil })
					return err
				}
			}
			return nil
		}
	}},
	{"renewal of the session", func(s *site) func() error {
		return func() error {
			g, err := s.a.session.current(s.ctx())
			if err == nil {
				err = s.a.session.renew(s.ctx(), g)
			}
			return err
		}
	}},
	{"raise of the counter", func(s *site) func() error {
		return func() error {
			g, err := s.a.session.current(s.ctx())
			if err == nil {
				err = s.a.session.raise(s.ctx(), g)
			}
			return err
		}
	}},
	{"document", func(s *site) func() error {
		name := s.name("edge")
		return func() error {
			d, ok := s.document(name)
			if !ok {
				s.a.serveUnder(s.ctx(), name)
				if d, ok = s.document(name); !ok {
					return errNotYet
				}
			}
			var g Grant
			for ref, c := range s.claimsOf(name) {
				g.Held = append(g.Held, Held{Ref: ref})
				g.Token = c.Token
			}
			if len(g.Held) != 2 {
				s.t.Fatalf("%d claims of the service, want 2", len(g.Held))
			}
			_, err := s.a.ChangeDocument(s.ctx(), "doc", DocumentChange{Name: name, Before: d.Raw, Release: tokens(&g), Reason: "deleted"})
			if err != nil {
				if _, ok := s.document(name); !ok {
					return nil
				}
			}
			return err
		}
	}},
}
