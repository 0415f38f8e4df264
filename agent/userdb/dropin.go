package userdb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/idpool/idpool/seam"
)

const (
	// maxDropIn bounds the uids that have files.
	maxDropIn = 10_000
	// settle is the rest after a change, so that a burst of them is one.
	settle = 200 * time.Millisecond
	// again is when what failed is tried again, and what others did is noticed.
	again = 10 * time.Second
	// maxRecord bounds a record that is read back.
	maxRecord = 1 << 16
)

// dropService is the service that records in files are of.
const dropService = "io.idpool"

var fileShape = regexp.MustCompile(`^([^.]+)\.(user|group)$`)

// DropIn keeps one directory's records of the uids that are granted on this node:
// NAME.user and NAME.group, and the links UID.user and UID.group. It touches no file
// that it, or this node's agent before it, has not written.
type DropIn struct {
	index     *Index
	dir, node string
	seam      seam.Seam
	log       *zap.Logger
	said      string // the last warning, so that it is said once
	// done are the records that the directory had at a time, if all went well.
	done []Record
	at   time.Time
}

// NewDropIn returns one for a directory that this user alone may write to.
func NewDropIn(index *Index, dir, node string, s seam.Seam, log *zap.Logger) *DropIn {
	return &DropIn{index: index, dir: dir, node: node, seam: s, log: log}
}

// Run keeps the records until ctx ends, and leaves them there: processes outlive the
// agent. What cannot be written is a warning.
func (d *DropIn) Run(ctx context.Context) error {
	for {
		changes := d.index.src.Changes()
		if err := d.sync(ctx); err != nil && !errors.Is(err, ErrNotKnown) {
			if text := err.Error(); text != d.said {
				d.said = text
				d.log.Warn("names are not written", zap.String("dir", d.dir), zap.Error(err))
			}
		} else if err == nil {
			d.said = ""
		}
		long := time.NewTimer(again)
		if changes == nil {
			long.Reset(settle)
		}
		select {
		case <-changes:
		case <-long.C:
		case <-ctx.Done():
		}
		long.Stop()
		short := time.NewTimer(settle)
		select {
		case <-short.C:
		case <-ctx.Done():
			short.Stop()
			return nil
		}
	}
}

// sync makes the directory what the names are.
func (d *DropIn) sync(ctx context.Context) error {
	snap, err := d.index.fresh(ctx)
	if err != nil {
		return err
	}
	records, more := first(snap.here(), maxDropIn)
	if !d.at.IsZero() && time.Since(d.at) < again && slices.Equal(records, d.done) {
		return nil
	}
	d.at = time.Time{}
	want, err := d.wanted(records)
	if err != nil {
		return err
	}
	if err := d.prepare(); err != nil {
		return err
	}
	have, err := d.present()
	if err != nil {
		return err
	}
	var all []error
	for _, name := range slices.Sorted(maps.Keys(have)) {
		if f := have[name]; f.ours && want[name] != f.content {
			if _, stays := want[name]; !stays {
				all = append(all, d.seam.Remove("userdb", filepath.Join(d.dir, name)))
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		switch f, there := have[name]; {
		case !there, f.ours && f.content != want[name]:
			all = append(all, d.write(name, want[name]))
		case !f.ours:
			all = append(all, fmt.Errorf("%s is not this agent's: it stays", filepath.Join(d.dir, name)))
		}
	}
	if more {
		all = append(all, fmt.Errorf("more than %d uids are granted here: the others have no files", maxDropIn))
	}
	if err := errors.Join(all...); err != nil {
		return err
	}
	d.done, d.at = records, time.Now()
	return nil
}

// first are n of all, and whether there are more.
func first(all iter.Seq[Record], n int) (records []Record, more bool) {
	for r := range all {
		if len(records) == n {
			return records, true
		}
		records = append(records, r)
	}
	return records, false
}

// link begins the content of a link; a record begins with a brace.
const link = "->"

// wanted are the files by name.
func (d *DropIn) wanted(records []Record) (map[string]string, error) {
	files, m := map[string]string{}, &mark{d.node}
	for _, r := range records {
		user, err := json.Marshal(r.user(dropService, m))
		if err != nil {
			return nil, err
		}
		group, err := json.Marshal(r.group(dropService, m))
		if err != nil {
			return nil, err
		}
		number := strconv.FormatUint(uint64(r.UID), 10)
		files[r.Name+".user"], files[r.Name+".group"] = string(user)+"\n", string(group)+"\n"
		files[number+".user"], files[number+".group"] = link+r.Name+".user", link+r.Name+".group"
	}
	return files, nil
}

// prepare makes the directory, and refuses one that others may write to: they could
// put links where we write.
func (d *DropIn) prepare() error {
	err := d.seam.Do("file:userdb-dir:create", func() error { return os.MkdirAll(d.dir, 0o755) })
	if err != nil {
		return err
	}
	info, err := os.Stat(d.dir)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("others may write to %s (%s): nothing is written there", d.dir, info.Mode())
	}
	return nil
}

// file is what stands under a name.
type file struct {
	content string
	ours    bool
}

// present are the directory's records and links.
func (d *DropIn) present() (map[string]file, error) {
	list, err := os.ReadDir(d.dir)
	if err != nil {
		return nil, err
	}
	have := map[string]file{}
	for _, e := range list {
		if !fileShape.MatchString(e.Name()) || e.Type() == fs.ModeSymlink {
			continue
		}
		f := file{}
		if e.Type().IsRegular() {
			f = d.read(e.Name())
		}
		have[e.Name()] = f
	}
	for _, e := range list {
		m := fileShape.FindStringSubmatch(e.Name())
		if m == nil || e.Type() != fs.ModeSymlink {
			continue
		}
		to, _ := os.Readlink(filepath.Join(d.dir, e.Name()))
		f := file{content: link + to}
		if target, there := have[to]; digits.MatchString(m[1]) {
			// A link to nothing that bears our prefix is what a crash left.
			f.ours = target.ours || !there && fileShape.MatchString(to) && strings.HasPrefix(to, d.index.prefix)
		}
		have[e.Name()] = f
	}
	return have, nil
}

// read tells whether a record is ours, and what it says.
func (d *DropIn) read(name string) file {
	f, err := os.Open(filepath.Join(d.dir, name))
	if err != nil {
		return file{}
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxRecord))
	if err != nil {
		return file{}
	}
	var m struct {
		Mark *mark `json:"io.idpool"`
	}
	if json.Unmarshal(raw, &m) != nil || m.Mark == nil || m.Mark.Node != d.node {
		return file{}
	}
	return file{string(raw), true}
}

// write puts a record or a link in its place, whole or not at all.
func (d *DropIn) write(name, content string) error {
	path := filepath.Join(d.dir, name)
	tmp := path + ".tmp"
	if to, ok := strings.CutPrefix(content, link); ok {
		err := d.seam.Do("file:userdb:link", func() error {
			if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			return os.Symlink(to, tmp)
		})
		if err != nil {
			return err
		}
		return d.seam.Rename("userdb", tmp, path)
	}
	readable := func(f *os.File) error { return f.Chmod(0o644) }
	if err := d.seam.Create("userdb", tmp, os.O_TRUNC, []byte(content), readable); err != nil {
		return err
	}
	return d.seam.Rename("userdb", tmp, path)
}
