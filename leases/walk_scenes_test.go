package leases

import (
	"context"
	"fmt"

	"github.com/idpool/idpool/problem"
)

// name makes a name of this case alone.
func (s *site) name(what string) string { return fmt.Sprint(what, s.n) }

// ask is a client's request to the agent under faults; its process lives.
func (s *site) ask(client string, change ...func(*GrantRequest)) (*Grant, error) {
	req := GrantRequest{Caller: "tenant", Requester: s.m.born(client), Wants: []Want{{Pool: "p", Count: 1}}}
	for _, f := range change {
		f(&req)
	}
	return s.a.Grant(s.ctx(), req)
}

// got notes a grant that its client was told of.
func (s *site) got(g *Grant, err error) error {
	if err == nil && g != nil {
		s.held = append(s.held, g)
	}
	return err
}

// granted is a request that is repeated until it is answered.
func (s *site) granted(client string, change ...func(*GrantRequest)) func() error {
	return func() error { return s.got(s.ask(client, change...)) }
}

// scene is a grant that stands before the faults begin.
func (s *site) scene(client string, change ...func(*GrantRequest)) *Grant {
	s.t.Helper()
	g, err := s.ask(client, change...)
	if err = s.got(g, err); err != nil {
		s.t.Fatal(err)
	}
	return g
}

func (s *site) confirmed(g *Grant, keep, running bool) error {
	_, err := s.a.Confirm(s.ctx(), g.ref(), g.Token, "", keep, running)
	return err
}

func (s *site) released(g *Grant) error {
	_, _, err := s.a.Release(s.ctx(), Release{Refs: g.refs(), Token: g.Token, Requester: g.Requester, By: "tenant"})
	return err
}

func (s *site) is(ref Ref, state State) func() bool {
	return func() bool { return s.w.state(ref) == state }
}

// forget takes a node out that is off.
func (s *site) forget(name string) error {
	if err := s.b.Sync(s.ctx0()); err != nil {
		return err
	}
	if _, err := s.b.Fence(s.ctx0(), name, "it is off", "op", true, false); mayHave(err, problem.ErrNotFound) != nil {
		return err
	}
	if err := s.b.turn(s.ctx0()); err != nil {
		return err
	}
	return mayHave(s.b.Remove(s.ctx0(), name), problem.ErrNotFound)
}

// ctx0 is for what does not end with the agent under faults.
func (s *site) ctx0() context.Context { return s.w.ctx() }

// document is as etcd has it.
func (s *site) document(name string) (Document, bool) {
	raw, ok := s.w.stored(s.w.keys.Service(name))[s.w.keys.Service(name)]
	return Document{Name: name, Raw: []byte(raw)}, ok
}

// claimsOf are the claims of a service, as etcd has them.
func (s *site) claimsOf(service string) map[Ref]*Claim {
	all := map[Ref]*Claim{}
	for id := uint32(100); id < 140; id++ {
		for _, ref := range []Ref{vid("fa", id), vid("fb", id+100)} {
			if c := s.w.claim(ref); c != nil && c.Service == service {
				all[ref] = c
			}
		}
	}
	return all
}

// serveUnder is serve with a context.
func (a *agent) serveUnder(ctx context.Context, name string) {
	_, _ = a.Grant(ctx, GrantRequest{Caller: "net", Wants: northSouth(), Service: name, Document: &DocumentGrant{Name: name, After: func(g *Grant) []byte {
		return fmt.Appendf(nil, `{"token":%q,"w":%q}`, g.Token, NewToken())
	}}})
}

// runs tells whether something runs under an id.
func (m *machine) runs(id uint32) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.procs[id]
}
