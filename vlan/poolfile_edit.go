package vlan

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// edit puts a text in the place of a part of the file.
type edit struct {
	at   span
	text string
}

// withID returns the file with an id taken, under the key if the file is keyed.
func (p *PoolFile) withID(id uint32, key string) (*PoolFile, error) {
	text := strconv.FormatUint(uint64(id), 10)
	name, empty := poolUsed, "[]"
	if p.Keyed() {
		name, empty = poolAllocations, "{}"
		text = jsonText(key) + p.colon() + text
	}
	var edits []edit
	var added []string
	if list, ok := p.member(name); ok {
		edits = append(edits, p.insert(list.value, p.items(list.value), text))
	} else {
		added = append(added, jsonText(name)+p.colon()+p.fill(empty, text))
	}
	return p.edited(edits, added, p.taken.Count()+1)
}

// withoutID returns the file with a taken id free.
func (p *PoolFile) withoutID(id uint32) (*PoolFile, error) {
	name, i := poolUsed, slices.Index(p.used, id)
	if i < 0 {
		name = poolAllocations
	}
	list, ok := p.member(name)
	if !ok {
		return nil, fmt.Errorf("%d is not in it", id)
	}
	if i < 0 {
		members, err := membersOf(p.data, list.value, name)
		if err != nil {
			return nil, err
		}
		i = slices.IndexFunc(members, func(m member) bool { return m.name == p.keys[id] })
	}
	return p.edited([]edit{remove(list.value, p.items(list.value), i)}, nil, p.taken.Count()-1)
}

// edited applies edits, adds members at the end of the object and counts the
// version up. It reads back what it wrote: taken is how many ids there must be.
func (p *PoolFile) edited(edits []edit, added []string, taken uint64) (*PoolFile, error) {
	if p.version == maxPoolVersion {
		return nil, fmt.Errorf("version %d is the highest there is", p.version)
	}
	version := strconv.FormatUint(p.version+1, 10)
	if m, ok := p.member(poolVersion); ok {
		edits = append(edits, edit{m.value, version})
	} else {
		added = append(added, jsonText(poolVersion)+p.colon()+version)
	}
	if len(added) > 0 {
		top := wholeValue(p.data)
		items := p.items(top)
		if len(items) == 0 {
			return nil, errors.New("it is an empty object")
		}
		sep := p.separator(top, items)
		edits = append(edits, edit{span{items[len(items)-1].to, items[len(items)-1].to}, "," + sep + strings.Join(added, ","+sep)})
	}
	slices.SortStableFunc(edits, func(a, b edit) int { return a.at.from - b.at.from })
	var out bytes.Buffer
	at := 0
	for _, e := range edits {
		out.Write(p.data[at:e.at.from])
		out.WriteString(e.text)
		at = e.at.to
	}
	out.Write(p.data[at:])
	next, err := readPoolFile(out.Bytes())
	if err != nil {
		return nil, err
	}
	if next.version != p.version+1 || next.taken.Count() != taken || next.Keyed() != p.Keyed() {
		panic("bug: a pool file does not read back as it was changed")
	}
	return next, nil
}

// member finds a member of the file by its name.
func (p *PoolFile) member(name string) (member, bool) {
	i := slices.IndexFunc(p.top, func(m member) bool { return m.name == name })
	if i < 0 {
		return member{}, false
	}
	return p.top[i], true
}

// items are the elements of a list, or the members of an object from the name to
// the end of the value.
func (p *PoolFile) items(container span) []span {
	var all []span
	if p.data[container.from] == '[' {
		for _, e := range elementsOf(p.data, container) {
			all = append(all, e)
		}
		return all
	}
	members, err := membersOf(p.data, container, "")
	if err != nil {
		return nil
	}
	for _, m := range members {
		all = append(all, span{m.key.from, m.value.to})
	}
	return all
}

// insert puts an item behind the last one, in the way the others are set.
func (p *PoolFile) insert(container span, items []span, text string) edit {
	if len(items) == 0 {
		brackets := string(p.data[container.from]) + string(p.data[container.to-1])
		return edit{container, p.fill(brackets, text)}
	}
	end := items[len(items)-1].to
	return edit{span{end, end}, "," + p.separator(container, items) + text}
}

// remove takes the i-th item out, with one of the commas beside it.
func remove(container span, items []span, i int) edit {
	switch {
	case len(items) == 1:
		return edit{span{container.from + 1, container.to - 1}, ""}
	case i == 0:
		return edit{span{items[0].from, items[1].from}, ""}
	}
	return edit{span{items[i-1].to, items[i].to}, ""}
}

// separator is the white space between a comma and the next item of a container
// that has items already.
func (p *PoolFile) separator(container span, items []span) string {
	if n := len(items); n > 1 {
		between := p.data[items[n-2].to:items[n-1].from]
		return string(between[bytes.IndexByte(between, ',')+1:])
	}
	opening := string(p.data[container.from+1 : items[0].from])
	if strings.Contains(opening, "\n") {
		return opening
	}
	return p.blank()
}

// fill puts a first item between brackets: on a line of its own where the members
// of the file have lines of their own.
func (p *PoolFile) fill(brackets, text string) string {
	line, indent := p.lines()
	if line == "" {
		return brackets[:1] + text + brackets[1:]
	}
	return brackets[:1] + line + indent + indent + text + line + indent + brackets[1:]
}

// lines tells what the file ends a line with and what its members are indented
// by; "" if they do not have lines of their own.
func (p *PoolFile) lines() (end, indent string) {
	if len(p.top) == 0 {
		return "", ""
	}
	opening := string(p.data[wholeValue(p.data).from+1 : p.top[0].key.from])
	i := strings.LastIndex(opening, "\n")
	switch {
	case i < 0:
		return "", ""
	case i > 0 && opening[i-1] == '\r':
		return "\r\n", opening[i+1:]
	}
	return "\n", opening[i+1:]
}

// colon is what the file has between a name and its value.
func (p *PoolFile) colon() string { return ":" + p.blank() }

// blank is " " if the file has one behind its first colon.
func (p *PoolFile) blank() string {
	if len(p.top) > 0 && strings.IndexByte(" \t\r\n", p.data[p.top[0].value.from-1]) >= 0 {
		return " "
	}
	return ""
}
