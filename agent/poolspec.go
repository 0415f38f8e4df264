package agent

import (
	"encoding"
	"errors"
	"time"

	"github.com/idpool/idpool/api"
	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/leases"
	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/uidpool"
)

// definition is a pool as somebody asked for it, read and checked.
type definition struct {
	ranges, exclude idset.Set
	policy          leases.Policy
}

func (d definition) apply(p *leases.Pool) {
	p.Ranges, p.Exclude, p.Policy = d.ranges, d.exclude, d.policy
}

// define reads a whole pool; fields left empty take their defaults. The error
// names every fault.
func define(b api.Pool) (definition, error) {
	d := definition{policy: leases.DefaultPolicy()}
	var faults []error
	exclude, err := parseSet(b.Exclude)
	faults = append(faults, in("exclude", err))
	d.exclude = exclude
	d.ranges, err = parseGrantable(b.Ranges, exclude)
	faults = append(faults, err)
	faults = append(faults, setPolicy(&d.policy, b.PoolPolicy)...)
	return d, problem.Gather(dropNil(faults))
}

// change applies a patch: add, then remove, then what replaces; nothing is
// changed if there is a fault, and the error names every one.
func change(p *leases.Pool, b api.PoolPatch) error {
	var faults []error
	exclude := p.Exclude
	if b.Exclude != nil {
		var err error
		exclude, err = parseSet(*b.Exclude)
		faults = append(faults, in("exclude", err))
	}
	added, err := parseGrantable(b.Add, exclude)
	faults = append(faults, in("add", err))
	less, err := uidpool.Parse(b.Remove, uidpool.ParseSeparator)
	faults = append(faults, in("remove", err))
	left := uidpool.Add(p.Ranges.RangeList(), added.RangeList())
	if err == nil {
		left, err = uidpool.Remove(left, less)
		faults = append(faults, in("remove", err))
	}
	ranges := idset.Of(left...)
	if b.Ranges != nil {
		ranges, err = parseGrantable(*b.Ranges, exclude)
		faults = append(faults, err)
	}
	policy := p.Policy
	faults = append(faults, setPolicy(&policy, b.PoolPolicy)...)
	if err := problem.Gather(dropNil(faults)); err != nil {
		return err
	}
	// What an exclusion made bearable must not come back when it goes.
	if err := grantable(ranges.RangeList(), exclude); err != nil {
		return err
	}
	p.Ranges, p.Exclude, p.Policy = ranges, exclude, policy
	return nil
}

// parseSet reads ranges that need not be grantable.
func parseSet(text string) (idset.Set, error) {
	ranges, err := uidpool.Parse(text, uidpool.ParseSeparator)
	if err != nil {
		return idset.Set{}, err
	}
	for _, r := range ranges {
		if r.Lower > r.Higher {
			return idset.Set{}, problem.New(problem.CodeInvalid, "%q has its lower bound above the higher", r.String())
		}
	}
	return idset.Of(ranges...), nil
}

// parseGrantable reads ranges that can be granted, less those excluded.
func parseGrantable(text string, exclude idset.Set) (idset.Set, error) {
	ranges, err := uidpool.Parse(text, uidpool.ParseSeparator)
	if err != nil {
		return idset.Set{}, err
	}
	return idset.Of(ranges...), grantable(ranges, exclude)
}

// grantable is [uidpool.Check] of what exclude leaves. The refusal is about the
// elements as given, unless exclude mended some of them.
func grantable(ranges []idset.Range, exclude idset.Set) error {
	err := uidpool.Check(ranges)
	if err == nil || exclude.IsEmpty() {
		return err
	}
	var left []idset.Range
	for _, r := range ranges {
		if r.Lower > r.Higher {
			return err
		}
		left = append(left, idset.Of(r).Remove(exclude).RangeList()...)
	}
	return uidpool.Check(left)
}

// setPolicy takes the fields that are given.
func setPolicy(p *leases.Policy, b api.PoolPolicy) []error {
	var faults []error
	if b.Scope != "" {
		p.Scope = leases.Scope(b.Scope)
	}
	if b.Order != "" {
		p.Order = leases.Order(b.Order)
	}
	if b.Proof != "" {
		p.Proof = leases.ProofPolicy(b.Proof)
	}
	if b.Block != 0 {
		p.Block = b.Block
	}
	if b.RemoveIPC != nil {
		p.RemoveIPC = *b.RemoveIPC
	}
	if b.ClearKeyring != nil {
		p.ClearKeyring = *b.ClearKeyring
	}
	faults = append(faults, setDuration(&p.Cooldown, "cooldown", b.Cooldown), setDuration(&p.ScanAge, "scan-age", b.ScanAge))
	faults = append(faults, setText(&p.Reclaim, b.Reclaim), setText(&p.LowWater, b.LowWater))
	if err := p.Validate(); err != nil {
		faults = append(faults, err)
	}
	return faults
}

func setDuration(to *time.Duration, field, text string) error {
	if text == "" {
		return nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return problem.New(problem.CodeInvalid, "%s %q: want a duration such as 10m", field, text)
	}
	*to = d
	return nil
}

func setText(to encoding.TextUnmarshaler, text string) error {
	if text == "" {
		return nil
	}
	return to.UnmarshalText([]byte(text))
}

// in says which field a refusal is about.
func in(field string, err error) error { return prefixed(field+": ", err) }

// notStored begins a refusal of a pool.
func notStored(pool string, err error) error { return prefixed("pool "+pool+" not stored: ", err) }

func prefixed(prefix string, err error) error {
	if err == nil {
		return nil
	}
	var p *problem.Error
	if !errors.As(err, &p) {
		return problem.Wrap(problem.CodeInvalid, err, "%s", prefix[:len(prefix)-2])
	}
	named := *p
	named.Detail = prefix + uidpool.WithoutStep(p.Detail)
	return &named
}

func dropNil(errs []error) []error {
	var out []error
	for _, err := range errs {
		if err != nil {
			out = append(out, err)
		}
	}
	return out
}
