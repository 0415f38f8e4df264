package userdb

import (
	"context"
	"errors"
	"slices"
	"strings"
)

const (
	iface = "io.systemd.UserDatabase"
	// maxListed bounds the records of one enumeration.
	maxListed = 1 << 16
)

// description is the interface as org.varlink.service shows it.
const description = `interface io.systemd.UserDatabase

method GetUserRecord(uid: ?int, userName: ?string, fuzzyNames: ?[]string, dispositionMask: ?[]string, uidMin: ?int, uidMax: ?int, service: string) -> (record: object, incomplete: bool)
method GetGroupRecord(gid: ?int, groupName: ?string, fuzzyNames: ?[]string, dispositionMask: ?[]string, gidMin: ?int, gidMax: ?int, service: string) -> (record: object, incomplete: bool)
method GetMemberships(userName: ?string, groupName: ?string, service: string) -> (userName: string, groupName: string)

error NoRecordFound()
error BadService()
error ServiceNotAvailable()
error ConflictingRecordFound()
error NonMatchingRecordFound()
error EnumerationNotSupported()
`

// found is the reply to a query.
type found struct {
	Record     any  `json:"record"`
	Incomplete bool `json:"incomplete"`
}

// answer carries out a call. send gets each reply, with true while more come.
func (s *Server) answer(ctx context.Context, c call, send func(params any, continues bool) error) error {
	switch c.method {
	case iface + ".GetUserRecord":
		return s.lookup(ctx, c, users, func(r Record) any { return r.user(s.service, nil) }, send)
	case iface + ".GetGroupRecord":
		return s.lookup(ctx, c, groups, func(r Record) any { return r.group(s.service, nil) }, send)
	case iface + ".GetMemberships":
		if f := s.addressed(c); f != nil {
			return f
		}
		for _, name := range []string{users.name, groups.name} {
			if _, f := param(c, name, new(string)); f != nil {
				return f
			}
		}
		if f := c.known(users.name, groups.name, "service"); f != nil {
			return f
		}
		return refusal("NoRecordFound") // nobody is in another's group
	case "org.varlink.service.GetInfo":
		return send(map[string]any{
			"vendor": "idpool", "product": "poolagent", "version": s.version, "url": "https://github.com/idpool/idpool",
			"interfaces": []string{"org.varlink.service", iface},
		}, false)
	case "org.varlink.service.GetInterfaceDescription":
		var name string
		switch _, f := param(c, "interface", &name); {
		case f != nil:
			return f
		case name != iface:
			return &fault{"org.varlink.service.InterfaceNotFound", map[string]any{"interface": name}}
		}
		return send(map[string]any{"description": description}, false)
	}
	if of := c.method[:max(0, strings.LastIndexByte(c.method, '.'))]; of != iface && of != "org.varlink.service" {
		return &fault{"org.varlink.service.InterfaceNotFound", map[string]any{"interface": of}}
	}
	return &fault{"org.varlink.service.MethodNotFound", map[string]any{"method": c.method}}
}

// addressed refuses a call for another service.
func (s *Server) addressed(c call) *fault {
	var name string
	if _, f := param(c, "service", &name); f != nil {
		return f
	}
	if name != s.service {
		return refusal("BadService")
	}
	return nil
}

func (s *Server) lookup(ctx context.Context, c call, k kind, show func(Record) any, send func(any, bool) error) error {
	if f := s.addressed(c); f != nil {
		return f
	}
	q, f := c.query(k)
	if f != nil {
		return f
	}
	if q.id == nil && q.name == nil {
		if !c.more {
			return &fault{"org.varlink.service.ExpectedMore", nil}
		}
		return s.enumerate(q, show, send)
	}
	r, f := s.one(ctx, q)
	switch {
	case f != nil:
		return f
	case !q.accepts(r):
		return refusal("NonMatchingRecordFound")
	}
	return send(found{Record: show(r)}, false)
}

// one finds what both keys say, if there are two.
func (s *Server) one(ctx context.Context, q query) (Record, *fault) {
	var all []Record
	keys := 0
	look := func(r Record, ok bool, err error) error {
		keys++
		if ok {
			all = append(all, r)
		}
		return err
	}
	var byID, byName error
	if q.id != nil {
		byID = look(s.index.ByUID(ctx, *q.id))
	}
	if q.name != nil {
		byName = look(s.index.ByName(ctx, *q.name))
	}
	switch {
	case errors.Join(byID, byName) != nil:
		return Record{}, refusal("ServiceNotAvailable")
	case len(all) == 0:
		return Record{}, refusal("NoRecordFound")
	case len(all) < keys, all[0].UID != all[len(all)-1].UID:
		return Record{}, refusal("ConflictingRecordFound")
	}
	return all[0], nil
}

// enumerate sends each record that passes, the last without a promise of more.
func (s *Server) enumerate(q query, show func(Record) any, send func(any, bool) error) error {
	snap, err := s.index.Snapshot()
	if err != nil {
		return refusal("ServiceNotAvailable")
	}
	var last *Record
	n := 0
	for r := range snap.All() {
		if !q.accepts(r) {
			continue
		}
		if last != nil {
			if err := send(found{Record: show(*last)}, true); err != nil {
				return err
			}
		}
		last = &r
		if n++; n == maxListed {
			break
		}
	}
	if last == nil {
		return refusal("NoRecordFound")
	}
	return send(found{Record: show(*last)}, false)
}

// accepts applies the filters.
func (q query) accepts(r Record) bool {
	return (q.min == nil || r.UID >= *q.min) && (q.max == nil || r.UID <= *q.max) &&
		(q.disposed == nil || slices.Contains(q.disposed, disposition)) &&
		(q.fuzzy == nil || slices.ContainsFunc(q.fuzzy, func(part string) bool {
			part = strings.ToLower(part)
			return strings.Contains(r.Name, part) || strings.Contains(strings.ToLower(r.title()), part)
		}))
}
