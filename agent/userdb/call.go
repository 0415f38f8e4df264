package userdb

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// errNoCall is returned for a message that is no call.
var errNoCall = errors.New("no call")

// call is one message of a client.
type call struct {
	method       string
	params       map[string]json.RawMessage
	more, oneway bool
}

// decodeCall reads a message without its end. Names count with their case, null is
// absent.
func decodeCall(data []byte) (call, error) {
	var c call
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil || fields == nil {
		return c, errors.Join(errNoCall, err)
	}
	for name, into := range map[string]any{"method": &c.method, "parameters": &c.params, "more": &c.more, "oneway": &c.oneway} {
		if raw, ok := fields[name]; ok {
			if err := json.Unmarshal(raw, into); err != nil {
				return c, fmt.Errorf("%w: %s: %w", errNoCall, name, err)
			}
		}
	}
	if c.method == "" {
		return c, fmt.Errorf("%w: no method", errNoCall)
	}
	for name, raw := range c.params {
		if string(raw) == "null" {
			delete(c.params, name)
		}
	}
	return c, nil
}

// fault is an error reply.
type fault struct {
	id     string
	params map[string]any
}

func (f *fault) Error() string { return f.id }

func invalid(parameter string) *fault {
	return &fault{"org.varlink.service.InvalidParameter", map[string]any{"parameter": parameter}}
}

func refusal(name string) *fault { return &fault{iface + "." + name, nil} }

// param reads a parameter, if it is there.
func param[T any](c call, name string, into *T) (bool, *fault) {
	raw, ok := c.params[name]
	if !ok {
		return false, nil
	}
	if json.Unmarshal(raw, into) != nil {
		return false, invalid(name)
	}
	return true, nil
}

// number reads an id; 4294967295 is none.
func (c call) number(name string) (*uint32, *fault) {
	var n uint32
	ok, f := param(c, name, &n)
	if f == nil && ok && n == 1<<32-1 {
		f = invalid(name)
	}
	if f != nil || !ok {
		return nil, f
	}
	return &n, nil
}

// query is a call for users or groups.
type query struct {
	id       *uint32
	name     *string
	min, max *uint32
	fuzzy    []string
	disposed []string
}

// names of the parameters of the two kinds of query.
type kind struct{ id, name, min, max string }

var (
	users  = kind{"uid", "userName", "uidMin", "uidMax"}
	groups = kind{"gid", "groupName", "gidMin", "gidMax"}
)

func (c call) query(k kind) (query, *fault) {
	var q query
	if f := c.known(k.id, k.name, k.min, k.max, "fuzzyNames", "dispositionMask", "service"); f != nil {
		return q, f
	}
	var f *fault
	if q.id, f = c.number(k.id); f != nil {
		return q, f
	}
	if q.min, f = c.number(k.min); f != nil {
		return q, f
	}
	if q.max, f = c.number(k.max); f != nil {
		return q, f
	}
	var name string
	if ok, f := param(c, k.name, &name); f != nil {
		return q, f
	} else if ok {
		q.name = &name
	}
	if _, f = param(c, "fuzzyNames", &q.fuzzy); f != nil {
		return q, f
	}
	if _, f = param(c, "dispositionMask", &q.disposed); f != nil {
		return q, f
	}
	return q, nil
}

// known refuses parameters that we do not know: to leave a filter out would answer
// another question.
func (c call) known(names ...string) *fault {
	for name := range c.params {
		if !slices.Contains(names, name) {
			return invalid(name)
		}
	}
	return nil
}
