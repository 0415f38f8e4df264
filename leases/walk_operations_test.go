package leases

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/idpool/idpool/problem"
)

// operations are all that the engine does. A run may be repeated: it asks the same
// again, as a client does, and is done where it was done before.
var operations = slices.Concat(requests, upkeep)

// requests are what clients ask for, and how nodes come.
var requests = []operation{
	{"resume", func(s *site) func() error {
		s.stop(s.a)
		s.inj.Record()
		return func() error { return s.open("n1", s.a.home) }
	}},
	{"register", func(s *site) func() error {
		old, home, name := s.a, s.t.TempDir(), fmt.Sprint("new", s.n)
		s.stop(old)
		s.inj.Record()
		started := false
		return func() error {
			if !started {
				if err := s.open(name, home); err != nil {
					return err
				}
				started = true
				s.stop(s.a)
				s.a = old
			}
			if err := s.forget(name); err != nil {
				return err
			}
			return s.open("n1", old.home)
		}
	}},
	{"grant", func(s *site) func() error {
		return s.granted("client", withKey(s.name("k")))
	}},
	{"grant without a key", func(s *site) func() error {
		try := 0
		return func() error {
			s.m.die(fmt.Sprint("client", try)) // who was not answered gives up
			try++
			g, err := s.ask(fmt.Sprint("client", try))
			return s.got(g, err)
		}
	}},
	{"grant for a time", func(s *site) func() error {
		return func() error {
			g, err := s.a.Grant(s.ctx(), GrantRequest{Caller: "tenant", Key: s.name("k"), Requester: Requester{ID: "ttl", Hold: HoldTTL}, TTL: 200 * time.Millisecond, Wants: []Want{{Pool: "p", Count: 2}}})
			return s.got(g, mayHave(err, problem.ErrKeyEnded))
		}
	}},
	{"the same key again", func(s *site) func() error {
		first := s.scene("client", withKey(s.name("k")))
		return func() error {
			g, err := s.ask("client", withKey(s.name("k")))
			if err == nil && (g.Token != first.Token || !g.Same) {
				return errors.New("another grant under the key")
			}
			return err
		}
	}},
	{"join", func(s *site) func() error {
		g, err := s.b.ask(s.b.m.born("first"), withKey(s.name("k")))
		if err = s.got(g, err); err != nil {
			s.t.Fatal(err)
		}
		s.b.confirm(g, true, false)
		return func() error {
			_, err := s.ask("second", withKey(s.name("k")))
			return err
		}
	}},
	{"allocation of uids and VLANs", func(s *site) func() error {
		mix := wants(Want{Pool: "p", Count: 2}, Want{Pool: VLANPool("fa"), Count: 1, Label: "north"}, Want{Pool: VLANPool("fb"), Count: 1})
		return func() error {
			g, err := s.ask("client", withKey(s.name("k")), mix)
			if err = s.got(g, err); err != nil {
				return err
			}
			if _, err := s.a.ConfirmGroup(s.ctx(), g.refs(), g.Token, "client"); err != nil {
				return err
			}
			return nil
		}
	}},
	{"deletion of an allocation", func(s *site) func() error {
		g := s.scene("client", withKey(s.name("k")), wants(Want{Pool: "p", Count: 2}, Want{Pool: VLANPool("fa"), Count: 1}))
		if _, err := s.a.ConfirmGroup(s.ctx(), g.refs(), g.Token, "client"); err != nil {
			s.t.Fatal(err)
		}
		return func() error {
			refs, token, err := s.a.Find(s.ctx(), "tenant", s.name("k"))
			if err == nil {
				_, _, err = s.a.Release(s.ctx(), Release{Refs: refs, Token: token, By: "tenant"})
			}
			return mayHave(err, problem.ErrKeyEnded)
		}
	}},
	{"confirm", func(s *site) func() error {
		g := s.scene("client")
		s.m.start(g.ref().ID)
		return func() error { return s.confirmed(g, false, true) }
	}},
	{"confirm and keep", func(s *site) func() error {
		g := s.scene("client")
		return func() error { return s.confirmed(g, true, false) }
	}},
	{"renew", func(s *site) func() error {
		g, err := s.a.Grant(s.ctx(), GrantRequest{Caller: "tenant", Requester: Requester{ID: "ttl", Hold: HoldTTL}, TTL: time.Minute, Wants: []Want{{Pool: "p", Count: 1}}})
		if err = s.got(g, err); err != nil {
			s.t.Fatal(err)
		}
		return func() error {
			_, err := s.a.Renew(s.ctx(), g.ref(), g.Token, Requester{ID: "ttl", Hold: HoldTTL, Deadline: int64(BootTime() + 2*time.Minute), Until: time.Now().Add(2 * time.Minute)})
			if err == nil { // a hold by time lasts, whatever its grant does
				_, _, err = s.a.Release(s.ctx(), Release{Refs: g.refs(), Token: g.Token, By: "tenant"})
			}
			return mayHave(err, problem.ErrLockLost, problem.ErrNotHeld)
		}
	}},
	{"release", func(s *site) func() error {
		g := s.scene("client", wants(Want{Pool: "one", Count: 1}))
		var next *Grant
		return func() error {
			if err := s.released(g); err != nil {
				return err
			}
			if next == nil {
				if err := s.until("the id is free", s.is(g.ref(), Free)); err != nil {
					return err
				}
				var err error
				next, err = s.b.ask(s.b.m.born("next"), wants(Want{Pool: "one", Count: 1}))
				if err = s.got(next, err); err != nil {
					return err
				}
			}
			// It is another's now, and the first release comes once more.
			if err := s.released(g); err != nil {
				return err
			}
			s.w.mustBe(g.ref(), Locked)
			return nil
		}
	}},
	{"release, shortcut", func(s *site) func() error {
		g := s.scene("client", wants(Want{Pool: "own", Count: 1}))
		return func() error {
			if err := s.released(g); err != nil {
				return err
			}
			return s.until("the id is free", s.is(g.ref(), Free))
		}
	}},
}

// mayHave is nil for what a repetition may meet.
func mayHave(err error, are ...error) error {
	if slices.ContainsFunc(are, func(e error) bool { return errors.Is(err, e) }) {
		return nil
	}
	return err
}
