package vlan

import (
	"errors"
	"testing"

	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/problem"
)

func vid(n uint32) *uint32     { return &n }
func offset(n int64) *int64    { return &n }
func set(ids string) idset.Set { s, _ := idset.Parse(ids); return s }

func attrs(inventories ...string) []Attribute {
	var all []Attribute
	for i, inv := range inventories {
		at := Attribute{Name: "a" + string(rune('0'+i)), Inventory: inv, Key: "k"}
		if inv[0] == 'o' {
			at.Outside = true
		}
		all = append(all, at)
	}
	return all
}

func TestSelectionValid(t *testing.T) {
	two, one, out := attrs("fabric-a", "fabric-b"), attrs("fabric-a", "fabric-a"), attrs("outside", "outside")
	for name, c := range map[string]struct {
		sel   Selection
		attrs []Attribute
		ok    bool
	}{
		"nothing asked":                      {Selection{}, one, true},
		"same of two inventories":            {Selection{Same: true}, two, true},
		"same of one inventory":              {Selection{Same: true}, one, false},
		"offset 0 of one inventory":          {Selection{Offset: offset(0)}, one, false},
		"offset 1 of one inventory":          {Selection{Offset: offset(1)}, one, true},
		"same and an offset":                 {Selection{Same: true, Offset: offset(1)}, two, false},
		"an offset too far":                  {Selection{Offset: offset(4094)}, two, false},
		"the longest offset":                 {Selection{Offset: offset(-4093)}, two, true},
		"offset out of the tag by VID":       {Selection{VID: vid(4000), Offset: offset(95)}, two, false},
		"offset just inside":                 {Selection{VID: vid(4000), Offset: offset(94)}, two, true},
		"VLAN 0 of etcd":                     {Selection{VID: vid(0)}, two, false},
		"VLAN 0 of a file":                   {Selection{VID: vid(0)}, out, true},
		"VLAN 4095 of etcd":                  {Selection{VID: vid(4095)}, two, false},
		"VLAN 4096 of a file":                {Selection{VID: vid(4096)}, out, false},
		"parity of another name":             {Selection{Parity: "prime"}, two, false},
		"VLAN against parity":                {Selection{VID: vid(100), Parity: "odd"}, two, false},
		"VLAN excluded":                      {Selection{VID: vid(100), Exclude: set("100")}, two, false},
		"the second excluded, tied":          {Selection{VID: vid(100), Same: true, Exclude: set("100")}, two, false},
		"parity speaks of the first if tied": {Selection{VID: vid(101), Offset: offset(1), Parity: "odd"}, two, true},
		"everything excluded":                {Selection{Exclude: set("0-4095")}, two, false},
	} {
		err := c.sel.valid(c.attrs, 0)
		if (err == nil) != c.ok || (err != nil && !errors.Is(err, problem.ErrInvalid)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSelectionWants(t *testing.T) {
	two, three := attrs("fabric-a", "fabric-b"), attrs("fabric-a", "fabric-b", "fabric-c")
	held := attrs("fabric-a", "fabric-b", "fabric-c")
	held[1].VID = vid(200)
	for name, c := range map[string]struct {
		sel     Selection
		attrs   []Attribute
		missing []int
		want    string
	}{
		"any":                        {Selection{}, two, []int{0, 1}, "any any"},
		"a VLAN for the first alone": {Selection{VID: vid(7)}, two, []int{0, 1}, "=7 any"},
		"a VLAN for all":             {Selection{VID: vid(7), Same: true}, two, []int{0, 1}, "=7 =7"},
		"a VLAN and an offset":       {Selection{VID: vid(7), Offset: offset(10)}, three, []int{0, 1, 2}, "=7 =17 =27"},
		"tied":                       {Selection{Same: true}, two, []int{0, 1}, "in:1-4094 +0"},
		"tied with an offset":        {Selection{Offset: offset(1000)}, three, []int{0, 1, 2}, "in:1-2094 +1000 +2000"},
		"tied downwards":             {Selection{Offset: offset(-1000)}, three, []int{0, 1, 2}, "in:2001-4094 +-1000 +-2000"},
		"exclusions shift along":     {Selection{Offset: offset(4000), Exclude: set("4010-4094,5")}, two, []int{0, 1}, "in:1-4,6-9 +4000"},
		"tied to what is held":       {Selection{Offset: offset(10)}, held, []int{0, 2}, "=190 =210"},
		"held, not tied":             {Selection{}, held, []int{0, 2}, "any any"},
		"parity for each":            {Selection{Parity: "even", Exclude: set("7-4095")}, two, []int{0, 1}, "in:2,4,6 in:2,4,6"},
		"only the second is missing": {Selection{VID: vid(7)}, two, []int{1}, "any"},
	} {
		wants, err := c.sel.wants(c.attrs, c.missing, 0)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got := ""
		for i, w := range wants {
			if i > 0 {
				got += " "
			}
			switch {
			case w.Exact != nil:
				got += "=" + ID(*w.Exact).String()
			case w.Offset != nil:
				got += "+" + signed(*w.Offset)
			case w.Within != nil:
				got += "in:" + w.Within.String()
			default:
				got += "any"
			}
			if at := c.attrs[c.missing[i]]; w.Label != at.Name || w.Pool != "vlan/"+at.Inventory || w.Key != at.Key || w.Count != 1 {
				t.Errorf("%s: want %d is %+v", name, i, w)
			}
		}
		if got != c.want {
			t.Errorf("%s: wants %q, want %q", name, got, c.want)
		}
	}
}

func signed(n int64) string {
	if n < 0 {
		return "-" + signed(-n)
	}
	return ID(n).String()
}

func TestSelectionOutside(t *testing.T) {
	mixed := attrs("fabric-a", "outside")
	if c, err := (Selection{}).outside(mixed, 1); err != nil || c.VID != nil || !c.Exclude.IsEmpty() {
		t.Errorf("nothing asked: %+v, %v", c, err)
	}
	mixed[0].VID = vid(100)
	if c, err := (Selection{Same: true}).outside(mixed, 1); err != nil || c.VID == nil || *c.VID != 100 {
		t.Errorf("tied to a VLAN of etcd: %+v, %v", c, err)
	}
	mixed[0].VID = nil
	c, err := (Selection{Same: true}).outside(mixed, 1)
	if err != nil || !c.Exclude.Contains(0) || !c.Exclude.Contains(4095) || c.Exclude.Contains(1) {
		t.Errorf("the first, that a VLAN of etcd follows: excludes %s, %v", c.Exclude, err)
	}
	if c, err := (Selection{VID: vid(0)}).outside(attrs("outside"), 0); err != nil || c.VID == nil || *c.VID != 0 {
		t.Errorf("VLAN 0: %+v, %v", c, err)
	}
}
