package agent

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/uidpool"
	"github.com/idpool/idpool/vlan"
)

// inventoryDefinition is an inventory as somebody asked for it, read and checked.
type inventoryDefinition struct {
	ranges, exclude idset.Set
	policy          leases.Policy
	outside         *leases.Outside
}

func (d inventoryDefinition) apply(p *leases.Pool) {
	p.Ranges, p.Exclude, p.Policy, p.Outside = d.ranges, d.exclude, d.policy, d.outside
}

// defineInventory reads a whole inventory; fields left empty take their defaults.
// The error names every fault.
func defineInventory(b api.Inventory) (inventoryDefinition, error) {
	d := inventoryDefinition{policy: leases.VLANPolicy()}
	var faults []error
	var err error
	d.ranges, err = parseVLANs(b.Ranges)
	faults = append(faults, err)
	d.exclude, err = parseVLANs(b.Exclude)
	faults = append(faults, in("exclude", err))
	if b.File != "" || b.On != "" || b.Settle != "" {
		d.outside = &leases.Outside{}
		faults = append(faults, setOutside(d.outside, b.File, b.On, b.Settle))
		if b.Ranges != "" || b.Exclude != "" {
			faults = append(faults, eitherRangesOrFile())
		}
	}
	faults = append(faults, d.setPolicy(b.InventoryPolicy)...)
	return d, problem.Gather(dropNil(faults))
}

// changeInventory applies a patch: add, then remove, then what replaces; nothing
// is changed if there is a fault, and the error names every one.
func changeInventory(p *leases.Pool, b api.InventoryPatch) error {
	d := inventoryDefinition{ranges: p.Ranges, exclude: p.Exclude, policy: p.Policy, outside: p.Outside}
	var faults []error
	ofRanges := b.Ranges != nil || b.Add != "" || b.Remove != "" || b.Exclude != nil
	ofFile := b.File != "" || b.On != "" || b.Settle != ""
	switch {
	case ofRanges && ofFile:
		faults = append(faults, eitherRangesOrFile())
	case ofFile && p.Outside == nil && b.File == "":
		faults = append(faults, problem.New(problem.CodeInvalid, "it has ranges of its own and no file: name one"))
	case ofRanges && p.Outside != nil && b.Ranges == nil:
		faults = append(faults, problem.New(problem.CodeInvalid, "its VLANs are in %s on node %s: change the range there, or give it ranges of its own", p.Outside.File, p.Outside.On))
	case ofFile:
		o := leases.Outside{}
		if p.Outside != nil {
			o = *p.Outside
		}
		faults = append(faults, setOutside(&o, b.File, b.On, b.Settle))
		d.outside, d.ranges, d.exclude = &o, idset.Set{}, idset.Set{}
	case ofRanges:
		d.outside = nil
		faults = append(faults, d.edit(b)...)
	}
	faults = append(faults, d.setPolicy(b.InventoryPolicy)...)
	if err := problem.Gather(dropNil(faults)); err != nil {
		return err
	}
	d.apply(p)
	return nil
}

func eitherRangesOrFile() error {
	return problem.New(problem.CodeInvalid, "an inventory has ranges of its own or a file, not both")
}

// edit changes the ranges.
func (d *inventoryDefinition) edit(b api.InventoryPatch) (faults []error) {
	added, err := parseVLANs(b.Add)
	faults = append(faults, in("add", err))
	less, err := parseVLANs(b.Remove)
	faults = append(faults, in("remove", err))
	d.ranges = d.ranges.Add(added)
	if absent := less.Remove(d.ranges); !absent.IsEmpty() {
		faults = append(faults, problem.New(problem.CodeInvalid, "remove: %s is not in the inventory", absent).Note("the inventory is: %s", d.ranges))
	}
	d.ranges = d.ranges.Remove(less)
	if b.Ranges != nil {
		d.ranges, err = parseVLANs(*b.Ranges)
		faults = append(faults, err)
	}
	if b.Exclude != nil {
		d.exclude, err = parseVLANs(*b.Exclude)
		faults = append(faults, in("exclude", err))
	}
	return faults
}

// setOutside takes the fields that are given.
func setOutside(o *leases.Outside, file, on, settle string) error {
	if file != "" {
		o.File = file
	}
	if on != "" {
		o.On = on
	}
	switch {
	case o.File == "":
		return problem.New(problem.CodeInvalid, "node %s and no file: name the pool file by its absolute path", on)
	case !strings.HasPrefix(o.File, "/"):
		return problem.New(problem.CodeInvalid, "file %q: want an absolute path", o.File)
	case o.On == "":
		return problem.New(problem.CodeInvalid, "file %s: say on which node it is", o.File).
			Note("that node's agent alone reads and writes it").
			Advise("the nodes", "poolctl node list")
	}
	return setDuration(&o.Settle, "settle", settle)
}

