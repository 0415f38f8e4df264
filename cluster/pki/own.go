package pki

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/idpool/idpool/problem"
)

// handOut gives every certificate of the directory a directory of its own below it,
// NAME: ca.crt, tls.crt and tls.key, and nobody else's key. What is as it should be
// there already is not touched.
func handOut(dir string) error {
	have, err := look(dir)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(have)) {
		if f := have[name]; name == CAName || f.bad != nil || !f.certFile {
			continue // whoever asks for it is told what is wrong with it
		}
		own := filepath.Join(dir, name)
		if err := os.MkdirAll(own, 0o700); err != nil {
			return problem.Wrap(problem.CodeInternal, err, "directory of %s", name)
		}
		// The key before its certificate: who reads in between finds that they do not fit,
		// and keeps what it had.
		for _, c := range []struct {
			from, to string
			mode     os.FileMode
		}{{CAName + ".crt", "ca.crt", 0o644}, {name + ".key", "tls.key", 0o600}, {name + ".crt", "tls.crt", 0o644}} {
			if err := copyFile(filepath.Join(dir, c.from), filepath.Join(own, c.to), c.mode); err != nil {
				return err
			}
		}
	}
	return nil
}

// copyFile makes a file as another is, whole or not at all, if it is not that.
func copyFile(from, to string, mode os.FileMode) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return problem.Wrap(problem.CodeInternal, err, "hand out")
	}
	switch there, err := os.ReadFile(to); {
	case err == nil && bytes.Equal(there, data):
		return nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return problem.Wrap(problem.CodeInternal, err, "hand out")
	}
	return write(to, data, mode)
}
