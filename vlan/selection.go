package vlan

import (
	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/problem"
)

// maxOffset is the longest distance between two VLANs.
const maxOffset = int64(Max - Min)

// maxExclude is the longest text of exclusions, in bytes: room for every VLAN.
const maxExclude = 32 << 10

// lastVID is the highest number that fits the tag; an outside inventory may give
// it, and 0.
const lastVID = 4095

// Selection says which VLANs a service's attributes may have. The zero value
// allows any, each attribute by itself.
//
// With Same or Offset the attributes' VLANs are tied: attribute i, counted from
// 0, has the first one's VLAN plus i times the offset (Same: the offset 0). VID
// and Parity then speak of the first attribute alone, since the others follow
// from it; VID does so always.
type Selection struct {
	// VID is the VLAN that the first attribute must have; nil for any. 0 is a value.
	VID    *uint32 `json:"vid,omitempty"`
	Same   bool    `json:"same,omitempty"`
	Offset *int64  `json:"offset,omitempty"`
	// Parity is "odd", "even" or "" for both.
	Parity string `json:"parity,omitempty"`
	// Exclude are VLANs that no attribute may have.
	Exclude idset.Set `json:"exclude,omitzero"`
}

// stride is the distance from one attribute's VLAN to the next one's, nil if
// each is by itself.
func (o Selection) stride() *int64 {
	if o.Same {
		return new(int64)
	}
	return o.Offset
}

// empty tells whether nothing is asked for.
func (o Selection) empty() bool {
	return o.VID == nil && o.stride() == nil && o.Parity == "" && o.Exclude.IsEmpty()
}

// valid refuses what can never be met for these attributes; named is the one that
// VID speaks of.
func (o Selection) valid(attributes []Attribute, named int) error {
	switch {
	case o.Parity != "" && o.Parity != parityOdd && o.Parity != parityEven:
		return problem.New(problem.CodeInvalid, "parity %.20q: want %s, %s or nothing", o.Parity, parityOdd, parityEven)
	case o.Offset != nil && (*o.Offset > maxOffset || *o.Offset < -maxOffset):
		return problem.New(problem.CodeInvalid, "offset %d: want %d to %d", *o.Offset, -maxOffset, maxOffset)
	case o.Same && o.Offset != nil && *o.Offset != 0:
		return problem.New(problem.CodeInvalid, "the same VLAN for all attributes and an offset of %d: want one of them", *o.Offset)
	}
	if d := o.stride(); d != nil && *d == 0 {
		from := map[string]string{}
		for _, at := range attributes {
			if other, twice := from[at.Inventory]; twice {
				return problem.New(problem.CodeInvalid, "%s and %s cannot have the same VLAN: both are of inventory %s, and a VLAN of an inventory has one holder", other, at.Name, at.Inventory).
					Advise("take them from two inventories, or", "--offset N")
			}
			from[at.Inventory] = at.Name
		}
	}
	for i, at := range attributes {
		if at.VID != nil {
			continue
		}
		if _, err := o.choose(attributes, i, named); err != nil {
			return err
		}
	}
	return nil
}

// choice is what one attribute may have: exactly one VLAN, or one of a set where
// restricted.
type choice struct {
	exact      *uint32
	within     idset.Set
	restricted bool
}

// choose tells what attribute i may have. named is the index of the attribute
// that VID speaks of. The error, ErrInvalid, says which number cannot be.
func (o Selection) choose(attributes []Attribute, i, named int) (choice, error) {
	if base, ok := o.base(attributes, i, named); ok {
		if base < 0 || base > lastVID || !possible(attributes[i], uint32(base)) {
			return choice{}, problem.New(problem.CodeInvalid, "%s cannot have VLAN %d: want %s", attributes[i].Name, base, bounds(attributes[i]))
		}
		vid := uint32(base)
		if !o.allows(i, named, vid) {
			return choice{}, problem.New(problem.CodeInvalid, "%s cannot have VLAN %d: the same request excludes it", attributes[i].Name, vid)
		}
		return choice{exact: &vid}, nil
	}
	if o.stride() == nil && o.Parity == "" && o.Exclude.IsEmpty() {
		return choice{}, nil
	}
	c := choice{restricted: true}
	for vid := uint32(0); vid <= lastVID; vid++ {
		if o.fits(attributes, i, named, vid) {
			c.within.Insert(vid)
		}
	}
	if c.within.IsEmpty() {
		return choice{}, problem.New(problem.CodeInvalid, "no VLAN can be what is asked for %s: the offset, the parity and the exclusions leave none", attributes[i].Name)
	}
	return c, nil
}

