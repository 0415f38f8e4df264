package vlan

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/idpool/idpool/idset"
)

// The keys of a pool file that have a meaning.
const (
	poolVersion     = "version"
	poolRange       = "range"
	poolFrom        = "from"
	poolTo          = "to"
	poolUsed        = "used"
	poolAllocations = "allocations"
)

// readPoolFile is ParsePoolFile whose errors say the fault alone.
func readPoolFile(data []byte) (*PoolFile, error) {
	if err := checkJSON(data); err != nil {
		return nil, err
	}
	p := &PoolFile{data: bytes.Clone(data)}
	top := wholeValue(p.data)
	if kindOf(p.data[top.from]) != kindObject {
		return nil, fmt.Errorf("it is %s, want an object", kindOf(p.data[top.from]))
	}
	var err error
	if p.top, err = membersOf(p.data, top, ""); err != nil {
		return nil, err
	}
	for _, m := range p.top {
		switch m.name {
		case poolVersion:
			p.version, err = number(p.data, m.value, poolVersion, maxPoolVersion)
		case poolRange:
			err = p.readRange(m.value)
		case poolUsed:
			err = p.readUsed(m.value)
		}
		if err != nil {
			return nil, err
		}
	}
	// After used, wherever it stands: an id is named by its key where both have it.
	if m, ok := p.member(poolAllocations); ok {
		if err := p.readAllocations(m.value); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// checkJSON refuses what is not one JSON value. Package json bounds how deep it
// may be nested.
func checkJSON(data []byte) error {
	switch {
	case len(data) > maxPoolFile:
		return fmt.Errorf("it has %d bytes or more, want at most %d", len(data), maxPoolFile)
	case len(bytes.Trim(data, " \t\r\n")) == 0:
		return errors.New("it is empty")
	case !utf8.Valid(data):
		return errors.New("it is not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(data))
	err := d.Decode(new(json.RawMessage))
	var syntax *json.SyntaxError
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("it is torn: it ends after %d bytes in the middle of a value", len(data))
	case errors.As(err, &syntax):
		return fmt.Errorf("%s: %w", lineAt(data, int(syntax.Offset)), err)
	case err != nil:
		return err
	}
	end := skipSpace(data, int(d.InputOffset()))
	if end < len(data) {
		return fmt.Errorf("%s: more follows after the end", lineAt(data, end+1))
	}
	return nil
}

// lineAt says where the byte is that has n-1 before it.
func lineAt(data []byte, n int) string {
	before := data[:max(0, min(n, len(data))-1)]
	line := bytes.Count(before, []byte("\n")) + 1
	return fmt.Sprintf("line %d, column %d", line, len(before)-bytes.LastIndexByte(before, '\n'))
}

func (p *PoolFile) readRange(value span) error {
	if err := want(p.data, value, poolRange, kindObject); err != nil {
		return err
	}
	members, err := membersOf(p.data, value, poolRange)
	if err != nil {
		return err
	}
	for _, m := range members {
		if m.name != poolFrom && m.name != poolTo {
			continue
		}
		n, err := number(p.data, m.value, poolRange+"."+m.name, 1<<32-1)
		if err != nil {
			return err
		}
		if m.name == poolFrom {
			p.from = uint32(n)
		} else {
			p.to = uint32(n)
		}
	}
	if p.from > p.to {
		return fmt.Errorf("range: from %d is above to %d (a missing one is 0)", p.from, p.to)
	}
	return nil
}

func (p *PoolFile) readUsed(value span) error {
	if err := want(p.data, value, poolUsed, kindList); err != nil {
		return err
	}
	for i, e := range elementsOf(p.data, value) {
		n, err := strconv.ParseUint(string(p.data[e.from:e.to]), 10, 32)
		if err != nil {
			_, err = number(p.data, e, fmt.Sprintf("%s[%d]", poolUsed, i), 1<<32-1)
			return err
		}
		p.used = append(p.used, uint32(n))
	}
	p.taken = idset.New(p.used...)
	if p.taken.Count() == uint64(len(p.used)) {
		return nil
	}
	seen := make(map[uint32]int, len(p.used))
	for i, id := range p.used {
		if first, twice := seen[id]; twice {
			return fmt.Errorf("%s[%d]: %d is there already, as %s[%d]", poolUsed, i, id, poolUsed, first)
		}
		seen[id] = i
	}
	return nil
}

func (p *PoolFile) readAllocations(value span) error {
	if err := want(p.data, value, poolAllocations, kindObject); err != nil {
		return err
	}
	members, err := membersOf(p.data, value, poolAllocations)
	if err != nil {
		return err
	}
	p.allocations = make(map[string]uint32, len(members))
	p.keys = make(map[uint32]string, len(members))
	ids := make([]uint32, 0, len(members))
	for _, m := range members {
		at := fmt.Sprintf("%s[%s]", poolAllocations, clipFileText(strconv.Quote(m.name)))
		n, err := number(p.data, m.value, at, 1<<32-1)
		if err != nil {
			return err
		}
		id := uint32(n)
		other, twice := p.keys[id]
		switch {
		case m.name == "":
			return fmt.Errorf("%s: an allocation key is empty", at)
		case twice:
			return fmt.Errorf("%s: %d belongs to %s already", at, id, clipFileText(strconv.Quote(other)))
		case p.taken.Contains(id):
			return fmt.Errorf("%s: %d stands in %s as well, at %s[%d]", at, id, poolUsed, poolUsed, slices.Index(p.used, id))
		}
		p.allocations[m.name], p.keys[id] = id, m.name
		ids = append(ids, id)
	}
	p.taken = p.taken.Add(idset.New(ids...))
	return nil
}

// number reads a whole number in plain digits, 0 to most.
func number(data []byte, value span, at string, most uint64) (uint64, error) {
	if err := want(data, value, at, kindNumber); err != nil {
		return 0, err
	}
	text := string(data[value.from:value.to])
	n, err := strconv.ParseUint(text, 10, 64)
	switch {
	case text[0] == '-':
		return 0, fmt.Errorf("%s: %s is negative, want 0 to %d", at, clipFileText(text), most)
	case errors.Is(err, strconv.ErrSyntax):
		return 0, fmt.Errorf("%s: %s is not a whole number in plain digits", at, clipFileText(text))
	case err != nil || n > most:
		return 0, fmt.Errorf("%s: %s is above %d", at, clipFileText(text), most)
	}
	return n, nil
}
