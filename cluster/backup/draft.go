package backup

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/idpool/idpool/problem"
	"github.com/idpool/idpool/seam"
)

// draft is a file that takes its name when it is whole.
type draft struct {
	*os.File
	path  string
	force bool
	seam  seam.Seam
}

// newDraft makes an empty file beside path, for its owner alone.
func newDraft(path string, force bool, s seam.Seam) (*draft, error) {
	if err := placeable(path, force); err != nil {
		return nil, err
	}
	d := &draft{path: path, force: force, seam: s}
	err := s.Do("file:backup:create", func() (err error) {
		d.File, err = os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.part")
		return err
	})
	if err != nil {
		return nil, problem.New(problem.CodeInvalid, "%s cannot be made: %v", path, bare(err))
	}
	return d, nil
}

// placeable refuses a name that must not get a new file.
func placeable(path string, force bool) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return problem.New(problem.CodeInvalid, "%s cannot be made: %v", path, bare(err))
	case info.IsDir():
		return problem.New(problem.CodeInvalid, "%s is a directory: name a file in it", path)
	case !info.Mode().IsRegular():
		return problem.New(problem.CodeInvalid, "%s is no regular file and is not replaced: name another", path)
	case !force:
		return taken(path)
	}
	return nil
}

func taken(path string) error {
	return problem.New(problem.CodeHeld, "%s is there already and was left as it is", path).Advise("name another file, or replace it", "--force")
}

// publish syncs the file and gives it its name.
func (d *draft) publish() error {
	if err := d.seam.Do("file:backup:sync", d.Sync); err != nil {
		return d.unwritten(err)
	}
	err := d.seam.Do("file:backup:rename", d.place)
	if errors.Is(err, fs.ErrExist) {
		return taken(d.path)
	}
	if err == nil {
		err = d.seam.SyncDir("backup", filepath.Dir(d.path))
	}
	if err != nil {
		return d.unwritten(err)
	}
	return nil
}

// place links where it must not replace, since a rename would.
func (d *draft) place() error {
	if d.force {
		return os.Rename(d.Name(), d.path)
	}
	err := os.Link(d.Name(), d.path)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	// A file system without links: look, and rename.
	if err := placeable(d.path, false); err != nil {
		return fs.ErrExist
	}
	return os.Rename(d.Name(), d.path)
}

// end closes the draft and removes what is left of it. Call it always.
func (d *draft) end() {
	_ = d.Close()
	_ = os.Remove(d.Name())
}

// unwritten is the refusal of a file that the disk did not take.
func (d *draft) unwritten(err error) error {
	return &problem.Error{Code: problem.CodeUnavailable, Detail: d.path + " not written: " + bare(err).Error() + "; nothing was kept", Cause: err}
}

// bare is an error without the path of the temporary file.
func bare(err error) error {
	var p *fs.PathError
	var l *os.LinkError
	switch {
	case errors.As(err, &p):
		return p.Err
	case errors.As(err, &l):
		return l.Err
	}
	return err
}
