package seam

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
)

// Replace puts data into a file's place, for its owner alone, so that whoever reads it
// meets the old content or the new, after a crash and a power failure too: another
// file, NAME.tmp, is written and synced, takes the place, and the directory is synced.
// The steps are "file:WHAT:" with create, write, sync, rename and syncdir.
func (s Seam) Replace(what, path string, data []byte) error {
	tmp := path + ".tmp"
	if err := s.Create(what, tmp, os.O_TRUNC, data, nil); err != nil {
		return err
	}
	if err := s.Rename(what, tmp, path); err != nil {
		return err
	}
	return s.SyncDir(what, filepath.Dir(path))
}

// Create writes a file, for its owner alone, and syncs it: the steps create, write
// and sync. flags are added to those of a file that is made and written. like, if not
// nil, sets owner and mode, as a part of the writing.
func (s Seam) Create(what, path string, flags int, data []byte, like func(*os.File) error) error {
	var f *os.File
	err := s.Do("file:"+what+":create", func() (err error) {
		f, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|flags, 0o600)
		return err
	})
	if f == nil {
		return err
	}
	if err == nil {
		err = s.Do("file:"+what+":write", func() error {
			_, err := f.Write(data)
			if err == nil && like != nil {
				err = like(f)
			}
			return err
		})
	}
	if err == nil {
		err = s.Do("file:"+what+":sync", f.Sync)
	}
	return errors.Join(err, f.Close())
}

// Rename is os.Rename, the step rename.
func (s Seam) Rename(what, from, to string) error {
	return s.Do("file:"+what+":rename", func() error { return os.Rename(from, to) })
}

// Remove is os.Remove, the step remove.
func (s Seam) Remove(what, path string) error {
	return s.Do("file:"+what+":remove", func() error { return os.Remove(path) })
}

// SyncDir makes what is named in a directory last, the step syncdir. Some file
// systems cannot, and say so; that is no error.
func (s Seam) SyncDir(what, path string) error {
	return s.Do("file:"+what+":syncdir", func() error {
		d, err := os.Open(path)
		if err != nil {
			return err
		}
		err = d.Sync()
		if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
			err = nil
		}
		return errors.Join(err, d.Close())
	})
}
