package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/vlan"
)

// importedBy is the holder of claims made from a pool file; a key of the file
// follows it.
const (
	importedBy  = "imported"
	importedKey = importedBy + ": "
)

type importIn struct {
	Inventory string `path:"inventory" maxLength:"63" doc:"name of a VLAN inventory"`
	DryRun    bool   `query:"dry_run" doc:"say what would be done, do nothing"`
	ToRanges  bool   `query:"to_ranges" doc:"turn a file inventory that holds nothing into one of the file's range"`
	RawBody   []byte `contentType:"application/json" doc:"a pool file"`
}

type importOut struct {
	Status int
	Body   api.ImportResult
}

// importPlan is what a pool file asks for.
type importPlan struct {
	ranges   idset.Set
	ids      idset.Set
	holders  map[uint32]string
	warnings []string
}

// planImport reads a file's content: what can be granted of its range, and whose
// its ids are. Ids that no frame can carry as a VLAN are left out, which is told.
func planImport(f *vlan.PoolFile) (importPlan, error) {
	p := importPlan{holders: map[uint32]string{}}
	from, to := f.Range()
	if to > 4096 {
		e := problem.New(problem.CodeInvalid, "its range [%d:%d[ ends above 4095: that is none of VLAN ids", from, to)
		if from <= uint32(vlan.Max) {
			e.Note("ok instead: from %d to %d", max(from, uint32(vlan.Min)), uint32(vlan.Max)+1)
		}
		return p, e
	}
	if from < to {
		whole := idset.Of(idset.Range{Lower: from, Higher: to - 1})
		p.ranges = whole.Intersect(allVLANs)
		if lost := whole.Remove(p.ranges); !lost.IsEmpty() {
			p.warnings = append(p.warnings, fmt.Sprintf("%s of the range can never be granted: left out", lost))
		}
	}
	used := f.Used()
	p.ids = used.Intersect(allVLANs)
	if lost := used.Remove(p.ids); !lost.IsEmpty() {
		p.warnings = append(p.warnings, fmt.Sprintf("%s in use can never be granted: left out", lost))
	}
	for id := range p.ids.All() {
		p.holders[id] = importedBy
	}
	for key, id := range f.Allocations() {
		if p.ids.Contains(id) {
			p.holders[id] = clipText(importedKey + key)
		}
	}
	return p, nil
}

// clipText cuts a text to what a holder may be, at a character.
func clipText(text string) string {
	const most = 256
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "")
}

func (s *server) importFile(ctx context.Context, who caller, in *importIn) (*importOut, error) {
	c, err := s.a.serving(ctx)
	if err != nil {
		return nil, err
	}
	not := "nothing imported into inventory " + in.Inventory
	if !in.DryRun {
		if err := who.mustOperate(not); err != nil {
			return nil, err
		}
	}
	if err := cluster.ValidName(in.Inventory); err != nil {
		return nil, prefixed(not+": ", err)
	}
	f, err := vlan.ParsePoolFile(in.RawBody)
	if err != nil {
		return nil, prefixed(not+": ", err)
	}
	plan, err := planImport(f)
	if err != nil {
		return nil, prefixed(not+": ", err)
	}
	if err := c.engine.Sync(ctx); err != nil { // what is there is what is shown
		return nil, err
	}
	return c.runImport(ctx, who, in, plan)
}