// setPolicy takes the fields that are given. A file has none of them.
func (d *inventoryDefinition) setPolicy(b api.InventoryPolicy) []error {
	if d.outside != nil && b != (api.InventoryPolicy{}) {
		return []error{problem.New(problem.CodeInvalid, "order, cooldown and low_water are of ranges: of a file the lowest VLAN is taken, and free at once when it comes back")}
	}
	return setPolicy(&d.policy, api.PoolPolicy{Order: b.Order, Cooldown: b.Cooldown, LowWater: b.LowWater})
}

// parseVLANs reads ranges of VLAN ids that can be granted, 1 to 4094, in the
// grammar of uid pools. The refusal quotes the range and says what would do.
func parseVLANs(text string) (idset.Set, error) {
	ranges, err := uidpool.Parse(text, uidpool.ParseSeparator)
	if err != nil {
		var p *problem.Error
		if errors.As(err, &p) {
			return idset.Set{}, problem.New(problem.CodeInvalid, "%s", uidpool.WithoutStep(strings.ReplaceAll(p.Detail, "holds no uid", "holds no VLAN"))).
				Note(`ok: a VLAN id such as "100" or a range such as "100-199", with "," between elements`)
		}
		return idset.Set{}, err
	}
	for _, r := range ranges {
		if err := grantableVLANs(r); err != nil {
			return idset.Set{}, err
		}
	}
	return idset.Of(ranges...), nil
}

func grantableVLANs(r idset.Range) error {
	if r.Lower > r.Higher {
		return problem.New(problem.CodeInvalid, "%q has its lower bound above the higher", r.String()).Note("ok instead: %d-%d", r.Higher, r.Lower)
	}
	err := validVLAN(r.Lower)
	if err == nil {
		err = validVLAN(r.Higher)
	}
	if err == nil || r.Lower == r.Higher {
		return err
	}
	var p *problem.Error
	errors.As(err, &p)
	e := problem.New(problem.CodeInvalid, "%q: %s", r.String(), p.Detail)
	if fits := idset.Of(r).Intersect(allVLANs); !fits.IsEmpty() {
		e.Note("ok instead: %s", fits)
	}
	return e
}

// allVLANs can be granted.
var allVLANs = idset.Of(idset.Range{Lower: uint32(vlan.Min), Higher: uint32(vlan.Max)})

// validVLAN is [vlan.ID.Valid] of a number of any size.
func validVLAN(vid uint32) error {
	if vid > 4095 {
		return problem.New(problem.CodeInvalid, "VLAN %d cannot be granted: want %d to %d", vid, vlan.Min, vlan.Max)
	}
	return vlan.ID(vid).Valid()
}

// inventoryNotStored begins a refusal of an inventory.
func inventoryNotStored(name string, err error) error {
	if p, ok := err.(*problem.Error); ok && (p.Code != problem.CodeInvalid || strings.Contains(p.Detail, "not stored")) {
		return err
	}
	return prefixed("inventory "+name+" not stored: ", err)
}

// inventoryView shows an inventory; of a file that is this node's own, also how
// full it is, or what is wrong with it.
func (c *core) inventoryView(ctx context.Context, p leases.PoolInfo) api.Inventory {
	name, _ := leases.InventoryOf(p.Name)
	v := api.Inventory{
		Name: name, Ranges: p.Ranges.String(), Exclude: p.Exclude.String(), Size: p.Size, Counts: p.Counts, Low: p.Low, Revision: p.ModRev,
		InventoryPolicy: api.InventoryPolicy{Order: string(p.Order), Cooldown: p.Cooldown.String(), LowWater: p.LowWater.String()},
	}
	if p.Outside == nil {
		return v
	}
	v.File, v.On, v.Settle, v.Size, v.Counts, v.Low = p.Outside.File, p.Outside.On, p.Outside.Settle.String(), 0, nil, false
	if p.Outside.On != c.engine.Node() {
		if !c.registered(p.Outside.On) {
			v.Warnings = append(v.Warnings, "no node "+p.Outside.On+" is registered: nothing can be allocated until its agent runs")
		}
		return v
	}
	f, err := contents(ctx, name, p.Outside.File)
	if err != nil {
		v.Warnings = append(v.Warnings, err.Error())
		return v
	}
	v.Size = f.Size()
	inside := f.Size() - f.Free()
	v.Counts = map[string]uint64{api.StateFree: f.Free(), api.StateUsed: inside, api.StateOutside: f.Used().Count() - inside}
	return v
}

// contents is a pool file of this node as it is now.
func contents(ctx context.Context, inventory, path string) (*vlan.PoolFile, error) {
	f, err := vlan.NewFileInventory(path, vlan.FileOptions{Name: inventory})
	if err != nil {
		return nil, err
	}
	return f.Contents(ctx)
}

func (c *core) registered(node string) bool {
	for _, n := range c.engine.Nodes() {
		if n.Name == node {
			return true
		}
	}
	return false
}

func decimal(n int) string { return strconv.Itoa(n) }
