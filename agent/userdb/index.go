package userdb

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"
)

// ErrNotKnown is returned when nobody can tell now which uids are granted.
var ErrNotKnown = errors.New("it is not known which uids are granted")

const (
	// minPause is the least time between two snapshots; a costly one is made the more
	// rarely, so that a host that asks all the time spends a twentieth on it.
	minPause = 50 * time.Millisecond
	maxPause = time.Second
	share    = 20
)

// Source tells what is granted.
type Source interface {
	// Changes is a channel that is another one after every change, and closed at the
	// next; nil while nothing is known.
	Changes() <-chan struct{}
	// Grants are the grants of the spaces that matter here.
	Grants() []Grant
}

// Index finds names in a snapshot that it renews when it must.
type Index struct {
	src    Source
	prefix string
	files  []string
	now    func() time.Time

	mu sync.Mutex // guards the fields below
	// snap is of what the source's channel was at, and of the files as stamps says.
	snap   *Snapshot
	at     <-chan struct{}
	stamps [2]stamp
	made   time.Time // when its making began
	next   time.Time // no new snapshot before
}

// NewIndex returns an index whose names begin with prefix and are none of /etc/passwd
// and /etc/group.
func NewIndex(src Source, prefix string) *Index {
	return &Index{src: src, prefix: prefix, files: []string{"/etc/passwd", "/etc/group"}, now: time.Now}
}

// Snapshot is the names now, or those of a moment ago, at most a second.
func (x *Index) Snapshot() (*Snapshot, error) {
	s, _, err := x.renew(x.now())
	return s, err
}

// renew makes a snapshot where one is due; wait is how long the one returned may not
// be replaced although there are changes since, and it was made before asked.
func (x *Index) renew(asked time.Time) (s *Snapshot, wait time.Duration, err error) {
	at := x.src.Changes()
	if at == nil {
		return nil, 0, ErrNotKnown
	}
	stamps := stampsOf(x.files)
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.snap != nil && x.at == at && x.stamps == stamps {
		return x.snap, 0, nil
	}
	began := x.now()
	if wait = x.next.Sub(began); x.snap != nil && x.stamps == stamps && wait > 0 {
		if x.made.After(asked) {
			wait = 0
		}
		return x.snap, wait, nil
	}
	l, err := readLocal(x.files)
	if err != nil {
		return nil, 0, err
	}
	x.at, x.stamps, x.made, x.snap = at, stamps, began, newSnapshot(x.prefix, x.src.Grants(), l)
	ended := x.now()
	x.next = ended.Add(min(maxPause, max(minPause, share*ended.Sub(began))))
	return x.snap, 0, nil
}

// until shows snapshots until one is enough, or was made after the question.
func (x *Index) until(ctx context.Context, enough func(*Snapshot) bool) error {
	asked := x.now()
	for {
		s, wait, err := x.renew(asked)
		if err != nil {
			return err
		}
		if enough(s) || wait == 0 {
			return nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ErrNotKnown
		}
	}
}

func (x *Index) find(ctx context.Context, look func(*Snapshot) (Record, bool)) (r Record, ok bool, err error) {
	err = x.until(ctx, func(s *Snapshot) bool {
		r, ok = look(s)
		return ok
	})
	return r, ok && err == nil, err
}

// fresh is the names of now.
func (x *Index) fresh(ctx context.Context) (last *Snapshot, err error) {
	err = x.until(ctx, func(s *Snapshot) bool {
		last = s
		return false
	})
	return last, err
}

// ByUID is the record of a uid.
func (x *Index) ByUID(ctx context.Context, uid uint32) (Record, bool, error) {
	return x.find(ctx, func(s *Snapshot) (Record, bool) { return s.ByUID(uid) })
}

// ByName is the record of a name. One that cannot be ours costs nothing: hosts ask
// about every name.
func (x *Index) ByName(ctx context.Context, name string) (Record, bool, error) {
	if !strings.HasPrefix(name, x.prefix) {
		return Record{}, false, nil
	}
	return x.find(ctx, func(s *Snapshot) (Record, bool) { return s.ByName(name) })
}
