package vlan

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/idpool/idpool/problem"
)

// refusalText is why an attribute could not be allocated, as a record keeps it
// and a message says it. cooling, if not nil, is until when VLANs of its
// inventory cool down.
func refusalText(attribute, inventory string, err error, cooling *time.Time) string {
	detail := err.Error()
	var e *problem.Error
	if errors.As(err, &e) {
		detail = e.Detail
		if text := countsText(inventory, e.Counts, cooling); text != "" && e.Code == problem.CodeExhausted {
			detail = text
		}
	}
	if attribute == "" {
		return "its VLANs could not be allocated together: " + detail
	}
	return attribute + " could not be allocated: " + detail
}

// countsText is an inventory's ids by state; "" for one that has none.
func countsText(inventory string, counts map[string]uint64, cooling *time.Time) string {
	var size uint64
	var parts []string
	for _, state := range []string{"free", "locked", "used", "idle", "reserved", "quarantined"} {
		n := counts[state]
		size += n
		switch {
		case n == 0 || state == "free":
		case state == "quarantined" && cooling != nil:
			parts = append(parts, fmt.Sprintf("%d cooling down until %s", n, problem.Clock(*cooling)))
		case state == "quarantined":
			parts = append(parts, fmt.Sprintf("%d cooling down", n))
		default:
			parts = append(parts, fmt.Sprintf("%d %s", n, state))
		}
	}
	if size == 0 {
		return ""
	}
	text := fmt.Sprintf("inventory %s has %d of %d VLANs free", inventory, counts["free"], size)
	if len(parts) > 0 {
		text += " (" + strings.Join(parts, ", ") + ")"
	}
	return text
}

// Refusal is the error of a rejected service: which attribute could not be got
// and why, what is held, and what to do; nil for any other. errors.Is finds
// what stood in the way: ErrExhausted, ErrHeld, ErrUnavailable and so on.
func (s *Service) Refusal() error {
	if s.State != Rejected && (s.State != Deallocating || s.Then != Rejected) {
		return nil
	}
	code := problem.Code(s.ReasonCode)
	if !slices.Contains(problem.Codes(), code) {
		code = problem.CodeUnavailable
	}
	e := problem.New(code, "service %s rejected: %s", s.Name, s.Reason)
	var held, names []string
	inventory := ""
	for _, at := range s.Attributes {
		names = append(names, strings.TrimSuffix(at.Name, "_vlan_id"))
		if at.VID != nil {
			held = append(held, fmt.Sprintf("%s %d", at.Name, *at.VID))
		}
		if at.Reason != "" && !at.Outside {
			inventory = at.Inventory
		}
		if at.Reason != "" {
			e.Attribute = at.Name
		}
	}
	switch {
	case len(held) > 0:
		e.Note("held: %s; a retry asks for the rest alone, a delete gives all back", strings.Join(held, ", "))
	case len(names) > 1:
		e.Note("nothing is held: %s are granted together or not at all", enumerate(names))
	default:
		e.Note("nothing is held")
	}
	e.Advise("retry later", "poolctl vlan service retry %s", s.Name)
	if inventory != "" && code == problem.CodeExhausted {
		e.Advise("widen", "poolctl vlan inventory set %s --add RANGES", inventory)
	}
	return e
}

// enumerate is "a, b and c".
func enumerate(names []string) string {
	last := len(names) - 1
	if last < 1 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:last], ", ") + " and " + names[last]
}

// refusedState is the refusal of a change that the service's state does not take.
func (s *Service) refusedState(verb string, v verdict) error {
	switch v {
	case vMissing:
		return missing(s.Name)
	case vCompensated:
		e := problem.New(problem.CodeCompensated, "service %s not %s: its VLANs %s (%s)", s.Name, verb, givenBack(s.State), s.why()).
			Note("undo what was configured on devices; then retry")
		return e.Advise("retry", "poolctl vlan service retry %s", s.Name)
	case vEnded:
		e := problem.New(problem.CodeKeyEnded, "service %s not %s: it stands already and is %s (%s)", s.Name, verb, s.State, s.why())
		if s.State == Failed {
			e.Advise("ask for the same again", "poolctl vlan service retry %s", s.Name)
		}
		return e.Advise("or end it first", "poolctl vlan service delete %s --wait", s.Name)
	}
	e := problem.New(problem.CodePrecondition, "service %s not %s: it is %s", s.Name, verb, s.State)
	if s.Reason != "" {
		e.Note("%s", s.Reason)
	}
	switch s.State {
	case Rejected:
		e.Advise("ask for what is missing", "poolctl vlan service retry %s", s.Name)
	case Allocated, Provisioning:
		e.Advise("when the devices are done", "poolctl vlan service confirm %s", s.Name)
	case Up:
		e.Advise("to end it", "poolctl vlan service delete %s", s.Name)
	default:
		e.Advise("look", "poolctl vlan service show %s", s.Name)
	}
	return e
}

func givenBack(s State) string {
	if s == Failed {
		return "were given back"
	}
	return "are being given back"
}

// why is the reason in words, for messages.
func (s *Service) why() string {
	if s.Reason != "" {
		return s.Reason
	}
	return string(s.State)
}

func missing(name string) error {
	return problem.New(problem.CodeNotFound, "there is no service %s", name).Advise("look", "poolctl vlan service list")
}

// mayChange refuses what is another caller's.
func (s *Service) mayChange(by By, verb string) error {
	if by.Operator || by.Caller == s.Caller {
		return nil
	}
	h := problem.Holder{Caller: s.Caller, Holder: s.Holder, State: string(s.State), Since: &s.Since}
	return problem.New(problem.CodeForbidden, "service %s not %s: it belongs to %s, and you are %s", s.Name, verb, h, by.Caller).By(h)
}

// carries refuses a change under another token than this life's (rule 26).
func (s *Service) carries(token, verb string) error {
	if token == s.Token {
		return nil
	}
	h := problem.Holder{Caller: s.Caller, Holder: s.Holder, State: string(s.State), Since: &s.Since}
	if token == "" {
		return problem.New(problem.CodePreconditionRequired, "service %s not %s: name it by its token as well", s.Name, verb).
			Advise("look", "poolctl vlan service show %s", s.Name)
	}
	return problem.New(problem.CodeNotHeld, "service %s not %s: it is not the one you named any more, but a later one of that name (%s)", s.Name, verb, h).By(h).
		Note("the one you named is over; what was configured for it is to be undone").
		Advise("look", "poolctl vlan service show %s", s.Name)
}
