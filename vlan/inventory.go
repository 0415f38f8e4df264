package vlan

import (
	"context"
	"errors"
	"unicode/utf8"

	"github.com/idpool/idpool/cluster"
	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/problem"
)

// ErrNoKeys is returned when an inventory is asked for an allocation key and
// keeps none: who has a VLAN of it cannot be told.
var ErrNoKeys = errors.New("the inventory keeps no allocation keys")

// Inventory is a VLAN inventory that lives outside of etcd, such as a pool file.
// [FileInventory] is one.
//
// Implementations are safe for concurrent use. Errors match the sentinels of
// package problem; besides those named below, ErrUnavailable means that nothing
// was done, and ErrOutcomeUnknown that the same call has to be repeated.
type Inventory interface {
	// Allocate takes a VLAN that the choice allows. It is idempotent by key where
	// the inventory has keys: the same key gets the same VLAN, and ErrKeyConflict
	// if that is not one that the choice allows. Without keys each call takes
	// another VLAN. ErrExhausted: none is left, or none that fits. ErrHeld,
	// ErrOutsidePool: of the one VLAN that was asked for.
	Allocate(ctx context.Context, key string, c Choice) (uint32, error)
	// Read tells whether a VLAN is allocated, and under which key. A VLAN that
	// the inventory does not have is not allocated, which is no error.
	Read(ctx context.Context, vid uint32) (Entry, error)
	// Release frees a VLAN: it reads, then deletes. What is free already, or is
	// allocated under another key, is done: nil, and nothing is written. Where the
	// inventory has no keys, the VLAN is freed whoever has it.
	Release(ctx context.Context, vid uint32, key string) error
	// Find tells which VLAN stands under a key. "Not found" is true of a moment
	// at which nobody was half way through an Allocate. ErrNoKeys where the
	// inventory has none.
	Find(ctx context.Context, key string) (vid uint32, found bool, err error)
}

// guardKey is the context's key of a guard.
type guardKey struct{}

// Guarded returns a context under which an inventory, once it alone can change
// its content and right before it does, asks guard whether that is still right. An
// error of guard is returned, and nothing is changed.
func Guarded(ctx context.Context, guard func(context.Context) error) context.Context {
	return context.WithValue(ctx, guardKey{}, guard)
}

// Guard asks the guard of a context, if it has one; for implementations of
// [Inventory].
func Guard(ctx context.Context) error {
	if guard, ok := ctx.Value(guardKey{}).(func(context.Context) error); ok {
		return guard(ctx)
	}
	return nil
}

// Choice is what Allocate may take. The zero value allows every free VLAN.
type Choice struct {
	// VID is the one VLAN that will do, nil for any. 0 is a VLAN.
	VID *uint32
	// Parity is "odd", "even", or "" for both.
	Parity string
	// Exclude are VLANs that will not do.
	Exclude idset.Set
}

// Entry is what an inventory knows of one VLAN.
type Entry struct {
	VID       uint32
	Allocated bool
	// Key is the allocation key, "" if the VLAN is free or in use without a key.
	Key string
	// Keyed is whether the inventory knows keys at all.
	Keyed bool
}

// The values of Choice.Parity.
const (
	parityOdd  = "odd"
	parityEven = "even"
)

// valid refuses a choice that can never be met.
func (c Choice) valid() error {
	if c.Parity != "" && c.Parity != parityOdd && c.Parity != parityEven {
		return problem.New(problem.CodeInvalid, "parity %.20q: want %q, %q or nothing", c.Parity, parityOdd, parityEven)
	}
	switch {
	case c.VID == nil:
		return nil
	case !c.fitsParity(*c.VID):
		return problem.New(problem.CodeInvalid, "VLAN %d is asked for and is not %s, as the same request wants", *c.VID, c.Parity)
	case c.Exclude.Contains(*c.VID):
		return problem.New(problem.CodeInvalid, "VLAN %d is asked for and excluded by the same request", *c.VID)
	}
	return nil
}

// allows reports whether a VLAN is among those that will do.
func (c Choice) allows(vid uint32) bool {
	if c.VID != nil && *c.VID != vid {
		return false
	}
	return c.fitsParity(vid) && !c.Exclude.Contains(vid)
}

func (c Choice) fitsParity(vid uint32) bool {
	return c.Parity == "" || (c.Parity == parityOdd) == (vid%2 == 1)
}

// words are what the choice wants besides a certain VLAN: "odd VLAN outside of 1-5".
func (c Choice) words() string {
	text := "VLAN"
	if c.Parity != "" {
		text = c.Parity + " VLAN"
	}
	if !c.Exclude.IsEmpty() {
		text += " outside of " + clipFileText(c.Exclude.String())
	}
	return text
}

// lowest returns the lowest VLAN of the range that is neither taken nor ruled
// out. Its cost is that of the ranges that are taken, not of the VLANs in them.
func (c Choice) lowest(pool, taken idset.Set) (uint32, bool) {
	taken = taken.Add(c.Exclude)
	from := uint32(0)
	for {
		vid, ok := pool.NextWithout(taken, from)
		if !ok || c.fitsParity(vid) {
			return vid, ok
		}
		// The neighbour has the other parity: if it is not free either, this
		// goes on past what it belongs to.
		if vid == 1<<32-1 {
			return 0, false
		}
		from = vid + 1
	}
}

// validOutsideKey reports why a key cannot be written into an outside inventory.
func validOutsideKey(key string) error {
	if err := cluster.ValidText("allocation key", key); err != nil {
		return err
	}
	if !utf8.ValidString(key) {
		return problem.New(problem.CodeInvalid, "allocation key %q is not UTF-8, which an outside inventory needs", key)
	}
	return nil
}
