package vlan

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/idpool/idpool/idset"
	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/seam"
)

// FileOptions say how a [FileInventory] is called and tested.
type FileOptions struct {
	// Name is what messages call the inventory; "" calls it by the file's name.
	Name string
	// Seam, if set, is where tests break the steps of a save, "file:pool:DEED", and
	// those of its lock, "file:pool-lock:DEED".
	Seam seam.Seam
}

// FileInventory is an [Inventory] in a pool file, for which [PoolFile] has the
// format. Other programs may use the file too.
//
// Allocate and Release load and save under an exclusive flock on a lock file
// beside the pool file, PATH.lock, in this process and across all others; Read and
// Find load under it, so that they wait for whoever is half way. A save writes
// another file, with mode and owner of the first, syncs it, puts it in its place
// and syncs the directory: whoever reads meets the file of before or of after,
// after a crash too. Hard links are refused, since a save would part them;
// extended attributes are not kept.
//
// A writer that does not take the lock is noticed as long as it is done before
// the last look at the file, right before the new one takes its place: then the
// call starts over, and after some times fails with ErrPrecondition.
//
// A call that changes nothing writes nothing. It waits for the lock until its
// context ends. What fails while the file is read or written is ErrInvalid (its
// content), ErrNotFound (there is none) or ErrUnavailable (the system's errors,
// as cause), and has changed nothing. ErrOutcomeUnknown says that the file has
// been changed and that the system did not promise to keep it so. Safe for
// concurrent use.
type FileInventory struct {
	path string
	name string
	seam seam.Seam
	turn chan struct{} // this process's own queue: holds one token while a call works
}

var _ Inventory = (*FileInventory)(nil)

// fileAttempts is how often a call starts over when it met another writer.
const fileAttempts = 5

// NewFileInventory returns the inventory of a pool file, which must exist and be
// readable: ErrNotFound says how to make one, ErrInvalid what is wrong with it. A
// path that is a symbolic link stands for its target of the moment.
func NewFileInventory(path string, o FileOptions) (*FileInventory, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, problem.Wrap(problem.CodeInvalid, err, "pool file %s", path)
	}
	f := &FileInventory{path: abs, name: o.Name, seam: o.Seam, turn: make(chan struct{}, 1)}
	if f.name == "" {
		f.name = filepath.Base(abs)
	}
	if _, err := f.open(); err != nil {
		return nil, err
	}
	return f, nil
}

// Allocate takes the lowest free VLAN that the choice allows, in two syncs. It is
// the one of [Inventory]; a keyed file needs a key, of 1 to 256 bytes of UTF-8, and
// one without keys ignores it.
func (f *FileInventory) Allocate(ctx context.Context, key string, c Choice) (uint32, error) {
	if err := c.valid(); err != nil {
		return 0, err
	}
	var got uint32
	err := f.change(ctx, func(p *PoolFile) (*PoolFile, error) {
		vid, held, err := f.pick(p, key, c)
		if got = vid; err != nil || held {
			return nil, err
		}
		next, err := p.withID(vid, key)
		if err != nil {
			return nil, problem.Wrap(problem.CodeInvalid, err, "inventory %s: VLAN %d not written to pool file %s", f.name, vid, f.path)
		}
		return next, nil
	})
	if err != nil {
		return 0, err
	}
	return got, nil
}

// Read is the one of [Inventory]; it writes nothing.
func (f *FileInventory) Read(ctx context.Context, vid uint32) (Entry, error) {
	var e Entry
	err := f.change(ctx, func(p *PoolFile) (*PoolFile, error) {
		e = p.Entry(vid)
		return nil, nil
	})
	return e, err
}

// Release is the one of [Inventory], in two syncs, or none where it is done
// already. In a keyed file the key "" frees what is in use without a key.
func (f *FileInventory) Release(ctx context.Context, vid uint32, key string) error {
	return f.change(ctx, func(p *PoolFile) (*PoolFile, error) {
		e := p.Entry(vid)
		if !e.Allocated || e.Keyed && e.Key != key {
			return nil, nil
		}
		next, err := p.withoutID(vid)
		if err != nil {
			return nil, problem.Wrap(problem.CodeInvalid, err, "inventory %s: VLAN %d not released in pool file %s", f.name, vid, f.path)
		}
		return next, nil
	})
}

// Find is the one of [Inventory]; it writes nothing.
func (f *FileInventory) Find(ctx context.Context, key string) (vid uint32, found bool, err error) {
	err = f.change(ctx, func(p *PoolFile) (*PoolFile, error) {
		if !p.Keyed() {
			return nil, problem.Wrap(problem.CodeInvalid, ErrNoKeys, "inventory %s: allocation key %q not looked for", f.name, key)
		}
		vid, found = p.allocations[key]
		return nil, nil
	})
	if err != nil {
		return 0, false, err
	}
	return vid, found, nil
}

