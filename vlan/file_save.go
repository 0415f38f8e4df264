package vlan

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/idpool/idpool/problem"
)

var errIrregular = errors.New("is no regular file")

// loaded is a pool file as it was found.
type loaded struct {
	path string // without symbolic links
	info fs.FileInfo
	pool *PoolFile
}

// temporary is the file that a save writes first. One name will do, since one
// process at a time has the lock.
func (l *loaded) temporary() string {
	return filepath.Join(filepath.Dir(l.path), "."+filepath.Base(l.path)+".idpool-new")
}

// open loads the file.
func (f *FileInventory) open() (*loaded, error) {
	path, err := filepath.EvalSymlinks(f.path)
	if err != nil {
		return nil, f.missing(err)
	}
	data, info, err := readRegular(path)
	if err != nil {
		return nil, f.missing(err)
	}
	pool, err := readPoolFile(data)
	if err != nil {
		return nil, problem.Wrap(problem.CodeInvalid, err, "inventory %s: pool file %s not read", f.name, f.path)
	}
	return &loaded{path: path, info: info, pool: pool}, nil
}

// readRegular reads a file, a little more than the most that is allowed at most.
// It does not wait for the other end of a pipe.
func readRegular(path string) ([]byte, fs.FileInfo, error) {
	r, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	defer r.Close()
	info, err := r.Stat()
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, &fs.PathError{Op: "read", Path: path, Err: errIrregular}
	}
	data, err := io.ReadAll(io.LimitReader(r, maxPoolFile+1))
	return data, info, err
}

// missing says what to do about a file that is not there, or is not one.
func (f *FileInventory) missing(err error) error {
	if errors.Is(err, errIrregular) {
		return problem.Wrap(problem.CodeInvalid, err, "inventory %s: pool file %s not read", f.name, f.path)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return f.failed(err, "it is not read")
	}
	if _, e := os.Stat(filepath.Dir(f.path)); errors.Is(e, fs.ErrNotExist) {
		return problem.New(problem.CodeNotFound, "inventory %s: pool file %s cannot be: there is no directory %s", f.name, f.path, filepath.Dir(f.path))
	}
	return problem.New(problem.CodeNotFound, "inventory %s: there is no pool file %s", f.name, f.path).
		Advise("make one, of VLANs 100 to 199", `echo '{"range":{"from":100,"to":200},"allocations":{}}' >%s`, shellQuote(f.path))
}

func shellQuote(path string) string {
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}

// failed is an error of the system before which nothing was changed.
func (f *FileInventory) failed(err error, what string) error {
	return problem.Wrap(problem.CodeUnavailable, err, "inventory %s: pool file %s: %s, and nothing was changed", f.name, f.path, what)
}

// save puts next in the place of what was loaded, or leaves all as it was.
func (f *FileInventory) save(l *loaded, next *PoolFile) error {
	if stat, ok := l.info.Sys().(*syscall.Stat_t); ok && stat.Nlink > 1 {
		return problem.New(problem.CodeInvalid, "inventory %s: pool file %s has %d names (hard links), which a save would part", f.name, f.path, stat.Nlink)
	}
	like := func(w *os.File) error {
		if err := ownLike(w, l.info); err != nil {
			return err
		}
		return w.Chmod(l.info.Mode() & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky))
	}
	if err := f.seam.Create("pool", l.temporary(), os.O_EXCL, next.data, like); err != nil {
		_ = f.seam.Remove("pool", l.temporary())
		return f.failed(err, "it is not written")
	}
	if err := f.unchanged(l); err != nil {
		_ = f.seam.Remove("pool", l.temporary())
		return err
	}
	if err := f.seam.Rename("pool", l.temporary(), l.path); err != nil {
		_ = f.seam.Remove("pool", l.temporary())
		if f.unchanged(l) != nil { // a network's file system may lose the answer alone
			return problem.Wrap(problem.CodeOutcomeUnknown, err, "inventory %s: pool file %s: the system did not say whether it was written", f.name, f.path)
		}
		return f.failed(err, "it is not written")
	}
	if err := f.seam.SyncDir("pool", filepath.Dir(l.path)); err != nil {
		return problem.Wrap(problem.CodeOutcomeUnknown, err,
			"inventory %s: pool file %s is written, and a power failure may still undo it", f.name, f.path)
	}
	return nil
}

// unchanged refuses when the file is not what was loaded any more.
func (f *FileInventory) unchanged(l *loaded) error {
	path, err := filepath.EvalSymlinks(f.path)
	if err != nil {
		return f.missing(err)
	}
	data, _, err := readRegular(path)
	if err != nil {
		return f.missing(err)
	}
	if path == l.path && bytes.Equal(data, l.pool.data) {
		return nil
	}
	now := "now it cannot be read"
	if p, err := readPoolFile(data); err == nil {
		now = "now it has version " + strconv.FormatUint(p.version, 10)
	}
	return problem.New(problem.CodePrecondition, "inventory %s: pool file %s was changed by another writer between load and save: nothing was written", f.name, f.path).
		Note("it was loaded with version %d, %s", l.pool.version, now).
		Note("that writer does not take the lock %s", lockPath(l.path))
}

// ownLike gives a file the owner of another, if it has not got it.
func ownLike(w *os.File, like fs.FileInfo) error {
	info, err := w.Stat()
	if err != nil {
		return err
	}
	has, ok1 := info.Sys().(*syscall.Stat_t)
	wants, ok2 := like.Sys().(*syscall.Stat_t)
	if !ok1 || !ok2 || has.Uid == wants.Uid && has.Gid == wants.Gid {
		return nil
	}
	return w.Chown(int(wants.Uid), int(wants.Gid))
}
