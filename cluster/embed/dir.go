package embed

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/google/uuid"

	"github.com/idpool/idpool/problem"
)

const (
	// maxSocket is the longest socket path used, in bytes; the kernel ends at 107.
	maxSocket = 99
	lockName  = "lock"
	tokenName = "token"
	dataName  = "data"
	sockName  = "sock"
)

// dir is the server's own directory, locked.
type dir struct {
	path string
	lock *os.File
	// temporary is the socket's directory where it is not path.
	temporary string
}

// openDir makes and locks Config.Dir/etcd.
func openDir(parent string) (*dir, error) {
	abs, err := filepath.Abs(parent)
	if err != nil {
		return nil, problem.Wrap(problem.CodeInvalid, err, "embedded etcd: directory %s", parent)
	}
	if info, err := os.Stat(abs); err == nil && !info.IsDir() {
		return nil, invalid("%s is no directory: name one, or a path that does not exist yet", abs)
	}
	d := &dir{path: filepath.Join(abs, "etcd")}
	if err := os.MkdirAll(d.path, 0o700); err != nil {
		return nil, problem.Wrap(problem.CodeInvalid, err, "embedded etcd: data directory")
	}
	// The socket asks for no certificate: the directory is what guards it.
	if err := os.Chmod(d.path, 0o700); err != nil {
		return nil, problem.Wrap(problem.CodeInvalid, err, "embedded etcd: data directory")
	}
	if err := d.takeLock(); err != nil {
		return nil, err
	}
	return d, nil
}

func (d *dir) takeLock() error {
	f, err := os.OpenFile(filepath.Join(d.path, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return problem.Wrap(problem.CodeInvalid, err, "embedded etcd: lock file")
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		by := lockedBy(f)
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return problem.New(problem.CodeHeld, "embedded etcd: data directory %s is in use by %s: stop it or name another directory", d.path, by)
		}
		return problem.Wrap(problem.CodeInternal, err, "embedded etcd: lock %s", d.path)
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		_ = f.Close()
		return problem.Wrap(problem.CodeInternal, err, "embedded etcd: lock file of %s", d.path)
	}
	d.lock = f
	return nil
}

// lockedBy reads who wrote the lock file.
func lockedBy(f *os.File) string {
	buf := make([]byte, 20)
	n, _ := f.ReadAt(buf, 0)
	pid := strings.TrimSpace(string(buf[:n]))
	if _, err := strconv.Atoi(pid); err != nil {
		return "another process"
	}
	return "pid " + pid
}

// token returns the token kept beside the data, making one where there is none.
// A given one is kept, and has to be the one already there.
func (d *dir) token(given string) (string, error) {
	path := filepath.Join(d.path, tokenName)
	data, err := os.ReadFile(path)
	if err == nil {
		kept := strings.TrimSpace(string(data))
		switch {
		case kept == "":
			return "", invalid("token file %s is empty: restore it, or move the whole directory away to start anew", path)
		case given != "" && given != kept:
			return "", invalid("token %q differs from the one of this directory's data, %s", given, path)
		}
		return kept, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", problem.Wrap(problem.CodeInternal, err, "embedded etcd: cluster token")
	}
	if given == "" {
		given = "idpool-" + uuid.NewString()
	}
	if err := writeDurably(d.path, tokenName, given+"\n"); err != nil {
		return "", problem.Wrap(problem.CodeInternal, err, "embedded etcd: cluster token")
	}
	return given, nil
}

// writeDurably writes a file that is there whole or not at all after a crash.
func writeDurably(dir, name, content string) error {
	f, err := os.CreateTemp(dir, name+".*")
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, name))
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// socket returns the path for the Unix socket, with nothing there.
func (d *dir) socket() (string, error) {
	path := filepath.Join(d.path, sockName)
	if !socketPath(path) {
		for _, parent := range []string{os.TempDir(), "/tmp"} {
			tmp, err := os.MkdirTemp(parent, "idpool-")
			if err != nil {
				continue
			}
			d.temporary, path = tmp, filepath.Join(tmp, sockName)
			if socketPath(path) {
				return path, nil
			}
			_ = os.Remove(tmp)
			d.temporary = ""
		}
		return "", invalid("no place for a socket: the path of %s has %d bytes or more, and so has a temporary one: use a shorter directory", d.path, maxSocket)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", problem.Wrap(problem.CodeInternal, err, "embedded etcd: old socket")
	}
	return path, nil
}

// socketPath reports whether a path fits into a socket address and stands for
// itself in a URL.
func socketPath(path string) bool {
	plain := strings.IndexFunc(path, func(r rune) bool {
		return r > '~' || r <= ' ' || strings.ContainsRune(`%?#"<>\^{}|,`+"`", r)
	}) < 0
	return plain && len(path) <= maxSocket
}

// close gives the directory back. The lock file stays: removing it would let two
// processes lock two files of one name.
func (d *dir) close() error {
	var err error
	if d.temporary != "" {
		err = os.RemoveAll(d.temporary)
	}
	if e := d.lock.Close(); e != nil {
		err = errors.Join(err, fmt.Errorf("unlock %s: %w", d.path, e))
	}
	return err
}