// Contents is the file as it is now. It takes no lock.
func (f *FileInventory) Contents(ctx context.Context) (*PoolFile, error) {
	if ctx.Err() != nil {
		return nil, problem.Wrap(problem.CodeUnavailable, context.Cause(ctx), "inventory %s not read", f.name)
	}
	l, err := f.open()
	if err != nil {
		return nil, err
	}
	return l.pool, nil
}

// change loads the file under the lock and saves what decide makes of it; nil
// saves nothing.
func (f *FileInventory) change(ctx context.Context, decide func(p *PoolFile) (*PoolFile, error)) error {
	var err error
	for range fileAttempts {
		if err = f.changeOnce(ctx, decide); !errors.Is(err, problem.ErrPrecondition) {
			return err
		}
	}
	return err
}

func (f *FileInventory) changeOnce(ctx context.Context, decide func(p *PoolFile) (*PoolFile, error)) error {
	unlock, err := f.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	l, err := f.open()
	if err != nil {
		return err
	}
	// Nobody else makes such a file while the lock is ours: a crash left it.
	if err := f.seam.Remove("pool", l.temporary()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return f.failed(err, "what a crash left is not removed")
	}
	next, err := decide(l.pool)
	if err != nil {
		return err
	}
	if next != nil {
		if err := Guard(ctx); err != nil {
			return err
		}
		return f.save(l, next)
	}
	// What the caller goes by may be the work of one who was killed before this.
	if err := f.seam.SyncDir("pool", filepath.Dir(l.path)); err != nil {
		return f.failed(err, "its directory is not synced")
	}
	return nil
}

// pick says which VLAN a request gets, and whether it holds it already.
func (f *FileInventory) pick(p *PoolFile, key string, c Choice) (vid uint32, held bool, err error) {
	if p.Keyed() {
		if err := validOutsideKey(key); err != nil {
			return 0, false, err
		}
		if vid, ok := p.allocations[key]; ok {
			if !c.allows(vid) {
				return 0, false, f.conflict(key, vid, c)
			}
			return vid, true, nil
		}
	}
	pool := p.pool()
	if pool.IsEmpty() {
		return 0, false, problem.New(problem.CodeExhausted, "no VLAN can be allocated from %s: its range is empty", f.name).
			Note("pool file %s has the range [%d:%d[: \"from\" is inside of it, \"to\" is not", f.path, p.from, p.to)
	}
	if c.VID != nil {
		return *c.VID, false, f.refuseOne(p, pool, *c.VID)
	}
	vid, ok := c.lowest(pool, p.taken)
	if !ok {
		return 0, false, f.exhausted(p, c)
	}
	return vid, false, nil
}

func (f *FileInventory) conflict(key string, vid uint32, c Choice) error {
	asks := "a " + c.words()
	switch {
	case c.VID != nil:
		asks = "VLAN " + strconv.FormatUint(uint64(*c.VID), 10)
	case c.Parity != "":
		asks = "an " + c.words()
	}
	return problem.New(problem.CodeKeyConflict, "key %s already stands for VLAN %d of inventory %s; this request asks for %s", clipFileText(printable(key)), vid, f.name, asks).
		Note("a key names one request: use another key, or release VLAN %d first", vid)
}

// refuseOne says why one certain VLAN cannot be had; nil if it can.
func (f *FileInventory) refuseOne(p *PoolFile, pool idset.Set, vid uint32) error {
	e := p.Entry(vid)
	switch {
	case !pool.Contains(vid):
		return problem.New(problem.CodeOutsidePool, "VLAN %d is not in inventory %s (%s)", vid, f.name, clipFileText(pool.String()))
	case !e.Allocated:
		return nil
	case e.Key != "":
		return problem.New(problem.CodeHeld, "VLAN %d of inventory %s is held by key %s", vid, f.name, clipFileText(printable(e.Key))).
			By(problem.Holder{Key: e.Key})
	}
	return problem.New(problem.CodeHeld, "VLAN %d of inventory %s is in use; pool file %s does not say by whom", vid, f.name, f.path)
}

func (f *FileInventory) exhausted(p *PoolFile, c Choice) error {
	size, free := p.Size(), p.Free()
	text := fmt.Sprintf("inventory %s is exhausted: %d of %d VLANs free", f.name, free, size)
	if free > 0 {
		text = fmt.Sprintf("inventory %s has no %s left: %d of %d VLANs free, none of them fits", f.name, c.words(), free, size)
	}
	refusal := problem.New(problem.CodeExhausted, "%s", text).
		Note("%d used in pool file %s, version %d", size-free, f.path, p.version)
	refusal.Counts = map[string]uint64{"free": free, "used": size - free}
	return refusal
}