// base is the one number that attribute i can have: VID says so, or another
// attribute that is got while all are tied.
func (o Selection) base(attributes []Attribute, i, named int) (int64, bool) {
	d := o.stride()
	if d == nil {
		if o.VID != nil && i == named {
			return int64(*o.VID), true
		}
		return 0, false
	}
	for j, at := range attributes {
		if at.VID != nil {
			return int64(*at.VID) + int64(i-j)**d, true
		}
	}
	if o.VID != nil {
		return int64(*o.VID) + int64(i-named)**d, true
	}
	return 0, false
}

// fits tells whether attribute i may have vid, and all that are tied to it what
// follows.
func (o Selection) fits(attributes []Attribute, i, named int, vid uint32) bool {
	d := o.stride()
	if d == nil {
		return possible(attributes[i], vid) && o.allows(i, named, vid)
	}
	for j, at := range attributes {
		other := int64(vid) + int64(j-i)**d
		if other < 0 || other > lastVID || !possible(at, uint32(other)) || !o.allows(j, named, uint32(other)) {
			return false
		}
	}
	return true
}

// allows tells whether neither parity nor exclusions forbid a VLAN.
func (o Selection) allows(i, named int, vid uint32) bool {
	if o.Exclude.Contains(vid) {
		return false
	}
	return o.Parity == "" || (o.stride() != nil && i != named) || (o.Parity == parityOdd) == (vid%2 == 1)
}

// possible tells whether an inventory of the attribute's kind can give a VLAN.
func possible(at Attribute, vid uint32) bool {
	return vid <= lastVID && (at.Outside || ID(vid).Valid() == nil)
}

func bounds(at Attribute) string {
	if at.Outside {
		return "0 to 4095"
	}
	return "1 to 4094"
}

// wants is what the engine is asked for, to get these attributes, all of etcd.
func (o Selection) wants(attributes []Attribute, missing []int, named int) ([]leases.Want, error) {
	var all []leases.Want
	for n, i := range missing {
		at := attributes[i]
		w := leases.Want{Pool: leases.VLANPool(at.Inventory), Count: 1, Label: at.Name, Key: at.Key}
		c, err := o.choose(attributes, i, named)
		switch d := o.stride(); {
		case err != nil:
			return nil, err
		case c.exact != nil:
			w.Exact = c.exact
		case d != nil && n > 0: // its numbers are left out of the first one's already
			distance := int64(i-missing[0]) * *d
			w.Offset = &distance
		case c.restricted:
			w.Within = &c.within
		}
		all = append(all, w)
	}
	return all, nil
}

// outside is what an outside inventory is asked for, to get attribute i.
func (o Selection) outside(attributes []Attribute, i int) (Choice, error) {
	c, err := o.choose(attributes, i, 0)
	switch {
	case err != nil:
		return Choice{}, err
	case c.exact != nil:
		return Choice{VID: c.exact}, nil
	case c.restricted:
		return Choice{Exclude: idset.Of(idset.Range{Higher: 1<<32 - 1}).Remove(c.within)}, nil
	}
	return Choice{}, nil
}

// checkName refuses a service name, also one that would make no key.
func checkName(name string) error {
	if err := cluster.ValidName(name); err != nil {
		return problem.Wrap(problem.CodeInvalid, err, "service")
	}
	return nil
}