// runImport makes an inventory if there is none, claims what is in use, and only
// then gives a new one its ranges: nothing that the file has in use is granted
// meanwhile, and an import that was cut off goes on when it is sent again.
func (c *core) runImport(ctx context.Context, who caller, in *importIn, plan importPlan) (*importOut, error) {
	not := "nothing imported into inventory " + in.Inventory
	pool := leases.VLANPool(in.Inventory)
	before, err := c.inventory(in.Inventory, not)
	missing := problem.CodeOf(err) == problem.CodeNotFound
	switch {
	case missing:
	case err != nil:
		return nil, err
	case before.Outside != nil && !in.ToRanges:
		return nil, problem.New(problem.CodeInvalid, "%s: its VLANs are in %s on node %s", not, before.Outside.File, before.Outside.On).
			Advise("take them over into etcd", "poolctl vlan inventory import %s FILE --to-ranges", in.Inventory)
	case before.Outside != nil:
		if err := c.busy(ctx, in.Inventory, not); err != nil {
			return nil, err
		}
	}
	fresh := missing || before.Outside != nil || before.Ranges.IsEmpty()
	out := &importOut{http.StatusOK, api.ImportResult{Created: missing, DryRun: in.DryRun, Warnings: plan.warnings}}
	present := plan.ids.Intersect(c.engine.Taken(cluster.VLANSpace(in.Inventory)))
	out.Body.Present = present.String()
	if in.DryRun {
		done := plan.ids.Remove(present)
		p, err := c.setRanges(ctx, pool, true, plan, fresh)
		return out.done(ctx, c, p, done, plan, fresh), err
	}
	if missing || before.Outside != nil {
		_, _, err := c.engine.SetPool(ctx, pool, false, func(p *leases.Pool, _ bool) error {
			p.Outside, p.Ranges, p.Exclude = nil, idset.Set{}, idset.Set{}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	done, err := c.engine.Import(ctx, pool, plan.holders, who.name, nil)
	if err != nil {
		return nil, partly(err, done, "imported")
	}
	p, err := c.setRanges(ctx, pool, false, plan, fresh)
	if err != nil {
		return nil, partly(err, done, "imported")
	}
	if missing {
		out.Status = http.StatusCreated
	}
	return out.done(ctx, c, p, done, plan, fresh), nil
}

// setRanges gives a new inventory the file's; another keeps its own. The counts
// that it returns have what was imported before.
func (c *core) setRanges(ctx context.Context, pool string, dry bool, plan importPlan, fresh bool) (leases.PoolInfo, error) {
	if fresh {
		p, _, err := c.engine.SetPool(ctx, pool, dry, func(p *leases.Pool, _ bool) error {
			p.Outside, p.Ranges = nil, plan.ranges
			return nil
		})
		if err != nil || dry {
			return p, err
		}
	}
	if err := c.engine.Sync(ctx); err != nil {
		return leases.PoolInfo{}, err
	}
	return c.engine.Pool(pool)
}

// done fills in what came of it.
func (o *importOut) done(ctx context.Context, c *core, p leases.PoolInfo, done idset.Set, plan importPlan, fresh bool) *importOut {
	o.Body.Inventory = c.inventoryView(ctx, p)
	o.Body.Imported, o.Body.Count = done.String(), done.Count()
	o.Body.Changed = !o.Body.DryRun && (o.Body.Created || fresh && !plan.ranges.IsEmpty() || !done.IsEmpty())
	if lost := plan.ranges.Remove(p.Ranges); !fresh && !lost.IsEmpty() {
		o.Body.Warnings = append(o.Body.Warnings, fmt.Sprintf("%s of the file's range is not in the inventory: poolctl vlan inventory set %s --add %s", lost, o.Body.Inventory.Name, lost))
	}
	return o
}

type exportIn struct {
	Inventory string `path:"inventory" maxLength:"63" doc:"name of a VLAN inventory"`
	Keyed     bool   `query:"keyed" doc:"with the allocation keys"`
}

type exportOut struct {
	ContentType string `header:"Content-Type"`
	Body        []byte
}

func (s *server) exportFile(ctx context.Context, _ caller, in *exportIn) (*exportOut, error) {
	c, err := s.a.serving(ctx)
	if err != nil {
		return nil, err
	}
	not := "inventory " + in.Inventory + " not exported"
	p, err := c.inventory(in.Inventory, not)
	if err != nil {
		return nil, err
	}
	var f *vlan.PoolFile
	switch {
	case p.Outside == nil:
		f, err = c.asFile(ctx, in.Inventory, p, in.Keyed)
	case p.Outside.On != c.engine.Node():
		return nil, problem.New(problem.CodeInvalid, "%s: its VLANs are in %s on node %s, and this is %s", not, p.Outside.File, p.Outside.On, c.engine.Node()).
			Note("ask the agent of that node")
	default:
		f, err = contents(ctx, in.Inventory, p.Outside.File)
		if err == nil && f.Keyed() != in.Keyed {
			f, err = rekeyed(f, in.Keyed)
		}
	}
	if err != nil {
		return nil, err
	}
	return &exportOut{"application/json", f.Encode()}, nil
}

// asFile writes an inventory of etcd as a pool file. What its ranges leave out
// between their ends, and what it excludes, is in use there: a file has one range.
func (c *core) asFile(ctx context.Context, inventory string, p leases.PoolInfo, keyed bool) (*vlan.PoolFile, error) {
	space := cluster.VLANSpace(inventory)
	claims := c.engine.List(ctx, nil, 0, func(ref leases.Ref, _ *leases.Claim) bool { return ref.Space == space })
	var from, to uint32
	var used idset.Set
	if low, ok := p.Ranges.Min(); ok {
		high, _ := p.Ranges.Max()
		from, to = low, high+1
		used = idset.Of(idset.Range{Lower: low, Higher: high}).Remove(p.IDs())
	}
	keys := map[string]uint32{}
	for _, info := range claims {
		used.Insert(info.ID)
		key := info.Claim.Key
		if was, ok := strings.CutPrefix(info.Claim.Holder, importedKey); ok && key == "" {
			key = was
		}
		if _, twice := keys[key]; key != "" && !twice && info.Claim.State != leases.Quarantined && vlanFileKey(key) {
			keys[key] = info.ID
		}
	}
	return newFile(from, to, used, keys, keyed)
}

// vlanFileKey tells whether a key can stand in a file.
func vlanFileKey(key string) bool {
	_, err := vlan.NewPoolFile(0, 0, nil, map[string]uint32{key: 0})
	return err == nil
}

// newFile makes a file; an id with a key is not in "used" as well.
func newFile(from, to uint32, used idset.Set, keys map[string]uint32, keyed bool) (*vlan.PoolFile, error) {
	if !keyed {
		keys = nil
	}
	for _, id := range keys {
		used = used.Remove(idset.New(id))
	}
	f, err := vlan.NewPoolFile(from, to, slices.Collect(used.All()), keys)
	if err != nil {
		return nil, errors.Join(problem.ErrInternal, err)
	}
	return f, nil
}

// rekeyed is a file with its keys, or without.
func rekeyed(f *vlan.PoolFile, keyed bool) (*vlan.PoolFile, error) {
	from, to := f.Range()
	keys := f.Allocations()
	if keys == nil {
		keys = map[string]uint32{}
	}
	return newFile(from, to, f.Used(), keys, keyed)
}
